"""
Samples of the state as families of `prometheus_client`, and their text by its encoders.

Rule of the file: the library decides how a line looks. A family is passed to it in pieces, so that
a large one can be written with pauses. The pieces together have the text of the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from math import inf, isfinite, nan

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample as Line

from stream_monitor.metrics.metric import Metric
from stream_monitor.metrics.samples import AnySample, HistogramSample, Sample, SummarySample

PIECE_LINES = 500
"""Number of lines in a piece: about 5 ms of CPU."""
END = b"# EOF\n"


class Format:
    """
    A text format of a scrape.

    Attributes
    ----------
    content_type : str
    """

    def __init__(
        self, content_type: str, encode: Callable[[Collector], bytes], *, strict: bool
    ) -> None:
        self.content_type, self._encode = content_type, encode
        self._strict = strict
        """
        Whether the format is OpenMetrics: no `_sum` that may decrease, no negative quantile of a
        summary.
        """

    def pieces(self, metric: Metric, samples: Iterable[AnySample]) -> Iterator[bytes]:
        """The text of a family, in pieces that take some milliseconds each."""
        for family, lines in _streams(metric, list(samples), strict=self._strict):
            header = self._text(family, [])
            yield header
            while piece := list(islice(lines, PIECE_LINES)):
                yield self._text(family, piece).removeprefix(header)

    def end(self) -> bytes:
        """The text after all families."""
        return END if self._strict else b""

    def _text(self, family: Family, lines: list[Line]) -> bytes:
        family.samples = lines
        try:
            text = self._encode(_One(family))
        except UnicodeEncodeError:  # half of a surrogate pair in a name
            family.samples = [
                Line(line.name, {k: _encodable(v) for k, v in line.labels.items()}, line.value)
                for line in lines
            ]
            text = self._encode(_One(family))
        return text.removesuffix(END)


PLAIN = Format(CONTENT_TYPE_PLAIN_0_0_4, generate_latest, strict=False)
OPENMETRICS = Format(CONTENT_TYPE_LATEST, generate_openmetrics, strict=True)


def wanted(accept: str) -> Format:
    """
    The supported format that an Accept header prefers; text if it accepts none.

    Examples
    --------
    >>> wanted(
    ...     "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
    ... ).content_type
    'application/openmetrics-text; version=1.0.0; charset=utf-8'
    >>> wanted("text/html, */*").content_type
    'text/plain; version=0.0.4; charset=utf-8'
    """  # noqa: E501
    best, found = 0.0, PLAIN
    for part in accept.lower().split(","):
        kind, *rest = (piece.strip() for piece in part.split(";"))
        parameters = dict(piece.partition("=")[::2] for piece in rest)
        version = parameters.get("version", "").strip('" ')
        if kind == "application/openmetrics-text" and (not version or version.startswith("1.")):
            offered = OPENMETRICS
        elif kind in ("text/plain", "text/*", "*/*"):
            offered = PLAIN
        else:
            continue
        quality = _quality(parameters.get("q", "1"))
        if quality > best:
            best, found = quality, offered
    return found


def _quality(text: str) -> float:
    try:
        return min(max(float(text), 0.0), 1.0)
    except ValueError:
        return 0.0


def families(metric: Metric, samples: list[AnySample]) -> Iterator[Family]:
    """A family of the catalogue as a family of the library."""
    for family, lines in _streams(metric, samples, strict=False):
        family.samples = list(lines)
        yield family


def _streams(
    metric: Metric, samples: list[AnySample], *, strict: bool
) -> Iterator[tuple[Family, Iterator[Line]]]:
    """
    Families without their lines, and the lines.

    If the format is strict and values may be negative, a histogram has no `_sum` and `_count`, and
    a summary becomes families of unknown type.
    """
    if metric.type == "summary" and strict and any(map(_is_negative, samples)):
        for name in (metric.name, f"{metric.name}_sum", f"{metric.name}_count"):
            lines = [
                line
                for sample in samples
                for line in _lines(metric, sample, strict=False)
                if line.name == name
            ]
            if lines:
                yield Family(name, metric.help, "unknown"), iter(lines)
        return
    name = metric.name.removesuffix("_total") if metric.type == "counter" else metric.name
    yield (
        Family(name, metric.help, metric.type),
        (line for sample in samples for line in _lines(metric, sample, strict=strict)),
    )


def _is_negative(sample: AnySample) -> bool:
    if type(sample) is SummarySample:
        return sample.sum < 0 or any(value < 0 for _, value in sample.quantiles)
    return type(sample) is Sample and sample.value < 0


def _lines(metric: Metric, sample: AnySample, *, strict: bool) -> Iterator[Line]:
    """The lines of one sample."""
    labels = dict(zip(metric.labels, sample.labels, strict=True))
    if type(sample) is Sample:
        yield Line(metric.name, labels, float(sample.value))
        return
    if type(sample) is HistogramSample:
        edges = (*(sample.edges or metric.buckets), inf)
        total = 0.0
        for edge, above, count in zip(edges, (*edges[1:], nan), sample.counts, strict=True):
            total += count
            if edge != above:
                # the bucket below an equal edge is empty, and two series would have one `le`
                yield Line(
                    f"{metric.name}_bucket",
                    {**labels, "le": bound(edge, strict=strict)},
                    float(total),
                )
        if strict and (edges[0] < 0 or sample.sum < 0):
            return
    else:
        assert type(sample) is SummarySample
        total = sample.observations
        for quantile, value in sample.quantiles:
            if isfinite(value):
                yield Line(metric.name, {**labels, "quantile": repr(float(quantile))}, float(value))
    yield Line(f"{metric.name}_sum", labels, float(sample.sum))
    yield Line(f"{metric.name}_count", labels, float(total))


def bound(edge: float, *, strict: bool) -> str:
    """
    The value of `le`. OpenMetrics requires `10.0`; the text format has `10`, like Prometheus' Go
    client.
    """
    if not isfinite(edge):
        return "+Inf"
    written = repr(float(edge))
    return written if strict else written.removesuffix(".0")


def _encodable(text: str) -> str:
    return text.encode(errors="replace").decode()


class _One(Collector):
    """A collector of one family, for the encoders."""

    def __init__(self, family: Family) -> None:
        self._family = family

    def collect(self) -> Iterator[Family]:
        yield self._family
