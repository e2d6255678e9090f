"""
Memory that opening took and nobody holds any more, given back to the system.

Rule of the file: only after a restore. It reads megabytes into buffers of its own and drops a
former state; the allocator keeps such blocks, in ever more pieces: a worker that was opened twenty
times held 1.6 GB, of which 140 MB were in use (`bench/chaos.py`, 30 models).
"""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress


def give_back() -> None:
    """
    Collect what is only held in circles, then hand free pages back, where the C library can
    (glibc).

    Some tens of milliseconds.
    """
    gc.collect()
    with suppress(OSError, AttributeError):  # another C library: it does as it does
        ctypes.CDLL(None).malloc_trim(0)
