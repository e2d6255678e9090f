"""
Peer: the honest rival. The same columnar work by hand: confluent-kafka in batches, msgspec structs,
numpy over whole batches, no framework and nothing durable.

Does, as our worker: ADWIN on each feature, score and errors (straight on River's Rust object),
Page-Hinkley on score and errors (vectorised), standardised by and cut around a baseline of the
first 5,000 rows; moments, missing, counts on 20 bins and outside the fences; latency histogram; of
the last 1,000 labelled accuracy, precision, recall, F1, Brier, log loss and ROC AUC. Does not:
windows of time, duplicates, late or corrected labels, labels without a model, other shapes than the
one it was written for (a bad record ends it), unknown features, types and ranges, distances to the
baseline, confirmation of a firing, alert episodes, thresholds, dead letters, bounds, snapshots,
transactions, a second process.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np
from confluent_kafka import Consumer, Producer
from prometheus_client import Counter, Gauge, start_http_server
from river._river_rust.drift import AdaptiveWindowing
from river_monitors import (
    BIN,
    BINS,
    EXPORT_S,
    FEATURE,
    LABELS,
    PREDICTIONS,
    QUALITY,
    REFERENCE_ROWS,
    SIGNALS,
    VERSION,
    WINDOW,
    arguments,
)

Features = msgspec.defstruct("Features", [(name, float | None) for name in SIGNALS[:-1]], gc=False)
LATENCY_BOUNDS_S = np.array(
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]
)
LATENCY = Gauge(
    "model_prediction_latency_counts", "Calls up to each bound in seconds", [*VERSION, "le"]
)
ALARMS = Counter("model_alarms", "Alarms of detectors", VERSION)
CLIP_SD, FENCE = 3.0, 1.5
ADWIN = (0.002, 32, 5, 5, 10)


class Prediction(msgspec.Struct, gc=False):
    event_id: str
    timestamp: int
    model: str
    version: str
    prediction: int
    score: float
    latency_ms: float
    features: Features  # type: ignore[valid-type]


class Label(msgspec.Struct, gc=False):
    event_id: str
    label: int


class Adwin:
    def __init__(self) -> None:
        self.window = AdaptiveWindowing(*ADWIN)

    def update(self, values: np.ndarray) -> int:
        """Take values; how often it fired."""
        fired = 0
        for hit in map(self.window.update, values.tolist()):
            if hit:
                # River starts anew after a change; in the middle of a batch the same window goes on
                # here
                fired += 1
        if fired:
            self.window = AdaptiveWindowing(*ADWIN)
        return fired


class PageHinkley:
    """
    Both directions, River's defaults with nothing forgotten; starts anew with the batch after an
    alarm.
    """

    def __init__(self, delta: float = 0.005, threshold: float = 50.0) -> None:
        self.delta, self.threshold = delta, threshold
        self.reset()

    def reset(self) -> None:
        self.n, self.total, self.up, self.down, self.low, self.high = 0, 0.0, 0.0, 0.0, 0.0, 0.0

    def update(self, values: np.ndarray) -> int:
        """Take values; 1 if it fired."""
        total = self.total + np.cumsum(values)
        deviation = values - total / (self.n + np.arange(1, len(values) + 1))
        up, down = (
            self.up + np.cumsum(deviation - self.delta),
            self.down + np.cumsum(deviation + self.delta),
        )
        low, high = (
            np.minimum(np.minimum.accumulate(up), self.low),
            np.maximum(np.maximum.accumulate(down), self.high),
        )
        if max((up - low).max(), (high - down).max()) > self.threshold:
            self.reset()
            return 1
        self.n, self.total = self.n + len(values), total[-1]
        self.up, self.down, self.low, self.high = up[-1], down[-1], low[-1], high[-1]
        return 0


class Version:
    """One model version."""

    def __init__(self, names: tuple[str, str]) -> None:
        self.names = names
        self.first: list[np.ndarray] = []
        self.edges: np.ndarray | None = None
        self.moments = np.zeros((3, len(SIGNALS)))
        self.missing = np.zeros(len(SIGNALS))
        self.outliers = np.zeros(len(SIGNALS))
        self.bins = np.zeros((len(SIGNALS), BINS))
        self.latency = np.zeros(len(LATENCY_BOUNDS_S) + 1)
        self.adwin, self.page_hinkley = [Adwin() for _ in SIGNALS], PageHinkley()
        self.error_adwin, self.error_page_hinkley = Adwin(), PageHinkley()
        self.window = np.empty((3, 0))
        self.alarms = 0

    def take(self, matrix: np.ndarray, latency_ms: np.ndarray) -> int:
        """(signals, n) values with NaN for missing ones; alarms."""
        PREDICTIONS.labels(*self.names).inc(matrix.shape[1])
        self.latency += np.bincount(
            np.searchsorted(LATENCY_BOUNDS_S, latency_ms / 1e3), minlength=len(self.latency)
        )
        if self.edges is not None:
            return self._fold(matrix)
        self.first.append(matrix)
        if sum(m.shape[1] for m in self.first) < REFERENCE_ROWS:
            return 0
        rows = np.concatenate(self.first, axis=1)
        self.first = []
        baseline = rows[:, :REFERENCE_ROWS]
        self.mean, self.sd = (
            np.nanmean(baseline, axis=1)[:, None],
            np.nanstd(baseline, axis=1)[:, None],
        )
        q1, q3 = np.nanquantile(baseline, [0.25, 0.75], axis=1)[:, :, None]
        self.low, self.high = q1 - FENCE * (q3 - q1), q3 + FENCE * (q3 - q1)
        self.edges = np.nanquantile(baseline, np.arange(1, BINS) / BINS, axis=1).T
        return self._fold(rows)

    def _fold(self, matrix: np.ndarray) -> int:
        missing = np.isnan(matrix)
        z = (matrix - self.mean) / self.sd
        known = np.where(missing, 0.0, z)
        self.missing += missing.sum(axis=1)
        self.moments += (~missing).sum(axis=1), known.sum(axis=1), (known * known).sum(axis=1)
        self.outliers += ((matrix < self.low) | (matrix > self.high)).sum(axis=1)
        cut = np.clip(z, -CLIP_SD, CLIP_SD)
        alarms = 0
        for i, values in enumerate(cut):
            there = ~missing[i]
            present = values if there.all() else values[there]
            self.bins[i] += np.bincount(
                np.searchsorted(self.edges[i], matrix[i][there], side="right"), minlength=BINS
            )
            alarms += self.adwin[i].update(present)
        return alarms + self.page_hinkley.update(cut[-1])

    def pairs(self, predicted: np.ndarray, actual: np.ndarray, score: np.ndarray) -> int:
        """Labelled predictions; alarms."""
        LABELS.labels(*self.names).inc(len(actual))
        self.window = np.concatenate([self.window, [predicted, actual, score]], axis=1)[:, -WINDOW:]
        errors = (predicted != actual).astype(float)
        return self.error_adwin.update(errors) + self.error_page_hinkley.update(errors)

    def export(self) -> None:
        for i, name in enumerate(SIGNALS if self.edges is not None else ()):
            n, total, squares = self.moments[:, i]
            z = total / max(n, 1)
            found = {
                "mean": self.mean[i, 0] + self.sd[i, 0] * z,
                "variance": self.sd[i, 0] ** 2 * (squares / max(n, 1) - z * z),
                "missing_ratio": self.missing[i] / max(n + self.missing[i], 1),
            }
            for statistic, value in {**found, "outliers": self.outliers[i]}.items():
                FEATURE.labels(*self.names, name, statistic).set(value)
            for b, count in enumerate(self.bins[i].tolist()):
                BIN.labels(*self.names, name, b).set(count)
        for bound, count in zip(
            [*LATENCY_BOUNDS_S.tolist(), "+Inf"], self.latency.cumsum().tolist(), strict=True
        ):
            LATENCY.labels(*self.names, bound).set(count)
        if self.window.shape[1]:
            for metric, value in metrics(*self.window).items():
                QUALITY.labels(*self.names, metric).set(value)


def metrics(predicted: np.ndarray, actual: np.ndarray, score: np.ndarray) -> dict[str, float]:
    """Of the rows of a window."""
    yes = actual == 1
    tp, precise, positive = float(predicted[yes].sum()), float(predicted.sum()), float(yes.sum())
    p, n = np.clip(score, 1e-15, 1 - 1e-15), float(len(actual))
    found = {
        "accuracy": float((predicted == actual).mean()),
        "precision": tp / max(precise, 1),
        "recall": tp / max(positive, 1),
        "f1": 2 * tp / max(precise + positive, 1),
    }
    found |= {
        "brier_score": float(((score - actual) ** 2).mean()),
        "log_loss": float(-np.where(yes, np.log(p), np.log1p(-p)).mean()),
    }
    if 0 < positive < n:
        ranks = np.argsort(np.argsort(score)) + 1  # no ties among drawn scores
        found["roc_auc"] = float(
            (ranks[yes].sum() - positive * (positive + 1) / 2) / (positive * (n - positive))
        )
    return found


class Monitor:
    """All versions, and the two dicts in which predictions and labels wait for each other."""

    def __init__(self, work: str) -> None:
        self.inputs, self.joined = work != "pairs", work != "predictions"
        self.versions: dict[tuple[str, str], Version] = {}
        self.predictions: dict[str, tuple[tuple[str, str], int, float]] = {}
        self.labels: dict[str, int] = {}
        self.pairs: list[tuple[tuple[str, str], int, float, int]] = []
        self.decode_prediction, self.decode_label = (
            msgspec.json.Decoder(Prediction).decode,
            msgspec.json.Decoder(Label).decode,
        )

    def version(self, key: tuple[str, str]) -> Version:
        if key not in self.versions:
            self.versions[key] = Version(key)
        return self.versions[key]

    def on_predictions(self, values: list[bytes]) -> None:
        events = list(map(self.decode_prediction, values))
        keys = list(map(attrgetter("model", "version"), events))
        scores = list(map(attrgetter("score"), events))
        if self.inputs:
            # None becomes NaN
            matrix = np.array(
                list(map(msgspec.structs.astuple, map(attrgetter("features"), events))), float
            )
            rows = np.concatenate([matrix, np.array(scores)[:, None]], axis=1).T
            latency = np.fromiter(map(attrgetter("latency_ms"), events), float, len(events))
            for key, at in by_key(keys):
                version = self.version(key)
                version.alarms += version.take(rows[:, at], latency[at])
        if self.joined:
            ids = map(attrgetter("event_id"), events)
            waiting = zip(keys, map(attrgetter("prediction"), events), scores, strict=True)
            if not self.labels:
                self.predictions.update(zip(ids, waiting, strict=True))
                return
            for event_id, prediction in zip(ids, waiting, strict=True):
                label = self.labels.pop(event_id, None)
                if label is None:
                    self.predictions[event_id] = prediction
                else:
                    self.pairs.append((*prediction, label))

    def on_labels(self, values: list[bytes]) -> None:
        pop = self.predictions.pop
        for event_id, label in map(attrgetter("event_id", "label"), map(self.decode_label, values)):
            prediction = pop(event_id, None)
            if prediction is None:
                self.labels[event_id] = label
            else:
                self.pairs.append((*prediction, label))

    def evaluate(self) -> None:
        """Take in the pairs that were found."""
        if self.pairs:
            keys, predicted, score, actual = zip(*self.pairs, strict=True)
            self.pairs = []
            columns = np.array([predicted, actual, score], float)
            for key, at in by_key(keys):
                version = self.version(key)
                version.alarms += version.pairs(*columns[:, at])


def by_key(keys: Sequence[tuple[str, str]]) -> list[tuple[tuple[str, str], Any]]:
    """Where the rows of each key are."""
    distinct = dict.fromkeys(keys)
    if len(distinct) == 1:
        return [(keys[0], slice(None))]
    rows: dict[tuple[str, str], list[int]] = {}
    for i, key in enumerate(keys):
        rows.setdefault(key, []).append(i)
    return [(key, np.array(at)) for key, at in rows.items()]


def main() -> None:
    a = arguments()
    consumer = Consumer(
        {
            "bootstrap.servers": a.bootstrap,
            "group.id": a.group,
            "auto.offset.reset": "earliest",
            "fetch.queue.backoff.ms": 10,
            "check.crcs": True,
        }
    )
    producer = Producer({"bootstrap.servers": a.bootstrap, "linger.ms": 5})
    monitor = Monitor(a.work)
    consumer.subscribe([a.predictions] if a.work == "predictions" else [a.predictions, a.labels])
    server, _ = start_http_server(0, "127.0.0.1")
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    due = time.monotonic() + EXPORT_S
    while True:
        messages = [m for m in consumer.consume(1_000, 0.1) if not m.error()]
        predictions = [m.value() for m in messages if m.topic() == a.predictions]
        if predictions:
            monitor.on_predictions(predictions)
        if len(predictions) < len(messages):
            monitor.on_labels([m.value() for m in messages if m.topic() == a.labels])
        monitor.evaluate()
        for key, version in monitor.versions.items():
            if version.alarms:
                producer.produce(
                    a.alerts,
                    msgspec.json.encode(
                        {"model": key[0], "version": key[1], "alarms": version.alarms}
                    ),
                )
                ALARMS.labels(*key).inc(version.alarms)
                version.alarms = 0
        producer.poll(0)
        if time.monotonic() >= due:
            due = time.monotonic() + EXPORT_S
            for version in monitor.versions.values():
                version.export()


if __name__ == "__main__":
    main()
