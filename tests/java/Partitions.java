// Where Kafka's own Java producer puts keys: produces each hex key of standard input to a topic, and prints HEXKEY<TAB>PARTITION.
// Run with Kafka's jars: java -cp 'libs/*' tests/java/Partitions.java BOOTSTRAP TOPIC

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Future;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public class Partitions {
    public static void main(String[] arguments) throws Exception {
        if (arguments.length != 2) {
            System.err.println("usage: Partitions BOOTSTRAP TOPIC, with a hex key on each line of standard input");
            System.exit(2);
        }
        Map<String, Object> settings = Map.of("bootstrap.servers", arguments[0], "linger.ms", 50);
        List<String> keys = new BufferedReader(new InputStreamReader(System.in)).lines().toList();
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        try (var producer = new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer())) {
            for (String key : keys) {
                sent.add(producer.send(new ProducerRecord<>(arguments[1], HexFormat.of().parseHex(key), new byte[0])));
            }
            for (int index = 0; index < keys.size(); index++) {
                System.out.println(keys.get(index) + "\t" + sent.get(index).get().partition());
            }
        }
    }
}
