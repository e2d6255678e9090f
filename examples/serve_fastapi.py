"""
The server of `serve_asgi.py` with FastAPI (`pip install fastapi uvicorn`).

    uvicorn serve_fastapi:app --app-dir examples
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from serve_asgi import MODELS, consumer, follower, monitor, sender

from stream_monitor import client


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    task = asyncio.create_task(client.follow_aiokafka(follower, consumer))
    await asyncio.to_thread(follower.wait, 2)  # without a broker it starts nevertheless
    yield
    task.cancel()
    await asyncio.wait([task])
    await sender.close()


app = FastAPI(lifespan=lifespan)
app.add_middleware(
    client.MonitorMiddleware, monitor=monitor, paths=["/predict"], unit=client.header("x-user-id")
)


@app.post("/predict")
def predict(amount: float) -> dict[str, float | str]:
    call = client.current_call()
    probability = MODELS[call.version](amount)
    call.answer(score=probability, features={"amount": amount})
    return {"score": probability, "event_id": call.event_id}
