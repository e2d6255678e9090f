"""
Matches labels with predictions by their ids, for the report.

Rule of the file: ids are compared exactly, as in the core. It reports which ids would match if they
were written in another way, and never changes them. Memory is 16 bytes per event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from stream_monitor.inputs.merge import Event
from stream_monitor.inputs.sources import Source

EXAMPLES = 3
REWRITINGS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("without zeros in front", lambda key: key.lstrip("0")),
    ("in small letters", str.lower),
    ("without `.0` at the end", lambda key: key.removesuffix(".0")),
    ("without hyphens", lambda key: key.replace("-", "")),
)
"""Changes that may make the ids of two systems equal."""
CHUNK = 1 << 16


class Meetings(NamedTuple):
    """How the labels of an input match its predictions."""

    labels: int
    met: int
    """Number of labels whose id a prediction has."""
    delay_ms: tuple[int, int] | None
    """How much later than their predictions the labels are: the median, and the maximum."""
    label_ids: tuple[str, ...]
    """Examples of ids of labels without a prediction."""
    prediction_ids: tuple[str, ...]
    """Examples of ids of predictions without a label."""
    rewriting: str | None
    """How ids would have to be written so that most match."""


class _Keys:
    """Hashes of ids with their times, in arrays that grow."""

    def __init__(self) -> None:
        self._done: list[tuple[NDArray[np.uint64], NDArray[np.int64]]] = []
        self._ids: list[int] = []
        self._times_ms: list[int] = []

    def add(self, key: bytes, time_ms: int) -> None:
        self._ids.append(xxh3_64_intdigest(key))
        self._times_ms.append(time_ms)
        if len(self._ids) >= CHUNK:
            self._flush()

    def _flush(self) -> None:
        self._done.append((np.array(self._ids, np.uint64), np.array(self._times_ms, np.int64)))
        self._ids, self._times_ms = [], []

    def arrays(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        self._flush()
        return np.concatenate([ids for ids, _ in self._done]), np.concatenate(
            [times for _, times in self._done]
        )

    def first_times(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Every id once, ascending, with the time of its first event."""
        ids, times_ms = self.arrays()
        unique, first = np.unique(ids, return_index=True)
        return unique, times_ms[first]


def give_times_to_labels(sources: list[Source]) -> list[str]:
    """
    Give labels the times of their predictions if one of the two files has no times; reports it.

    Invented times of rows cannot be compared with those of another file.
    """
    if (
        len(sources) != 2
        or any(source.file.live for source in sources)
        or all(source.has_times for source in sources)
    ):
        return []
    predictions, labels = sources
    if not labels.rows or not predictions.rows:
        return []
    keys = _Keys()
    for _, _, key, time_ms in predictions.events():
        keys.add(key, time_ms)
    ids, times_ms = keys.first_times()
    last_ms, delay_ms = int(times_ms.max()), labels.options.label_delay_ms

    def time_of(key: bytes, _: int) -> int:
        wanted = xxh3_64_intdigest(key)
        at = int(np.searchsorted(ids, np.uint64(wanted)))
        return (
            int(times_ms[at]) if at < len(ids) and int(ids[at]) == wanted else last_ms
        ) + delay_ms

    labels.label_times = time_of
    labels.first_ms, labels.last_ms = int(times_ms.min()) + delay_ms, last_ms + delay_ms
    which = predictions if not predictions.has_times else labels
    later = f", {delay_ms:,} ms later (--label-delay)" if delay_ms else ""
    return [
        (
            f"{labels.file.name}: {which.file.name} has no times, so a label takes the time of "
            f"its prediction{later}"
        )
    ]


def meetings_of(events: Iterable[Event]) -> Meetings:
    """
    How labels and predictions of a stream of events match.

    Examples
    --------
    >>> stream = [
    ...     ("predictions", b"", b"7", 0),
    ...     ("predictions", b"", b"8", 0),
    ...     ("labels", b"", b"07", 5),
    ...     ("labels", b"", b"08", 5),
    ... ]
    >>> found = meetings_of(stream)
    >>> found.labels, found.met, found.label_ids, found.rewriting
    (2, 0, ('07', '08'), 'without zeros in front')
    """
    kinds = {"predictions": _Keys(), "labels": _Keys()}
    rewritten = [{"predictions": _Keys(), "labels": _Keys()} for _ in REWRITINGS]
    samples: dict[str, dict[bytes, None]] = {"predictions": {}, "labels": {}}
    for kind, _, key, time_ms in events:
        kinds[kind].add(key, time_ms)
        if len(samples[kind]) < CHUNK:
            samples[kind][key] = None
        for (_, rewrite), keys in zip(REWRITINGS, rewritten, strict=True):
            keys[kind].add(rewrite(key.decode("utf-8", "replace")).encode(), 0)
    predictions, times_ms = kinds["predictions"].first_times()
    labels, label_times_ms = kinds["labels"].arrays()
    met = np.isin(labels, predictions)
    delays = label_times_ms[met] - times_ms[np.searchsorted(predictions, labels[met])]
    label_ids = _without(samples["labels"], predictions)
    rewriting = None
    for (name, _), keys in zip(REWRITINGS, rewritten, strict=True):
        share = (
            np.isin(keys["labels"].arrays()[0], keys["predictions"].first_times()[0]).mean()
            if len(labels)
            else 0.0
        )
        if rewriting is None and share > max(met.mean(), 0.5):
            rewriting = name
    return Meetings(
        len(labels),
        int(met.sum()),
        (int(np.median(delays)), int(delays.max())) if len(delays) else None,
        label_ids,
        _without(samples["predictions"], np.unique(labels)),
        rewriting,
    )


def _without(samples: dict[bytes, None], known: NDArray[np.uint64]) -> tuple[str, ...]:
    """The first ids that are not known."""
    found = []
    for key in samples:
        wanted = xxh3_64_intdigest(key)
        at = int(np.searchsorted(known, np.uint64(wanted)))
        if at == len(known) or int(known[at]) != wanted:
            found.append(key.decode("utf-8", "replace"))
        if len(found) == EXAMPLES:
            break
    return tuple(found)
