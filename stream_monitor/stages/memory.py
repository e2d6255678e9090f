"""
Give memory that opening needed back to the system.

Rule of the file: only after a restore. A restore reads megabytes into buffers and drops a former
state, and the allocator keeps these blocks in more and more pieces. A worker that was opened twenty
times had 1.6 GB, of which 140 MB were in use (`bench/chaos.py`, 30 models).
"""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress


def give_back() -> None:
    """
    Collect cyclic garbage, then return free pages to the system if the C library can (glibc).

    This takes some tens of milliseconds.
    """
    gc.collect()
    with suppress(OSError, AttributeError):  # another C library has no such call
        ctypes.CDLL(None).malloc_trim(0)
