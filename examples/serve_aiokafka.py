"""
A model server that reports its predictions with aiokafka (which stream-monitor already brings
along).

    python examples/serve_aiokafka.py 127.0.0.1:9092

The topics must be there: a worker makes them, or `stream-monitor topics apply`.
"""

from __future__ import annotations

import asyncio
import random
import sys
import uuid

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from stream_monitor import client


async def main() -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=sys.argv[1], enable_idempotence=True, compression_type="lz4", linger_ms=20
    )
    try:
        await producer.start()
        for _ in range(1_000):
            event_id = str(uuid.uuid4())
            features = {
                "amount": random.uniform(0, 200),
                "country": random.choice(["IT", "DE", "FR"]),
            }
            probability = min(0.99, features["amount"] / 200)
            await producer.send(
                client.PREDICTIONS,
                client.prediction(
                    event_id, "fraud", version="1", score=probability, features=features
                ),
                key=event_id.encode(),
            )
            await producer.send(
                client.LABELS,
                client.label(event_id, features["amount"] > 110, model="fraud"),
                key=event_id.encode(),
            )
            await asyncio.sleep(0.01)
    except KafkaError as e:
        sys.exit(
            f"{type(e).__name__}: is the broker there, and are the topics? See "
            "`stream-monitor doctor`."
        )
    finally:
        await producer.stop()  # sends what waits
    print("sent 1,000 predictions and their labels")


if __name__ == "__main__":
    asyncio.run(main())
