"""
Microseconds a call of the client: `python bench/bench_client.py [--calls N] [--rounds N]`.

CPU time of the thread that predicts; the model itself does nothing. The sender's thread has a
producer that takes every event. A router gives each call its arm.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import suppress

from stream_monitor import client

FEATURES: dict[str, client.Value | None] = {f"feature_{i}": 1.5 * i for i in range(10)}


def observe(score: float, user: str) -> client.Answer:  # noqa: ARG001
    return {"score": score, "features": FEATURES}


def cases(monitor: client.Monitor) -> dict[str, Callable[[str], object]]:
    """What is timed, by name."""
    watch = monitor.watch(observe, unit=lambda user: user, event_id=lambda user: user)

    @watch
    def predict(user: str) -> float:  # noqa: ARG001
        return 0.25

    @watch
    async def predict_async(user: str) -> float:  # noqa: ARG001
        return 0.25

    def run(user: str) -> None:
        with suppress(StopIteration):
            predict_async(user).send(None)

    def block(user: str) -> None:
        with monitor.call(unit=user) as call:
            call.answer(score=0.25, features=FEATURES)

    async def app(scope: object, receive: object, send: object) -> None:  # noqa: ARG001
        client.current_call().answer(score=0.25, features=FEATURES)
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b""})

    async def send(message: object) -> None:
        pass

    wrapped = client.MonitorMiddleware(app, monitor, ["/"], unit=client.header("x-user"))

    def request(user: str) -> None:
        scope = {"type": "http", "path": "/", "headers": [(b"x-user", user.encode())]}
        with suppress(StopIteration):
            wrapped(scope, None, send).send(None)

    return {
        "client.prediction alone": lambda user: client.prediction(
            user, "fraud", score=0.25, features=FEATURES
        ),
        "with monitor.call()": block,
        "watch, def": predict,
        "watch, async def": run,
        "MonitorMiddleware": request,
    }


def cost_us(call: Callable[[str], object], users: list[str]) -> float:
    start = time.thread_time_ns()
    for user in users:
        call(user)
    return (time.thread_time_ns() - start) / len(users) / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=500, help="of a round")
    parser.add_argument("--rounds", type=int, default=100)
    options = parser.parse_args()
    router = client.Router("fraud-17", client.reassign([], {"control": 99, "b": 1}))
    sender = client.Sender(lambda topic, value, key: None)  # noqa: ARG005
    users = [f"user-{i}" for i in range(options.calls)]
    print(f"{'10 features and a score':26} min  median   (µs a call)")
    for name, call in cases(client.Monitor("fraud", sender, router=router)).items():
        costs = []
        for _ in range(options.rounds):
            costs.append(cost_us(call, users))
            sender.flush()
        print(f"{name:26} {min(costs):4.1f} {statistics.median(costs):6.1f}")
    sender.close()
    counts = sender.counts()
    print(f"sent {counts.sent}, dropped {sum(counts.dropped.values())}")


if __name__ == "__main__":
    main()
