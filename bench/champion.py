"""
How often a challenger is promoted, and what many retrainings cost, on seeded outcomes.

Rule of the file: rows are drawn, the product's own functions judge them, and each acceptance says
`pass` or `FAIL`. `new > old`, bounds by rows and undivided risks are known to be wrong: they prove
that the benchmark sees it.

    python bench/champion.py                       # all tables, 80 s of CPU
    python bench/champion.py --table creep --runs 2000
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator

import numpy as np

from stream_monitor.lifecycle.comparison import Paired, paired_means
from stream_monitor.lifecycle.matched_metrics import METRICS, Said, Truth, compared

MARGIN, PROMOTED_MAX, LOSS_MAX = 0.01, 0.05, 0.002
CELLS = (
    (200, 0.10, -0.02),
    (1_000, 0.10, -0.01),
    (1_000, 0.10, -0.005),
    (200, 0.10, 0.0),
    (1_000, 0.10, 0.0),
    (5_000, 0.10, 0.0),
    (1_000, 0.03, 0.0),
    (5_000, 0.10, -0.005),
    (5_000, 0.10, 0.01),
    (1_000, 0.03, 0.02),
)
"""Rows, share of rows where the two differ, true difference of accuracy."""
Rng = np.random.Generator


def outcomes(up: int, down: int, same: int) -> tuple[np.ndarray, np.ndarray]:
    """Right and wrong answers of champion and challenger; `up`: only the challenger is right."""
    counts = [up, down, same]
    return np.repeat([0.0, 1.0, 1.0], counts), np.repeat([1.0, 0.0, 1.0], counts)


def drawn(rng: Rng, rows: int, differ: float, true: float, alpha: float = 0.05) -> Paired:
    """A comparison on fresh rows."""
    up, down, same = rng.multinomial(rows, [(differ + true) / 2, (differ - true) / 2, 1 - differ])
    return paired_means(*outcomes(up, down, same), alpha=alpha)


def at_most(hits: int, runs: int, limit: float) -> str:
    """Whether a share is not shown to be above a limit: so many or more have a chance of 0.1 %."""
    n = np.arange(runs + 1)
    logs = np.array([math.lgamma(k + 1) for k in n])
    mass = np.exp(
        logs[-1] - logs - logs[::-1] + n * math.log(limit) + (runs - n) * math.log1p(-limit)
    )
    return "pass" if mass[hits:].sum() >= 0.001 else "FAIL"


def table_rules(rng: Rng, runs: int) -> Iterator[tuple[str, ...]]:
    """How often each rule promotes."""
    yield ("rows, differ, true difference", "new > old", "lower > 0", "lower > -0.01", "A/A ≤ 5 %")
    for rows, differ, true in CELLS:
        hits = np.zeros(3, int)
        for _ in range(runs):
            found = drawn(rng, rows, differ, true)
            hits += [found.gain > 0, found.lower > 0, found.lower > -MARGIN]
        yield (
            f"{rows:,}, {differ:.0%}, {true:+g}",
            *(f"{n / runs:.1%}" for n in hits),
            at_most(hits[1], runs, PROMOTED_MAX) if true == 0 else "",
        )


def rules_of_creep(rng: Rng) -> dict[str, Callable[[float, float], tuple[bool, bool]]]:
    """By name: promote, and is it proved better, by true differences to champion and anchor."""

    def judged(true: float) -> Paired:
        return drawn(rng, 5_000, 0.1, true)

    def not_worse(champion: float, anchor: float) -> tuple[bool, bool]:
        of_anchor = judged(anchor).lower
        return judged(champion).lower > -MARGIN and of_anchor > -MARGIN, of_anchor > 0

    return {
        "new > old": lambda champion, _: (judged(champion).gain > 0, False),
        "margin, champion": lambda champion, _: (judged(champion).lower > -MARGIN, False),
        "margin, champion and anchor": not_worse,
        "better": lambda champion, _: (judged(champion).lower > 0, True),
    }


def table_creep(rng: Rng, runs: int) -> Iterator[tuple[str, ...]]:
    """20 retrainings in a row, of which none is meant to help."""
    yield ("rule", "true change", "promotions", "accuracy", "p5", "cost on average")
    runs = max(runs // 10, 20)
    for mean, sd in ((0.0, 0.004), (-0.001, 0.001), (-0.003, 0.004)):
        for name, rule in rules_of_creep(rng).items():
            ends, promotions = [], 0
            for _ in range(runs):
                champion = anchor = 0.0
                for _ in range(20):
                    challenger = champion + (rng.normal(mean, sd) if sd else mean)
                    promote, proved = rule(challenger - champion, challenger - anchor)
                    if promote:
                        champion, promotions = challenger, promotions + 1
                        anchor = challenger if proved else anchor
                ends.append(champion)
            cost = -float(np.mean(ends))
            # the default may cost nothing; a margin may cost itself, once and not at each step
            limit = {"better": LOSS_MAX, "margin, champion and anchor": MARGIN}.get(name)
            yield (
                name,
                f"{mean:+g} ± {sd:g}",
                f"{promotions / runs:.1f}",
                f"{-cost:+.4f}",
                f"{np.quantile(ends, 0.05):+.4f}",
                "" if limit is None else f"≤ {limit:g}: {'pass' if cost <= limit else 'FAIL'}",
            )


def table_best_of(rng: Rng, runs: int) -> Iterator[tuple[str, ...]]:
    """The best of several equal challengers, all on the same 1,000 rows."""
    yield ("challengers", "alpha", "divided by their number", "A/A ≤ 5 %")
    for many in (1, 3, 10):
        hits = np.zeros(2, int)
        for _ in range(runs // 2):
            wrong = rng.binomial(1_000, 0.1)
            ups = rng.binomial(wrong, 0.5, many)
            downs = rng.binomial(1_000 - wrong, 0.05 / 0.9, many)
            best = int((ups - downs).argmax())
            pair = outcomes(ups[best], downs[best], 1_000 - ups[best] - downs[best])
            hits += [paired_means(*pair, alpha=a).lower > 0 for a in (0.05, 0.05 / many)]
        shares = (f"{n / (runs // 2):.1%}" for n in hits)
        yield (f"{many}", *shares, at_most(hits[1], runs // 2, PROMOTED_MAX))


def table_units(rng: Rng, runs: int) -> Iterator[tuple[str, ...]]:
    """Equal models, 20 like rows a unit."""
    yield ("units of 20 rows", "by rows", "by units", "A/A ≤ 5 %")
    for units in (50, 100, 500):
        code, none = np.repeat(np.arange(units), 20), np.zeros(units * 20)
        hits = np.zeros(2, int)
        for _ in range(runs // 2):
            gain = np.repeat(rng.choice([-1.0, 0.0, 1.0], units, p=[0.1, 0.8, 0.1]), 20)
            hits += [paired_means(none, gain, of).lower > 0 for of in (None, code)]
        shares = (f"{n / (runs // 2):.1%}" for n in hits)
        yield (f"{units}", *shares, at_most(hits[1], runs // 2, PROMOTED_MAX))


def answers(rng: Rng, base: np.ndarray) -> Said:
    """One of many equal models: the same signal with noise of its own."""
    score = 1 / (1 + np.exp(-(base + rng.normal(0, 0.7, len(base)))))
    code = (score >= 0.5).astype(int)
    return Said(code, code.astype(float), score)


def table_metrics(rng: Rng, runs: int) -> Iterator[tuple[str, ...]]:
    """Equal models by each metric, 600 rows of 300 units."""
    yield ("metric", "method", "promoted", "A/A ≤ 5 %")
    runs = max(runs // 40, 10)
    for name in ("accuracy", "brier", "log_loss", "precision", "recall", "f1", "roc_auc"):
        hits, method = 0, ""
        for _ in range(runs):
            y = (rng.random(600) < 0.3).astype(int)
            base = rng.normal(0, 1, 300).repeat(2) * 0.7 + 2.2 * y - 1.4
            said = answers(rng, base), answers(rng, base)
            truth = Truth(y, y.astype(float), 1, 2)
            seed = int(rng.integers(1 << 32))
            found = compared(METRICS[name], truth, said, np.arange(300).repeat(2), seed=seed)
            hits, method = hits + (found.lower > 0), found.method
        yield (name, method, f"{hits / runs:.1%}", at_most(hits, runs, PROMOTED_MAX))


TABLES: dict[str, Callable[[Rng, int], Iterator[tuple[str, ...]]]] = {
    "rules": table_rules,
    "creep": table_creep,
    "best-of": table_best_of,
    "units": table_units,
    "metrics": table_metrics,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--table", choices=TABLES)
    parser.add_argument("--runs", type=int, default=20_000, help="repeats of a cell")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    failed = False
    for name, table in TABLES.items():
        if chosen.table not in (None, name):
            continue
        print(f"\n{table.__doc__}\n")
        for number, row in enumerate(table(np.random.default_rng(chosen.seed), chosen.runs)):
            print(f"| {' | '.join(row)} |", flush=True)
            if not number:
                print("|---" * len(row) + "|")
            failed = failed or row[-1].endswith("FAIL")
    print(f"\n{'FAIL' if failed else 'pass'}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
