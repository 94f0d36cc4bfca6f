import com.fasterxml.jackson.databind.ObjectMapper;
import com.google.protobuf.DescriptorProtos.FileDescriptorProto;
import com.google.protobuf.DescriptorProtos.FileDescriptorSet;
import com.google.protobuf.Descriptors.Descriptor;
import com.google.protobuf.Descriptors.FileDescriptor;
import com.google.protobuf.DynamicMessage;
import com.google.protobuf.util.JsonFormat;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;

/**
 * Sends events with Apicurio's Protobuf and JSON serializers, which write Confluent's wire format if told to.
 *
 * <p>Arguments: bootstrap, registry, topic, then for Protobuf: descriptor set and name of the message. The schema of
 * JSON is the newest of the topic's subject; that of Protobuf is registered. Standard input: one event a line, as JSON.
 */
public final class ApicurioSender {
    public static void main(String[] given) throws Exception {
        boolean protobuf = given.length > 3;
        Properties settings = new Properties();
        settings.put("bootstrap.servers", given[0]);
        settings.put("apicurio.registry.url", given[1]);
        settings.put("key.serializer", "org.apache.kafka.common.serialization.StringSerializer");
        String kind = protobuf ? "protobuf.Protobuf" : "jsonschema.JsonSchema";
        settings.put("value.serializer", "io.apicurio.registry.serde." + kind + "KafkaSerializer");
        settings.put("apicurio.registry.auto-register", protobuf);
        settings.put("apicurio.registry.find-latest", !protobuf);
        settings.put("apicurio.registry.serde.send-type-ref", false); // Apicurio's own, which others do not read
        settings.put("apicurio.registry.serde.send-indexes", true); // Confluent's
        Descriptor descriptor = protobuf ? descriptor(given[3], given[4]) : null;
        ObjectMapper json = new ObjectMapper();
        try (KafkaProducer<String, Object> producer = new KafkaProducer<>(settings)) {
            BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                String key = json.readTree(line).get("event_id").asText();
                Object event = protobuf ? message(descriptor, line) : json.readTree(line);
                producer.send(new ProducerRecord<>(given[2], key, event)).get();
            }
        }
    }

    private static DynamicMessage message(Descriptor descriptor, String line) throws Exception {
        DynamicMessage.Builder builder = DynamicMessage.newBuilder(descriptor);
        JsonFormat.parser().merge(line, builder);
        return builder.build();
    }

    private static Descriptor descriptor(String file, String name) throws Exception {
        Map<String, FileDescriptor> built = new HashMap<>();
        FileDescriptor last = null;
        for (FileDescriptorProto each : FileDescriptorSet.parseFrom(Files.readAllBytes(Path.of(file))).getFileList()) {
            List<FileDescriptor> imports = new ArrayList<>();
            each.getDependencyList().forEach(path -> imports.add(built.get(path)));
            last = FileDescriptor.buildFrom(each, imports.toArray(new FileDescriptor[0]));
            built.put(each.getName(), last);
        }
        return last.findMessageTypeByName(name); // protoc writes a file after those that it imports
    }
}
