"""
Proof of exactly-once effects: a real Kafka, several workers, seeded faults, two independent
readers.

    python bench/chaos.py                                     # about three minutes; docs/reliability.md has the long one

Events go in for `--minutes`, evenly; the faults are spread over the same time, in an order the seed
decides. Workers that die are started again, as an orchestrator would. When all is folded, /metrics
is compared with an oracle of the input, and `alerts` with a fresh fold of `observations`. Exit 1 on
any difference, and when a fault that was asked for did not happen.
"""  # noqa: E501

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench import chaos_check as check  # noqa: E402
from bench.chaos_brokers import Brokers  # noqa: E402
from bench.chaos_events import Oracle, stream  # noqa: E402
from bench.chaos_faults import GROUP, TERM_LIMIT_S, Faults  # noqa: E402
from bench.chaos_fleet import Fleet  # noqa: E402

SETTLE_S = 180
CONFIG = """kafka: {{bootstrap_servers: "{bootstrap}"}}
worker: {{group: {group}, metrics: {{port: 0}}}}
defaults:
  windows: [last_100, 1h]
  cooldown: 0s
  baseline: {{rows: 500}}
  thresholds: {{accuracy: 0.8, precision: 0.8, recall: 0.8, mae: 1.5}}
"""
ALLOWED = {1: {0, 1, -signal.SIGKILL, 70, 71, 72}, 3: {0, -signal.SIGKILL, 70}}
"""
Exit codes of workers, by the number of brokers: 1 while no broker is there, 70 to 72 mean "start me
again". 73, a batch that failed, has no excuse here; where two brokers are always there, neither
have 1, 71 and 72.
"""


class Feed(threading.Thread):
    """Sends events evenly over a time; what it sent is in the oracle."""

    def __init__(self, bootstrap: str, options: argparse.Namespace) -> None:
        super().__init__(name="feed", daemon=True)
        self.events, self.seconds = options.events, options.minutes * 60
        self.oracle, self.failed = Oracle(), 0
        self.stream = stream(
            options.seed, options.models, int(time.time() * 1000) - options.events - 60_000
        )
        self.producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "linger.ms": 5,
                "message.timeout.ms": 600_000,
                "log_level": 0,
            }
        )

    def _told(self, error: Any, _: Any) -> None:
        self.failed += error is not None

    def run(self) -> None:
        began = time.monotonic()
        for i, event in enumerate(itertools.islice(self.stream, self.events)):
            value = json.dumps(event.value).encode()
            while True:
                try:
                    self.producer.produce(
                        event.topic, value, event.value["event_id"], on_delivery=self._told
                    )
                    break
                except BufferError:
                    self.producer.poll(0.1)
            self.oracle.take(event)
            if i % 20 == 0:
                self.producer.poll(0)
                time.sleep(max(0.0, began + i * self.seconds / self.events - time.monotonic()))
        self.failed += self.producer.flush(300)


class Chaos:
    """One run."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder = options, folder
        self.brokers = Brokers(options.brokers)
        self.file = folder / "monitor.yaml"
        self.file.write_text(CONFIG.format(bootstrap=self.brokers.proxied, group=GROUP))
        self.fleet = Fleet(self.file, folder)
        self.faults = Faults(options, self.brokers, self.fleet)
        self.problems = self.faults.problems

    # ---- the run

    def run(self) -> dict[str, Any]:
        """All of it; the report."""
        self.brokers.start()
        self.fleet.start(1)  # the first makes the topics
        self._until(
            "the first worker is ready", lambda: self.fleet.running and self.fleet.ready(), 90
        )
        check.keep_all(self.brokers.bootstrap, "alerts")
        for _ in range(self.options.workers - 1):
            self.fleet.add()
        self._until("all workers are ready", self.fleet.ready, 90)
        if self.brokers.several:
            self.faults.rest()
            self.problems += [
                f"{topic} has fewer than {self.options.brokers} replicas"
                for topic in self.brokers.unreplicated()
            ]
        self.began = time.monotonic()
        self.feed = Feed(self.brokers.bootstrap, self.options)
        self.feed.start()
        waiting, end = self.faults.waiting, self.began + self.options.minutes * 60
        self._say(f"{len(waiting)} faults within {self.options.minutes:g} min")
        while waiting:
            time.sleep(max(end - time.monotonic(), 0) / (len(waiting) + 1))
            name = waiting.popleft()
            self._say(name)
            getattr(self.faults, name)()
            if not waiting:
                self.faults.settle()
        while self.feed.is_alive():
            self.feed.join(10)
            self._say("feeding")
        self.brokers.disarm()
        return self._verdict()

    def _until(self, what: str, condition: Any, limit_s: float) -> bool:
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            if condition():
                return True
            time.sleep(2)
        self.problems.append(f"not within {limit_s:g} s: {what}")
        return False

    def _verdict(self) -> dict[str, Any]:
        if self.feed.failed:
            self.problems.append(
                f"{self.feed.failed} events could not be sent: the oracle knows more than the log"
            )
        expected = self.feed.oracle.expected()
        want = {
            (name, sum(of[name] for of in expected.values())) for name in ("predictions", "labels")
        }

        def settled() -> bool:
            got, _ = check.shown(self.fleet.metrics())
            return (
                self.fleet.ready()
                and {
                    (name, sum(of.get(name, 0.0) for of in got.values()))
                    for name in ("predictions", "labels")
                }
                == want
            )

        began = time.monotonic()
        self._until("everything is counted on /metrics", settled, SETTLE_S)
        settled_s = time.monotonic() - began
        time.sleep(3)  # rows wait up to a second before they are reduced
        got, problems = check.shown(self.fleet.metrics())
        self.problems += problems + check.differences("oracle and /metrics", expected, got)
        ended = self.fleet.terminate()
        self.faults.term_s += [s for _, s in ended]
        self.problems += [
            f"SIGTERM at the end: exit {code} after {s:.1f} s"
            for code, s in ended
            if code or s > TERM_LIMIT_S
        ]
        self._say("folding observations again")
        for topic in ("predictions", "labels"):
            self.problems += [
                f"{topic}/{p}: {end - at} records would be read again"
                for p, (at, end) in check.ends(self.brokers.bootstrap, GROUP, topic).items()
                if end != at
            ]
        shards, folded, behind = check.fold(self.brokers.bootstrap, self.file, GROUP)
        alerts = check.Alerts(self.brokers.bootstrap, folded)
        self.problems += (
            behind
            + alerts.problems
            + check.differences("/metrics and the fold", got, check.summaries(shards))
        )
        return self._report(expected, got, alerts, settled_s)

    def _report(
        self, expected: check.Totals, got: check.Totals, alerts: check.Alerts, settled_s: float
    ) -> dict[str, Any]:
        logs = self.fleet.logs()
        counts = [
            (expected.get(k, {}).get(m, 0.0), got.get(k, {}).get(m, 0.0))
            for k in expected.keys() | got.keys()
            for m in ("predictions", "labels")
        ]
        oracle = self.feed.oracle
        happened = self.faults.done | Counter(
            {f"EndTxn {kind}": n for kind, n in self.brokers.hurt.items()}
        )
        self.problems += self.faults.missing()
        for member in self.fleet.ended:
            if member.process.returncode not in ALLOWED[self.options.brokers]:
                self.problems.append(
                    f"worker {member.number} ended with "
                    f"{member.process.returncode}:\n{member.log[-2_000:]}"
                )
        return {
            "seed": self.options.seed,
            "events": oracle.events,
            "models and versions": len(expected),
            "repeated predictions": oracle.repeated,
            "corrections": oracle.corrections,
            "labels without a model": oracle.without_model,
            "minutes": round((time.monotonic() - self.began) / 60, 1),
            "workers": self.options.workers,
            **(
                {
                    "brokers": self.options.brokers,
                    "leader changes": dict(sorted(self.brokers.leader_changes.items())),
                }
                if self.brokers.several
                else {}
            ),
            "faults": dict(sorted(happened.items())),
            "exit codes": {str(code): n for code, n in sorted(self.fleet.codes.items())},
            "rebalances": self.brokers.generation,
            "transactions failed": sum(log.count("; reopening the partition") for log in logs),
            "opened again in place": sum(log.count("WARNING reopening ") for log in logs),
            "slowest SIGTERM, s": round(max(self.faults.term_s, default=0.0), 1),
            "counted after the last event, s": round(settled_s, 1),
            "alert transitions": alerts.transitions,
            "alerts in aborted transactions": alerts.aborted,
            "longest silence of a partition, s": round(alerts.silence_s, 1),
            "alerts lost": alerts.lost,
            "alerts twice": alerts.twice,
            "events lost": sum(max(want - is_, 0) for want, is_ in counts),
            "events counted twice": sum(max(is_ - want, 0) for want, is_ in counts),
            "differences": self.problems,
        }

    def _say(self, what: str) -> None:
        at, sent = (
            time.monotonic() - self.began,
            self.feed.oracle.events if hasattr(self, "feed") else 0,
        )
        counted = sum(
            v
            for m in self.fleet.metrics()
            for s, v in m.items()
            if s.startswith("model_predictions_total")
        )
        seen = len(self.feed.oracle.predictions) if hasattr(self, "feed") else 0
        print(
            f"{at:6.0f} s  {sent:>9,} events, {counted:>9,.0f} of {seen:,} predictions "
            f"counted, {len(self.fleet.running)} workers  {what}",
            file=sys.stderr,
            flush=True,
        )

    def close(self) -> None:
        self.fleet.close()
        self.faults.brokers_back(60)  # else it would be started after all have ended
        self.brokers.close()


def parser() -> argparse.ArgumentParser:
    """The options; the defaults are a short run."""
    out = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    out.add_argument("--seed", type=int, default=1)
    out.add_argument("--events", type=int, default=60_000, help="predictions and labels")
    pace = out.add_mutually_exclusive_group()
    pace.add_argument(
        "--minutes", type=float, default=2.0, help="over which events and faults are spread"
    )
    pace.add_argument("--rate", type=float, help="events a second, instead of --minutes")
    out.add_argument(
        "--brokers",
        type=int,
        choices=(1, 3),
        default=1,
        help="three: replication 3, min.insync.replicas 2; faults of brokers hit one at a time, "
        "beyond its session with the controller",
    )
    out.add_argument("--workers", type=int, default=3)
    out.add_argument("--models", type=int, default=30)
    for name, n, what in (
        ("kills", 4, "kill -9"),
        ("zombies", 1, "SIGSTOP beyond the session timeout, until so many were fenced"),
        ("pauses", 0, "short SIGSTOP"),
        ("terms", 1, "SIGTERM"),
        ("scales", 1, "one worker more and one less"),
        ("broker-restarts", 1, "half of them kill -9"),
        (
            "broker-stops",
            0,
            (
                "SIGSTOP of a broker; with three, so long that it wakes up as a leader that no "
                "longer is one"
            ),
        ),
        (
            "elections",
            1,
            "with three brokers: another leader for every partition, with no broker away",
        ),
        ("steals", 0, "stolen transactional ids"),
        (
            "endtxn",
            2,
            (
                "lost or delayed ends of transactions; with three brokers each has a proxy, and "
                "one that coordinates transactions is chosen"
            ),
        ),
    ):
        out.add_argument(f"--{name}", type=int, default=n, help=what)
    out.add_argument("--json", action="store_true")
    out.add_argument("--keep", action="store_true", help="keep the logs of the workers")
    return out


def run(options: argparse.Namespace) -> dict[str, Any]:
    """One run; its report."""
    if options.rate:
        options.minutes = options.events / options.rate / 60
    if options.brokers == 1:
        options.elections = 0
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    chaos = Chaos(options, folder)
    try:
        return chaos.run()
    finally:
        chaos.close()
        if options.keep:
            print(f"logs: {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    options = parser().parse_args()
    report = run(options)
    if options.json:
        print(json.dumps(report))
    else:
        for name, value in report.items():
            if name != "differences":
                print(
                    f"| {name} | "
                    f"{', '.join(f'{k}: {n}' for k, n in value.items()) if isinstance(value, dict) else value} "  # noqa: E501
                    "|"
                )
        for line in report["differences"]:
            print(f"DIFFERENCE {line}")
    return 1 if report["differences"] else 0


def end(*_: object) -> None:
    """
    Told to end: brokers and workers are ended too, whatever else is told meanwhile (`timeout` sends
    SIGTERM twice).
    """
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, signal.SIG_IGN)
    sys.exit(2)


if __name__ == "__main__":
    os.chdir(ROOT)
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, end)
    sys.exit(main())
