"""`baseline` and `alerts` beside a worker on a real Kafka."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

pytestmark = pytest.mark.kafka
DEADLINE_S = 60
ROWS = 1_500


def call(folder: Path, *arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "stream_monitor", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout if code == 0 else done.stderr


def wait(what: str, condition: Any) -> Any:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        try:
            if found := condition():
                return found
        except OSError:
            pass
        time.sleep(0.3)
    return pytest.fail(f"not within {DEADLINE_S} s: {what}")


def shown_or_none(folder: Path, key: str) -> dict[str, Any] | None:
    """What `baseline show` says of a key; None while nothing is there."""
    done = subprocess.run(
        [sys.executable, "-m", "stream_monitor", "baseline", "show", key, "--json"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    return json.loads(done.stdout) if done.returncode == 0 else None


def means(url: str) -> dict[str, float]:
    """Mean of feature x by model: there is one as soon as the model has a baseline."""
    with urllib.request.urlopen(url + "/metrics", timeout=10) as response:
        lines = response.read().decode().splitlines()
    return {
        line.split('model="')[1].split('"')[0]: float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith("model_feature_mean{") and 'feature="x"' in line
    }


def table(path: Path, rows: int, *, accuracy: float) -> None:
    rnd = random.Random(3)
    lines = ["x,country,prediction,label"]
    for _ in range(rows):
        prediction = rnd.random() < 0.5
        lines.append(
            f"{rnd.gauss(7, 2)!r},{rnd.choice(['de', 'fr'])},{int(prediction)},{int(prediction == (rnd.random() < accuracy))}"  # noqa: E501
        )
    path.write_text("\n".join(lines) + "\n")


@contextmanager
def working(folder: Path) -> Iterator[str]:
    """The address of a worker that runs meanwhile, and ends well; its log is `worker.log`."""
    with (folder / "worker.log").open("w") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "stream_monitor", "worker"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        assert worker.stdout is not None
        yield worker.stdout.readline().split()[-1]
    finally:
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0


@pytest.fixture
def prefix(kafka: Any, tmp_path: Path) -> str:
    """
    A prefix of our own, with one partition of predictions: then the order of rows is that of the
    file.
    """
    name = f"t{random.randrange(10**9)}."
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    admin.create_topics([NewTopic(name + "predictions", 1, 1)])[name + "predictions"].result(30)
    (tmp_path / "monitor.yaml").write_text(
        f"kafka: {{bootstrap_servers: '{kafka.bootstrap}', topic_prefix: '{name}'}}\nworker: "
        f"{{group: '{name}group', metrics: {{port: 0}}}}\n"
        f"defaults: {{baseline: {{rows: {ROWS - 500}}}}}\nmodels: {{filed: {{baseline: "
        f"{{source: file, path: file.json}}}}}}\n"
    )
    return name


def test_baseline_of_every_source_and_the_alerts_that_follow(
    kafka: Any, prefix: str, tmp_path: Path
) -> None:
    table(tmp_path / "few.csv", 200, accuracy=1.0)
    table(tmp_path / "many.csv", ROWS, accuracy=0.3)  # below that of guesses
    call(tmp_path, "baseline", "build", "few.csv", "-o", "file.json")
    inputs_alone = ("--ignore", "label", "--rows", str(ROWS - 500), "-o", "many.json", "--json")
    built = json.loads(call(tmp_path, "baseline", "build", "many.csv", *inputs_alone))
    call(tmp_path, "baseline", "publish", "file.json", "--model", "published")
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    producer.produce(prefix + "baselines", b'{"features": {"x": {"type"', b"broken/")
    assert producer.flush(30) == 0
    with working(tmp_path) as url:
        for model, file in (
            ("published", "few"),
            ("filed", "few"),
            ("broken", "few"),
            ("learnt", "many"),
        ):
            call(tmp_path, "produce", f"{file}.csv", "--map", f"model=:{model}")
        found = wait(
            "baselines of all that have one", lambda: m if len(m := means(url)) >= 3 else None
        )
        assert set(found) == {"published", "filed", "learnt"}, (
            "a broken profile is left out, and 200 rows are too few to learn"
        )
        assert (
            "the baseline published as 'broken/' cannot be used"
            in (tmp_path / "worker.log").read_text()
        )
        shown = wait("the learnt profile", lambda: shown_or_none(tmp_path, "learnt/"))
        assert shown["id"] == built["id"], "learnt by the worker, built from the file: the same"

        lines = wait(
            "an alert", lambda: call(tmp_path, "alerts", "--all", "--json", "--model", "learnt")
        ).splitlines()
        alert = json.loads(lines[0])
        assert (alert["kind"], alert["subject"], alert["marks"]) == ("performance", "accuracy", [])
        call(
            tmp_path,
            "alerts",
            "ack",
            alert["fingerprint"][:10],
            "--for",
            "2h",
            "--comment",
            "known",
        )
        assert ": known" in call(tmp_path, "alerts", "--all")
        assert "no alert has a fingerprint" in call(tmp_path, "alerts", "mute", "zzzz", code=1)


def test_a_missing_file_ends_a_worker_before_it_connects(prefix: str, tmp_path: Path) -> None:
    assert "models.filed.baseline.path: file.json: cannot be read" in call(
        tmp_path, "worker", code=2
    )
