"""
Rows of JSON Lines files.

Rule of the file: a line that is not an object is passed on unchanged. `NaN` and `Infinity`, which
are not JSON but which data frames write, are read in the same way as in the decoder of events.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO

import msgspec

from stream_monitor.errors import UNREADABLE, InputError
from stream_monitor.inputs.columns import EXACT_MAX
from stream_monitor.inputs.dialect import encoding_of
from stream_monitor.inputs.facts import Facts
from stream_monitor.inputs.files import PASSES, InputFile
from stream_monitor.inputs.readers import Row

KEYS_MAX = 1_000
LOOKED_AT = 1_000
"""This many of the first lines of events are checked for keys that are not fields."""
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class _Time(msgspec.Struct):
    timestamp: Any = None


class JsonLinesReader:
    """
    One JSON object per line; blank lines are skipped.

    `lines` gives lines as bytes, `rows` gives decoded ones.
    """

    passes = PASSES

    def __init__(self, file: InputFile, *, is_table: bool) -> None:
        self.file = file
        self._is_table = is_table
        self._facts: dict[str, Facts] = {}
        self._encoding = "utf-8"
        self.infinite = False
        """Whether a value was infinite so far."""
        self.keys: Counter[str] = Counter()
        """How many of the decoded lines have each key."""

    def columns(self) -> None:
        """None, because each line has its own keys; a file that is one array is refused."""
        if (
            not self.file.live
            and next(self.lines(), b"{")[:1] == b"["
            and not self._is_line_of_arrays()
        ):
            raise InputError(
                f"{self.file.name}: one JSON array; give JSON Lines, one object a line: "
                "pandas writes them with to_json(orient='records', lines=True)"
            )

    def _is_line_of_arrays(self) -> bool:
        """
        Whether the first line is complete and not a list of objects. Then it is one bad line, and
        not the beginning of an array.
        """
        try:
            first = msgspec.json.decode(next(self.lines()))
        except UNREADABLE:
            return False
        return not (isinstance(first, list) and any(isinstance(item, dict) for item in first))

    def learn(self, time: str | None) -> Iterator[Any]:
        """Learn from all values of a table, and from the times of events."""
        self._facts, self.keys = {}, Counter()
        times = msgspec.json.Decoder(_Time).decode
        for number, line in enumerate(self.lines()):
            if number >= LOOKED_AT and time == "timestamp" and not self._is_table:
                try:
                    yield times(line).timestamp
                    continue
                except UNREADABLE:
                    pass
            row = self._row(line)
            if isinstance(row, bytes):
                yield None
                continue
            self.keys.update(row.keys())
            if self._is_table:
                self._look(row)
            yield row.get(time) if time in row else row.get("timestamp")

    def _look(self, row: dict[str, Any]) -> None:
        for key, value in row.items():
            facts = self._facts.get(key)
            if facts is None:
                if len(self._facts) >= KEYS_MAX:
                    continue
                facts = self._facts[key] = Facts()
            facts.add(value)

    def facts(self, column: str) -> Facts | None:
        """What was learnt about a key."""
        return self._facts.get(column)

    def lines(self) -> Iterator[bytes]:
        """Lines without their line ends, in UTF-8."""
        with self.file.open() as stream:
            # readline and not iteration: iterating a live pipe would wait for a full buffer
            for line in iter(self._transcoded(stream).readline, b""):
                stripped = line.strip()
                if stripped:
                    yield stripped

    def _transcoded(self, stream: BinaryIO) -> BinaryIO:
        """The stream in UTF-8, without a byte order mark."""
        peek = getattr(stream, "peek", None)
        head = peek(4)[:64] if peek is not None and not self.file.live else b""
        self._encoding = encoding_of(head)
        if self._encoding == "utf-8-sig":
            stream.read(3)
        if self._encoding.startswith("utf-8"):
            return stream
        return _Utf8(io.TextIOWrapper(stream, self._encoding, errors="replace", newline="\n"))  # type: ignore[return-value]

    def rows(self) -> Iterator[Row]:
        """Decode lines; a line that is not an object stays bytes."""
        return map(self._row, self.lines())

    def _row(self, line: bytes) -> Row:
        row = decoded(line)
        self.infinite = self.infinite or (
            row is not None
            and (b"Infinity" in line or b"e" in line or b"E" in line)
            and _has_infinity(row)
        )
        return line if row is None else row

    def beyond(self) -> list[str]:
        """Keys of a table with whole numbers beyond 2**53."""
        return [
            key
            for key, facts in self._facts.items()
            if max(facts.high, -facts.low) > EXACT_MAX and facts.numbers
        ]

    def notes(self) -> Iterator[str]:
        """A sentence about an unusual encoding."""
        if not self._encoding.startswith("utf-8"):
            yield f"read as {self._encoding.upper()}"


class _Utf8:
    """Lines of text as bytes."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text

    def readline(self) -> bytes:
        return self._text.readline().encode("utf-8", "replace")


def decoded(line: bytes) -> dict[str, Any] | None:
    """
    The object of a line, with `NaN` as None; None for anything else.

    Examples
    --------
    >>> decoded(b'{"a": NaN, "b": {"c": [NaN, -Infinity]}}'), decoded(b"[1]"), decoded(b'{"a": NaN')
    ({'a': None, 'b': {'c': [None, -inf]}}, None, None)
    """
    try:
        return _decode(line)
    except UNREADABLE:
        pass
    try:
        row = json.loads(line.decode())
        json.dumps(row, ensure_ascii=False).encode()  # lone surrogates are not text
    except UNREADABLE:
        return None
    return without_nan(row) if isinstance(row, dict) else None


def _has_infinity(value: Any) -> bool:
    if isinstance(value, (dict, list)):
        return any(map(_has_infinity, value.values() if isinstance(value, dict) else value))
    return isinstance(value, float) and abs(value) == float("inf")


def without_nan(value: Any) -> Any:
    """A value with None in place of NaN."""
    if isinstance(value, float):
        return None if value != value else value  # noqa: PLR0124
    if isinstance(value, dict):
        return {name: without_nan(inner) for name, inner in value.items()}
    return [without_nan(inner) for inner in value] if isinstance(value, list) else value
