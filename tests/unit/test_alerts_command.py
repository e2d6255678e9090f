"""
`alerts`: the state of every fingerprint, what people say about it, and a live view, on the embedded
broker.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from aiokafka import AIOKafkaProducer

from stream_monitor.alerts.event import Alert, alert_of, encode
from stream_monitor.alerts.marks import Mark, Marks, time_of
from stream_monitor.cli import main
from stream_monitor.demo.broker import start_in_thread
from stream_monitor.kafka.records import read_compacted
from stream_monitor.settings import KafkaSettings, Settings
from stream_monitor.times import rfc3339
from stream_monitor.verdicts import AlertKey, Span, Verdict

NOW_MS = int(time.time() * 1_000)


def alert(model: str, metric: str, status="firing", *, severity="warning", ago_s=60, n=0) -> Alert:
    verdict = Verdict(
        key=AlertKey(model, "1", "", "performance", metric, "threshold"),
        level=severity,
        clear=False,
        value=0.7,
        threshold=0.8,
        direction="down",
        window=Span(NOW_MS - 1_000, NOW_MS, 100),
        summary=f"{model} 1: {metric} is 0.7\x1b[2J, below 0.8",
    )
    return alert_of(
        verdict,
        status,
        severity,
        NOW_MS - ago_s * 1_000,
        NOW_MS - 1_000 if status == "resolved" else None,
        n,
    )


ACCURACY = alert("churn", "accuracy", severity="critical", ago_s=600)
PRECISION = alert("churn", "precision", ago_s=60)
FRAUD = alert("fraud", "recall", ago_s=300)
OVER = alert("fraud", "f1", "resolved", ago_s=900, n=1)
BOARD = [ACCURACY, alert("fraud", "f1", ago_s=900), PRECISION, OVER, FRAUD]


async def _send(bootstrap: str, records: list[tuple[str, str, bytes | None]]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    try:
        for topic, key, value in records:
            await producer.send_and_wait(topic, value, key.encode())
    finally:
        await producer.stop()


@pytest.fixture
def broker(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with start_in_thread(partitions=1) as running:
        (tmp_path / "monitor.yaml").write_text(
            f"kafka: {{bootstrap_servers: '{running.bootstrap}', topic_prefix: 'x.'}}\n"
        )
        yield running.bootstrap


@pytest.fixture
def call(monkeypatch, capsys):
    def run(*arguments: str):
        monkeypatch.setattr("sys.argv", ["stream-monitor", "alerts", *arguments])
        code = 0
        try:
            main()
        except SystemExit as e:
            code = int(e.code or 0)
        found = capsys.readouterr()
        assert "Traceback" not in found.err
        assert "\x1b" not in found.out + found.err
        return code, found.out, found.err

    return run


def sent(bootstrap: str, *more: tuple[str, str, bytes | None]) -> None:
    asyncio.run(_send(bootstrap, [*(("x.alerts", a.fingerprint, encode(a)) for a in BOARD), *more]))


def lifecycle(bootstrap: str) -> dict[str, bytes]:
    return asyncio.run(
        read_compacted(
            Settings(kafka=KafkaSettings(bootstrap_servers=bootstrap, topic_prefix="x.")),
            "lifecycle",
        )
    )


def order(out: str) -> list[str]:
    return [
        a.subject
        for line in out.splitlines()
        for a in BOARD
        if a.fingerprint[:12] in line and a.status.upper() in line
    ]


def test_what_fires_the_newest_first(broker, call):
    sent(broker)
    code, out, err = call()
    assert (code, err) == (0, "")
    assert order(out) == ["precision", "recall", "accuracy"]
    assert "FIRING    critical" in out
    assert "churn 1: accuracy is 0.7?[2J, below 0.8" in out
    assert order(call("--all")[1]) == ["precision", "recall", "accuracy", "f1"]
    assert order(call("--all", "--model", "fraud")[1]) == ["recall", "f1"]
    assert order(call("--severity", "critical")[1]) == ["accuracy"]
    out = call("--limit", "1")[1]
    assert order(out) == ["precision"]
    assert "2 more" in out
    assert call("--model", "nobody")[1] == "no alert fires\n"


def test_json_is_one_alert_a_line(broker, call):
    sent(broker)
    assert call("ack", ACCURACY.fingerprint)[0] == 0
    lines = [json.loads(line) for line in call("--json", "--all")[1].splitlines()]
    assert [line["fingerprint"] for line in lines] == [
        a.fingerprint for a in (PRECISION, FRAUD, ACCURACY, OVER)
    ]
    assert lines[0] == msgspec.to_builtins(PRECISION) | {"marks": []}
    assert [m["type"] for m in lines[2]["marks"]] == ["acknowledged"]


def test_no_topic_and_no_broker(broker, call):
    code, _, err = call()
    assert (code, "x.alerts does not exist yet" in err) == (1, True)
    code, _, err = call("ack", "abcd")
    assert (code, "x.alerts does not exist yet" in err) == (1, True)


def test_tombstones_and_what_is_no_alert(broker, call):
    sent(
        broker,
        ("x.alerts", FRAUD.fingerprint, None),
        ("x.alerts", "k", b"{"),
        ("x.lifecycle", "churn", b"[]"),
        ("x.lifecycle", "churn", None),
    )
    code, out, err = call()
    assert (code, order(out)) == (0, ["precision", "accuracy"])
    assert "1 records on x.alerts are not readable" in err


@pytest.mark.parametrize(
    ("command", "kind", "hours"),
    [
        ("ack --for 2h", "acknowledged", 2),
        ("ack", "acknowledged", None),
        ("mute --for 2h", "muted", 2),
        ("unmute", "muted", 0),
        ("false", "false_alarm", None),
    ],
)
def test_what_people_say_is_a_record_on_lifecycle(broker, call, command, kind, hours):
    sent(broker)
    name, *lasts = command.split()
    code, out, _ = call(
        name,
        ACCURACY.fingerprint[:8].upper(),
        *lasts,
        "--comment",
        "looking into it",
        "--json",
    )
    assert code == 0
    records = lifecycle(broker)
    assert list(records) == ["churn"]
    record = json.loads(records["churn"])
    assert json.loads(out) == record
    at, until = time_of(record.pop("at")), record.pop("until", None)
    assert (None if until is None else time_of(until)) == (
        None if hours is None else at + timedelta(hours=hours)
    )
    assert abs(at - datetime.now(UTC)) < timedelta(minutes=1)
    assert record.pop("starts_at", None) == (None if kind == "muted" else ACCURACY.starts_at)
    record.pop("by", None)
    assert record == {
        "schema": 1,
        "type": kind,
        "model": "churn",
        "fingerprint": ACCURACY.fingerprint,
        "comment": "looking into it",
    }
    assert (": looking into it" in call("--severity", "critical")[1]) == (hours != 0)


def test_several_people_about_several_alerts_of_a_model(broker, call):
    sent(broker)
    for command, about in (("ack", ACCURACY), ("mute", PRECISION), ("false", PRECISION)):
        assert call(command, about.fingerprint)[0] == 0
    out = call("--model", "churn")[1].splitlines()
    assert [
        word
        for line in out
        for word in ("acknowledged", "muted", "called a false alarm")
        if word in line
    ] == ["muted", "called a false alarm", "acknowledged"]
    muted = next(
        m
        for line in call("--json")[1].splitlines()
        for m in json.loads(line)["marks"]
        if m["type"] == "muted"
    )
    assert time_of(muted["until"]) - time_of(muted["at"]) == timedelta(days=1), "a mute always ends"
    assert "not muted any more" in call("unmute", PRECISION.fingerprint)[1]
    assert "muted" not in call()[1]
    assert call("false", PRECISION.fingerprint, "--for", "2h")[0] == 2, "an episode is false or not"


def test_alerts_are_listed_by_incident(broker, call):
    opened = alert("churn", "accuracy", ago_s=600)
    joined = msgspec.structs.replace(
        alert("churn", "f1", ago_s=90), incident=opened.incident, primary=False
    )
    worse = msgspec.structs.replace(
        alert("churn", "recall", severity="critical", ago_s=120), incident=opened.incident
    )
    events = [FRAUD, joined, worse, opened]
    asyncio.run(_send(broker, [("x.alerts", a.fingerprint, encode(a)) for a in events]))
    lines = call()[1].splitlines()
    assert [line.startswith("  + ") for line in lines] == [False, False, True, True]
    assert [next(a.subject for a in events if a.fingerprint[:12] in line) for line in lines] == [
        "recall",
        "accuracy",
        "recall",
        "f1",
    ]
    out = call("--limit", "1")[1].splitlines()
    assert (len(out), out[-1]) == (2, "1 more; raise --limit to see them")


@pytest.mark.parametrize(
    ("prefix", "says"), [("0" * 32, "no alert has a fingerprint"), ("ab", "too short")]
)
def test_an_unknown_fingerprint_is_refused(broker, call, prefix, says):
    sent(broker)
    code, _, err = call("ack", prefix)
    assert code == 1
    assert says in err
    assert asyncio.run(_missing(broker)) == ["lifecycle"], "nothing was written"


async def _missing(bootstrap: str) -> list[str]:
    from stream_monitor.kafka.records import TopicReader

    async with TopicReader(
        Settings(kafka=KafkaSettings(bootstrap_servers=bootstrap, topic_prefix="x.")), ["lifecycle"]
    ) as records:
        return records.missing


def test_a_fingerprint_that_is_nearly_right_or_not_unique(broker, call):
    sent(broker)
    mistyped = ACCURACY.fingerprint[:9] + ("0" if ACCURACY.fingerprint[9] != "0" else "1")
    code, _, err = call("ack", mistyped)
    assert code == 1
    assert f"did you mean:\n  {ACCURACY.fingerprint[:12]}  firing" in err
    twin = msgspec.structs.replace(FRAUD, fingerprint=ACCURACY.fingerprint[:10] + "f" * 22)
    sent(broker, ("x.alerts", twin.fingerprint, encode(twin)))
    code, _, err = call("mute", ACCURACY.fingerprint[:6])
    assert code == 1
    assert "matches 2 fingerprints; give more characters" in err


def test_usage_errors(broker, call):
    assert call("--severity", "loud")[0] == 2
    code, _, err = call("ack", "abcdef", "--for", "soon")
    assert (code, "'soon' is not a duration" in err) == (2, True)


@pytest.mark.parametrize(("stop", "arguments"), [(signal.SIGINT, ["--json"]), (signal.SIGTERM, [])])
def test_following_goes_on_until_it_is_stopped(broker, stop, arguments):
    sent(broker)
    process = subprocess.Popen(
        [sys.executable, "-m", "stream_monitor", "alerts", "--follow", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        first = [process.stdout.readline() for _ in range(3)]
        new = msgspec.structs.replace(PRECISION, status="resolved", ends_at=rfc3339(NOW_MS))
        mark = Mark(
            type="muted",
            model="fraud",
            at=rfc3339(NOW_MS),
            fingerprint=FRAUD.fingerprint,
            comment="known",
        )
        asyncio.run(
            _send(
                broker,
                [
                    ("x.alerts", new.fingerprint, encode(new)),
                    ("x.lifecycle", "fraud", mark.encoded()),
                ],
            )
        )
        later = process.stdout.readline()
        process.send_signal(stop)
        _, err = process.communicate(timeout=120)
        assert (process.returncode, err) == (0, "")
    finally:
        process.kill()
    assert all(
        f[:12] in line
        for f, line in zip(
            (PRECISION.fingerprint, FRAUD.fingerprint, ACCURACY.fingerprint), first, strict=True
        )
    )
    if arguments:
        assert json.loads(later)["status"] == "resolved"
    else:
        assert "RESOLVED" in later


def test_an_acknowledgement_is_about_its_episode_and_a_mute_about_all():
    marks = Marks()
    for kind in ("acknowledged", "muted", "false_alarm"):
        assert (
            marks.take(
                Mark(type=kind, model="m", at="2025-01-01T10:00:00Z", fingerprint="f").encoded()
            )
            is not None
        )
    now = time_of("2025-01-02T00:00:00Z")
    assert [m.type for m in marks.of("f", "2025-01-01T09:59:59.999Z", now)] == [
        "acknowledged",
        "muted",
        "false_alarm",
    ]
    assert [m.type for m in marks.of("f", "2025-01-01T10:00:00.001Z", now)] == ["muted"]
    marks.take(
        Mark(
            type="muted",
            model="m",
            at="2025-01-01T11:00:00Z",
            fingerprint="f",
            until="2025-01-02T00:00:00Z",
        ).encoded()
    )
    assert [m.type for m in marks.of("f", "2025-01-01T12:00:00Z", now)] == []
    for other in (
        b'{"schema": 1, "type": "stage", "model": "m"}',
        b"{",
        b'{"type":"muted","model":"m","at":"soon","fingerprint":"f"}',
    ):
        assert marks.take(other) is None
