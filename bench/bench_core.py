"""
Microseconds of CPU a row and stage, in memory: `python bench/bench_core.py [--events N] [--rounds
N] [--json]`.

Rule of the file: no broker, no second process. The least of the rounds is shown beside their
median: on a loaded machine the least is what the code costs. The stages are those of a worker:
`split` (record batch to values), `decode` (values to columns), `pack` (columns to records of
`observations`), `fold` (EVALUATE); the garbage collector is set as in the worker. Whole batches of
a backlog; the first fifth, in which the decoder learns the shape of the events and EVALUATE the
baseline, is left out.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import workload
from aiokafka import TopicPartition
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from stream_monitor.evaluate import Shard
from stream_monitor.ingest import Ingest
from stream_monitor.kafka.deliveries import Fetched, split
from stream_monitor.runtime.worker import GC_THRESHOLDS
from stream_monitor.settings import CoreSettings, Drift, ModelSettings
from stream_monitor.stages.ingest_stage import FLUSH_ROWS

BATCH = 500
"""Records of a batch of a source."""
FLUSH_MS = 40
"""Log time between two flushes of a worker that is at full speed."""
NO_DETECTORS = CoreSettings(
    defaults=ModelSettings(drift=Drift(errors={}, score={}, prediction={}, features={}))
)


class Stage(NamedTuple):
    """A stage, and the CPU µs a row (of `fold of pairs`: a pair) of each round."""

    name: str
    target_us: float | None
    rounds_us: list[float]


def record_batches(values: list[bytes], offset: int = 0) -> bytes:
    """One lz4 batch, as a producer sends it."""
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=3,
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=1 << 24,
    )
    for i, value in enumerate(values):
        builder.append(
            i, timestamp=1_760_000_000_000 + offset + i, key=None, value=value, headers=[]
        )
    return bytes(builder.build())


def splitting_us(batches: list[bytes]) -> float:
    """CPU µs a record of `split`."""
    fetched = [
        Fetched(TopicPartition("t", 0), 0, 0, BATCH, [(0, DefaultRecordBatch(batch))])
        for batch in batches
    ]
    start = time.process_time()
    records = sum(len(split(each).values) for each in fetched)
    return (time.process_time() - start) / records * 1e6


class Ingested(NamedTuple):
    """What INGEST made of the events, and the CPU µs a row of its two stages."""

    decode_us: float
    pack_us: float
    records: list[bytes]


def ingesting(kinds: dict[str, list[bytes]]) -> Ingested:
    """Decode and pack everything; with two kinds every flush holds both."""
    ingest, decoding, packing, rows, log_ms = Ingest(1), 0.0, 0.0, 0, 1_760_000_000_000
    records: list[bytes] = []
    n = len(next(iter(kinds.values())))
    for at in range(0, n, FLUSH_ROWS // len(kinds)):
        start = time.process_time()
        for kind, values in kinds.items():
            part = values[at : at + FLUSH_ROWS // len(kinds)]
            ingest.take(
                f"{kind}@0/0", kind, part, np.arange(at, at + len(part)), np.full(len(part), log_ms)
            )
        decoded = time.process_time()
        log_ms += FLUSH_MS
        waiting = ingest.rows
        records += ingest.flush(log_ms)[0]
        if at >= n // 5:
            rows += waiting
            decoding += decoded - start
            packing += time.process_time() - decoded
    return Ingested(decoding / rows * 1e6, packing / rows * 1e6, records)


def rejecting_us(n: int) -> float:
    """CPU µs a record that cannot be used, among as many good ones."""
    good = b'{"event_id": "a", "model": "m", "prediction": 1, "features": {"x": 1.5, "c": "u"}}'
    bad = [
        good[:-3],
        b"",
        b"[1]",
        good.replace(b'"prediction": 1', b'"prediction": NaN'),
        good.replace(b'"m"', b"7"),
        good.replace(b'"prediction"', b'"other"'),
        b'{"a":' * 3_000,
        b"[" * 90_000,
    ]
    bad += [
        good.replace(b'"a"', b'"\\ud800"'),
        good.replace(b'"prediction": 1', b'"prediction": ' + b"9" * 400),
        good.replace(b'"c": "u"', b'"' + b"c" * 10_000 + b'": "u') + b" " * 10_000,
    ]
    ingest, values = (
        Ingest(1),
        [v for _ in range(max(n // len(bad), 1)) for b in bad for v in (good, b)],
    )
    start = time.process_time()
    rejects = ingest.take(
        "predictions@0/0",
        "predictions",
        list(values),
        np.arange(len(values)),
        np.full(len(values), 1_760_000_000_000),
    )
    if 2 * len(rejects) != len(values):
        raise SystemExit(f"{len(rejects)} of {len(values)} were rejected, not half")
    return (time.process_time() - start) / len(rejects) * 1e6


def folding_us(records: list[bytes], n: int, settings: CoreSettings) -> float:
    """
    CPU µs a prediction (or a pair) of folding all but the first fifth of the records of `n` of
    them.
    """
    shard = Shard(0, settings)
    first = len(records) // 5
    for record in records[:first]:
        shard.fold(record)
    start = time.process_time()
    for record in records[first:]:
        shard.fold(record)
        shard.outbox.clear()
    return (time.process_time() - start) / (n * (1 - first / len(records))) * 1e6


def stages(n: int, rounds: int) -> Iterator[Stage]:
    """Every stage in the order in which a row meets it."""
    made = list(workload.events(n))
    predictions, labels = [e.prediction for e in made], [e.label for e in made]
    logs = {
        "predictions": ingesting({"predictions": predictions}).records,
        "pairs": ingesting({"predictions": predictions, "labels": labels}).records,
    }
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    for kind, values in (("predictions", predictions), ("labels", labels)):
        batches = [record_batches(values[i : i + BATCH], i) for i in range(0, n, BATCH)]
        yield Stage(f"split {kind}", 0.5, [splitting_us(batches) for _ in range(rounds)])
    for kind, values, target_us in (("predictions", predictions, 1.9), ("labels", labels, 0.7)):
        found = [ingesting({kind: values}) for _ in range(rounds)]
        yield Stage(f"decode {kind}", target_us, [f.decode_us for f in found])
        yield Stage(f"pack {kind}", None, [f.pack_us for f in found])
    yield Stage("decode malformed", 1_000.0, [rejecting_us(n // 50) for _ in range(rounds)])
    for name, records in logs.items():
        yield Stage(
            f"fold {name}, without detectors",
            None,
            [folding_us(records, n, NO_DETECTORS) for _ in range(rounds)],
        )
        yield Stage(
            f"fold {name}", None, [folding_us(records, n, CoreSettings()) for _ in range(rounds)]
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="one object a stage")
    a = parser.parse_args()
    if not a.json:
        print(f"{'CPU µs a row':34} least median target")
    for stage in stages(a.events, a.rounds):
        least, median = min(stage.rounds_us), statistics.median(stage.rounds_us)
        if a.json:
            print(
                json.dumps(
                    {"stage": stage.name, "us_min": round(least, 3), "us_median": round(median, 3)}
                )
            )
        else:
            print(
                f"{stage.name:34} {least:5.2f} {median:6.2f} "
                f"{'' if stage.target_us is None else f'{stage.target_us:6.2f}'}",
                flush=True,
            )


if __name__ == "__main__":
    main()
