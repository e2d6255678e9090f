"""
How often a replay judges, and the settings for events that come from files.

Rule of the file: the length of a step follows from the settings and from the rows, never from a
clock. Pure.
"""

from __future__ import annotations

from math import inf
from typing import NamedTuple

import msgspec

from stream_monitor.monitors.thresholds import MIN_LABELS, newest_rows
from stream_monitor.settings import CoreSettings, Freshness, ModelSettings
from stream_monitor.windows.names import duration_ms

STEPS_MAX = 2_000
"""
Greatest number of steps. A step costs two or three milliseconds, however few events it has, so a
longer input gets longer steps.
"""
STEP_SHARE = 8
"""A step has at most this part of the rows, or of the time, that a judgement needs."""


class Pace(NamedTuple):
    """
    The length of a step, in rows and in log time.

    Every judgement needs a least number of rows. With an eighth of them per step, a replay sees
    every window that a worker would see, whether rows are a second or a week apart. A window of
    time that can contain that many rows is judged as often as its length requires.
    """

    least_rows: int
    """Fewest rows that any judgement needs."""
    windows_ms: tuple[int, ...]
    """Windows of time that thresholds judge, and how long alerts wait (`for`), ascending."""
    silence_ms: float
    """The shortest silence that raises an alert."""
    retire_ms: int
    """The shortest silence after which a version retires."""
    span_ms: float
    """Least length of a step, unless a window needs a shorter one."""

    @classmethod
    def of(cls, core: CoreSettings, span_ms: int) -> Pace:
        """
        The pace for an input with `span_ms` between its first and its last event.

        Examples
        --------
        >>> Pace.of(of_files(CoreSettings()), 365 * 86_400_000)[:3]
        (100, (), inf)
        """
        models = [core.defaults, *core.models.values()]
        rules = [(m, rule) for m in models for rule in m.thresholds.values()]
        judged = {rule.window or newest_rows(m) for m, rule in rules}
        windows = {d for name in judged if (d := duration_ms(name)) is not None} | {
            rule.for_ms for _, rule in rules if rule.for_ms
        }
        silences = [
            t for m in models for t in (m.freshness.predictions_ms, m.freshness.labels_ms) if t
        ]
        least = min(
            [
                MIN_LABELS,
                *(rule.min_labels for _, rule in rules),
                *(m.quality.min_rows for m in models),
            ]
        )
        return cls(
            least,
            tuple(sorted(windows)),
            min(silences, default=inf),
            min(m.silence_ms for m in models),
            span_ms / STEPS_MAX,
        )

    @property
    def rows(self) -> int:
        """Number of predictions, or of labels, in a step."""
        return max(1, self.least_rows // STEP_SHARE)

    def longest_ms(self, crowd_ms: float, *, several: bool) -> float:
        """
        Greatest length of a step, ms.

        Parameters
        ----------
        crowd_ms : float, ms
            Time in which the last `least_rows` rows came: shorter windows have too few rows.
        several : bool
            There are several versions, each of which may be silent while others are not.
        """
        window = next((w for w in self.windows_ms if w >= crowd_ms), inf)
        return min(window, self.silence_ms, self.retire_ms if several else inf) / STEP_SHARE


def of_files(core: CoreSettings) -> CoreSettings:
    """
    Settings for events from files. A gap between two rows is not a silence of a server, unless the
    configuration has a limit of its own.

    Examples
    --------
    >>> of_files(CoreSettings()).defaults.freshness.predictions_ms is None
    True
    """

    def quiet(model: ModelSettings) -> ModelSettings:
        return (
            msgspec.structs.replace(model, freshness=Freshness(predictions_ms=None))
            if model.freshness == Freshness()
            else model
        )

    return msgspec.structs.replace(
        core,
        defaults=quiet(core.defaults),
        models={name: quiet(model) for name, model in core.models.items()},
    )
