// Ten thousand messages of one record and 1 to 170 bytes, to a sidecar that stands still meanwhile and then goes on, as small_messages.py sends them from
// Python. Proves: the connection stays open, and each record is answered with its place. Exit code 0: proven. What hangs fails.
//
// Run in the directory of the built Java example, which has the stubs: java -cp 'target/app.jar:target/lib/*' tests/java/SmallMessages.java ADDRESS TOPIC PID

import com.google.protobuf.ByteString;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.outrigger.v1.*;
import io.outrigger.v1.Record;
import java.util.concurrent.TimeUnit;

public class SmallMessages {
    static final int COUNT = 10_000;

    public static void main(String[] arguments) throws Exception {
        String topic = arguments[1], pid = arguments[2];
        var channel = Grpc.newChannelBuilder(arguments[0], InsecureChannelCredentials.create()).build();
        var stream = PublisherServiceGrpc.newBlockingV2Stub(channel).withDeadlineAfter(2, TimeUnit.MINUTES).publishStream();
        stream.write(PublishStreamRequest.newBuilder().setOpen(PublishOpen.getDefaultInstance()).build());
        stream.read();
        signal("-STOP", pid);
        var flood = new Thread(() -> {
            try {
                for (int number = 1; number <= COUNT; number++) {
                    var record = Record.newBuilder().setTopic(topic).setValue(ByteString.copyFrom(new byte[1 + number % 170]));
                    stream.write(PublishStreamRequest.newBuilder().setBatch(PublishBatch.newBuilder().setSequence(number).addRecords(record)).build());
                }
                stream.halfClose();
            } catch (Exception broken) {
                // Why, the reader is told.
            }
        });
        flood.setDaemon(true);
        flood.start();
        Thread.sleep(3000);
        signal("-CONT", pid);
        int answered = 0;
        while (stream.hasNext()) {
            for (BatchAck ack : stream.read().getAcks().getAcksList()) {
                if (ack.getNotesCount() > 0 || ack.getOffsetsCount() != 1 || ack.getOffsets(0) < 0) throw new Exception("not published: " + ack);
                answered++;
            }
        }
        if (answered != COUNT) throw new Exception(answered + " answers");
        channel.shutdown();
    }

    static void signal(String signal, String pid) throws Exception {
        if (new ProcessBuilder("kill", signal, pid).inheritIO().start().waitFor() != 0) throw new Exception("kill " + signal);
    }
}
