"""
What the demo shows, read from outside: `/metrics` as Prometheus reads it, `alerts` as a consumer of
alerts reads it.

Rule of the file: nothing is computed here that the product does not publish.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from msgspec import Struct, field, json

from stream_monitor.demo.worker import WINDOW


class Drift(Struct, frozen=True):
    """A feature and its distance from the baseline."""

    feature: str
    method: str
    score: float


class Alert(Struct, frozen=True):
    """The fields of an alert event that are shown."""

    id: str
    fingerprint: str
    status: str
    severity: str
    kind: str
    subject: str
    summary: str
    model: str = ""
    incident: str = ""
    notify: bool = False


class Readings(Struct):
    """The newest state of the model."""

    predictions: int = 0
    labels: int = 0
    accuracy: float | None = None
    drifts: list[Drift] = field(default_factory=list)
    """Distances of features, the greatest first."""
    detected: list[str] = field(default_factory=list)
    """Signals for which a drift detector fires."""
    firing: int = 0


def parse_metrics(text: str, model: str) -> Readings:
    """
    Read the values that are shown from an exposition.

    Parameters
    ----------
    text : str
        Answer of `/metrics`.
    model : str
        The model that is shown. Counters of its versions are added; of gauges the last version
        counts.

    Returns
    -------
    Readings
    """
    from prometheus_client.parser import text_string_to_metric_families

    found = Readings()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.labels.get("model") == model:
                _take(found, sample.name, sample.labels, sample.value)
    found.drifts.sort(key=lambda drift: -drift.score)
    return found


def _take(found: Readings, name: str, labels: dict[str, str], value: float) -> None:
    if name == "model_predictions_total":
        found.predictions += int(value)
    elif name == "model_labels_total":
        found.labels += int(value)
    elif name == "model_accuracy" and labels.get("window") == WINDOW:
        found.accuracy = value
    elif name == "model_drift_score" and labels.get("method") == "psi":
        found.drifts.append(Drift(labels.get("feature", ""), "psi", value))
    elif name == "model_drift_detected" and value:
        found.detected.append(labels.get("feature", ""))
    elif name == "model_alerts_firing":
        found.firing += int(value)


class MetricsReader:
    """Reads `/metrics`, to be used in `async with`."""

    def __init__(self, url: str, model: str) -> None:
        self._url = url
        self._model = model
        self._session: Any = None

    async def __aenter__(self) -> Self:
        import aiohttp

        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def read(self) -> Readings | None:
        """The present values; None if the worker does not answer."""
        import aiohttp

        try:
            async with self._session.get(f"{self._url}/metrics") as response:
                return (
                    parse_metrics(await response.text(), self._model)
                    if response.status == 200
                    else None
                )
        except (aiohttp.ClientError, TimeoutError):
            return None


def parse_alert(value: bytes | None, model: str) -> Alert | None:
    """An alert of the model; None for other records."""
    if value is None:
        return None
    alert = json.decode(value, type=Alert)
    return alert if alert.model == model else None


async def read_alerts(
    arguments: dict[str, Any], topic: str, model: str, on_alert: Callable[[Alert], None]
) -> None:
    """Read `alerts` until cancelled, from now on."""
    from aiokafka import AIOKafkaConsumer

    consumer = AIOKafkaConsumer(
        topic,
        **arguments,
        auto_offset_reset="latest",
        isolation_level="read_committed",
        enable_auto_commit=False,
    )
    await consumer.start()
    try:
        while True:
            for records in (await consumer.getmany(timeout_ms=1_000)).values():
                for record in records:
                    alert = parse_alert(record.value, model)
                    if alert is not None:
                        on_alert(alert)
    finally:
        await consumer.stop()
