"""
The HTTP server of `examples/` on a real Kafka with a real worker: requests, labels, a verdict, and
no more traffic for the arm that was rolled back.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from stream_monitor.client import Router
from tests.kafka.site import Site, read_all, value

pytestmark = [pytest.mark.kafka, pytest.mark.slow]
EXAMPLE = Path(__file__).parents[2] / "examples" / "serve_http.py"
HEARD_S = 5
"""So soon after the verdict routers must honour it."""


@pytest.fixture
def site(kafka: Any, tmp_path: Path) -> Iterator[Site]:
    found = Site(kafka.bootstrap, tmp_path)
    try:
        found.start()
        found.ready()
        yield found
    finally:
        if found.process is not None:
            found.process.kill()
            found.process.wait(10)


def start_experiment(site: Site) -> dict[str, Any]:
    words = [
        "start",
        "--model",
        "fraud",
        "--name",
        "fraud-17",
        "--arm",
        "control=3",
        "--arm",
        "b=4",
    ]
    words += ["--metric", "accuracy", "--effect", "0.2", "--maturity", "2s", "--duration", "1s,14d"]
    command = [
        sys.executable,
        "-m",
        "stream_monitor",
        "experiment",
        *words,
        "--on-rollback",
        "stop",
    ]
    done = subprocess.run(
        [*command, "--json", "--config", str(site.file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    event: dict[str, Any] = json.loads(done.stdout)
    return event


def test_from_a_request_to_a_rollback_of_its_arm(site: Site) -> None:
    event = start_experiment(site)
    router = Router.from_event(event)
    program = subprocess.Popen(
        [sys.executable, EXAMPLE, "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "KAFKA": site.bootstrap, "TOPIC_PREFIX": site.prefix},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    try:
        assert program.stdout is not None
        url = program.stdout.readline().split()[-1]

        def post(path: str, body: dict[str, Any]) -> Any:
            with urllib.request.urlopen(url + path, json.dumps(body).encode(), 30) as response:
                return json.loads(response.read())

        def serve(i: int) -> tuple[str, float]:
            """A prediction and its label: the control is nearly always right, b nearly never."""
            rng = random.Random(i)
            user, amount = f"user-{i}", rng.uniform(91, 99)
            score = post("predict", {"order": f"o-{i}", "user": user, "amount": amount})["score"]
            post("label", {"order": f"o-{i}", "label": rng.random() < 0.1})
            return user, score * {True: 180, False: 200}[score >= 0.5] / amount

        url += "/"
        served: dict[str, float] = {}
        verdicts: list[dict[str, Any]] = []
        deadline = time.monotonic() + 60
        while not verdicts:
            assert time.monotonic() < deadline, site.metrics()
            with ThreadPoolExecutor(4) as pool:
                served |= dict(pool.map(serve, range(len(served), len(served) + 100)))
            records = read_all(site.bootstrap, site.prefix + "lifecycle")
            told = [m for m in records if b"experiment_verdict" in value(m)]
            verdicts = [json.loads(value(m)) for m in told]
            written_s = told[0].timestamp()[1] / 1e3 if told else 0.0
        assert [(v["arm"], v["verdict"], v["because"]) for v in verdicts] == [
            ("b", "rollback", ["accuracy"])
        ]
        of_b = next(f"user-{i}" for i in range(10**6) if router(f"user-{i}") == "b")
        while post("predict", {"user": of_b, "amount": 90})["score"] != 0.45:
            assert time.time() < written_s + HEARD_S, "b still has traffic"
            time.sleep(0.01)
        print(f"rolled back {time.time() - written_s:.2f} s after the verdict was written")
        program.send_signal(signal.SIGINT)
        out, err = program.communicate(timeout=30)
        assert (out, program.returncode) == ("nothing was dropped\n", 0), err
    finally:
        program.kill()
        program.communicate()
    check_events(site, router, served, written_s)


def check_events(site: Site, router: Router, served: dict[str, float], written_s: float) -> None:
    """Each call has its event with arm, unit and version, and its label."""
    sent = [json.loads(value(m)) for m in read_all(site.bootstrap, site.prefix + "predictions")]
    events = {e["unit"]: e for e in sent if e["event_id"].startswith("o-")}
    assert set(events) == set(served)
    late = [e for e in events.values() if e["variant"] != router(e["unit"])]
    assert all(e["timestamp"] >= (written_s - 1) * 1e3 for e in late), "only after the verdict"
    assert all((e["variant"], router(e["unit"])) == ("control", "b") for e in late)
    assert {e["variant"]: e["version"] for e in sent} == {"control": "3", "b": "4"}
    labels = [json.loads(value(m)) for m in read_all(site.bootstrap, site.prefix + "labels")]
    assert {e["event_id"] for e in labels} == {e["event_id"] for e in events.values()}
    assert all(ratio == pytest.approx(1) for ratio in served.values())
