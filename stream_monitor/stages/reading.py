"""
One tenure of one source partition: where reading began, how far it is, and what a commit must
contain.

Rule of the file: no await. A partition that is opened again gets a new object, so nothing of a
tenure outlives it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from stream_monitor.stages.poison import CAREFUL_RECORDS, TRIES


@dataclass(eq=False)
class Reading:
    """
    How far a source partition is read in this tenure.

    Each offset is that of the next record.
    """

    topic_id: str
    """
    Id of the topic when the tenure began. Rows carry it, so a topic that was created again is
    another source.
    """
    opened: int
    """Offset at which the tenure began."""
    read: int
    """Offset up to which records were accepted."""
    acknowledged: int | None = None
    """Offset up to which all rows are in the log of observations; None before the first send."""
    committed: int | None = None
    """Offset that was committed last; None if it must be committed again."""
    failed: dict[int, int] = field(default_factory=dict)
    """
    How often the process has ended over records before an offset, without a commit since. From
    TRIES on, these records and some more are tried in a fork.
    """
    begun: int = 0
    """
    Tenures that began at the same offset while records waited, including this one, and came to no
    clean end.
    """
    burying: bool = False
    """Whether dead letters are being written; nothing is committed before they are."""

    @property
    def careful_until(self) -> int:
        """Records below this offset are tried in a fork first; -1 if none."""
        ends = (end + CAREFUL_RECORDS for end, n in self.failed.items() if n >= TRIES)
        return max(ends, default=-1)

    def failures(self, at: int) -> dict[int, int]:
        """The failures that a commit at this offset must contain."""
        again = at == self.opened
        return {
            end: n
            for end, n in self.failed.items()
            if again or (n >= TRIES and at < end + CAREFUL_RECORDS)
        }

    def begun_at(self, at: int) -> int:
        """How many tenures began at this offset."""
        return self.begun if at == self.opened else 0

    def count_failure(self, end: int) -> tuple[int, int]:
        """
        Count one more end of the process over records before `end`. Returns where these records
        begin, and how often it happened.
        """
        at = self.opened if self.acknowledged is None else self.acknowledged
        known = self.failed if at == self.opened else {}
        tries = max(known.values(), default=0) + 1
        # a commit that is still made contains the same
        self.opened, self.failed = (
            at,
            {max([end, *known]): tries},
        )
        self.begun = 0
        return at, tries
