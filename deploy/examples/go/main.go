// Publishes a few records through the sidecar, then prints and acknowledges what arrives, until SIGTERM or until the sidecar drains.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "outrigger.example/app/gen/outrigger/v1"
)

//go:generate buf generate ../../../proto

func main() {
	topic, group := os.Args[1], os.Args[2]
	connection := must(grpc.NewClient(os.Getenv("OUTRIGGER_ADDRESS"), grpc.WithTransportCredentials(insecure.NewCredentials())))

	// Many records to a message: that is where the throughput comes from. Why a Send fails, Recv tells.
	records := []*pb.Record{{Topic: topic, Value: []byte("one from Go")}, {Topic: topic, Value: []byte("two")}, {Topic: topic, Value: []byte("three")}}
	publication := must(pb.NewPublisherServiceClient(connection).PublishStream(context.Background()))
	publication.Send(&pb.PublishStreamRequest{Message: &pb.PublishStreamRequest_Open{Open: &pb.PublishOpen{}}})
	publication.Send(&pb.PublishStreamRequest{Message: &pb.PublishStreamRequest_Batch{Batch: &pb.PublishBatch{Sequence: 1, Records: records}}})
	publication.CloseSend()
	for response, err := publication.Recv(); err != io.EOF; response, err = publication.Recv() {
		for _, ack := range must(response, err).GetAcks().GetAcks() {
			fmt.Println("published: partitions", ack.Partitions, "offsets", ack.Offsets, "failures", ack.Notes)
		}
	}

	subscription := must(pb.NewSubscriberServiceClient(connection).Subscribe(context.Background()))
	// One sends at a time: the loop below, or the end. On SIGTERM, or stop, the sidecar is asked to drain the stream; it ends it, without
	// an error, when everything delivered is settled.
	settle, sending := &pb.Settle{}, &sync.Mutex{}
	send := func(request *pb.SubscribeRequest) { sending.Lock(); defer sending.Unlock(); subscription.Send(request) }
	init := &pb.Init{Group: group, Topics: []string{topic}, Ordering: pb.Ordering_ORDERING_PARTITION, Confirm: pb.Confirm_CONFIRM_RECORDED}
	send(&pb.SubscribeRequest{Message: &pb.SubscribeRequest_Init{Init: init}})
	term, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(term, func() { send(&pb.SubscribeRequest{Message: &pb.SubscribeRequest_Drain{Drain: &pb.Drain{}}}) })
	for response, err := subscription.Recv(); err != io.EOF; response, err = subscription.Recv() {
		switch message := must(response, err).Message.(type) {
		case *pb.SubscribeResponse_Deliveries:
			settle.RequestId, settle.Items = settle.RequestId+1, nil
			for _, delivery := range message.Deliveries.Deliveries {
				fmt.Printf("received: %s[%d]@%d %s\n", topic, delivery.Record.GetPartition(), delivery.Offset, delivery.Record.Value)
				settle.Items = append(settle.Items, &pb.SettleItem{Token: delivery.Token, Action: &pb.SettleItem_Ack{Ack: &pb.Ack{}}})
			}
			send(&pb.SubscribeRequest{Message: &pb.SubscribeRequest_Settle{Settle: settle}})
		case *pb.SubscribeResponse_Draining:
			stop()
		}
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}
