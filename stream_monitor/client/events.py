"""
Prediction and label events, checked before they are sent.

Rule of the file: msgspec and the standard library only, no I/O, no state. It returns the bytes to
send. What stream-monitor would reject raises a `ValueError` that names the field. A strange
*feature* is no error, because data quality counts it: NaN becomes null (missing), an infinity
becomes text (a wrong type).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec

__all__ = ["LABELS", "PREDICTIONS", "label", "prediction"]

PREDICTIONS = "predictions"
LABELS = "labels"
EVENT_ID_CHARS_MAX = 256
NAME_CHARS_MAX = 128
ROUNDING = 1e-6
"""A score may be so far outside [0, 1], as rounding puts it; it is clipped."""
WHOLE_MAX = 2**53
"""A prediction or label beyond is rejected, because a float would hold another number."""
TIME_MIN_MS = 946_684_800_000
"""2000-01-01: an earlier time is a mistake of units, and rejected."""

Value = float | int | str | bool
Timestamp = int | str | datetime
Score = float | Mapping[str, float]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_PLAIN = frozenset((int, float, str, bool))
_AS_IT_IS = frozenset((int, str, bool, type(None)))
_LOWEST = -math.inf


def prediction(
    event_id: str,
    model: str,
    *,
    prediction: Value | None = None,
    score: Score | None = None,
    version: str = "",
    features: Mapping[str, Value | None] | None = None,
    timestamp: Timestamp | None = None,
    status: Literal["ok", "error"] = "ok",
    latency_ms: float | None = None,
    segments: Mapping[str, str] | None = None,
    variant: str | None = None,
    unit: str | None = None,
    embedding: Iterable[float] | None = None,
) -> bytes:
    """
    Make a prediction event.

    Parameters
    ----------
    event_id : str, 1 to 256 characters
        Identifies the prediction; its label carries the same. Sent twice it counts once.
    model : str, 1 to 128 characters
        Name of the model.
    prediction : number, str or bool, optional
        What the model said. May be left out when `score` is given: then it is `score >= 0.5`, or
        the class of the greatest probability.
    score : number in [0, 1] or mapping of class to probability, optional
        How sure it was.
    version : str, up to 128 characters
        Version of the model.
    features : mapping of name to number, str, bool or None, optional
        Input of the model. Scalars of numpy are taken as what they hold.
    timestamp : int (epoch ms), aware datetime, or RFC 3339 str with offset, optional
        When it happened; left out, the time at which the record is sent.
    status : {"ok", "error"}
        `error`: the call failed; then neither `prediction` nor `score` is needed.
    latency_ms : number >= 0, optional
        Duration of the call.
    segments : mapping of name to str, optional
        Segments to monitor separately, if they are configured.
    variant, unit : str, optional
        Arm of an experiment, and what was randomised (default: the event).
    embedding : numbers, optional
        Representation of the input.

    Returns
    -------
    bytes
        JSON, the value of a record on `predictions`.

    Raises
    ------
    ValueError
        A field is missing, of a wrong type or out of range.

    Examples
    --------
    >>> prediction(
    ...     "order-17", "fraud", score=0.93, features={"amount": 12.5, "country": "IT", "age": None}
    ... )
    b'{"event_id":"order-17","model":"fraud","score":0.93,"features":{"amount":12.5,"country":"IT","age":null}}'
    >>> prediction("order-18", "fraud")
    Traceback (most recent call last):
    ...
    ValueError: prediction or score is needed, unless status is "error"
    """
    event: dict[str, Any] = {
        "event_id": _text("event_id", event_id, 1, EVENT_ID_CHARS_MAX),
        "model": _text("model", model, 1, NAME_CHARS_MAX),
    }
    if version:
        event["version"] = _text("version", version, 0, NAME_CHARS_MAX)
    if timestamp is not None:
        event["timestamp"] = _time(timestamp)
    if status not in {"ok", "error"}:
        raise ValueError(f'status must be "ok" or "error", not {status!r}')
    if status == "error":
        event["status"] = status
    elif prediction is None and score is None:
        raise ValueError('prediction or score is needed, unless status is "error"')
    if prediction is not None:
        event["prediction"] = _value("prediction", prediction)
    if score is not None:
        event["score"] = _score(score)
    if features is not None:
        event["features"] = {
            # Most are plain, and the check of them is most of the cost of an event.
            name if type(name) is str else _text("a feature's name", name, 0, math.inf): value
            if type(value) in _AS_IT_IS or (type(value) is float and _LOWEST < value < math.inf)
            else _feature(name, value)
            for name, value in features.items()
        }
    if latency_ms is not None:
        event["latency_ms"] = _number("latency_ms", latency_ms, 0.0, math.inf)
    if segments is not None:
        event["segments"] = {
            _text("a segment's name", name, 0, math.inf): _text(
                f"segment {name!r}", value, 0, math.inf
            )
            for name, value in segments.items()
        }
    for field, value in (("variant", variant), ("unit", unit)):
        if value is not None:
            event[field] = _text(field, value, 0, math.inf)
    if embedding is not None:
        event["embedding"] = [
            _number("embedding", value, -math.inf, math.inf) for value in embedding
        ]
    return msgspec.json.encode(event)


def label(
    event_id: str,
    label: Value,
    *,
    model: str | None = None,
    version: str | None = None,
    timestamp: Timestamp | None = None,
    prediction: Value | None = None,
    score: Score | None = None,
) -> bytes:
    """
    Make a label event: what turned out to be true of a prediction.

    Parameters
    ----------
    event_id : str, 1 to 256 characters
        That of the prediction.
    label : number, str or bool
        The truth. A later label for the same event corrects it.
    model, version : str, optional
        Narrow it; without a model it applies to every prediction of that id.
    timestamp : int (epoch ms), aware datetime, or RFC 3339 str with offset, optional
        When it became known; of several labels the latest wins. Left out, the time at which the
        record is sent.
    prediction, score : optional
        For labels that come so late that the prediction is no longer kept: then it is not needed.

    Returns
    -------
    bytes
        JSON, the value of a record on `labels`.

    Raises
    ------
    ValueError
        A field is missing, of a wrong type or out of range.

    Examples
    --------
    >>> label("order-17", True, model="fraud")
    b'{"event_id":"order-17","label":true,"model":"fraud"}'
    """
    event: dict[str, Any] = {
        "event_id": _text("event_id", event_id, 1, EVENT_ID_CHARS_MAX),
        "label": _value("label", label),
    }
    if model is not None:
        event["model"] = _text("model", model, 1, NAME_CHARS_MAX)
    if version is not None:
        event["version"] = _text("version", version, 0, NAME_CHARS_MAX)
    if timestamp is not None:
        event["timestamp"] = _time(timestamp)
    if prediction is not None:
        event["prediction"] = _value("prediction", prediction)
    if score is not None:
        event["score"] = _score(score)
    return msgspec.json.encode(event)


def _text(field: str, value: Any, chars_min: int, chars_max: float) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{field} must be text, not {value!r} ({type(value).__name__})")  # noqa: TRY004, one kind of error for all faults of an event
    if not chars_min <= len(value) <= chars_max:
        limits = f"{chars_min} to {chars_max:.0f}" if chars_min else f"at most {chars_max:.0f}"
        raise ValueError(f"{field} must have {limits} characters, not {len(value)}")
    return value


def _scalar(value: Any) -> Any:
    """A plain value; scalars of numpy (anything with `item()`) become what they hold."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, (int, float, str)):
        return next(kind(value) for kind in (int, float, str) if isinstance(value, kind))
    item = getattr(value, "item", None)
    held = item() if callable(item) and getattr(value, "ndim", 0) == 0 else None
    return held if type(held) in _PLAIN else None


def _value(field: str, value: Any) -> Any:
    plain = _scalar(value)
    if plain is None or (type(plain) is float and not math.isfinite(plain)):
        raise ValueError(f"{field} must be a finite number, text or a bool, not {value!r}")
    if type(plain) is int and not -WHOLE_MAX <= plain <= WHOLE_MAX:
        raise ValueError(
            f"{field} must be within 2**53, which a float holds exactly, not {value!r}; "
            "send it as text"
        )
    return plain


def _number(field: str, value: Any, least: float, greatest: float) -> float:
    plain = _scalar(value)
    if type(plain) not in {int, float} or not math.isfinite(plain):
        raise ValueError(f"{field} must be a finite number, not {value!r}")
    if not least <= plain <= greatest:
        raise ValueError(
            f"{field} must be at least {least:g}"
            + (f" and at most {greatest:g}" if greatest < math.inf else "")
            + f", not {value!r}"
        )
    return plain  # type: ignore[no-any-return]


def _score(score: Any) -> Any:
    if isinstance(score, Mapping):
        if not score:
            raise ValueError("score must name at least one class")
        return {
            _text("a class", name, 0, math.inf): _probability(f"score of {name!r}", value)
            for name, value in score.items()
        }
    return _probability("score", score)


def _probability(field: str, value: Any) -> float:
    """A number in [0, 1]; rounding up to `ROUNDING` outside is clipped."""
    plain = _scalar(value)
    within = type(plain) in {int, float} and -ROUNDING <= plain <= 1.0 + ROUNDING
    return _number(field, min(max(plain, 0.0), 1.0) if within else plain, 0.0, 1.0)


def _feature(name: str, value: Any) -> Any:
    if value is None:
        return None
    plain = _scalar(value)
    if plain is None:
        raise ValueError(
            f"feature {name!r} must be a number, text, a bool or None, not {value!r} "
            f"({type(value).__name__})"
        )
    return repr(plain) if plain in (math.inf, -math.inf) else plain


def _time(timestamp: Any) -> int:
    """Epoch milliseconds."""
    moment = timestamp
    if isinstance(timestamp, str):
        try:
            moment = datetime.fromisoformat(timestamp)
        except ValueError:
            raise ValueError(
                "timestamp must be RFC 3339 with an offset, such as 2024-05-01T12:00:00Z, "
                f"not {timestamp!r}"
            ) from None
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            raise ValueError(f"timestamp needs an offset (a zone), {timestamp!r} has none")
        moment = (moment - _EPOCH) // _MILLISECOND
    elif type(moment) is not int:
        raise ValueError(
            "timestamp must be epoch milliseconds, a datetime with a zone, or RFC 3339 text, "
            f"not {timestamp!r}"
        )
    if moment < TIME_MIN_MS:
        raise ValueError(f"timestamp must be after 2000-01-01, in milliseconds, not {timestamp!r}")
    return moment
