"""Memory that opening leaves behind goes back to the system."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from stream_monitor.stages.memory import give_back

BLOCKS, BLOCK_BYTES = 2_000, 60_000


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="only glibc can be told to"
)
def test_pages_between_what_is_still_held_go_back():
    blocks = [bytes(BLOCK_BYTES) for _ in range(BLOCKS)]
    assert blocks
    kept = [bytearray(b) for b in blocks]
    held = kept[::20]  # a few stay, so that the heap's end cannot simply come down
    before = resident_bytes()
    del blocks, kept
    freed_at_once = before - resident_bytes()
    give_back()
    assert before - resident_bytes() > max(BLOCKS * BLOCK_BYTES * 0.8, freed_at_once)
    assert len(held) == BLOCKS // 20
