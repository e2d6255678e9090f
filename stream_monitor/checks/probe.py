"""
Measures the whole way of one prediction and its label from outside: from the topics to the gauge.

Rule of the file: it writes events of the model `__probe__` and nothing else, and believes only
`/metrics`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import aiohttp
import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from stream_monitor.errors import BrokerError
from stream_monitor.findings import Finding
from stream_monitor.kafka.connection import client_options, connecting
from stream_monitor.kafka.tls import reader_context
from stream_monitor.settings import HttpSettings, KafkaSettings

MODEL = "__probe__"
COUNTER = "model_labels_total"
GAUGE = "model_accuracy"
WAIT_S = 30.0
PAUSE_S = 0.05
CHECK = "probe"


async def probe(
    kafka: KafkaSettings,
    urls: Sequence[str],
    *,
    metrics: HttpSettings | None = None,
    wait_s: float = WAIT_S,
) -> Finding:
    """
    Send two predictions and their labels, and wait until a worker shows them.

    Parameters
    ----------
    kafka : KafkaSettings
        Where to send.
    urls : sequence of str
        `/metrics` of every worker: any of them may have the partition of the model.
    metrics : HttpSettings, optional
        `worker.metrics` of these workers: its token is sent, and its certificate is trusted.
    wait_s : float, seconds
        The probe fails after this time.
    """
    metrics = metrics or HttpSettings()
    headers = {"Authorization": f"Bearer {metrics.token.reveal()}"} if metrics.token else {}
    connector = aiohttp.TCPConnector(ssl=reader_context(metrics))
    async with aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=10), headers=headers, connector=connector
    ) as session:
        try:
            before, _ = await _seen(session, urls)
        except (aiohttp.ClientError, TimeoutError) as error:
            return Finding(
                CHECK,
                "fail",
                f"metrics cannot be read: {str(error) or type(error).__name__}",
                "give --metrics-url for every worker, and check that they run",
            )
        try:
            await _send(kafka)
        except (BrokerError, KafkaError, OSError) as error:
            return Finding(
                CHECK,
                "fail",
                f"the events cannot be sent: {str(error) or type(error).__name__}",
                "grant Write on the input topics to the user of kafka.security, or probe as "
                "another user",
            )
        sent_s = time.perf_counter()
        while time.perf_counter() - sent_s < wait_s:
            try:
                labels, shown = await _seen(session, urls)
            except (aiohttp.ClientError, TimeoutError) as error:
                return Finding(
                    CHECK,
                    "fail",
                    f"metrics cannot be read any more: {str(error) or type(error).__name__}",
                    "see the log of the worker",
                )
            if labels > before and shown:
                return Finding(
                    CHECK,
                    "ok",
                    f"a prediction and its label were in {GAUGE} "
                    f"{time.perf_counter() - sent_s:.2f} s after they were sent",
                )
            await asyncio.sleep(PAUSE_S)
    return Finding(
        CHECK,
        "fail",
        f"a prediction and its label were not in {GAUGE} within {wait_s:g} s",
        "check /ready and the log of the workers, and that --metrics-url names every one of them",
    )


async def _send(kafka: KafkaSettings) -> None:
    now_ms = time.time_ns() // 1_000_000
    events: list[tuple[str, dict[str, Any]]] = []
    for value in (1, 0):  # both classes, so that the task is known at once
        common = {
            "event_id": f"probe-{time.time_ns()}-{value}",
            "model": MODEL,
            "timestamp": now_ms,
        }
        events += [
            ("predictions", {**common, "prediction": value, "score": 0.1 + 0.8 * value}),
            ("labels", {**common, "label": value}),
        ]
    producer = AIOKafkaProducer(**client_options(kafka))
    try:
        with connecting(kafka):
            await producer.start()
        for topic, event in events:
            await producer.send_and_wait(
                kafka.topic_prefix + topic,
                msgspec.json.encode(event),
                key=event["event_id"].encode(),
            )
    finally:
        await producer.stop()


async def _seen(session: aiohttp.ClientSession, urls: Sequence[str]) -> tuple[float, bool]:
    """
    Number of labels of the probe that the workers have counted, and whether one shows its gauge.
    """
    labels, shown = 0.0, False
    for url in urls:
        async with session.get(url) as response:
            response.raise_for_status()
            for line in (await response.text()).splitlines():
                if f'model="{MODEL}"' in line:
                    name = line.partition("{")[0]
                    labels += float(line.rpartition(" ")[2]) if name == COUNTER else 0.0
                    shown = shown or name == GAUGE
    return labels, shown
