"""
The rows of one record of `observations`, by what they are: predictions, failed calls, labels.

Rule of the file: pure conversion; it counts nothing and judges nothing. Texts of outcomes get the
dictionary of the shard, models and versions their codes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_monitor.arrays import Int
from stream_monitor.events.cells import ABSENT, ABSENT_CELL, Cells, Texts, remap, tags, text_indices
from stream_monitor.events.observations import FAILURE, LABEL, LIFECYCLE, Observations
from stream_monitor.events.origins import origins
from stream_monitor.join.join import Join
from stream_monitor.join.rows import LabelRows, Predictions
from stream_monitor.join.store import ANY
from stream_monitor.monitors.registry import Registry
from stream_monitor.monitors.rows import NO_SEGMENTS, Rows
from stream_monitor.settings import OTHER

OUTCOME_TEXTS_MAX = 65_536


class Part(NamedTuple):
    """
    Rows of predictions of one layout; `start` is the place of the first among all predictions of
    the record.
    """

    rows: Rows
    version: Int
    failed: NDArray[np.bool_] | None
    """None: none of them."""


class Separated(NamedTuple):
    predictions: Predictions
    labels: LabelRows
    parts: list[Part]
    """In the order of `predictions`."""
    events: list[tuple[int, str]]
    """Events of experiments: place in the record, and JSON."""


class Separation:
    """Separates records; knows the dictionary of outcomes."""

    def __init__(self, registry: Registry, join: Join) -> None:
        self.registry, self.join = registry, join
        self.texts = Texts()

    def separate(self, obs: Observations, fresh: NDArray[np.bool_]) -> Separated:
        """The rows of a record that were not seen before."""
        kinds, codes, models = self._codes(obs)
        sources = self._sources(obs, fresh)
        predictions: list[Predictions] = []
        labels: list[LabelRows] = []
        parts: list[Part] = []
        events: list[tuple[int, str]] = []
        everything = bool(fresh.all())
        for block in obs.blocks:
            kept = np.arange(len(block.rows)) if everything else np.flatnonzero(fresh[block.rows])
            if not len(kept):
                continue
            cells = block.cells if len(kept) == len(block.rows) else block.cells[:, kept]
            at = block.rows[kept]
            rows = obs.rows[at]
            kind = kinds[rows["group"]]
            is_label, is_event = kind == LABEL, kind >= LIFECYCLE
            if is_event.any():
                events += [
                    (row, obs.head.groups[group].version or "")
                    for row, group in zip(
                        at[is_event].tolist(), rows["group"][is_event].tolist(), strict=True
                    )
                ]
            for mine, of_labels in ((is_label, True), (~is_label & ~is_event, False)):
                if not mine.any():
                    continue
                here: Any = slice(None) if mine.all() else np.flatnonzero(mine)
                if of_labels:
                    labels.append(
                        self._label_rows(
                            obs, block.columns, cells[:, here], at[here], rows[here], models, codes
                        )
                    )
                else:
                    version, failed = codes[rows["group"][here]], kind[here] == FAILURE
                    taken = Rows(
                        block.columns,
                        cells[:, here],
                        rows["time"][here].copy(),
                        obs.head.texts,
                        origins(sources[rows["source"][here]], rows["offset"][here]),
                    )
                    taken = taken._replace(segment=self._segments(taken, version))
                    predictions.append(
                        self._prediction_rows(
                            obs, taken, at[here], rows[here]["id"].copy(), version, failed
                        )
                    )
                    parts.append(Part(taken, version, failed if failed.any() else None))
        joined = _joined_predictions(predictions), _joined_labels(labels)
        return Separated(*joined, parts, sorted(events))

    def _codes(self, obs: Observations) -> tuple[Int, Int, Int]:
        """Kind, version code and model code of each group of the record."""
        kinds, codes, models = [], [], []
        for group in obs.head.groups:
            names_model = group.model and group.kind < LIFECYCLE  # an event makes no model known
            model = self.registry.model(group.model) if names_model else ANY
            version = (
                ANY
                if group.version is None or model == ANY
                else self.registry.version(model, group.version, self.join)
            )
            kinds.append(group.kind)
            models.append(model)
            codes.append(version)
        return np.array(kinds, np.int64), np.array(codes, np.int64), np.array(models, np.int64)

    def _sources(self, obs: Observations, fresh: NDArray[np.bool_]) -> Int:
        """
        Numbers of the sources of the record; new ones get theirs in the order of their first rows.
        """
        names = obs.head.sources
        if not self.registry.knows(names):
            first = np.unique(obs.rows["source"][fresh], return_index=True)
            for source in first[0][np.argsort(first[1])].tolist():
                self.registry.source(names[source])
        return np.array([self.registry.source(name) for name in names], np.int64)

    # ---- predictions

    def _prediction_rows(
        self,
        obs: Observations,
        rows: Rows,
        at: Int,
        ids: NDArray[np.uint64],
        version: Int,
        failed: NDArray[np.bool_],
    ) -> Predictions:
        outcome = self._outcomes(column_of(rows, "prediction"), obs.head.texts)
        return Predictions(
            row=at,
            id=ids,
            time=rows.times_ms,
            version=version,
            outcome=outcome,
            score=column_of(rows, "score"),
            segment=rows.segment if len(rows.segment) else np.zeros(len(version), np.int64),
            probabilities=self._probabilities(rows, version),
            failed=failed,
        )

    def _segments(self, rows: Rows, version: Int) -> Int:
        """The combination of slices of each row; empty if no model of them defines slices."""
        out = NO_SEGMENTS
        for code, index in by_code(version):
            segments = self.registry.versions[code].segments
            if segments is not None:
                out = out if len(out) else np.zeros(len(version), np.int64)
                out[index] = segments.codes(rows.columns, rows.cells[:, index], rows.texts)
        return out

    def _probabilities(self, rows: Rows, version: Int) -> Cells:
        """Class scores in the order of the classes of each version."""
        classes = [c for c in rows.columns if c.startswith("score.")]
        n = len(version)
        if not classes:
            return np.empty((n, 0))
        out = np.full((n, self.join.state.classes), np.nan)
        for code in np.unique(version).tolist():
            if code == ANY:
                continue
            at = np.flatnonzero(version == code)
            places = [
                self.registry.versions[code].class_column(c.removeprefix("score.")) for c in classes
            ]
            if max(places, default=-1) >= self.join.state.classes:
                self.join.widen(max(places) + 1)
                out = np.concatenate(
                    [out, np.full((n, self.join.state.classes - out.shape[1]), np.nan)], axis=1
                )
            for place, name in zip(places, classes, strict=True):
                # two spellings of a class are one
                cells = rows.cells[rows.columns.index(name)][at]
                out[at, place] = np.where(np.isnan(cells), out[at, place], cells)
        return out

    def _outcomes(self, cells: Cells, texts: list[str]) -> Cells:
        """Cells of predictions or labels, with texts in the dictionary of this shard."""
        used = text_indices(cells) if texts else ()
        if not len(used):
            return cells
        table = np.zeros(len(texts), np.int64)
        for i in used.tolist():  # type: ignore[union-attr]
            text = (
                texts[i]
                if texts[i] in self.texts or len(self.texts.names) < OUTCOME_TEXTS_MAX
                else OTHER
            )
            table[i] = int(np.array([self.texts[text]]).view(np.uint64)[0] & np.uint64(0xFFFFFFFF))
        return remap(cells, table)

    # ---- labels

    def _label_rows(
        self,
        obs: Observations,
        columns: tuple[str, ...],
        cells: Cells,
        at: Int,
        rows: NDArray[np.void],
        models: Int,
        codes: Int,
    ) -> LabelRows:
        partition = np.array([int(s.rpartition("/")[2]) for s in obs.head.sources], np.int64)
        taken = Rows(columns, cells, rows["time"].copy(), obs.head.texts)
        model, version = models[rows["group"]], codes[rows["group"]]
        own = self._own(taken, model, version)
        alone = not (own >= 0).any()
        return LabelRows(
            row=at,
            id=rows["id"].copy(),
            model=model,
            version=version,
            label=self._outcomes(column_of(taken, "label"), obs.head.texts),
            time=taken.times_ms,
            partition=partition[rows["source"]],
            offset=rows["offset"].copy(),
            own=own,
            outcome=np.full(len(at), np.nan)
            if alone
            else self._outcomes(column_of(taken, "prediction"), obs.head.texts),
            score=np.full(len(at), np.nan) if alone else column_of(taken, "score"),
            probabilities=np.empty((len(at), 0)) if alone else self._probabilities(taken, own),
        )

    def _own(self, rows: Rows, model: Int, version: Int) -> Int:
        """
        The version whose prediction each label brings along (that of no name where it names none),
        ANY where it brings none or names no model.
        """
        brought = [
            i for i, c in enumerate(rows.columns) if c == "prediction" or c.startswith("score")
        ]
        if not brought:
            return np.full(len(model), ANY, np.int64)
        given = (tags(rows.cells[brought]) != ABSENT).any(axis=0) & (model != ANY)
        own = np.where(given, version, ANY)
        for code in np.unique(model[given & (version == ANY)]).tolist():
            own[given & (version == ANY) & (model == code)] = self.registry.version(
                code, "", self.join
            )
        return own


def column_of(rows: Rows, name: str) -> Cells:
    """One column of rows, absent cells where they do not have it."""
    found: Cells = (
        rows.cells[rows.columns.index(name)]
        if name in rows.columns
        else np.full(rows.cells.shape[1], ABSENT_CELL)
    )
    return found


def by_code(codes: Int) -> Iterator[tuple[int, Any]]:
    """Each code with the index of its rows, in order; a slice when there is one code only."""
    if not len(codes):
        return
    if (codes == codes[0]).all():
        yield int(codes[0]), slice(None)
        return
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(codes)], strict=True):
        yield int(ordered[start]), order[start:end]


def _joined_predictions(parts: list[Predictions]) -> Predictions:
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return Predictions.empty()
    return Predictions(*(_stacked([p[i] for p in parts]) for i in range(len(parts[0]))))


def _joined_labels(parts: list[LabelRows]) -> LabelRows:
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return LabelRows.empty()
    return LabelRows(*(_stacked([p[i] for p in parts]) for i in range(len(parts[0]))))


def _stacked(columns: list[NDArray[Any]]) -> Any:
    """Columns one after the other; matrices of class scores as wide as the widest."""
    if columns[0].ndim == 2:
        width = max(c.shape[1] for c in columns)
        columns = [
            np.concatenate([c, np.full((len(c), width - c.shape[1]), np.nan)], axis=1)
            for c in columns
        ]
    return np.concatenate(columns)
