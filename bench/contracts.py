"""
Contracts of data quality on clean data: how much of it breaks a rule that was inferred from other
rows of the same law.

Rule of the file: laws are seeded; the rules are judged here in plain Python, not by the product.

    python bench/contracts.py              # 30 references of 5,000 rows, each with 20,000 new rows
    python bench/contracts.py --references 5
"""

from __future__ import annotations

import argparse
import re
import uuid
from collections.abc import Callable

import numpy as np

from stream_monitor.events.cells import Texts, box
from stream_monitor.monitors.baseline import Profile
from stream_monitor.monitors.learning import learn_features
from stream_monitor.monitors.rows import Rows
from stream_monitor.monitors.version import feature_name
from stream_monitor.offline.contract import Described, described
from stream_monitor.settings import Feature, Limits, ModelSettings

Rng = np.random.Generator
Column = list[object]


def _missing(share: float, of: Callable[[Rng, int, int], Column]) -> Callable[..., Column]:
    def column(rng: Rng, n: int, first: int) -> Column:
        gone = (rng.random(n) < share).tolist()
        return [None if g else v for g, v in zip(gone, of(rng, n, first), strict=True)]

    return column


LAWS: dict[str, Callable[[Rng, int, int], Column]] = {
    "normal": lambda r, n, _: r.normal(0, 1, n).tolist(),
    "uniform": lambda r, n, _: r.random(n).tolist(),
    "lognormal": lambda r, n, _: r.lognormal(3, 1, n).tolist(),
    "t3": lambda r, n, _: r.standard_t(3, n).tolist(),
    "Pareto 1.5": lambda r, n, _: (1 + r.pareto(1.5, n)).tolist(),
    "counts": lambda r, n, _: r.poisson(2, n).tolist(),
    "zeros": lambda r, n, _: np.where(r.random(n) < 0.9, 0.0, r.gamma(2, 20, n)).tolist(),
    "constant": lambda _r, n, _: [7] * n,
    "ids that ascend": lambda _, n, first: list(range(first, first + n)),
    "flags, 1 %": lambda r, n, _: (r.random(n) < 0.01).tolist(),
    "eight categories": lambda r, n, _: [f"c{i}" for i in r.integers(0, 8, n)],
    "rare categories": lambda r, n, _: [
        f"c{i}" for i in r.choice(4, n, p=[0.9, 0.098, 0.0019, 0.0001])
    ],
    "cities, a long tail": lambda r, n, _: [f"city {i}" for i in r.zipf(1.5, n)],
    "codes": lambda r, n, _: [f"T{i:06d}" for i in r.integers(0, 10**6, n)],
    "UUIDs": lambda r, n, _: [str(uuid.UUID(bytes=r.bytes(16))) for _ in range(n)],
    "dates": lambda r, n, _: [f"2024-{m:02d}-{1 + m:02d}" for m in r.integers(1, 13, n)],
    "days": lambda r, n, _: [
        str(np.datetime64("2024-01-01") + int(d)) for d in r.integers(0, 900, n)
    ],
    "words": lambda r, n, _: ["".join(map(chr, 97 + r.integers(0, 26, 5))) for _ in range(n)],
    "missing 5 %": _missing(0.05, lambda r, n, _: r.normal(0, 1, n).tolist()),
    "missing 0.1 %": _missing(0.001, lambda r, n, _: r.normal(0, 1, n).tolist()),
}


def rows_of(columns: dict[str, Column]) -> Rows:
    """Columns as rows of a model."""
    texts = Texts()
    cells = np.array([[box(v, texts) for v in values] for values in columns.values()])
    n = cells.shape[1]
    return Rows(tuple(f"features.{c}" for c in columns), cells, np.arange(n), texts.names)


def contract_of(columns: dict[str, Column]) -> dict[str, Described]:
    """The contract of columns."""
    rows = rows_of(columns)
    features = learn_features([rows], feature_name, ModelSettings(), Limits())
    return described([rows], Profile(features=features, rows=len(rows.times_ms)))


def broken(rule: Feature, values: Column) -> int:
    """Values that break a rule; of a share that may be missing, those beyond it."""
    there = [v for v in values if v is not None]
    gone = len(values) - len(there)
    found = gone if rule.required else 0
    if rule.max_missing is not None:
        found = max(gone - int(rule.max_missing * len(values)), 0)
    names = {True: "1", False: "0"}
    for value in there:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        text = str(value)
        found += (
            (rule.type == "numeric" and not is_number)
            or (rule.min is not None and is_number and float(text) < rule.min)
            or (rule.max is not None and is_number and float(text) > rule.max)
            or (
                rule.categories is not None
                and (names[value] if isinstance(value, bool) else text) not in rule.categories
            )
            or (rule.pattern is not None and not re.fullmatch(rule.pattern, text))
        )
    return found + (len(there) - len(set(there)) if rule.unique else 0)


def measured(
    law: str, references: int, rows: int = 5_000, new: int = 20_000
) -> tuple[Feature, float]:
    """The rule of the first reference, and the share of new values that break theirs."""
    first, bad = Feature(), 0
    for seed in range(references):
        rng = np.random.default_rng(seed)
        rule = contract_of({"x": LAWS[law](rng, rows, 0)})["x"].rule
        first = first if seed else rule
        bad += broken(rule, LAWS[law](rng, new, rows))
    return first, bad / (references * new)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--references", type=int, default=30)
    references = parser.parse_args().references
    print("| law | a rule | clean values that break it |\n|---|---|---|")
    for law in LAWS:
        rule, share = measured(law, references)
        given = {
            key: value
            for key in rule.__struct_fields__
            if (value := getattr(rule, key)) != getattr(Feature(), key)
        }
        print(f"| {law} | {given} | {share:.4%} |", flush=True)


if __name__ == "__main__":
    main()
