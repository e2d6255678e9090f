"""
Two states of the code on the same events: `python bench/before_after.py --before COMMIT [--after
COMMIT]`.

Predictions, and pairs of predictions with their labels, a CPU-second of a whole worker. Both states
drain the same topics of one broker in turns, and the other one begins each round; the ratio is the
median of the ratios round by round. CPU is of the whole backlog: from the last look before a record
was taken to the first look at all of them counted. The state before is checked out into a folder
that is deleted afterwards; the state after is the working tree, as it is, unless another commit is
named.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import measure
import workload

WORKS = ("predictions", "pairs")


class Turn(NamedTuple):
    """One state in one round."""

    round: int
    work: str
    state: str
    found: measure.Measurement


@contextmanager
def checkout(commit: str | None) -> Iterator[Path]:
    """A folder with the code of a commit; the working tree for none."""
    if commit is None:
        yield measure.ROOT
        return
    with tempfile.TemporaryDirectory(prefix="bench-checkout-") as folder:
        archive = subprocess.run(
            ["git", "archive", commit], cwd=measure.ROOT, capture_output=True, check=True
        )
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        yield Path(folder)


def once(code: Path, work: str, bootstrap: str, prefix: str, n: int) -> measure.Measurement:
    """A worker of this code, from nothing to the last event."""
    workload.forget_state(bootstrap, prefix, workload.INPUTS)
    with measure.workplace() as (folder, _):
        command = measure.worker_command(folder, bootstrap, prefix)
        with measure.running(command, folder, {"PYTHONPATH": str(code)}, cwd=code) as worker:
            return measure.whole(worker, measure.COUNTERS[work], n)


def table(turns: list[Turn], works: list[str]) -> str:
    """Markdown: a CPU-second before and after (median of the rounds), and after / before."""
    lines = [
        "| work | before | after | after / before: min / **median** / max | rounds |",
        "|---|---|---|---|---|",
    ]
    for work in works:
        rate = {
            (t.round, t.state): t.found.per_cpu_s
            for t in turns
            if t.work == work and t.found.complete
        }
        rounds = sorted({r for r, _ in rate if (r, "before") in rate and (r, "after") in rate})
        if not rounds:
            lines.append(f"| {work} | | | no round was complete | 0 |")
            continue
        before, after = ([rate[r, state] for r in rounds] for state in ("before", "after"))
        ratios = [b / a for a, b in zip(before, after, strict=True)]
        shown = f"{min(ratios):.3f} / **{statistics.median(ratios):.3f}** / {max(ratios):.3f}"
        lines.append(
            f"| {work} | {statistics.median(before):,.0f} | {statistics.median(after):,.0f} | "
            f"{shown} | {len(rounds)} |"
        )
    return "\n".join(lines)


def compare(a: argparse.Namespace) -> list[Turn]:
    """All rounds of all works."""
    turns = []
    with measure.broker(a.bootstrap) as bootstrap, measure.workplace() as (_, prefix):
        with checkout(a.before) as before, checkout(a.after) as after:
            states = [("before", before), ("after", after)]
            for work in a.work:
                workload.produce(bootstrap, f"{prefix}{work}.", a.events, labels=work == "pairs")
            for number in range(a.rounds):
                for work in a.work:
                    for state, code in states[:: -1 if number % 2 else 1]:
                        found = once(code, work, bootstrap, f"{prefix}{work}.", a.events)
                        turns.append(Turn(number, work, state, found))
                        told = {
                            "round": number,
                            "work": work,
                            "state": state,
                            "per_cpu_s": round(found.per_cpu_s),
                        }
                        print(json.dumps(told | found._asdict()), file=sys.stderr, flush=True)
        workload.forget_state(bootstrap, prefix, ())
    return turns


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", metavar="COMMIT", required=True)
    parser.add_argument("--after", metavar="COMMIT", help="the working tree if not given")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--events",
        type=int,
        default=400_000,
        help="keep below limits.pending (500,000): before sources were read in step, a worker lost "
        "labels of a longer backlog",
    )
    parser.add_argument("--work", nargs="+", choices=WORKS, default=list(WORKS))
    parser.add_argument("--bootstrap", metavar="HOST:PORT", help="a broker that runs already")
    a = parser.parse_args()
    turns = compare(a)
    print(table(turns, a.work))
    if cut := [t for t in turns if not t.found.complete]:
        sys.exit(f"{len(cut)} of {len(turns)} runs did not count every event")


if __name__ == "__main__":
    main()
