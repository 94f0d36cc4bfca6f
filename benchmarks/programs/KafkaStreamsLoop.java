import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.nio.FloatBuffer;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.CountDownLatch;

import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Produced;

/**
 * Kafka Streams with ONNX Runtime for Java, exactly once (v2), every other setting of Kafka Streams at its default.
 *
 * <p>It calls the model for each event: a Streams application handles one record at a time. It only decodes, scores and
 * answers, without validation, handling of model failures or metrics.
 */
public final class KafkaStreamsLoop {
    private static final int FEATURES = 16; // benchmarks/events.py
    private static final String[] NAMES = new String[FEATURES];

    static {
        for (int j = 0; j < FEATURES; j++) {
            NAMES[j] = String.format("feature_%04d", j);
        }
    }

    private final ObjectMapper json = new ObjectMapper();
    private final OrtEnvironment environment = OrtEnvironment.getEnvironment();
    private final OrtSession session;

    private KafkaStreamsLoop(Path model) throws OrtException {
        OrtSession.SessionOptions options = new OrtSession.SessionOptions();
        options.setIntraOpNumThreads(1); // as in all programs of the benchmark
        options.setInterOpNumThreads(1);
        session = environment.createSession(model.toString(), options);
    }

    private byte[] answer(byte[] value) {
        try {
            JsonNode event = json.readTree(value);
            JsonNode features = event.get("features");
            float[] row = new float[FEATURES];
            for (int j = 0; j < FEATURES; j++) {
                row[j] = (float) features.get(NAMES[j]).doubleValue();
            }
            var answer = json.createObjectNode();
            answer.put("event_id", event.get("event_id").textValue());
            answer.put("score", score(row));
            return json.writeValueAsBytes(answer);
        } catch (java.io.IOException | OrtException error) {
            throw new IllegalStateException(error);
        }
    }

    private float score(float[] row) throws OrtException {
        long[] shape = {1, FEATURES};
        try (OnnxTensor tensor = OnnxTensor.createTensor(environment, FloatBuffer.wrap(row), shape);
                OrtSession.Result result = session.run(Map.of("features", tensor), Set.of("probabilities"))) {
            return ((float[][]) result.get(0).getValue())[0][1];
        }
    }

    /** Runs until SIGTERM; ends with 1 when a stream thread failed. */
    public static void main(String[] arguments) throws Exception {
        Map<String, String> given = new java.util.HashMap<>();
        for (int i = 0; i < arguments.length; i += 2) {
            given.put(arguments[i], arguments[i + 1]);
        }
        KafkaStreamsLoop loop = new KafkaStreamsLoop(Path.of(given.get("--model")));
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, given.get("--group"));
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, given.get("--bootstrap"));
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        StreamsBuilder builder = new StreamsBuilder();
        builder.stream(given.get("--source"), Consumed.with(Serdes.ByteArray(), Serdes.ByteArray()))
                .mapValues(loop::answer)
                .to(given.get("--sink"), Produced.with(Serdes.ByteArray(), Serdes.ByteArray()));
        KafkaStreams streams = new KafkaStreams(builder.build(), settings);
        CountDownLatch failed = new CountDownLatch(1);
        streams.setStateListener((now, before) -> {
            if (now == KafkaStreams.State.ERROR) {
                failed.countDown(); // otherwise the process would live on without a stream thread
            }
        });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(Duration.ofSeconds(20))));
        streams.start();
        failed.await();
        System.exit(1);
    }
}
