"""
Caps that are quantiles of the past, as numbers.

Rule of the file: a cap is known before an experiment begins, and is never learnt inside it:
otherwise the arms decide by which rule they are measured. Outcomes of the past are those that the
fold of experiments counts, so that they mean the same.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from stream_monitor.errors import InputError
from stream_monitor.offline.past import ALL, LONGER, NOBODY, Event, OneArm
from stream_monitor.offline.replay import Replay
from stream_monitor.settings import Settings

QUANTILE = re.compile(r"p([0-9]{1,2}(?:\.[0-9]{1,3})?)")
BEYOND_MIN = 10
"""Outcomes of the past that must be greater than a cap."""
MEASURED = "measured"


class Cap(NamedTuple):
    """A cap that was a quantile."""

    metric: str
    quantile: str
    value: float
    outcomes: int
    """Of the past; at most 200,000, a random sample of them."""


def quantiles(event: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """
    The outcomes of an `experiment_started` event whose cap is a text.

    >>> spent = {"metric": "features.spent", "effect": 1, "cap": "p99"}
    >>> [o["metric"] for o in quantiles({"primary": spent, "guards": [{"metric": "error"}]})]
    ['features.spent']
    """
    guards = event.get("guards") or []
    for o in (event.get("primary"), *(guards if isinstance(guards, list | tuple) else [])):
        if isinstance(o, dict) and isinstance(o.get("cap"), str):
            yield o


def resolve(
    event: dict[str, Any], past: Iterable[Event], settings: Settings, *, span_ms: int = 0
) -> list[Cap]:
    """
    Put numbers in place of the quantiles of an event.

    Parameters
    ----------
    event : dict
        Changed in place.
    past : iterable of (kind, value, key, time in ms)
        Calls and labels from before the experiment.
    settings : Settings
    span_ms : int, ms
        From the first event of the past to the last.

    Returns
    -------
    list of Cap

    Raises
    ------
    InputError
        A cap is no quantile, or the past knows too little of it.

    Notes
    -----
    A cap is the smallest outcome that is not less than the given percent of all. The past is folded
    once for each of them.
    """
    wanted = list(quantiles(event))
    shares = [_share(o) for o in wanted]
    measured = {
        "experiment": MEASURED,
        "arms": [ALL, NOBODY],
        "weights": {ALL: 100, NOBODY: 0},
        "unit": "event",
        "primary": _uncapped(wanted[0]),
        "guards": [_uncapped(o) for o in wanted[1:]],
    }
    model = str(event.get("model"))
    replay = Replay(settings, span_ms=LONGER * span_ms)
    replay.feed(OneArm(past, [measured], model))
    replay.close()
    found = [e for shard in replay.shards for e in shard.experiments]
    if not found or not found[0].rows:
        models = ", ".join(replay.summary()["models"]) or "none"
        raise InputError(
            f"the past: no row is of model {model!r} (models of the rows: {models}); --map "
            f"model=:{model} makes all rows of it"
        )
    table = found[0].units.table
    caps = []
    for i, (o, share) in enumerate(zip(wanted, shares, strict=True)):
        n, x = (table.rows(f"{c}{i}", table.tail, table.head) for c in ("n", "x"))
        values = x[n == 1]
        needed = math.ceil(round(BEYOND_MIN / (1 - share), 6))
        if len(values) < needed:
            raise InputError(
                f"`cap` of {o['metric']} is {o['cap']!r}, and the past has {len(values):,} "
                f"outcomes of it; {needed:,} are needed: give a longer past, or a number"
            )
        value = float(np.quantile(values, share, method="inverted_cdf"))
        caps.append(Cap(o["metric"], o["cap"], value, len(values)))
        o["cap"] = value
    return caps


def _share(outcome: Mapping[str, Any]) -> float:
    found = QUANTILE.fullmatch(outcome["cap"])
    if found is None or not 50 <= float(found[1]) < 100:
        raise InputError(
            f"`cap` of {outcome.get('metric')} must be a number, or a quantile from p50 to p99.999 "
            f"such as p99, not {outcome['cap']!r}"
        )
    return float(found[1]) / 100


def _uncapped(outcome: Mapping[str, Any]) -> dict[str, Any]:
    """The outcome as it is: neither capped nor a logarithm."""
    return {k: v for k, v in outcome.items() if k in {"metric", "field"}} | {
        "effect": 0.5,
        "scale": "linear",
    }
