import com.google.protobuf.ByteString;
import io.grpc.*;
import io.outrigger.v1.*;
import io.outrigger.v1.Record;
import java.util.List;
import java.util.concurrent.*;
import java.util.stream.IntStream;
import sun.misc.Signal;

/** Publishes a few records through the sidecar, then prints and acknowledges what arrives, until SIGTERM or until the sidecar drains. */
public final class App {
    public static void main(String[] arguments) throws Exception {
        String topic = arguments[0], group = arguments[1];
        // On a Unix socket grpc-java would call the server by the socket's path, and HTTP/2 servers refuse such a name.
        var channel = Grpc.newChannelBuilder(System.getenv("OUTRIGGER_ADDRESS"), InsecureChannelCredentials.create()).overrideAuthority("localhost").build();

        // Many records to a message: that is where the throughput comes from.
        var records = IntStream.range(0, 10).mapToObj(n -> Record.newBuilder().setTopic(topic).setKey(ByteString.copyFromUtf8("key-" + n))
            .setValue(ByteString.copyFromUtf8(n + " from Java")).build()).toList();
        var publication = PublisherServiceGrpc.newBlockingV2Stub(channel).withDeadlineAfter(30, TimeUnit.SECONDS).publishStream();
        publication.write(PublishStreamRequest.newBuilder().setOpen(PublishOpen.getDefaultInstance()).build());
        publication.write(PublishStreamRequest.newBuilder().setBatch(PublishBatch.newBuilder().setSequence(1).addAllRecords(records)).build());
        publication.halfClose();
        while (publication.hasNext()) {
            for (BatchAck ack : publication.read().getAcks().getAcksList()) {
                System.out.printf("published: partitions %s offsets %s failures %s%n", ack.getPartitionsList(), ack.getOffsetsList(), ack.getNotesList());
            }
        }

        // A call takes one writing thread beside the reading one: it writes the acknowledgements, and the end after a signal. Asked to drain,
        // the sidecar ends the stream, without an error, when everything delivered is settled.
        var subscription = SubscriberServiceGrpc.newBlockingV2Stub(channel).subscribe();
        var init = Init.newBuilder().setGroup(group).addTopics(topic).setOrdering(Ordering.ORDERING_PARTITION).setConfirm(Confirm.CONFIRM_RECORDED);
        subscription.write(SubscribeRequest.newBuilder().setInit(init).build());
        ExecutorService writer = Executors.newSingleThreadExecutor(task -> {
            Thread thread = new Thread(task);
            thread.setDaemon(true);
            return thread;
        });
        Runnable drain = () -> writer.submit(() -> subscription.write(SubscribeRequest.newBuilder().setDrain(Drain.getDefaultInstance()).build()));
        for (String name : List.of("INT", "TERM")) Signal.handle(new Signal(name), signal -> drain.run());
        for (long requestId = 1; subscription.hasNext(); requestId++) {
            SubscribeResponse response = subscription.read();
            var settle = Settle.newBuilder().setRequestId(requestId);
            for (Delivery delivery : response.getDeliveries().getDeliveriesList()) {
                Record record = delivery.getRecord();
                System.out.printf("received: %s[%d]@%d %s%n", topic, record.getPartition(), delivery.getOffset(), record.getValue().toStringUtf8());
                settle.addItems(SettleItem.newBuilder().setToken(delivery.getToken()).setAck(Ack.getDefaultInstance()));
            }
            if (response.hasDeliveries()) writer.submit(() -> subscription.write(SubscribeRequest.newBuilder().setSettle(settle).build()));
            if (response.hasDraining()) drain.run();
        }
        channel.shutdown();
    }
}
