"""
A model server as an ASGI application: events of each request, and two versions in an experiment.

    uvicorn serve_asgi:app --app-dir examples

No framework is used here; `serve_fastapi.py` is the same with FastAPI. The application needs
aiokafka, which stream-monitor brings along. Environment: `KAFKA` (127.0.0.1:9092).

    curl -H 'x-user-id: user-17' -d '{"amount": 120}' http://127.0.0.1:8000/predict
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

from stream_monitor import client

KAFKA = os.environ.get("KAFKA", "127.0.0.1:9092")
MODELS = {"3": lambda amount: min(0.99, amount / 200), "4": lambda amount: min(0.99, amount / 180)}


async def connect() -> Any:
    """Make the producer, in the loop, when the first event comes."""
    from aiokafka import AIOKafkaProducer

    producer = AIOKafkaProducer(bootstrap_servers=KAFKA, compression_type="lz4", linger_ms=20)
    await producer.start()
    return producer


def consumer() -> Any:
    """Make the consumer: every server reads every event."""
    from aiokafka import AIOKafkaConsumer

    return AIOKafkaConsumer(
        "lifecycle",
        bootstrap_servers=KAFKA,
        group_id=None,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )


follower = client.Follower("fraud")
sender = client.AsyncSender(connect=connect)
monitor = client.Monitor("fraud", sender, version="3", router=follower)


async def predict(amount: float) -> dict[str, Any]:
    call = client.current_call()  # the middleware began it, and chose the arm
    probability = MODELS[call.version](amount)
    call.answer(score=probability, features={"amount": amount})
    return {"score": probability, "event_id": call.event_id}  # who knows the label sends it back


async def application(scope: Any, receive: Any, send: Any) -> None:
    """What a framework does for you: requests in, responses out."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    status, answer = 404, {"error": "not found"}
    if scope["path"] == "/predict":
        try:
            amount = float(json.loads(body)["amount"])
        except (ValueError, KeyError, TypeError):
            status, answer = 422, {"error": 'expected {"amount": NUMBER}'}
        else:
            status, answer = 200, await predict(amount)
    elif scope["path"] == "/health":
        counts = sender.counts()
        status, answer = 200, {"dropped": counts.dropped, "age_s": round(follower.age_s, 1)}
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


async def lifespan(receive: Any, send: Any) -> None:
    task = None
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            task = asyncio.create_task(client.follow_aiokafka(follower, consumer))
            await asyncio.to_thread(follower.wait, 2)  # without a broker it starts nevertheless
        elif task is not None:
            task.cancel()
            await asyncio.wait([task])
            await sender.close()  # sends what waits
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


app = client.MonitorMiddleware(
    application, monitor, paths=["/predict"], unit=client.header("x-user-id")
)
