"""
Puts a drift into a stream of events.

Rule of the file: an event before the drift, and one that the drift does not touch, is passed on as
its bytes. What is random follows from the seed and from the order of the events.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgspec
import numpy as np

from stream_monitor.config.injection import begin_of, length_of
from stream_monitor.config.injection_settings import Drift, Injection
from stream_monitor.errors import UNREADABLE, InputError
from stream_monitor.inputs.merge import Event
from stream_monitor.inputs.options import did_you_mean

LEVELS_MAX = 1_000
IDS_MAX = 1_000_000
"""Predictions that are remembered until their label comes; the oldest are forgotten first."""
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Numbers:
    """Count, mean and spread of a field (Welford, 1962), its levels, and the fields beside it."""

    def __init__(self) -> None:
        self.n, self.mean, self._m2 = 0, 0.0, 0.0
        self.levels: dict[str, Any] = {}
        self.seen = 0
        """Rows that have the field."""

    def add(self, value: Any) -> None:
        """Count a value."""
        self.seen += 1
        if is_number(value):
            self.n += 1
            step = value - self.mean
            self.mean += step / self.n
            self._m2 += step * (value - self.mean)
        if value is not None and len(self.levels) < LEVELS_MAX:
            self.levels.setdefault(text_of(value), value)

    @property
    def sd(self) -> float:
        """Standard deviation; 0 for less than two numbers."""
        return math.sqrt(self._m2 / (self.n - 1)) if self.n > 1 else 0.0


class Survey:
    """
    What drifts need to know of the data: its length, spread of fields, and classes of labels.

    Parameters
    ----------
    injection : Injection
    """

    def __init__(self, injection: Injection) -> None:
        self.wanted = sorted({d.field for d in injection.drifts if d.field})
        self.rows = self.labels = 0
        self.first_ms, self.last_ms = 0, 0
        self.models: dict[str, int] = {}
        self.fields = {name: Numbers() for name in self.wanted}
        self.classes = Numbers()
        self.names: set[str] = set()

    def add(self, events: Iterable[Event]) -> None:
        """Read events in order."""
        for kind, value, _, time_ms in events:
            if not self.rows:
                self.first_ms = time_ms
            self.last_ms = max(self.last_ms, time_ms)
            self.rows += kind == "predictions"
            self.labels += kind == "labels"
            event = decoded(value)
            if event is None:
                continue
            if kind == "labels":
                self.classes.add(event.get("label"))
                continue
            model = str(event.get("model"))
            self.models[model] = self.models.get(model, 0) + 1
            features = event.get("features")
            if isinstance(features, dict) and len(self.names) < LEVELS_MAX:
                self.names |= features.keys()
            for name, numbers in self.fields.items():
                box, key = place_of(event, name)
                if box is not None and key in box:
                    numbers.add(box[key])

    def check(self, drift: Drift, where: str) -> None:
        """
        Refuse a drift that the data cannot have.

        Raises
        ------
        InputError
            The field is in no row, or has no spread to measure by; there are no labels to flip.
        """
        if drift.model is not None and drift.model not in self.models:
            raise InputError(
                f"{where}.model: no rows of {drift.model!r}; there are "
                f"{', '.join(sorted(self.models)[:20])}"
            )
        if drift.kind == "flip" and len(self.classes.levels) < 2:
            raise InputError(
                f"{where}: labels need two classes to flip; map them with --map label="
            )
        if not drift.field:
            return
        found, name = self.fields[drift.field], drift.field.removeprefix("features.")
        if not found.seen:
            raise InputError(
                f"{where}.field: no row has {drift.field}.{did_you_mean(name, sorted(self.names))}"
            )
        by_spread = drift.kind == "noise" or (
            drift.kind in ("shift", "ramp") and drift.unit == "sd"
        )
        if drift.kind in ("shift", "scale", "ramp", "noise") and not found.n:
            raise InputError(f"{where}.kind: {drift.field} has no numbers to {drift.kind}")
        if by_spread and not found.sd:
            raise InputError(f"{where}.by: {drift.field} is constant; use `unit: value`")
        for level in drift.levels:
            if level not in found.levels:
                raise InputError(f"{where}.levels: {drift.field} is never {level!r}")


class Place(NamedTuple):
    """Where a drift begins and how long it lasts; rows are counted from 0."""

    row: int | None = None
    time_ms: int | None = None
    rows: int | None = None
    """Length in rows."""
    lasts_ms: int | None = None

    @classmethod
    def of(cls, drift: Drift, survey: Survey) -> Place:
        """The place that the file gives; the first row if it gives none."""
        kind, at = begin_of(drift.at or "0") or ("row", 0.0)
        unit, length = (drift.lasts and length_of(drift.lasts)) or ("", 0)
        total = survey.labels if drift.kind == "flip" else survey.rows
        return cls(
            None if kind == "time" else int(at * total) if kind == "share" else int(at),
            int(at) if kind == "time" else None,
            length if unit == "rows" else None,
            length if unit == "ms" else None,
        )


class Injector:
    """
    One drift in one stream.

    Parameters
    ----------
    drift : Drift
    place : Place
    survey : Survey
    seed : sequence of int

    Notes
    -----
    About 5 µs an event of 10 features while it lasts, and nearly nothing before.
    """

    def __init__(self, drift: Drift, place: Place, survey: Survey, seed: list[int]) -> None:
        self.drift, self.place = drift, place
        self.kind = "labels" if drift.kind == "flip" else "predictions"
        self.start_ms: int | None = None
        """Time of the first row of the drift; None before it."""
        self.changed = 0
        """Events that were changed or left out."""
        self.times: list[int] = []
        """Times of the rows since it began, also after its end, and of those that were left out."""
        self._of_all = drift.model is None or set(survey.models) == {drift.model}
        self._rows, self._over = 0, False
        self._ids: dict[Any, None] = {}
        self._remembers = drift.kind == "flip" and bool(drift.only)
        self._random = np.random.default_rng(seed)
        numbers = survey.fields.get(drift.field)
        self._unit = numbers.sd if numbers and drift.unit == "sd" else 1.0
        self._stuck: Any = drift.value
        self._levels = numbers.levels if numbers else {}
        self._classes = list(survey.classes.levels.values()) if drift.kind == "flip" else []

    def events(self, events: Iterable[Event]) -> Iterator[Event]:
        """The events with the drift."""
        for event in events:
            if self._remembers and event[0] == "predictions":
                self._remember(event)
                yield event
                continue
            if event[0] == self.kind:
                changed = self._next(event)
            else:
                changed = self._label(event) if self._ids and event[0] == "labels" else event
            if changed is not None:
                yield changed

    def _next(self, event: Event) -> Event | None:
        kind, value, key, time_ms = event
        row: dict[str, Any] | None = None
        if self._over:
            self.times.append(time_ms)
            return event
        if not self._of_all:
            row = decoded(value)
            if row is None or row.get("model") != self.drift.model:
                return event
        number, self._rows = self._rows, self._rows + 1
        place = self.place
        if self.start_ms is None:
            if number < (place.row or 0) or time_ms < (place.time_ms or -math.inf):
                return event
            self.start_ms = time_ms
        if len(self.times) >= (place.rows or math.inf) or (
            place.lasts_ms is not None and time_ms - self.start_ms >= place.lasts_ms
        ):
            self._over = True
        self.times.append(time_ms)
        if self._over:
            return event
        row = decoded(value) if row is None else row
        if row is None or not self._is_meant(row):
            return event
        if self.drift.share < 1 and self._random.random() >= self.drift.share:
            return event
        if self.drift.kind == "drop":
            self.changed += 1
            self._keep(row.get("event_id"))
            return None
        if not self._change(row):
            return event
        self.changed += 1
        return kind, _encode(row), key, time_ms

    def _label(self, event: Event) -> Event | None:
        """The label of a prediction that was left out is left out too."""
        row = decoded(event[1])
        id_ = None if row is None else row.get("event_id")
        if id_ not in self._ids:
            return event
        del self._ids[id_]
        return None

    def _keep(self, id_: Any) -> None:
        self._ids[id_] = None
        if len(self._ids) > IDS_MAX:
            del self._ids[next(iter(self._ids))]

    def _remember(self, event: Event) -> None:
        """Remember a prediction whose label may flip: a label has no segments."""
        row = decoded(event[1])
        if row is not None and self._has(row):
            self._keep(row.get("event_id"))

    def _is_meant(self, row: dict[str, Any]) -> bool:
        if not self._remembers:
            return self._has(row)
        id_ = row.get("event_id")
        return id_ in self._ids and self._ids.pop(id_) is None

    def _has(self, row: dict[str, Any]) -> bool:
        """Whether a row has the values of `only`."""
        for name, value in self.drift.only.items():
            found = [
                box[name]
                for box in (row.get("segments"), row.get("features"), row)
                if isinstance(box, dict) and name in box
            ]
            if not found or text_of(found[0]) != value:
                return False
        return True

    def _change(self, row: dict[str, Any]) -> bool:
        """Change a row in place; whether it has something to change."""
        drift = self.drift
        box, key = (row, "label") if drift.kind == "flip" else place_of(row, drift.field)
        if box is None or key not in box or box[key] is None:
            return False
        value = box[key]
        new = self._flipped(value) if drift.kind == "flip" else self._changed(value)
        if new is _SAME:
            return False
        if new is None and box is row:
            del box[key]
        else:
            box[key] = new
        return True

    def _flipped(self, value: Any) -> Any:
        if self.drift.of not in (None, text_of(value)):
            return _SAME
        others = [c for c in self._classes if text_of(c) != text_of(value)]
        return others[int(self._random.integers(len(others)))] if others else _SAME

    def _changed(self, value: Any) -> Any:
        drift, by = self.drift, self.drift.by or 0.0
        if drift.kind == "missing":
            return None
        if drift.kind == "wrong_type":
            return "n/a" if is_number(value) else [value]
        if drift.kind == "new_level":
            return drift.level
        if drift.kind == "swap":
            texts = list(drift.levels)
            if text_of(value) not in texts:
                return _SAME
            return self._levels[texts[1 - texts.index(text_of(value))]]
        if drift.kind == "stuck":
            self._stuck = value if self._stuck is None else self._stuck
            return self._stuck
        if not is_number(value):
            return _SAME
        if drift.kind == "scale":
            new = value * by
        elif drift.kind == "noise":
            new = value + by * self._unit * self._random.standard_normal()
        else:
            grown = min(1.0, len(self.times) / drift.over) if drift.kind == "ramp" else 1.0
            new = value + by * self._unit * grown
        return min(max(new, 0.0), 1.0) if drift.field == "score" else float(new)


_SAME: Any = object()
"""The value does not change."""


def decoded(value: bytes) -> dict[str, Any] | None:
    """The event of some bytes; None if they are none."""
    try:
        found = _decode(value)
    except UNREADABLE:
        return None
    return found if isinstance(found, dict) else None


def place_of(event: dict[str, Any], field: str) -> tuple[dict[str, Any] | None, str]:
    """
    The mapping that has a field, and its key there.

    >>> place_of({"features": {"x": 1}}, "features.x"), place_of({"score": 0.5}, "score")
    (({'x': 1}, 'x'), ({'score': 0.5}, 'score'))
    """
    if not field.startswith("features."):
        return event, field
    features = event.get("features")
    return (features if isinstance(features, dict) else None), field.removeprefix("features.")


def is_number(value: Any) -> bool:
    """
    Whether it is a finite number, and no boolean.

    >>> is_number(1), is_number(True), is_number("1")
    (True, False, False)
    """
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def text_of(value: Any) -> str:
    """
    A category as `monitor.yaml` writes it.

    >>> text_of(1.0), text_of(True), text_of("DE")
    ('1', 'true', 'DE')
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
