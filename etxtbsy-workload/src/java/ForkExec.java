import java.io.FileOutputStream;
import java.io.IOException;
import java.lang.ProcessBuilder.Redirect;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicLong;

/** JDK-8068370: threads each write their own script and run it with ProcessBuilder. */
class ForkExec {
    static final byte[] SCRIPT = "#!/bin/sh\nexit 0\n".getBytes(StandardCharsets.US_ASCII);
    static final AtomicLong attempts = new AtomicLong();
    static final AtomicLong failures = new AtomicLong();
    static volatile boolean stop = false;

    /** Arguments: the directory for the scripts, threads, seconds, failures (0: no limit). */
    public static void main(String[] args) throws Exception {
        Path dir = Path.of(args[0]);
        int threads = Integer.parseInt(args[1]);
        long seconds = Long.parseLong(args[2]);
        long limit = Long.parseLong(args[3]);
        List<Callable<Long>> racers = new ArrayList<>();
        long start = System.nanoTime();
        for (int index = 0; index < threads; index++) {
            Path path = dir.resolve("fork-exec-" + index);
            Files.createFile(path, PosixFilePermissions.asFileAttribute(
                    PosixFilePermissions.fromString("rwxr-xr-x")));
            racers.add(() -> {
                try {
                    while (!stop && System.nanoTime() - start < seconds * 1_000_000_000L) {
                        writeAndRun(path, limit);
                    }
                } finally {
                    stop = true;
                }
                // PID/task/TID
                Path self = Files.readSymbolicLink(Path.of("/proc/thread-self"));
                return Long.parseLong(self.getFileName().toString());
            });
        }
        ExecutorService pool = Executors.newFixedThreadPool(threads);
        List<Future<Long>> ended = pool.invokeAll(racers);
        pool.shutdown();
        List<String> tids = new ArrayList<>();
        for (Future<Long> racer : ended) {
            tids.add(racer.get().toString());
        }
        double elapsed = (System.nanoTime() - start) / 1e9;
        System.out.println("{\"pid\":" + ProcessHandle.current().pid()
                + ",\"attempts\":" + attempts + ",\"failures\":" + failures
                + ",\"seconds\":" + elapsed + ",\"threads\":[" + String.join(",", tids) + "]}");
    }

    static void writeAndRun(Path path, long limit) throws IOException, InterruptedException {
        try (FileOutputStream file = new FileOutputStream(path.toFile())) {
            file.write(SCRIPT);
        }
        ProcessBuilder script = new ProcessBuilder(path.toString())
                .redirectOutput(Redirect.DISCARD)
                .redirectError(Redirect.DISCARD);
        attempts.incrementAndGet();
        try {
            int status = script.start().waitFor();
            if (status != 0) {
                throw new IOException(path + ": status " + status);
            }
        } catch (IOException error) {
            // "error=26, " or, in newer JDKs, "error: 26 (", which is ETXTBSY.
            if (!error.getMessage().matches("(?s).*error[=:] ?26\\b.*")) {
                throw error;
            }
            if (failures.incrementAndGet() == limit) {
                stop = true;
            }
        }
    }
}
