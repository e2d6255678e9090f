"""
One tenure of one source partition: from where it is read, how far, and what a commit has to
remember.

Rule of the file: no await. A partition that is opened again gets a new one, so nothing of a tenure
outlives it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from stream_monitor.stages.poison import CAREFUL_RECORDS, TRIES


@dataclass(eq=False)
class Reading:
    """
    How far a source partition is read in this tenure.

    All offsets are those of the next record.
    """

    topic_id: str
    """
    Of the topic when the tenure began; rows carry it, so that a topic that was made anew is another
    source.
    """
    opened: int
    """Where the tenure began."""
    read: int
    """What was taken."""
    acknowledged: int | None = None
    """What is in the log of observations; None: nothing was sent yet."""
    committed: int | None = None
    """What was committed last; None: it has to be said again."""
    failed: dict[int, int] = field(default_factory=dict)
    """
    How often the process has ended over records before an offset, with none committed since; from
    TRIES on they, and some more, are tried apart.
    """
    begun: int = 0
    """
    Tenures that began where this one did, itself included, with records waiting, and of which
    nothing more was heard.
    """
    burying: bool = False
    """Dead letters are under way: nothing is committed before they are written."""

    @property
    def careful_until(self) -> int:
        """Records below it are tried apart first; -1: none."""
        ends = (end + CAREFUL_RECORDS for end, n in self.failed.items() if n >= TRIES)
        return max(ends, default=-1)

    def failures(self, at: int) -> dict[int, int]:
        """What a commit at this offset has to remember."""
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
        One more end of the process over records before `end`: where they begin, and how often it
        was.
        """
        at = self.opened if self.acknowledged is None else self.acknowledged
        known = self.failed if at == self.opened else {}
        tries = max(known.values(), default=0) + 1
        # a commit that is still made says the same
        self.opened, self.failed = (
            at,
            {max([end, *known]): tries},
        )
        self.begun = 0
        return at, tries
