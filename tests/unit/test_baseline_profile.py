"""Baseline profiles against numpy, and what their name depends on."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import msgspec
import numpy as np
import pytest

from stream_monitor.errors import StateError
from stream_monitor.evaluate import Shard
from stream_monitor.ingest import Ingest
from stream_monitor.monitors.baseline import (
    FeatureProfile,
    Profile,
    category_profile,
    decode_profile,
    encode_profile,
    numeric_profile,
    profile_id,
)
from stream_monitor.monitors.inputs import Inputs
from stream_monitor.monitors.rows import Rows
from stream_monitor.settings import Baseline, CoreSettings, Limits, ModelSettings

START_MS = 1_700_000_000_000


@pytest.mark.parametrize(
    "draw",
    [
        lambda r: r.normal(3, 2, 1_000),
        lambda r: r.lognormal(0, 2, 777),
        lambda r: r.integers(0, 5, 1_000).astype(float),
        lambda _: np.array([4.0]),
    ],
)
def test_numeric_profile_equals_numpy(draw):
    values = draw(np.random.default_rng(7))
    found = numeric_profile(values, 11)
    assert (found.count, found.missing) == (len(values), 11)
    assert (found.q1, found.median, found.q3) == tuple(np.quantile(values, [0.25, 0.5, 0.75]))
    assert found.mean == pytest.approx(values.mean(), rel=1e-12)
    assert found.sd == pytest.approx(values.std(), rel=1e-9)
    assert (found.min, found.max) == (values.min(), values.max())
    edges = np.array(found.edges)
    assert (np.diff(edges) > 0).all()
    assert (edges[0], edges[-1]) == (values.min(), np.nextafter(values.max(), np.inf))
    counts = [
        int(((values >= low) & (values < high)).sum())
        for low, high in zip([-np.inf, *edges], [*edges, np.inf], strict=True)
    ]
    assert list(found.counts) == counts
    assert (counts[0], counts[-1]) == (0, 0)
    one = np.nextafter(edges[:-1], np.inf) == edges[1:]
    assert max(np.array(counts[1:-1])[~one], default=0) <= np.ceil(len(values) / 20), (
        "what has no bin of its own is no more than a twentieth"
    )


def test_a_value_with_much_weight_has_a_bin_of_its_own():
    assert numeric_profile(np.full(50, 2.5), 0).counts == (0, 50, 0)
    assert numeric_profile(np.repeat([0.0, 1.0], [50, 20]), 0).counts == (0, 50, 0, 20, 0)
    rng = np.random.default_rng(1)
    for value in (-9.0, 0.0, 0.3, 9.0):  # the least, one in the middle, the greatest
        values = np.where(rng.random(5_000) < 0.1, value, rng.normal(size=5_000))
        found = numeric_profile(values, 0)
        at = found.edges.index(value)
        assert found.edges[at + 1] == np.nextafter(value, np.inf)
        assert found.counts[at + 1] == (values == value).sum()


def test_outliers_lie_outside_the_fences():
    values = np.append(np.arange(100.0), [1_000.0, -1_000.0, 2_000.0])
    q1, q3 = np.quantile(values, [0.25, 0.75])
    iqr = q3 - q1
    assert (
        numeric_profile(values, 0).outliers
        == ((values < q1 - 1.5 * iqr) | (values > q3 + 1.5 * iqr)).sum()
        == 3
    )


def test_categories_are_ranked_by_count_then_name():
    assert list(category_profile({"c": 1, "b": 5, "a": 1}, 2).categories.items()) == [
        ("b", 5),
        ("a", 1),
        ("c", 1),
    ]


def some_profile(**changes) -> Profile:
    features = {
        "zeta": numeric_profile(np.arange(40.0), 1),
        "alpha": category_profile({"x": 3, "y": 9}, 0),
    }
    values: dict[str, Any] = {
        "model": "m",
        "version": "1",
        "rows": 41,
        "features": features,
        "performance": {"accuracy": 0.9, "labels": 41.0},
    }
    return Profile(**values | changes)


def test_a_profile_survives_its_json_in_its_order():
    profile = some_profile()
    again = decode_profile(encode_profile(profile))
    assert again == profile
    assert list(again.features) == ["zeta", "alpha"]
    assert list(again.features["alpha"].categories) == ["y", "x"]


def test_the_name_is_the_hash_of_canonical_json():
    profile = some_profile()
    canonical = json.dumps(
        json.loads(encode_profile(profile)),
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
    ).encode()
    assert profile_id(profile) == hashlib.blake2b(canonical, digest_size=16).hexdigest()
    assert profile_id(decode_profile(encode_profile(profile))) == profile_id(profile)
    assert (
        len(
            {
                profile_id(p)
                for p in (
                    profile,
                    some_profile(version="2"),
                    some_profile(rows=42),
                    some_profile(performance={}),
                )
            }
        )
        == 4
    )


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{", b'{"rows": "many"}', b'{"features": {"a": {"count": 1}}}', b'{"schema": 3}'],
)
def test_what_is_no_profile_is_said_to_be_none(data):
    with pytest.raises(StateError, match="baseline profile"):
        decode_profile(data)


@pytest.mark.parametrize(
    "changes",
    [
        {"edges": (), "counts": (9,)},
        {"missing": 10**30},
        {"missing": -1},
        {"counts": (0, 10**30, 0), "count": 10**30},
    ],
)
def test_a_profile_that_nothing_can_be_compared_with_is_refused(changes):
    whole = numeric_profile(np.full(9, 4.0), 0)
    decode_profile(encode_profile(Profile(features={"x": whole}, rows=9)))
    broken = msgspec.structs.replace(whole, **changes)
    with pytest.raises(StateError, match="x: "):
        decode_profile(encode_profile(Profile(features={"x": broken}, rows=9)))


def test_a_snapshot_keeps_each_feature_and_category_in_its_place():
    """Names out of alphabetical order: sums are stored by position."""
    rng = np.random.default_rng(3)
    settings = CoreSettings(defaults=ModelSettings(baseline=Baseline(rows=200)))
    ingest, shard = Ingest(1), Shard(0, settings)
    offset = 0

    def feed(shards: list[Shard], rows: int) -> None:
        nonlocal offset
        features = [
            {
                "zeta": rng.normal(100),
                "alpha": rng.normal(),
                "kind": str(rng.choice(["b", "b", "b", "a"])),
            }
            for _ in range(rows)
        ]
        values = [
            json.dumps(
                {"event_id": str(offset + i), "model": "m", "prediction": 1, "features": f}
            ).encode()
            for i, f in enumerate(features)
        ]
        offsets = np.arange(offset, offset + rows)
        ingest.take("predictions@x/0", "predictions", values, offsets, START_MS + offsets * 1_000)
        offset += rows
        for record in ingest.flush(START_MS + offset * 1_000)[0]:
            for each in shards:
                each.fold(record)

    feed([shard], 600)
    feed([shard], 600)
    restored = Shard.restore(
        0, settings, {name: part for name, part in shard.snapshot().items() if part is not None}
    )
    feed([shard, restored], 300)
    shard.close()
    restored.close()
    assert restored.summary() == shard.summary()
    assert restored.summary()["models"]["m"]["versions"][""]["features"]["zeta"][
        "mean"
    ] == pytest.approx(100, abs=0.5)


def test_a_feature_profile_says_no_more_than_it_knows():
    assert json.loads(
        encode_profile(Profile(features={"a": FeatureProfile(type="category", count=0)}))
    )["features"]["a"] == {"type": "category", "count": 0}


def test_categories_that_do_not_add_up_are_refused():
    """They would stop the monitors of features of a version that gets them."""
    broken = FeatureProfile(type="category", count=0, categories={"a": 1})
    with pytest.raises(StateError, match="categories must add up"):
        decode_profile(encode_profile(Profile(features={"x": broken})))


FEW = numeric_profile(np.array([1.0, 2.0, 4.0]), 0)


@pytest.mark.parametrize("feature", [FEW, numeric_profile(np.ones(1), 0), category_profile({}, 0)])
def test_a_feature_that_is_nearly_always_missing_is_watched(feature):
    """One row in a thousand million has it, as in a large file with a rare column."""
    rare = msgspec.structs.replace(feature, missing=2**40)
    profile = decode_profile(encode_profile(Profile(features={"x": rare}, rows=2**40)))
    inputs = Inputs(lambda c: c, ModelSettings(), Limits(), profile, tolerance=lambda _: 0.005)
    inputs.drift.days = 60.0
    times = np.arange(400) * 60_000
    inputs.add(Rows(("x",), np.where(times[None] % 7, np.nan, 1.0), times, []))
    assert (inputs.rows, inputs.window(int(times[-1]), 10**9)[0]["x"].rows) == (400, 400)
