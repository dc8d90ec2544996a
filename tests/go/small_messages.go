// Ten thousand messages of one record and 1 to 170 bytes, to a sidecar that stands still meanwhile and then goes on, as small_messages.py sends them from
// Python. Proves: the connection stays open, and each record is answered with its place. Exit code 0: proven. What hangs fails.
//
// Run in the directory of the built Go example, which has the stubs: go run tests/go/small_messages.go ADDRESS TOPIC PID (the sidecar's)
package main

import (
	"context"
	"io"
	"log"
	"os"
	"strconv"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "outrigger.example/app/gen/outrigger/v1"
)

const count = 10_000

func main() {
	address, topic, pid := os.Args[1], os.Args[2], must(strconv.Atoi(os.Args[3]))
	connection := must(grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials())))
	patience, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	stream := must(pb.NewPublisherServiceClient(connection).PublishStream(patience))
	// Why a Send fails, Recv tells.
	stream.Send(&pb.PublishStreamRequest{Message: &pb.PublishStreamRequest_Open{Open: &pb.PublishOpen{}}})
	must(stream.Recv())
	must(0, syscall.Kill(pid, syscall.SIGSTOP))
	go func() {
		for number := 1; number <= count; number++ {
			records := []*pb.Record{{Topic: topic, Value: make([]byte, 1+number%170)}}
			batch := &pb.PublishBatch{Sequence: uint64(number), Records: records}
			stream.Send(&pb.PublishStreamRequest{Message: &pb.PublishStreamRequest_Batch{Batch: batch}})
		}
		stream.CloseSend()
	}()
	time.Sleep(3 * time.Second)
	must(0, syscall.Kill(pid, syscall.SIGCONT))
	answered := 0
	for response, err := stream.Recv(); err != io.EOF; response, err = stream.Recv() {
		for _, ack := range must(response, err).GetAcks().GetAcks() {
			if len(ack.Notes) > 0 || len(ack.Offsets) != 1 || ack.Offsets[0] < 0 {
				log.Fatal("not published: ", ack)
			}
			answered++
		}
	}
	if answered != count {
		log.Fatal(answered, " answers")
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}
