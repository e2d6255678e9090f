"""
Batches of JSON to columns.

Rule of the file: a row is a pure function of its record. What was learnt from earlier events
decides only how fast a record is read, never the result (`tests/laws/test_decode_laws.py` compares
every row with that of `parse` alone).
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from stream_monitor.events.cells import ABSENT_CELL, INTEGER_MAX, Cells, Texts
from stream_monitor.events.observations import LABEL, PREDICTION
from stream_monitor.events.parse import AHEAD_MS_MAX, EARLIEST_MS, PARSERS, Bad, Parsed, text_time
from stream_monitor.events.shapes import Plan, Shape, matrix, plan_of, struct_of
from stream_monitor.verdicts import Reject

MODELS_MAX = 4_000
"""Models beyond it are read by `parse`."""
NEWS_MIN = 16
"""
Events with something new before the structs are made again; it doubles, so that a flood of shapes
cannot keep us busy making structs.
"""


class Known(NamedTuple):
    """What belongs to a struct: its model, and the plan for its columns."""

    model: str | None
    plan: Plan
    key: int
    """Which signature: events of one signature are put into columns together."""


class Columns(NamedTuple):
    """Rows of one layout: positions in the batch, group of each row, cells (n, columns)."""

    columns: tuple[str, ...]
    place: NDArray[np.int64]
    groups: NDArray[np.int64]
    ids: NDArray[np.uint64]
    times_ms: NDArray[np.int64]
    cells: Cells


class Decoded(NamedTuple):
    columns: list[Columns]
    rejects: list[Reject]
    tombstones: int
    ahead: int
    """Rows whose event time was too far ahead, so that the record's was taken."""
    clipped: int
    """Rows of which a score was put back into [0, 1]."""


GroupKey = tuple[int, str, str | None, tuple[str, ...]]
"""Kind, model, version (None: a label that names none), columns."""
_get_id = operator.attrgetter("event_id")
_get_version = operator.attrgetter("version")
_get_model = operator.attrgetter("model")
_get_time = operator.attrgetter("timestamp")


class Groups(dict[GroupKey, int]):
    """(kind, model, version, columns) to a small number, in order of appearance."""

    def __missing__(self, key: GroupKey) -> int:
        number = self[key] = len(self)
        return number


class Decoder:
    """
    Decodes the records of one input topic (`predictions` or `labels`), and learns their shapes.

    Parameters
    ----------
    topic : str
        `predictions` or `labels`.
    groups : Groups
        Shared with the other decoder of the same stage.
    texts : Texts
        Dictionary of strings, replaced by the caller at every flush (`texts` attribute).
    bytes_max : int, bytes
        Larger records are rejected before they are read.
    """

    def __init__(self, topic: str, groups: Groups, texts: Texts, bytes_max: int) -> None:
        self.kind = PREDICTION if topic == "predictions" else LABEL
        self.groups, self.texts, self.bytes_max = groups, texts, bytes_max
        self._parse = PARSERS[topic]
        self._shapes: dict[str, Shape] = {}
        self._known: dict[type, Known] = {}
        self._signatures: dict[tuple[tuple[str, str], ...], int] = {}
        self._decode: Any = None
        self._news, self._news_due = 0, 1

    def decode(self, values: Sequence[bytes | None], times_ms: NDArray[np.int64]) -> Decoded:
        """
        Columns of a batch of record values; `times_ms` are the records' timestamps. About 2 µs a
        prediction of 10 numbers.
        """
        rejects: list[Reject] = []
        parsed: list[tuple[int, Parsed]] = []
        events, index, tombstones = self._fast(values, times_ms, parsed, rejects)
        columns = self._columns(events, index, times_ms, parsed, rejects, values)
        ahead = sum(p.ahead for _, p in parsed)
        columns += self._parsed_columns(parsed)
        if self._news >= self._news_due:
            self._rebuild()
        return Decoded(
            [c for c, _ in columns],
            rejects,
            tombstones,
            ahead + sum(a for _, a in columns),
            sum(p.clipped for _, p in parsed),
        )

    def _fast(
        self,
        values: Sequence[bytes | None],
        times: NDArray[np.int64],
        parsed: list[tuple[int, Parsed]],
        rejects: list[Reject],
    ) -> tuple[list[Any], NDArray[np.int64], int]:
        """
        Events that the structs know, and their places; the others are parsed one by one, and
        tombstones counted.
        """
        decode, bytes_max, tombstones = self._decode, self.bytes_max, values.count(None)
        places, usable = np.arange(len(values)), values
        if decode is None:
            places, usable = places[:0], []
        elif tombstones or max(map(len, values), default=0) > bytes_max:  # type: ignore[arg-type]
            places = np.array(
                [
                    i
                    for i, value in enumerate(values)
                    if value is not None and len(value) <= bytes_max
                ],
                np.int64,
            )
            usable = [values[i] for i in places.tolist()]
        events: list[Any] = []
        unknown: list[int] = []
        rest = iter(usable)
        while True:
            try:
                events.extend(map(decode, rest))  # what came before an error stays in the list
                break
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                unknown.append(len(events) + len(unknown))
        index = np.delete(places, unknown) if unknown else places
        if len(index) < len(values) - tombstones:
            for i in np.delete(np.arange(len(values)), index).tolist():
                if values[i] is not None:
                    self._slow(i, values[i], times, parsed, rejects)
        return events, index, tombstones

    def _slow(
        self,
        i: int,
        value: bytes | None,
        times: NDArray[np.int64],
        parsed: list[tuple[int, Parsed]],
        rejects: list[Reject],
    ) -> None:
        try:
            event = self._parse(value or b"", int(times[i]), self.texts, self.bytes_max)
        except Bad as bad:
            rejects.append(Reject(i, bad.reason, str(bad)))
            return
        parsed.append((i, event))
        if event.kind == self.kind:
            model = event.model if self.kind == PREDICTION else ""
            shape = self._shapes.get(model)
            if shape is None and len(self._shapes) < MODELS_MAX:
                shape = self._shapes[model] = Shape()
            self._news += shape is not None and shape.learn(event.fields)

    def _rebuild(self) -> None:
        """Make the structs again from the present shapes."""
        self._news, self._news_due = 0, min(self._news_due * 2 + NEWS_MIN, 1_000_000)
        known = self._structs(alone=False)
        if len(known) == 1 and self.kind == PREDICTION:
            known = self._structs(alone=True)
        self._known, kinds = known, tuple(known)
        union: Any = kinds[0] if kinds else None
        for kind in kinds[1:]:
            union |= kind
        self._decode = msgspec.json.Decoder(union).decode if kinds else None

    def _structs(self, *, alone: bool) -> dict[type, Known]:
        known: dict[type, Known] = {}
        for model, shape in self._shapes.items():
            signature = shape.signature()
            tag = model if self.kind == PREDICTION else None
            made = None if shape.is_sparse else struct_of("Event", signature, tag, alone=alone)
            if made is not None:
                key = self._signatures.setdefault(signature, len(self._signatures))
                known[made] = Known(tag, plan_of(signature), key)
        return known

    def _columns(
        self,
        events: list[Any],
        index: NDArray[np.int64],
        times: NDArray[np.int64],
        parsed: list[tuple[int, Parsed]],
        rejects: list[Reject],
        values: Sequence[bytes | None],
    ) -> list[tuple[Columns, int]]:
        if not events:
            return []
        known = self._known
        kinds = set(map(type, events))
        if len(kinds) == 1 or len({known[k].key for k in kinds}) == 1:
            return [self._block(events, index, times, parsed, rejects, values)]
        out = []
        keys = np.fromiter((known[type(e)].key for e in events), np.int64, len(events))
        for key in np.unique(keys):
            rows = np.flatnonzero(keys == key)
            out.append(
                self._block(
                    [events[i] for i in rows.tolist()], index[rows], times, parsed, rejects, values
                )
            )
        return out

    def _block(
        self,
        events: list[Any],
        index: NDArray[np.int64],
        times: NDArray[np.int64],
        parsed: list[tuple[int, Parsed]],
        rejects: list[Reject],
        values: Sequence[bytes | None],
    ) -> tuple[Columns, int]:
        """
        Events of one signature.

        Rows that only `parse` can judge are taken out and read there.
        """
        plan = self._known[type(events[0])].plan
        cells = matrix(plan, events, self.texts)
        when, ahead = self._times(events, times[index])
        doubtful = (
            (np.abs(cells) >= INTEGER_MAX).any(axis=1)
            | (when < EARLIEST_MS)
            | self._incomplete(plan, cells)
        )
        if doubtful.any():
            for i in index[doubtful].tolist():
                self._slow(i, values[i], times, parsed, rejects)
            keep = ~doubtful
            events = [e for e, k in zip(events, keep.tolist(), strict=True) if k]
            index, cells, when, ahead = index[keep], cells[keep], when[keep], ahead[keep]
        n = len(events)
        ids = np.fromiter(
            map(xxh3_64_intdigest, map(str.encode, map(_get_id, events))), np.uint64, n
        )
        return Columns(plan.columns, index, self._groups_of(plan, events), ids, when, cells), int(
            ahead.sum()
        )

    def _incomplete(self, plan: Plan, cells: Cells) -> NDArray[np.bool_]:
        wanted = [i for i, c in enumerate(plan.columns) if c == "label"] or [
            i for i, c in enumerate(plan.columns) if c == "prediction" or c.startswith("score")
        ]
        outcome = np.ascontiguousarray(cells[:, wanted]).view(np.uint64)
        return (outcome == _ABSENT_BITS).all(axis=1) if wanted else np.ones(len(cells), bool)

    def _times(
        self, events: list[Any], record: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        n = len(events)
        if not hasattr(events[0], "timestamp"):
            return record, np.zeros(n, bool)
        stamps = list(map(_get_time, events))
        try:
            when = np.fromiter(stamps, np.int64, n) if type(stamps[0]) is int else None
        except (ValueError, TypeError):
            when = None
        if when is None or any(type(s) is str for s in stamps):
            when = np.fromiter((s if type(s) is int else _text_ms(s) for s in stamps), np.int64, n)
        ahead = (record >= 0) & (when > record + AHEAD_MS_MAX)
        return np.where((when == 0) | ahead, record, when), ahead

    def _groups_of(self, plan: Plan, events: list[Any]) -> NDArray[np.int64]:
        groups, known, n = self.groups, self._known, len(events)
        if self.kind == PREDICTION:
            keys = {}
            pairs: list[Any] = list(zip(map(type, events), map(_get_version, events), strict=True))
            for pair in set(pairs):
                keys[pair] = groups[
                    PREDICTION, known[pair[0]].model or "", pair[1] or "", plan.columns
                ]
            return np.fromiter(map(keys.__getitem__, pairs), np.int64, n)
        pairs = list(zip(map(_get_model, events), map(_get_version, events), strict=True))
        keys = {}
        for model, version in set(pairs):
            keys[model, version] = groups[
                LABEL, model or "", None if version is msgspec.UNSET else version, plan.columns
            ]
        return np.fromiter(map(keys.__getitem__, pairs), np.int64, n)

    def _parsed_columns(self, parsed: list[tuple[int, Parsed]]) -> list[tuple[Columns, int]]:
        by_layout: dict[tuple[str, ...], list[tuple[int, Parsed]]] = {}
        for i, event in parsed:
            by_layout.setdefault(event.columns, []).append((i, event))
        out = []
        for columns, rows in by_layout.items():
            n = len(rows)
            groups = [self.groups[e.kind, e.model, e.version, columns] for _, e in rows]
            ids = np.array([xxh3_64_intdigest(e.event_id.encode()) for _, e in rows], np.uint64)
            times = np.array([e.time_ms for _, e in rows], np.int64)
            cells = np.array([e.cells for _, e in rows], np.float64).reshape(n, len(columns))
            out.append(
                (
                    Columns(
                        columns,
                        np.array([i for i, _ in rows], np.int64),
                        np.array(groups, np.int64),
                        ids,
                        times,
                        cells,
                    ),
                    0,
                )
            )
        return out


def _text_ms(text: str) -> int:
    """
    Event time of a text, or one that is too early for anything, so that `parse` says what is wrong.
    """
    found = text_time(text)
    return found if found is not None and found > 0 else 1


_ABSENT_BITS = np.array([ABSENT_CELL]).view(np.uint64)[0]
