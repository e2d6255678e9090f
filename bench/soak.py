"""
Hours of odd records: `python bench/soak.py [--minutes N] [--rate N] [--odd-share X]`.

Method. One worker on a real Kafka of small retention gets good events of a few models at a steady
rate, and a share of odd records of every kind (`odd_records.py`: broken JSON, deep nesting, NaN,
numbers of 400 digits, bytes that are no UTF-8, repeated keys, tombstones, null keys, odd headers,
records of a megabyte, clocks that are wrong by a day, a century or anything; new models, versions,
features, categories, segments and ids without end, so that every limit is hit), in every codec,
with a transaction that is aborted each ten seconds. Every `--sample` seconds memory, descriptors,
threads, lag, CPU and counters are taken, and /metrics is read whole. Exit 1 when, at the end,
  a record is not accounted for: sent = forwarded + rejected + tombstones by topic, forwarded =
  accepted + duplicates + seen before, dead letters by reason = odd records of that reason (and of
  those that were mutilated at random), good predictions and labels = those shown for their models,
  nothing lost to retention; the memory of the last third of the samples is more than 5 % above that
  of the second third, or more descriptors or threads are open in it (runs of 10 minutes and more).
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import measure
import numpy as np
import soak_sender
import steady
import workload
from kafka_server import KafkaServer

BROKER = {
    "log.segment.bytes": str(64 << 20),
    "log.retention.bytes": str(1 << 30),
    "log.retention.check.interval.ms": "20000",
    "log.segment.delete.delay.ms": "5000",
}
LIMITS = {"models": 20, "versions": 3, "features": 30, "segments": 10, "categories": 10}
"""
Small, so that the flood reaches each of them within seconds; that of predictions that wait is the
default, and is reached in minutes.
"""
STALL_S = 60
GROWTH_MAX, JUDGED_MINUTES = 0.05, 10
DESCRIPTORS_MORE = 3
"""A scrape, or a connection that is made again, may be open just then."""
DISK_FREE_MIN = 10 << 30
RECORDS, DEAD_LETTERS = "stream_monitor_records_total", "stream_monitor_dead_letters_total"
SERIES = re.compile(r"^([a-z_]+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')


class Sample(NamedTuple):
    """The worker at a moment."""

    time_s: float
    rss_mb: float
    descriptors: int
    threads: int
    lag_records: int
    log_time_lag_s: float
    cpu_s: float
    series: int
    scrape_ms: float
    broker_mb: float
    """Its data on disk."""


class Page:
    """What /metrics says: sums of samples by name and labels."""

    def __init__(self, text: str) -> None:
        self.found = [
            (name, dict(LABEL.findall(labels)), float(value))
            for name, labels, value in SERIES.findall(text)
        ]

    def sum(self, name: str, models: set[str] | None = None, **labels: str) -> int:
        return int(
            sum(
                v
                for n, of, v in self.found
                if n == name
                and labels.items() <= of.items()
                and (models is None or of.get("model") in models)
            )
        )

    def most(self, name: str) -> float:
        return max((v for n, _, v in self.found if n == name), default=0.0)

    def by(self, name: str, label: str) -> dict[str, int]:
        out: Counter[str] = Counter()
        for n, of, value in self.found:
            if n == name:
                out[of[label]] += int(value)
        return dict(out)


def sample(worker: measure.Subject, broker: KafkaServer | None, began: float) -> Sample:
    asked = time.monotonic()
    page = Page(worker.metrics())
    took_s = time.monotonic() - asked
    process = Path(f"/proc/{worker.pid}")
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    size = (
        sum(f.stat().st_size for f in (broker.folder / "data").rglob("*.log") if f.exists())
        if broker
        else 0
    )
    lag = (
        page.sum("stream_monitor_consumer_lag_records"),
        page.most("stream_monitor_log_time_lag_seconds"),
    )
    memory, descriptors = (
        int(status["VmRSS"].split()[0]) / 1024,
        len(list((process / "fd").iterdir())),
    )
    return Sample(
        time.monotonic() - began,
        memory,
        descriptors,
        int(status["Threads"]),
        *lag,
        worker.cpu_s(),
        len(page.found),
        took_s * 1e3,
        size / 2**20,
    )


class Count(NamedTuple):
    """What the worker counted, beside what it should have."""

    what: str
    want: int
    got: int
    slack: int = 0
    """So many more are right too."""

    @property
    def is_right(self) -> bool:
        return self.want <= self.got <= self.want + self.slack

    def __str__(self) -> str:
        most = f" to {self.want + self.slack:,}" if self.slack else ""
        return f"{self.what}: {self.want:,}{most} expected, {self.got:,} counted"


def records(topic: str, sent: Counter[tuple[str, str]], page: Page) -> list[Count]:
    """Counts of what became of the records of a topic."""
    of = {outcome: sent[topic, outcome] for outcome in soak_sender.OUTCOMES}
    total, either = sum(of.values()) - of["aborted"], of["either"]
    forwarded, rejected, tombstones = (
        page.sum(RECORDS, topic=topic, outcome=outcome)
        for outcome in ("forwarded", "rejected", "tombstone")
    )
    read = forwarded + rejected + tombstones
    dead = page.sum(DEAD_LETTERS, topic=topic)
    return [
        Count(f"{topic} forwarded + rejected + tombstones", total, read),
        Count(f"tombstones of {topic}", of["tombstone"], tombstones),
        Count(f"{topic} forwarded", of["good"] + of["accepted"], forwarded, either),
        Count(f"dead letters of {topic}", rejected, dead),
        *(
            Count(
                f"dead letters of {topic}, {reason}",
                of[reason],
                page.sum(DEAD_LETTERS, topic=topic, reason=reason),
                either,
            )
            for reason in soak_sender.REJECT_REASONS
        ),
    ]


def rows(sent: Counter[tuple[str, str]], page: Page, models: set[str]) -> list[Count]:
    """Counts of what the evaluation made of the records that were forwarded."""
    forwarded, accepted, duplicate, seen = (
        page.sum(RECORDS, topic="predictions", outcome=outcome)
        for outcome in ("forwarded", "accepted", "duplicate", "seen")
    )
    predicted, labelled = (
        page.sum(f"model_{name}_total", models) for name in ("predictions", "labels")
    )
    every = accepted + duplicate + seen
    lost = page.sum("stream_monitor_lost_records")
    return [
        Count("predictions accepted + duplicate + seen", forwarded, every),
        Count("predictions seen before", 0, seen),
        Count("predictions of the good models", sent["predictions", "good"], predicted),
        Count("labelled predictions of the good models", sent["labels", "good"], labelled),
        Count("records lost to retention", 0, lost),
    ]


def unaccounted(sent: Counter[tuple[str, str]], page: Page, models: set[str]) -> list[str]:
    """Where the counters of the worker differ from what was sent."""
    counts = [count for topic in workload.INPUTS for count in records(topic, sent, page)]
    return [str(count) for count in (*counts, *rows(sent, page, models)) if not count.is_right]


def thirds(samples: list[Sample]) -> list[list[Sample]]:
    """By time."""
    n = len(samples)
    return [samples[n * i // 3 : n * (i + 1) // 3] for i in range(3)]


def growth(samples: list[Sample]) -> dict[str, Any]:
    """Memory and descriptors over the run."""
    parts = thirds(samples)
    half = samples[len(samples) // 2 :]
    slope = (
        float(np.polyfit([s.time_s for s in half], [s.rss_mb for s in half], 1)[0]) * 3_600
        if len(half) > 2
        else 0.0
    )
    return {
        "RSS, MB, by thirds (mean)": [
            round(float(np.mean([s.rss_mb for s in part]))) for part in parts
        ],
        "RSS of the last half, MB an hour": round(slope, 1),
        "descriptors by thirds (least, most)": [
            (min(s.descriptors for s in part), max(s.descriptors for s in part)) for part in parts
        ],
        "threads by thirds (most)": [max(s.threads for s in part) for part in parts],
        "series by thirds (most)": [max(s.series for s in part) for part in parts],
    }


def grown(found: dict[str, Any]) -> list[str]:
    """What is not flat."""
    _, second, last = found["RSS, MB, by thirds (mean)"]
    (_, before), (_, after) = found["descriptors by thirds (least, most)"][1:]
    threads = found["threads by thirds (most)"]
    out = (
        [f"memory grew: {second} MB in the second third, {last} MB in the last"]
        if last > second * (1 + GROWTH_MAX)
        else []
    )
    out += (
        [f"descriptors grew: at most {before} in the second third, {after} in the last"]
        if after > before + DESCRIPTORS_MORE
        else []
    )
    return out + ([f"threads grew: {threads}"] if threads[2] > threads[1] else [])


def settle(
    worker: measure.Subject, sent: Counter[tuple[str, str]], models: set[str]
) -> tuple[Page, list[str], float]:
    """Wait until nothing is missing, or nothing moves any more; what is at last."""
    began = moved = time.monotonic()
    counted = -1
    while True:
        page = Page(worker.metrics())
        missing, now = unaccounted(sent, page, models), page.sum(RECORDS)
        moved, counted = (time.monotonic(), now) if now != counted else (moved, counted)
        if not missing or time.monotonic() - moved > STALL_S:
            return page, missing, time.monotonic() - began
        time.sleep(2)


def watched(
    worker: measure.Subject,
    broker: KafkaServer | None,
    sender: soak_sender.Sender,
    a: argparse.Namespace,
) -> list[Sample]:
    """Samples of the worker until the time is over."""
    began, samples = time.monotonic(), []
    while time.monotonic() - began < a.minutes * 60:
        time.sleep(a.sample)
        samples.append(sample(worker, broker, began))
        now = {k: round(v, 1) for k, v in samples[-1]._asdict().items()}
        line = json.dumps({**now, "sent": sum(sender.sent().values())})
        print(line, file=sys.stderr, flush=True)
        if not sender.process.is_alive() or shutil.disk_usage(worker.output).free < DISK_FREE_MIN:
            raise RuntimeError("the sender ended, or the disk is nearly full")
    return samples


def ended(worker: measure.Subject) -> list[str]:
    """What is wrong with the log and the end of the worker, which is stopped here."""
    lines = worker.output.read_text(errors="replace").splitlines()
    errors = [line for line in lines if " ERROR " in line or " CRITICAL " in line]
    worker.process.terminate()
    code = worker.process.wait(30)
    problems = [f"the worker ended with {code}"] if code else []
    return problems + (
        [f"the log has {len(errors)} errors, the first: {errors[0]}"] if errors else []
    )


def run(bootstrap: str, broker: KafkaServer | None, a: argparse.Namespace) -> dict[str, Any]:
    """The report."""
    models = steady.even(a.models)
    with measure.workplace() as (folder, prefix):
        workload.create_topics(bootstrap, [prefix + t for t in workload.INPUTS])
        command = measure.worker_command(
            folder,
            bootstrap,
            prefix,
            defaults={"baseline": {"rows": 1_000}, "segments": ["country"]},
            limits=LIMITS,
            models={m: {"segments": []} for m in models},
        )
        settings = {"STREAM_MONITOR_WORKER__MAX_RECORD_BYTES": "960000"}
        with measure.running(command, folder, settings) as worker:
            worker.wait_ready()
            shares = {"odd_share": a.odd_share, "label_share": a.label_share}
            sender = soak_sender.Sender(bootstrap, prefix, models, rate=a.rate, **shares)
            began = time.monotonic()
            samples = watched(worker, broker, sender, a)
            sent, sent_s = sender.stop(), time.monotonic() - began
            page, problems, settled_s = settle(worker, sent, set(models))
            ends = ended(worker)
    found = growth(samples)
    problems += (grown(found) if a.minutes >= JUDGED_MINUTES else []) + ends
    return {
        **of_what_was_sent(sent, sent_s),
        "dead letters": page.by(DEAD_LETTERS, "reason"),
        "limits hit": page.by("stream_monitor_limit_hits_total", "limit"),
        "predictions evicted": page.sum("stream_monitor_predictions_evicted_total"),
        "alert events": page.by("stream_monitor_alert_events_total", "status"),
        **found,
        **of_samples(samples),
        "counted after the last record, s": round(settled_s, 1),
        "problems": problems,
    }


def of_what_was_sent(sent: Counter[tuple[str, str]], sent_s: float) -> dict[str, Any]:
    """Lines of the report on the records that were sent."""
    total = sum(sent.values())
    odd = sum(n for (_, outcome), n in sent.items() if outcome != "good")
    return {
        "minutes": round(sent_s / 60, 1),
        "records sent": total,
        "records a second": round(total / sent_s),
        "odd ones among them, %": round(100 * odd / total, 1),
        "sent": {f"{topic}: {outcome}": n for (topic, outcome), n in sorted(sent.items())},
    }


def of_samples(samples: list[Sample]) -> dict[str, Any]:
    """Lines of the report on the worker and the broker while records came."""
    first, last = samples[0], samples[-1]
    cores = (last.cpu_s - first.cpu_s) / (last.time_s - first.time_s)
    return {
        "lag, records (most)": max(s.lag_records for s in samples),
        "log time behind, s (most)": round(max(s.log_time_lag_s for s in samples), 1),
        "slowest /metrics, ms": round(max(s.scrape_ms for s in samples)),
        "cores of the worker": round(cores, 2),
        "broker's data, MB (most)": round(max(s.broker_mb for s in samples)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument(
        "--rate", type=float, default=20_000, help="records a second, odd ones among them"
    )
    parser.add_argument("--odd-share", type=float, default=0.1)
    parser.add_argument("--label-share", type=float, default=0.2)
    parser.add_argument("--models", type=int, default=8, help="good ones")
    parser.add_argument("--sample", type=float, default=10, help="seconds")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--bootstrap", metavar="HOST:PORT")
    a = parser.parse_args()
    with measure.server(a.bootstrap, BROKER) as (bootstrap, broker):
        found = run(bootstrap, broker, a)
    if a.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            if name != "problems":
                print(
                    f"| {name} | "
                    f"{', '.join(f'{k} {n:,}' for k, n in value.items()) if isinstance(value, dict) else value} "  # noqa: E501
                    "|"
                )
        for line in found["problems"]:
            print(f"PROBLEM {line}")
    return 1 if found["problems"] else 0


if __name__ == "__main__":
    # so that broker and workers are ended too
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))
    sys.exit(main())
