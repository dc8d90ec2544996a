// Publishes a few records through the sidecar, then prints and acknowledges what arrives, until SIGTERM or until the sidecar drains.
import grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

const [topic, group] = process.argv.slice(2);
const files = ['outrigger/v1/publisher.proto', 'outrigger/v1/subscriber.proto'];
const includeDirs = ['../../../proto'];
const { PublisherService, SubscriberService } = grpc.loadPackageDefinition(loadSync(files, { includeDirs, longs: String, defaults: true })).outrigger.v1;
const connect = (Service) => new Service(process.env.OUTRIGGER_ADDRESS, grpc.credentials.createInsecure());

async function publish(client) {
  // Many records to a message: that is where the throughput comes from.
  const records = Array.from({ length: 10 }, (_, n) => ({ topic, key: Buffer.from(`key-${n}`), value: Buffer.from(`${n} from Node`) }));
  const stream = client.publishStream({ deadline: Date.now() + 30_000 });
  stream.write({ open: {} });
  stream.write({ batch: { sequence: 1, records } });
  stream.end();
  for await (const { acks } of stream) {
    for (const { partitions, offsets, notes } of acks?.acks ?? []) {
      console.log(`published: partitions [${partitions}] offsets [${offsets}] failures ${JSON.stringify(notes)}`);
    }
  }
  client.close();
}

async function subscribe(client) {
  const stream = client.subscribe();
  stream.write({ init: { group, topics: [topic], ordering: 'ORDERING_PARTITION', confirm: 'CONFIRM_RECORDED' } });
  // Asked to drain, the sidecar ends the stream, without an error, when everything delivered is settled.
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => stream.write({ drain: {} }));
  let requestId = 0;
  for await (const { deliveries, draining } of stream) {
    for (const { record, offset } of deliveries?.deliveries ?? []) {
      console.log(`received: ${record.topic}[${record.partition}]@${offset} ${record.value}`);
    }
    const items = deliveries?.deliveries.map(({ token }) => ({ token, ack: {} }));
    if (items) stream.write({ settle: { requestId: ++requestId, items } });
    if (draining) stream.write({ drain: {} });
  }
  client.close();
}

await publish(connect(PublisherService));
await subscribe(connect(SubscriberService));
