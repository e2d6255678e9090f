"""Partitions are restored in threads, side by side, by a process that has read no state before."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
import threading

from stream_monitor.evaluate import Shard
from stream_monitor.settings import CoreSettings

sys.setswitchinterval(1e-6)
parts = {name: part for name, part in Shard(0, CoreSettings()).snapshot().items() if part}
together = threading.Barrier(8)
restored = []


def restore():
    together.wait()
    restored.append(Shard.restore(0, CoreSettings(), parts))


threads = [threading.Thread(target=restore) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
sys.exit(len(restored) - 8)
"""


def test_no_restore_ends_the_process() -> None:
    """Without a lock msgspec ended it with SIGSEGV every time."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
