"""
A model server on the standard library's `http.server`, with threads and a decorated function.

    python examples/serve_http.py PORT                      # with Kafka
    python examples/serve_http.py PORT EVENTS EXPERIMENTS   # with two files in place of it

Its events go to Kafka, and the experiments come from there; this needs confluent-kafka.
Environment: `KAFKA` (127.0.0.1:9092), `TOPIC_PREFIX` (empty). Or it appends its events to the file
EVENTS, and follows the file EXPERIMENTS (events of `lifecycle`, one a line).

    curl -d '{"order": "o-1", "user": "user-17", "amount": 120}' http://127.0.0.1:PORT/predict
    curl -d '{"order": "o-1", "label": true}' http://127.0.0.1:PORT/label
"""

from __future__ import annotations

import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from stream_monitor.client import (
    Answer,
    Follower,
    Monitor,
    Sender,
    Source,
    current_call,
    follow_confluent,
    follow_file,
)

MODELS = {"3": lambda amount: min(0.99, amount / 200), "4": lambda amount: min(0.99, amount / 180)}
KAFKA, PREFIX = os.environ.get("KAFKA", "127.0.0.1:9092"), os.environ.get("TOPIC_PREFIX", "")


def producer() -> Any:
    """Make the producer of this process, when its first event comes."""
    from confluent_kafka import Producer

    return Producer(
        {
            "bootstrap.servers": KAFKA,
            "linger.ms": 20,
            "compression.type": "lz4",
            "on_delivery": sender.on_delivery,
        }
    )


def consumer() -> Any:
    """Make the consumer of this process: every server reads every event."""
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

    found = Consumer(
        {
            "bootstrap.servers": KAFKA,
            "group.id": "unused",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    found.assign([TopicPartition(f"{PREFIX}lifecycle", 0, OFFSET_BEGINNING)])
    return found


def append(topic: str, value: bytes, key: bytes | None) -> None:  # noqa: ARG001
    with Path(sys.argv[2]).open("ab") as file:
        file.write(value + b"\n")


WITH_KAFKA = len(sys.argv) < 4
sender = Sender(connect=producer) if WITH_KAFKA else Sender(append)
follower = Follower("fraud")
monitor = Monitor("fraud", sender, version="3", router=follower, topic_prefix=PREFIX)


def observe(score: float, user: str, amount: float, order: str | None) -> Answer:  # noqa: ARG001
    """What the event says: the result first, then the arguments of `predict`."""
    return {"score": score, "features": {"amount": amount}}


@monitor.watch(
    observe,
    unit=lambda user, amount, order: user,  # noqa: ARG005
    event_id=lambda user, amount, order: order,  # noqa: ARG005
)
def predict(user: str, amount: float, order: str | None) -> float:  # noqa: ARG001
    return MODELS[current_call().version](amount)


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/label":
            answer: dict[str, Any] = {"sent": monitor.label(body["order"], body["label"])}
        else:
            answer = {"score": predict(body["user"], body["amount"], body.get("order"))}
        text = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *arguments: object) -> None:
        """Say nothing of each request."""


def follow() -> Source:
    if WITH_KAFKA:
        return follow_confluent(follower, consumer)
    return follow_file(follower, sys.argv[3])


def main() -> None:
    source = follow()
    follower.wait(5)  # until all is read; without a broker it serves the control
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # else it ends without a flush
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()
        source.close()
        sender.close()
        print(sender.counts().dropped or "nothing was dropped")


if __name__ == "__main__":
    main()
