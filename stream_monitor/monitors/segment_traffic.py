"""
How much of the traffic each segment has, and how often it gets the positive answer.

Rule of the file: every served prediction counts at once, with a label or without one. Answers are
counted by name, so which class is positive is read off at each look.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from stream_monitor.arrays import Float, Int, are_numbers
from stream_monitor.events.cells import class_name, class_text, tags
from stream_monitor.monitors.rows import Rows
from stream_monitor.windows.panes import Panes

PANE_MS = 10_000
ROW, LOW, HIGH, NUMBERS, SUM, FURTHER, HEAD = range(7)
"""
Columns of a pane: rows; rows without an answer whose score is below 0.5, and from 0.5 on; rows with
a number, and the sum of these; answers beyond `ANSWERS_MAX`. Then one column an answer.
"""
ANSWERS_MAX = 16
GREATEST = 1e150
"""Greater numbers are in no sum."""


class Traffic(msgspec.Struct):
    """Predictions of every segment, by event time."""

    answers: dict[str, int] = {}
    """Names of answers, with their columns."""
    panes: dict[int, Panes] = {}
    """By number of the segment."""
    rows: dict[int, int] = {}
    """Predictions so far."""
    watermark_ms: int = 0

    def add(self, rows: Rows, members: Int) -> None:
        """
        Take predictions in. O(rows); about 3 µs a segment that is in a chunk.

        Parameters
        ----------
        rows : Rows
        members : (n, definitions) int64
            Numbers of the segments of each row, -1 for none.
        """
        self.watermark_ms = max(self.watermark_ms, int(rows.times_ms.max()))
        answer, number = self._answers(rows)
        width = HEAD + len(self.answers)
        known = are_numbers(number)
        for slices in members.T:
            inside = slices >= 0
            if not inside.any():
                continue
            here = slice(None) if inside.all() else np.flatnonzero(inside)
            pane = rows.times_ms[here] // PANE_MS
            first = int(pane.min())
            span = int(pane.max()) - first + 1
            keys, group = np.unique(slices[here] * span + pane - first, return_inverse=True)
            sums = np.zeros((len(keys), width))
            sums[:, ROW] = np.bincount(group)
            given = answer[here] >= 0
            place = group * width + answer[here]
            sums += np.bincount(place[given], minlength=sums.size).reshape(sums.shape)
            numbers = known[here]
            if numbers.any():
                of = group[numbers]
                sums[:, NUMBERS] = np.bincount(of, minlength=len(keys))
                sums[:, SUM] = np.bincount(of, number[here][numbers], len(keys))
            owner, starts = np.divmod(keys, span)
            self._deliver(owner, (starts + first) * PANE_MS, sums)

    def _deliver(self, owner: Int, starts: Int, sums: Float) -> None:
        at = np.flatnonzero(np.append(True, owner[1:] != owner[:-1]))
        for begin, end in zip(at.tolist(), [*at[1:].tolist(), len(owner)], strict=True):
            segment = int(owner[begin])
            panes = self.panes.get(segment)
            if panes is None:
                panes = self.panes[segment] = Panes(sums.shape[1])
            panes.add_grouped(starts[begin:end], sums[begin:end])
            self.rows[segment] = self.rows.get(segment, 0) + int(sums[begin:end, ROW].sum())

    def _answers(self, rows: Rows) -> tuple[Int, Float]:
        """The column of the answer of each row, -1 for none; and its number, NaN for none."""
        n, at = len(rows.times_ms), {name: i for i, name in enumerate(rows.columns)}
        answer, number = np.full(n, -1, np.int64), np.full(n, np.nan)
        if "prediction" in at:
            cells = rows.cells[at["prediction"]]
            number = np.where(are_numbers(cells) & (np.abs(cells) < GREATEST), cells, np.nan)
            named = np.flatnonzero((cells == np.floor(cells)) | (tags(cells) >= 0))
            values, inverse = np.unique(
                np.ascontiguousarray(cells[named]).view(np.uint64), return_inverse=True
            )
            texts = [class_text(v, rows.texts) for v in values.view(np.float64).tolist()]
            columns = [-1 if t is None else self._column(t) for t in texts]
            answer[named] = np.array(columns, np.int64)[inverse]
        scored = [i for name, i in at.items() if name.startswith("score.")]
        if scored and (answer < 0).any():
            scores = rows.cells[scored]
            some = np.flatnonzero((answer < 0) & are_numbers(scores).any(axis=0))
            if len(some):
                best = np.nan_to_num(scores[:, some], nan=-1.0).argmax(axis=0)
                names = [class_name(rows.columns[i].removeprefix("score.")) for i in scored]
                there = np.unique(best).tolist()
                table = {b: self._column(names[b]) for b in there}
                answer[some] = np.array([table.get(b, -1) for b in range(len(names))])[best]
        if "score" in at:
            score = rows.cells[at["score"]]
            unanswered = (answer < 0) & are_numbers(score) & ~are_numbers(number)
            answer = np.where(unanswered, np.where(score >= 0.5, HIGH, LOW), answer)
        return answer, number

    def _column(self, text: str) -> int:
        """The column of an answer; a new one gets a place in every pane."""
        column = self.answers.get(text)
        if column is None:
            if len(self.answers) >= ANSWERS_MAX:
                return FURTHER
            column = self.answers[text] = HEAD + len(self.answers)
            places = np.arange(column)
            for panes in self.panes.values():
                panes.lay_out(places, places, column + 1)
        return column

    def window(self, segment: int, duration_ms: int) -> Float:
        """Sums of the window that ends at the newest prediction of the version; see `HEAD`."""
        panes = self.panes.get(segment)
        if panes is None:
            return np.zeros(HEAD + len(self.answers))
        return panes.window(self.watermark_ms, duration_ms)[0]

    def positive(self, sums: Float, name: str) -> tuple[float, float]:
        """
        How many of the answers in a window are of the class `name`, and how many there are.

        >>> Traffic(answers={"no": 6, "yes": 7}).positive(
        ...     np.array([9.0, 1, 2, 0, 0, 0, 4, 2]), "yes"
        ... )
        (4.0, 9.0)
        """
        column = self.answers.get(name)
        named = 0.0 if column is None else float(sums[column])
        return named + float(sums[HIGH]), float(
            sums[LOW] + sums[HIGH] + sums[FURTHER] + sums[HEAD:].sum()
        )

    def moved(self, places: Mapping[int, int]) -> Traffic:
        """The same predictions with segments under other numbers."""
        return Traffic(
            answers=self.answers,
            panes={places[n]: panes for n, panes in self.panes.items() if n in places},
            rows={places[n]: rows for n, rows in self.rows.items() if n in places},
            watermark_ms=self.watermark_ms,
        )
