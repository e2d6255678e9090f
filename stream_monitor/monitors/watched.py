"""
The signals that detectors on counts watch, and where their bins are among the sums of a chunk.

Rule of the file: a baseline decides the bins and the alternatives. A feature without values in the
baseline is not watched until it was learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from stream_monitor.arrays import Int
from stream_monitor.detectors.tilts import level_tilts, number_tilts
from stream_monitor.monitors.baseline import FeatureProfile
from stream_monitor.monitors.evidence import Watched
from stream_monitor.monitors.layout import Layout
from stream_monitor.monitors.windowed import MISSING, OFFSET, RANGE, SQUARES, SUM, TYPE
from stream_monitor.settings import OTHER
from stream_monitor.stats.binning import ATOM_SHARE, is_one_value

ATOMS_MAX = 12
"""So many values of a bin of their own have an alternative of their own, the most frequent ones."""
HEAVY_SHARE = 0.05
"""A tail does not take in a value of so great a share."""
TAIL_SHARE = 0.005
"""The first and the last bin of a number have at least so great a share."""
LEVELS_MAX, LEVEL_SHARE = 12, 0.005
"""So many categories have a bin of their own; the others are together."""


def watched_inputs(layout: Layout, tolerance: Callable[[str], float | None]) -> Iterator[Watched]:
    """The signals of a layout, in its order; `tolerance` is None for those without detectors."""
    for name in layout.start:
        allowed = tolerance(name)
        if name not in layout.bare and allowed is not None:
            profile, base = layout.profile.features[name], layout.start[name]
            if name in layout.categories:
                yield _levels(name, profile, base, layout.categories[name], allowed)
            else:
                yield _number(name, profile, base, allowed)


def _number(name: str, profile: FeatureProfile, base: int, tolerance: float) -> Watched:
    """A number: its bins ascend, the last one has the rows without a number."""
    counts = np.array(profile.counts)
    low, high = _end(counts, profile.count), _end(counts[::-1], profile.count)
    inner = range(low + 1, len(counts) - 1 - high)
    groups: list[Sequence[int]] = [
        range(low + 1),
        *((k,) for k in inner),
        range(len(counts) - 1 - high, len(counts)),
    ]
    one = is_one_value(np.array(profile.edges))
    frequent = [g for g, ks in enumerate(groups) if _is_atom(tuple(ks), one, profile)]
    atoms = sorted(frequent, key=lambda g: (-counts[groups[g][0]], g))[:ATOMS_MAX]
    rest = profile.missing + profile.wrong_type + profile.out_of_range
    reference = [int(counts[list(ks)].sum()) for ks in groups]
    places = [tuple(base + OFFSET + k for k in ks) for ks in groups]
    return Watched(
        name,
        number_tilts(np.array([*reference, rest]), (0, len(groups) - 1, *atoms)),
        tolerance,
        (*places, (base + OFFSET + len(counts),)),
        (base + SUM, base + SQUARES),
        edges=tuple(profile.edges[ks[-1]] for ks in groups[:-1]),
    )


def _end(counts: Int, rows: int) -> int:
    """
    How many bins the first one takes in. The bin beyond all values of the baseline is empty there
    by construction, so it is no sample of the law: it is joined with the tail beside it. If the
    least value has much weight, nothing is known to lie beyond it, and the bin stays alone.
    """
    k, total = 0, int(counts[0])
    while k + 2 < len(counts) and total < TAIL_SHARE * rows and counts[k + 1] < HEAVY_SHARE * rows:
        k += 1
        total += int(counts[k])
    return k


def _is_atom(bins: tuple[int, ...], one: NDArray[np.bool_], profile: FeatureProfile) -> bool:
    k = bins[0]
    return (
        len(bins) == 1
        and 0 < k <= len(one)
        and bool(one[k - 1])
        and profile.counts[k] >= ATOM_SHARE * profile.count
    )


def _levels(
    name: str, profile: FeatureProfile, base: int, known: dict[str, int], tolerance: float
) -> Watched:
    """
    A category: its frequent levels, the others, and missing values. Categories that the baseline
    does not have are empty there by construction, so they are joined with rare ones, if there are
    any.
    """
    counts = {level: profile.categories.get(level, 0) for level in known}
    own = [
        level
        for level, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:LEVELS_MAX]
        if n >= LEVEL_SHARE * profile.count
    ]
    rare = [level for level in known if level not in own]
    places: list[tuple[int, ...]] = [(base + OFFSET + known[level],) for level in own]
    reference, labels = [counts[level] for level in own], list(own)
    others = tuple(base + OFFSET + known[level] for level in rare)
    places += [(*others, base + OFFSET + len(known)), (base + MISSING, base + TYPE, base + RANGE)]
    reference += [
        profile.categories.get(OTHER, 0) + sum(counts[level] for level in rare),
        profile.missing + profile.wrong_type + profile.out_of_range,
    ]
    labels += ["other categories", "missing"]
    tilts = level_tilts(np.array(reference))
    return Watched(name, tilts, tolerance, tuple(places), (), tuple(labels))
