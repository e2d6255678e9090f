"""
How soon a worker that dies is replaced: `python bench/recovery.py [--pending N] [--rate N]`.

Method. Two workers on a real Kafka get `--pending` predictions that never get a label, then
`--rate` events a second from a process of its own (`steady.py`). When both have caught
up, one of them is killed (-9); when the survivor has caught up, another worker is started, and later one is ended by SIGTERM. Measured, in seconds after the signal:
  noticed     a survivor closes its partitions to share them anew; after kill -9 the session timeout of 10 s is in it
  taken over  it has opened all partitions of `observations`
  caught up   it shows predictions that were sent no longer ago than before the signal (the worst of the 10 s before it, at least 1 s)
What the next owner had to do again is in its log: records of `observations` folded again; and in
its counters: rows that INGEST had written already and wrote again (dropped as seen). At the end
everything that was sent must be counted, once. CPU seconds are those of each process between signal
and caught up: on a machine that runs the broker and the sender too they say what is whose.
"""  # noqa: E501

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import measure
import steady
import workload
from kafka_server import KafkaServer

POLL_S, LOOK_S = 0.1, 0.25
"""Between looks at a log, and at /metrics, which takes CPU of the workers."""
BEFORE_S, SETTLE_S, LIMIT_S = 10.0, 60.0, 90.0
BEHIND_S_MIN = 1.0
"""Rows wait for a flush and for their reduction, and a look at /metrics takes a while."""
WORKERS, PARTITIONS = 2, workload.PARTITIONS
CLOSED, OPENED = (
    re.compile(r"^.* INFO close: .*observations", re.MULTILINE),
    re.compile(r"^.* INFO open: (.*)$", re.MULTILINE),
)
RESTORED = re.compile(
    r"restored \S+/(\d+): read the snapshot in (\S+) s, replayed (\d+) records after it in (\S+) s"
)


class Worker(measure.Subject):
    """A worker and what its log tells."""

    def log(self) -> str:
        return self.output.read_text(errors="replace")

    def owned(self) -> set[int]:
        """Partitions of `observations` that it opened last."""
        opened = OPENED.findall(self.log())
        return {int(n) for n in re.findall(r"observations/(\d+)", opened[-1])} if opened else set()

    def values(self) -> dict[str, float]:
        """Sums by name of what it shows."""
        out: dict[str, float] = {}
        for line in self.metrics().splitlines():
            if not line.startswith("#"):
                series, _, value = line.rpartition(" ")
                name = series.partition("{")[0] + ("{seen}" if 'outcome="seen"' in series else "")
                out[name] = out.get(name, 0.0) + float(value)
        return out


def until(
    what: str, condition: Any, limit_s: float, workers: list[Worker], poll_s: float = POLL_S
) -> float:
    """Wait; the seconds it took."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > limit_s:
            raise RuntimeError(
                f"not within {limit_s:g} s: {what}\n" + "\n".join(w.said() for w in workers)
            )
        time.sleep(poll_s)
    return time.monotonic() - began


class Site:
    """Workers, the sender, and how far the first is behind the second."""

    def __init__(self, folder: Path, command: list[str], a: argparse.Namespace) -> None:
        self.folder, self.command, self.a = folder, command, a
        self.workers: list[Worker] = []
        self.sender: steady.Steady | None = None
        self.broker_pid = 0
        """0: the broker is not ours."""

    def add(self) -> Worker:
        worker = Worker(self.command, self.folder)
        self.workers.append(worker)
        return worker

    def shown(self, name: str) -> float:
        return sum(w.values().get(name, 0.0) for w in self.workers)

    def behind_s(self) -> float:
        assert self.sender is not None
        return self.sender.behind_s(self.shown("model_predictions_total"))

    def shared(self) -> bool:
        """Whether every partition has one owner, and every worker some."""
        owned = [w.owned() for w in self.workers]
        return all(owned) and sorted(n for of in owned for n in of) == list(range(PARTITIONS))

    def caught_up(self) -> bool:
        """Whether nobody is behind, and all that was sent before is stored."""
        stored = self.shown("stream_monitor_join_pending")
        return self.behind_s() < BEHIND_S_MIN and stored >= self.a.pending

    def settled(self) -> float:
        """
        Wait until nobody is behind; then the worst of the time before a signal, in which no
        partition changes hands.
        """
        while True:
            until("the workers share the partitions", self.shared, LIMIT_S, self.workers)
            limit_s = SETTLE_S + self.a.pending / 10_000
            until("they have caught up", self.caught_up, limit_s, self.workers, LOOK_S)
            began, worst = time.monotonic(), 0.0
            while self.shared() and time.monotonic() - began < self.a.before:
                worst = max(worst, self.behind_s())
                time.sleep(LOOK_S)
            if self.shared() and self.caught_up():
                return worst

    def cpu_s(self) -> dict[str, float]:
        assert self.sender is not None
        pids = {
            "survivor": self.workers[-1].pid,
            "sender": self.sender.pid,
            "broker": self.broker_pid,
        }
        return {
            name: sum(map(int, fields[11:13])) / measure.CLOCK
            for name, pid in pids.items()
            if pid and (fields := measure._stat(pid))
        }

    def lose_one(self, number: signal.Signals) -> dict[str, Any]:
        """Signal the worker that runs longest, and measure until the other has caught up."""
        before, cpu, seen, load = (
            self.settled(),
            self.cpu_s(),
            self.shown("stream_monitor_records_total{seen}"),
            self.shown("stream_monitor_join_pending"),
        )
        waiting = self.shown("model_predictions_total") - self.shown("model_labels_total")
        victim, survivor = self.workers
        held, mark = len(victim.owned()), len(survivor.log())
        began = time.monotonic()
        victim.process.send_signal(number)
        code = victim.process.wait(30)
        ended_s = time.monotonic() - began
        self.workers.remove(victim)
        noticed_s = ended_s + until(
            "the survivor notices",
            lambda: CLOSED.search(survivor.log(), mark),
            LIMIT_S,
            self.workers,
        )
        over_s = noticed_s + until(
            "the survivor owns all",
            lambda: len(survivor.owned()) == PARTITIONS,
            LIMIT_S,
            self.workers,
        )
        caught_s = over_s + until(
            "it has caught up",
            lambda: self.behind_s() <= max(before, BEHIND_S_MIN),
            LIMIT_S,
            self.workers,
            LOOK_S,
        )
        restored = RESTORED.findall(survivor.log()[mark:])
        return {
            "signal": number.name,
            "predictions stored": int(load),
            "of them without a label": int(waiting),
            "partitions of observations that it held": held,
            "exit code": code,
            "ended, s": round(ended_s, 1),
            "noticed, s": round(noticed_s, 1),
            "taken over, s": round(over_s, 1),
            "caught up, s": round(caught_s, 1),
            "behind before, s": round(before, 2),
            "slowest snapshot read, s": max((float(r[1]) for r in restored), default=0.0),
            "records folded again": sum(int(r[2]) for r in restored),
            "slowest fold again, s": max((float(r[3]) for r in restored), default=0.0),
            "rows written again by INGEST": int(
                self.shown("stream_monitor_records_total{seen}") - seen
            ),
            **{
                f"CPU of the {name}, s": round(now - cpu[name], 1)
                for name, now in self.cpu_s().items()
            },
        }


def run(bootstrap: str, broker: KafkaServer | None, a: argparse.Namespace) -> list[dict[str, Any]]:
    with measure.workplace() as (folder, prefix):
        workload.create_topics(bootstrap, [prefix + t for t in workload.INPUTS])
        site = Site(
            folder,
            measure.worker_command(folder, bootstrap, prefix, limits={"pending": a.pending}),
            a,
        )
        site.broker_pid = broker.process.pid if broker and broker.process else 0
        try:
            site.add().wait_ready()  # the first makes the topics
            site.add()
            until("the workers share the partitions", site.shared, LIMIT_S, site.workers)
            site.sender = steady.Steady(
                bootstrap,
                prefix,
                steady.even(a.models),
                fill=a.pending,
                rate=a.rate,
                label_share=a.label_share,
            )
            until(
                "the sender has filled the join",
                lambda: site.sender is not None and site.sender.predictions.value >= a.pending,
                LIMIT_S + a.pending / 5_000,
                site.workers,
            )
            found = []
            for name in a.signals:
                if len(site.workers) < WORKERS:
                    site.add()
                found.append(site.lose_one(signal.Signals[name]))
                print(json.dumps(found[-1]), file=sys.stderr, flush=True)
            predictions, labels = site.sender.stop()
            until(
                "all is counted",
                lambda: (
                    (site.shown("model_predictions_total"), site.shown("model_labels_total"))
                    == (predictions, labels)
                ),
                LIMIT_S,
                site.workers,
            )
            return found
        finally:
            if site.sender is not None and site.sender.process.is_alive():
                site.sender.process.kill()
            for worker in site.workers:
                worker.stop()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--pending", type=int, default=2_000_000, help="predictions that wait for a label"
    )
    parser.add_argument("--rate", type=float, default=20_000, help="events a second")
    parser.add_argument("--label-share", type=float, default=0.25, help="labels among the events")
    parser.add_argument("--models", type=int, default=8)
    parser.add_argument(
        "--signals", nargs="+", choices=("SIGKILL", "SIGTERM"), default=("SIGKILL", "SIGTERM")
    )
    parser.add_argument(
        "--before", type=float, default=BEFORE_S, help="seconds of load before each signal"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--bootstrap", metavar="HOST:PORT")
    a = parser.parse_args()
    with measure.server(a.bootstrap) as (bootstrap, broker):
        found = run(bootstrap, broker, a)
    if a.json:
        print(json.dumps(found))
        return
    for name in found[0]:
        print(f"| {name} | {' | '.join(str(of[name]) for of in found)} |")


if __name__ == "__main__":
    # so that broker and workers are ended too
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))
    main()
