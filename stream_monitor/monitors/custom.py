"""
Metrics that users defined: a counter, gauge, histogram or summary over one field, labelled by
segments.

Rule of the file: numbers count as they are, booleans as 0 or 1, and a text as 1, so a counter over
a text counts its rows. Missing values are not counted. A counter never falls: negative values are
left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import numpy as np

from stream_monitor.arrays import Float, are_numbers
from stream_monitor.events.cells import BOOL, TEXT, Cells, arguments, tags
from stream_monitor.metrics.catalogue import custom_metric
from stream_monitor.metrics.samples import AnySample, HistogramSample, Sample, SummarySample
from stream_monitor.monitors.definitions import Changes
from stream_monitor.monitors.rows import Rows, category_of
from stream_monitor.settings import OTHER, CustomMetric

SUMMARY_ROWS = 1_000
"""The last values, of which a summary's quantiles are."""


class Series(msgspec.Struct):
    """One series of a custom metric."""

    total: float = 0.0
    observations: int = 0
    last: float = 0.0
    counts: list[float] = []
    values: list[float] = []

    def add(self, values: Float, metric: CustomMetric) -> None:
        """Take values in log order."""
        self.observations += len(values)
        self.total += float(values.sum())
        self.last = float(values[-1])
        if metric.type == "histogram":
            found = np.bincount(
                np.searchsorted(sorted(metric.buckets), values), minlength=len(metric.buckets) + 1
            )
            self.counts = (
                (np.array(self.counts) + found).tolist()
                if self.counts
                else found.astype(np.float64).tolist()
            )
        elif metric.type == "summary":
            self.values = [*self.values, *values.tolist()][-SUMMARY_ROWS:]


class Metric(msgspec.Struct):
    """All series of one custom metric."""

    labels: tuple[str, ...]
    """Names of the labels, in the order in which a series has their values."""
    series: dict[tuple[str, ...], Series] = {}


class Custom:
    """
    The custom metrics of one model version.

    Parameters
    ----------
    defined : mapping of name to CustomMetric
    limit : int
        Series of each; further ones are labelled `__other__`.
    """

    def __init__(self, defined: Mapping[str, CustomMetric], limit: int) -> None:
        self.defined, self.limit = defined, limit
        self.state = {name: Metric(tuple(metric.labels)) for name, metric in defined.items()}

    def add(self, rows: Rows) -> None:
        """Take rows of predictions in log order; a sort of the labels' columns a metric."""
        for name, metric in self.defined.items():
            if metric.field not in rows.columns:
                continue
            values = numbers(rows.cells[rows.columns.index(metric.field)])
            known = are_numbers(values)
            if metric.type == "counter":
                known &= values >= 0
            for labels, at in self._labelled(metric, rows):
                found = values[at][known[at]]
                if len(found):
                    self._of(name, labels).add(found, metric)

    def _of(self, name: str, labels: tuple[str, ...]) -> Series:
        series = self.state[name].series
        if labels not in series and len(series) >= self.limit:
            labels = (OTHER,) * len(labels)
        return series.setdefault(labels, Series())

    @staticmethod
    def _labelled(metric: CustomMetric, rows: Rows) -> Iterator[tuple[tuple[str, ...], Any]]:
        """Rows by the values of the metric's labels; a value is empty if a row has none."""
        if not metric.labels:
            yield (), slice(None)
            return
        columns = [
            next(
                (
                    rows.cells[rows.columns.index(c)]
                    for c in (f"segments.{n}", f"features.{n}")
                    if c in rows.columns
                ),
                None,
            )
            for n in metric.labels
        ]
        bits = np.stack(
            [
                np.zeros(len(rows.times_ms), np.uint64)
                if c is None
                else np.ascontiguousarray(c).view(np.uint64)
                for c in columns
            ],
            axis=1,
        )
        distinct, inverse = np.unique(bits, axis=0, return_inverse=True)
        for i, row in enumerate(distinct):
            cells = np.ascontiguousarray(row).view(np.float64).tolist()
            texts = tuple(
                "" if c is None else category_of(cell, rows.texts) or ""
                for c, cell in zip(columns, cells, strict=True)
            )
            yield texts, np.flatnonzero(inverse.ravel() == i)

    def samples(self, names: tuple[str, str]) -> Iterator[AnySample]:
        """The samples of all metrics; `names` are model and version."""
        for name, metric in self.defined.items():
            full = custom_metric(name, metric).name
            for labels, series in self.state[name].series.items():
                where = (*names, *labels)
                if metric.type == "histogram":
                    yield HistogramSample(full, where, tuple(series.counts), series.total)
                elif metric.type == "summary":
                    quantiles = np.quantile(series.values, metric.quantiles).tolist()
                    yield SummarySample(
                        full,
                        where,
                        tuple(zip(metric.quantiles, quantiles, strict=True)),
                        series.observations,
                        series.total,
                    )
                else:
                    yield Sample(
                        full, where, series.total if metric.type == "counter" else series.last
                    )

    def load(self, state: Mapping[str, Metric], changes: Changes) -> None:
        """
        Go on from the state of a snapshot; metrics with another definition begin again.

        Of more series than the limit, the first ones stay.
        """
        for name, metric in self.state.items():
            if name not in state:
                continue
            if keys := changes.keys("custom metric", name):
                changes.begins_anew(f"custom metric {name}", keys)
                continue
            place = [state[name].labels.index(label) for label in metric.labels]
            for values, series in state[name].series.items():
                labels = tuple(values[i] for i in place)
                if len(metric.series) < self.limit or labels == (OTHER,) * len(labels):
                    metric.series[labels] = series


def numbers(cells: Cells) -> Float:
    """
    Cells as numbers: booleans are 0 or 1, texts are 1, everything else is NaN.

    >>> from stream_monitor.events.cells import NULL_CELL, TRUE_CELL, boxed
    >>> numbers(np.array([2.5, TRUE_CELL, boxed(TEXT, 3), NULL_CELL])).tolist()
    [2.5, 1.0, 1.0, nan]
    """
    if are_numbers(cells).all():
        return cells
    tag = tags(cells)
    out: Float = np.where(
        tag == BOOL,
        arguments(cells).astype(np.float64),
        np.where(tag == TEXT, 1.0, np.where(tag < 0, cells, np.nan)),
    )
    return out
