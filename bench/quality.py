"""
False alarms and delays of the detectors that are on by default, on seeded streams: `python
bench/quality.py [--values N] [--seeds N]`.
"""

from __future__ import annotations

import argparse

import numpy as np

from stream_monitor.monitors.drift import CLIP_SD, Signal

METHODS: dict[str, dict[str, float]] = {"adwin": {}, "page_hinkley": {}}
T0, HORIZON = 10_000, 5_000


def stream(kind: str, n: int, rng: np.random.Generator) -> np.ndarray:
    if kind == "t3":
        return rng.standard_t(3, n) / np.sqrt(3)
    if kind == "lognormal":
        return (rng.lognormal(size=n) - np.exp(0.5)) / np.sqrt((np.e - 1) * np.e)
    return rng.normal(size=n)


def episodes(values: np.ndarray, *, binary: bool, confirmed: bool) -> dict[str, list[int]]:
    """Rows at which each method fired (or an episode was confirmed)."""
    signal = Signal("x", METHODS)
    signal.state.binary = binary
    out: dict[str, list[int]] = {m: [] for m in METHODS}
    if not confirmed:
        return {m: d.update(values).tolist() for m, d in signal.detectors.items()}
    for start in range(0, len(values), 500):
        before = {m: e.last_row for m, e in signal.state.episodes.items()}
        part = values[start : start + 500]
        signal.update(part, np.arange(start, start + len(part)))
        for m, e in signal.state.episodes.items():
            if e.last_row > before[m]:
                out[m].append(e.last_row)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--values", type=int, default=1_000_000)
    parser.add_argument("--seeds", type=int, default=30)
    a = parser.parse_args()
    print(
        f"false alarms in {a.values:,} clean values: as fired / confirmed (features cut at "
        f"{CLIP_SD:g} sd)"
    )
    for kind in ("normal", "t3", "lognormal", "errors 0.1"):
        rng = np.random.default_rng(1)
        binary = kind.startswith("errors")
        values = (
            (rng.random(a.values) < 0.1).astype(float) if binary else stream(kind, a.values, rng)
        )
        raw = episodes(values, binary=binary, confirmed=False)
        kept = episodes(
            values if binary else np.clip(values, -CLIP_SD, CLIP_SD), binary=binary, confirmed=True
        )
        print(f"  {kind:12}" + "".join(f"  {m} {len(raw[m])} / {len(kept[m])}" for m in METHODS))
    print(
        f"drifts found within {HORIZON:,} values, and median delay to the firing; an episode "
        "opens 200 values later"
    )
    for name, shift, rate in (
        ("normal +0.25 sd", 0.25, None),
        ("normal +0.5 sd", 0.5, None),
        ("normal +1 sd", 1.0, None),
        ("errors 0.1 to 0.2", 0.0, (0.1, 0.2)),
        ("errors 0.05 to 0.1", 0.0, (0.05, 0.1)),
    ):
        delays: dict[str, list[int]] = {m: [] for m in METHODS}
        for seed in range(a.seeds):
            rng = np.random.default_rng([7, seed])
            n = T0 + HORIZON
            late = np.arange(n) >= T0
            values = (
                (rng.random(n) < np.where(late, rate[1], rate[0])).astype(float)
                if rate
                else np.clip(rng.normal(size=n) + shift * late, -CLIP_SD, CLIP_SD)
            )
            for m, rows in episodes(values, binary=rate is not None, confirmed=True).items():
                delays[m] += [r - T0 for r in rows if r >= T0][:1]
        print(
            f"  {name:20}"
            + "".join(
                f"  {m} {len(d) / a.seeds:.0%} {int(np.median(d)) if d else '-'}"
                for m, d in delays.items()
            )
        )


if __name__ == "__main__":
    main()
