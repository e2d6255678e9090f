"""
The fast path: msgspec structs that are made from the events of each model seen so far.

Rule of the file: a shape is an optimisation. A struct accepts only events that `parse` accepts, and
their rows are the same; all other events are refused here and read there. Structs refuse unknown
keys, so nothing nested or new passes unseen. An event of 10 numbers takes 1 µs, and its columns as
much.
"""

from __future__ import annotations

import operator
import re
import struct
from collections.abc import Callable, Iterable
from itertools import starmap
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np
from msgspec import UNSET, Meta, Struct, UnsetType

from stream_monitor.events.cells import (
    ABSENT_CELL,
    NULL_CELL,
    TEXT_MAX_CHARS,
    Cells,
    Texts,
    box,
    feature_named,
    unit_cell,
)
from stream_monitor.events.parse import EARLIEST_MS, ID_MAX, MODEL_MAX, TIMESTAMP_MAX, VERSION_MAX

Scalar = None | bool | int | float | str
COLUMNS_MAX = 2_000
"""A wider event is always read by `parse`."""
UNIT = "u"
"""Kind of a column whose texts become hashes."""
SPARSE_MIN, SPARSE = 64, 4
"""More fields than this, and more than so many times those of an event: sparse."""
_UNFIT = re.compile(rf'[\x00-\x1f"\\]|.{{{TEXT_MAX_CHARS + 1}}}', re.DOTALL)
"""Names that no field of a struct can have, or that `parse` cuts."""

_NESTED = ("features", "segments", "score")
_TYPES: dict[str, Any] = {"n": float, "s": str, "b": bool, "z": None}


class Shape:
    """The kinds of value of each field in the events of one model. It only grows."""

    __slots__ = ("_events", "_values", "fields")

    def __init__(self) -> None:
        self.fields: dict[str, str] = {}
        self._events = self._values = 0

    @property
    def is_sparse(self) -> bool:
        """
        Events have so few of the fields that a struct of all of them costs more than `parse`: a
        flood of new names, or a model of many optional features.
        """
        return (
            len(self.fields) > SPARSE_MIN
            and len(self.fields) * self._events > SPARSE * self._values
        )

    def learn(self, fields: dict[str, Any]) -> bool:
        """Take one good event in; whether anything was new."""
        news = False
        self._events += 1
        for name, value in fields.items():
            if name in ("event_id", "model", "version"):
                continue
            nested = name in _NESTED and type(value) is dict
            if not nested and name.partition(".")[0] in _NESTED and "." in name:
                continue  # a key of the event that reads like the path of a field of ours
            for path, v in (
                ((f"{name}.{k}", v) for k, v in value.items()) if nested else ((name, value),)
            ):
                kind, known = _kind(v), self.fields.get(path, "")
                self._values += 1
                if nested and kind in ("l", "d"):
                    # no field of ours holds a list or an object: such an event is read by `parse`,
                    # those without it are not slowed
                    continue
                if (
                    kind
                    and kind not in known
                    and len(self.fields) < COLUMNS_MAX
                    and not _UNFIT.search(path)
                ):
                    self.fields[path] = known + kind
                    news = True
        return news

    def signature(self) -> tuple[tuple[str, str], ...]:
        return tuple((name, "".join(sorted(kinds))) for name, kinds in self.fields.items())


def _kind(value: Any) -> str:
    kind = {float: "n", int: "n", str: "s", bool: "b", type(None): "z"}.get(type(value), "")
    if kind or type(value) not in (list, dict):
        return kind
    items = value if type(value) is list else value.values()
    flat = all(type(v) in (float, int, str, bool, type(None)) for v in items)
    return ("l" if type(value) is list else "d") if flat else ""


class Plan(NamedTuple):
    """How the events of one signature become columns."""

    columns: tuple[str, ...]
    getters: tuple[tuple[Callable[[Any], Any], str], ...]
    """For each column before the features: how to get it, and its kinds."""
    features: Callable[[list[Any]], Cells] | None
    """The block of numeric features at once, (n, features)."""


def _union(kinds: str, number: Any = float) -> Any:
    types = [number if k == "n" else _TYPES[k] for k in kinds if k in _TYPES]
    union = types[0]
    for t in types[1:]:
        union |= t
    return union


def _default(kinds: str) -> Any:
    return ABSENT_CELL if set(kinds) <= {"n", "z"} else UNSET


def _scalar_field(name: str, kinds: str, number: Any = float) -> tuple[str, Any, Any]:
    default = _default(kinds)
    kind = _union(kinds, number)
    return name, kind | UnsetType if default is UNSET else kind, default


def _sub_struct(name: str, fields: list[tuple[str, str]], number: Any = float) -> type[Struct]:
    specs = [_scalar_field(f"c{i}", kinds, number) for i, (_, kinds) in enumerate(fields)]
    renames = {f"c{i}": key for i, (key, _) in enumerate(fields)}
    return msgspec.defstruct(name, specs, rename=renames, forbid_unknown_fields=True, gc=False)


def _extra(kinds: str) -> Any:
    union: Any = Scalar
    if "l" in kinds:
        union |= list[Scalar]
    if "d" in kinds:
        union |= dict[str, Scalar]
    return union


_SCORE = Annotated[float, Meta(ge=0.0, le=1.0)]
_LATENCY = Annotated[float, Meta(ge=0.0, le=1e12)]
_TIME = Annotated[int, Meta(ge=EARLIEST_MS, le=TIMESTAMP_MAX)]


def _splits(signature: tuple[tuple[str, str], ...]) -> dict[str, list[tuple[str, str]]]:
    parts: dict[str, list[tuple[str, str]]] = {"": [], "features": [], "segments": [], "score": []}
    for path, kinds in signature:
        head, dot, rest = path.partition(".")
        if dot and head in parts:
            parts[head].append((rest, kinds))
        else:
            parts[""].append((path, kinds))
    return parts


def struct_of(
    kind: str, signature: tuple[tuple[str, str], ...], model: str | None, *, alone: bool = False
) -> type[Struct] | None:
    """
    The struct of one shape, or None when only `parse` can read it.

    Without a model the model is a field. With one the struct is tagged by it; but msgspec takes an
    event without a tag for that of the only struct there is, so one that is `alone` has the model
    as a field of one value, which must be there.
    """
    parts = _splits(signature)
    fields: list[Any] = [("event_id", Annotated[str, Meta(min_length=1, max_length=ID_MAX)])]
    if model is None:
        fields.append(
            ("model", Annotated[str, Meta(min_length=1, max_length=MODEL_MAX)] | UnsetType, UNSET)
        )
    elif alone:
        fields.append(("model", Literal[model]))
    fields.append(("version", Annotated[str, Meta(max_length=VERSION_MAX)] | UnsetType, UNSET))
    renames = {}
    for i, (name, kinds) in enumerate(parts[""]):
        if name == "status":
            fields.append(("status", Literal["ok"], "ok"))
        elif name == "timestamp":
            fields.append(("timestamp", _TIME | str if "s" in kinds else _TIME, 0))
        elif name == "embedding":
            fields.append(("embedding", list[float] | None, None))
        elif name in ("score", "latency_ms", "prediction", "label", "variant", "unit"):
            if not set(kinds) & set("nsb"):
                return None
            wanted = {"score": "n", "latency_ms": "n", "variant": "s", "unit": "s"}.get(name, "nsb")
            allowed = "".join(k for k in kinds if k in wanted)
            if not allowed or (name == "score" and parts["score"]):
                return None
            number = {"score": _SCORE, "latency_ms": _LATENCY}.get(name, float)
            fields.append(
                _scalar_field(name, allowed, number)
                if name not in ("variant", "unit")
                else (name, Annotated[str, Meta(min_length=1, max_length=256)] | UnsetType, UNSET)
            )
        elif name not in ("features", "segments"):
            renames[f"x{i}"] = name
            fields.append((f"x{i}", _extra(kinds), None))
    for name, number in (("features", float), ("segments", float), ("score", _SCORE)):
        if parts[name]:
            if name != "features" and any(
                kinds != ("s" if name == "segments" else "n") for _, kinds in parts[name]
            ):
                return None
            sub = _sub_struct(name, parts[name], number)
            fields.append((name, sub, msgspec.field(default_factory=sub)))
    tag = {"tag_field": "model", "tag": model} if model is not None and not alone else {}
    return msgspec.defstruct(
        kind,
        fields,
        rename=renames or None,
        forbid_unknown_fields=True,
        gc=False,
        kw_only=True,
        **tag,  # type: ignore[arg-type]
    )


def plan_of(signature: tuple[tuple[str, str], ...]) -> Plan:
    """The columns of a signature and how to fill them, in the order of `parse`."""
    parts = _splits(signature)
    top = dict(parts[""])
    columns: list[str] = []
    getters: list[tuple[Callable[[Any], Any], str]] = []

    def add(column: str, path: str, kinds: str) -> None:
        columns.append(column)
        getters.append((operator.attrgetter(path), kinds))

    for name in ("label", "prediction", "score"):
        if name in top:
            add(name, name, "".join(k for k in top[name] if k in "nsb"))
    for i, (name, kinds) in enumerate(parts["score"]):
        add(f"score.{name}", f"score.c{i}", kinds)
    if "latency_ms" in top:
        add("latency_ms", "latency_ms", "n")
    for i, (name, kinds) in enumerate(parts["segments"]):
        add(f"segments.{name}", f"segments.c{i}", kinds)
    for name, kinds in (("variant", "s"), ("unit", UNIT)):
        if name in top:
            add(name, name, kinds)
    features = parts["features"]
    if features and all(set(kinds) <= {"n", "z"} for _, kinds in features):
        columns += [f"features.{feature_named(name)}" for name, _ in features]
        return Plan(
            tuple(columns),
            tuple(getters),
            _numeric_block(len(features), any("z" in kinds for _, kinds in features)),
        )
    for i, (name, kinds) in enumerate(features):
        add(f"features.{feature_named(name)}", f"features.c{i}", kinds)
    return Plan(tuple(columns), tuple(getters), None)


def _numeric_block(width: int, nullable: bool) -> Callable[[list[Any]], Cells]:
    get, astuple, pack = (
        operator.attrgetter("features"),
        msgspec.structs.astuple,
        struct.Struct(f"<{width}d").pack,
    )
    if nullable:  # numpy turns None into the plain NaN, which is the cell of null
        return lambda events: np.array(list(map(astuple, map(get, events))), np.float64).reshape(
            len(events), width
        )
    return lambda events: np.frombuffer(
        b"".join(starmap(pack, map(astuple, map(get, events)))), np.float64
    ).reshape(len(events), width)


def matrix(plan: Plan, events: list[Any], texts: Texts) -> Cells:
    """The cells of events of one signature, (n, columns)."""
    n = len(events)
    out = np.empty((n, len(plan.columns)))
    for i, (get, kinds) in enumerate(plan.getters):
        out[:, i] = _column(map(get, events), kinds, texts, n)
    if plan.features is not None:
        out[:, len(plan.getters) :] = plan.features(events)
    return out


def _column(values: Iterable[Any], kinds: str, texts: Texts, n: int) -> Cells:
    if kinds == UNIT:
        return np.fromiter(
            (ABSENT_CELL if v is UNSET else unit_cell(v) for v in values), np.float64, n
        )
    if kinds == "n":
        return np.fromiter(values, np.float64, n)
    if "s" in kinds and not set(kinds) & {"n", "b"}:
        special: dict[Any, float] = {UNSET: ABSENT_CELL, None: NULL_CELL}
        return np.fromiter(
            (texts[v] if type(v) is str else special[v] for v in values), np.float64, n
        )
    return np.fromiter(
        (ABSENT_CELL if v is UNSET or v is ABSENT_CELL else box(v, texts) for v in values),
        np.float64,
        n,
    )
