"""
Rows of Parquet files.

Rule of the file: pyarrow is an extra and is imported here only, when a Parquet file is given. Types are those of the file; moments become epoch milliseconds (without a zone
they are taken as UTC), NaN becomes null, infinities become text, as in a CSV file.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from itertools import repeat
from typing import Any

from stream_monitor.errors import InputError
from stream_monitor.inputs.files import InputFile
from stream_monitor.inputs.readers import Row
from stream_monitor.inputs.times import EPOCH, MILLISECOND

BATCH_ROWS = 8_192


class ParquetReader:
    """A Parquet file. Nested columns are objects: `features` may be a struct."""

    passes = 1

    def __init__(self, file: InputFile) -> None:
        self.file = file
        try:
            import pyarrow.parquet
        except ImportError:
            raise InputError(f"{file.name}: Parquet files need pyarrow: pip install 'stream-monitor[parquet]'") from None
        try:
            self._parquet = pyarrow.parquet.ParquetFile(file.seekable())
        except (pyarrow.ArrowException, OSError) as error:
            raise InputError(f"{file.name}: not a Parquet file that can be read: {error}") from None
        self._errors: tuple[type[Exception], ...] = (pyarrow.ArrowException, OSError)
        self._columns = tuple(self._parquet.schema_arrow.names)

    def columns(self) -> tuple[str, ...]:
        """Names in the schema."""
        return self._columns

    def scan(self, text: frozenset[str], time: str | None) -> Iterator[Any]:  # noqa: ARG002
        """Types are in the schema; only the column of the times is read."""
        if time is None:
            yield from repeat(None, self._parquet.metadata.num_rows)
            return
        try:
            for batch in self._parquet.iter_batches(batch_size=BATCH_ROWS, columns=[time]):
                yield from plain_column(batch.column(0).to_pylist(), str(batch.column(0).type))
        except self._errors as error:
            raise InputError(f"{self.file.name}: cannot be read to its end: {error}") from None

    def rows(self) -> Iterator[Row]:
        """Batch by batch."""
        try:
            for batch in self._parquet.iter_batches(batch_size=BATCH_ROWS):
                columns = [plain_column(column.to_pylist(), str(column.type)) for column in batch.columns]
                for values in zip(*columns, strict=True):
                    yield dict(zip(self._columns, values, strict=True))
                self.file.count(self.file.size_bytes * batch.num_rows // self._parquet.metadata.num_rows)
        except self._errors as error:
            raise InputError(f"{self.file.name}: cannot be read to its end: {error}") from None


def plain_column(values: list[Any], arrow_type: str) -> list[Any]:
    """Values of a column as JSON has them."""
    if arrow_type.startswith(("int", "uint", "string", "large_string", "bool")):
        return values
    return [plain(value) for value in values]


def plain(value: Any) -> Any:
    """
    Bring one value into the form JSON has.

    Examples
    --------
    >>> plain(float("nan")), plain(float("inf")), plain(datetime(2000, 1, 1, 0, 0, 1)), plain(date(2000, 1, 1)), plain(Decimal("1.5"))
    (None, 'inf', 946684801000, 946684800000, 1.5)
    """
    if isinstance(value, float):
        return None if value != value else repr(value) if value in {float("inf"), float("-inf")} else value  # noqa: PLR0124
    if isinstance(value, datetime):
        return ((value if value.tzinfo else value.replace(tzinfo=UTC)) - EPOCH) // MILLISECOND
    if isinstance(value, date):
        return plain(datetime(value.year, value.month, value.day, tzinfo=UTC))
    if isinstance(value, Decimal):
        return plain(float(value))
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value) if isinstance(value, (time, timedelta)) else value
