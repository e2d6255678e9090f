"""
The log of a worker.

Rule of the file: a record is one line of printable characters and of limited length (a traceback is
several indented lines), whatever names and values it contains. The same message is not repeated
without end, so that no flood fills a disk.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import OrderedDict
from collections.abc import Callable

from aiokafka.errors import KafkaError

from stream_monitor.kafka.connection import errors_of, explained, spoken
from stream_monitor.settings import KafkaSettings

log = logging.getLogger("stream_monitor")
LINE_CHARS_MAX = 4_000
TRACE_LINES_MAX = 60
PERIOD_S = 60.0
LIKE_MAX = 20
"""Greatest number of records of one kind in a period."""
KINDS_MAX = 1_000


def printable(text: str) -> str:
    r"""
    A text on one line that no terminal obeys.

    >>> print(printable("a\nb\x1b[2J\u202ec"))
    a\nb\x1b[2J\u202ec
    """
    if not text.isprintable():
        text = "".join(
            c if c.isprintable() else c.encode("unicode_escape").decode()
            for c in text[: LINE_CHARS_MAX + 1]
        )
    return text if len(text) <= LINE_CHARS_MAX else text[:LINE_CHARS_MAX] + "…"


class Formatter(logging.Formatter):
    """
    Formats a record as one line. A traceback is indented below it, so that none of its lines looks
    like a record.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return printable(super().formatMessage(record))

    def formatException(self, ei: object) -> str:  # noqa: N802
        lines = super().formatException(ei).splitlines()  # type: ignore[arg-type]
        if len(lines) > TRACE_LINES_MAX:
            lines = [*lines[: TRACE_LINES_MAX // 2], "…", *lines[-TRACE_LINES_MAX // 2 :]]
        return "\n".join("    " + printable(line) for line in lines)


class Sparing(logging.Filter):
    """
    Lets a limited number of records of a kind through in a period. The next record says how many
    were left out.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._kinds: OrderedDict[tuple[int, str], list[float]] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.CRITICAL:
            return True
        now, key = self._clock(), (record.levelno, str(record.msg)[:200])
        # start of the period, number let through, number left out
        kind = self._kinds.setdefault(key, [now, 0, 0])
        self._kinds.move_to_end(key)
        if len(self._kinds) > KINDS_MAX:
            self._kinds.popitem(last=False)
        if now - kind[0] >= PERIOD_S:
            if kind[2]:
                record.msg, record.args = (
                    f"{record.getMessage()} ({int(kind[2])} similar messages suppressed)",
                    None,
                )
            kind[:] = [now, 0, 0]
        if kind[1] >= LIKE_MAX:
            kind[2] += 1
            return False
        kind[1] += 1
        return True


class Complaints(logging.Handler):
    """
    Reports connections that fail while the worker runs. It keeps trying, and once a minute logs the
    setting to look at.
    """

    def __init__(self, kafka: KafkaSettings, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logging.WARNING)
        self._kafka, self._clock = kafka, clock
        self._told: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        for error in errors_of(record):
            why = explained(self._kafka.security, error, worked=True) or type(error).__name__
            now = self._clock()
            if now - self._told.get(why, -PERIOD_S) >= PERIOD_S:
                self._told = {
                    text: at for text, at in self._told.items() if now - at < PERIOD_S
                } | {why: now}
                log.warning("cannot connect to Kafka, retrying: %s", why)


def news(record: logging.LogRecord) -> bool:
    """
    Filter for asyncio's records.

    It drops the unfinished sends of a discarded producer: the failed transaction was already
    logged, and nobody waits for them.
    """
    return not (
        record.exc_info
        and isinstance(record.exc_info[1], KafkaError)
        and "never retrieved" in str(record.msg)
    )


def configure() -> None:
    """Log to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Formatter("%(asctime)s %(levelname)s %(message)s"))
    handler.addFilter(Sparing())
    logging.basicConfig(level="INFO", handlers=[handler])
    logging.getLogger("asyncio").addFilter(news)
    for noisy in (
        "faust",
        "mode",
        "stream_monitor.stages.transport",
    ):
        # the last is the logger of Faust's services, which are ours
        logging.getLogger(noisy).setLevel("ERROR")


def complain(kafka: KafkaSettings) -> None:
    """Report failing connections from now on."""
    spoken.addHandler(Complaints(kafka))
