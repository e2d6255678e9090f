"""
The model server of `demo --loop`: customers are asked about, and say later whether they left.

Rule of the file: it is what a server of a user would be. It follows `lifecycle` for the version
that serves a user, brings models back by their tag, and knows nothing of the controller.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import random
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from stream_monitor import client
from stream_monitor.demo.loop_project import DemoProject
from stream_monitor.settings import KafkaSettings

MODEL = "churn"
TICK_S = 0.05
LABEL_DELAY_S = 1.0


class ModelServer:
    """
    Serves simulated customers.

    Parameters
    ----------
    kafka : KafkaSettings
    project : DemoProject
    rate_per_s : float
        Calls a second.
    seed : int
    """

    def __init__(
        self, kafka: KafkaSettings, project: DemoProject, rate_per_s: float, seed: int
    ) -> None:
        self.kafka, self.project, self.rate_per_s = kafka, project, rate_per_s
        self.changed = False
        self.follower = client.Follower(MODEL)
        self.right: deque[bool] = deque(maxlen=500)
        """Whether the newest answers were right."""
        self._customers = _module(project, "customers")
        self._model = _module(project, "model")
        self._random = random.Random(seed)  # noqa: S311  a simulation
        self._models: dict[str, Any] = {}
        self._made = 0

    @property
    def accuracy(self) -> float:
        """Share of the newest answers that were right."""
        return sum(self.right) / max(len(self.right), 1)

    async def run(self, default: str) -> None:
        """
        Serve until cancelled.

        Parameters
        ----------
        default : str
            The version that serves while no event names one.
        """
        from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

        servers = self.kafka.bootstrap_servers
        topic = self.kafka.topic_prefix + "lifecycle"
        consumer = AIOKafkaConsumer(topic, bootstrap_servers=servers, auto_offset_reset="earliest")
        producer = AIOKafkaProducer(bootstrap_servers=servers, linger_ms=5)
        await asyncio.gather(consumer.start(), producer.start())
        following = asyncio.ensure_future(client.follow_aiokafka(self.follower, consumer))
        try:
            await self._serve(producer.send, default)
        finally:
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following
            await asyncio.gather(consumer.stop(), producer.stop(), return_exceptions=True)

    async def _serve(self, send: Callable[..., Awaitable[Any]], default: str) -> None:
        later: deque[tuple[float, str, int]] = deque()
        began = time.monotonic()
        served = 0
        found = {
            changed: self._customers.customers(self._random, changed=changed)
            for changed in (False, True)
        }
        while True:
            now = time.monotonic()
            for _ in range(int((now - began) * self.rate_per_s) - served):
                served += 1
                await self._call(send, next(found[self.changed]), default, later, now)
            while later and later[0][0] <= now:
                _, name, left = later.popleft()
                await self._send(send, "labels", name, client.label(name, left, model=MODEL))
            await asyncio.sleep(TICK_S)

    async def _call(
        self,
        send: Callable[..., Awaitable[Any]],
        customer: Any,
        default: str,
        later: deque[tuple[float, str, int]],
        now: float,
    ) -> None:
        version = self.follower.version(customer.user) or default
        score = (await self._loaded(version)).score(customer.features)
        self._made += 1
        name, fields = f"{self._made}-{customer.user}", self.follower.fields(customer.user)
        event = client.prediction(
            name,
            MODEL,
            score=score,
            version=version,
            features=customer.features,
            variant=fields.get("variant"),
            unit=fields.get("unit"),
        )
        await self._send(send, "predictions", name, event)
        self.right.append((score >= 0.5) == bool(customer.left))
        later.append((now + LABEL_DELAY_S, name, customer.left))

    async def _send(self, send: Callable[..., Awaitable[Any]], to: str, key: str, v: bytes) -> None:
        await send(self.kafka.topic_prefix + to, v, key=key.encode())

    async def _loaded(self, version: str) -> Any:
        if version not in self._models:
            path = await asyncio.to_thread(self.project.model_of, f"{MODEL}@{version}")
            self._models[version] = self._model.Model.load(path)
        return self._models[version]


def _module(project: DemoProject, name: str) -> Any:
    """A module of the example, by its file, because its folder is no package."""
    spec = importlib.util.spec_from_file_location(f"churn_{name}", project.clone / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
