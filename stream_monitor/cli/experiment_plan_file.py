"""
The plan of a whole experiment: its primary outcome and its guards, as lines and as JSON.

Rule of the file: texts only; each outcome is planned as if it were the only one, because a guard
must be shown to be not worse than by its margin, with the risk of the primary outcome.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from stream_monitor.cli.experiment_plan_lines import cells, limits
from stream_monitor.cli.terminal import readable
from stream_monitor.experiments.definition import Definition
from stream_monitor.experiments.planning import Base, Planned


class Part(NamedTuple):
    """An outcome of an experiment, with what it needs."""

    definition: Definition
    """The experiment with this outcome alone."""
    base: Base
    planned: Planned
    is_guard: bool

    @property
    def title(self) -> str:
        """What it is, in words."""
        outcome = self.definition.outcomes[0]
        return f"{'guard ' if self.is_guard else ''}{outcome.metric} {outcome.effect:g}"


def slowest(parts: Sequence[Part]) -> Part:
    """The outcome that takes longest."""
    return max(parts, key=lambda part: part.planned.sequence.calls)


def file_lines(parts: Sequence[Part], power: float) -> list[str]:
    """A table with a line an outcome, and what limits the experiment."""
    arms = list(parts[0].planned.sequence.units)
    head = ["", *(f"units {arm}" for arm in arms), "calls in all", "days"]
    rows = [head, *([part.title, *cells(part.planned.sequence)] for part in parts)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = [
        f"{100 * power:g} % of experiments are decided by, or have shown a guard to be fine by"
    ]
    for row in rows:
        pairs = enumerate(zip(row, widths, strict=True))
        lines.append("  ".join(c.rjust(w) if i else c.ljust(w) for i, (c, w) in pairs).rstrip())
    last = slowest(parts)
    told = limits(last.base, last.planned, several=False)
    lines += ["", f"{last.title} takes longest. {told}"]
    return [readable(line) for line in lines]


def file_json(parts: Sequence[Part], power: float, notes: list[str]) -> str:
    """The same as one JSON object."""
    told: dict[str, Any] = {
        "power": power,
        "outcomes": [
            {
                "metric": part.definition.outcomes[0].metric,
                "guard": part.is_guard,
                "base": part.base._asdict(),
                "planned": msgspec.to_builtins(part.planned),
            }
            for part in parts
        ],
        "longest": slowest(parts).definition.outcomes[0].metric,
        "notes": notes,
    }
    return msgspec.json.format(msgspec.json.encode(told), indent=2).decode()
