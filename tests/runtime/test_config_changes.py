"""
A changed configuration takes effect at a position of the log: what was committed before it is never
folded with another than wrote it.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from typing import Any

import msgspec
import numpy as np
import pytest
from aiokafka import TopicPartition

from stream_monitor.config import parse
from stream_monitor.errors import StateError
from stream_monitor.evaluate import Shard
from stream_monitor.ingest import Ingest, tick
from stream_monitor.settings import CoreSettings, ModelSettings, Threshold
from stream_monitor.stages import restoring, snapshots
from stream_monitor.stages.commit_metadata import Note, read_note
from stream_monitor.stages.evaluate_stage import EvaluateStage
from tests.runtime.fake_kafka import FakeKafka, FakeReader

pytestmark = pytest.mark.virtual_time
LOG, SNAPSHOTS, ALERTS = (
    TopicPartition(name, 0) for name in ("observations", "snapshots", "alerts")
)
T0 = 1_760_000_000_000
RECORDS, A_SNAPSHOT, COMMITTED = 60, 5, 34


def config(accuracy: float) -> CoreSettings:
    return CoreSettings(
        defaults=ModelSettings(
            windows=("last_100",),
            thresholds={
                "accuracy": Threshold(min=accuracy, min_labels=50, window="last_100", judge="value")
            },
            cooldown_ms=0,
        )
    )


STRICT, LAX = config(0.9), config(0.5)
"""The accuracy falls to 0.7 and comes back, again and again: one fires on that, the other never."""


def kafka_with_a_log() -> FakeKafka:
    kafka, ingest, n = FakeKafka(), Ingest(1), 0
    kafka.mine = {LOG}
    for second in range(RECORDS):
        right = 1.0 if second // 8 % 2 == 0 else 0.7
        for kind in ("predictions", "labels"):
            ids = range(n, n + 50)
            values: list[bytes | None] = [
                json.dumps(
                    {
                        "event_id": str(i),
                        "model": "m",
                        **(
                            {"prediction": 1}
                            if kind == "predictions"
                            else {"label": int(i % 50 < right * 50)}
                        ),
                    }
                ).encode()
                for i in ids
            ]
            assert not ingest.take(
                f"{kind}@x/0", kind, values, np.arange(n, n + 50), np.full(50, T0 + second * 1_000)
            )
        n += 50
        for record in ingest.flush(T0 + second * 1_000)[0]:
            kafka.append(LOG, record)
    assert kafka.ends[LOG] == RECORDS
    return kafka


async def opened(kafka: FakeKafka, core: CoreSettings) -> EvaluateStage:
    stage = kafka.stage(core=core)
    await stage.open([LOG])
    return stage


async def fold(stage: EvaluateStage, kafka: FakeKafka, until: int) -> None:
    """Fold and commit, as the driver and the ticker would."""
    owned = stage.owned[LOG]
    while owned.position < until:
        value = kafka.logs[LOG][owned.position].value
        assert value is not None
        owned.fold(value)
        owned.position += 1
        await stage._checkpoint(LOG, owned)


async def killed_by(core: CoreSettings) -> tuple[FakeKafka, Shard]:
    """A worker that has committed more than its snapshot has; and its state."""
    kafka = kafka_with_a_log()
    stage = await opened(kafka, core)
    await fold(stage, kafka, COMMITTED)
    assert kafka.offsets[LOG][0] == COMMITTED
    manifest, _ = await written(kafka)
    assert (manifest.position, manifest.config) == (1, core.hash)
    return kafka, stage.owned[LOG].shard


def moved(shard: Shard, core: CoreSettings) -> Shard:
    """Its state under another configuration."""
    return Shard.restore(0, core, {name: data or b"" for name, data in shard.snapshot().items()})


async def written(kafka: FakeKafka) -> tuple[snapshots.Manifest, dict[str, bytes]]:
    """The newest snapshot."""
    reader: Any = FakeReader(kafka)
    return await snapshots.read(reader, SNAPSHOTS, note(kafka).snapshot)


def note(kafka: FakeKafka) -> Note:
    return read_note(LOG, kafka.offsets[LOG][1])[0]


def episodes(kafka: FakeKafka) -> dict[str, list[str]]:
    """What a consumer of `alerts` has seen, by fingerprint."""
    found: dict[str, list[str]] = defaultdict(list)
    for record in kafka.logs[ALERTS].values():
        event = json.loads(record.value or b"")
        if event["status"] != "updated":
            found[event["fingerprint"]].append(event["status"])
    return found


def alternate(statuses: list[str]) -> bool:
    return statuses == ["firing", "resolved"] * (len(statuses) // 2) + ["firing"] * (
        len(statuses) % 2
    )


@pytest.mark.parametrize(
    ("before", "after"), [(STRICT, LAX), (LAX, STRICT)], ids=["alerts end", "alerts begin"]
)
async def test_what_was_committed_is_folded_with_the_configuration_that_wrote_it(
    before, after, caplog
):
    kafka, left = await killed_by(before)
    _, parts = await written(kafka)
    naive = Shard.restore(0, after, parts)
    for offset in range(1, COMMITTED):
        naive.fold(kafka.logs[LOG][offset].value or b"")
    assert {k for k, _ in naive.alerts.firing()} != {k for k, _ in left.alerts.firing()}, (
        "the test would show nothing"
    )

    with caplog.at_level(logging.WARNING):
        stage = await opened(kafka, after)
    assert caplog.messages == [
        (
            f"observations/0: configuration {after.hash} takes effect at offset {COMMITTED}; "
            f"before it was {before.hash}"
        )
    ]
    switched = moved(left, after)
    assert stage.owned[LOG].shard.snapshot() == switched.snapshot()

    published = len(kafka.logs[ALERTS])
    await fold(stage, kafka, RECORDS)
    for offset in range(COMMITTED, RECORDS):
        switched.fold(kafka.logs[LOG][offset].value or b"")
    assert [r.value for r in kafka.logs[ALERTS].values()][published:] == [
        o.value for o in switched.outbox if o.topic == "alerts"
    ]
    found = episodes(kafka)
    assert sum(map(len, found.values())) >= 3
    assert all(map(alternate, found.values())), found


async def test_a_change_is_noted_with_the_first_transaction_and_not_before():
    kafka, _ = await killed_by(STRICT)
    before = kafka.offsets[LOG][0], note(kafka)
    await opened(kafka, LAX)  # and is killed
    assert (kafka.offsets[LOG][0], note(kafka)) == before
    assert (note(kafka).config, note(kafka).since) == (STRICT.hash, 0)
    stage = await opened(kafka, LAX)
    await fold(stage, kafka, COMMITTED + 1)
    assert (note(kafka).config, note(kafka).since) == (LAX.hash, COMMITTED)
    assert note(kafka).since_ms > T0
    manifest, _ = await written(kafka)
    assert (manifest.config, manifest.position) == (LAX.hash, COMMITTED + 1), (
        "no later restore folds with this what the other has folded"
    )
    since = note(kafka)
    await fold(await opened(kafka, LAX), kafka, COMMITTED + 3)
    assert (note(kafka).since, note(kafka).since_ms) == (since.since, since.since_ms)


async def test_a_snapshot_whose_configuration_spells_out_defaults_is_folded_on_under_another():
    """
    msgspec leaves out what is the very object of a default; a `learn` that came from a file is
    equal to it, and is another object.
    """
    text = (
        "defaults: {task: auto, windows: [last_100], baseline: {source: learn, rows: 5000}, "
        "thresholds: {accuracy: {min: 0.9, min_labels: 50, window: last_100}}}"
    )
    written = parse(text).core

    kafka, _ = await killed_by(written)
    stage = await opened(kafka, LAX)
    assert stage.owned[LOG].shard.config == LAX.hash


async def test_a_snapshot_that_fails_loses_no_alert(monkeypatch):
    """What is written then is made again from the last commit on."""

    async def alerts(failing: bool) -> list[bytes | None]:
        kafka = kafka_with_a_log()
        stage = await opened(kafka, STRICT)
        await fold(stage, kafka, A_SNAPSHOT)
        while stage.owned[LOG].position < RECORDS:
            owned = stage.owned[LOG]
            owned.fold(kafka.logs[LOG][owned.position].value or b"")
            owned.position += 1
            if failing and any(e.topic == "alerts" for e in owned.shard.outbox):
                failing, owned.since_bytes = False, 1 << 40
                with monkeypatch.context() as patch:
                    patch.setattr(owned.shard, "snapshot", lambda *_: 1 / 0)
                    await stage._checkpoint(LOG, owned)
                assert owned.broken
                assert kafka.offsets[LOG][0] < owned.position
                await stage.open([LOG])
            else:
                await stage._checkpoint(LOG, owned)
        assert not failing
        return [record.value for record in kafka.logs[ALERTS].values()]

    undisturbed = await alerts(failing=False)
    assert len(undisturbed) >= 3
    assert await alerts(failing=True) == undisturbed


async def test_a_configuration_that_cannot_be_read_is_needed_only_after_a_crash(monkeypatch):
    """A clean stop leaves nothing to fold again."""

    def unreadable(parts: Any) -> Any:
        raise StateError("the configuration of the snapshot cannot be read: no")

    monkeypatch.setattr(restoring, "settings_of", unreadable)

    kafka, _ = await killed_by(STRICT)
    with pytest.raises(
        StateError,
        match=f"was folded with configuration {STRICT.hash} from 1 on, which this version .* "
        "run the previous version and stop it with SIGTERM",
    ):
        await opened(kafka, LAX)
    stage = await opened(kafka, STRICT)
    await stage.flush()
    stage = await opened(kafka, LAX)
    assert stage.owned[LOG].shard.config == LAX.hash


async def test_parked_state_is_not_used_when_another_worker_has_closed_with_its_configuration():
    kafka, _ = await killed_by(STRICT)
    first = await opened(kafka, STRICT)
    await first.flush()
    second = await opened(kafka, LAX)
    await second.flush()
    assert kafka.offsets[LOG][0] == COMMITTED
    assert note(kafka).config == LAX.hash
    await first.open([LOG])
    await fold(first, kafka, COMMITTED + 1)
    assert (note(kafka).config, note(kafka).since) == (STRICT.hash, COMMITTED)
    manifest, _ = await written(kafka)
    assert manifest.config == STRICT.hash


async def test_parked_state_is_used_when_nobody_was_there():
    kafka, _ = await killed_by(STRICT)
    stage = await opened(kafka, STRICT)
    await stage.flush()
    parked = stage.parked[LOG]
    await stage.open([LOG])
    assert stage.owned[LOG] is parked


async def test_a_manifest_of_another_version_is_refused_with_the_way_out():
    kafka, _ = await killed_by(STRICT)
    old = kafka.append(SNAPSHOTS, msgspec.msgpack.encode([1, 5, {}]), b"0/manifest")
    kafka.offsets[LOG] = COMMITTED, Note(old, 1).text()
    with pytest.raises(
        StateError, match="has version 1, this one reads 3; delete the group's offset"
    ):
        await opened(kafka, STRICT)


def test_an_alert_whose_rule_is_gone_ends_after_two_hours_in_which_its_model_was_used():
    def rows(shard: Shard, ingest: Ingest, n: int, time_ms: int) -> None:
        for kind in ("predictions", "labels"):
            values: list[bytes | None] = [
                json.dumps(
                    {
                        "event_id": str(i),
                        "model": "m",
                        **({"prediction": 1} if kind == "predictions" else {"label": 0}),
                    }
                ).encode()
                for i in range(n, n + 50)
            ]
            assert not ingest.take(
                f"{kind}@x/0", kind, values, np.arange(n, n + 50), np.full(50, time_ms)
            )
        for record in ingest.flush(time_ms)[0]:
            shard.fold(record)

    def statuses(shard: Shard) -> list[tuple[str, str]]:
        events = [json.loads(o.value) for o in shard.outbox if o.topic == "alerts"]
        return [
            (event["status"], event["summary"])
            for event in events
            if event["subject"] == "accuracy" and event["status"] != "updated"
        ]

    hour_ms, none = (
        3_600_000,
        CoreSettings(
            defaults=ModelSettings(
                windows=("last_100",), thresholds={"log_loss": Threshold(max=1e9)}, cooldown_ms=0
            )
        ),
    )
    shard, ingest = Shard(0, STRICT), Ingest(1)
    for i in range(4):
        rows(shard, ingest, 50 * i, T0 + i * 1_000)
    assert [s for s, _ in statuses(shard)] == ["firing"]

    other = moved(shard, none)
    kept, again = moved(shard, config(0.8)), moved(moved(shard, none), none)
    for one in (other, kept, again, shard):
        one.outbox.clear()
        rows(one, Ingest(1), 1_000, T0 + hour_ms)
        assert statuses(one) == []
        one.fold(tick(T0 + 4 * hour_ms))
        assert statuses(one) == [], "nobody used it: its rule may have had nothing to judge"
    assert again.changed_ms == other.changed_ms
    for one, told in ((other, ["resolved"]), (again, ["resolved"]), (kept, []), (shard, [])):
        one = moved(one, one.settings)
        rows(one, Ingest(1), 2_000, T0 + 5 * hour_ms)
        one.fold(tick(T0 + 5 * hour_ms + 2_000))
        assert [s for s, _ in statuses(one)] == told
        assert [text for _, text in statuses(one)] == [
            "m: no rule has judged accuracy since the configuration changed"
        ] * len(told)
