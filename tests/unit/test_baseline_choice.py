"""Which baseline a model version gets, and profiles that are none."""

from __future__ import annotations

import logging

import msgspec
import numpy as np
import pytest

from stream_monitor.config.baseline_files import file_profiles
from stream_monitor.errors import StateError
from stream_monitor.evaluate import Shard
from stream_monitor.monitors.baseline import (
    Profile,
    decode_profile,
    encode_profile,
    numeric_profile,
    profile_id,
)
from stream_monitor.monitors.version import Version
from stream_monitor.offline.replay import Replay
from stream_monitor.settings import Baseline, CoreSettings, ModelSettings, Settings
from stream_monitor.stages.published_baselines import read_baselines, usable


def profile(mean: float) -> bytes:
    return encode_profile(
        Profile(features={"x": numeric_profile(np.arange(50.0) + mean, 0)}, rows=50)
    )


EXACT, MODEL, FILE, DEFAULT = (profile(mean) for mean in (1, 2, 3, 4))


@pytest.fixture
def core(tmp_path):
    for name, value in (("file", FILE), ("default", DEFAULT)):
        (tmp_path / f"{name}.json").write_bytes(value)
    of = {
        name: ModelSettings(baseline=Baseline(source="file", path=str(tmp_path / f"{name}.json")))
        for name in ("file", "default")
    }
    return CoreSettings(
        defaults=of["default"],
        models={"f": of["file"], "learns": ModelSettings(baseline=Baseline(rows=100))},
    )


@pytest.mark.parametrize(
    ("model", "version", "published", "expected"),
    [
        ("f", "1", {"f/1": EXACT, "f/": MODEL}, EXACT),
        ("f", "2", {"f/1": EXACT, "f/": MODEL}, MODEL),
        ("f", "2", {"f/1": EXACT}, FILE),
        ("f", "", {}, FILE),
        ("anybody", "1", {}, DEFAULT),
        ("anybody", "1", {"anybody/": MODEL}, MODEL),
        ("learns", "1", {}, None),
        ("learns", "1", {"learns/1": EXACT}, EXACT),
        ("f", "1", {"f/1": b"{broken"}, FILE),
        ("anybody", "1", {"/": EXACT}, DEFAULT),
    ],
)
def test_published_for_the_version_then_for_the_model_then_the_file_then_learnt(
    core, model, version, published, expected, monkeypatch
):
    async def topic(_settings, name, *, without):
        assert (name, without) == ("baselines", "stream-monitor.learnt")
        return published

    monkeypatch.setattr("stream_monitor.stages.published_baselines.read_compacted", topic)
    with pytest.raises(StopIteration) as found:
        read_baselines(Settings(core=core), file_profiles(core)).send(None)
    made = Version(model, version, core, found.value.value, [], [])
    assert made.baseline_id == ("" if expected is None else profile_id(decode_profile(expected)))


def broken(**changes) -> bytes:
    found = msgspec.to_builtins(decode_profile(EXACT))
    found["features"]["x"] |= changes
    return msgspec.json.encode(found)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{",
        b"[]",
        b'{"schema": 3}',
        broken(quantiles=list(range(30)), counts=[1] * 31),
        broken(quantiles=[2.0, 1.0], counts=[1, 1, 1]),
        broken(counts=[1]),
        broken(sd=-1.0),
        broken(q1=1e9),
        broken(missing=-1),
        broken(type="other"),
    ],
)
def test_a_published_profile_that_is_none_is_left_out_loudly(value, caplog):
    with pytest.raises(StateError):
        decode_profile(value)
    with caplog.at_level(logging.ERROR, "stream_monitor"):
        assert usable({"m/1": value, "m/2": EXACT}) == {"m/2": EXACT}
    assert "the baseline published as 'm/1'" in caplog.text


def test_what_is_learnt_or_published_later_does_not_reach_rows_that_wait_in_a_snapshot():
    settings = Settings(core=CoreSettings(defaults=ModelSettings(baseline=Baseline(rows=600))))

    def events(start, end):
        return [
            (
                "predictions",
                b'{"event_id": "%d", "model": "m", "prediction": 1, "features": {"x": %d}}'
                % (i, i % 7),
                b"",
                1_700_000_000_000 + i,
            )
            for i in range(start, end)
        ]

    smooth = Replay(settings)
    smooth.feed(events(0, 500))
    parts = smooth.shards[0].snapshot()
    smooth.feed(events(500, 1_500))
    learnt = next(o.value for o in smooth.out if o.topic == "baselines")
    restored = Replay(settings)
    restored.feed(events(0, 500))
    restored.shards = [
        Shard.restore(
            0,
            smooth.shards[0].settings,
            {k: v for k, v in parts.items() if v is not None},
            {"m/": learnt},
        )
    ]
    restored.shards[0].tells_history = False  # as every shard of a replay
    restored.feed(events(500, 1_500))
    smooth.close()
    restored.close()
    assert restored.shards[0].snapshot() == smooth.shards[0].snapshot()
    assert restored.summary() == smooth.summary()
