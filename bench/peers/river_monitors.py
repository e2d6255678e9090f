"""
What every Python peer with River keeps of the stream, one event at a time, and how it shows it.

Rule of the file: the peers differ in their framework, never in their statistics. `predictions`:
counts, latency histogram, and for ten features and the score River's ADWIN and Page-Hinkley, mean,
variance, missing values and counts on 20 bins of the first 5,000 values. `pairs`: rolling accuracy
over 1,000, confusion counts, ADWIN and DDM on the errors. Gauges are set every second. Not here:
duplicates, late labels and corrections, time windows, types and ranges, unknown fields, distances
to a baseline, alert episodes, dead letters, bounds on models and series, and anything that
survives the process: detectors live in memory.
"""

from __future__ import annotations

import argparse
import threading
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from functools import cache
from typing import Any

from prometheus_client import Counter, Gauge, Histogram, start_http_server
from river import drift, stats
from river.drift.binary import DDM

SIGNALS = [f"f{i}" for i in range(10)] + ["score"]
REFERENCE_ROWS, BINS, WINDOW, EXPORT_S = 5_000, 20, 1_000, 1.0
VERSION = ["model", "version"]
PREDICTIONS = Counter("model_predictions", "Predictions", VERSION)
LABELS = Counter("model_labels", "Predictions that have got a label", VERSION)
LATENCY = Histogram(
    "model_prediction_latency_seconds",
    "Latency",
    VERSION,
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
FEATURE = Gauge("model_feature", "Statistics of a feature", [*VERSION, "feature", "statistic"])
BIN = Gauge(
    "model_feature_values", "Values on the bins of the first ones", [*VERSION, "feature", "bin"]
)
QUALITY = Gauge("model_quality", "Metrics of the last labelled", [*VERSION, "metric"])


def arguments() -> argparse.Namespace:
    """What `compare.py` tells a peer."""
    parser = argparse.ArgumentParser()
    for name in ("bootstrap", "predictions", "labels", "alerts", "group", "folder"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--work", choices=("predictions", "pairs", "both"), required=True)
    return parser.parse_args()


@cache
def of_predictions(names: tuple[str, str]) -> tuple[Counter, Histogram]:
    """Series of one model version; apart from its state, which Bytewax copies."""
    return PREDICTIONS.labels(*names), LATENCY.labels(*names)


@cache
def of_labels(names: tuple[str, str]) -> Counter:
    """Likewise."""
    return LABELS.labels(*names)


class Signal:
    """One feature, or the score."""

    def __init__(self) -> None:
        self.adwin, self.page_hinkley, self.mean, self.var = (
            drift.ADWIN(),
            drift.PageHinkley(),
            stats.Mean(),
            stats.Var(),
        )
        self.rows = self.missing = 0
        self.first: list[float] = []
        self.edges: list[float] = []
        self.bins = [0] * BINS

    def update(self, x: float | None) -> Iterator[str]:
        """Take a value; the detectors that fired."""
        self.rows += 1
        if x is None:
            self.missing += 1
            return
        self.mean.update(x)
        self.var.update(x)
        if self.edges:
            self.bins[bisect_right(self.edges, x)] += 1
        else:
            self.first.append(x)
            if len(self.first) == REFERENCE_ROWS:
                self._learn()
        self.adwin.update(x)
        if self.adwin.drift_detected:
            yield "adwin"
        self.page_hinkley.update(x)
        if self.page_hinkley.drift_detected:
            yield "page_hinkley"

    def _learn(self) -> None:
        ranked = sorted(self.first)
        self.edges = [ranked[i * REFERENCE_ROWS // BINS] for i in range(1, BINS)]
        for x in self.first:
            self.bins[bisect_right(self.edges, x)] += 1
        self.first = []


class InputsOfVersion:
    """One model version's predictions."""

    def __init__(self, names: tuple[str, str]) -> None:
        self.names = names
        self.signals = {name: Signal() for name in SIGNALS}

    def export(self) -> None:
        for name, s in self.signals.items():
            width = s.adwin.width
            found = {
                "mean": s.mean.get(),
                "variance": s.var.get(),
                "missing_ratio": s.missing / max(s.rows, 1),
                "adwin_width": width,
            }
            for statistic, value in found.items():
                FEATURE.labels(*self.names, name, statistic).set(value)
            for i, n in enumerate(s.bins):
                BIN.labels(*self.names, name, i).set(n)


class Inputs:
    """The work `predictions`."""

    def __init__(self) -> None:
        self.versions: dict[tuple[str, str], InputsOfVersion] = {}

    def update(self, event: dict[str, Any]) -> list[dict[str, Any]]:
        """Take a prediction event; alerts."""
        key = event["model"], event["version"]
        of = self.versions.get(key)
        if of is None:
            of = self.versions[key] = InputsOfVersion(key)
        predictions, latency = of_predictions(key)
        predictions.inc()
        latency.observe(event["latency_ms"] / 1e3)
        features, alerts = event["features"], []
        for name, signal in of.signals.items():
            for method in signal.update(event["score"] if name == "score" else features.get(name)):
                alerts.append(  # noqa: PERF401
                    {
                        "model": key[0],
                        "version": key[1],
                        "subject": name,
                        "detector": method,
                        "timestamp": event["timestamp"],
                    }
                )
        return alerts


class QualityOfVersion:
    """One model version's labelled predictions."""

    def __init__(self, names: tuple[str, str]) -> None:
        self.names = names
        self.window: deque[bool] = deque(maxlen=WINDOW)
        self.correct = 0
        self.confusion = [
            0,
            0,
            0,
            0,
        ]  # true negatives, false positives, false negatives, true positives
        self.adwin, self.ddm = drift.ADWIN(), DDM()

    def export(self) -> None:
        _, fp, fn, tp = self.confusion
        precision, recall = tp / max(tp + fp, 1), tp / max(tp + fn, 1)
        found = {
            "accuracy": self.correct / max(len(self.window), 1),
            "precision": precision,
            "recall": recall,
            "f1": 2 * precision * recall / max(precision + recall, 1e-12),
        }
        for metric, value in found.items():
            QUALITY.labels(*self.names, metric).set(value)


class Quality:
    """The work `pairs`."""

    def __init__(self) -> None:
        self.versions: dict[tuple[str, str], QualityOfVersion] = {}

    def update(
        self, model: str, version: str, predicted: int, label: int, timestamp: int
    ) -> list[dict[str, Any]]:
        """Take a labelled prediction; alerts."""
        key = model, version
        of = self.versions.get(key)
        if of is None:
            of = self.versions[key] = QualityOfVersion(key)
        of_labels(key).inc()
        right = predicted == label
        if len(of.window) == WINDOW:
            of.correct -= of.window[0]
        of.window.append(right)
        of.correct += right
        of.confusion[2 * (label == 1) + (predicted == 1)] += 1
        of.adwin.update(not right)
        of.ddm.update(not right)
        fired = [
            method
            for method, detector in (("adwin", of.adwin), ("ddm", of.ddm))
            if detector.drift_detected
        ]
        return [
            {
                "model": model,
                "version": version,
                "subject": "__error__",
                "detector": method,
                "timestamp": timestamp,
            }
            for method in fired
        ]


def serve(*works: Inputs | Quality) -> None:
    """Show /metrics on a free port, and set the gauges every second."""
    server, _ = start_http_server(0, "127.0.0.1")
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)

    def export() -> None:
        while True:
            time.sleep(EXPORT_S)
            for work in works:
                for version in list(work.versions.values()):
                    version.export()

    threading.Thread(target=export, daemon=True).start()
