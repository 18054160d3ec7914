"""A test suite: each test writes a tool, and runs it a moment later. With `fixed`, a lock keeps other tests from
forking while a tool is open for writing."""

import contextlib
import os
import random
import subprocess
import sys
import tempfile
import threading
import time

WORKERS, TESTS = 6, 40
# The shell reads no further than `exit`.
TOOL = "#!/bin/sh\nsleep 0.003\nexit\n" + "#" * 500_000
lock = threading.Lock() if "fixed" in sys.argv else contextlib.nullcontext()
failures = []


def test(path):
    with lock:
        with open(path, "w") as tool:
            tool.write(TOOL)
        os.chmod(path, 0o755)
    time.sleep(random.uniform(0.001, 0.004))
    try:
        # Returns after the child's exec.
        with lock:
            child = subprocess.Popen([path])
        child.wait()
    except OSError as error:
        print(f"{path}: {error}")
        failures.append(path)


def work(directory, worker):
    for number in range(TESTS):
        test(os.path.join(directory, f"tool-{worker}-{number}"))


with tempfile.TemporaryDirectory(dir=sys.argv[1]) as directory:
    workers = [threading.Thread(target=work, args=(directory, n)) for n in range(WORKERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
sys.exit(1 if failures else 0)
