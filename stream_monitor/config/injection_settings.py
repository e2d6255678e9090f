"""
What `replay --inject` puts into data: drifts, each with the truth about it.

Rule of the file: values only. `injection_rules` says what a key means, `injection` reads the file.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from stream_monitor.frozen import Frozen

DriftKind = Literal[
    "shift",
    "scale",
    "ramp",
    "noise",
    "stuck",
    "missing",
    "wrong_type",
    "new_level",
    "swap",
    "flip",
    "drop",
]


class Drift(Frozen, frozen=True):
    """One drift: what changes, where, and for how long."""

    kind: DriftKind
    field: str = ""
    by: float | None = None
    unit: Literal["sd", "value"] = "sd"
    share: float = 1.0
    over: int = 1
    value: float | None = None
    level: str = "new"
    levels: tuple[str, ...] = ()
    of: str | None = None
    only: dict[str, str] = msgspec.field(default_factory=dict)
    model: str | None = None
    at: str | None = None
    lasts: str | None = msgspec.field(default=None, name="for")

    @property
    def title(self) -> str:
        """
        What it is, briefly.

        >>> Drift(kind="shift", field="features.amount", by=0.5).title
        'shift of features.amount by 0.5 sd'
        """
        what = f"{self.kind} of {self.field or ('labels' if self.kind == 'flip' else 'rows')}"
        if self.by is not None:
            what += f" by {self.by:g}" + (f" {self.unit}" if self.kind != "scale" else "")
        elif self.share < 1:
            what += f" ({self.share:.3g} of them)"
        where = ", ".join(f"{k}={v}" for k, v in self.only.items())
        return f"{what} where {where}" if where else what


class Injection(Frozen, frozen=True):
    """The whole file."""

    drifts: tuple[Drift, ...]
    repeats: int = 0
    horizon: int = 10_000
    after: int | None = None
    seed: int = 0
