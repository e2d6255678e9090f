"""
A model server on the standard library's `http.server`, with threads and a decorated function.

    python examples/serve_http.py PORT EVENTS EXPERIMENTS

It appends its events to the file EVENTS, and follows the experiments in the file EXPERIMENTS
(events of `lifecycle`, one a line). With Kafka the sender gets a producer instead:

    sender = Sender(connect=lambda: Producer({"bootstrap.servers": "127.0.0.1:9092"}))
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from stream_monitor.client import Answer, Follower, Monitor, Sender, current_call, follow_file

MODELS = {"3": lambda amount: min(0.99, amount / 200), "4": lambda amount: min(0.99, amount / 180)}


def append(topic: str, value: bytes, key: bytes | None) -> None:  # noqa: ARG001
    with Path(sys.argv[2]).open("ab") as file:
        file.write(value + b"\n")


sender = Sender(append)
follower = Follower("fraud")
monitor = Monitor("fraud", sender, version="3", router=follower)


def observe(score: float, user: str, amount: float) -> Answer:  # noqa: ARG001
    """What the event says: the result first, then the arguments of `predict`."""
    return {"score": score, "features": {"amount": amount}}


@monitor.watch(observe, unit=lambda user, amount: user)  # noqa: ARG005
def predict(user: str, amount: float) -> float:  # noqa: ARG001
    return MODELS[current_call().version](amount)


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = json.dumps({"score": predict(body["user"], body["amount"])}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments: object) -> None:
        """Say nothing of each request."""


def main() -> None:
    source = follow_file(follower, sys.argv[3])
    follower.wait(2)
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
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
