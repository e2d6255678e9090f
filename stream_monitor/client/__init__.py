"""
What a model server imports: valid events, routers of experiments, and a sender that never waits.

Rule of the package: at import it loads msgspec and the standard library only. Kafka clients, web
frameworks and their versions are yours: objects that you made are handed in.

With confluent-kafka::

    producer.produce(
        "predictions",
        client.prediction("order-17", "fraud", score=0.93, features={"amount": 12.5}),
        key="order-17",
    )

With aiokafka::

    await producer.send(
        "predictions",
        client.prediction("order-17", "fraud", score=0.93, features={"amount": 12.5}),
        key=b"order-17",
    )

`docs/client.md` describes all of it; complete programs are in `examples/`.
"""

from __future__ import annotations

from stream_monitor.client.aiosending import AsyncSender
from stream_monitor.client.allocation import SLOTS, Ranges, reassign, shares
from stream_monitor.client.asgi import MonitorMiddleware, header
from stream_monitor.client.buffer import Counts
from stream_monitor.client.events import LABELS, PREDICTIONS, label, prediction
from stream_monitor.client.following import Follower
from stream_monitor.client.monitoring import Answer, Call, Monitor, current_call
from stream_monitor.client.routing import Key, Router, point
from stream_monitor.client.sending import Sender
from stream_monitor.client.sources import (
    Source,
    follow_aiokafka,
    follow_confluent,
    follow_file,
    follow_url,
)

__all__ = [
    "LABELS",
    "PREDICTIONS",
    "SLOTS",
    "Answer",
    "AsyncSender",
    "Call",
    "Counts",
    "Follower",
    "Key",
    "Monitor",
    "MonitorMiddleware",
    "Ranges",
    "Router",
    "Sender",
    "Source",
    "current_call",
    "follow_aiokafka",
    "follow_confluent",
    "follow_file",
    "follow_url",
    "header",
    "label",
    "point",
    "prediction",
    "reassign",
    "shares",
]
