package peer;

import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.prometheus.metrics.core.datapoints.CounterDataPoint;
import io.prometheus.metrics.core.datapoints.DistributionDataPoint;
import io.prometheus.metrics.core.metrics.Counter;
import io.prometheus.metrics.core.metrics.Gauge;
import io.prometheus.metrics.core.metrics.Histogram;
import io.prometheus.metrics.exporter.httpserver.HTTPServer;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.time.Duration;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import moa.classifiers.core.driftdetection.ADWIN;
import moa.classifiers.core.driftdetection.DDM;
import moa.classifiers.core.driftdetection.PageHinkleyDM;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.JoinWindows;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.StreamJoined;
import org.apache.kafka.streams.processor.PunctuationType;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;

/**
 * Peer: Kafka Streams and MOA's detectors, in Java, one stream thread.
 *
 * <p>Does: what `river_monitors.py` says, with MOA's ADWIN, Page-Hinkley and DDM. The join is a stream-stream join in RocksDB window stores with changelog topics, 10 s apart
 * and 20 s of grace, at least once.
 *
 * <p>Does not: keep the detectors and counts over a restart (they lie in the processor), match labels that are later than the join window, drop duplicates.
 */
public class Main {
  public static class Prediction {
    public String event_id, model, version;
    public long timestamp;
    public int prediction;
    public double score, latency_ms;
    public Map<String, Double> features;
  }

  public static class Label {
    public String event_id;
    public int label;
    public long timestamp;
  }

  public record Pair(Prediction prediction, Label label) {}

  public record Alert(String model, String version, String subject, String detector, long timestamp) {}

  static final ObjectMapper JSON = new ObjectMapper().configure(DeserializationFeature.FAIL_ON_UNKNOWN_PROPERTIES, false);
  static final String[] SIGNALS = {"f0", "f1", "f2", "f3", "f4", "f5", "f6", "f7", "f8", "f9", "score"};
  static final int REFERENCE_ROWS = 5_000, BINS = 20, WINDOW = 1_000;
  static final Duration EXPORT = Duration.ofSeconds(1);

  static final Counter PREDICTIONS = Counter.builder().name("model_predictions").labelNames("model", "version").register();
  static final Counter LABELS = Counter.builder().name("model_labels").labelNames("model", "version").register();
  static final Histogram LATENCY =
      Histogram.builder().name("model_prediction_latency_seconds").labelNames("model", "version").classicOnly()
          .classicUpperBounds(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10).register();
  static final Gauge FEATURE = Gauge.builder().name("model_feature").labelNames("model", "version", "feature", "statistic", "task").register();
  static final Gauge BIN = Gauge.builder().name("model_feature_values").labelNames("model", "version", "feature", "bin", "task").register();
  static final Gauge QUALITY = Gauge.builder().name("model_quality").labelNames("model", "version", "metric", "task").register();

  static <T> Serde<T> json(Class<T> type) {
    return Serdes.serdeFrom(
        (topic, value) -> {
          try {
            return value == null ? null : JSON.writeValueAsBytes(value);
          } catch (IOException e) {
            throw new UncheckedIOException(e);
          }
        },
        (topic, bytes) -> {
          try {
            return bytes == null ? null : JSON.readValue(bytes, type);
          } catch (IOException e) {
            throw new UncheckedIOException(e);
          }
        });
  }

  static final class Signal {
    final ADWIN adwin = new ADWIN(0.002);
    final PageHinkleyDM pageHinkley = new PageHinkleyDM();
    final double[] first = new double[REFERENCE_ROWS];
    double[] edges;
    final long[] bins = new long[BINS];
    long rows, present;
    double mean, squares;

    /** Take a value; which detectors fired, one bit each. */
    int update(Double value) {
      rows++;
      if (value == null) return 0;
      double x = value;
      double distance = x - mean;
      mean += distance / (present + 1);
      squares += distance * (x - mean);
      if (edges != null) bins[bin(x)]++;
      else first[(int) present] = x;
      if (++present == REFERENCE_ROWS) learn();
      boolean drift = adwin.setInput(x);
      pageHinkley.input(x);
      return (drift ? 1 : 0) | (pageHinkley.getChange() ? 2 : 0);
    }

    void learn() {
      double[] ranked = first.clone();
      Arrays.sort(ranked);
      edges = new double[BINS - 1];
      for (int i = 1; i < BINS; i++) edges[i - 1] = ranked[i * REFERENCE_ROWS / BINS];
      for (double x : first) bins[bin(x)]++;
    }

    int bin(double x) {
      int i = Arrays.binarySearch(edges, x);
      return i < 0 ? -i - 1 : i + 1;
    }
  }

  static final class Inputs {
    final CounterDataPoint predictions;
    final DistributionDataPoint latency;
    final Signal[] signals = new Signal[SIGNALS.length];

    Inputs(String model, String version) {
      predictions = PREDICTIONS.labelValues(model, version);
      latency = LATENCY.labelValues(model, version);
      Arrays.setAll(signals, i -> new Signal());
    }
  }

  static final class OnPrediction implements Processor<String, Prediction, String, Alert> {
    ProcessorContext<String, Alert> context;
    final Map<String, Map<String, Inputs>> models = new HashMap<>();

    @Override
    public void init(ProcessorContext<String, Alert> given) {
      context = given;
      context.schedule(EXPORT, PunctuationType.WALL_CLOCK_TIME, now -> export());
    }

    @Override
    public void process(Record<String, Prediction> record) {
      Prediction p = record.value();
      Inputs inputs = models.computeIfAbsent(p.model, m -> new HashMap<>()).computeIfAbsent(p.version, v -> new Inputs(p.model, v));
      inputs.predictions.inc();
      inputs.latency.observe(p.latency_ms / 1e3);
      for (int i = 0; i < SIGNALS.length; i++) {
        int fired = inputs.signals[i].update(i == SIGNALS.length - 1 ? (Double) p.score : p.features.get(SIGNALS[i]));
        if ((fired & 1) != 0) alert(p, SIGNALS[i], "adwin");
        if ((fired & 2) != 0) alert(p, SIGNALS[i], "page_hinkley");
      }
    }

    void alert(Prediction p, String subject, String detector) {
      context.forward(new Record<>(p.model, new Alert(p.model, p.version, subject, detector, p.timestamp), p.timestamp));
    }

    void export() {
      String task = context.taskId().toString();
      models.forEach((model, versions) -> versions.forEach((version, inputs) -> {
        for (int i = 0; i < SIGNALS.length; i++) {
          Signal s = inputs.signals[i];
          FEATURE.labelValues(model, version, SIGNALS[i], "mean", task).set(s.mean);
          FEATURE.labelValues(model, version, SIGNALS[i], "variance", task).set(s.squares / Math.max(1, s.present - 1));
          FEATURE.labelValues(model, version, SIGNALS[i], "missing_ratio", task).set((double) (s.rows - s.present) / s.rows);
          FEATURE.labelValues(model, version, SIGNALS[i], "adwin_width", task).set(s.adwin.getWidth());
          for (int b = 0; b < BINS; b++) BIN.labelValues(model, version, SIGNALS[i], Integer.toString(b), task).set(s.bins[b]);
        }
      }));
    }
  }

  static final class Quality {
    final CounterDataPoint labels;
    final boolean[] window = new boolean[WINDOW];
    int at, rows, correct;
    final long[] confusion = new long[4]; // true negatives, false positives, false negatives, true positives
    final ADWIN adwin = new ADWIN(0.002);
    final DDM ddm = new DDM();

    Quality(String model, String version) {
      labels = LABELS.labelValues(model, version);
    }
  }

  static final class OnPair implements Processor<String, Pair, String, Alert> {
    ProcessorContext<String, Alert> context;
    final Map<String, Map<String, Quality>> models = new HashMap<>();

    @Override
    public void init(ProcessorContext<String, Alert> given) {
      context = given;
      context.schedule(EXPORT, PunctuationType.WALL_CLOCK_TIME, now -> export());
    }

    @Override
    public void process(Record<String, Pair> record) {
      Prediction p = record.value().prediction();
      int label = record.value().label().label;
      Quality q = models.computeIfAbsent(p.model, m -> new HashMap<>()).computeIfAbsent(p.version, v -> new Quality(p.model, v));
      q.labels.inc();
      boolean right = p.prediction == label;
      if (q.rows == WINDOW) q.correct -= q.window[q.at] ? 1 : 0;
      else q.rows++;
      q.window[q.at] = right;
      q.at = (q.at + 1) % WINDOW;
      q.correct += right ? 1 : 0;
      q.confusion[2 * (label == 1 ? 1 : 0) + (p.prediction == 1 ? 1 : 0)]++;
      boolean drift = q.adwin.setInput(right ? 0 : 1);
      q.ddm.input(right ? 0 : 1);
      if (drift) alert(p, "adwin");
      if (q.ddm.getChange()) alert(p, "ddm");
    }

    void alert(Prediction p, String detector) {
      context.forward(new Record<>(p.model, new Alert(p.model, p.version, "__error__", detector, p.timestamp), p.timestamp));
    }

    void export() {
      String task = context.taskId().toString();
      models.forEach((model, versions) -> versions.forEach((version, q) -> {
        double precision = (double) q.confusion[3] / Math.max(1, q.confusion[3] + q.confusion[1]);
        double recall = (double) q.confusion[3] / Math.max(1, q.confusion[3] + q.confusion[2]);
        QUALITY.labelValues(model, version, "accuracy", task).set((double) q.correct / Math.max(1, q.rows));
        QUALITY.labelValues(model, version, "precision", task).set(precision);
        QUALITY.labelValues(model, version, "recall", task).set(recall);
        QUALITY.labelValues(model, version, "f1", task).set(2 * precision * recall / Math.max(precision + recall, 1e-12));
      }));
    }
  }

  public static void main(String[] arguments) throws IOException {
    Map<String, String> given = new HashMap<>();
    for (int i = 0; i < arguments.length; i += 2) given.put(arguments[i].substring(2), arguments[i + 1]);
    String work = given.get("work");
    Properties options = new Properties();
    options.put(StreamsConfig.APPLICATION_ID_CONFIG, given.get("group"));
    options.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, given.get("bootstrap"));
    options.put(StreamsConfig.STATE_DIR_CONFIG, given.get("folder"));
    options.put("auto.offset.reset", "earliest");

    StreamsBuilder builder = new StreamsBuilder();
    Serde<Prediction> predictionSerde = json(Prediction.class);
    Serde<Label> labelSerde = json(Label.class);
    Produced<String, Alert> alerts = Produced.with(Serdes.String(), json(Alert.class));
    KStream<String, Prediction> predictions = builder.stream(given.get("predictions"), Consumed.with(Serdes.String(), predictionSerde));
    if (!work.equals("pairs")) predictions.process(OnPrediction::new).to(given.get("alerts"), alerts);
    if (!work.equals("predictions")) {
      KStream<String, Label> labels = builder.stream(given.get("labels"), Consumed.with(Serdes.String(), labelSerde));
      JoinWindows window = JoinWindows.ofTimeDifferenceAndGrace(Duration.ofSeconds(10), Duration.ofSeconds(20));
      predictions.join(labels, Pair::new, window, StreamJoined.with(Serdes.String(), predictionSerde, labelSerde)).process(OnPair::new).to(given.get("alerts"), alerts);
    }
    KafkaStreams streams = new KafkaStreams(builder.build(), options);
    streams.setUncaughtExceptionHandler(e -> {
      e.printStackTrace();
      return StreamThreadExceptionResponse.SHUTDOWN_APPLICATION;
    });
    Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(Duration.ofSeconds(10))));
    HTTPServer server = HTTPServer.builder().hostname("127.0.0.1").port(0).buildAndStart();
    System.out.println("listening on http://127.0.0.1:" + server.getPort());
    System.out.flush();
    streams.start();
  }
}
