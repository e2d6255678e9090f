"""
Refused records of the source topics: how many, why, and of which model.

Rule of the file: the names of models from records that could not be used are bounded in number like
any other name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from stream_monitor.events.parse import model_of
from stream_monitor.metrics.samples import Sample
from stream_monitor.schema import REJECT_REASONS, Reason
from stream_monitor.settings import OTHER, CoreSettings


class Refusals:
    """
    Counts dead letters of this process.

    Examples
    --------
    >>> refusals = Refusals(CoreSettings())
    >>> for value in (b'{"model": "m", "score": 7}', b"{"):
    ...     refusals.count("predictions", "out_of_range", value)
    >>> refusals.by_reason["predictions", "out_of_range"], dict(refusals.by_model)
    (2, {'m': 1, '': 1})
    """

    def __init__(self, core: CoreSettings) -> None:
        self.core = core
        self.by_reason: Counter[tuple[str, Reason]] = Counter()
        self.by_model: Counter[str] = Counter()
        """Refused predictions by model; those without a readable model have the empty name."""

    def count(self, kind: str, reason: Reason, value: bytes = b"") -> None:
        """Count one record of a source topic."""
        self.by_reason[kind, reason] += 1
        if kind != "predictions":
            return
        model = model_of(value) or ""
        known = not model or model in self.by_model or model in self.core.models
        self.by_model[
            model if known or len(self.by_model) < self.core.limits.models else OTHER
        ] += 1

    def samples(self) -> Iterator[Sample]:
        """Samples: each reason exists at 0; models appear when they come."""
        for topic in ("predictions", "labels", "lifecycle"):
            yield from (
                Sample(
                    "stream_monitor_dead_letters_total",
                    (topic, reason),
                    self.by_reason[topic, reason],
                )
                for reason in REJECT_REASONS
            )
        yield from (
            Sample("stream_monitor_predictions_refused_total", (model,), n)
            for model, n in self.by_model.items()
        )
