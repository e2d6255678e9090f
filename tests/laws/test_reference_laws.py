"""
Laws of profiles that come through the log: rows before one are judged by the reference before, rows
after it by the new one, wherever the log was cut and the worker was restarted.
"""

from __future__ import annotations

import json
import zlib
from base64 import b64encode
from collections import defaultdict
from functools import cache
from typing import Any

import msgspec
import numpy as np
import pytest

from stream_monitor.errors import InputError
from stream_monitor.evaluate import Shard
from stream_monitor.events.lifecycle import PART_CHARS, PARTS_MAX
from stream_monitor.events.observations import ALONE, Arrivals, unpack
from stream_monitor.ingest import Ingest
from stream_monitor.monitors import references
from stream_monitor.monitors.baseline import (
    Profile,
    category_profile,
    decode_profile,
    encode_profile,
    numeric_profile,
    profile_id,
)
from stream_monitor.monitors.references import References, events_of
from stream_monitor.settings import (
    Baseline,
    CoreSettings,
    Drift,
    Feature,
    Limits,
    ModelSettings,
    Segment,
)
from stream_monitor.shard_form import form_of

T0 = 1_760_000_000_000
STEP_MS = 100
SHIFTED, SAID, NEW, INHERITS, END = 700, 1_500, 2_000, 2_200, 2_400
"""Rows at which x shifts, the profile of v1 is complete, v2 comes, v3 comes, and the end."""
Event = tuple[str, dict[str, Any]]
SETTINGS = CoreSettings(
    defaults=ModelSettings(
        baseline=Baseline(rows=500),
        windows=("last_500", "10m"),
        cooldown_ms=0,
        segments=(Segment(name="c"),),
        drift=Drift(thresholds={"psi": 0.25}),
    )
)


def profile_of(mean: float, accuracy: float | None = None, seed: int = 0) -> Profile:
    rng = np.random.default_rng(seed)
    return Profile(
        features={
            "x": numeric_profile(rng.normal(mean, 1, 2_000), 5),
            "c": category_profile({"a": 1_000, "b": 1_000}, 0),
        },
        rows=2_000,
        performance={} if accuracy is None else {"accuracy": accuracy, "labels": 2_000.0},
    )


def said(version: str, profile: Profile, pieces: int = 3, **more: Any) -> list[Event]:
    """The parts of a profile, written by hand."""
    text = b64encode(zlib.compress(encode_profile(profile))).decode()
    size = -(-len(text) // pieces)
    about = {"type": "reference", "model": "m", "version": version, "at": "t", **more}
    about["reference"] = profile_id(profile)
    return [
        (
            "lifecycle",
            {**about, "part": i + 1, "parts": pieces, "content": text[i * size :][:size]},
        )
        for i in range(pieces)
    ]


V1, V2 = profile_of(2.0, 0.9), profile_of(2.0, seed=1)


@cache
def story() -> tuple[tuple[Event, ...], tuple[float, ...]]:
    """Rows of three versions whose x shifts by two, and the profiles of the first two."""
    rng = np.random.default_rng(7)
    x = rng.normal(size=END) + 2.0 * (np.arange(END) >= SHIFTED)
    out: list[Event] = []
    for i in range(END):
        version = "v3" if i >= INHERITS and i % 2 else "v2" if i >= NEW else "v1"
        features = {"x": float(x[i]), "c": "ab"[int(rng.random() < 0.5)]}
        call = {"event_id": f"e{i}", "version": version, "prediction": 1, "features": features}
        out.append(("predictions", call))
        out.append(("labels", {"event_id": f"e{i}", "label": int(rng.random() < 0.9)}))
        if SAID - 300 <= i < SAID and i % 100 == 99:  # its parts come apart
            out.append(said("v1", V1)[(i - SAID + 300) // 100])
        if i == NEW - 200:
            out += said("v2", V2)
        if i == INHERITS - 100:
            out.append(("lifecycle", {"type": "stage", "stages": {"v2": "production"}, "at": "t"}))
    timed = [
        (kind, {"model": "m", "timestamp": T0 + i * STEP_MS // 2, **event})
        for i, (kind, event) in enumerate(out)
    ]
    return tuple(timed), tuple(x.tolist())


def records(events: tuple[Event, ...], size: int) -> list[tuple[bytes, Arrivals]]:
    """Records of `observations`, each flush with so many events that came at their own times."""
    ingest, offsets = Ingest(1), defaultdict[str, int](int)
    out: list[tuple[bytes, Arrivals]] = []
    for start in range(0, len(events), size):
        arrivals: dict[str, tuple[int, Any]] = {}
        chunk = events[start : start + size]
        for kind in ("predictions", "labels", "lifecycle"):
            mine = [e for k, e in chunk if k == kind]
            if not mine:
                continue
            times = np.array([e["timestamp"] for e in mine])
            at = offsets[kind] + np.arange(len(mine))
            values = [json.dumps(e).encode() for e in mine]
            assert not ingest.take(f"{kind}@t/0", kind, list(values), at, times)
            arrivals[f"{kind}@t/0"] = offsets[kind], times
            offsets[kind] += len(mine)
        flushed = ingest.flush(chunk[-1][1]["timestamp"], arrivals)[0]
        out += [(record, arrivals) for record in flushed]
    return out


class Folded:
    def __init__(self, size: int, restarts: frozenset[int] = frozenset()) -> None:
        self.shard, self.alerts = Shard(0, SETTINGS, confirm_ms=0), list[dict[str, Any]]()
        for n, (record, arrivals) in enumerate(records(story()[0], size)):
            self.shard.fold(record, arrivals=arrivals)
            self.alerts += [json.loads(o.value) for o in self.shard.outbox if o.topic == "alerts"]
            self.shard.outbox = []
            if n in restarts:
                parts = {k: v for k, v in self.shard.snapshot().items() if v is not None}
                self.shard = Shard.restore(0, SETTINGS, parts)
        self.shard.close()

    def told(self) -> dict[Any, Any]:
        out: dict[Any, Any] = {}
        for version in self.shard.versions:
            inputs = version.features
            sums = inputs.panes.newest(10**9, version.watermark_ms, 10**9, slice(-1, None))[0]
            out[version.name] = (
                version.baseline_id,
                inputs.rows,
                np.round(inputs.totals, 6).tolist(),
                np.round(sums, 6).tolist(),
                inputs.drift.evidence.rows if inputs.drift.evidence is not None else 0,
                version.performance.built,
                version.performance.level.built,
            )
        return out


@cache
def whole() -> Folded:
    return Folded(100)


def test_rows_count_by_the_reference_of_their_place_in_the_log():
    folded, x = whole(), np.array(story()[1])
    by_name = {v.name: v for v in folded.shard.versions}
    v1, v2, v3 = by_name["v1"], by_name["v2"], by_name["v3"]
    assert (v1.baseline_id, v2.baseline_id) == (profile_id(V1), profile_id(V2))
    assert v3.baseline_id == v2.baseline_id, "it inherits from the version in production"
    now = v1.features.window(v1.watermark_ms, 10**9)[0]["x"]
    edges = np.array(V1.features["x"].edges)
    expected = np.bincount(
        np.searchsorted(edges, x[SAID:NEW], side="right"), minlength=len(edges) + 1
    )
    assert now.counts.tolist() == expected.tolist()
    assert v1.features.totals[v1.features.layout.start["x"]] == NEW, "counters do not fall"
    assert v1.performance.level.built
    assert v1.performance.built == V1.performance
    assert (v1.labels, v1.features.rows) == (NEW, NEW), "what depends on no reference goes on"


def test_what_fired_by_the_reference_before_ends_with_it_and_the_new_one_is_quiet():
    mine = [a for a in whole().alerts if a["version"] == "v1" and a["kind"] == "data_drift"]
    assert {a["reference"] for a in mine if a["status"] == "firing"}.isdisjoint({profile_id(V1)})
    fired = {(a["fingerprint"], a["starts_at"]) for a in mine if a["status"] == "firing"}
    ended = {(a["fingerprint"], a["starts_at"]): a for a in mine if a["status"] == "resolved"}
    assert fired
    assert fired == set(ended)
    assert all("another baseline" in a["summary"] for a in ended.values())
    assert not [k for k, e in whole().shard.alerts.firing() if k.kind == "data_drift"]


def test_the_shift_fires_where_no_reference_came():
    """The test above could not fail otherwise."""
    shard = Shard(0, SETTINGS, confirm_ms=0)
    events = tuple(e for e in story()[0] if e[0] != "lifecycle" and e[1].get("version") != "v3")
    for record, arrivals in records(events[: 2 * NEW], 100):
        shard.fold(record, arrivals=arrivals)
    assert [k for k, e in shard.alerts.firing() if k.kind == "data_drift"]


@pytest.mark.parametrize("size", [53, 20_000])
def test_how_the_log_is_cut_does_not_show(size):
    other = Folded(size)
    assert other.told() == whole().told()


def test_a_restart_at_any_part_does_not_show():
    log = records(story()[0], 100)
    alone = [n for n, (r, _) in enumerate(log) if ALONE in {g.kind for g in unpack(r).head.groups}]
    assert len(alone) == 7
    again = Folded(100, frozenset({k for n in alone for k in (n - 1, n)}))
    assert again.told() == whole().told()
    assert again.alerts == whole().alerts


def test_another_configuration_of_what_is_learnt_does_not_touch_it():
    """A version that learnt its baseline begins again; one whose profile came goes on."""
    before = whole().shard
    parts = {k: v for k, v in before.snapshot().items() if v is not None}
    other = msgspec.structs.replace(SETTINGS.defaults, baseline=Baseline(rows=700))
    after = Shard.restore(0, msgspec.structs.replace(SETTINGS, defaults=other), parts)
    pairs = list(zip(before.versions, after.versions, strict=True))
    assert {v.name for v, _ in pairs} == {"v1", "v2", "v3"}
    for was, now in pairs:
        assert (now.baseline_id, now.features.rows) == (was.baseline_id, was.features.rows)
    assert not [what for what in after.anew if "baseline of the features" in what]


def test_a_profile_keeps_its_id_when_a_feature_without_values_gets_some():
    """The worker learns that feature, and the profile stays the one that people know."""
    given = msgspec.structs.replace(
        V1, features={**V1.features, "c": category_profile({}, 2_000)}, performance={}
    )
    first = [("lifecycle", {**e, "timestamp": T0}) for _, e in said("v1", given)]
    events = [e for e in story()[0] if e[0] == "predictions"]
    stage = (
        "lifecycle",
        {"type": "stage", "model": "m", "stages": {"v1": "production"}, "at": "t"},
    )
    again = [(k, {**e, "timestamp": T0 + 300_000}) for k, e in first]
    newer = [(k, {**e, "version": "v9", "timestamp": T0 + 300_000}) for k, e in events[-50:]]
    log = (*first, (stage[0], {**stage[1], "timestamp": T0}), *events[:NEW], *again, *newer)
    shard, written = Shard(0, SETTINGS, confirm_ms=0), list[str]()
    for record, arrivals in records(log, 100):
        shard.fold(record, arrivals=arrivals)
        written += [o.topic for o in shard.outbox]
        shard.outbox = []
    shard.close()
    parts = {k: v for k, v in shard.snapshot().items() if v is not None}
    other = msgspec.structs.replace(SETTINGS.defaults, baseline=Baseline(rows=700))
    restored = Shard.restore(0, msgspec.structs.replace(SETTINGS, defaults=other), parts)
    for of in (shard, restored):
        for version in of.versions:
            assert version.baseline_id == profile_id(given), version.name
            assert version.features.profile is not None
            assert version.features.profile.features["c"].count == 500, "it was learnt"
        assert {v.name for v in of.versions} == {"v1", "v9"}
    seen = {v.name: v.features.window(v.watermark_ms, 10**9)[0]["x"] for v in shard.versions}
    assert seen["v1"].counts.sum() > NEW - 10, "the same profile again changes nothing"
    assert "baselines" not in written, "what somebody published there stays"


def test_a_switch_that_fails_switches_features_off_and_all_else_goes_on(monkeypatch):
    def fail(*_: object) -> None:
        raise IndexError("no such bin")

    monkeypatch.setattr(references, "_counters", fail)
    folded = Folded(1_000)
    v1, v2, _ = sorted(folded.shard.versions, key=lambda v: v.name)
    assert v1.contained.off == {"features": "IndexError: no such bin"}
    assert not v2.contained.off, "it began with its profile"
    assert v1.volume.predictions == whole().shard.versions[0].volume.predictions == NEW
    assert v1.labels == NEW
    told = [a for a in folded.alerts if a["subject"] == "monitor.features"]
    assert [(a["version"], a["status"]) for a in told] == [("v1", "firing")]
    assert "IndexError: no such bin" in told[0]["summary"]


def test_of_a_profile_with_many_features_the_limit_is_watched_and_the_rest_is_told():
    """Those that the configuration names come first; a higher limit takes in the others."""
    many = {f"f{i}": V1.features["x"] for i in range(30)}
    wide = msgspec.structs.replace(V1, features={**many, **V1.features}, performance={})
    defaults = msgspec.structs.replace(SETTINGS.defaults, features={"x": Feature(min=-1e9)})
    limits = Limits(features=5)
    settings = msgspec.structs.replace(SETTINGS, defaults=defaults, limits=limits)
    events = [e for e in story()[0] if e[0] == "predictions"][:NEW]
    first = [("lifecycle", {**e, "timestamp": T0}) for _, e in said("v1", wide)]
    shard = Shard(0, settings, confirm_ms=0)
    for record, arrivals in records((*events[:50], *first, *events[50:]), 200):
        shard.fold(record, arrivals=arrivals)
    shard.close()
    (version,) = shard.versions
    assert list(version.features.layout.start) == ["f0", "f1", "f2", "f3", "x"]
    assert version.baseline_id == profile_id(wide)
    told = [json.loads(o.value) for o in shard.outbox if o.topic == "alerts"]
    (alert,) = [a for a in told if a["detector"] == "profile" and a["status"] == "firing"]
    assert "limits.features = 5 leaves out 27 features of the baseline" in alert["summary"]
    assert "`f4`" in alert["summary"]
    assert alert["value"] == 27
    parts = {k: v for k, v in shard.snapshot().items() if v is not None}
    for most, left in ((5, 27), (10, 22)):
        now = msgspec.structs.replace(settings, limits=Limits(features=most))
        (again,) = Shard.restore(0, now, parts).versions
        assert (again.baseline_id, len(again.features.left_out)) == (profile_id(wide), left)
        assert len(again.features.layout.start) == most
        assert again.features.profile is not None
        window = again.features.window(again.watermark_ms, 10**9)[0]["x"]
        assert (window.rows > 0) == (most == 5), "counted in another way: it begins again"


def test_a_profile_that_is_incomplete_or_another_one_than_it_says_changes_nothing():
    kept = References()
    one, two, three = (json.dumps(e) for _, e in said("v1", V1))
    other = json.dumps(said("v1", V2)[1][1])

    def take(*texts: str) -> list[tuple[str, str]]:
        return kept.take(list(enumerate(texts)))[0]

    assert take(two, three) == take(one, three) == take(one, other, three) == []
    wrong = json.dumps(said("v1", V1, 1)[0][1] | {"reference": "0" * 32})
    broken = json.dumps(said("v1", V1, 1)[0][1] | {"content": "?"})
    assert take(wrong) == take(broken) == []
    assert not kept.kept
    assert take(one, two, one, two, two, three, three) == [("m", "v1")]
    assert kept.of("m", "v1") == encode_profile(V1)
    assert not kept.incomplete


def test_a_bomb_is_no_profile():
    bomb = b64encode(zlib.compress(b'{"x": "' + b" " * (references.PROFILE_BYTES_MAX + 9))).decode()
    event = said("v1", V1, 1)[0][1] | {"content": bomb}
    assert len(bomb) < PART_CHARS
    assert References().take([(0, json.dumps(event))]) == ([], [])


def test_what_is_kept_is_bounded(monkeypatch):
    monkeypatch.setattr(references, "KEPT_BYTES_MAX", 10_000)
    kept = References()
    for i in range(60):
        name = f"v{i}".ljust(2_000 if i < 40 else 1, "x")  # a name takes room too
        for _, event in said(name, profile_of(i), 2)[: 1 + i % 2]:
            kept.take([(0, json.dumps(event))])
        size = sum(len(key) + len(content) for key, content in kept.kept.items())
        assert size <= 10_000
    assert size > 5_000
    assert len(kept.incomplete) <= references.INCOMPLETE_MAX
    assert "m/v59" in kept.kept


def test_a_profile_is_a_few_parts_that_ingest_takes_and_one_that_is_too_big_is_refused():
    rng = np.random.default_rng(1)
    big = Profile(
        features={f"f{i}": numeric_profile(rng.normal(size=200), 0) for i in range(200)}, rows=200
    )
    parts = list(events_of("m", "v1", encode_profile(big)))
    assert 1 < len(parts) <= PARTS_MAX
    about = {"type": "reference", "model": "m", "version": "v1", "at": "t"}
    ingest, shard, n = Ingest(1, max_record_bytes=1_024), Shard(0, SETTINGS), len(parts)
    values = [json.dumps({**about, **p}).encode() for p in parts]
    assert not ingest.take("lifecycle@t/0", "lifecycle", list(values), np.arange(n), np.full(n, T0))
    flushed = ingest.flush(T0)[0]
    assert len(flushed) == n, "each is alone in its record"
    for record in flushed:
        shard.fold(record)
    assert decode_profile(shard.registry.references.of("m", "v1") or b"") == big
    snapshot = {k: v for k, v in shard.snapshot().items() if v is not None}
    assert form_of(snapshot).references.kept == shard.registry.references.kept
    huge = Profile(features={"c": category_profile({f"{i:064x}": 1 for i in range(70_000)}, 0)})
    with pytest.raises(InputError, match="fewer features or categories"):
        list(events_of("m", "v1", encode_profile(huge)))


@pytest.mark.parametrize(
    "changes", [{"part": 0}, {"part": 4}, {"parts": 99}, {"content": "x" * 70_000}, {"part": "1"}]
)
def test_parts_that_cannot_be_are_refused(changes):
    event = said("v1", V1)[0][1] | changes
    ingest, value = Ingest(1), json.dumps(event).encode()
    [reject] = ingest.take("lifecycle@t/0", "lifecycle", [value], np.arange(1), np.full(1, T0))
    assert reject.reason == "out_of_range"
    assert "baseline publish" in reject.message
