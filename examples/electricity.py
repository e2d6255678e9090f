"""
A real stream from beginning to end: the electricity market of New South Wales (45,312 half-hours,
1996 to 1998), whose prices follow other rules after the first year.

A model learns from the first quarter of the CSV and serves the rest; its predictions and their
labels become files, go through Kafka, and what the worker says of them is held to scikit-learn on
the same rows, and to `stream-monitor replay` of the same files. `docs/electricity.md` says what
comes out. Needs `pip install scikit-learn confluent-kafka`.

    python examples/electricity.py electricity.csv --start-kafka     # or --kafka HOST:PORT, or neither: files and replay alone
"""  # noqa: E501

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import (
    accuracy_score,
    brier_score_loss,
    f1_score,
    log_loss,
    precision_score,
    recall_score,
    roc_auc_score,
)

MODEL, VERSION = "electricity", "1"
FEATURES = ("period", "nswprice", "nswdemand", "vicprice", "vicdemand", "transfer")
YEARS = 20
"""
The event times are moved by whole years: before 2000 they would be rejected as out of range.

Between the ends of the data there is no leap day, before and after.
"""
START_MS = 1_462_579_200_000
"""1996-05-07T00:00:00Z + 20 years."""
HALF_HOUR_MS, HOUR_MS, DAY_MS = 1_800_000, 3_600_000, 86_400_000
LABEL_DELAY_MS = DAY_MS
UNLABELLED = 50
"""One prediction in so many never gets a label."""
WINDOWS_MS = {"7d": 7 * DAY_MS, "30d": 30 * DAY_MS}
CONFIG = """kafka: {{bootstrap_servers: "{bootstrap}", topic_prefix: "{prefix}"}}
worker: {{group: "{prefix}worker", metrics: {{port: 0}}}}
defaults: {{windows: [last_1000, 7d, 30d], labels: {{max_delay: 3d}}}}
"""
WAIT_S = 60.0
TOLERANCE = 1e-9
AUC_TOLERANCE = 0.02
"""Time windows take ROC AUC from bins of the score, within this bound."""
COMMAND = (sys.executable, "-m", "stream_monitor")


class Served(NamedTuple):
    """What was served: one row a prediction, in order of time."""

    time_ms: np.ndarray
    score: np.ndarray
    predicted: np.ndarray
    actual: np.ndarray
    labelled: np.ndarray
    features: np.ndarray

    def labelled_at(self, now_ms: int) -> Served:
        """The rows whose label is known at that time."""
        return Served(
            *(column[self.labelled & (self.time_ms + LABEL_DELAY_MS < now_ms)] for column in self)
        )


def serve(path: str) -> Served:
    """Learn from the first quarter, score the rest."""
    with Path(path).open(newline="") as file:
        rows = [[float(row[name]) for name in (*FEATURES, "class")] for row in csv.DictReader(file)]
    table = np.array(rows)
    x, y = table[:, :-1], table[:, -1].astype(int)
    first = len(table) // 4
    model = HistGradientBoostingClassifier(random_state=0).fit(x[:first], y[:first])
    score = model.predict_proba(x[first:])[:, 1]
    index = np.arange(first, len(table))
    return Served(
        START_MS + index * HALF_HOUR_MS,
        score,
        (score >= 0.5).astype(int),
        y[first:],
        index % UNLABELLED != 0,
        x[first:],
    )


def write(
    served: Served, folder: Path, name: str, since_ms: int, until_ms: int
) -> tuple[Path, Path]:
    """The prediction and label events of a stretch of time, as JSON Lines."""
    paths = folder / f"predictions{name}.jsonl", folder / f"labels{name}.jsonl"
    with paths[0].open("w") as predictions, paths[1].open("w") as labels:
        for i, time_ms in enumerate(served.time_ms.tolist()):
            head = {"event_id": f"h{time_ms // HALF_HOUR_MS}", "model": MODEL, "version": VERSION}
            if since_ms <= time_ms < until_ms:
                features = dict(zip(FEATURES, served.features[i].tolist(), strict=True))
                event = {
                    **head,
                    "timestamp": time_ms,
                    "prediction": int(served.predicted[i]),
                    "score": float(served.score[i]),
                    "features": features,
                }
                predictions.write(json.dumps(event) + "\n")
            if served.labelled[i] and since_ms <= time_ms + LABEL_DELAY_MS < until_ms:
                labels.write(
                    json.dumps(
                        {
                            **head,
                            "label": int(served.actual[i]),
                            "timestamp": time_ms + LABEL_DELAY_MS,
                        }
                    )
                    + "\n"
                )
    return paths


# ---- what scikit-learn says


def expected(rows: Served) -> dict[str, dict[str, float]]:
    """The metrics of each window, by scikit-learn, when these are the labelled rows so far."""
    # a time window ends with the pane of 10 s that holds the last labelled row …
    end_ms = int(rows.time_ms[-1]) // 10_000 * 10_000 + 10_000
    out = {"last_1000": metrics_of(Served(*(column[-1_000:] for column in rows)))}
    for window, length_ms in WINDOWS_MS.items():
        start_ms = (end_ms - length_ms) // HOUR_MS * HOUR_MS  # … and begins with a pane of an hour
        out[window] = metrics_of(Served(*(column[rows.time_ms >= start_ms] for column in rows)))
    return out


def metrics_of(rows: Served) -> dict[str, float]:
    """Metrics of one window, named as in the summary."""
    y, predicted, score = rows.actual, rows.predicted, rows.score
    return {
        "labels": len(y),
        "accuracy": accuracy_score(y, predicted),
        "precision": precision_score(y, predicted),
        "recall": recall_score(y, predicted),
        "f1": f1_score(y, predicted),
        "roc_auc": roc_auc_score(y, score),
        "log_loss": log_loss(y, score),
        "brier_score": brier_score_loss(y, score),
    }


def worst(
    told: dict[str, dict[str, float]], want: dict[str, dict[str, float]]
) -> tuple[float, float]:
    """
    The greatest difference between what was told and what scikit-learn says; that of ROC AUC of
    time windows apart, -1 where it is left out.
    """
    exact, binned = 0.0, -1.0
    for window, metrics in want.items():
        for metric, value in metrics.items():
            loose = metric == "roc_auc" and window in WINDOWS_MS
            if metric not in told.get(window, {}):
                if not loose:  # where its bound is too wide it is left out
                    raise SystemExit(f"{metric} over {window} is missing")
                continue
            difference = abs(told[window][metric] - value)
            exact, binned = (
                (exact, max(binned, difference)) if loose else (max(exact, difference), binned)
            )
    if exact > TOLERANCE or binned > AUC_TOLERANCE:
        raise SystemExit(
            f"scikit-learn differs by {exact:.3g}, in ROC AUC of time windows by {binned:.3g}"
        )
    return exact, binned


def loosely(binned: float) -> str:
    """The greatest difference of what was told with a bound."""
    return "left out" if binned < 0 else f"{binned:.1e}"


# ---- replay


def replayed(
    predictions: Path, labels: Path, folder: Path
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Summary and alerts of `stream-monitor replay` on the files."""
    began = time.perf_counter()
    summary, alerts = folder / "summary.json", folder / "alerts.jsonl"
    files = (
        "--predictions",
        predictions,
        "--labels",
        labels,
        "--config",
        folder / "monitor.yaml",
        "--summary",
        summary,
        "--alerts",
        alerts,
        "--report",
        folder / "report.html",
    )
    subprocess.run([*COMMAND, "replay", *files], check=True, stdout=subprocess.DEVNULL)
    print(
        f"\nreplay of the files: {time.perf_counter() - began:.1f} s; a report in "
        f"{folder / 'report.html'}"
    )
    return json.loads(summary.read_text()), [
        json.loads(line) for line in alerts.read_text().splitlines()
    ]


def show_alerts(title: str, alerts: list[dict[str, Any]]) -> None:
    print(
        f"\nalerts, {title}: {sum(a['status'] == 'firing' for a in alerts)} fired, "
        f"{sum(a['status'] == 'resolved' for a in alerts)} resolved"
    )
    for a in alerts:
        if a["status"] == "firing":
            print(
                f"  rows until {a['window']['end'][:16]}  {a['severity']:8} {a['kind']:17} "
                f"{a['summary']}"
            )


# ---- through Kafka


class Worker:
    """A running `stream-monitor worker`."""

    def __init__(self, config: Path, log: Path) -> None:
        with log.open("w") as err:
            self.process = subprocess.Popen(
                [*COMMAND, "worker", "--config", str(config)],
                stdout=subprocess.PIPE,
                stderr=err,
                text=True,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.startswith("listening on http://"):
            raise SystemExit(f"the worker did not start: {log.read_text()[-1_000:]}")
        self.url = line.split()[-1]

    def samples(self) -> dict[tuple[str, frozenset[str]], float]:
        """Name and labels (`key=value`) of each sample of /metrics, and its value."""
        with urllib.request.urlopen(self.url + "/metrics", timeout=10) as response:  # noqa: S310, our own worker
            text = response.read().decode()
        out = {}
        for line in text.splitlines():
            if not line.startswith("#"):
                head, _, value = line.rpartition(" ")
                name, _, labels = head.partition("{")
                out[
                    name,
                    frozenset(
                        part.replace('"', "") for part in labels.rstrip("}").split(",") if part
                    ),
                ] = float(value)
        return out

    def value(self, name: str, *labels: str) -> float:
        """One sample of the model; NaN when it is not there."""
        return self.samples().get(
            (name, frozenset((f"model={MODEL}", f"version={VERSION}", *labels))), float("nan")
        )

    def wait(self, predictions: int, labels: int) -> None:
        """Until so many are counted."""
        deadline = time.monotonic() + WAIT_S
        while (self.value("model_predictions_total"), self.value("model_labels_total")) != (
            predictions,
            labels,
        ):
            if time.monotonic() > deadline:
                raise SystemExit(
                    f"not within {WAIT_S:.0f} s: {predictions} predictions and {labels} "
                    "labels counted"
                )
            time.sleep(0.05)

    def windows(self) -> dict[str, dict[str, float]]:
        """What /metrics says of the windows."""
        out: dict[str, dict[str, float]] = {window: {} for window in ("last_1000", *WINDOWS_MS)}
        for (name, labels), value in self.samples().items():
            window = next(
                (part.removeprefix("window=") for part in labels if part.startswith("window=")),
                None,
            )
            if (
                window is not None
                and f"model={MODEL}" in labels
                and not any(part.startswith("quantile=") for part in labels)
            ):
                metric = {
                    "model_window_labels": "labels",
                    "model_label_coverage_ratio": "coverage",
                }.get(name, name.removeprefix("model_"))
                out[window][metric] = value
        return out

    def cpu_s(self) -> float:
        """User and system time so far; NaN where there is no /proc."""
        stat = Path(f"/proc/{self.process.pid}/stat")
        return (
            sum(map(int, stat.read_text().rpartition(")")[2].split()[11:13]))
            / os.sysconf("SC_CLK_TCK")
            if stat.exists()
            else float("nan")
        )

    def stop(self) -> None:
        """Stop it cleanly."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


@contextmanager
def broker(bootstrap: str | None) -> Iterator[str]:
    """The broker that was named, or one that is started."""
    if bootstrap is not None:
        yield bootstrap
        return
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
    from kafka_server import KafkaServer

    server = KafkaServer().start()
    try:
        yield server.bootstrap
    finally:
        server.close()


def read_alerts(bootstrap: str, topic: str) -> list[dict[str, Any]]:
    """All alert events of committed transactions."""
    from confluent_kafka import Consumer

    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": uuid.uuid4().hex,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
        }
    )
    consumer.subscribe([topic])
    out, quiet = [], 0
    while quiet < 10:
        message = consumer.poll(0.5)
        if message is not None and not message.error():
            out.append(json.loads(message.value()))
        quiet = quiet + 1 if message is None else 0
    consumer.close()
    return out


def make_topics(bootstrap: str, prefix: str) -> None:
    """
    The input topics with one partition each: then the order of the rows, which the detectors go by,
    is that of the files.
    """
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": bootstrap})
    for created in admin.create_topics(
        [NewTopic(prefix + name, 1, 1) for name in ("predictions", "labels")]
    ).values():
        created.result()


def produce(predictions: Path, labels: Path, config: Path) -> int:
    """Send the events of two files; how many it were."""
    files = ("--predictions", predictions, "--labels", labels, "--config", config)
    done = subprocess.run(
        [*COMMAND, "produce", *files, "--json"], check=True, capture_output=True, text=True
    )
    return sum(json.loads(done.stdout)["sent"].values())


def monitored(
    served: Served, bootstrap: str, folder: Path, parts: int
) -> tuple[Worker, list[dict[str, Any]]]:
    """
    Send the events in parts, and hold what the worker says after each part to scikit-learn; the
    worker still runs.
    """
    prefix = f"electricity-{uuid.uuid4().hex[:8]}."
    config = folder / "monitor.yaml"
    config.write_text(CONFIG.format(bootstrap=bootstrap, prefix=prefix))
    make_topics(bootstrap, prefix)
    worker = Worker(config, folder / "worker.log")
    cuts = (
        np.linspace(served.time_ms[0], served.time_ms[-1] + LABEL_DELAY_MS + 1, parts + 1)
        .astype(int)
        .tolist()
    )
    print(
        f"{'until':16}  {'labels':>6}  {'accuracy of last_1000':>21}  {'7d':>6}  {'30d':>6}  "
        f"{'worst difference':>16}  {'ROC AUC, binned':>15}"
    )
    took_s, sent, before_s = 0.0, 0, worker.cpu_s()
    for part, (since_ms, until_ms) in enumerate(pairwise(cuts)):
        predictions, labels = write(served, folder, f"-{part:02}", since_ms, until_ms)
        known = served.labelled_at(until_ms)
        began = time.perf_counter()
        sent_now = produce(predictions, labels, config)
        worker.wait(int((served.time_ms < until_ms).sum()), len(known.time_ms))
        took_s, sent = took_s + time.perf_counter() - began, sent + sent_now
        told = worker.windows()
        exact, binned = worst(told, expected(known))
        accuracy = [told[window]["accuracy"] for window in ("last_1000", "7d", "30d")]
        until = np.datetime64(until_ms, "ms").astype("datetime64[m]")
        print(
            f"{until!s:16}  {len(known.time_ms):6}  {accuracy[0]:21.4f}  {accuracy[1]:6.4f}  "
            f"{accuracy[2]:6.4f}  {exact:16.1e}  {loosely(binned):>15}"
        )
        predictions.unlink(), labels.unlink()
    cpu_s = worker.cpu_s() - before_s
    print(
        f"\n{sent:,} events in {took_s:.1f} s, the start of `produce` for each part included: "
        f"{sent / took_s:,.0f} a second"
    )
    print(
        f"worker: {cpu_s:.1f} s of CPU, {sent / cpu_s:,.0f} events a CPU-second, idle time "
        "between the parts included"
    )
    time.sleep(3)  # the last transaction
    return worker, read_alerts(bootstrap, prefix + "alerts")


def compare(
    worker: Worker,
    told: list[dict[str, Any]],
    summary: dict[str, Any],
    alerts: list[dict[str, Any]],
) -> None:
    """What replay says must be what the worker says."""
    v = summary["models"][MODEL]["versions"][VERSION]
    checked = 0

    def same(what: str, here: float, there: float) -> None:
        nonlocal checked
        checked += 1
        if not abs(here - there) <= TOLERANCE * max(1.0, abs(here)):
            raise SystemExit(f"worker and replay differ in {what}: {here} and {there}")

    same("predictions", worker.value("model_predictions_total"), v["predictions"])
    same("labels", worker.value("model_labels_total"), v["labels"])
    for window, there in worker.windows().items():  # a replay has a window of all rows as well
        metrics = v["windows"][window]
        for metric in metrics.keys() - {"start", "end"}:
            same(f"{metric} over {window}", there.get(metric, float("nan")), metrics[metric])
    for feature, found in v["features"].items():
        for metric in ("missing_ratio", "mean"):
            same(
                f"{metric} of {feature}",
                worker.value(f"model_feature_{metric}", f"feature={feature}"),
                found[metric],
            )
        for method, score in found["drift"].items():
            same(
                f"{method} of {feature}",
                worker.value("model_drift_score", f"feature={feature}", f"method={method}"),
                score,
            )
    marks = [
        {a["fingerprint"] for a in found if a["status"] == "firing"} for found in (told, alerts)
    ]
    print(
        f"worker and replay: {checked} numbers are equal; alerts that fired: {len(marks[0])} "
        f"and {len(marks[1])} fingerprints, {len(marks[0] & marks[1])} of them the same"
    )
    print(
        f"pending and expired in replay: {v['pending']} and {v['expired']}; the worker's "
        f"clock is real, there {v['pending'] + v['expired']} are pending"
    )
    if marks[0] != marks[1]:
        raise SystemExit("the alerts are not about the same things")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "csv",
        help="electricity.csv: period, nswprice, nswdemand, vicprice, vicdemand, transfer, class",
    )
    parser.add_argument("--out", type=Path, help="folder for the files; a temporary one without it")
    parser.add_argument("--kafka", metavar="HOST:PORT", help="send them through this broker")
    parser.add_argument(
        "--start-kafka",
        action="store_true",
        help="send them through a broker that is started for it (Java 17 and Maven)",
    )
    parser.add_argument(
        "--parts", type=int, default=12, help="how often production pauses to compare"
    )
    args = parser.parse_args()
    folder = args.out or Path(tempfile.mkdtemp(prefix="electricity-"))
    folder.mkdir(parents=True, exist_ok=True)
    served = serve(args.csv)
    predictions, labels = write(served, folder, "", 0, 1 << 62)
    print(
        f"{len(served.time_ms):,} predictions and {int(served.labelled.sum()):,} labels in "
        f"{folder}\n"
    )
    if args.kafka is None and not args.start_kafka:
        (folder / "monitor.yaml").write_text(CONFIG.format(bootstrap="127.0.0.1:9092", prefix=""))
        summary, alerts = replayed(predictions, labels, folder)
        exact, binned = worst(
            summary["models"][MODEL]["versions"][VERSION]["windows"],
            expected(served.labelled_at(1 << 62)),
        )
        print(
            f"windows at the end against scikit-learn: worst difference {exact:.1e}, ROC AUC "
            f"of time windows {loosely(binned)}"
        )
        show_alerts("replay", alerts)
        return
    with broker(args.kafka) as bootstrap:
        worker, told = monitored(served, bootstrap, folder, args.parts)
        try:
            show_alerts("worker", told)
            summary, alerts = replayed(predictions, labels, folder)
            show_alerts("replay", alerts)
            compare(worker, told, summary, alerts)
        finally:
            worker.stop()


if __name__ == "__main__":
    main()
