"""
INGEST: a batch of one source partition in, packed records of `observations` out.

Rule of the file: no state but the rows that wait for the next flush, no clock, no I/O. It admits,
learns and decides nothing; the partition of a row depends on its model alone, so that it never
moves while rows of it are under way. Read `take` and `flush` as the table of contents of the stage.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from stream_monitor.events.cells import Cells, Texts, remap, text_indices
from stream_monitor.events.decode import Decoded, Decoder, GroupKey, Groups
from stream_monitor.events.lifecycle import LifecycleDecoder
from stream_monitor.events.observations import (
    ALONE,
    LIFECYCLE,
    ROW,
    Arrivals,
    Group,
    Head,
    arrived,
    pack,
)
from stream_monitor.verdicts import Reject

EVERYWHERE = -1
CHUNK_RECORDS = 1_000
"""Records decoded at once: larger chunks fall out of the processor's caches."""


class Chunk(NamedTuple):
    """
    Rows of one source in their order, and the cells of each layout with the positions of its rows.
    """

    source: str
    rows: NDArray[np.void]
    blocks: list[tuple[tuple[str, ...], NDArray[np.int64], Cells]]


def home(model: str, targets: int) -> int:
    """
    The partition of `observations` of a model: xxh3-64 of its name, modulo the number of
    partitions.

    >>> home("fraud", 4)
    1
    """
    return xxh3_64_intdigest(model.encode()) % targets


def outcomes_of(kind: str) -> tuple[str, str, str]:
    """
    What becomes of a record that is read. Of `lifecycle` all is skipped that is not folded.

    >>> outcomes_of("labels"), outcomes_of("lifecycle")[2]
    (('forwarded', 'rejected', 'tombstone'), 'skipped')
    """
    return "forwarded", "rejected", "skipped" if kind == "lifecycle" else "tombstone"


class Ingest:
    """
    Decodes records and buffers their rows until the next flush.

    Parameters
    ----------
    targets : int
        Partitions of `observations`; never changes in the life of the topic.
    max_record_bytes : int, bytes
        Larger source records are rejected as `too_large`.
    record_bytes : int, bytes
        A record of `observations` is cut before it grows past this, uncompressed.
    of_log : bool
        Offsets are those of the log, not of a file that is replayed.
    """

    def __init__(
        self,
        targets: int,
        *,
        max_record_bytes: int = 1_048_576,
        record_bytes: int = 800_000,
        of_log: bool = True,
    ) -> None:
        self.targets, self.record_bytes = targets, record_bytes
        self.counts: Counter[tuple[str, str]] = Counter()
        self.ahead = self.clipped = 0
        """
        Rows whose event time was too far ahead of their record's; and those of which a score was
        put back into [0, 1].
        """
        self._groups, self._texts = Groups(), Texts()
        self._decoders = {
            topic: Decoder(topic, self._groups, self._texts, max_record_bytes)
            for topic in ("predictions", "labels")
        }
        self._of_lifecycle = LifecycleDecoder(self._groups, max_record_bytes, of_log=of_log)
        self._chunks: list[Chunk] = []
        self.rows = 0
        self.newest_ms: dict[str, list[NDArray[np.int64]]] = {}
        """By source: event times of all rows of the last call, chunk by chunk."""

    def take(
        self,
        source: str,
        kind: str,
        values: Sequence[bytes | None],
        offsets: NDArray[np.int64],
        times_ms: NDArray[np.int64],
    ) -> list[Reject]:
        """
        Take a batch of one source partition.

        Parameters
        ----------
        source : str
            Names the source partition (topic id and partition); rows carry it.
        kind : {"predictions", "labels", "lifecycle"}
        values : sequence of bytes or None
            Values of the records; None is a tombstone.
        offsets, times_ms : (n,) int64
            Offset and timestamp of each record.

        Returns
        -------
        list of Reject
            Records for `dead-letters`; `index` is the position in `values`.
        """
        rejects: list[Reject] = []
        self.newest_ms.pop(source, None)
        for start in range(0, len(values), CHUNK_RECORDS):
            part = slice(start, start + CHUNK_RECORDS)
            decoded = (
                self._of_lifecycle.decode(values[part], times_ms[part], offsets[part])
                if kind == "lifecycle"
                else self._decoders[kind].decode(values[part], times_ms[part])
            )
            rejects += (
                [r._replace(index=r.index + start) for r in decoded.rejects]
                if start
                else decoded.rejects
            )
            self._count(kind, decoded, len(values[part]))
            self._buffer(source, decoded, offsets[part])
        return rejects

    def _count(self, kind: str, decoded: Decoded, records: int) -> None:
        rejected = len(decoded.rejects)
        self.ahead += decoded.ahead
        self.clipped += decoded.clipped
        for outcome, n in zip(
            outcomes_of(kind),
            (records - rejected - decoded.tombstones, rejected, decoded.tombstones),
            strict=True,
        ):
            if n:
                self.counts[kind, outcome] += n

    def _buffer(self, source: str, decoded: Decoded, offsets: NDArray[np.int64]) -> None:
        parts = [c for c in decoded.columns if len(c.place)]
        n = sum(len(c.place) for c in parts)
        if not n:
            return
        rows = np.empty(n, ROW)
        index = parts[0].place if len(parts) == 1 else np.concatenate([c.place for c in parts])
        order = (
            np.arange(n)
            if len(parts) == 1 and _ascending(index)
            else np.argsort(index, kind="stable")
        )
        place = np.empty(n, np.int64)
        place[order] = np.arange(n)  # where each row of `parts` stands among the rows of the batch
        at, blocks = 0, []
        for c in parts:
            here = place[at : at + len(c.place)]
            at += len(c.place)
            rows["group"][here], rows["id"][here], rows["time"][here], rows["offset"][here] = (
                c.groups,
                c.ids,
                c.times_ms,
                offsets[c.place],
            )
            blocks.append((c.columns, here, c.cells))
        self._chunks.append(Chunk(source, rows, blocks))
        self.newest_ms.setdefault(source, []).append(rows["time"])
        self.rows += n

    def drop(self, sources: Container[str]) -> None:
        """
        Forget the buffered rows of these sources: a record never mixes two tenures of a source.
        """
        self._chunks = [c for c in self._chunks if c.source not in sources]
        self.newest_ms = {
            source: times for source, times in self.newest_ms.items() if source not in sources
        }
        self.rows = sum(len(c.rows) for c in self._chunks)

    def flush(self, flushed_ms: int, arrivals: Arrivals | None = None) -> dict[int, list[bytes]]:
        """
        The records of `observations` for each target partition, in order; the buffer is empty
        afterwards.

        With `arrivals` the rows of all sources are in the order in which they came.
        """
        out: dict[int, list[bytes]] = {}
        if self._chunks:
            buffer = _Buffer(
                self._chunks, list(self._groups), self._texts.names, self.targets, arrivals
            )
            for target in buffer.targets_used():
                out[target] = list(buffer.records(target, flushed_ms, self.record_bytes))
        self._chunks, self.rows = [], 0
        self._groups.clear()
        self._texts.clear()
        self._texts.names = []
        return out


def _width(group: GroupKey) -> int:
    """Bytes of a row of a group; the text of an event is in the head."""
    kind, _, version, columns = group
    return len((version or "").encode()) if kind >= LIFECYCLE else len(columns) * 8


def _ascending(index: NDArray[np.int64]) -> bool:
    return bool((index[1:] > index[:-1]).all())


class _Buffer:
    """The rows of one flush, joined."""

    def __init__(
        self,
        chunks: list[Chunk],
        groups: list[GroupKey],
        texts: list[str],
        targets: int,
        arrivals: Arrivals | None,
    ) -> None:
        self.groups, self.texts, self.targets = groups, texts, targets
        self.rows = np.concatenate([c.rows for c in chunks])
        names: dict[str, int] = {}
        sizes = [len(c.rows) for c in chunks]
        self.rows["source"] = np.repeat(
            [names.setdefault(c.source, len(names)) for c in chunks], sizes
        )
        self.sources = list(names)
        place_of = None
        if arrivals is not None:
            order = np.argsort(arrived(self.rows, self.sources, arrivals), kind="stable")
            self.rows, place_of = self.rows[order], np.argsort(order)
        self.target_of = np.array(
            [home(model, targets) if model else EVERYWHERE for _, model, _, _ in groups], np.int64
        )[self.rows["group"]]
        starts = np.cumsum([0, *sizes])
        self.layouts: dict[tuple[str, ...], tuple[NDArray[np.int64], Cells]] = {}
        pieces: dict[tuple[str, ...], list[tuple[NDArray[np.int64], Cells]]] = {}
        for chunk, start in zip(chunks, starts[:-1].tolist(), strict=True):
            for columns, place, cells in chunk.blocks:
                pieces.setdefault(columns, []).append((place + start, cells))
        for columns, found in pieces.items():
            place = np.concatenate([p for p, _ in found])
            cells = np.concatenate([c for _, c in found])
            place = place if place_of is None else place_of[place]
            if not _ascending(place):
                order = np.argsort(place)
                place, cells = place[order], cells[order]
            self.layouts[columns] = place, cells

    def targets_used(self) -> list[int]:
        used = np.unique(self.target_of)
        return list(range(self.targets)) if EVERYWHERE in used else [int(t) for t in used]

    def records(self, target: int, flushed_ms: int, record_bytes: int) -> Iterator[bytes]:
        """Records for one target; a record that would grow too large is cut into several."""
        keep = np.flatnonzero((self.target_of == target) | (self.target_of == EVERYWHERE))
        group = self.rows["group"][keep]
        widths = np.array([_width(key) for key in self.groups], np.int64)[group]
        filled = np.cumsum(widths + ROW.itemsize) // record_bytes
        alone = np.array([kind == ALONE for kind, *_ in self.groups])[group]
        cut = (filled[1:] != filled[:-1]) | alone[1:] | alone[:-1]
        for part in np.split(keep, np.flatnonzero(cut) + 1):
            yield self._record(part, flushed_ms)

    def _record(self, keep: NDArray[np.int64], flushed_ms: int) -> bytes:
        rows = self.rows[keep]
        position = np.full(len(self.rows), -1, np.int64)
        position[keep] = np.arange(len(keep))
        layouts: list[tuple[str, ...]] = []
        matrices: list[Cells] = []
        counts: list[int] = []
        number: dict[tuple[str, ...], int] = {}
        for columns, (place, cells) in self.layouts.items():
            here = position[place] >= 0
            n = int(here.sum())
            if n:
                number[columns] = len(layouts)
                layouts.append(columns)
                counts.append(n)
                matrices.append(np.ascontiguousarray((cells if n == len(place) else cells[here]).T))
        texts, matrices = self._texts_of(matrices)
        used, rows["group"] = np.unique(rows["group"], return_inverse=True)
        groups = [
            Group(kind, model, version, number[columns])
            for kind, model, version, columns in (self.groups[g] for g in used.tolist())
        ]
        sources, rows["source"] = np.unique(rows["source"], return_inverse=True)
        head = Head(
            flushed_ms,
            [self.sources[s] for s in sources.tolist()],
            groups,
            layouts,
            counts,
            texts,
            len(rows),
        )
        return pack(head, rows, matrices)

    def _texts_of(self, matrices: list[Cells]) -> tuple[list[str], list[Cells]]:
        """The texts this record needs, and the matrices with their cells pointing into them."""
        if not self.texts:
            return [], matrices
        used = np.unique(np.concatenate([text_indices(m) for m in matrices]))
        table = np.zeros(len(self.texts), np.int64)
        table[used] = np.arange(len(used))
        return [self.texts[i] for i in used.tolist()], [remap(m, table) for m in matrices]


def tick(flushed_ms: int) -> bytes:
    """A record of `observations` without rows: it moves log time on in an idle partition."""
    return pack(Head(flushed_ms, [], [], [], [], [], 0), np.empty(0, ROW), [])
