"""
The definition of an experiment: its events on `lifecycle`, read and checked.

Rule of the file: pure functions of an event. A definition that cannot work is refused, with the
key, its value and the way out. Everything except the weights is fixed at the start.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from stream_monitor.alerts.wording import duration
from stream_monitor.errors import InputError
from stream_monitor.events.parse import text_time
from stream_monitor.experiments.measures import Outcome, check_caps, check_outcomes
from stream_monitor.windows.names import duration_ms

STARTED, CHANGED, STOPPED = "experiment_started", "experiment_changed", "experiment_stopped"
TYPES = (STARTED, CHANGED, STOPPED)
"""Types of events that change an experiment; INGEST puts them into the log that is folded."""
SLOTS = 10_000
"""Weights are whole hundredths of a percent."""
ARMS_MAX, PHASES_MAX, NAME_CHARS_MAX = 8, 32, 128
DURATION_MS = (86_400_000, 14 * 86_400_000)
DURATION = re.compile("[0-9]{1,8}(ms|s|m|h|d)")
OnRollback = Literal["tell", "stop"]
"""What a verdict `rollback` does: nothing else, or the control takes over from the arm."""


class Arm(msgspec.Struct, frozen=True):
    """One of the things that are compared."""

    name: str
    version: str | None = None
    """Rows without a `variant` that have this version belong to it."""


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """The event that begins an experiment, as it is written."""

    model: str
    experiment: str
    arms: tuple[Arm | str, ...]
    primary: Outcome
    weights: dict[str, float] | None = None
    guards: tuple[Outcome, ...] = ()
    unit: str = "user"
    """What was randomised; `event`: every call is a unit of its own."""
    maturity: str | int = 0
    settle: str | int = "1m"
    report_at: int = 0
    window: str | int = 0
    """A unit counts once, when so much time is over after its first call; 0: as its calls come."""
    duration: tuple[str | int, str | int] | None = None
    alpha: float = 0.05
    alpha_guard: float = 0.01
    alpha_mismatch: float = 0.001
    steps: tuple[float, ...] = ()
    on_rollback: OnRollback = "tell"
    at: str | None = None


class Definition(msgspec.Struct, frozen=True, kw_only=True):
    """An experiment that was checked."""

    model: str
    name: str
    arms: tuple[Arm, ...]
    """The first is the control."""
    weights: tuple[int, ...]
    """Weights of the first phase by arm, in hundredths of a percent."""
    outcomes: tuple[Outcome, ...]
    """Judged by a sequence; the first is the primary one."""
    unit: str
    maturity_ms: int
    report_at: int
    """Numbers are told once an arm has so many outcomes in a phase; 0: only at their times."""
    settle_ms: int
    """
    Log time after a change of weights in which nothing is counted, because model servers hear of
    it at different moments.
    """
    least_ms: int
    """Nothing is promoted earlier."""
    longest_ms: int
    """Later it is inconclusive."""
    alpha: float
    alpha_guard: float
    alpha_mismatch: float
    steps: int
    """Phases that were planned; 0: none."""
    at_ms: int
    """Calls before this event time do not count; 0: all do."""
    on_rollback: OnRollback = "tell"
    races: tuple[Outcome, ...] = ()
    """Guards that are judged by a race of first failures."""
    window_ms: int = 0
    """0: outcomes of a unit count as they come."""


class Changed(NamedTuple):
    """New weights, by name of the arm."""

    model: str
    name: str
    weights: dict[str, float]
    despite: list[str]
    """Arms that may have traffic although they were rolled back."""


def definition_of(event: Mapping[str, Any]) -> Definition:
    """
    The experiment of an `experiment_started` event.

    Parameters
    ----------
    event : mapping
        The JSON object; unknown keys are ignored, as consumers of events do.

    Raises
    ------
    InputError
        It cannot work; the message names the key, its value and what would be right.

    Examples
    --------
    >>> found = definition_of(
    ...     {
    ...         "type": "experiment_started",
    ...         "model": "fraud",
    ...         "experiment": "fraud-17",
    ...         "arms": ["control", "b"],
    ...         "weights": {"control": 99, "b": 1},
    ...         "primary": {"metric": "accuracy", "effect": 0.02},
    ...     }
    ... )
    >>> found.weights, found.outcomes[0].sign, found.least_ms
    ((9900, 100), 1, 86400000)
    """
    if event.get("type", "experiment_started") != "experiment_started":
        raise InputError(f"`type` must be experiment_started, not {event['type']!r}")
    check_caps(event)
    try:
        started = msgspec.convert(event, Started)
    except msgspec.ValidationError as e:
        raise InputError(f"experiment_started: {e}") from None
    arms = tuple(Arm(a) if isinstance(a, str) else a for a in started.arms)
    names = [arm.name for arm in arms]
    _check_names(started, names)
    maturity_ms = _duration("maturity", started.maturity)
    check_outcomes(started.primary, started.guards, maturity_ms)
    _check_risks(started)
    least_ms, longest_ms = (
        DURATION_MS
        if started.duration is None
        else [_duration("duration", value) for value in started.duration]
    )
    if least_ms > longest_ms:
        raise InputError(
            f"`duration` is [least, longest]: {started.duration[0]!r} is longer than "  # type: ignore[index]
            f"{started.duration[1]!r}"  # type: ignore[index]
        )
    window_ms = _duration("window", started.window)
    _check_window(started, window_ms, maturity_ms, longest_ms)
    equal = {name: 100 / len(names) for name in names}
    return Definition(
        model=started.model,
        name=started.experiment,
        arms=arms,
        weights=shares_of(started.weights, names) if started.weights else _nearly(equal),
        outcomes=(started.primary, *(g for g in started.guards if not g.is_race)),
        races=tuple(g for g in started.guards if g.is_race),
        unit=started.unit,
        maturity_ms=maturity_ms,
        report_at=max(started.report_at, 0),
        settle_ms=_duration("settle", started.settle),
        window_ms=window_ms,
        least_ms=least_ms,
        longest_ms=longest_ms,
        alpha=started.alpha,
        alpha_guard=started.alpha_guard,
        alpha_mismatch=started.alpha_mismatch,
        steps=len(started.steps),
        at_ms=_time(started.at),
        on_rollback=started.on_rollback,
    )


def _check_names(started: Started, names: list[str]) -> None:
    for key, value in (("model", started.model), ("experiment", started.experiment)):
        if not 1 <= len(value) <= NAME_CHARS_MAX:
            raise InputError(f"`{key}` must have 1 to {NAME_CHARS_MAX} characters")
    if not 2 <= len(names) <= ARMS_MAX:
        raise InputError(f"`arms` must be 2 to {ARMS_MAX}, the control first, not {names}")
    if len(set(names)) < len(names) or "" in names:
        raise InputError(f"`arms` must have different names that are not empty, not {names}")
    versions = [a.version for a in started.arms if isinstance(a, Arm) and a.version is not None]
    if len(set(versions)) < len(versions):
        raise InputError(f"`arms` must have different versions, not {versions}")


def _check_window(started: Started, window_ms: int, maturity_ms: int, longest_ms: int) -> None:
    if not window_ms:
        return
    if started.unit == "event":
        raise InputError(
            f"`window` ({started.window}) is for units that come again, and with `unit` event each "
            "call is one: leave it out"
        )
    if window_ms + maturity_ms >= longest_ms:
        raise InputError(
            f"`window` ({started.window}) and `maturity` ({started.maturity}) together are not "
            f"shorter than the longest `duration` ({duration(longest_ms / 1e3)}), so no unit would "
            "be complete: give a longer duration"
        )


def _check_risks(started: Started) -> None:
    for key in ("alpha", "alpha_guard", "alpha_mismatch"):
        value = getattr(started, key)
        if not 0 < value < 1:
            raise InputError(f"`{key}` must be between 0 and 1, not {value:g}")
    if len(started.steps) > PHASES_MAX:
        raise InputError(f"`steps` may be {PHASES_MAX} at most")


def check_maturity(definition: Definition, max_delay_ms: int) -> None:
    """
    Refuse to wait longer for labels than the model's predictions do.

    Raises
    ------
    InputError
    """
    if definition.maturity_ms > max_delay_ms:
        raise InputError(
            f"`maturity` ({duration(definition.maturity_ms / 1e3)}) is longer than "
            f"labels.max_delay of model {definition.model!r} ({duration(max_delay_ms / 1e3)}), "
            "after which predictions take no label: set labels.max_delay to at least as much"
        )


def shares_of(weights: Mapping[str, float], names: list[str]) -> tuple[int, ...]:
    """
    Weights in percent as whole hundredths of a percent, by arm.

    Raises
    ------
    InputError
        They are of other arms, not whole hundredths, or do not add up to 100.

    Examples
    --------
    >>> shares_of({"b": 0.5, "control": 99.5}, ["control", "b"])
    (9950, 50)
    """
    if set(weights) != set(names):
        raise InputError(f"`weights` must be those of the arms {names}, not of {sorted(weights)}")
    found = []
    for name in names:
        exact = weights[name] * SLOTS / 100
        if not 0 <= exact <= SLOTS or abs(exact - round(exact)) > 1e-6:
            raise InputError(
                f"`weights.{name}` must be whole hundredths of a percent from 0 to 100, not "
                f"{weights[name]:g}"
            )
        found.append(round(exact))
    if sum(found) != SLOTS:
        raise InputError(f"`weights` must add up to 100, not {sum(found) * 100 / SLOTS:g}")
    return tuple(found)


def diverted(weights: tuple[int, ...], arms: Collection[int]) -> tuple[int, ...]:
    """
    Weights where the control, which is the first, takes over from some arms.

    >>> diverted((5000, 3000, 2000), [2])
    (7000, 3000, 0)
    """
    left = [0 if arm in arms else weight for arm, weight in enumerate(weights)]
    left[0] += sum(weights) - sum(left)
    return tuple(left)


def _nearly(weights: Mapping[str, float]) -> tuple[int, ...]:
    """Equal weights; what cannot be divided goes to the first arms."""
    n = len(weights)
    return tuple(SLOTS // n + (i < SLOTS % n) for i in range(n))


def _duration(key: str, value: str | int) -> int:
    text = str(value)
    found = 0 if value == 0 else duration_ms(text) if DURATION.fullmatch(text) else None
    if found is None:
        raise InputError(f"`{key}` must be a duration such as 10d, 36h or 30m, not {value!r}")
    return found


def _time(at: str | None) -> int:
    found = 0 if at is None else text_time(at)
    if found is None:
        raise InputError(f"`at` must be an RFC 3339 time with an offset, not {at!r}")
    return found


def changed_of(event: Mapping[str, Any]) -> Changed:
    """
    The change of an `experiment_changed` event.

    Raises
    ------
    InputError
        A key is missing or of another type.
    """
    try:
        return Changed(
            msgspec.convert(event.get("model"), str),
            msgspec.convert(event.get("experiment"), str),
            msgspec.convert(event.get("weights"), dict[str, float]),
            msgspec.convert(event.get("despite_rollback") or [], list[str]),
        )
    except msgspec.ValidationError as e:
        raise InputError(
            "experiment_changed needs `model`, `experiment` and `weights`, and a list of arms as "
            f"`despite_rollback` if it is there: {e}"
        ) from None
