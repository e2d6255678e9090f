"""
`lifecycle` as a source of INGEST: events that are folded become rows, everything else is skipped,
and a topic that is nearly always silent is not behind.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from aiokafka import TopicPartition

from stream_monitor.events.observations import LIFECYCLE, unpack
from stream_monitor.ingest import Ingest, home
from stream_monitor.settings import Settings, WorkerSettings
from stream_monitor.stages.hub import Hub
from stream_monitor.stages.ingest_stage import IngestStage

STARTED = {"type": "experiment_started", "model": "m", "experiment": "x"}
MARK = {"type": "acknowledged", "model": "m", "fingerprint": "0" * 32}
VERDICT = {"type": "experiment_verdict", "model": "m", "experiment": "x"}


def taken(*values: bytes | None) -> tuple[Ingest, list[tuple[int, str]]]:
    ingest = Ingest(4, max_record_bytes=500)
    n = len(values)
    rejects = ingest.take(
        "lifecycle@id/0", "lifecycle", list(values), 10 + np.arange(n), np.full(n, 1_000)
    )
    return ingest, [(r.index, r.reason) for r in rejects]


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


def test_what_is_folded_is_a_row_of_its_model_and_all_else_is_skipped():
    about = {"comment": "who knows", "by": "ana"}
    events = [STARTED, {**MARK, **about}, VERDICT, {**STARTED, "type": "experiment_changed"}]
    ingest, rejected = taken(*map(encoded, events), encoded({**MARK, "fingerprint": 7}), None)
    assert rejected == []
    assert {k[1]: n for k, n in ingest.counts.items()} == {"forwarded": 3, "skipped": 3}
    flushed = ingest.flush(2_000)
    assert list(flushed) == [home("m", 4)]
    found = unpack(flushed[home("m", 4)][0])
    assert found.rows["offset"].tolist() == [10, 11, 13]
    assert {g.kind for g in found.head.groups} == {LIFECYCLE}
    told = [json.loads(g.version or "") for g in found.head.groups]
    assert {**MARK, "by": "ana"} in told, "comments stay on lifecycle"


def test_a_mark_on_what_belongs_to_no_model_goes_to_every_partition():
    ingest, _ = taken(encoded({**MARK, "model": "__other__"}))
    assert list(ingest.flush(2_000)) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "value",
    [
        b"{",
        b"[]",
        b"7",
        b"\x00\x01avro",
        b'{"type": []}',
        b'{"type": {"a": 1}}',
        b'{"type": [], "epoch": 99}',
        b'{"comment": "' + b"x" * 600 + b'"}',
        b"[" * 300,
        b"\xff",
    ],
)
def test_what_others_write_is_never_rejected(value):
    ingest, rejected = taken(value, encoded(STARTED))
    assert rejected == []
    assert ingest.rows == 1


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b'{"type": "experiment_started", ', "invalid_json"),
        (encoded({"type": "experiment_started"}), "missing_field"),
        (encoded({**STARTED, "model": ["m"]}), "missing_field"),
        (encoded({**STARTED, "note": "x" * 600}), "too_large"),
    ],
)
def test_an_event_of_an_experiment_that_cannot_be_used_is_a_dead_letter(value, reason):
    ingest, rejected = taken(value)
    assert rejected == [(0, reason)]
    assert ingest.rows == 0


@pytest.mark.parametrize("number", ["9" * 25, "9" * 400, "1e999", "NaN"])
def test_what_is_forwarded_can_be_read_by_everybody(number):
    ingest, _ = taken(encoded(STARTED)[:-1] + f', "x": {number}}}'.encode())
    for records in ingest.flush(0).values():
        for group in unpack(records[0]).head.groups:
            assert json.loads(group.version or "")["model"] == "m"


class FakeSource:
    """A driver that owns all partitions; only `lifecycle` is behind."""

    def __init__(self) -> None:
        self.committed_offsets: dict[TopicPartition, tuple[int, str]] = {}

    def assigned(self) -> set[TopicPartition]:
        return {TopicPartition(t, 0) for t in ("predictions", "labels", "lifecycle")}

    def partitions(self, topic: str) -> int:
        return 1

    def flowing(self) -> bool:
        return True

    async def topic_ids(self, topics: Any) -> dict[str, str]:
        return dict.fromkeys(topics, "id")

    async def committed(self, tps: Any) -> dict[TopicPartition, Any]:
        return {tp: self.committed_offsets.get(tp) for tp in tps}

    async def bounds(self, tps: Any) -> dict[TopicPartition, tuple[int, int]]:
        return dict.fromkeys(tps, (3, 9))

    async def commit(self, offsets: Any) -> None:
        self.committed_offsets.update(offsets)


@pytest.mark.virtual_time
async def test_lifecycle_is_read_from_its_first_record_and_is_not_behind():
    hub = Hub(Settings(worker=WorkerSettings(auto_offset_reset="latest")))
    source: Any = FakeSource()
    hub.source = source
    stage = IngestStage(hub, 1)
    assert stage.topics == {"predictions", "labels", "lifecycle"}
    assert stage.in_place == {"lifecycle"}
    positions = await stage.open(source.assigned())
    assert {tp.topic: at for tp, at in positions.items()} == {
        "predictions": 9,
        "labels": 9,
        "lifecycle": 3,
    }
    assert {tp.topic for tp in stage.alignment.places} == {"predictions", "labels"}
    assert not stage.alignment.shared
