"""
Simulated customers: five numbers about each, and whether they leave.

Before the change people leave when prices rise and support is slow; after it, when they are offered
less than new customers. The signs of two weights turn, so an old model is wrong where it was right.

    python customers.py data/collected.parquet --rows 4000    # the first training data
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

FEATURES = ("price_change", "support_days", "months", "calls", "discount")
BEFORE = (1.6, 1.2, -0.8, 0.3, -0.5)
AFTER = (-1.6, 1.2, -0.8, 0.3, 1.5)
SHARPNESS = 2.5
"""How certain people are: the best model is right in about 87 % of the cases."""


class Customer(NamedTuple):
    """A customer who is asked about, and what came of it."""

    user: str
    features: dict[str, float]
    left: int


def customers(rng: random.Random, *, changed: bool) -> Iterator[Customer]:
    """Customers without end; `changed`: after the world changed."""
    weights = AFTER if changed else BEFORE
    while True:
        values = [rng.gauss(0, 1) for _ in FEATURES]
        risk = SHARPNESS * sum(w * v for w, v in zip(weights, values, strict=True))
        left = int(rng.random() < 1 / (1 + math.exp(-risk)))
        features = {n: round(v, 4) for n, v in zip(FEATURES, values, strict=True)}
        yield Customer(f"user-{rng.randrange(1_000_000)}", features, left)


def main() -> None:
    """Write a file as `stream-monitor collect` writes it."""
    import pyarrow as pa
    from pyarrow import parquet

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--rows", type=int, default=4_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    found = customers(random.Random(given.seed), changed=False)
    rows = [next(found) for _ in range(given.rows)]
    columns = {f"features.{n}": [c.features[n] for c in rows] for n in FEATURES}
    table = pa.table({"label": [c.left for c in rows], **columns})
    given.path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, given.path)


if __name__ == "__main__":
    main()
