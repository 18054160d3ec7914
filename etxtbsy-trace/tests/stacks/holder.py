"""As holder.c, but the opener itself holds the file."""

import os
import signal
import subprocess
import sys


def write_program(path):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o755)  # the open
    os.write(fd, b"#!/bin/true\n")
    return fd


def execute(path):
    try:
        return subprocess.run([path]).returncode  # the exec
    except OSError:
        return 1


fd = write_program(sys.argv[1])
status = execute(sys.argv[1])
if len(sys.argv) > 2:
    signal.pause()
os.close(fd)
sys.exit(status)
