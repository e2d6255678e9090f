"""The demo and `produce` as a person runs them: whole processes, on the embedded broker."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stream_monitor.demo.broker import start_in_thread

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "stream_monitor")


def run(*arguments: str, timeout_s: float = 90, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        cwd=ROOT,
        check=False,
        **options,
    )


@pytest.mark.slow
def test_the_demo_tells_its_story_and_ends_by_itself():
    done = run("demo", "--seconds", "20", "--port", "0", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["predictions"] == told["sent"]["predictions"] > 1_000
    assert told["accuracy"] < 0.8
    fired = {
        (alert["kind"], alert["subject"]) for alert in told["alerts"] if alert["status"] == "firing"
    }
    assert ("performance", "accuracy") in fired
    assert {"concept_drift", "data_drift", "data_quality"} <= {kind for kind, _ in fired}
    assert all(alert["at_s"] >= 7.0 for alert in told["alerts"]), (
        "an alert before anything went wrong"
    )
    assert "session_minutes" in told["drift"]
    of_errors = [
        alert
        for alert in told["alerts"]
        if alert["kind"] in ("performance", "concept_drift") or alert["subject"] == "accuracy"
    ]
    assert len({alert["incident"] for alert in of_errors}) == 1, "one change of concept"
    notified = [a for a in told["alerts"] if a["notify"] and a["status"] != "resolved"]
    assert told["notifications"] == len(notified) < len(fired)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_ends_cleanly_when_it_is_told_to(number):
    process = subprocess.Popen(
        [*COMMAND, "demo", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    told = (line for line in process.stdout if "predictions" in line)
    assert next(told) != next(told), "it is under way"
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "predictions" in out.splitlines()[-1]
    assert err == ""


def test_produce_sends_a_file(tmp_path):
    path = tmp_path / "churn.csv"
    path.write_text("prediction,label,age\n" + "1,1,30\n" * 50)
    with start_in_thread() as broker:
        done = run("produce", str(path), "--broker", broker.bootstrap, "--now", "--json")
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert (told["sent"], told["complete"]) == ({"predictions": 50, "labels": 50}, True)
        assert sum(log.end for log in broker.broker.topics["predictions"].logs) == 50


def test_produce_reads_a_live_stdin_and_ends_at_a_signal():
    with start_in_thread() as broker:
        process = subprocess.Popen(
            [*COMMAND, "produce", "--predictions", "-", "--broker", broker.bootstrap],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(b'{"event_id": "1", "model": "m", "prediction": 1}\n')
        process.stdin.flush()
        until_s = time.monotonic() + 120
        while (
            "predictions" not in broker.broker.topics
            or sum(log.end for log in broker.broker.topics["predictions"].logs) < 1
        ):
            assert time.monotonic() < until_s
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        process.wait(120)
        out, err = process.stdout.read(), process.stderr.read()
        for stream in (process.stdin, process.stdout, process.stderr):
            stream.close()
        assert (process.returncode, err) == (0, b"")
        assert out.startswith(b"sent 1 predictions and 0 labels")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("produce",), "no input"),
        (("produce", "absent.csv"), "absent.csv: No such file"),
        (("produce", "--simulate", "--rate", "max"), "--rate max"),
        (("produce", "--simulate", "--rate", "fast"), "N/s"),
        (("produce", "x.csv", "--simulate"), "takes no files"),
        (("produce", "x.csv", "--interval", "soon"), "not a duration"),
        (("produce", "--predictions", "-", "--labels", "-"), "only one"),
        (("demo", "--seconds", "1"), "5"),
    ],
)
def test_what_is_asked_wrong_exits_with_2(arguments, said):
    done = run(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
