"""
Live state to Prometheus text (format 0.0.4) at the moment of a scrape.

Rule of the file: one source is read in one go, so what it says is of one moment; between sources and between slices of text the event loop may run.
Nothing is kept between scrapes but two counters and the text of label sets.

Text is written here because `prometheus_client.generate_latest` takes about three times as long and cannot pause; `StateCollector` is there for who embeds the monitor in a process with a registry of its own.
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
from stream_monitor.metrics.catalogue import CATALOGUE, Metric
from stream_monitor.metrics.samples import AnySample, HistogramSample, Sample, SummarySample
from stream_monitor.monitors.registry import OTHER

log = logging.getLogger(__name__)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SLICE_SAMPLES = 2_000
HOLD_S = 0.02
"""How long a scrape may keep the event loop before it pauses; reading one source cannot be interrupted."""

Sources = Callable[[], Iterable[Iterator[AnySample]]]
Labels = tuple[str, ...]
Family = dict[Labels, AnySample]
Texts = dict[tuple[str, Labels, object], tuple[str, ...]]
Steps = Generator[None, None, bytes]


class _Read:
    """What one scrape has read: families by name, and how many series each model has in each."""

    def __init__(self) -> None:
        self.families: dict[str, Family] = defaultdict(dict)
        self.counts: dict[tuple[str, str], int] = defaultdict(int)


class Exporter:
    """
    Renders what all sources say.

    Parameters
    ----------
    sources : callable
        Called at each scrape; returns one iterator of samples for each thing that has state (a partition, the worker).
    series_limit : int, series
        `limits.series`: beyond it series are left out as `metrics.budget` says.
    custom : mapping of name to metric
        Families defined by users, from `catalogue.custom_metrics`.
    """

    def __init__(self, sources: Sources, *, series_limit: int, custom: Mapping[str, Metric] | None = None) -> None:
        self._sources = sources
        self._series_limit = series_limit
        self._catalogue = {**CATALOGUE, **(custom or {})}
        self._texts: Texts = {}
        self._dropped = 0
        self._errors = 0
        self._reported: set[str] = set()
        self._running: asyncio.Task[bytes] | None = None

    def render(self) -> bytes:
        """Everything at once."""
        steps = self._steps()
        while True:
            try:
                next(steps)
            except StopIteration as end:
                text: bytes = end.value
                return text

    async def scrape(self) -> bytes:
        """Everything, in slices that let the event loop run; scrapes at the same time share one rendering."""
        if self._running is None:
            self._running = asyncio.create_task(self._in_slices(), name="scrape")
            self._running.add_done_callback(self._finished)
        return await asyncio.shield(self._running)

    def families(self) -> list[tuple[Metric, list[AnySample]]]:
        """Families in the order of the catalogue with their samples, after the series budget."""
        read = _Read()
        for _ in self._read(read):
            pass
        return [(metric, list(series.values())) for metric, series in self._chosen(read)]

    def _finished(self, task: asyncio.Task[bytes]) -> None:
        self._running = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a scrape failed: %s", error)

    async def _in_slices(self) -> bytes:
        steps = self._steps()
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

    def _steps(self) -> Steps:
        read = _Read()
        yield from self._read(read)
        texts: Texts = {}
        lines: list[str] = []
        written = 0
        for metric, series in self._chosen(read):
            lines.append(f"# HELP {metric.name} {_escape_help(metric.help)}\n# TYPE {metric.name} {metric.type}\n")
            for sample in series.values():
                self._write(lines, metric, sample, texts)
                written += 1
                if not written % SLICE_SAMPLES:
                    yield
        self._texts = texts
        yield
        return "".join(lines).encode(errors="replace")

    def _read(self, read: _Read) -> Iterator[None]:
        """Fill `read` from all sources, pausing after each."""
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
            except TypeError as error:  # a value that is no number, labels or edges that are no tuple
                fault = str(error)
            if fault:
                self._fault(sample[0], fault)

    def _why_not(self, sample: AnySample) -> str | None:
        """None when the sample can be written, "" when its value is undefined, else the fault."""
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
            if metric.type != "histogram" or len(sample.counts) != len(sample.edges or metric.buckets) + 1:
                return "counts and edges of the histogram do not fit"
            hash(sample.edges)
        elif not isinstance(sample, SummarySample) or metric.type != "summary":
            return f"expected a {metric.type}"
        return None if isfinite(sample.sum) else ""

    def _fault(self, name: str, what: str, *, exc_info: bool = False) -> None:
        """Count it; say it once for each name, since a scrape comes every few seconds."""
        self._errors += 1
        if name not in self._reported and len(self._reported) < 1_000:
            self._reported.add(name)
            log.error("not exported: %s: %s", name, what, exc_info=exc_info)

    def _chosen(self, read: _Read) -> Iterator[tuple[Metric, Family]]:
        out = left_out(read.counts, self._catalogue, self._series_limit)
        self._dropped += sum(read.counts[pair] for pair in out)
        read.families["stream_monitor_series_dropped_total"][()] = Sample("stream_monitor_series_dropped_total", (), self._dropped)
        read.families["stream_monitor_scrape_errors_total"][()] = Sample("stream_monitor_scrape_errors_total", (), self._errors)
        cut = {name for _, name in out}
        for name, metric in self._catalogue.items():
            if found := read.families.get(name):
                if name in cut:
                    found = {labels: sample for labels, sample in found.items() if (labels[0], name) not in out}
                if found:
                    yield metric, found

    def _write(self, lines: list[str], metric: Metric, sample: AnySample, texts: Texts) -> None:
        extra: object = None
        if type(sample) is HistogramSample:
            extra = sample.edges
        elif type(sample) is SummarySample:
            extra = tuple(quantile for quantile, _ in sample.quantiles)
        key = (sample[0], sample[1], extra)
        text = self._texts.get(key) or _series_text(metric, sample)
        texts[key] = text
        if type(sample) is Sample:
            lines.append(f"{text[0]}{float(sample.value)!r}\n")
        elif type(sample) is HistogramSample:
            total = 0.0
            for start, count in zip(text, sample.counts, strict=False):
                total += count
                if start:
                    lines.append(f"{start}{float(total)!r}\n")
            lines.append(f"{text[-2]}{float(sample.sum)!r}\n{text[-1]}{float(total)!r}\n")
        elif type(sample) is SummarySample:
            lines.extend(f"{start}{float(value)!r}\n" for start, (_, value) in zip(text, sample.quantiles, strict=False) if isfinite(value))
            lines.append(f"{text[-2]}{float(sample.sum)!r}\n{text[-1]}{float(sample.observations)!r}\n")


class StateCollector(Collector):
    """The same families for a `prometheus_client` registry, for processes that embed the monitor and expose metrics themselves."""

    def __init__(self, exporter: Exporter) -> None:
        self._exporter = exporter

    def describe(self) -> Iterable[ClientMetric]:
        """Nothing: families come and go, and registration must not read the state."""
        return ()

    def collect(self) -> Iterator[ClientMetric]:
        """All families, read now."""
        for metric, samples in self._exporter.families():
            family = ClientMetric(metric.name.removesuffix("_total") if metric.type == "counter" else metric.name, metric.help, metric.type)
            for sample in samples:
                _add_to_client(family, metric, sample)
            yield family


def registry(exporter: Exporter) -> CollectorRegistry:
    """
    Return a registry of its own (never the global one) that reads the exporter.

    Examples
    --------
    >>> from prometheus_client import generate_latest
    >>> print(generate_latest(registry(Exporter(lambda: [iter([Sample("stream_monitor_ready", (), 1.0)])], series_limit=10))).decode().splitlines()[2])
    stream_monitor_ready 1.0
    """
    found = CollectorRegistry(auto_describe=False)
    found.register(StateCollector(exporter))
    return found


def _put(sample: AnySample, read: _Read) -> str | None:
    """Take a sample in; the fault when there is one of that series already."""
    name, labels = sample[0], sample[1]
    family = read.families[name]
    earlier = family.get(labels)
    of_process = name.startswith("stream_monitor_")
    if earlier is None:
        family[labels] = sample
        read.counts["" if of_process else labels[0], name] += _series_n(sample)
    elif of_process or (labels[0] == OTHER and (name.endswith("_total") or isinstance(sample, HistogramSample))):
        family[labels] = _added(earlier, sample)
    elif labels[0] == OTHER:
        return None  # every partition of observations has its own; their counts add up, of other values the first stands
    else:
        return "two sources report one series"
    return None


def _pairs(edges: tuple[float, ...]) -> Iterator[tuple[float, float]]:
    """Each edge with the next one. A bucket whose edge is that of the next is empty above and must not be shown: two series would have one `le`."""
    return zip(edges, (*edges[1:], float("nan")), strict=True)


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
    if isinstance(one, HistogramSample) and isinstance(other, HistogramSample) and one.edges == other.edges and len(one.counts) == len(other.counts):
        return one._replace(counts=tuple(a + b for a, b in zip(one.counts, other.counts, strict=True)), sum=one.sum + other.sum)
    return one


def _escape_help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _bound(edge: float) -> str:
    return repr(float(edge)) if isfinite(edge) else "+Inf"


def _series_text(metric: Metric, sample: AnySample) -> tuple[str, ...]:
    """All of the lines of a series up to the value; for histograms and summaries `_sum` and `_count` are the last two."""
    pairs = [f'{name}="{_escape(str(value))}"' for name, value in zip(metric.labels, sample.labels, strict=True)]
    plain = "{" + ",".join(pairs) + "} " if pairs else " "
    if isinstance(sample, Sample):
        return (metric.name + plain,)
    if isinstance(sample, HistogramSample):
        edges = (*(sample.edges or metric.buckets), float("inf"))
        starts = [metric.name + "_bucket{" + ",".join([*pairs, f'le="{_bound(edge)}"']) + "} " if edge != above else "" for edge, above in _pairs(edges)]
    else:
        starts = [metric.name + "{" + ",".join([*pairs, f'quantile="{quantile!r}"']) + "} " for quantile, _ in sample.quantiles]
    return (*starts, f"{metric.name}_sum{plain}", f"{metric.name}_count{plain}")


def _add_to_client(family: ClientMetric, metric: Metric, sample: AnySample) -> None:
    labels = dict(zip(metric.labels, sample.labels, strict=True))
    if isinstance(sample, Sample):
        family.add_sample(metric.name, labels, float(sample.value))
        return
    total = 0.0
    if isinstance(sample, HistogramSample):
        for (edge, above), count in zip(_pairs((*(sample.edges or metric.buckets), float("inf"))), sample.counts, strict=True):
            total += count
            if edge != above:
                family.add_sample(f"{metric.name}_bucket", {**labels, "le": _bound(edge)}, total)
    else:
        total = sample.observations
        for quantile, value in sample.quantiles:
            if isfinite(value):
                family.add_sample(metric.name, {**labels, "quantile": repr(quantile)}, float(value))
    family.add_sample(f"{metric.name}_sum", labels, float(sample.sum))
    family.add_sample(f"{metric.name}_count", labels, float(total))
