"""Partitions are restored in threads, side by side, by a process that has read no state before."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import asyncio
import sys

from aiokafka import TopicPartition

from stream_monitor.evaluate import Shard
from stream_monitor.settings import CoreSettings, Settings
from stream_monitor.stages.hub import Hub
from stream_monitor.stages.restoring import Restoring
from stream_monitor.stages.tenures import Tenures

sys.setswitchinterval(1e-6)
hub, core = Hub(Settings()), CoreSettings()
restoring = Restoring(hub, 8, {}, Tenures(hub))
parts = {name: part for name, part in Shard(0, core).snapshot().items() if part}


async def restore():
    tps = [TopicPartition("observations", p) for p in range(8)]
    return await asyncio.gather(*(restoring._shard(tp, core, parts) for tp in tps))


sys.exit(len(asyncio.run(restore())) - 8)
"""


def test_no_restore_ends_the_process() -> None:
    """Without a lock msgspec ended it with SIGSEGV every time."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
