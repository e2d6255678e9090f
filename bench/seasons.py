"""
Features that depend on the hour of the day: false alarms and delays of the detectors on counts.

Rule of the file: everything is seeded. Each world is learnt for `--learn` days, watched for 168,000
clean rows, and then changed from many places of that time.

    python bench/seasons.py                  # all worlds, at 10,000 and 24,000 rows a day
    python bench/seasons.py --only sine --seed 7
    python bench/seasons.py --only weekend --learn 29   # days of the week take four weeks
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stream_monitor.monitors.inputs import Inputs
from stream_monitor.monitors.inputs_state import InputsForm, form_of, restore
from stream_monitor.monitors.rows import Rows
from stream_monitor.settings import Limits, ModelSettings
from stream_monitor.state import decode, encode
from stream_monitor.times import DAY_MS

Float = NDArray[np.float64]
Int = NDArray[np.int64]
SETTINGS = ModelSettings()
FEATURES, CLEAN_ROWS, BLOCK = 10, 168_000, 2_000
NAMES = tuple(f"f{i}" for i in range(FEATURES))
START_MS = 20_454 * DAY_MS
"""A Thursday."""
TOLERANCE = 0.005
SHARE = 0.5
"""Share of the budget of a model that its features have."""
STARTS, AFTER_ROWS = 20, 6_000


class World:
    """Means of features by time, in standard deviations; normal values around them."""

    def __init__(self, kind: str, seed: int) -> None:
        self.kind, self.rng = kind, np.random.default_rng(seed)
        self.phase = self.rng.random((FEATURES, 1))
        self.jitter = 0.2 * self.rng.normal(size=(FEATURES, 400))
        self.level = self.rng.normal(size=FEATURES)

    def means(self, times_ms: Int) -> Float:
        """(features, n)."""
        day = (times_ms - START_MS) // DAY_MS
        sine = np.sin(2 * np.pi * (times_ms / DAY_MS % 1 + self.phase))
        weekend = np.where((day + 3) % 7 >= 5, -0.5, 0.0)
        if self.kind == "steady":
            return np.zeros_like(sine)
        if self.kind == "weekend":
            return np.broadcast_to(weekend, sine.shape)
        found: Float = 0.5 * (1 + self.jitter[:, day]) * sine
        return found + weekend if self.kind == "sine and weekend" else found

    def rows(self, times_ms: Int, shift: float = 0.0) -> Float:
        """(features, n)."""
        found: Float = (
            self.means(times_ms) + shift + self.rng.normal(size=(FEATURES, len(times_ms)))
        )
        return found


def made() -> Inputs:
    """Features of a model with the defaults."""
    inputs = Inputs(lambda c: c, SETTINGS, Limits(), tolerance=lambda _: TOLERANCE)
    inputs.drift.days = SETTINGS.days_per_alarm / SHARE
    return inputs


def again(saved: bytes, like: Inputs) -> Inputs:
    """Another one that goes on from a snapshot."""
    found = made()
    if like.profile is not None:
        found.use(like.profile)
    restore(found, decode(saved, InputsForm), (), fences_anew=False)
    return found


def feed(inputs: Inputs, world: World, times_ms: Int, shift: float = 0.0) -> dict[str, int]:
    """Rows at some times; alarms by feature, and when the first was, in rows."""
    found: dict[str, int] = {}
    before = {} if inputs.drift.evidence is None else alarms(inputs)
    for at in range(0, len(times_ms), BLOCK):
        times = times_ms[at : at + BLOCK]
        inputs.add(Rows(NAMES, world.rows(times, shift), times, []))
        for name, row in alarms(inputs).items():
            if before.get(name) != row:
                found.setdefault(name, row)
                before[name] = row
                COUNT[0] += 1
    return found


COUNT = [0]
"""Alarms so far."""


def alarms(inputs: Inputs) -> dict[str, int]:
    """By feature the row at which its newest drift was found."""
    evidence = inputs.drift.evidence
    return {} if evidence is None else {n: d.found_row for n, d in evidence.drifted.items()}


def shown(delays: Sequence[float]) -> str:
    """Found within the rows, median and 90th percentile."""
    q50, q90 = np.quantile(delays, [0.5, 0.9], method="higher")
    return f"{q50:6.0f} /{q90:7.0f}"


def measure(kind: str, rows_a_day: int, learn: int, seed: int) -> None:
    """One line of the table."""
    began = time.perf_counter()
    world, inputs = World(kind, seed), made()
    step = DAY_MS / rows_a_day
    n = learn * rows_a_day + CLEAN_ROWS + AFTER_ROWS
    times = START_MS + (np.arange(n) * step).astype(np.int64)
    COUNT[0] = 0
    feed(inputs, world, times[: learn * rows_a_day])
    learning = COUNT[0]
    COUNT[0], at = 0, learn * rows_a_day
    saved: list[tuple[int, bytes]] = []
    for _ in range(STARTS):
        saved.append((at, encode(form_of(inputs))))
        feed(inputs, world, times[at : at + CLEAN_ROWS // STARTS])
        at += CLEAN_ROWS // STARTS
    clean = COUNT[0]
    evidence = inputs.drift.evidence
    assert evidence is not None
    seasonal = int(evidence.seasons.seasonal.sum())
    line = f"{kind:18}{rows_a_day:8,}{seasonal:9}{learning:9}{clean:7}"
    for shift in (0.25, 0.5):
        delays: list[float] = []
        for start, form in saved:
            one = again(form, inputs)
            busy = {w.name for w, _ in one.drift.evidence.open()}  # type: ignore[union-attr]
            first = one.drift.evidence.rows  # type: ignore[union-attr]
            found = feed(one, world, times[start : start + AFTER_ROWS], shift)
            delays += [found.get(n, np.inf) - first for n in NAMES if n not in busy]
        within = np.mean(np.array(delays) <= (2_500 if shift == 0.25 else 800))
        line += f"  {within:6.1%} {shown(delays)}"
    print(f"{line}  {time.perf_counter() - began:5.0f} s", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--learn", type=int, default=15, help="days")
    parser.add_argument("--only", help="one world")
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 24_000], help="a day")
    given = parser.parse_args()
    print(f"{FEATURES} features; alarms while learning and in {CLEAN_ROWS:,} clean rows;")
    print("shift found within 2,500 (800) rows, median / 90th percentile of the delay in rows")
    print(
        f"{'world':18}{'rows/day':>8}{'seasonal':>9}{'learning':>9}{'clean':>7}"
        f"  {'+0.25 sd':24}  {'+0.5 sd':24}"
    )
    for kind in ("steady", "sine", "sine and weekend", "weekend"):
        if given.only in (None, kind):
            for rows in given.rows:
                measure(kind, rows, given.learn, given.seed)


if __name__ == "__main__":
    sys.exit(main())  # type: ignore[func-returns-value]
