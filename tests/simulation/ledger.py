"""
Statistics that forget nothing, in place of `Shard`: which rows were counted, in which order, and an
alert for every few of them that depends on all before.

Rule of the file: what is seen before is decided by the product's own code (`Outcomes.unseen`); the
rest is so plain that a loss, a repetition or another order shows at once.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Container, Mapping
from typing import Any

from stream_monitor.events.observations import unpack
from stream_monitor.outcomes import Outcomes
from stream_monitor.settings import CoreSettings
from stream_monitor.state import decode, encode
from stream_monitor.verdicts import Out

ALERT_ROWS, SLAB_ROWS = 4, 16
Row = tuple[str, int]


class Ledger:
    """A shard that writes down its rows."""

    anew: tuple[str, ...] = ()

    def __init__(
        self, partition: int, settings: CoreSettings, baselines: Any = None, *, partitions: int = 1
    ) -> None:
        self.partition, self.settings, self.baselines = partition, settings, baselines
        self.config = settings.hash
        self.log_time_ms = 0
        self.outcomes = Outcomes()
        self.rows: list[Row] = []
        self.digest = 0
        self.outbox: list[Out] = []

    def fold(self, record: bytes, appended_ms: int | None = None) -> None:
        observations = unpack(record)
        self.log_time_ms = max(self.log_time_ms, observations.head.flushed_ms)
        fresh = self.outcomes.unseen(observations)
        sources = observations.head.sources
        for source, offset in zip(
            observations.rows["source"][fresh].tolist(),
            observations.rows["offset"][fresh].tolist(),
            strict=True,
        ):
            self.rows.append((sources[source], offset))
            self.digest = zlib.crc32(f"{sources[source]} {offset}".encode(), self.digest)
            if len(self.rows) % ALERT_ROWS == 0:
                self.outbox.append(
                    Out(
                        "alerts",
                        b"",
                        json.dumps([self.partition, len(self.rows), self.digest]).encode(),
                    )
                )

    def restarted_detectors(self) -> list[str]:
        """It has no detectors."""
        return []

    def snapshot(self, known: Container[str] = ()) -> dict[str, bytes | None]:
        full = len(self.rows) // SLAB_ROWS * SLAB_ROWS
        parts: dict[str, bytes | None] = {}
        for start in range(0, full, SLAB_ROWS):
            name = f"slab-rows-{start}"
            parts[name] = (
                None if name in known else json.dumps(self.rows[start : start + SLAB_ROWS]).encode()
            )
        state = [
            self.log_time_ms,
            encode(self.outcomes).hex(),
            self.rows[full:],
            self.digest,
            [[o.topic, o.value.decode()] for o in self.outbox],
        ]
        return parts | {"state": json.dumps(state).encode()}

    @classmethod
    def restore(
        cls,
        partition: int,
        settings: CoreSettings,
        parts: Mapping[str, bytes],
        baselines: Any = None,
        *,
        partitions: int = 1,
    ) -> Ledger:
        ledger = cls(partition, settings, baselines, partitions=partitions)
        ledger.log_time_ms, outcomes, rest, ledger.digest, outbox = json.loads(parts["state"])
        ledger.outcomes = decode(bytes.fromhex(outcomes), Outcomes)
        slabs = sorted(
            (name for name in parts if name.startswith("slab-")),
            key=lambda name: int(name.split("-")[2]),
        )
        ledger.rows = [
            (s, o) for part in [*(json.loads(parts[name]) for name in slabs), rest] for s, o in part
        ]
        ledger.outbox = [Out(topic, b"", value.encode()) for topic, value in outbox]
        return ledger
