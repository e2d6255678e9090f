"""
The note that EVALUATE keeps in the metadata of its commits, in front of the failures
(`poison.with_failures`).

Rule of the file: a note lives as long as the position beside it. When somebody deletes the group's
offset of a partition, or the topic, both are gone, and the partition starts empty.
"""

from __future__ import annotations

import msgspec
from aiokafka import TopicPartition

from stream_monitor.errors import StateError
from stream_monitor.stages.poison import parted

ANEW = (
    "delete the group's offset of this partition; monitoring then starts again with what the "
    "topic holds"
)
BRIEF_MAX = 200


class Note(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """
    What EVALUATE knows about a partition of `observations`, up to the committed position.

    Examples
    --------
    >>> Note(17, 4).text()
    '{"snapshot":17,"partitions":4}'
    """

    snapshot: int = -1
    """Offset of the manifest of the last snapshot; -1 if there is none."""
    partitions: int = 0
    """
    Number of partitions of `observations`, which decides where rows go; 0 if it was not stored yet.
    """
    config: str = ""
    """Hash of the configuration of that snapshot, and of everything folded since."""
    since: int = 0
    """Position at which this configuration took effect."""
    since_ms: int = 0
    """Wall-clock time at which this configuration took effect, ms since 1970."""
    anew: str = ""
    """Parts of the state that restarted at that position, abbreviated."""
    tenure: int = 0
    """Number of tenures that have written snapshots; counted only without transactions."""

    def text(self) -> str:
        """The text that is committed."""
        return msgspec.json.encode(self).decode()


def in_brief(anew: list[str], most: int = BRIEF_MAX) -> str:
    """
    The restarted parts, shortened to a number of characters that by default fits into the metadata
    of a commit.

    >>> (
    ...     in_brief([]),
    ...     in_brief(["m/1: slice age (cut)"]),
    ...     len(in_brief(["m/1: slice age (cut)"] * 99)),
    ... )
    ('', '1: m/1: slice age (cut)', 200)
    """
    text = f"{len(anew)}: {'; '.join(anew[:most])}" if anew else ""
    return text if len(text) <= most else text[: most - 1] + "…"


def read_note(tp: TopicPartition, metadata: str) -> tuple[Note, dict[int, int]]:
    """
    The note and the failures in the metadata of a commit of this partition.

    Raises
    ------
    StateError
        The metadata is not a note.

    Examples
    --------
    >>> read_note(TopicPartition("observations", 0), '{"snapshot":17,"partitions":4} failed=40:1')
    (Note(snapshot=17, partitions=4, config='', since=0, since_ms=0, anew='', tenure=0), {40: 1})
    >>> read_note(TopicPartition("observations", 0), "")
    (Note(snapshot=-1, partitions=0, config='', since=0, since_ms=0, anew='', tenure=0), {})
    """
    kept, failed, _ = parted(metadata)
    try:
        return msgspec.json.decode(kept or "{}", type=Note), failed
    except msgspec.MsgspecError as e:
        raise StateError(
            f"the group's offset of {tp.topic}/{tp.partition} has metadata of another version "
            f"of stream-monitor, or of another program: {metadata[:100]!r} ({e}); {ANEW}"
        ) from None
