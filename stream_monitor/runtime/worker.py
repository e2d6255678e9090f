"""
The worker: both stages on Faust agents, the HTTP endpoint, and a clean end.

Rule of the file: it only puts the parts together; read `run` from top to bottom.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import platform
import signal
import sys
import time
from collections.abc import Coroutine, Iterator, Mapping
from typing import Any, TypeVar

from stream_monitor import __version__
from stream_monitor.config.remarks import remarks
from stream_monitor.errors import BrokerAwayError, ConfigError, StreamMonitorError
from stream_monitor.kafka import topics
from stream_monitor.kafka.connection import connecting
from stream_monitor.kafka.patience import RETRY_S
from stream_monitor.metrics.catalogue import custom_metrics
from stream_monitor.metrics.samples import AnySample, Sample
from stream_monitor.runtime import logs
from stream_monitor.runtime.exporter import Exporter
from stream_monitor.runtime.http import HttpServer, announce
from stream_monitor.runtime.preflight import check_transactions, demand_access, demand_placed
from stream_monitor.settings import Settings
from stream_monitor.stages.agents import app_of
from stream_monitor.stages.evaluate_stage import EvaluateStage
from stream_monitor.stages.exits import NOT_OPENED, die
from stream_monitor.stages.hub import Hub
from stream_monitor.stages.ingest_stage import IngestStage
from stream_monitor.stages.published_baselines import read_baselines

log = logging.getLogger("stream_monitor")
T = TypeVar("T")
PREPARE_S = 60
GC_THRESHOLDS = (50_000, 50, 50)


class Worker:
    """
    One worker process.

    `files` are the baseline profiles that the configuration names.
    """

    def __init__(self, settings: Settings, files: Mapping[str, bytes]) -> None:
        self.settings, self.files = settings, files
        self.hub = Hub(settings)
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT. Raises StreamMonitorError if the worker cannot start."""
        loop = asyncio.get_running_loop()
        for sign in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sign, self._stop.set)
        exporter = Exporter(
            self._sources,
            series_limit=self.settings.core.limits.series,
            custom=custom_metrics(self.settings.core),
        )
        http = HttpServer(self.settings.worker.metrics, exporter.scrape, self._ready)
        announce(self.settings.worker.metrics, await http.start())
        try:
            await self._serve()
        finally:
            self.hub.stop()
            await http.stop()

    async def _serve(self) -> None:
        found = await self._until_stop(self._prepare())
        if found is None:
            return
        targets, baselines = found
        self.ingest = IngestStage(self.hub, targets)
        self.evaluate = EvaluateStage(self.hub, targets, baselines)
        self.hub.stages = [self.ingest, self.evaluate]
        logs.complain(self.settings.kafka)
        app = app_of(self.hub)
        app.aligned = self.ingest
        await app.start()
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        await self._stop.wait()
        log.info("stopping")
        try:
            async with asyncio.timeout(self.settings.worker.shutdown_timeout_ms / 1e3):
                await app.stop()
                await self.ingest.stop()
        except TimeoutError:
            die(NOT_OPENED, f"did not stop within {self.settings.worker.shutdown_timeout_ms} ms")

    async def _prepare(self) -> tuple[int, dict[str, bytes]]:
        """The result of `_prepared`, tried again if one of several brokers goes away meanwhile."""
        until_s = time.monotonic() + PREPARE_S
        while True:
            try:
                return await self._prepared()
            except BrokerAwayError as e:
                if "," not in self.settings.kafka.bootstrap_servers or time.monotonic() > until_s:
                    raise
                log.warning("broker unavailable, retrying: %s", e)
            await asyncio.sleep(RETRY_S)

    async def _prepared(self) -> tuple[int, dict[str, bytes]]:
        """
        Check topics and permissions before anything is read. Returns the number of partitions of
        `observations`, and the baselines.
        """
        with connecting(self.settings.kafka):
            # a broker that goes away meanwhile is reported like one that was never there
            await topics.ensure(self.settings)
            await demand_access(self.settings)
            await check_transactions(self.hub)
            if self.settings.kafka.security.protocol == "SASL_PLAINTEXT":
                log.warning(
                    "kafka.security.protocol is SASL_PLAINTEXT: traffic is unencrypted, so "
                    "anyone on the network can read events and, with PLAIN, the password; use "
                    "SASL_SSL"
                )
            partitions = await topics.describe(self.settings)
            demand_placed(self.settings, partitions)
            await asyncio.to_thread(load_detectors)
            return partitions["observations"], await read_baselines(self.settings, self.files)

    async def _until_stop(self, work: Coroutine[Any, Any, T]) -> T | None:
        """The result of a task, or None if the worker is told to end before."""
        task, stop = asyncio.ensure_future(work), asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if self._stop.is_set():
            task.cancel()
            await asyncio.wait({task})
            return None
        return task.result()

    def _ready(self) -> tuple[bool, str]:
        trouble = self.hub.trouble()
        return not trouble, trouble or f"{len(self.hub.opened)} partitions are open"

    def _sources(self) -> list[Iterator[AnySample]]:
        found: list[Iterator[AnySample]] = [self._samples()]
        if self.hub.stages:
            found += [self.ingest.samples(), self.evaluate.samples()]
            if self.hub.opened and self.hub.source.attended():
                # otherwise another worker may show these models by now
                found += self.evaluate.sources()
        return found

    def _samples(self) -> Iterator[AnySample]:
        yield Sample("stream_monitor_build_info", (__version__, platform.python_version()), 1)
        yield Sample(
            "stream_monitor_config_info", (self.settings.worker.group, self.settings.core.hash), 1
        )
        yield Sample("stream_monitor_ready", (), float(not self.hub.trouble()))
        for tp in self.hub.opened:
            stage = next(s for s in self.hub.stages if tp.topic in s.topics)
            lag = self.hub.source.lag(tp, stage.position(tp))
            if lag is not None:
                yield Sample(
                    "stream_monitor_consumer_lag_records", (tp.topic, str(tp.partition)), lag
                )


def load_detectors() -> None:
    """
    Import River before the worker joins the group.

    At the first fold the import would delay heartbeats: it takes 0.7 s of CPU time, and 14 s were
    seen on a busy machine, after which the group had continued without this worker.
    """
    from stream_monitor.detectors import river_adapters  # noqa: F401


def main(settings: Settings, files: Mapping[str, bytes]) -> int:
    """Run a worker in this process; returns its exit code."""
    logs.configure()
    for remark in remarks(settings.core):
        log.warning("%s", remark)
    try:
        asyncio.run(_run(settings, files))
    except StreamMonitorError as e:
        sys.stderr.write(f"stream-monitor: {e}\n")
        return 2 if isinstance(e, ConfigError) else 1
    return 0


async def _run(settings: Settings, files: Mapping[str, bytes]) -> None:
    try:
        await Worker(settings, files).run()
    # a second SIGTERM must not kill a worker that ends cleanly: the handler of the loop is gone
    # once the loop is closed
    finally:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
