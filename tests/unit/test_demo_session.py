"""
The parts around the worker: its process, what is read of it, what is shown.

A small fake stands in for the worker; the real one is run by tests/runtime.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import socket
import sys

import pytest

from stream_monitor.demo import session as sessions
from stream_monitor.demo import worker as workers
from stream_monitor.demo.readings import Alert, Drift, Readings, parse_alert, parse_metrics
from stream_monitor.demo.session import DemoOptions, State, run
from stream_monitor.demo.simulation import CHAPTERS, MODEL
from stream_monitor.demo.view import (
    LineView,
    LiveView,
    alert_line,
    numbers,
    summary,
    summary_text,
)
from stream_monitor.demo.worker import WorkerProcess, configuration, free_port
from stream_monitor.errors import BrokerError
from stream_monitor.settings import KafkaSettings

FAKE_WORKER = """
import http.server, signal, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'model_predictions_total{model="credit-risk",version="1"} 5\\n' if self.path == '/metrics' else b'ok'
        self.send_response(200); self.send_header('Content-Length', str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *_): pass
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
print(f'listening on http://127.0.0.1:{server.server_port}', flush=True)
print('some log', file=sys.stderr, flush=True)
server.serve_forever()
"""  # noqa: E501
EXPOSITION = """
# TYPE model_predictions counter
model_predictions_total{model="credit-risk",version="1"} 100
model_predictions_total{model="credit-risk",version="2"} 7
model_predictions_total{model="other",version="1"} 5000
model_labels_total{model="credit-risk",version="1"} 40
model_accuracy{model="credit-risk",version="1",window="last_500"} 0.75
model_accuracy{model="credit-risk",version="1",window="1m"} 0.5
model_drift_score{model="credit-risk",version="1",feature="age",method="psi"} 0.01
model_drift_score{model="credit-risk",version="1",feature="session_minutes",method="psi"} 1.5
model_drift_score{model="credit-risk",version="1",feature="age",method="ks"} 9
model_drift_detected{model="credit-risk",version="1",feature="__error__",method="adwin"} 1
model_drift_detected{model="credit-risk",version="1",feature="age",method="adwin"} 0
model_alerts_firing{model="credit-risk",version="1",severity="critical"} 1
model_alerts_firing{model="credit-risk",version="1",severity="warning"} 2
"""
ALERT = Alert(
    "1",
    "f",
    "firing",
    "critical",
    "performance",
    "accuracy",
    "Accuracy fell to 0.71.",
    MODEL,
    "i",
    notify=True,
)
JOINED = Alert(
    "2", "g", "firing", "warning", "concept_drift", "__error__", "Errors rose.", MODEL, "i"
)


def fake(code: str) -> tuple[str, ...]:
    return sys.executable, "-c", code


def test_what_is_shown_is_taken_from_the_exposition():
    readings = parse_metrics(EXPOSITION, MODEL)
    assert readings == Readings(
        predictions=107,
        labels=40,
        accuracy=0.75,
        drifts=[Drift("session_minutes", "psi", 1.5), Drift("age", "psi", 0.01)],
        detected=["__error__"],
        firing=3,
    )


def test_what_is_not_there_is_not_shown_as_zero():
    readings = parse_metrics("", MODEL)
    assert (readings.accuracy, readings.drifts) == (None, [])
    assert numbers(state(readings))["accuracy"] == "learning"


def test_alerts_of_other_models_and_tombstones_are_passed_over():
    fields = {
        "id": "1",
        "fingerprint": "f",
        "status": "firing",
        "severity": "critical",
        "kind": "performance",
        "subject": "accuracy",
        "summary": "Accuracy fell to 0.71.",
        "incident": "i",
        "notify": True,
    }
    assert (
        parse_alert(json.dumps({**fields, "model": MODEL, "evidence": {"x": 1}}).encode(), MODEL)
        == ALERT
    )
    assert parse_alert(json.dumps({**fields, "model": "other"}).encode(), MODEL) is None
    assert parse_alert(None, MODEL) is None


def state(readings: Readings) -> State:
    return State(
        MODEL,
        "127.0.0.1:1",
        True,
        "http://127.0.0.1:2/metrics",
        CHAPTERS,
        CHAPTERS[0],
        elapsed_s=12.0,
        sent_predictions=120,
        sent_labels=80,
        readings=readings,
        alerts=[(11.0, ALERT), (11.5, JOINED)],
    )


def test_lines_say_numbers_alerts_and_the_address_of_the_metrics():
    out = io.StringIO()
    with LineView(out) as view:
        shown = state(parse_metrics(EXPOSITION, MODEL))
        view.begin(shown)
        view.update(shown)
        view.update(shown)
        view.alert(11.0, ALERT)
    text = out.getvalue()
    assert "http://127.0.0.1:2/metrics" in text
    assert (
        text.count(
            "predictions 107  labels 40  accuracy 0.750  drift (PSI) session_minutes 1.50, "
            "age 0.01  detectors errors  alerts firing 3"
        )
        == 1
    )
    assert "FIRING    critical  performance: Accuracy fell to 0.71. [a person is told]" in text
    assert "[same cause: nobody is told]" in alert_line(11.5, JOINED)
    assert "memory only" in text


def test_with_a_broker_of_its_own_the_demo_does_not_speak_of_the_one_inside():
    out = io.StringIO()
    shown = state(Readings())
    shown.embedded = False
    with LineView(out) as view:
        view.begin(shown)
    assert "memory only" not in out.getvalue()
    assert "removed at the end" in out.getvalue()


def test_the_live_page_draws(monkeypatch, capsys):
    with LiveView() as view:
        shown = state(parse_metrics(EXPOSITION, MODEL))
        view.begin(shown)
        view.alert(11.0, ALERT)
        view.update(shown)
    text = capsys.readouterr().out
    assert "0.750" in text
    assert "Accuracy fell to 0.71." in text


def test_a_long_sentence_wraps_and_is_whole(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "60")
    long = (
        "credit-risk 1: accuracy of country=DE is 0.742 over last_500 (500 labelled), below 0.800 "
        "since the world has changed"
    )
    with LiveView() as view:
        view.begin(state(Readings()))
        view.alert(11.0, Alert("1", "f", "firing", "critical", "performance", "accuracy", long))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 60
    assert long in " ".join(" ".join(lines).split())


def test_the_summary_has_what_was_sent_and_what_was_counted():
    shown = state(parse_metrics(EXPOSITION, MODEL))
    assert summary(shown)["sent"] == {"predictions": 120, "labels": 80}
    assert summary(shown)["predictions"] == 107
    assert summary(shown)["alerts"][0] == {
        "at_s": 11.0,
        "status": "firing",
        "severity": "critical",
        "kind": "performance",
        "subject": "accuracy",
        "summary": "Accuracy fell to 0.71.",
        "incident": "i",
        "notify": True,
    }
    assert summary(shown)["notifications"] == 1
    assert summary_text(shown) == (
        "12 s: 107 predictions and 40 labels counted, accuracy 0.750, 2 alerts fired "
        "(concept_drift, performance) in 1 incident, 1 notification: one cause is one incident"
    )


def test_a_port_that_is_taken_is_not_insisted_on():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port(port) == 0
    assert free_port(port) == port


async def test_the_worker_is_ready_on_entry_and_gone_on_exit(monkeypatch):
    monkeypatch.setenv("STREAM_MONITOR_KAFKA__TOPIC_PREFIX", "of-another")

    process = WorkerProcess(
        {"kafka": {}},
        fake(
            "import os; assert not [n for n in os.environ if n.startswith('STREAM_MONITOR_')]\n"
            + FAKE_WORKER
        ),
    )
    async with process:
        assert process.url.startswith("http://127.0.0.1:")
        started = process._process
        assert started is not None
        pid = started.pid
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert started.returncode == 0


@pytest.mark.parametrize(
    "code",
    [
        "import sys; print('topics are missing', file=sys.stderr); sys.exit(3)",
        FAKE_WORKER.replace("server.serve_forever()", "sys.exit('topics are missing')"),
    ],
)
async def test_a_worker_that_ends_is_an_error_with_the_end_of_its_log(code):
    async def body():
        async with WorkerProcess({}, fake(code)):
            pytest.fail("it is not ready")

    with pytest.raises(BrokerError, match=r"(?s)ended with code [13].*topics are missing"):
        await body()


async def test_a_worker_that_does_not_get_ready_is_stopped(monkeypatch):
    monkeypatch.setattr(workers, "START_TIMEOUT_S", 0.5)

    process = WorkerProcess(
        {},
        fake("import time; print('listening on http://127.0.0.1:9', flush=True); time.sleep(60)"),
    )
    with pytest.raises(BrokerError, match="not ready within"):
        await process.__aenter__()
    assert process._process is not None
    assert process._process.returncode is not None


async def test_a_run_ends_by_itself_when_its_time_is_over(monkeypatch):
    monkeypatch.setattr(
        sessions, "WorkerProcess", lambda settings: WorkerProcess(settings, fake(FAKE_WORKER))
    )
    monkeypatch.setattr(sessions, "SETTLE_S", 0.2)
    out = io.StringIO()

    shown = await run(
        DemoOptions(seconds=3, port=0, rate_per_s=100), LineView(out), asyncio.Event()
    )
    assert shown.sent_predictions > 50
    assert shown.readings.predictions == 5
    assert out.getvalue().count("STORY") >= 3


async def test_a_run_ends_when_it_is_told_to(monkeypatch):
    monkeypatch.setattr(
        sessions, "WorkerProcess", lambda settings: WorkerProcess(settings, fake(FAKE_WORKER))
    )

    stop = asyncio.Event()

    class Stopping(LineView):
        def update(self, state: State) -> None:
            stop.set()

    shown = await run(DemoOptions(port=0), Stopping(io.StringIO()), stop)
    assert shown.readings.predictions == 5


async def test_a_worker_that_dies_ends_the_run(monkeypatch):
    dying = FAKE_WORKER.replace(
        "server.serve_forever()",
        "import threading; threading.Timer(1, lambda: (print('disk on fire', file=sys.stderr, "
        "flush=True), __import__('os')._exit(70))).start(); server.serve_forever()",
    )
    monkeypatch.setattr(
        sessions, "WorkerProcess", lambda settings: WorkerProcess(settings, fake(dying))
    )
    with pytest.raises(BrokerError, match=r"(?s)code 70.*disk on fire"):
        await run(DemoOptions(port=0), LineView(io.StringIO()), asyncio.Event())


def test_the_configuration_is_for_the_model_of_the_simulation():
    settings = configuration(
        KafkaSettings(bootstrap_servers="b:1", topic_prefix="p-"),
        guarantee="at_least_once",
        port=0,
        baseline_rows=200,
    )
    assert settings["kafka"] == {
        "bootstrap_servers": "b:1",
        "topic_prefix": "p-",
        "create_topics": True,
    }
    assert settings["worker"]["processing_guarantee"] == "at_least_once"
    assert list(settings["models"]) == [MODEL]
