"""
How the worker ends when it must not go on.

Rule of the file: crash only. What is durable is right and the rest is read again, so nothing is
flushed and nothing is left politely; a supervisor starts us anew.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import NoReturn

log = logging.getLogger("stream_monitor")
IN_DOUBT, NOT_OPENED, NO_PROGRESS, BATCH_FAILED = 70, 71, 72, 73
"""
Fenced, or a send in doubt; a partition could not be opened or flushed; nothing moves; a batch
failed.
"""


def die(code: int, why: str) -> NoReturn:
    """End the process at once, with a line that says why."""
    log.critical("exit %d: %s", code, why)
    sys.stderr.flush()
    sys.stdout.flush()
    os._exit(code)
