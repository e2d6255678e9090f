"""
What a replay says of experiments that counted nothing, or hardly anything.

Rule of the file: a run whose experiment saw nothing has failed, and the sentence says which column
is missing. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from stream_monitor.experiments.definition import Definition
from stream_monitor.experiments.words import LEFT_OUT
from stream_monitor.offline.outcome import MOST, Note

WAYS_OUT = {
    "unknown_arm": "the arms are {arms}; --map variant=COLUMN names the column of arms",
    "no_unit": "--map unit=COLUMN names the column of units (users, sessions); if every call is a "
    'unit of its own, write "unit": "event" into the experiment',
    "before_start": "without `at` the experiment begins with the first row",
}


def experiment_notes(
    definitions: Iterable[Definition], summary: Mapping[str, Any], refused: Iterable[bytes]
) -> Iterator[Note]:
    """
    Sentences on the experiments of a finished replay.

    Parameters
    ----------
    definitions : iterable of Definition
    summary : mapping
        The content of `summary.json`.
    refused : iterable of bytes
        Events of the file that the fold refused (`experiment_refused`).
    """
    events = [msgspec.json.decode(value) for value in refused]
    for event in events:
        kind = event["refused"].removeprefix("experiment_")
        yield Note(
            f"experiment {event.get('experiment', '')}: event {kind} refused: {event['reason']}",
            fails=True,
        )
    for d in definitions:
        e = summary.get("experiments", {}).get(d.model, {}).get(d.name)
        if e is not None:
            yield from _begun(d, e, summary["models"])
        elif not any(event.get("experiment") == d.name for event in events):
            yield Note(
                f"experiment {d.name} was not begun: no row is as late as its `at`", fails=True
            )


def _begun(d: Definition, e: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[Note]:
    name = f"experiment {d.name}"
    if not e["rows"]:
        others = ", ".join(map(repr, list(models)[:3])) or "none"
        yield Note(
            f"{name}: no row is of its model {d.model!r} (models of the rows: {others}); --map "
            f"model=:{d.model} makes all rows of it",
            fails=True,
        )
        return
    rows, out = e["rows"], sum(e["left_out"].values())
    # calls that were forgotten had been counted before
    out -= e["left_out"].get("evicted", 0)
    for reason, n in sorted(e["left_out"].items(), key=lambda item: -item[1]):
        way = WAYS_OUT.get(reason, "").format(arms=", ".join(repr(a.name) for a in d.arms))
        most = n > MOST * rows
        what = {
            "unknown_arm": "no row has a `variant` that names an arm",
            "no_unit": "no row has a `unit`",
        }.get(reason, "all rows were left out")
        if n >= rows:
            yield Note(f"{name}: {what} ({n:,} rows); {way}".rstrip("; "), fails=True)
        else:
            text = f"{name}: {n:,} of {rows:,} rows left out: {LEFT_OUT.get(reason, reason)}"
            yield Note(f"{text}; {way}" if most and way else text, fails=most)
    if MOST * rows < out < rows and max(e["left_out"].values()) <= MOST * rows:
        yield Note(f"{name}: most rows were left out ({out:,} of {rows:,})", fails=True)
