"""
Rows of Parquet files.

Rule of the file: pyarrow is an extra and is imported only here, when a Parquet file is given;
pandas is not needed. Types are those of the file. A type that JSON does not have becomes the
nearest one, and that is reported: moments are cut to milliseconds, durations are seconds, decimals
are floats, bytes are text. The index of a data frame is not a feature.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from itertools import repeat
from typing import Any

from stream_monitor.errors import InputError
from stream_monitor.inputs.columns import EXACT_MAX
from stream_monitor.inputs.facts import Facts
from stream_monitor.inputs.files import InputFile
from stream_monitor.inputs.readers import Row

BATCH_ROWS = 8_192
_INFINITE = frozenset((float("inf"), float("-inf")))
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
KINDS = {
    "moment": "times: as features they are text, and only whether they are missing tells something",
    "duration": "durations, in seconds",
    "nested": (
        "lists or objects, which cannot be watched: every value counts as one of a wrong type "
        "(--ignore leaves them out)"
    ),
    "binary": "bytes, read as text",
    "unreadable": "cannot be read; every value counts as missing",
}


class ParquetReader:
    """A Parquet file. Nested columns are objects: `features` may be a struct."""

    passes = 1

    def __init__(
        self, file: InputFile, looked_at: frozenset[str], *, naive_as_text: bool = False
    ) -> None:
        self.file = file
        self.infinite = False
        """Whether a value was infinite so far."""
        self._naive_as_text = naive_as_text
        try:
            import pyarrow.parquet
        except ImportError:
            raise InputError(
                f"{file.name}: Parquet files need pyarrow: pip install "
                "'model-stream-monitor[parquet]'"
            ) from None
        self._errors: tuple[type[Exception], ...] = (pyarrow.ArrowException, OSError)
        try:
            self._parquet = pyarrow.parquet.ParquetFile(file.seekable())
            self._schema = self._parquet.schema_arrow
        except self._errors as error:
            raise InputError(f"{file.name}: not a Parquet file that can be read: {error}") from None
        self._columns = tuple(self._schema.names)
        self._looked_at = looked_at
        self._facts: dict[str, Facts] = {}
        self.time_column: str | None = None
        self.index = index_columns(self._schema.metadata)
        """Columns that are the index of a data frame."""
        self.unreadable: set[str] = set()

    def columns(self) -> tuple[str, ...]:
        """Names in the schema."""
        repeated = [name for name, n in Counter(self._columns).items() if n > 1]
        if repeated:
            raise InputError(
                f"{self.file.name}: two columns are called {repeated[0]!r}; rename one"
            )
        return self._columns

    def learn(self, time: str | None) -> Iterator[Any]:
        """
        Learn the times, and the values of columns that may not be fields; types are in the schema.
        """
        self.time_column = time
        wanted = [name for name in self._columns if name == time or name in self._looked_at]
        if not wanted:
            yield from repeat(None, self._parquet.metadata.num_rows)
            return
        self._facts = {name: Facts() for name in wanted if name != time}
        for _, columns in self._batches(wanted):
            for name, facts in self._facts.items():
                for value in columns[name]:
                    facts.add(value)
            yield from columns[time] if time is not None else repeat(None, len(columns[wanted[0]]))

    def facts(self, column: str) -> Facts | None:
        """What was learnt about a column."""
        return self._facts.get(column)

    def rows(self) -> Iterator[Row]:
        """The rows, batch by batch."""
        for rows, columns in self._batches(list(self._columns)):
            for values in zip(*columns.values(), strict=True):
                yield dict(zip(self._columns, values, strict=True))
            self.file.count(self.file.size_bytes * rows // self._parquet.metadata.num_rows)

    def _batches(self, names: list[str]) -> Iterator[tuple[int, dict[str, list[Any]]]]:
        try:
            for batch in self._parquet.iter_batches(batch_size=BATCH_ROWS, columns=names):
                yield (
                    batch.num_rows,
                    {
                        name: self._values(name, batch.column(batch.schema.get_field_index(name)))
                        for name in names
                    },
                )
        except self._errors as error:
            raise InputError(f"{self.file.name}: cannot be read to its end: {error}") from None

    def _values(self, name: str, column: Any) -> list[Any]:
        """Values of a column in the form of JSON."""
        import pyarrow as pa

        kind = column.type
        if pa.types.is_dictionary(kind):
            column, kind = column.dictionary_decode(), kind.value_type
        try:
            if pa.types.is_timestamp(kind):
                return moments(
                    column.cast(pa.int64()).to_pylist(),
                    PER_SECOND[kind.unit],
                    zoned=kind.tz is not None,
                    as_text=name != self.time_column or (self._naive_as_text and kind.tz is None),
                )
            if pa.types.is_duration(kind):
                return [
                    None if v is None else v / PER_SECOND[kind.unit]
                    for v in column.cast(pa.int64()).to_pylist()
                ]
            if pa.types.is_time64(kind) and kind.unit == "ns":
                column = column.cast(pa.time64("us"), safe=False)
            if pa.types.is_float16(kind):
                column = column.cast(pa.float32())
            values = column.to_pylist()
        except Exception:  # any error of pyarrow while it converts to a type of Python
            self.unreadable.add(name)
            return [None] * len(column)
        plainly = (
            pa.types.is_integer(kind)
            or pa.types.is_boolean(kind)
            or pa.types.is_string(kind)
            or pa.types.is_large_string(kind)
        )
        if plainly:
            return list(values)
        values = list(map(plain, values))
        self.infinite = self.infinite or (
            pa.types.is_floating(kind) and any(v in _INFINITE for v in values if v is not None)
        )
        return values

    @property
    def has_typed_times(self) -> bool:
        """Whether the times have a type of their own, so that no unit had to be guessed."""
        import pyarrow as pa

        return self.time_column is not None and pa.types.is_timestamp(
            self._schema.field(self.time_column).type
        )

    def beyond(self) -> list[str]:
        """Columns with whole numbers beyond 2**53, by the statistics of the file."""
        import pyarrow as pa

        wide = {
            name for name in self._columns if pa.types.is_integer(self._schema.field(name).type)
        }
        meta = self._parquet.metadata
        chunks = [
            meta.row_group(group).column(i)
            for group in range(meta.num_row_groups)
            for i in range(meta.num_columns)
        ]
        bounded = [
            chunk
            for chunk in chunks
            if chunk.path_in_schema in wide
            and chunk.statistics is not None
            and chunk.statistics.has_min_max
        ]
        return list(
            dict.fromkeys(
                c.path_in_schema
                for c in bounded
                if max(c.statistics.max, -c.statistics.min) > EXACT_MAX
            )
        )

    def notes(self) -> Iterator[str]:
        """Columns whose values were converted."""
        found: dict[str, list[str]] = {}
        for field in self._schema:
            kind = "unreadable" if field.name in self.unreadable else _kind(field.type)
            if kind is not None and field.name not in self.index and field.name != self.time_column:
                found.setdefault(kind, []).append(field.name)
        for kind, names in found.items():
            yield f"{', '.join(names)}: {KINDS[kind]}"
        if (
            self.has_typed_times
            and not self._naive_as_text
            and self._schema.field(self.time_column).type.tz is None
        ):
            yield f"{self.time_column}: times without a zone are read as UTC"


def _kind(kind: Any) -> str | None:
    """A key of `KINDS`, or None for a type that JSON has."""
    import pyarrow as pa

    if pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_time(kind):
        return "moment"
    if pa.types.is_duration(kind):
        return "duration"
    if pa.types.is_nested(kind):
        return "nested"
    return (
        "binary"
        if pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        else None
    )


def index_columns(metadata: dict[bytes, bytes] | None) -> frozenset[str]:
    """
    Columns that a data frame wrote for its index.

    Examples
    --------
    >>> sorted(
    ...     index_columns(
    ...         {b"pandas": b'{"index_columns": ["id", {"kind": "range"}, "__index_level_1__"]}'}
    ...     )
    ... )
    ['__index_level_1__', 'id']
    """
    try:
        told = json.loads((metadata or {}).get(b"pandas", b"{}"))
        return frozenset(name for name in told.get("index_columns", ()) if isinstance(name, str))
    except (ValueError, AttributeError, TypeError):
        return frozenset()


def moments(values: list[int | None], per_second: int, *, zoned: bool, as_text: bool) -> list[Any]:
    """
    Moments since 1970, in units of which `per_second` make a second, as milliseconds or text.

    Examples
    --------
    >>> (
    ...     moments([1_500_000_001, None], 10**9, zoned=True, as_text=False),
    ...     moments([1_500_000_001], 10**9, zoned=True, as_text=True),
    ... )
    ([1500, None], ['1970-01-01T00:00:01.500Z'])
    """
    cut = [None if v is None else v * 1_000 // per_second for v in values]
    return [None if v is None else _text(v, zoned=zoned) for v in cut] if as_text else list(cut)


def _text(time_ms: int, *, zoned: bool) -> str:
    try:
        moment = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=time_ms)
    except OverflowError:
        return str(time_ms)
    return moment.replace(tzinfo=None).isoformat(
        timespec="milliseconds" if time_ms % 1_000 else "seconds"
    ) + ("Z" if zoned else "")


def plain(value: Any) -> Any:
    """
    Convert one value into the form of JSON.

    Examples
    --------
    >>> (
    ...     plain(float("nan")),
    ...     plain(float("inf")),
    ...     plain(date(2000, 1, 1)),
    ...     plain(Decimal("1.5")),
    ...     plain(timedelta(seconds=90)),
    ...     plain(b"a"),
    ... )
    (None, inf, '2000-01-01', 1.5, 90.0, 'a')
    """
    if isinstance(value, float):
        return None if value != value else float(value)  # noqa: PLR0124
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        return plain(float(value))
    if isinstance(value, dict):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
