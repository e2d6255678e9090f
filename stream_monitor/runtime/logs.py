"""
What a worker writes to its log.

Rule of the file: a record is one line of printable characters and of bounded length (a traceback:
some indented ones), whatever names and values of others are in it; the same complaint is not
repeated without end, so that no flood fills a disk.
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
"""Records of one kind in a period."""
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
    One line; a traceback is indented below it, so that nothing in it looks like a line of its own.
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
    Lets through so many records of a kind in a period; how many were left out is said by the next
    one.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._kinds: OrderedDict[tuple[int, str], list[float]] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.CRITICAL:
            return True
        now, key = self._clock(), (record.levelno, str(record.msg)[:200])
        # begin of the period, let through, left out
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
    Connections that fail while the worker runs: it goes on trying, and says once a minute which
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
    Filter of asyncio's records.

    No news is what a producer that was thrown away did not finish: the failed transaction was told,
    and nobody asks its futures.
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
        # the last is what Faust calls its services by, which are ours
        logging.getLogger(noisy).setLevel("ERROR")


def complain(kafka: KafkaSettings) -> None:
    """From now on tell of connections that fail."""
    spoken.addHandler(Complaints(kafka))
