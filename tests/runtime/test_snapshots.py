"""Snapshots are read as they were written, in the order of the log; what is missing, broken or of another version is refused."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import msgspec
import pytest
from aiokafka import TopicPartition

from stream_monitor.errors import StateError
from stream_monitor.runtime import snapshots
from stream_monitor.runtime.snapshots import CHUNK_BYTES, Manifest

TP = TopicPartition("snapshots", 3)
PARTS = {"segment-predictions-000000000": b"p" * (2 * CHUNK_BYTES + 1), "segment-labels-000000000": b"", "state": b"s" * (CHUNK_BYTES + 1)}


class Log:
    """A compacted partition, and a reader of it that counts its seeks."""

    def __init__(self) -> None:
        self.values: dict[int, bytes | None] = {}
        self.end = self.seeks = self.at = 0

    async def send(self, key: bytes, value: bytes) -> int:
        assert len(value) <= CHUNK_BYTES
        self.values[self.end], self.end = value, self.end + 1
        return self.end - 1

    def assign(self, tps: list[TopicPartition]) -> None:
        assert tps == [TP]

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self.at, self.seeks = offset, self.seeks + 1

    async def getone(self, tp: TopicPartition) -> SimpleNamespace:
        offset = min(o for o in self.values if o >= self.at)
        self.at = offset + 1
        return SimpleNamespace(offset=offset, value=self.values[offset])

    def read(self, pointer: int) -> tuple[Manifest, dict[str, bytes]]:
        return asyncio.run(snapshots.read(self, TP, pointer))  # type: ignore[arg-type]


def written(log: Log, parts: dict[str, bytes | None] = PARTS, known: dict = {}) -> tuple[int, dict]:  # noqa: B006
    return asyncio.run(snapshots.write(parts, known, 3, 77, log.send))


def test_what_was_written_is_read_with_one_seek_to_it():
    log = Log()
    pointer, known = written(log)
    manifest, parts = log.read(pointer)
    assert parts == PARTS
    assert manifest.position == 77
    assert set(known) == {"segment-predictions-000000000", "segment-labels-000000000"}
    assert log.seeks == 2  # the manifest, and the first of its chunks, which lie side by side


def test_a_segment_that_is_stored_already_is_found_where_it_was_written():
    log = Log()
    _, known = written(log)
    for _ in range(3):
        asyncio.run(log.send(b"other", b"other"))
    pointer, _ = written(log, {**dict.fromkeys(known), "segment-predictions-000000001": b"q", "state": b"t"}, known)
    assert log.read(pointer)[1] == {**PARTS, "segment-predictions-000000001": b"q", "state": b"t"}
    assert log.seeks == 3


@pytest.mark.parametrize("damage", ["compacted", "tombstone", "broken", "version", "no manifest"])
def test_what_cannot_be_trusted_is_refused_with_the_way_out(damage):
    log = Log()
    pointer, _ = written(log)
    if damage == "compacted":
        del log.values[1]
    elif damage == "tombstone":
        log.values[1] = None
    elif damage == "broken":
        log.values[1] = b"x"
    elif damage == "version":
        log.values[pointer] = msgspec.msgpack.encode(Manifest(99, 77, {}))
    else:
        log.values[pointer] = b"\xc1"
    with pytest.raises(StateError, match=r"snapshots/3:\d+.*delete the group's offset"):
        log.read(pointer)
