"""
How often answers were right by cell, learnt from labelled rows, and checked against those that came
later.

Rule of the file: whole counts, closed in blocks at places that the log alone decides. What is
checked is what is shown: the estimate uses the rows that were learnt, never those that check it.

Theory of operation
-------------------
Labelled rows are counted by cell (`score_cells`) in an open block. A block closes at a whole
hundred of labelled rows, when it has enough of them. The newest blocks are the check, at most a
third of all rows and 32 blocks; older ones go into what is learnt. The shares of right answers are
computed again when a quarter more is learnt.

At each close, the newest 1, 2, 4, 8, ... blocks are asked: is their accuracy the one that their
scores alone promised? The difference has an interval, of the rows and of the shares. If it is
beyond the tolerance with an evidence of `LIMIT` nats, scores do not mean any more what they meant.
Then all that was learnt is forgotten, and learning begins again with the rows that showed it. There
is no estimate before 1,000 labelled rows more agree with each other.
"""

from __future__ import annotations

import msgspec
import numpy as np

from stream_monitor.arrays import Float, Int
from stream_monitor.monitors.classes import Reading
from stream_monitor.monitors.score_cells import BINS, HALF, Places
from stream_monitor.stats.expected_metrics import contradiction
from stream_monitor.stats.monotone import RightShares, right_shares

STEP = 100
"""Labelled rows between two moments at which a block may close."""
LEARN_ROWS, CHECK_ROWS = 500, 200
"""Labelled rows that are learnt and that check them, before there is an estimate."""
BLOCKS, BLOCK_ROWS_MAX, GROWTH = 32, 1_000, 16
"""Blocks of the check; a block has a 16th of the rows that are learnt, and at most 1,000."""
TOLERANCE = 0.02
"""A difference between estimate and accuracy that is not told."""
LIMIT = 10.0
"""
Nats of evidence for a difference beyond the tolerance. With the tolerance, chance alone has them
at less than one look in a million (`bench/estimate.py` counts).
"""
AGAIN_ROWS = 1_000
"""Labelled rows after a contradiction, before there is an estimate again."""


def nothing() -> Int:
    """Sums of one place."""
    return np.zeros((1, BINS, 3), np.int64)


class Contradicted(msgspec.Struct):
    """Rows whose labels contradicted their estimate."""

    expected: float
    found: float
    rows: int
    start_ms: int
    end_ms: int
    """Event times."""
    since: int = 0
    """Labelled rows since then."""


class CheckedState(msgspec.Struct):
    """What is learnt and what checks it; sums are (..., places, BINS, 3) (`codes_of`)."""

    places: Places = msgspec.field(default_factory=Places)
    open: Int = msgspec.field(default_factory=nothing)
    learnt: Int = msgspec.field(default_factory=nothing)
    fitted: Int = msgspec.field(default_factory=nothing)
    """What was learnt when the shares were computed."""
    learnt_rows: int = 0
    blocks: Int = msgspec.field(default_factory=lambda: nothing()[None][:0])
    """The check, the oldest block first."""
    ends_ms: list[int] = []
    """The newest event time at the end of each block."""
    rows: int = 0
    """Of the open block."""
    newest_ms: int = 0
    contradicted: Contradicted | None = None
    """While it is not learnt again."""
    turned: bool = False
    """Whether that changed since somebody was told."""


def resized(sums: Int, places: int) -> Int:
    """Sums with more places, or with one that has all."""
    had = sums.shape[-3]
    room = [(0, 0)] * sums.ndim
    room[-3] = (0, max(places - had, 0))
    found: Int = sums.sum(axis=-3, keepdims=True) if places < had else np.pad(sums, room)
    return found


def rows_of(sums: Int) -> Int:
    """Labelled rows of sums."""
    rows: Int = sums.sum(axis=(-1, -2, -3))
    return rows


def strata(sums: Int, places: Places, reading: Reading | None) -> tuple[Int, Int]:
    """
    Rows and right ones by stratum: scores below 0.5 without an answer, the others without one, and
    each place.

    Returns
    -------
    rows, right : (..., 2 + places, BINS) int64
    """
    plain = sums[..., 2].sum(axis=-2)
    at = places_of(places, reading)
    sides = np.zeros((*plain.shape[:-1], 2, BINS), np.int64)
    right = np.zeros_like(sides)
    if at is not None:
        positive, negative = at
        sides[..., 0, :HALF], sides[..., 1, HALF:] = plain[..., :HALF], plain[..., HALF:]
        right[..., 0, :HALF] = sums[..., negative, :HALF, 2]
        right[..., 1, HALF:] = sums[..., positive, HALF:, 2]
    return (
        np.concatenate([sides, sums[..., 0] + sums[..., 1]], axis=-2),
        np.concatenate([right, sums[..., 1]], axis=-2),
    )


def places_of(places: Places, reading: Reading | None) -> tuple[int, int] | None:
    """Places of the positive and the negative class; None if they are not known."""
    if reading is None or not {reading.positive, reading.negative} <= set(places.names):
        return None
    return places.of(reading.positive), places.of(reading.negative)


class Checked:
    """What labelled rows say of scores, and whether it still holds."""

    def __init__(self) -> None:
        self.state = CheckedState()
        self._known: tuple[Int, tuple[int, int] | None, RightShares] | None = None

    def begin_anew(self) -> None:
        """Forget all: what was learnt was no fair sample, so nothing contradicts it either."""
        kept = self.state
        self.state = CheckedState(
            places=kept.places,
            newest_ms=kept.newest_ms,
            turned=kept.turned or kept.contradicted is not None,
        )
        self.fit_places()

    def fit_places(self) -> int:
        """Give all sums a place for each class that has one."""
        state = self.state
        n = len(state.places.names)
        if state.open.shape[-3] != n:
            for name in ("open", "learnt", "fitted", "blocks"):
                setattr(state, name, resized(getattr(state, name), n))
        return n

    def add(self, sums: Int, rows: int, newest_ms: int) -> None:
        """Count labelled rows in the open block."""
        self.state.open += sums
        self.state.rows += rows
        self.state.newest_ms = max(self.state.newest_ms, newest_ms)

    # ---- what is known

    def shares(self, reading: Reading | None) -> RightShares:
        """Shares of right answers by cell, as they were last computed."""
        at = places_of(self.state.places, reading)
        if self._known is None or self._known[0] is not self.state.fitted or self._known[1] != at:
            found = right_shares(*strata(self.state.fitted, self.state.places, reading))
            self._known = self.state.fitted, at, found
        return self._known[2]

    @property
    def check_rows(self) -> int:
        """Labelled rows that check what is learnt."""
        return int(rows_of(self.state.blocks).sum())

    def is_valid(self, reading: Reading | None) -> bool:
        """Whether enough is learnt and checked, and nothing contradicts it."""
        return self.state.contradicted is None and self._is_known(reading)

    def _is_known(self, reading: Reading | None) -> bool:
        return self.shares(reading).rows >= LEARN_ROWS and self.check_rows >= CHECK_ROWS

    def difference(self, reading: Reading | None) -> tuple[float, int] | None:
        """Accuracy of the rows of the check less the expected one, and how many they are."""
        rows, right = strata(self.state.blocks, self.state.places, reading)
        shares, counts = self.shares(reading), rows.sum(axis=0).ravel()
        if shares.rows < LEARN_ROWS or not counts.sum():
            return None
        found = float(right.sum() - counts @ shares.share) / float(counts.sum())
        return found, int(counts.sum())

    # ---- blocks

    @property
    def room(self) -> int:
        """Labelled rows that the open block still needs."""
        enough = min(max(self.state.learnt_rows // GROWTH, STEP), BLOCK_ROWS_MAX)
        return enough - self.state.rows

    def step(self, reading: Reading | None) -> None:
        """At a whole hundred of labelled rows: close the block, if it has enough."""
        state = self.state
        if self.room > 0:
            return
        if state.contradicted is not None:
            state.contradicted.since += state.rows
        state.blocks = np.concatenate([state.blocks, state.open[None]])
        state.open, state.rows = np.zeros_like(state.open), 0
        state.ends_ms.append(state.newest_ms)
        self._learn()
        if self.shares(reading).rows >= LEARN_ROWS:
            self._look(reading)
        over = state.contradicted is not None and state.contradicted.since >= AGAIN_ROWS
        if over and self._is_known(reading):
            state.contradicted, state.turned = None, True

    def _learn(self) -> None:
        """The oldest blocks of the check go into what is learnt, so that they are a third."""
        state = self.state
        rows, learnt = rows_of(state.blocks).tolist(), state.learnt_rows
        check, go = sum(rows), 0
        while len(rows) - go > 1 and (
            learnt < LEARN_ROWS or len(rows) - go > BLOCKS or 2 * (check - rows[go]) >= learnt
        ):
            learnt, check, go = learnt + rows[go], check - rows[go], go + 1
        if go:
            state.learnt = state.learnt + state.blocks[:go].sum(axis=0)
            state.blocks, state.ends_ms = state.blocks[go:], state.ends_ms[go:]
            state.learnt_rows = learnt
        if learnt >= LEARN_ROWS and 4 * learnt >= 5 * int(rows_of(state.fitted)):
            state.fitted = state.learnt

    def _look(self, reading: Reading | None) -> None:
        """Ask the newest 1, 2, 4, ... blocks whether they are as right as was expected."""
        state, n = self.state, len(self.state.blocks)
        newest = [size for size in (1, 2, 4, 8, 16, 32) if size < n] + [n]
        rows, right = strata(state.blocks, state.places, reading)
        counts = _newest(rows.reshape(n, -1), newest)
        found = _newest(right.reshape(n, -1).sum(axis=1)[:, None], newest)[:, 0]
        if not counts[0].sum():
            return
        difference, nats = contradiction(self.shares(reading), counts, found, TOLERANCE)
        worst = int(nats.argmax())
        if nats[worst] < LIMIT:
            return
        size, total = newest[worst], float(counts[worst].sum())
        accuracy = float(found[worst]) / total
        start = state.ends_ms[-size - 1] if size < n else state.ends_ms[-size]
        state.turned = True
        state.contradicted = Contradicted(
            expected=accuracy - float(difference[worst]),
            found=accuracy,
            rows=int(total),
            start_ms=start,
            end_ms=state.newest_ms,
        )
        state.blocks, state.ends_ms = state.blocks[-size:], state.ends_ms[-size:]
        state.learnt, state.learnt_rows = np.zeros_like(state.learnt), 0
        state.fitted = state.learnt


def _newest(values: Int, sizes: list[int]) -> Float:
    """Sums of the newest so many blocks; (blocks, columns) gives (sizes, columns)."""
    totals = values[::-1].cumsum(axis=0)
    found: Float = totals[np.array(sizes) - 1].astype(np.float64)
    return found
