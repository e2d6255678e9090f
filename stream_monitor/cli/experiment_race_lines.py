"""
How long bad canaries last, as lines for a terminal and as JSON.

Rule of the file: texts only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from stream_monitor.cli.experiment_plan_lines import count
from stream_monitor.cli.terminal import readable
from stream_monitor.experiments.definition import Definition
from stream_monitor.experiments.race_planning import Raced

NOTES = [
    "each failure is taken as the first one of its user; calls of users who fail again come on top",
    "a canary as good as the control is rolled back in 1 % of experiments at most (alpha_guard)",
    "each guard of the definition makes the race a little longer: they share alpha_guard",
]


def race_lines(definition: Definition, mean: float, found: Sequence[Raced]) -> list[str]:
    """
    A table: calls until half, and nine of ten, of such canaries are rolled back.

    Parameters
    ----------
    definition : Definition
    mean : float, ratio
        Share of the control's calls that fail.
    found : sequence of Raced
    """
    arms = zip(definition.arms, definition.weights, strict=True)
    weights = " · ".join(f"{arm.name} {w / 100:g}" for arm, w in arms)
    arm = found[0].arm
    rows = [["fails", "rolled back", "calls in all", f"calls {arm}", "failures", "days"]]
    for each in found:
        for i, r in enumerate(each.rollbacks):
            cells = (r.calls, r.calls_of_arm, r.failures)
            days = "?" if r.days is None else f"{r.days:.2g}"
            times = f"{each.times:g} times" if i == 0 else ""
            numbers = ("very many" if x is None else count(x) for x in cells)
            rows.append([times, f"{100 * r.share:g} % by", *numbers, days])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    known = f"failed calls: {100 * mean:.3g} % of the control; {weights} %"
    lines = [f"{known}, rollback at evidence {found[0].needed:,.0f}", ""]
    for row in rows:
        pairs = enumerate(zip(row, widths, strict=True))
        lines.append("  ".join(c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in pairs))
    return [readable(line.rstrip()) for line in [*lines, ""]]


def race_json(definition: Definition, mean: float, found: Sequence[Raced], notes: list[str]) -> str:
    """The same as one JSON object."""
    arms = zip(definition.arms, definition.weights, strict=True)
    told: dict[str, Any] = {
        "metric": definition.outcomes[0].metric,
        "mean": mean,
        "weights": {arm.name: w / 100 for arm, w in arms},
        "races": msgspec.to_builtins(found),
        "notes": notes,
    }
    return msgspec.json.format(msgspec.json.encode(told), indent=2).decode()
