"""
The record of `observations`: packed columns of many events on their way to the evaluation of their
models.

Rule of the file: `unpack(pack(rows))` is the identity, and the bytes say which version they are of.
Layout (little endian): magic b"SMO", version u8, length of head u32, head (msgpack), then the fixed
columns and one block of cells for each layout, (columns, rows) each. A row of a prediction with 10
features and a score takes about 125 bytes before compression.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_monitor.errors import StateError
from stream_monitor.events.cells import Cells

MAGIC = b"SMO\x01"
PREDICTION, LABEL, FAILURE, LIFECYCLE, ALONE = range(5)
"""
Kinds of rows; from LIFECYCLE on they are events of `lifecycle`. One that changes how later rows are
counted is ALONE in its record.
"""
ROW = np.dtype(
    [("source", "<u2"), ("group", "<u2"), ("offset", "<i8"), ("id", "<u8"), ("time", "<i8")]
)
"""
`source` and `group` are indices into the head; `id` is xxh3-64 of the event id; `time` is event
time in ms.
"""


class Group(NamedTuple):
    """
    What rows have in common: kind of event, model (empty in a label that names none), version
    (None in a label that names none; of an event of `lifecycle` its JSON), and which layout their
    cells have.
    """

    kind: int
    model: str
    version: str | None
    layout: int


class Head(msgspec.Struct, array_like=True):
    flushed_ms: int
    sources: list[str]
    groups: list[Group]
    layouts: list[tuple[str, ...]]
    """
    Names of the columns of a layout: `prediction score score.CLASS latency_ms segments.NAME variant
    unit features.NAME` or `label …`.
    """
    layout_rows: list[int]
    texts: list[str]
    rows: int


class Block(NamedTuple):
    """The cells of all rows of one layout."""

    layout: int
    columns: tuple[str, ...]
    rows: NDArray[np.int64]
    """(n,) positions of these rows in the record, ascending."""
    cells: Cells
    """(columns, n)"""


class Observations(NamedTuple):
    head: Head
    rows: NDArray[np.void]
    """(rows,) of `ROW`, in log order."""
    blocks: list[Block]


Arrivals = Mapping[str, tuple[int, NDArray[np.int64]]]
"""By source: an offset, and the arrival of the records from there on, ms."""


def arrived(rows: NDArray[np.void], sources: list[str], arrivals: Arrivals) -> NDArray[np.int64]:
    """When each row came."""
    out = np.empty(len(rows), np.int64)
    for i, source in enumerate(sources):
        mine = rows["source"] == i
        first, times_ms = arrivals[source]
        out[mine] = times_ms[rows["offset"][mine] - first]
    return out


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Head)


def pack(head: Head, rows: NDArray[np.void], matrices: list[Cells]) -> bytes:
    """
    The bytes of one record.

    Parameters
    ----------
    head : Head
        `layout_rows[i]` is the number of rows of `matrices[i]`.
    rows : (rows,) ROW
    matrices : list of (columns, rows of the layout) float64, cells
        In the order of `head.layouts`, each in the order of its rows in the record.
    """
    encoded = _encoder.encode(head)
    columns = [np.ascontiguousarray(rows[name]).tobytes() for name in ROW.names or ()]
    return b"".join(
        [
            MAGIC,
            struct.pack("<I", len(encoded)),
            encoded,
            *columns,
            *(m.tobytes() for m in matrices),
        ]
    )


def unpack(value: bytes) -> Observations:
    """
    The columns of one record, as views of its bytes where possible.

    Raises
    ------
    StateError
        The bytes are not a record of this version.
    """
    if value[:4] != MAGIC:
        message = (
            f"a record of observations is of an unknown format ({value[:4]!r} instead of "
            f"{MAGIC!r}): it was written by another version of stream-monitor"
        )
        raise StateError(message)
    start = 8 + struct.unpack_from("<I", value, 4)[0]
    head = _decoder.decode(memoryview(value)[8:start])
    rows = np.empty(head.rows, ROW)
    at = start
    for name in ROW.names or ():
        column = np.frombuffer(value, ROW[name], head.rows, at)
        rows[name] = column
        at += column.nbytes
    layout_of = (
        np.array([g.layout for g in head.groups], np.int64)[rows["group"]]
        if len(head.layouts) > 1
        else None
    )
    blocks = []
    for i, (columns, n) in enumerate(zip(head.layouts, head.layout_rows, strict=True)):
        cells = np.frombuffer(value, np.float64, n * len(columns), at).reshape(len(columns), n)
        at += cells.nbytes
        blocks.append(
            Block(
                i,
                columns,
                np.arange(n) if layout_of is None else np.flatnonzero(layout_of == i),
                cells,
            )
        )
    return Observations(head, rows, blocks)


def flushed(value: bytes | None) -> int | None:
    """
    When a record was written, by the clock of its writer; None if it is not a record of this
    version.

    >>> flushed(pack(Head(17, [], [], [], [], [], 0), np.empty(0, ROW), [])), flushed(b"{}")
    (17, None)
    """
    try:
        return None if value is None else unpack(value).head.flushed_ms
    except (StateError, msgspec.MsgspecError, struct.error, ValueError):
        return None
