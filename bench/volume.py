"""
Could the detector on counts watch how many predictions come? False alarms and delays on traffic as
models have it: ten models, calls a minute as if they were a feature, at the default budget.

Rule of the file: everything is seeded. Each world is learnt for five weeks and watched for four.
`docs/architecture.md` has what was decided by it.

    python bench/volume.py
"""

from __future__ import annotations

import numpy as np
from seasons import BLOCK, SETTINGS, START_MS, TOLERANCE, alarms

from stream_monitor.monitors.inputs import Inputs
from stream_monitor.monitors.inputs_state import InputsForm, form_of, restore
from stream_monitor.monitors.rows import Rows
from stream_monitor.settings import Limits
from stream_monitor.state import decode, encode
from stream_monitor.times import DAY_MS, MINUTE_MS

MODELS, MINUTES, LEARN_DAYS, WATCH_DAYS = 10, 1_440, 35, 28
NAMES = tuple(f"m{i}" for i in range(MODELS))
SHARE = 0.05
FAULT_DAYS = 2
WORLDS = ("steady", "day and night", "and weekends", "and busy days", "and bursts", "and a holiday")
"""Each has what those before it have."""


def rates(world: str, rng: np.random.Generator, days: int) -> np.ndarray:
    """Expected calls a minute, (models, minutes)."""
    level, minutes = WORLDS.index(world), np.arange(days * MINUTES)
    day, found = minutes // MINUTES, np.full((MODELS, days * MINUTES), 50.0)
    if level >= 1:
        phase = rng.random((MODELS, 1))
        found *= 1 + 0.9 * np.sin(2 * np.pi * (minutes / MINUTES + phase))
    if level >= 2:
        found *= np.where((day + 3) % 7 >= 5, 0.4, 1.0)
    if level >= 3:
        found *= np.exp(0.1 * rng.normal(size=(MODELS, days)))[:, day]
    if level >= 4:  # retries and batches: ten minutes of three times the calls, thrice a day
        begins = rng.random(found.shape) < 3 / MINUTES
        burst = (
            np.cumsum(begins, axis=1)
            - np.pad(np.cumsum(begins, axis=1), ((0, 0), (10, 0)))[:, :-10]
        )
        found *= np.where(burst > 0, 3.0, 1.0)
    if level >= 5:
        found *= np.where(day == LEARN_DAYS + 10, 0.4, 1.0)
    return found


def made() -> Inputs:
    inputs = Inputs(lambda c: c, SETTINGS, Limits(), tolerance=lambda _: TOLERANCE)
    inputs.drift.days = SETTINGS.days_per_alarm / SHARE * MODELS
    return inputs


def feed(inputs: Inputs, x: np.ndarray, first: int) -> list[tuple[str, int]]:
    """Alarms by model and row; the row of `first` is the first of `x`."""
    found, before = list[tuple[str, int]](), alarms(inputs)
    for at in range(0, x.shape[1], BLOCK):
        part = x[:, at : at + BLOCK]
        minutes = first + at + np.arange(part.shape[1])
        inputs.add(Rows(NAMES, part.copy(), START_MS // DAY_MS * DAY_MS + minutes * MINUTE_MS, []))
        for name, row in alarms(inputs).items():
            if before.get(name) != row:
                found.append((name, row))
                before[name] = row
    return found


def measure(world: str) -> None:
    """One line of the table."""
    rng = np.random.default_rng(WORLDS.index(world))
    calls = rng.poisson(rates(world, rng, LEARN_DAYS + WATCH_DAYS)).astype(np.float64)
    inputs, at = made(), LEARN_DAYS * MINUTES
    learning = len(feed(inputs, calls[:, :at], 0))
    saved = encode(form_of(inputs))
    clean = len(feed(inputs, calls[:, at:], at))
    line = [world, learning, clean]
    for factor in (0.7, 0.3):
        one = made()
        assert inputs.profile is not None
        one.use(inputs.profile)
        restore(one, decode(saved, InputsForm), (), fences_anew=False)
        fault = rng.poisson(calls[:, at : at + FAULT_DAYS * MINUTES] * factor).astype(np.float64)
        found = {n: row - at for n, row in reversed(feed(one, fault, at))}
        hours = sorted(found.values())
        middle = f"{hours[len(hours) // 2] / 60:.1f} h" if hours else "–"
        line.append(f"{len(hours)} of {MODELS}, {middle}")
    print("| " + " | ".join(str(c) for c in line) + " |", flush=True)


def main() -> None:
    """Print the table."""
    print("| traffic | alarms in 5 weeks of learning | in 4 clean weeks | × 0.7: found | × 0.3 |")
    print("| --- | --- | --- | --- | --- |")
    for world in WORLDS:
        measure(world)


if __name__ == "__main__":
    main()
