"""
Turns the live state into the text of a scrape, at the moment of the scrape.

Rule of the file: one source is read without a pause, so its values are from one moment. Between
sources, and between pieces of text, the event loop may run. Only two counters are kept between
scrapes. `prometheus_client` writes the text (`families`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from math import isfinite

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric as ClientMetric
from prometheus_client.registry import Collector

from stream_monitor.metrics.budget import left_out
from stream_monitor.metrics.catalogue import CATALOGUE
from stream_monitor.metrics.metric import Metric
from stream_monitor.metrics.samples import AnySample, HistogramSample, Sample, SummarySample
from stream_monitor.runtime.families import PLAIN, Format, families, wanted
from stream_monitor.settings import OTHER

log = logging.getLogger(__name__)

SLICE_SAMPLES = 2_000
HOLD_S = 0.01
"""
How long a scrape may block the event loop before it pauses, s. Reading one source cannot be
interrupted.
"""

Sources = Callable[[], Iterable[Iterator[AnySample]]]
Labels = tuple[str, ...]
Family = dict[Labels, AnySample]
Steps = Generator[None, None, bytes]


class _Read:
    """
    What one scrape has read: families by name, and the number of series of each model in each.
    """

    def __init__(self) -> None:
        self.families: dict[str, Family] = defaultdict(dict)
        self.counts: dict[tuple[str, str], int] = defaultdict(int)


class Exporter:
    """
    Renders the samples of all sources.

    Parameters
    ----------
    sources : callable
        Called at each scrape; returns one iterator of samples per owner of state (a partition, the
        worker).
    series_limit : int, series
        `limits.series`: beyond it series are left out as `metrics.budget` says.
    custom : mapping of name to metric
        Families defined by users, from `catalogue.custom_metrics`.
    """

    def __init__(
        self, sources: Sources, *, series_limit: int, custom: Mapping[str, Metric] | None = None
    ) -> None:
        self._sources = sources
        self._series_limit = series_limit
        self._catalogue = {**CATALOGUE, **(custom or {})}
        self._dropped = 0
        self._errors = 0
        self._reported: set[str] = set()
        self._running: dict[str, asyncio.Task[bytes]] = {}

    def render(self, form: Format = PLAIN) -> bytes:
        """The text of everything at once."""
        steps = self._steps(form)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                text: bytes = end.value
                return text

    async def scrape(self, accept: str = "") -> tuple[bytes, str]:
        """
        The text of everything, in pieces between which the event loop runs. Scrapes of one format
        at the same time share one rendering.

        Returns
        -------
        (bytes, str)
            The text and its content type, by the Accept header of the client.
        """
        form = wanted(accept)
        running = self._running.get(form.content_type)
        if running is None:
            running = self._running[form.content_type] = asyncio.create_task(
                self._in_slices(form), name="scrape"
            )
            running.add_done_callback(lambda task: self._finished(form, task))
        return await asyncio.shield(running), form.content_type

    def families(self) -> list[tuple[Metric, list[AnySample]]]:
        """Families in the order of the catalogue with their samples, after the series budget."""
        read = _Read()
        for _ in self._read(read):
            pass
        return [(metric, list(series.values())) for metric, series in self._chosen(read)]

    def _finished(self, form: Format, task: asyncio.Task[bytes]) -> None:
        del self._running[form.content_type]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a scrape failed: %s", error)

    async def _in_slices(self, form: Format) -> bytes:
        steps = self._steps(form)
        since = time.perf_counter()
        while True:
            try:
                next(steps)
            except StopIteration as end:
                text: bytes = end.value
                return text
            if time.perf_counter() - since >= HOLD_S:
                await asyncio.sleep(0)
                since = time.perf_counter()

    def _steps(self, form: Format) -> Steps:
        read = _Read()
        yield from self._read(read)
        text: list[bytes] = []
        for metric, series in self._chosen(read):
            for piece in form.pieces(metric, series.values()):
                text.append(piece)
                yield
        text.append(form.end())
        return b"".join(text)

    def _read(self, read: _Read) -> Iterator[None]:
        """Fill `read` from all sources, with a pause after each."""
        for source in self._sources():
            try:
                samples = list(source)
            except Exception:
                self._fault("source", "a source of samples raised", exc_info=True)
                continue
            yield
            for start in range(0, len(samples), SLICE_SAMPLES):
                self._take(samples[start : start + SLICE_SAMPLES], read)
                yield

    def _take(self, samples: list[AnySample], read: _Read) -> None:
        for sample in samples:
            try:
                fault = self._why_not(sample)
                if fault is None:
                    fault = _put(sample, read)
            except TypeError as error:
                # a value that is not a number, labels or edges that are not a tuple
                fault = str(error)
            if fault:
                self._fault(sample[0], fault)

    def _why_not(self, sample: AnySample) -> str | None:
        """None if the sample can be written, "" if its value is undefined, otherwise the fault."""
        metric = self._catalogue.get(sample[0])
        if metric is None:
            return "not in the catalogue"
        if type(sample) is Sample:
            if metric.type == "histogram" or len(sample.labels) != len(metric.labels):
                return f"expected a {metric.type} with labels {metric.labels}"
            return None if sample.value is not None and isfinite(sample.value) else ""
        if len(sample.labels) != len(metric.labels):
            return f"expected labels {metric.labels}"
        if isinstance(sample, HistogramSample):
            if (
                metric.type != "histogram"
                or len(sample.counts) != len(sample.edges or metric.buckets) + 1
            ):
                return "counts and edges of the histogram do not fit"
            hash(sample.edges)
        elif not isinstance(sample, SummarySample) or metric.type != "summary":
            return f"expected a {metric.type}"
        return None if isfinite(sample.sum) else ""

    def _fault(self, name: str, what: str, *, exc_info: bool = False) -> None:
        """Count a fault. It is logged once per name, because a scrape comes every few seconds."""
        self._errors += 1
        if name not in self._reported and len(self._reported) < 1_000:
            self._reported.add(name)
            log.error("not exported: %s: %s", name, what, exc_info=exc_info)

    def _chosen(self, read: _Read) -> Iterator[tuple[Metric, Family]]:
        out = left_out(read.counts, self._catalogue, self._series_limit)
        self._dropped += sum(read.counts[pair] for pair in out)
        read.families["stream_monitor_series_dropped_total"][()] = Sample(
            "stream_monitor_series_dropped_total", (), self._dropped
        )
        read.families["stream_monitor_scrape_errors_total"][()] = Sample(
            "stream_monitor_scrape_errors_total", (), self._errors
        )
        cut = {name for _, name in out}
        for name, metric in self._catalogue.items():
            if found := read.families.get(name):
                if name in cut:
                    found = {
                        labels: sample
                        for labels, sample in found.items()
                        if (labels[0], name) not in out
                    }
                if found:
                    yield metric, found


class StateCollector(Collector):
    """
    The same families for a `prometheus_client` registry, for processes that embed the monitor and
    expose metrics themselves.
    """

    def __init__(self, exporter: Exporter) -> None:
        self._exporter = exporter

    def describe(self) -> Iterable[ClientMetric]:
        """
        Describe nothing: families appear and disappear, and a registration must not read the state.
        """
        return ()

    def collect(self) -> Iterator[ClientMetric]:
        """All families, read now."""
        for metric, samples in self._exporter.families():
            yield from families(metric, samples)


def registry(exporter: Exporter) -> CollectorRegistry:
    """
    A new registry (never the global one) that reads the exporter.

    Examples
    --------
    >>> from prometheus_client import generate_latest
    >>> print(
    ...     generate_latest(
    ...         registry(
    ...             Exporter(
    ...                 lambda: [iter([Sample("stream_monitor_ready", (), 1.0)])], series_limit=10
    ...             )
    ...         )
    ...     )
    ...     .decode()
    ...     .splitlines()[2]
    ... )
    stream_monitor_ready 1.0
    """
    found = CollectorRegistry(auto_describe=False)
    found.register(StateCollector(exporter))
    return found


def _put(sample: AnySample, read: _Read) -> str | None:
    """Add a sample; returns the fault if its series already has one."""
    name, labels = sample[0], sample[1]
    family = read.families[name]
    earlier = family.get(labels)
    of_process = name.startswith("stream_monitor_")
    if earlier is None:
        family[labels] = sample
        read.counts["" if of_process else labels[0], name] += _series_n(sample)
    elif of_process or (
        labels[0] == OTHER and (name.endswith("_total") or isinstance(sample, HistogramSample))
    ):
        family[labels] = _added(earlier, sample)
    elif labels[0] == OTHER:
        # every partition of observations has its own; their counts are added, of other values the
        # first counts
        return None
    else:
        return "two sources report the same series"
    return None


def _series_n(sample: AnySample) -> int:
    if type(sample) is HistogramSample:
        return len(sample.counts) + 2
    if type(sample) is SummarySample:
        return len(sample.quantiles) + 2
    return 1


def _added(one: AnySample, other: AnySample) -> AnySample:
    """Sum of two values of one series (`_info` stays 1)."""
    if isinstance(one, Sample) and isinstance(other, Sample):
        return one if one.name.endswith("_info") else one._replace(value=one.value + other.value)
    if (
        isinstance(one, HistogramSample)
        and isinstance(other, HistogramSample)
        and one.edges == other.edges
        and len(one.counts) == len(other.counts)
    ):
        return one._replace(
            counts=tuple(a + b for a, b in zip(one.counts, other.counts, strict=True)),
            sum=one.sum + other.sum,
        )
    return one
