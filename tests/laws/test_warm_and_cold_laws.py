"""
Law: what a record means does not depend on the records before it.

The decoder is warmed with one model, two or many, and then reads records in which any field is
dropped, of another type, repeated, escaped or written in another order. `parse` reads each alone.
The texts are written here, by hand, since `json.dumps` never writes a key twice. What `parse` does
with keys that are there twice is held against `json.loads`.
"""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest

from stream_monitor.events.cells import ABSENT_CELL, Texts
from stream_monitor.events.decode import Decoder, Groups
from stream_monitor.events.parse import PARSERS, Bad, load

RECORD_MS = 1_760_000_000_000
BYTES_MAX = 1 << 20
ABSENT_BITS = int(np.array([ABSENT_CELL]).view(np.uint64)[0])
LITERALS = [
    *(
        "null",
        "0",
        "1",
        "-1",
        "-0",
        "-0.0",
        "1.5",
        "1.0",
        "1e400",
        "-1e400",
        "1e-400",
        "1E3",
        "0.1e1",
        "NaN",
        "Infinity",
        "-Infinity",
        "01",
        "+1",
        "1_000",
        ".5",
        "5.",
    ),
    *(
        "9007199254740991",
        "9007199254740992",
        "9007199254740993",
        "-9223372036854775809",
        "18446744073709551616",
        "9" * 400,
        "1.0000001",
        "1.2",
        "1760000000000",
        "946684799999",
    ),
    *(
        '""',
        '"x"',
        '"m"',
        '"m1"',
        '"1"',
        '"ok"',
        '"error"',
        '"OK"',
        '"\\u006d"',
        '"\\u0061"',
        '"\\ud800"',
        '"\\udc00\\ud800"',
        '"\\ud83d\\ude00"',
        '"\\u0000"',
        '"\\n"',
        '"\\x"',
    ),
    *(
        '"NaN"',
        '"1e400"',
        '"2025-10-09T08:53:20.123Z"',
        '"2025-10-09T08:53:20.123"',
        '"2025-10-09t08:53:20z"',
        '"1969-01-01T00:00:00Z"',
        '"9999-12-31T23:59:59Z"',
    ),
    *(
        "true",
        "false",
        "True",
        "[]",
        "{}",
        "[1]",
        "[null]",
        '{"a": 1}',
        '{"a": {"b": 1}}',
        "[[[[1]]]]",
        '{"cat": 0.5, "dog": 0.5}',
        '{"cat": 2}',
        '{"a": 1, "a": "x"}',
        '{"": 0}',
    ),
    *('"' + "y" * n + '"' for n in (128, 129, 256, 257, 300)),
    "[" * 101 + "]" * 101,
    '"\x7f"',
    '"\xe9"',
]
NAMES = [
    "zzz",
    "features.a",
    "score.x",
    "segments.s",
    "event_id",
    "modell",
    "c0",
    "x0",
    "",
    "__error__",
    "a/b",
    "\\u0000",
    "\\ud800",
    "n" * 257,
    "ö",
]
Pairs = list[tuple[str, Any]]
"""An object as it is written: keys in order, values as text or as an object of their own."""


def prediction(i: int, model: str, *, sparse: bool = False) -> Pairs:
    head: Pairs = [
        ("event_id", f'"g{i}"'),
        ("model", json.dumps(model)),
        ("timestamp", str(RECORD_MS - i % 7)),
        ("prediction", str(i % 2)),
    ]
    if sparse:
        return head
    features: Pairs = [
        ("a", str(i % 7)),
        ("b", '"x"'),
        ("c", "true"),
        ("d", "1.5"),
        ("e", "null" if i % 2 else "2.5"),
    ]
    return [
        *(
            *head,
            ("version", '"1"'),
            ("score", "0.5"),
            ("latency_ms", "3.5"),
            ("features", features),
            ("segments", [("s", '"u"')]),
        ),
        *(
            ("status", '"ok"'),
            ("variant", '"A"'),
            ("unit", '"u1"'),
            ("embedding", "[0.5, 1]"),
            ("note", '"of others"'),
        ),
    ]


def of_classes(i: int, model: str) -> Pairs:
    return [
        ("event_id", f'"g{i}"'),
        ("model", json.dumps(model)),
        ("score", [("cat", "0.25"), ("dog", "0.75")]),
        ("features", [("a", "1.5"), ("d", "-2")]),
    ]


def label(i: int, model: str) -> Pairs:
    return [
        ("event_id", f'"g{i}"'),
        ("model", json.dumps(model)),
        ("version", '"1"'),
        ("label", str(i % 2)),
        ("timestamp", str(RECORD_MS - i % 7)),
        ("score", "0.5"),
    ]


def bare_label(i: int, _: str) -> Pairs:
    return [("event_id", f'"g{i}"'), ("label", f'"{"yes" if i % 2 else "no"}"')]


def sparse(i: int, model: str) -> Pairs:
    return prediction(i, model, sparse=True)


def text(pairs: Pairs, escaped: str = "") -> str:
    """The object as JSON; one key may be written with an escape."""

    def key(name: str) -> str:
        return f"\\u{ord(name[0]):04x}{name[1:]}" if escaped and name == escaped else name

    return (
        "{"
        + ", ".join(
            f'"{key(name)}": {text(value, escaped) if isinstance(value, list) else value}'
            for name, value in pairs
        )
        + "}"
    )


def changed(pairs: Pairs, random_: random.Random, depth: int = 0) -> Pairs:
    """The object with one thing done to it, here or in an object within."""
    out = list(pairs)
    at = random_.randrange(len(out)) if out else 0
    inner = [i for i, (_, value) in enumerate(out) if isinstance(value, list)]
    if inner and not depth and random_.random() < 0.4:
        at = random_.choice(inner)
        out[at] = (out[at][0], changed(out[at][1], random_, 1))
        return out
    what = random_.choice(("drop", "value", "repeat", "more", "shuffle", "repeat other", "rename"))
    if what == "shuffle" or not out:
        random_.shuffle(out)
    elif what == "drop":
        del out[at]
    elif what == "value":
        out[at] = (out[at][0], random_.choice(LITERALS))
    elif what == "repeat":
        out.insert(random_.randrange(len(out) + 1), out[at])
    elif what == "repeat other":
        out.insert(random_.randrange(len(out) + 1), (out[at][0], random_.choice(LITERALS)))
    elif what == "more":
        out.insert(
            random_.randrange(len(out) + 1), (random_.choice(NAMES), random_.choice(LITERALS))
        )
    else:
        out[at] = (random_.choice(NAMES), out[at][1])
    return out


def written(pairs: Pairs, random_: random.Random) -> bytes:
    """As a record, now and then with an escaped key, blanks, or something around it."""
    names = [
        name
        for name, value in pairs
        for name in ([name] if not isinstance(value, list) else [name, *(k for k, _ in value)])
        if name and name[0] != "\\"
    ]
    found = text(pairs, random_.choice(names) if names and random_.random() < 0.2 else "")
    odd = random_.random()
    if odd < 0.03:
        found = random_.choice(
            [
                f" \t{found}\r\n",
                f"{found} x",
                f"\ufeff{found}",
                f"[{found}]",
                f"{found}{found}",
                found[:-1],
                f"\0{found}",
                found.replace(" ", "\n"),
            ]
        )
    return found.encode("utf-8", "surrogatepass" if odd < 0.99 else "replace")


def meaning(decoder: Decoder, value: bytes, record_ms: int = RECORD_MS) -> tuple[Any, ...]:
    """
    What a decoder says of one record, in a form that two decoders can be compared by: cells by
    their bits.
    """
    found = decoder.decode([value], np.array([record_ms]))
    if found.rejects:
        assert not any(len(c.groups) for c in found.columns)
        return "refused", found.rejects[0].reason, found.rejects[0].message
    (columns,) = (c for c in found.columns if len(c.groups))
    group = list(decoder.groups)[int(columns.groups[0])]
    cells = {
        name: int(bits)
        for name, bits in zip(columns.columns, columns.cells[0].view(np.uint64), strict=True)
    }
    present = tuple(sorted((name, bits) for name, bits in cells.items() if bits != ABSENT_BITS))
    return "row", group[:3], int(columns.ids[0]), int(columns.times_ms[0]), found.ahead, present


def alone(topic: str, value: bytes, texts: Texts, record_ms: int) -> tuple[Any, ...]:
    """The same of `parse`."""
    from xxhash import xxh3_64_intdigest

    try:
        p = PARSERS[topic](value, record_ms, texts, BYTES_MAX)
    except Bad as bad:
        return "refused", bad.reason, str(bad)
    cells = sorted(
        zip(p.columns, np.array(p.cells, np.float64).view(np.uint64).tolist(), strict=True)
    )
    return (
        "row",
        (p.kind, p.model, p.version),
        xxh3_64_intdigest(p.event_id.encode()),
        p.time_ms,
        int(p.ahead),
        tuple(cells),
    )


HISTORIES: dict[str, tuple[str, tuple[Any, ...], list[str]]] = {
    "one model": ("predictions", (prediction,), ["m"]),
    "one model of few fields": ("predictions", (sparse,), ["m"]),
    "one model of classes": ("predictions", (of_classes,), ["m"]),
    "one model in two forms": ("predictions", (prediction, sparse), ["m"]),
    "two models": ("predictions", (prediction,), ["m", "m1"]),
    "two models of two forms": ("predictions", (prediction, of_classes), ["m", "ö\u2028"]),
    "many models": ("predictions", (prediction, sparse, of_classes), [f"m{i}" for i in range(40)]),
    "labels": ("labels", (label,), ["m"]),
    "labels of two": ("labels", (label, bare_label), ["m", "m1"]),
    "labels of nobody": ("labels", (bare_label,), [""]),
    "labels of many": ("labels", (label,), [f"m{i}" for i in range(40)]),
}


@pytest.mark.parametrize("history", HISTORIES)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_decoder_of_any_history_reads_as_parse_alone(history: str, seed: int) -> None:
    topic, makes, models = HISTORIES[history]
    random_, warm = random.Random(seed), Decoder(topic, Groups(), Texts(), BYTES_MAX)
    seen: list[bytes | None] = [
        text(makes[i // len(models) % len(makes)](i, models[i % len(models)])).encode()
        for i in range(600)
    ]
    for _ in range(4):
        warm.decode(seen, np.full(len(seen), RECORD_MS))
    # else it is not warm, and this law says nothing
    assert not history.startswith("one model") or fast_share(warm, seen) == 1
    for i in range(1_500):
        pairs = random_.choice(makes)(i, random_.choice(models))
        for _ in range(random_.choice((0, 1, 1, 1, 2, 3))):
            pairs = changed(pairs, random_)
        value = written(pairs, random_)
        record_ms = random_.choice((RECORD_MS, RECORD_MS, RECORD_MS, RECORD_MS - 600_000, -1, 0))
        right = alone(topic, value, warm.texts, record_ms)
        for _ in range(2):  # the second time its own shape may be known
            assert meaning(warm, value, record_ms) == right, (value, record_ms)


def fast_share(warm: Decoder, values: list[bytes | None]) -> float:
    """Share of the records that the structs read."""
    parsed: list[int] = []
    patient = warm._parse

    def counted(*of: Any) -> Any:
        parsed.append(1)
        return patient(*of)

    warm._parse = counted
    warm.decode(list(values), np.full(len(values), RECORD_MS))
    warm._parse = patient
    return 1 - len(parsed) / len(values)


@pytest.mark.parametrize("models", [["m"], ["m", "n"], ["m", "n", "o", "p"]], ids=len)
@pytest.mark.parametrize("topic", ["predictions", "labels"])
def test_a_record_without_a_model_is_nobodys(topic: str, models: list[str]) -> None:
    make = {"predictions": prediction, "labels": label}[topic]
    warm = Decoder(topic, Groups(), Texts(), BYTES_MAX)
    for _ in range(3):
        warm.decode(
            [text(make(i, models[i % len(models)])).encode() for i in range(2_000)],
            np.full(2_000, RECORD_MS),
        )
    found = meaning(warm, text([pair for pair in make(0, "m") if pair[0] != "model"]).encode())
    assert found[:2] == (
        ("refused", "missing_field") if topic == "predictions" else ("row", (1, "", "1"))
    )


@pytest.mark.parametrize("seed", range(3))
def test_of_keys_that_are_there_twice_the_last_wins(seed: int) -> None:
    random_, plain = random.Random(seed), [literal for literal in LITERALS if readable(literal)]
    for i in range(300):
        pairs = prediction(i, "m")
        for _ in range(3):
            pairs.insert(
                random_.randrange(len(pairs) + 1), (random_.choice(pairs)[0], random_.choice(plain))
            )
        assert load(text(pairs).encode(), BYTES_MAX) == json.loads(text(pairs))


def readable(literal: str) -> bool:
    """Whether every reader of JSON takes it, and as the same."""
    if (
        "NaN" in literal
        or "Infinity" in literal
        or "e400" in literal
        or "ud800" in literal
        or len(literal) > 100
    ):
        return False
    try:
        json.loads(literal)
    except ValueError:
        return False
    return True
