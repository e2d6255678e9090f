"""
Snapshots on a compacted topic: parts in chunks, and a manifest that says where they are.

Rule of the file: the pointer to a manifest is in the metadata of the commit that made it valid. A
part that never changes (`slab-…`) is written once. A snapshot overwrites nothing of the one
before it and, without transactions, nothing that another tenure wrote. Keys that neither snapshot
has get a tombstone. Every chunk has a checksum. A chunk that is missing, broken or of another
version is refused, with the way out; it is never guessed.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Iterator, Mapping

import msgspec
from aiokafka import TopicPartition
from aiokafka.errors import CorruptRecordException, OffsetOutOfRangeError

from stream_monitor.errors import StateError
from stream_monitor.kafka.fetching import Reader

CHUNK_BYTES = 900_000
VERSION = 3
TENURES = 16
"""
This many tenures have keys of their own. They are used in turn, so what a zombie wrote without a
commit is overwritten in the end and stays bounded.
"""
Send = Callable[[bytes, bytes | None], Awaitable[int]]
"""Writes a record (key, value) to the partition and returns its offset."""
FIXED = "slab-"
"""Prefix of the names of parts that never change."""


class Chunk(msgspec.Struct, array_like=True):
    offset: int
    crc: int


class Part(msgspec.Struct, array_like=True):
    slot: int
    """Which of the sets of keys this part uses."""
    chunks: list[Chunk]


class Versioned(msgspec.Struct, array_like=True):
    """The common beginning of manifests of every version."""

    version: int


class Manifest(msgspec.Struct, array_like=True):
    version: int = VERSION
    position: int = 0
    """Position in `observations`. The state is the fold of everything before it."""
    config: str = ""
    """
    Hash of the configuration with which it was folded; the part `settings` has the configuration
    itself.
    """
    parts: dict[str, Part] = {}
    slot: int = 0
    """Which of the sets of keys this snapshot uses; a tenure uses two in turn."""
    leaving: list[str] = []
    """
    Keys that the previous snapshot had and this one does not. The next snapshot deletes them,
    because only then is this one committed for sure.
    """


WAY_OUT = (
    "delete the group's offset of this partition of `observations` (the state is then rebuilt "
    "from what the topic still holds), or restore the topic `snapshots`"
)


async def write(
    partition: int,
    position: int,
    config: str,
    parts: Mapping[str, bytes | None],
    before: Manifest,
    tenure: int,
    send: Send,
) -> tuple[int, Manifest]:
    """
    Write a snapshot, and tombstones for keys that no snapshot has any more. Without tombstones
    these keys would stay on a compacted topic for ever.

    Parameters
    ----------
    partition, position : int
    config : str
        Hash of the configuration.
    parts : mapping of name to bytes, or None for a part that is in `before`
    before : Manifest
        Manifest of the last committed snapshot. Nothing of it is overwritten, because without
        transactions a crash may come before the pointer to this one is committed.
    tenure : int
        Number of this tenure, if nothing fences: a zombie that keeps writing has another.
    send : callable

    Returns
    -------
    offset of the manifest, and the manifest
    """
    slot = 2 * (tenure % TENURES) + 1 - before.slot % 2
    stored: dict[str, Part] = {}
    for name, data in parts.items():
        if data is None:
            stored[name] = before.parts[name]
            continue
        values = [
            data[start : start + CHUNK_BYTES] for start in range(0, max(len(data), 1), CHUNK_BYTES)
        ]
        # all at once: to wait for each would take seconds while the event loop is busy with
        # folding, and a transaction has a limit
        offsets = await asyncio.gather(
            *(
                send(_key(partition, slot, name, i).encode(), value)
                for i, value in enumerate(values)
            )
        )
        stored[name] = Part(
            slot,
            [
                Chunk(offset, zlib.crc32(value))
                for offset, value in zip(offsets, values, strict=True)
            ],
        )
    manifest = Manifest(VERSION, position, config, stored, slot)
    kept = set(_keys(partition, manifest))
    manifest.leaving = [key for key in _keys(partition, before) if key not in kept]
    await asyncio.gather(*(send(key.encode(), None) for key in before.leaving if key not in kept))
    return await send(
        _manifest_key(partition, slot).encode(), msgspec.msgpack.encode(manifest)
    ), manifest


def _key(partition: int, slot: int, name: str, chunk: int) -> str:
    return f"{partition}/{slot}/{name}/{chunk}"


def _manifest_key(partition: int, slot: int) -> str:
    return f"{partition}/{slot}/manifest"


def _keys(partition: int, manifest: Manifest) -> Iterator[str]:
    yield _manifest_key(partition, manifest.slot)
    for name, part in manifest.parts.items():
        yield from (_key(partition, part.slot, name, i) for i in range(len(part.chunks)))


async def read(
    reader: Reader, tp: TopicPartition, pointer: int
) -> tuple[Manifest, dict[str, bytes]]:
    """
    Read a snapshot.

    Parameters
    ----------
    reader : Reader
    tp : TopicPartition
        Partition of `snapshots`.
    pointer : int
        Offset of the manifest.

    Raises
    ------
    StateError
        A record is missing or broken, or the manifest is of another version.
    """
    raw = await _at(reader, tp, pointer)
    try:
        version = msgspec.msgpack.decode(raw, type=Versioned).version
        if version != VERSION:
            raise StateError(
                f"the snapshot at {tp.topic}/{tp.partition}:{pointer} has version {version}, "
                f"this one reads {VERSION}; {WAY_OUT}"
            )
        manifest = msgspec.msgpack.decode(raw, type=Manifest)
    except msgspec.MsgspecError as e:
        raise StateError(
            f"the snapshot at {tp.topic}/{tp.partition}:{pointer} cannot be read ({e}); {WAY_OUT}"
        ) from None
    chunks = sorted(
        (chunk.offset, chunk.crc, name)
        for name, of in manifest.parts.items()
        for chunk in of.chunks
    )
    values = {}
    for (
        offset,
        crc,
        name,
    ) in chunks:
        # in the order of the log, because a seek would fetch the next records again
        values[offset] = await _at(reader, tp, offset)
        if zlib.crc32(values[offset]) != crc:
            raise StateError(
                f"part {name} of the snapshot at {tp.topic}/{tp.partition}:{offset} is "
                f"broken; {WAY_OUT}"
            )
    return manifest, {
        name: b"".join(values[chunk.offset] for chunk in of.chunks)
        for name, of in manifest.parts.items()
    }


async def _at(reader: Reader, tp: TopicPartition, offset: int) -> bytes:
    try:
        value = await reader.value(tp, offset)
    except CorruptRecordException as e:
        raise StateError(
            f"the snapshot record at {tp.topic}/{tp.partition}:{offset} is broken on the "
            f"broker's disk ({e}); {WAY_OUT}"
        ) from None
    except OffsetOutOfRangeError:  # the topic was deleted and created again
        value = None
    if value is None:
        raise StateError(
            f"the snapshot record at {tp.topic}/{tp.partition}:{offset} is gone; {WAY_OUT}"
        )
    return value
