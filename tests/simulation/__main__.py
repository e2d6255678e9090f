"""
Simulations by seed; see `tests/simulation/world.py`.

    PYTHONHASHSEED=0 python -m tests.simulation --seeds 0:1000           # exit 1 when a seed went wrong, with what to run to see it again
    PYTHONHASHSEED=0 python -m tests.simulation --seeds 17:18 --verbose
"""  # noqa: E501

from __future__ import annotations

import argparse
import json
import logging
import sys
import warnings
from collections import Counter
from contextlib import nullcontext

from tests.simulation.mutations import WITHOUT
from tests.simulation.world import World


def asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", default="0:200", help="FIRST:END")
    parser.add_argument(
        "--real",
        action="store_true",
        help="with the product's statistics, instead of a ledger that shows every row",
    )
    parser.add_argument(
        "--at-least-once",
        action="store_true",
        help="without transactions: alerts may be repeated, and nothing else",
    )
    parser.add_argument(
        "--without",
        choices=WITHOUT,
        help="take one rule away, and end with 0 at the first seed that notices",
    )
    parser.add_argument("--verbose", action="store_true", help="with the workers' log")
    return parser.parse_args()


def main() -> int:
    options = asked()
    warnings.simplefilter("ignore")
    logging.basicConfig(level=logging.DEBUG) if options.verbose else logging.disable(
        logging.CRITICAL
    )
    first, end = map(int, options.seeds.split(":"))
    hits, exits, totals, bad = Counter[str](), Counter[str](), Counter[str](), 0
    for seed in range(first, end):
        world = World(seed, real=options.real, once=not options.at_least_once)
        with WITHOUT[options.without]() if options.without else nullcontext():
            wrong = world.run()
        for line in wrong:
            print(f"seed {seed}: {line}", file=sys.stderr)
        if wrong and options.without:
            return 0
        if wrong:
            bad += 1
            print(
                "again: PYTHONHASHSEED=0 python -m tests.simulation --seeds "
                f"{seed}:{seed + 1} "
                f"--verbose{' --real' * options.real}{' --at-least-once' * options.at_least_once}",
                file=sys.stderr,
                flush=True,
            )
        hits += world.hits
        exits += Counter(str(p.exit_code) for p in world.processes)
        totals += Counter(
            events=len(world.sent),
            workers=len(world.processes),
            rebalances=world.broker.rebalances,
            fenced=world.broker.fenced,
            virtual_s=int(world.now),
        )
    print(
        json.dumps(
            {
                "seeds": end - first,
                "wrong": bad,
                **totals,
                "exits": exits,
                "faults": dict(sorted(hits.items())),
            }
        )
    )
    return 1 if bad or options.without else 0


if __name__ == "__main__":
    sys.exit(main())
