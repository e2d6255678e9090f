"""
Records that nobody should send, each with what becomes of it: for `soak.py`, and for the tests of
poison and of fuzzing.

Rule of the file: data and pure functions of a seed; it sends nothing.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

DAY_MS = 86_400_000
EARLIEST_MS = 946_684_800_000
"""The first millisecond of 2000, before which a time is taken for a mistake."""
FRAGMENTS = (
    *(
        (
            b"null true false 0 -1 1e999 -0.0 1E5 NaN Infinity -Infinity 9007199254740993 "
            b"123456789012345678901234567890 [] {} [[[[]]]]"
        ).split()
    ),
    *(
        (
            b'"" "\\ud800" "\\u0000" "1" "2025-10-09T08:15:00Z" "9999-12-31T23:59:59Z" 5 '
            b"1760000000000 4611686018427387905"
        ).split()
    ),
    *(b'{"a":1,"a":2} \xff \xef\xbb\xbf \x00 , : " \\ } ] { ['.split()),
    b'"' + b"x" * 300 + b'"',
    b"[" * 150,
    b'{"a":' * 150,
)


def event(event_id: str, model: str = "m", **fields: Any) -> bytes:
    """A prediction that is well-formed, unless a field says otherwise."""
    return json.dumps({"event_id": event_id, "model": model, "prediction": 1, **fields}).encode()


class Case(NamedTuple):
    record: Any
    reason: str | None
    """Of its dead letter; None: it counts."""


NOW_MS = time.time_ns() // 1_000_000
GOOD_FEATURES = {"a": 1.5, "country": "pl"}
CASES = {
    "empty": Case(b"", "invalid_json"),
    "cut": Case(event("x")[:-3], "invalid_json"),
    "not UTF-8": Case(event("x").replace(b'"x"', b'"\xff\xfe"'), "invalid_json"),
    "NaN": Case(event("x", score=float("nan")), "out_of_range"),
    "infinity": Case(event("x", score=float("inf")), "out_of_range"),
    "1e999 as score": Case(event("x", score=0.5).replace(b"0.5", b"1e999"), "out_of_range"),
    "1e999 as feature": Case(event("big", features=GOOD_FEATURES).replace(b"1.5", b"1e999"), None),
    "lone surrogate": Case(event("x").replace(b'"x"', b'"\\ud800"'), "invalid_json"),
    "array": Case(b"[1, 2]", "not_an_object"),
    "nested": Case(b'{"a":' * 3_000 + b"1" + b"}" * 3_000, "too_deep"),
    "nested feature": Case(
        event("x", features={"a": 0}).replace(b'"a": 0', b'"a": ' + b"[" * 200 + b"]" * 200),
        "too_deep",
    ),
    "schema registry": Case(b"\x00\x00\x00\x00\x01abc", "unknown_format"),
    "no id": Case(b'{"model": "m", "prediction": 1}', "missing_field"),
    "empty model": Case(event("x", ""), "out_of_range"),
    "long model": Case(event("x", "m" * 129), "out_of_range"),
    "list as prediction": Case(event("x", prediction=[1]), "wrong_type"),
    "400 digits as score": Case(event("x", score=0.5).replace(b"0.5", b"9" * 400), "out_of_range"),
    "400 digits as feature": Case(
        event("digits", features=GOOD_FEATURES).replace(b"1.5", b"9" * 400), None
    ),
    "5000 digits as prediction": Case(
        event("x").replace(b": 1}", b": " + b"9" * 5_000 + b"}"), "out_of_range"
    ),
    "duplicate keys": Case(
        b'{"event_id": "first", "event_id": "last", "model": "x", "model": "m", "prediction": 1}',
        None,
    ),
    "negative time": Case(event("x", timestamp=-1), "out_of_range"),
    "time zero": Case(event("x", timestamp=0), "out_of_range"),
    "time in seconds": Case(event("x", timestamp=NOW_MS // 1_000), "out_of_range"),
    "a day ahead": Case(event("day-ahead", timestamp=NOW_MS + DAY_MS), None),
    "a century ahead": Case(event("century-ahead", timestamp=NOW_MS + 36_525 * DAY_MS), None),
    "a day late": Case(event("day-late", timestamp=NOW_MS - DAY_MS), None),
    "a record of 1970": Case({"value": event("x"), "timestamp": 1}, "out_of_range"),
    "a record of yesterday": Case(
        {"value": event("yesterday"), "timestamp": NOW_MS - DAY_MS}, None
    ),
    "more than max_record_bytes": Case(event("x", features={"a": "y" * 961_000}), "too_large"),
    "a million bytes of garbage": Case(b"{" + b" " * 940_000, "invalid_json"),
    "10 KB name": Case(event("long-name", features={"n" * 10_000: 1.0}), None),
    "right to left and NUL": Case(
        event("\u202e\u0000\U0001f600", features={"\u202e\u0000": "\U0001f600"}), None
    ),
    "null key": Case({"value": event("null-key"), "key": None}, None),
    "binary key": Case({"value": event("binary-key"), "key": b"\xff\x00"}, None),
    "odd headers": Case(
        {
            "value": event("headers"),
            "headers": [
                ("a", None),
                ("a", b"\xff"),
                ("", b""),
                *[(f"h{i}", b"x") for i in range(1_000)],
            ],
        },
        None,
    ),
}
LABELS = {
    "not JSON": Case(b"{", "invalid_json"),
    "NaN label": Case(b'{"event_id": "y", "label": NaN}', "out_of_range"),
    "not UTF-8 label": Case(b'{"event_id": "\xff", "label": 1}', "invalid_json"),
    "a prediction": Case(event("x"), "missing_field"),
    "null label": Case(b'{"event_id": "y", "label": null}', "missing_field"),
    "list as label": Case(b'{"event_id": "y", "label": [1]}', "wrong_type"),
    "nested label": Case(
        b'{"event_id": "y", "label": ' + b"[" * 200 + b"]" * 200 + b"}", "too_deep"
    ),
    "array of labels": Case(b'[{"event_id": "y", "label": 1}]', "not_an_object"),
    "label of nothing": Case({"value": b'{"event_id": "nobody", "label": 1}', "key": None}, None),
    "label of a model that is not there": Case(
        b'{"event_id": "nobody", "model": "nobody", "label": 1}', None
    ),
}
"""Odd labels."""


def flood(n: int, start: int) -> Iterator[bytes]:
    """Every name is new."""
    for i in range(start, start + n):
        yield event(
            f"f{i}",
            f"model-{i}" if i % 4 == 0 else "m",
            version=f"v{i}" if i % 4 == 1 else "",
            features={f"f{i}": 1.0, "c": f"c{i}"},
            segments={"country": f"s{i}"},
        )


def mutilated(raw: bytes, rnd: random.Random) -> bytes:
    """A record after one to three accidents; it may be well-formed still."""
    for _ in range(rnd.randint(1, 3)):
        at, end = sorted(rnd.randrange(len(raw) + 1) for _ in range(2))
        fragment = rnd.choice(FRAGMENTS)
        raw = rnd.choice(
            [
                raw[:at],
                raw[:at] + raw[end:],
                raw[:end] + raw[at:],
                raw[:at] + fragment + raw[at:],
                raw[:at] + fragment + raw[end:],
            ]
        )
    return raw
