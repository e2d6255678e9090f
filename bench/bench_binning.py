"""
Nanoseconds a value of the ways to count values on bins: `python bench/bench_binning.py [--rounds
N]`.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from stream_monitor.stats.binning import bins_of


def by_search(x: np.ndarray, edges: np.ndarray, bounds: np.ndarray) -> np.ndarray:  # noqa: ARG001
    """A binary search a value, and one count of all; cumulative from above, as the other."""
    features, width = edges.shape[0], edges.shape[1] + 2
    found = bins_of(
        np.ascontiguousarray(x.T),
        [np.append(e, np.inf) for e in edges],
        np.arange(features) * width,
    )
    counts = np.bincount(found.ravel(), minlength=features * width).reshape(features, width)[:, :-1]
    return counts[:, ::-1].cumsum(axis=1)[:, ::-1][None, :, 1:].astype(float)


def by_comparison(x: np.ndarray, edges: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """All values against one edge of each feature at a time."""
    values = np.ascontiguousarray(x.T)
    out = np.empty((len(bounds) - 1, edges.shape[0], edges.shape[1]))
    for e in range(edges.shape[1]):
        out[:, :, e] = np.add.reduceat(
            (values >= edges[:, e : e + 1]).view(np.uint8), bounds[:-1], axis=1, dtype=np.int64
        ).T
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    rounds = parser.parse_args().rounds
    rng = np.random.default_rng(0)
    print("rows features   search  compare   (ns a value)")
    for n, features in ((100, 10), (1_000, 10), (1_000, 100)):
        x = np.ascontiguousarray(rng.normal(size=(features, n))).T
        edges = np.sort(rng.normal(size=(features, 21)), axis=1)
        bounds = np.array([0, n])
        assert (by_search(x, edges, bounds) == by_comparison(x, edges, bounds)).all()
        costs = []
        for count in (by_search, by_comparison):
            start = time.process_time()
            for _ in range(rounds):
                count(x, edges, bounds)
            costs.append((time.process_time() - start) / rounds / n / features * 1e9)
        print(f"{n:4} {features:8} {costs[0]:8.1f} {costs[1]:7.1f}")


if __name__ == "__main__":
    main()
