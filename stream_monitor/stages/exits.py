"""
How the worker ends when it must not continue.

Rule of the file: crash only. Everything durable is right, and the rest is read again. So `die`
flushes and closes nothing in Kafka; a supervisor restarts the worker. When a batch has failed, the
hub first flushes the other stage (`Hub.deliver` says why), and then calls `die`.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import NoReturn

log = logging.getLogger("stream_monitor")
IN_DOUBT, NOT_OPENED, NO_PROGRESS, BATCH_FAILED = 70, 71, 72, 73
"""
Exit codes. IN_DOUBT: fenced, or a send in doubt. NOT_OPENED: a partition could not be opened or
flushed. NO_PROGRESS: nothing moves. BATCH_FAILED: a batch failed.
"""


def die(code: int, why: str) -> NoReturn:
    """End the process at once, with a line in the log that gives the reason."""
    log.critical("exit %d: %s", code, why)
    sys.stderr.flush()
    sys.stdout.flush()
    os._exit(code)
