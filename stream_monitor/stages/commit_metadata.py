"""
What EVALUATE notes in the metadata of the commits of its positions, in front of what failed
(`poison.with_failures`).

Rule of the file: a note lives as long as the position it lies beside. Who deletes the group's
offset of a partition, or the topic, forgets both, and begins anew.
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
    About a partition of `observations`, up to the committed position.

    Examples
    --------
    >>> Note(17, 4).text()
    '{"snapshot":17,"partitions":4}'
    """

    snapshot: int = -1
    """Offset of the manifest of its last snapshot; -1: there is none."""
    partitions: int = 0
    """
    How many partitions `observations` has: rows are placed by it; 0: nobody has written it down.
    """
    config: str = ""
    """Hash of the configuration of that snapshot, and of everything folded since."""
    since: int = 0
    """Position at which this configuration took effect,"""
    since_ms: int = 0
    """and when."""
    anew: str = ""
    """What began anew there, in brief."""
    tenure: int = 0
    """Without transactions: how many have written snapshots."""

    def text(self) -> str:
        """As it is committed."""
        return msgspec.json.encode(self).decode()


def in_brief(anew: list[str], most: int = BRIEF_MAX) -> str:
    """
    What began anew, in at most so many characters, by default few enough for the metadata of a
    commit.

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
    The note in the metadata of a commit of this partition, and what failed.

    Raises
    ------
    StateError
        Something else stands there.

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
