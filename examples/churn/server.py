"""
A model server on the standard library's `http.server`; it serves the version that the loop wants.

    python server.py                    # http://127.0.0.1:8080; needs a registered version
    python server.py --port 0 --version v1.0.0

It follows the topic `lifecycle`: `Follower.version(user)` is the version in production, or the one
of the user's arm while a new version is rolled out. Models come back from git and DVC by their tag.
Environment: `STREAM_MONITOR_KAFKA__BOOTSTRAP_SERVERS` (127.0.0.1:9092), as for stream-monitor.

    curl -d '{"user": "user-17", "features": {"calls": 2.0}}' http://127.0.0.1:8080/predict
    curl -d '{"id": "ID OF THE ANSWER", "label": 1}' http://127.0.0.1:8080/labels
    curl http://127.0.0.1:8080/healthz
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from model import Model

from stream_monitor.client import Follower, Monitor, Sender, follow_confluent

MODEL = "churn"
KAFKA = os.environ.get("STREAM_MONITOR_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:9092")
MODELS = Path("models")
"""Model files of versions, brought back once; git ignores the folder."""


def producer() -> Any:
    """Make the producer, when the first event comes."""
    from confluent_kafka import Producer

    return Producer({"bootstrap.servers": KAFKA, "linger.ms": 20})


def consumer() -> Any:
    """Make the consumer: every server reads every event of `lifecycle`."""
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

    found = Consumer(
        {
            "bootstrap.servers": KAFKA,
            "group.id": "unused",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    found.assign([TopicPartition("lifecycle", 0, OFFSET_BEGINNING)])
    return found


class Versions:
    """The models of all versions that were asked for."""

    def __init__(self) -> None:
        self.loaded: dict[str, Model] = {}
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def __getitem__(self, version: str) -> Model:
        """The model; the first call of a version waits until DVC has brought it back."""
        with self._locks[version]:
            if version not in self.loaded:
                self.loaded[version] = Model.load(brought_back(version))
            return self.loaded[version]


def brought_back(version: str) -> Path:
    """The model file of a version."""
    if not re.fullmatch(r"v\d+\.\d+\.\d+", version):
        raise ValueError(f"{version!r} is no version")  # it becomes a part of a path and a command
    path = MODELS / f"{version}.json"
    if not path.exists():
        MODELS.mkdir(exist_ok=True)
        part = path.with_suffix(".part")
        command = [sys.executable, "-m", "dvc", "get", "--quiet", "--force", ".", "model.json"]
        tag = f"{MODEL}@{version}"
        fetch = ["git", "fetch", "--quiet", "origin", "tag", tag]
        subprocess.run(fetch, check=False)  # a clone on another machine does not have it yet
        subprocess.run([*command, "--rev", tag, "-o", str(part)], check=True)
        part.replace(path)
    return path


class Handler(BaseHTTPRequestHandler):
    """`/predict`, `/labels` and `/healthz`."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    follower: Follower
    monitor: Monitor
    versions = Versions()
    first: str | None = None

    def do_POST(self) -> None:
        try:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)))
            if self.path == "/predict":
                self.answer(200, self.predict(str(body["user"]), body["features"]))
            elif self.path == "/labels":
                sent = self.monitor.label(str(body["id"]), body["label"])
                self.answer(202, {"sent": sent})
            else:
                self.answer(404, {"error": "POST /predict or /labels, or GET /healthz"})
        except (KeyError, TypeError, ValueError) as e:
            self.answer(400, {"error": f"{type(e).__name__}: {e}"})
        except Exception as e:
            self.answer(500, {"error": f"{type(e).__name__}: {e}"})

    def predict(self, user: str, features: dict[str, float]) -> dict[str, Any]:
        """Answer with the version of this user, and report the call."""
        version = self.follower.version(user) or self.first
        if version is None:
            raise RuntimeError(f"no version of {MODEL} is in production: models promote VERSION")
        event_id, fields = uuid.uuid4().hex, self.follower.fields(user)
        model = self.versions[version]
        began = time.perf_counter()
        score = model.score(features)
        took_ms = (time.perf_counter() - began) * 1e3
        self.monitor.prediction(
            event_id, version=version, score=score, features=features, latency_ms=took_ms, **fields
        )
        return {"id": event_id, "version": version, "score": round(score, 6)}

    def do_GET(self) -> None:
        if self.path != "/healthz":
            self.answer(404, {"error": "GET /healthz"})
            return
        well = self.follower.ready
        told = {"follows": well, "loaded": sorted(self.versions.loaded)}
        self.answer(200 if well else 503, told | {"lost": self.monitor.sender.counts().dropped})

    def answer(self, status: int, told: dict[str, Any]) -> None:
        text = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *arguments: object) -> None:
        """Say nothing of each request."""


def main() -> None:
    """Serve until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--port", type=int, default=8080, help="0: any that is free")
    parser.add_argument("--version", help="serves while nobody said what is in production")
    given = parser.parse_args()

    sender = Sender(connect=producer)  # the four lines of the client: events go out …
    follower = Follower(MODEL)
    source = follow_confluent(follower, consumer)  # … and what is deployed comes in
    monitor = Monitor(MODEL, sender)

    Handler.follower, Handler.monitor, Handler.first = follower, monitor, given.version
    if not follower.wait(10):
        print(f"{KAFKA} has not said yet what is deployed: {follower.last_error}", file=sys.stderr)
    server = ThreadingHTTPServer(("127.0.0.1", given.port), Handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # otherwise no flush at the end
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()
        source.close()
        sender.close()
        print(f"lost events: {sender.counts().dropped or 'none'}")


if __name__ == "__main__":
    main()
