"""
One run of the demo: broker, worker, simulation and view, started and stopped in the right order.

Rule of the file: the part that was started last is stopped first, so that no part loses its broker.
A run ends when it is told to, when its time is over, or when a part fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from typing import Protocol

from msgspec import Struct, field

from stream_monitor.demo.broker import Broker
from stream_monitor.demo.readings import Alert, MetricsReader, Readings, read_alerts
from stream_monitor.demo.simulation import MODEL, Chapter, Simulation, chapter_at
from stream_monitor.demo.worker import WorkerProcess, configuration, free_port
from stream_monitor.errors import BrokerError
from stream_monitor.settings import KafkaSettings

STORY_S = 60.0
LEARNING_SHARE = 0.2
"""Share of the story after which the baseline must be learnt, well before the world changes."""
BASELINE_ROWS_MIN, BASELINE_ROWS_MAX = 50, 1_000
METRICS_PORT = 9108
POLL_S = 0.5
SETTLE_S = 3.0


class DemoOptions(Struct, frozen=True, kw_only=True):
    """
    The options of `demo`.

    `port` is that of `/metrics`. Without it the demo uses 9108, or a free port if 9108 is in use.
    """

    seconds: float | None = None
    port: int | None = None
    rate_per_s: float = 200.0
    seed: int = 0
    broker: str | None = None


class State(Struct):
    """The values that are shown."""

    model: str
    broker: str
    embedded: bool
    """Whether the broker is the embedded one."""
    metrics_url: str
    chapters: tuple[Chapter, ...]
    chapter: Chapter
    elapsed_s: float = 0.0
    sent_predictions: int = 0
    sent_labels: int = 0
    readings: Readings = field(default_factory=Readings)
    alerts: list[tuple[float, Alert]] = field(default_factory=list)
    """(seconds since the start, alert), in order."""


class View(Protocol):
    """Shows the run. Calls come from one event loop, `update` about twice a second."""

    def say(self, sentence: str) -> None:
        """Show a remark that is neither a number nor an alert."""

    def begin(self, state: State) -> None:
        """Show that everything runs."""

    def update(self, state: State) -> None:
        """Show new numbers."""

    def alert(self, at_s: float, alert: Alert) -> None:
        """Show an alert that was written."""

    def chapter(self, at_s: float, chapter: Chapter) -> None:
        """Show a new chapter of the story."""


async def run(options: DemoOptions, view: View, stop: asyncio.Event) -> State:
    """
    Run the demo.

    Parameters
    ----------
    options
        Rate, length, broker.
    view
        Shows what happens.
    stop
        Ends it when set.

    Returns
    -------
    State
        The values that were shown last.

    Raises
    ------
    BrokerError
        The broker or the worker cannot be started, or has ended.
    """
    story_s = min(STORY_S, options.seconds) if options.seconds else STORY_S
    simulation = Simulation(seed=options.seed, rate_per_s=options.rate_per_s, story_s=story_s)
    rows = max(
        BASELINE_ROWS_MIN,
        min(BASELINE_ROWS_MAX, int(options.rate_per_s * story_s * LEARNING_SHARE)),
    )
    port = options.port if options.port is not None else free_port(METRICS_PORT)
    async with broker_of(options) as (kafka, guarantee):
        view.say(f"starting a worker for the broker at {kafka.bootstrap_servers} …")
        async with WorkerProcess(
            configuration(kafka, guarantee=guarantee, port=port, baseline_rows=rows)
        ) as worker:
            state = State(
                MODEL,
                kafka.bootstrap_servers,
                options.broker is None,
                f"{worker.url}/metrics",
                simulation.chapters,
                simulation.chapters[0],
            )
            view.begin(state)
            await _Play(kafka, worker, state, view).run(simulation, options.seconds, stop)
            view.say("stopping …")
    return state


@contextlib.asynccontextmanager
async def broker_of(options: DemoOptions) -> AsyncIterator[tuple[KafkaSettings, str]]:
    """
    The embedded broker, or on a real broker a topic prefix of our own whose topics are removed
    afterwards.
    """
    if options.broker is None:
        async with Broker() as broker:
            yield KafkaSettings(bootstrap_servers=broker.bootstrap), "at_least_once"
        return
    kafka = KafkaSettings(bootstrap_servers=options.broker, topic_prefix=f"demo-{_now_ms():x}-")
    try:
        yield kafka, "exactly_once"
    finally:
        await _delete_topics(kafka)


async def _delete_topics(kafka: KafkaSettings) -> None:
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.errors import KafkaError

    from stream_monitor.kafka.connection import client_options

    admin = AIOKafkaAdminClient(**client_options(kafka))
    with contextlib.suppress(KafkaError, OSError):
        await admin.start()
        try:
            ours = [
                topic for topic in await admin.list_topics() if topic.startswith(kafka.topic_prefix)
            ]
            if ours:
                await admin.delete_topics(ours)
        finally:
            await admin.close()


class _Play:
    """Sends and shows until the run is over."""

    def __init__(
        self, kafka: KafkaSettings, worker: WorkerProcess, state: State, view: View
    ) -> None:
        self._kafka = kafka
        self._worker = worker
        self._state = state
        self._view = view
        self._start_s = time.monotonic()

    async def run(self, simulation: Simulation, seconds: float | None, stop: asyncio.Event) -> None:
        from stream_monitor.kafka.connection import client_options
        from stream_monitor.kafka.publish import Background, Publisher, publish

        halt = asyncio.Event()
        async with (
            Publisher(self._kafka) as publisher,
            MetricsReader(self._worker.url, MODEL) as metrics,
            Background(lambda: simulation.steps(_now_ms())) as events,
        ):
            self._start_s = time.monotonic()
            told = asyncio.create_task(_until(stop, seconds))
            sending = asyncio.create_task(publish(publisher, events, halt))
            parts = [
                told,
                sending,
                asyncio.create_task(self._worker.wait()),
                asyncio.create_task(
                    read_alerts(
                        client_options(self._kafka),
                        f"{self._kafka.topic_prefix}alerts",
                        MODEL,
                        self._alert,
                    )
                ),
                asyncio.create_task(self._show(metrics, publisher.sent)),
            ]
            try:
                await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
                halt.set()
                if told.done():
                    await sending
                    if not stop.is_set():
                        await self._settle(metrics, publisher.sent)
            finally:
                for part in parts:
                    part.cancel()
                results = await asyncio.gather(*parts, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise (
                    result
                    if isinstance(result, BrokerError)
                    else BrokerError(f"the demo broke: {type(result).__name__}: {result}")
                ) from result

    def _alert(self, alert: Alert) -> None:
        at_s = time.monotonic() - self._start_s
        self._state.alerts.append((at_s, alert))
        self._view.alert(at_s, alert)

    async def _show(self, metrics: MetricsReader, sent: Mapping[str, int]) -> None:
        state = self._state
        while True:
            state.elapsed_s = time.monotonic() - self._start_s
            chapter = chapter_at(state.chapters, state.elapsed_s)
            if chapter != state.chapter:
                state.chapter = chapter
                self._view.chapter(state.elapsed_s, chapter)
            await self._read(metrics, sent)
            self._view.update(state)
            await asyncio.sleep(POLL_S)

    async def _read(self, metrics: MetricsReader, sent: Mapping[str, int]) -> None:
        self._state.sent_predictions, self._state.sent_labels = sent["predictions"], sent["labels"]
        self._state.readings = await metrics.read() or self._state.readings

    async def _settle(self, metrics: MetricsReader, sent: Mapping[str, int]) -> None:
        """
        Wait a little until the worker has counted all events, so that the summary is complete.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_S):
                while self._state.readings.predictions + self._state.readings.labels < sum(
                    sent.values()
                ):
                    await self._read(metrics, sent)
                    await asyncio.sleep(POLL_S / 5)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


async def _until(stop: asyncio.Event, seconds: float | None) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
