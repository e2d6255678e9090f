"""
Counters from the sums of features so far: broken rules, values outside the fences, histograms.

Rule of the file: it only reads, and its numbers never fall.
"""

from __future__ import annotations

from collections.abc import Iterator

from stream_monitor.arrays import Float
from stream_monitor.monitors.inputs import Inputs
from stream_monitor.monitors.windowed import ABOVE, BELOW, OFFSET, PRESENT, SUM


def violations(inputs: Inputs) -> Iterator[tuple[str, str, float]]:
    """(feature, rule, count) of everything that broke a rule."""
    if inputs.profile is not None:
        for name in inputs.layout.start:
            found = inputs.layout.windowed(name, inputs.totals)
            rules = {
                "missing": found.missing,
                "type": found.wrong_type,
                "range": found.out_of_range,
                "category": found.unknown,
            }
            yield from ((name, rule, n) for rule, n in rules.items() if n)
    for name, unique in inputs.value_rules.uniques.items():
        if unique.repeated:
            yield name, "unique", float(unique.repeated)
    of_values = inputs.value_rules
    for (name, rule), (broken, _) in of_values.counts(of_values.totals).items():
        if rule == "pattern" and broken:
            yield name, rule, broken
    for name, n in inputs.unknown.items():
        yield name, "unknown_field", float(n)


def points(inputs: Inputs) -> Iterator[tuple[str, float]]:
    """(feature, count) of values outside the fences."""
    if inputs.profile is not None:
        for name in inputs.layout.numeric:
            yield (
                name,
                float(
                    inputs.totals[inputs.layout.start[name] + BELOW]
                    + inputs.totals[inputs.layout.start[name] + ABOVE]
                ),
            )


def histogram(inputs: Inputs, name: str) -> tuple[Float, float]:
    """Counts on the bins of the baseline, and the sum of the values."""
    assert inputs.profile is not None
    layout, totals = inputs.layout, inputs.totals
    base, i = layout.start[name], layout.numeric.index(name)
    bins = len(inputs.profile.features[name].edges) + 1
    counts = totals[base + OFFSET : base + OFFSET + bins]
    return counts, float(
        layout.mean[i] * totals[base + PRESENT] + layout.sd[i] * totals[base + SUM]
    )
