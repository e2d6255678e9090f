"""
What goes wrong when traffic is split by `request_id % 100`, with the router beside it.

    python bench/modulo_split.py [--users N] [--requests N]

The same users, requests and weights (30 % for b) for both.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from itertools import pairwise

from stream_monitor.client import Router, reassign

SHARE = 30


def modulo(request_id: int) -> str:
    """The split of many tutorials."""
    return "b" if request_id % 100 < SHARE else "a"


def router(experiment: str) -> Router:
    return Router(experiment, reassign([], {"a": 100 - SHARE, "b": SHARE}))


def percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %"


def answer(call: Callable[[], object]) -> str:
    try:
        return str(call())
    except TypeError as e:
        return type(e).__name__


def rows(users: int, requests: int) -> list[tuple[str, str, str]]:
    """What is counted, by the remainder, by the router."""
    r, other = router("one"), router("two")
    callers = [f"user-{i}" for i in range(users)] * requests
    random.Random(17).shuffle(callers)
    seen: tuple[dict[str, set[str]], dict[str, set[str]]] = ({}, {})
    for request_id, user in enumerate(callers):
        seen[0].setdefault(user, set()).add(modulo(request_id))
        seen[1].setdefault(user, set()).add(r(user))
    both = [sum(len(arms) > 1 for arms in by.values()) for by in seen]
    names = [f"user-{i}" for i in range(10 * users)]
    overlap = sum(r(name) == other(name) == "b" for name in names)
    ids = range(len(names))
    steps = [100 * i for i in ids]
    small = Router("small", reassign([], {"a": 99.5, "b": 0.5}))
    thirds = {"a": 33.34, "b": 33.33, "c": 33.33}
    three = Router("three", reassign([], thirds))
    nobody = sum(not any(i % 100 < limit for limit in (33, 66, 99)) for i in ids)
    grown = reassign(reassign([], {"a": 75, "b": 25}), {"a": 66.67, "b": 33.33})
    before, after = Router("grown", reassign([], {"a": 75, "b": 25})), Router("grown", grown)
    modulo_moved = sum((i % 4 < 3) != (i % 3 < 2) for i in ids)
    router_moved = sum(before(name) != after(name) for name in names)
    alternating = sum(modulo(x) != modulo(y) for x, y in pairwise(ids))
    by_chance = sum(r(x) != r(y) for x, y in pairwise(names))
    n = len(names)
    return [
        ("users who see both models", percent(both[0], users), percent(both[1], users)),
        (
            "in b of two experiments at once",
            percent(sum(modulo(i) == "b" for i in ids), n),
            percent(overlap, n),
        ),
        (
            "b's share, ids in steps of 100",
            percent(sum(modulo(i) == "b" for i in steps), n),
            percent(sum(r(i) == "b" for i in steps), n),
        ),
        (
            "b's share if it is to have 0.5 %",
            percent(sum(i % 100 < int(0.5) for i in ids), n),
            percent(sum(small(name) == "b" for name in names), n),
        ),
        (
            "requests without an arm, three of 33 %",
            percent(nobody, n),
            percent(sum(three(name) not in thirds for name in names), n),
        ),
        (
            "users that move, 3 : 1 to 2 : 1 (least: 8.3 %)",
            percent(modulo_moved, n),
            percent(router_moved, n),
        ),
        (
            "neighbours with different arms (42 % by chance)",
            percent(alternating, n - 1),
            percent(by_chance, n - 1),
        ),
        ("the request id 'a-17'", answer(lambda: modulo("a-17")), answer(lambda: r("a-17"))),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=1_000)
    parser.add_argument("--requests", type=int, default=20, help="of each user")
    options = parser.parse_args()
    print(f"{'':50} {'request_id % 100':>17} {'Router':>8}")
    for what, by_modulo, by_router in rows(options.users, options.requests):
        print(f"{what:50} {by_modulo:>17} {by_router:>8}")


if __name__ == "__main__":
    main()
