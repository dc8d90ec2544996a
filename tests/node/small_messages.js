// Ten thousand messages of one record and 1 to 170 bytes, to a sidecar that stands still meanwhile and then goes on, as small_messages.py sends them from
// Python. Proves: the connection stays open, and each record is answered with its place. Exit code 0: proven. What hangs fails.
//
//   node small_messages.js ADDRESS TOPIC PID    run in the directory of the built Node.js example, which has the libraries; PID is the sidecar's
const paths = [process.cwd()];
const grpc = require(require.resolve('@grpc/grpc-js', { paths }));
const { loadSync } = require(require.resolve('@grpc/proto-loader', { paths }));

const COUNT = 10_000;
const [address, topic, pid] = process.argv.slice(2);
const loaded = loadSync('outrigger/v1/publisher.proto', { includeDirs: ['../../../proto'], longs: Number, defaults: true });
const { PublisherService } = grpc.loadPackageDefinition(loaded).outrigger.v1;

async function main() {
  const client = new PublisherService(address, grpc.credentials.createInsecure());
  const stream = client.publishStream({ deadline: Date.now() + 120_000 });
  stream.write({ open: {} });
  let answered = 0;
  for await (const { welcome, acks } of stream) {
    if (welcome) {
      process.kill(pid, 'SIGSTOP');
      for (let number = 1; number <= COUNT; number++) {
        stream.write({ batch: { sequence: number, records: [{ topic, value: Buffer.alloc(1 + (number % 170)) }] } });
      }
      stream.end();
      setTimeout(() => process.kill(pid, 'SIGCONT'), 3000);
    }
    for (const ack of acks?.acks ?? []) {
      if (ack.notes.length > 0 || ack.offsets.length !== 1 || ack.offsets[0] < 0) throw new Error(`not published: ${JSON.stringify(ack)}`);
      answered++;
    }
  }
  if (answered !== COUNT) throw new Error(`${answered} answers`);
  client.close();
}

main();
