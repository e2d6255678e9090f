"""
Bins of numbers: their edges, and the counts on them, which are the hot path of every input
statistic.

Rule of the file: a bin contains its lower edge. A value with much weight has a bin of its own. The
first bin lies below all values of the baseline and the last above them, so no value moves unseen.
"""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

from stream_monitor.arrays import Float, Int, are_numbers

BINS = 20
"""A value of so great a share has a bin of its own; other bins have no greater one."""
DISTINCT_MAX = 25
"""So few values have a bin each."""
ATOM_SHARE, ATOMS_MORE = 0.005, 5
"""So many other values have one too, the most frequent ones of so great a share."""
REST_BINS_MIN = 5
CELLS, IN_CELL_MAX = 256, 4
"""Cells of a table of bins, and edges that one of them may have."""
SEARCH_ROWS, SEARCH_MAX = 40, 600
"""The fixed cost of a search in rows, and rows times features up to which a table is slower."""
TAIL = 0.01
"""Share of the values beyond which bins are as wide as they come."""
STEPS = 10
"""Between the tails no bin is wider than this part of the way."""


def edges_of(values: Float) -> Float:
    """
    Edges of the bins of a baseline.

    Parameters
    ----------
    values : (n,) float64, finite, n > 0

    Returns
    -------
    (edges,) float64
        Ascending; the first is the least value, the last the number after the greatest. At most 62
        unless all of up to 25 values

    Notes
    -----
    The bin of one value `v` goes from `v` to the next number. All other values are cut at their
    quantiles, so that no bin has more than a twentieth of all values; between their 1 % and 99 %
    quantiles no bin is wider than a tenth of the way.

    Examples
    --------
    >>> edges_of(np.array([0.0, 0.0, 7.0])).tolist()
    [0.0, 5e-324, 7.0, 7.000000000000001]
    >>> len(edges_of(np.random.default_rng(1).normal(size=5_000)))
    25
    """
    distinct, counts = np.unique(values, return_counts=True)
    few = len(distinct) <= DISTINCT_MAX
    atoms = distinct if few else distinct[_with_weight(counts, len(values))]
    ends = np.array([distinct[0], np.nextafter(distinct[-1], np.inf)])
    edges = [atoms, np.nextafter(atoms, np.inf), ends]
    if not few:
        rest = values[~np.isin(values, atoms)]
        bins = max(REST_BINS_MIN, int(np.ceil(BINS * len(rest) / len(values))))
        cuts = _spread(
            np.quantile(rest, np.concatenate([[TAIL], np.arange(1, bins) / bins, [1 - TAIL]])), ends
        )
        edges += [
            cuts,
            _halves(rest, np.unique(np.concatenate([*edges, cuts])), len(values) / BINS),
        ]
    found: Float = np.unique(np.concatenate(edges) + 0.0)
    return found


def _with_weight(counts: Int, rows: int) -> NDArray[np.bool_]:
    """Which of the distinct values have a bin of their own, by how often they are there."""
    found: NDArray[np.bool_] = counts * BINS >= rows
    others = np.where(found, 0, counts)
    more = np.argsort(-others, kind="stable")[:ATOMS_MORE]
    found[more[others[more] >= ATOM_SHARE * rows]] = True
    return found


def _spread(cuts: Float, ends: Float) -> Float:
    """Quantiles, with more edges between those that are far apart."""
    width = (cuts[-1] - cuts[0]) / STEPS
    found = [cuts]
    if width > 0:
        for low, high in pairwise(cuts.tolist()):
            found.append(
                np.linspace(low, high, max(int(np.ceil((high - low) / width)), 1), endpoint=False)
            )
    edges = np.concatenate(found)
    inside: Float = edges[(edges > ends[0]) & (edges < ends[1])]
    return inside


def _halves(values: Float, edges: Float, most: float) -> Float:
    """More edges, if ties have left a bin with more than `most` values."""
    found: list[float] = []
    place = np.searchsorted(edges, values, side="right")
    for heavy in np.flatnonzero(np.bincount(place) > most).tolist():
        waiting = [np.sort(values[place == heavy])]
        while waiting:
            part = waiting.pop()
            if len(part) > most and part[0] < part[-1]:
                middle = (
                    part[len(part) // 2]
                    if part[len(part) // 2] > part[0]
                    else part[part > part[0]][0]
                )
                found.append(float(middle))
                waiting += [part[part < middle], part[part >= middle]]
    return np.array(found)


def is_one_value(edges: Float) -> NDArray[np.bool_]:
    """
    Which of the bins between edges, the outer two left out, hold one number only.

    >>> is_one_value(edges_of(np.array([0.0, 0.0, 7.0]))).tolist()
    [True, False, True]
    """
    return np.nextafter(edges[:-1], np.inf) >= edges[1:]


def bins_of(x: Float, edges: list[Float], first: Int) -> Int:
    """
    The bin of every value, as a column of a matrix of counts.

    Parameters
    ----------
    x : (features, n) float64
        Contiguous; NaN is one bin beyond the last.
    edges : list of (edges,) float64
        Of each feature, ascending.
    first : (features,) int64
        The column of each feature's first bin; it takes `len(edges) + 2` of them, with that of NaN.

    Returns
    -------
    (features, n) int64
        O(log edges) a value: a binary search. `bench/bench_binning.py` compares it with one
        comparison an edge.

    Examples
    --------
    >>> bins_of(
    ...     np.array([[1.0, 2.0, np.nan]]), [np.array([2.0, 3.0, np.inf])], np.array([10])
    ... ).tolist()
    [[10, 11, 13]]
    """
    found = np.empty(x.shape, np.int64)
    for f, feature in enumerate(edges):
        found[f] = np.searchsorted(feature, x[f], side="right")
    found += first[:, None]
    return found


class BinTable:
    """
    `bins_of` for many values: the place of a value among equally wide cells says its bin, but for
    the few edges within its cell, with which it is compared.

    Parameters
    ----------
    edges : list of (edges,) float64
        As for `bins_of`; the last one is infinite.
    first : (features,) int64
        As for `bins_of`.

    Notes
    -----
    The bins are exactly those of a search. A cell is a function of the value that never falls
    (subtract, multiply, cut off), also as floats. So an edge in a lower cell is less than the
    value, and one in a higher cell is greater. The bits of a float from 0 on, read as a whole
    number, are such a function too, and nearly a logarithm: amounts of money have few edges in a
    cell of that. About 10 ns a value instead of 34 (`bench/bench_binning.py`). A feature with too
    many edges in one cell is searched.

    Examples
    --------
    >>> table = BinTable([np.array([2.0, 3.0, np.inf])], np.array([10]))
    >>> table.bins_of(np.array([[1.0, 2.0, np.nan] * 200]))[:, :3].tolist()
    [[10, 11, 13]]
    """

    def __init__(self, edges: list[Float], first: Int) -> None:
        self.edges, self.first = edges, first
        sizes = np.array([len(e) for e in edges], np.int64)
        self.beyond: Int = first + sizes
        self.joined: Float = np.concatenate([*edges, np.empty(0)])
        self.starts: Int = np.cumsum(sizes) - sizes
        self.low, self.scale = np.zeros((len(edges), 1)), np.zeros((len(edges), 1))
        self.tables: Int = np.arange(len(edges))[:, None] * CELLS
        below = np.zeros((len(edges), CELLS), np.uint16)
        self.by_bits: list[int] = []
        self.searched: list[int] = []
        self.most = 0
        """Edges in one cell."""
        for f, each in enumerate(edges):
            finite = each[np.isfinite(each)]
            most, low, scale, cells = _span(finite)
            if most > 2 and finite[0] >= 0:
                found = _span((finite + 0.0).view(np.int64).astype(np.float64))
                if found[0] < most:
                    most, low, scale, cells = found
                    self.by_bits.append(f)
            self.low[f], self.scale[f] = low, scale
            below[f] = np.searchsorted(cells, np.arange(CELLS))
            if most > IN_CELL_MAX:
                self.searched.append(f)
            else:
                self.most = max(self.most, most)
        self.below = below.ravel()

    def bins_of(self, x: Float) -> Int:
        """The bins of (features, n) float64 values, (features, n) int64."""
        few = len(x) * (x.shape[1] + SEARCH_ROWS) < SEARCH_MAX
        if few or 2 * len(self.searched) > len(x):
            return bins_of(x, self.edges, self.first)
        values = x
        if self.by_bits:
            values = x.copy()
            for f in self.by_bits:
                values[f] = np.ascontiguousarray(x[f]).view(np.int64)
        place = _cells(values, self.low, self.scale).astype(np.int64)
        place += self.tables
        found: Int = self.below.take(place) + self.starts[:, None]
        for _ in range(self.most):  # each edge is compared that may still be below
            found += x >= self.joined.take(found)
        found += (self.first - self.starts)[:, None]
        for f in self.searched:
            found[f] = np.searchsorted(self.edges[f], x[f], side="right") + self.first[f]
        numbers = are_numbers(x)
        if not numbers.all():
            np.copyto(found, self.beyond[:, None], where=~numbers)
        return found


def _cells(x: Float, low: Float | float, scale: Float | float) -> Float:
    """The cell of each value, not yet cut off: never NaN, and 0 below `low`."""
    with np.errstate(over="ignore", invalid="ignore"):
        cells = x - low
        cells *= scale
    cells += 1
    np.fmax(cells, 0, out=cells)
    found: Float = np.fmin(cells, CELLS - 1, out=cells)
    return found


def _span(edges: Float) -> tuple[int, float, float, Int]:
    """
    The most edges in one cell, where cells begin, how many there are in a unit, and the cell of
    each edge. Tails may be long: all that is beyond an edge near the end may be in one cell.
    """
    best = (len(edges) + 1, 0.0, 0.0, np.ones(len(edges), np.int64))
    for low, high in product((0, 1, 2), (-1, -2, -3)):
        if len(edges[low:]) <= -high:
            continue
        with np.errstate(over="ignore", divide="ignore"):
            start, scale = float(edges[low]), float((CELLS - 2) / (edges[high] - edges[low]))
        if 0 < scale < np.inf:
            cells = _cells(edges, start, scale).astype(np.int64)
            most = int(np.bincount(cells).max())
            if most < best[0]:
                best = (most, start, scale, cells)
            if most <= 2:
                break
    return best
