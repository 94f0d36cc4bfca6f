import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Properties;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.DecoderFactory;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;

/**
 * Sends events with Confluent's own Avro serializer, which registers the schema.
 *
 * <p>Arguments: bootstrap, registry, topic, schema file. Standard input: one event a line, in Avro's JSON encoding.
 */
public final class AvroSender {
    public static void main(String[] given) throws Exception {
        Schema schema = new Schema.Parser().parse(Files.readString(Path.of(given[3])));
        Properties settings = new Properties();
        settings.put("bootstrap.servers", given[0]);
        settings.put("schema.registry.url", given[1]);
        settings.put("key.serializer", "org.apache.kafka.common.serialization.StringSerializer");
        settings.put("value.serializer", "io.confluent.kafka.serializers.KafkaAvroSerializer");
        GenericDatumReader<GenericRecord> reader = new GenericDatumReader<>(schema);
        try (KafkaProducer<String, Object> producer = new KafkaProducer<>(settings)) {
            BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                GenericRecord event = reader.read(null, DecoderFactory.get().jsonDecoder(schema, line));
                producer.send(new ProducerRecord<>(given[2], event.get("event_id").toString(), event)).get();
            }
        }
    }
}
