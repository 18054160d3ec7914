import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.locks.ReentrantLock;

/** A test suite: each test writes a tool, and runs it a moment later. With {@code fixed}, a lock keeps other tests from
 * forking while a tool is open for writing. */
class Suite {
    static final int WORKERS = 6, TESTS = 40;
    /** The shell reads no further than {@code exit}. */
    static final String TOOL = "#!/bin/sh\nsleep 0.003\nexit\n" + "#".repeat(500_000);
    static final ReentrantLock LOCK = new ReentrantLock();
    static final AtomicInteger failed = new AtomicInteger();
    static boolean isFixed;

    static void lock() {
        if (isFixed) LOCK.lock();
    }

    static void unlock() {
        if (isFixed) LOCK.unlock();
    }

    static void test(Path path) throws Exception {
        lock();
        try {
            Files.writeString(path, TOOL);
            path.toFile().setExecutable(true);
        } finally {
            unlock();
        }
        Thread.sleep(ThreadLocalRandom.current().nextInt(1, 5));
        Process child;
        // Returns after the child's exec.
        lock();
        try {
            child = new ProcessBuilder(path.toString()).start();
        } catch (IOException error) {
            System.out.println(error.getMessage());
            failed.incrementAndGet();
            return;
        } finally {
            unlock();
        }
        child.waitFor();
    }

    public static void main(String[] args) throws Exception {
        isFixed = args.length > 1 && args[1].equals("fixed");
        Path directory = Files.createTempDirectory(Path.of(args[0]), "suite");
        Thread[] workers = new Thread[WORKERS];
        for (int n = 0; n < WORKERS; n++) {
            int worker = n;
            workers[n] = new Thread(() -> {
                for (int number = 0; number < TESTS; number++) {
                    try {
                        test(directory.resolve("tool-" + worker + "-" + number));
                    } catch (Exception error) {
                        throw new RuntimeException(error);
                    }
                }
            });
            workers[n].start();
        }
        for (Thread worker : workers) worker.join();
        System.exit(failed.get() > 0 ? 1 : 0);
    }
}
