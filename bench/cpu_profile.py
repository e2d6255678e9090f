"""
Where a worker's CPU goes, by stage, in shares that add up to 100 %: `python bench/cpu_profile.py
[--labels] [--events N] [--rate N] [--native] [--stacks FILE]`.

Rule of the file: py-spy looks at the worker from outside while it is busy; a sample belongs to the
innermost frame that a rule of `STAGES` knows, so that numpy or zstd count where they are called.
Without `--native` the garbage collector counts where it was set off; with it, it has its own line,
but every look takes long: few samples, and a slower worker. Called `cpu_profile`, since a script
`profile.py` would stand in for the standard library's module of that name.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import measure
import workload

ENVIRONMENT = measure.ROOT / ".bench-venv"
STAGES = {
    "garbage collector": r"gc_collect|_PyGC_|deduce_unreachable|subtract_refs|visit_decref|visit_reachable|\w+_traverse\b",  # noqa: E501
    "River": r"/river/|_river_rust|river_adapters\.py",
    "pack and send": r"aiokafka/producer/|\w+_encode\b[^;]*aiokafka/codec|stages/ingest_stage\.py|\bpack\b[^;]*events/observations\.py",  # noqa: E501
    "fetch": r"kafka/(fetching|deliveries)\.py|aiokafka/(consumer|record)/|aiokafka/codec",
    "decode": r"events/(decode|shapes|parse)\.py|\b(take|_buffer|_count)\b[^;]*stream_monitor/ingest\.py",  # noqa: E501
    "pack": r"stream_monitor/ingest\.py",
    "join": r"join/(join|ring|store|waves)\.py",
    "statistics": r"stream_monitor/(monitors|stats|windows|detectors|alerts)/(?!exposition)",
    "unpack": r"\bnext \([^;]*stages/evaluate_stage\.py",
    "snapshots and transactions": (
        r"stages/(snapshots|evaluate_stage|checkpoints|restoring)\.py|\b(snapshot|restore) "
        r"\([^;]*evaluate\.py|join/ring_snapshot\.py"
    ),
    "unpack and route": r"stream_monitor/(evaluate|outcomes)\.py|events/observations\.py",
    "exporter and HTTP": r"runtime/(exporter|http)\.py|stream_monitor/metrics/|monitors/exposition\.py",  # noqa: E501
    "sockets": r"aiokafka/(conn|client|protocol)|asyncio/(selector_events|streams)\.py",
    "Faust and asyncio": r"/(faust|mode|asyncio|aiokafka)/|selectors\.py|stages/(transport|hub)\.py",  # noqa: E501
}
TOGETHER = {"pack": "pack and send", "unpack": "unpack and route"}
"""Rules that are apart only for their order."""
RULES = [(stage, re.compile(rule)) for stage, rule in STAGES.items()]
REST = "rest"
IDLE = re.compile(
    r"(\b_watch \(\S*stages/hub\.py:\d+\)|\bselect "
    r"\(\S*selectors\.py:\d+\)|(nanosleep|cond_timedwait|epoll_wait|\bpoll) "
    r"\([^;]*\)(;0x[^;]*)*) \d+$"
)
"""Stacks of threads that wait, which py-spy sometimes takes for busy."""


def stage_of(stack: str) -> str:
    """
    The stage of a stack, outermost frame first, as py-spy writes it.

    Examples
    --------
    >>> stage_of(
    ...     "run (asyncio/base_events.py:600);next (stream_monitor/stages/ingest_stage.py:90);take (stream_monitor/ingest.py:80);decode (stream_monitor/events/decode.py:105)"
    ... )
    'decode'
    >>> stage_of(
    ...     "fold (stream_monitor/evaluate.py:110);_fold (stream_monitor/monitors/inputs.py:230);reduce (numpy/core/fromnumeric.py:88)"
    ... )
    'statistics'
    """  # noqa: E501
    for frame in reversed(stack.split(";")):
        for stage, rule in RULES:
            if rule.search(frame):
                return TOGETHER.get(stage, stage)
    return REST


def shares(lines: Iterable[str]) -> dict[str, float]:
    """Percent of the samples by stage, the largest first, from lines `frame;frame;… count`."""
    counts: Counter[str] = Counter()
    for line in lines:
        stack, _, n = line.rpartition(" ")
        counts[stage_of(stack)] += int(n)
    total = sum(counts.values())
    return {stage: 100 * n / total for stage, n in counts.most_common()}


def profiler() -> str:
    """py-spy of this environment, of the one of the benchmarks, or on the PATH."""
    for folder in (Path(sys.executable).parent, ENVIRONMENT / "bin"):
        if (folder / "py-spy").exists():
            return str(folder / "py-spy")
    found = shutil.which("py-spy")
    if found is None:
        raise SystemExit("py-spy is not installed: `python bench/compare.py --install` brings it")
    return found


def record(worker: measure.Subject, counter: str, n: int, out: Path, options: list[str]) -> None:
    """
    Sample from the moment a fifth of the events is counted to the last; time without work is left
    out by py-spy.
    """
    while worker.counted(counter) < n / 5:
        time.sleep(0.1)
    command = [
        profiler(),
        "record",
        "--pid",
        str(worker.pid),
        *options,
        "--format",
        "raw",
        "--full-filenames",
        "--duration",
        "600",
        "--output",
        str(out),
    ]
    spy = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        deadline = time.monotonic() + 500
        while worker.counted(counter) < n and spy.poll() is None and time.monotonic() < deadline:
            time.sleep(measure.POLL_S)
    finally:
        if spy.poll() is None:
            spy.send_signal(signal.SIGINT)
        said, _ = spy.communicate(timeout=60)
    if not out.exists():
        raise SystemExit(f"py-spy wrote nothing (it may need to be root): {said[-1_000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument(
        "--labels", action="store_true", help="labelled pairs instead of predictions"
    )
    parser.add_argument("--rate", type=int, help="samples a second: 200, or 20 with --native")
    parser.add_argument("--native", action="store_true", help="look at native frames too")
    parser.add_argument(
        "--stacks", type=Path, help="keep the stacks in this file (for a flame graph)"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--bootstrap", metavar="HOST:PORT")
    a = parser.parse_args()
    profiler()
    options = [
        "--rate",
        str(a.rate or (20 if a.native else 200)),
        *(["--native"] if a.native else []),
    ]
    with measure.broker(a.bootstrap) as bootstrap, measure.workplace() as (folder, prefix):
        workload.produce(bootstrap, prefix, a.events, labels=a.labels)
        stacks = a.stacks or folder / "stacks.txt"
        with measure.running(measure.worker_command(folder, bootstrap, prefix), folder) as worker:
            record(
                worker,
                measure.COUNTERS["pairs" if a.labels else "predictions"],
                a.events,
                stacks,
                options,
            )
        lines = [line for line in stacks.read_text().splitlines() if not IDLE.search(line)]
    found = shares(lines)
    if a.json:
        print(json.dumps({stage: round(share, 1) for stage, share in found.items()}))
        return
    print(f"{sum(int(line.rpartition(' ')[2]) for line in lines):,} samples")
    for stage, share in found.items():
        print(f"{stage:28} {share:5.1f} %")


if __name__ == "__main__":
    main()
