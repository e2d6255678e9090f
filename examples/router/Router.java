import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * The router of an experiment for Java 17 and later: no libraries.
 *
 * <pre>java examples/router/Router.java examples/router/vectors.json</pre>
 *
 * checks it against the vectors. The algorithm in words is in that file.
 */
public final class Router {
    private static final long SLOTS = 10_000;

    /** An entry of `ranges`: the first slot after it, and the arm. */
    record Range(int end, String arm) {}

    private final String experiment;
    private final List<Range> ranges;

    Router(String experiment, List<Range> ranges) {
        this.experiment = experiment;
        this.ranges = ranges;
    }

    /** The arm that serves a key. */
    String arm(String key) {
        int slot = slot(point(experiment, key));
        return ranges.stream().filter(r -> slot < r.end()).findFirst().orElseThrow().arm();
    }

    /** Where a key lies in an experiment: in [0, 2^53). */
    static long point(String experiment, String key) {
        try {
            byte[] data = (wellFormed(experiment) + '\0' + wellFormed(key)).getBytes(StandardCharsets.UTF_8);
            return ByteBuffer.wrap(MessageDigest.getInstance("SHA-256").digest(data)).getLong() >>> 11;
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException(e); // every Java has SHA-256
        }
    }

    /** The slot of a point: point * 10000 >> 53. The product needs 67 bits, so take its high half. */
    static int slot(long point) {
        return (int) Math.multiplyHigh(point << 10, SLOTS * 2);
    }

    /** Java writes "?" for a surrogate without its other half; the algorithm says U+FFFD. */
    private static String wellFormed(String text) {
        StringBuilder out = new StringBuilder();
        text.codePoints().map(c -> c >= 0xD800 && c < 0xE000 ? 0xFFFD : c).forEach(out::appendCodePoint);
        return out.toString();
    }

    private static final String TEXT = "\"((?:[^\"\\\\]|\\\\.)*)\"";
    private static final Pattern VECTOR = Pattern.compile(
            "^ *\\[" + TEXT + ", " + TEXT + ", (\\d+), (\\d+), " + TEXT + ", " + TEXT + "\\],?$");
    private static final Pattern TABLE = Pattern.compile(TEXT + ": \\[((?:\\[[^\\]]*\\],? ?)+)\\]");
    private static final Pattern RANGE = Pattern.compile("\\[(\\d+), " + TEXT + "\\]");

    public static void main(String[] arguments) throws Exception {
        List<List<Range>> tables = new ArrayList<>();
        int right = 0;
        int all = 0;
        for (String line : Files.readAllLines(Path.of(arguments[0]))) {
            if (line.startsWith("  \"ranges\"")) {
                for (Matcher t = TABLE.matcher(line); t.find(); ) {
                    List<Range> ranges = new ArrayList<>();
                    for (Matcher r = RANGE.matcher(t.group(2)); r.find(); ) {
                        ranges.add(new Range(Integer.parseInt(r.group(1)), unescaped(r.group(2))));
                    }
                    tables.add(ranges);
                }
            }
            Matcher v = VECTOR.matcher(line);
            if (!v.matches()) {
                continue;
            }
            all++;
            String experiment = unescaped(v.group(1));
            String key = unescaped(v.group(2));
            long point = point(experiment, key);
            if (point == Long.parseLong(v.group(3))
                    && slot(point) == Integer.parseInt(v.group(4))
                    && new Router(experiment, tables.get(0)).arm(key).equals(v.group(5))
                    && new Router(experiment, tables.get(1)).arm(key).equals(v.group(6))) {
                right++;
            } else {
                System.err.println(line.strip() + ": got point " + point);
            }
        }
        System.out.println(right + " of " + all + " vectors agree");
        System.exit(right == all && all > 0 ? 0 : 1);
    }

    /** A text of JSON without its quotes. */
    private static String unescaped(String json) {
        StringBuilder out = new StringBuilder();
        for (int i = 0; i < json.length(); i++) {
            char c = json.charAt(i);
            if (c == '\\') {
                c = json.charAt(++i);
                if (c == 'u') {
                    c = (char) Integer.parseInt(json.substring(i + 1, i + 5), 16);
                    i += 4;
                } else {
                    int escape = "bfnrt".indexOf(c);
                    c = escape < 0 ? c : "\b\f\n\r\t".charAt(escape);
                }
            }
            out.append(c);
        }
        return out.toString();
    }
}
