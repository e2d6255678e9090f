"""
A model server that reports its predictions with confluent-kafka (`pip install confluent-kafka`, and
stream-monitor from its folder: `pip install .`).

    python examples/serve_confluent.py 127.0.0.1:9092

The topics must be there: a worker makes them, or `stream-monitor topics apply`.
"""

from __future__ import annotations

import random
import sys
import time
import uuid

from confluent_kafka import Producer

from stream_monitor import client


def score(amount: float, country: str) -> float:
    """Stand in for your model."""
    return min(0.99, amount / 200 + (0.2 if country == "IT" else 0.0))


def main() -> None:
    producer = Producer(
        {
            "bootstrap.servers": sys.argv[1],
            "enable.idempotence": True,
            "compression.type": "lz4",
            "linger.ms": 20,
        }
    )
    for _ in range(1_000):
        features = {"amount": random.uniform(0, 200), "country": random.choice(["IT", "DE", "FR"])}
        began_s = time.perf_counter()
        probability = score(**features)
        latency_ms = (time.perf_counter() - began_s) * 1_000
        event_id = str(uuid.uuid4())
        producer.produce(
            client.PREDICTIONS,
            client.prediction(
                event_id,
                "fraud",
                version="1",
                score=probability,
                features=features,
                latency_ms=latency_ms,
            ),
            key=event_id,
        )
        # In reality the label comes hours later, from another service, which only needs the
        # event_id.
        producer.produce(
            client.LABELS,
            client.label(event_id, features["amount"] > 110, model="fraud"),
            key=event_id,
        )
        producer.poll(0)
        time.sleep(0.01)
    if lost := producer.flush(10):
        sys.exit(
            f"{lost} events were not delivered; is the broker there, and are the topics? See "
            "`stream-monitor doctor`."
        )
    print("sent 1,000 predictions and their labels")


if __name__ == "__main__":
    main()
