# Runs a server, and ends it and all that it started when standard input ends: when the test run says so, or is no more.
#
# Its process must lead a group of its own.
from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

STOP = 1  # seconds within which the server must end when it is asked to

server = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
ending = threading.Event()


def watch() -> None:
    """Without the server there is nothing to do, unless it is gone because it was told to end."""
    status = server.wait()
    if not ending.is_set():
        os._exit(status and 1)


threading.Thread(target=watch, daemon=True).start()
os.read(0, 1)
ending.set()
server.terminate()
with contextlib.suppress(subprocess.TimeoutExpired):
    server.wait(STOP)
os.killpg(0, signal.SIGKILL)
