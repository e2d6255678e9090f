"""Log lines of a worker, with names and values that others chose."""

from __future__ import annotations

import asyncio
import gc
import io
import logging

import pytest
from aiokafka.errors import KafkaConnectionError, SaslAuthenticationFailed

from stream_monitor.frozen import Secret
from stream_monitor.kafka.connection import spoken
from stream_monitor.runtime.logs import (
    LIKE_MAX,
    LINE_CHARS_MAX,
    PERIOD_S,
    TRACE_LINES_MAX,
    Complaints,
    Formatter,
    Sparing,
    news,
)
from stream_monitor.settings import KafkaSettings, Security

HOSTILE = {
    "newline": "m\n2026-01-01 CRITICAL forged",
    "ansi": "m\x1b[2J\x1b]0;owned\x07",
    "quotes": "m\"'`\\",
    "rtl": "m\u202etxt.exe",
    "long": "m" * 10_000,
    "surrogate": "m\udc80",
    "carriage": "m\rgone",
}


@pytest.fixture
def written():
    """A logger as the worker's, what it wrote, and its clock."""
    out, now = io.StringIO(), [0.0]
    handler = logging.StreamHandler(out)
    handler.setFormatter(Formatter("%(levelname)s %(message)s"))
    handler.addFilter(Sparing(lambda: now[0]))
    logger = logging.Logger("test")  # noqa: LOG001 - nobody else's
    logger.addHandler(handler)
    return logger, out, now


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_a_name_stays_on_its_line(written, name):
    logger, out, _ = written
    logger.error("processing a batch of %s failed", name)
    (line,) = out.getvalue().split("\n")[:-1]
    assert line.isprintable()
    assert line.startswith("ERROR processing a batch of m")
    assert len(line) <= LINE_CHARS_MAX + 1


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_nothing_in_a_traceback_looks_like_a_line_of_the_log(written, name):
    logger, out, _ = written
    try:
        int(name * 200)
    except ValueError:
        logger.exception("failed")
    first, *rest = out.getvalue().split("\n")[:-1]
    assert first == "ERROR failed"
    assert all(
        line.startswith("    ") and line.isprintable() and len(line) < LINE_CHARS_MAX + 10
        for line in rest
    )
    assert len(rest) <= TRACE_LINES_MAX + 1


def test_a_flood_is_cut_and_counted(written):
    logger, out, now = written
    for i in range(10_000):
        logger.warning("odd record %d", i)
        logger.info("another kind")
        logger.critical("exit 71: %d", i) if i < 50 else None
    lines = out.getvalue().splitlines()
    assert (
        sum("odd record" in line for line in lines)
        == sum("another kind" in line for line in lines)
        == LIKE_MAX
    )
    assert sum("exit 71" in line for line in lines) == 50, "what ends the process is always said"
    now[0] += PERIOD_S
    logger.warning("odd record %d", 10_000)
    assert (
        out.getvalue().splitlines()[-1]
        == f"WARNING odd record 10000 ({10_000 - LIKE_MAX} similar messages suppressed)"
    )


def test_a_flood_of_kinds_does_not_fill_memory():
    sparing = Sparing()
    for i in range(5_000):
        assert sparing.filter(logging.LogRecord("x", logging.ERROR, "", 0, f"kind {i}", None, None))
    assert len(sparing._kinds) <= 1_000


def test_a_connection_that_fails_is_told_once_a_minute_without_the_password(caplog):
    now = [0.0]
    kafka = KafkaSettings(
        security=Security(
            protocol="SASL_SSL", sasl_mechanism="PLAIN", username="u", password=Secret("hush-4711")
        )
    )
    complaints = Complaints(kafka, lambda: now[0])
    spoken.addHandler(complaints)
    try:
        for _ in range(100):
            spoken.error(
                "Unable connect to node with id %s: %s",
                1,
                SaslAuthenticationFailed("Authentication failed"),
            )
        spoken.error(
            "Unable connect to node with id %s: %s",
            1,
            KafkaConnectionError("Connection at b:9092 closed"),
        )
        now[0] += PERIOD_S
        spoken.error(
            "Unable connect to node with id %s: %s",
            1,
            SaslAuthenticationFailed("Authentication failed"),
        )
        spoken.error("heartbeat failed for group %s", "g")
    finally:
        spoken.removeHandler(complaints)
    told = [record.getMessage() for record in caplog.records if record.name == "stream_monitor"]
    assert [text.partition(";")[0] for text in told] == [
        "cannot connect to Kafka, retrying: the broker refuses the login of 'u' by PLAIN",
        "cannot connect to Kafka, retrying: the broker closed the connection",
        "cannot connect to Kafka, retrying: the broker refuses the login of 'u' by PLAIN",
    ]
    assert "hush-4711" not in caplog.text


async def test_what_a_producer_that_was_thrown_away_did_not_finish_is_no_news(caplog):
    """
    It comes when its futures are collected, with a traceback, after the failed transaction was
    told.
    """
    before = logging.getLogger("asyncio").filters[:]
    logging.getLogger("asyncio").addFilter(news)

    async def forget(error: Exception) -> None:
        asyncio.get_running_loop().create_future().set_exception(error)
        gc.collect()
        await asyncio.sleep(0)

    try:
        await forget(KafkaConnectionError("gone"))
        await forget(ValueError("a defect"))
    finally:
        logging.getLogger("asyncio").filters[:] = before
    assert [record.exc_info[1].args for record in caplog.records if record.exc_info] == [
        ("a defect",)
    ]
