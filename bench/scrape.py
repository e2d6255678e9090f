"""
What a scrape costs: `python bench/scrape.py [--series N …] [--rounds N] [--json]`.

Rule of the file: the worker's own exporter over samples of the shape that a model of 24 numeric
features has, in this process and without HTTP. CPU is of reading, of the series budget and of the
text; the hold is the longest time in which the event loop could not run. The least of the rounds is
shown, beside what `prometheus_client` alone takes for the same in one go.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Iterator

from prometheus_client import generate_latest

from stream_monitor.metrics.samples import AnySample, HistogramSample, Sample
from stream_monitor.runtime.exporter import Exporter, registry

FEATURES, PARTITIONS = 24, 4
ACCEPTS = {"text": "", "openmetrics": "application/openmetrics-text;version=1.0.0"}


def model(name: str) -> Iterator[AnySample]:
    """One model version: about 700 series."""
    names = (name, "1")
    yield Sample("model_predictions_total", names, 123_456)
    yield HistogramSample("model_prediction_latency_seconds", names, (100.0,) * 14, 35.0)
    for window in ("last_1000", "1h", "24h"):
        for metric in (
            "accuracy",
            "precision",
            "recall",
            "f1",
            "roc_auc",
            "log_loss",
            "brier_score",
        ):
            yield Sample(f"model_{metric}", (*names, window), 0.9123456789)
    for i in range(FEATURES):
        of = (*names, f"feature_{i}")
        yield Sample("model_feature_missing_ratio", of, 0.0125)
        yield Sample("model_feature_mean", of, 1.23456789)
        for quantile in ("0.25", "0.5", "0.75"):
            yield Sample("model_feature_quantile", (*of, quantile), 0.123456789)
        for method in ("psi", "js", "ks", "wasserstein", "adwin"):
            yield Sample("model_drift_score", (*of, method), 0.0123456789)
            yield Sample("model_drift_ratio", (*of, method), 0.123456789)
        yield HistogramSample(
            "model_feature_values", of, (10.0,) * 11, 35.0, tuple(i / 4 for i in range(10))
        )


def partition(models: range) -> Iterator[AnySample]:
    """One source: it is read without a pause."""
    for i in models:
        yield from model(f"model-{i}")


def exporter(series: int) -> Exporter:
    """Over as many models as come closest to so many series."""
    width = sum(
        len(each.counts) + 2 if isinstance(each, HistogramSample) else 1 for each in model("m")
    )
    models = max(round(series / width), 1)
    return Exporter(
        lambda: [partition(range(i, models, PARTITIONS)) for i in range(PARTITIONS)],
        series_limit=10**9,
    )


async def held(subject: Exporter, accept: str) -> tuple[int, float, float]:
    """Series of a scrape, its CPU seconds, and the longest time in which nothing else ran."""
    longest_s, ended = 0.0, False

    async def others() -> None:
        nonlocal longest_s
        last_s = time.perf_counter()
        while not ended:
            await asyncio.sleep(0)
            now_s = time.perf_counter()
            longest_s, last_s = max(longest_s, now_s - last_s), now_s

    task = asyncio.create_task(others())
    await asyncio.sleep(0)
    start_s = time.process_time()
    text, _ = await subject.scrape(accept)
    cpu_s = time.process_time() - start_s
    ended = True
    await task
    return sum(not line.startswith(b"#") for line in text.splitlines()), cpu_s, longest_s


def library_s(subject: Exporter) -> float:
    """CPU seconds of the library's own way, in one go."""
    start_s = time.process_time()
    generate_latest(registry(subject))
    return time.process_time() - start_s


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--series", type=int, nargs="+", default=[10_000, 45_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one object a measurement")
    a = parser.parse_args()
    for series in a.series:
        subject = exporter(series)
        alone_s = min(library_s(subject) for _ in range(a.rounds))
        for form, accept in ACCEPTS.items():
            found = [asyncio.run(held(subject, accept)) for _ in range(a.rounds)]
            n, cpu_s, hold_s = found[0][0], min(f[1] for f in found), min(f[2] for f in found)
            if a.json:
                print(
                    json.dumps(
                        {
                            "series": n,
                            "format": form,
                            "cpu_s": round(cpu_s, 4),
                            "hold_s": round(hold_s, 4),
                            "library_s": round(alone_s, 4),
                        }
                    )
                )
            else:
                print(
                    f"{n:7,} series  {form:11}  {cpu_s:6.3f} s of CPU  hold "
                    f"{hold_s * 1e3:5.1f} ms  the library alone {alone_s:6.3f} s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
