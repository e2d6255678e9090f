"""
The thorough reader of one record: the row, or exactly what is wrong with the record.

Rule of the file: a pure function of the record's bytes and its time. The fast path (`shapes`)
accepts only what this one accepts, with the same result; every other record comes here. About 10 µs
a record.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
import numpy as np

from stream_monitor.events.cells import TEXT_MAX_CHARS, Texts, box, feature_named, unit_cell
from stream_monitor.events.observations import FAILURE, LABEL, PREDICTION
from stream_monitor.schema import Reason

EARLIEST_MS = 946_684_800_000
"""
2000-01-01T00:00:00Z.

An event time before it is taken for a mistake (seconds instead of milliseconds, or nothing at all).
"""
AHEAD_MS_MAX = 300_000
"""An event time further ahead of its record's is not believed; the record's is used."""
TIMESTAMP_MAX = 2**62
DEPTH_MAX = 100
ROUNDING = 1e-6
"""A score may be so far outside [0, 1]: rounding of 32-bit floats and of sums. It is clipped."""
ID_MAX, MODEL_MAX, VERSION_MAX = 256, 128, 128
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_decode = msgspec.json.Decoder().decode
_decode_time = msgspec.json.Decoder(datetime).decode
_STRINGS = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
"""
A text, also one that never ends. Otherwise each quote in it would be tried as a beginning, which
takes hours for a megabyte.
"""
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


class _Named(msgspec.Struct):
    model: str | None = None


def model_of(value: bytes) -> str | None:
    """
    The model that an unusable record names; None if it cannot be read or names none.

    >>> (
    ...     model_of(b'{"model": "m", "score": 7}'),
    ...     model_of(b'{"score": 7}'),
    ...     model_of(b'{"model": 7}'),
    ...     model_of(b"{"),
    ... )
    ('m', None, None, None)
    """
    try:
        return msgspec.json.decode(value, type=_Named).model
    except (ValueError, RecursionError):
        return None


class Bad(Exception):  # noqa: N818 - control flow inside this package, never shown
    """A record that cannot be used."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Parsed(NamedTuple):
    kind: int
    model: str
    version: str | None
    """None: a label that names none, so that it is for every version."""
    event_id: str
    time_ms: int
    ahead: bool
    """The event time was too far ahead and the record's was taken."""
    columns: tuple[str, ...]
    cells: tuple[float, ...]
    fields: dict[str, Any]
    """The decoded object, for learning its shape."""
    clipped: bool = False
    """A score was outside [0, 1] by no more than rounding."""


def _depth(raw: bytes) -> int:
    brackets = np.frombuffer(_STRINGS.sub(b"", raw).translate(None, _NOT_BRACKETS), np.uint8)
    opens = (brackets == ord("[")) | (brackets == ord("{"))
    return int(np.cumsum(np.where(opens, 1, -1)).max(initial=0))


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= 40 else float("-inf" if digits.startswith("-") else "inf")


def _load_lenient(raw: bytes) -> Any:
    """JSON with numbers of any size and the literals `NaN` and `Infinity`."""
    try:
        value = json.loads(raw.decode(), parse_int=_integer)
        json.dumps(value, ensure_ascii=False).encode()  # refuses lone surrogates
    except ValueError as e:
        raise Bad("invalid_json", str(e)) from None
    return value


def load(raw: bytes, bytes_max: int) -> dict[str, Any]:
    """The JSON object of a record, or `Bad`. Duplicate keys: the last wins."""
    if len(raw) > bytes_max:
        raise Bad("too_large", f"{len(raw)} bytes are more than {bytes_max}")
    if raw[:1] == b"\x00":
        raise Bad(
            "unknown_format",
            "begins with byte 0, as the wire format of a schema registry does; plain JSON is "
            "expected",
        )
    if raw.count(b"[") + raw.count(b"{") > DEPTH_MAX and _depth(raw) > DEPTH_MAX:
        raise Bad("too_deep", f"nested more than {DEPTH_MAX} levels deep")
    try:
        value = _decode(raw)
    except msgspec.ValidationError:
        # a number that no double or integer holds: read it so that the rest of the record survives
        value = _load_lenient(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        if b"NaN" not in raw and b"Infinity" not in raw:
            raise Bad("invalid_json", str(e)) from None
        # what Python and JavaScript libraries write for them is no JSON, and means no doubt
        value = _load_lenient(raw)
    if type(value) is not dict:
        raise Bad("not_an_object", f"a JSON object is expected, not {_named(value)}")
    return value


def _named(value: Any) -> str:
    return {
        dict: "an object",
        list: "an array",
        str: "a string",
        bool: "a boolean",
        int: "a number",
        float: "a number",
    }.get(type(value), "null")


def _text(fields: dict[str, Any], name: str, chars_max: int, default: str | None = None) -> str:
    value = fields.get(name)
    if value is None:
        if default is None:
            raise Bad("missing_field", f"`{name}` is missing")
        return default
    if type(value) is not str:
        raise Bad("wrong_type", f"`{name}` must be a string, not {_named(value)}")
    if len(value) > chars_max or (not value and default is None):
        raise Bad(
            "out_of_range", f"`{name}` must have 1 to {chars_max} characters, not {len(value)}"
        )
    return value


def text_time(text: str) -> int | None:
    """Milliseconds of an RFC 3339 time with an offset; None for anything else."""
    try:
        moment = _decode_time(b'"%s"' % text.encode())
    except (msgspec.DecodeError, ValueError):
        return None
    return (moment - _EPOCH) // (datetime.resolution * 1000) if moment.tzinfo else None


def event_time(value: Any, record_ms: int) -> tuple[int, bool]:
    """
    Event time in ms, and whether the record's was taken because the event's was too far ahead.
    """
    ahead = False
    if value is None:
        time_ms = record_ms
    elif type(value) is int:
        time_ms = value
    elif type(value) is str:
        parsed = text_time(value)
        if parsed is None:
            raise Bad(
                "wrong_type",
                "`timestamp` must be milliseconds since 1970 or an RFC 3339 time with an "
                f"offset, not {value[:40]!r}",
            )
        time_ms = parsed
    else:
        raise Bad("wrong_type", f"`timestamp` must be an integer or a string, not {_named(value)}")
    if record_ms >= 0 and time_ms > record_ms + AHEAD_MS_MAX:
        time_ms, ahead = record_ms, True
    if not EARLIEST_MS <= time_ms <= TIMESTAMP_MAX:
        raise Bad(
            "out_of_range",
            f"the event time {time_ms} ms is not after 2000-01-01 (milliseconds since 1970 "
            "are expected)",
        )
    return time_ms, ahead


def _outcome(value: Any, name: str, texts: Texts) -> float:
    """The cell of a prediction or a label."""
    if type(value) not in (int, float, str, bool):
        raise Bad(
            "wrong_type", f"`{name}` must be a number, a string or a boolean, not {_named(value)}"
        )
    cell = box(value, texts)
    if type(value) in (int, float) and cell != cell:  # noqa: PLR0124
        raise Bad("out_of_range", f"`{name}` is beyond 2**53 or not finite")
    return cell


def _number(value: Any, name: str, low: float, high: float) -> float:
    if type(value) not in (int, float):
        raise Bad("wrong_type", f"`{name}` must be a number, not {_named(value)}")
    if not low <= value <= high:
        # which no float holds
        shown = (
            f"{value:g}"
            if type(value) is float or abs(value) < 1e300
            else "an integer beyond 1e300"
        )
        raise Bad("out_of_range", f"`{name}` must be in [{low:g}, {high:g}], not {shown}")
    return float(value)


def _probability(value: Any, name: str) -> float:
    """A number in [0, 1]; one that rounding put outside is clipped."""
    if type(value) in (int, float) and -ROUNDING <= value <= 1.0 + ROUNDING:
        return float(min(max(value, 0.0), 1.0))
    return _number(value, name, 0.0, 1.0)


def _score(value: Any) -> dict[str, float]:
    if type(value) is not dict:
        return {"score": _probability(value, "score")}
    return {
        (column := f"score.{name[:TEXT_MAX_CHARS]}"): _probability(p, column)
        for name, p in value.items()
    }


def _prediction_and_score(fields: dict[str, Any], texts: Texts) -> dict[str, float]:
    cells: dict[str, float] = {}
    if (value := fields.get("prediction")) is not None:
        cells["prediction"] = _outcome(value, "prediction", texts)
    if (value := fields.get("score")) is not None:
        cells |= _score(value)
    return cells


def _is_clipped(fields: dict[str, Any]) -> bool:
    score = fields.get("score")
    return any(
        not 0 <= p <= 1
        for p in (score.values() if type(score) is dict else () if score is None else (score,))
    )


def _object(fields: dict[str, Any], name: str) -> dict[str, Any]:
    value = fields.get(name)
    if value is None:
        return {}
    if type(value) is not dict:
        raise Bad("wrong_type", f"`{name}` must be an object, not {_named(value)}")
    return value


def _is_missing(value: Any) -> bool:
    """Null, or the `NaN` that stands for it in data frames."""
    return value is None or value != value  # noqa: PLR0124


def _details(fields: dict[str, Any], texts: Texts) -> dict[str, float]:
    """Latency, segments, variant, unit: the same for served and failed predictions."""
    cells: dict[str, float] = {}
    if not _is_missing(value := fields.get("latency_ms")):
        cells["latency_ms"] = _number(value, "latency_ms", 0.0, 1e12)
    for name, value in _object(fields, "segments").items():
        if _is_missing(value):
            continue
        if type(value) is not str:
            raise Bad("wrong_type", f"segment `{name[:40]}` must be a string, not {_named(value)}")
        cells[f"segments.{name[:TEXT_MAX_CHARS]}"] = texts[value]
    if fields.get("variant") is not None:
        cells["variant"] = texts[_text(fields, "variant", TEXT_MAX_CHARS)]
    if fields.get("unit") is not None:
        cells["unit"] = unit_cell(_text(fields, "unit", TEXT_MAX_CHARS))
    return cells


def parse_prediction(raw: bytes, record_ms: int, texts: Texts, bytes_max: int) -> Parsed:
    """
    A prediction event.

    Raises
    ------
    Bad
        With the reason of the dead letter.
    """
    fields = load(raw, bytes_max)
    event_id, model, version = (
        _text(fields, "event_id", ID_MAX),
        _text(fields, "model", MODEL_MAX),
        _text(fields, "version", VERSION_MAX, ""),
    )
    status = _text(fields, "status", 16, "ok")
    if status not in ("ok", "error"):
        raise Bad("out_of_range", f"`status` must be `ok` or `error`, not {status!r}")
    time_ms, ahead = event_time(fields.get("timestamp"), record_ms)
    if status == "error":
        details = _details(fields, texts)
        return Parsed(
            FAILURE,
            model,
            version,
            event_id,
            time_ms,
            ahead,
            tuple(details),
            tuple(details.values()),
            fields,
        )
    cells = _prediction_and_score(fields, texts)
    if not cells:
        raise Bad(
            "missing_field", "`prediction` is missing, and there is no `score` to take it from"
        )
    cells |= _details(fields, texts)
    for name, value in _object(fields, "features").items():
        cells[f"features.{feature_named(name[:TEXT_MAX_CHARS])}"] = box(value, texts)
    if (embedding := fields.get("embedding")) is not None and (
        type(embedding) is not list or not all(type(v) in (int, float) for v in embedding)
    ):
        raise Bad("wrong_type", "`embedding` must be an array of numbers")
    return Parsed(
        PREDICTION,
        model,
        version,
        event_id,
        time_ms,
        ahead,
        tuple(cells),
        tuple(cells.values()),
        fields,
        _is_clipped(fields),
    )


def parse_label(raw: bytes, record_ms: int, texts: Texts, bytes_max: int) -> Parsed:
    """
    A label event.

    Raises
    ------
    Bad
        With the reason of the dead letter.
    """
    fields = load(raw, bytes_max)
    event_id, model, version = (
        _text(fields, "event_id", ID_MAX),
        _text(fields, "model", MODEL_MAX, ""),
        _text(fields, "version", VERSION_MAX, ""),
    )
    if fields.get("label") is None:
        raise Bad("missing_field", "`label` is missing")
    cells = {"label": _outcome(fields["label"], "label", texts)}
    time_ms, ahead = event_time(fields.get("timestamp"), record_ms)
    cells |= _prediction_and_score(fields, texts)
    return Parsed(
        LABEL,
        model,
        version if fields.get("version") is not None else None,
        event_id,
        time_ms,
        ahead,
        tuple(cells),
        tuple(cells.values()),
        fields,
        _is_clipped(fields),
    )


PARSERS: dict[str, Callable[[bytes, int, Texts, int], Parsed]] = {
    "predictions": parse_prediction,
    "labels": parse_label,
}
