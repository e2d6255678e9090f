"""The series budget: nobody pays for the flood of another."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from stream_monitor.metrics.budget import drop_order, fair_share, left_out
from stream_monitor.metrics.catalogue import CATALOGUE

MODEL_FAMILIES = [name for name, metric in CATALOGUE.items() if metric.labels[:1] == ("model",)]
totals = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=2), st.integers(1, 1_000), min_size=1
)
counts = st.dictionaries(
    st.tuples(st.sampled_from("abcdef"), st.sampled_from(MODEL_FAMILIES)),
    st.integers(1, 500),
    min_size=1,
    max_size=60,
)


@given(totals, st.integers(0, 5_000))
def test_fair_share_fills_the_limit_exactly(found, limit):
    share = fair_share(found, limit)
    used = sum(min(total, share) for total in found.values())
    if share == float("inf"):
        assert used <= limit
    else:
        assert abs(used - limit) < 1e-6


@given(counts, st.integers(0, 3_000))
def test_what_is_kept_fits_and_small_models_keep_everything(found, limit):
    out = left_out(found, CATALOGUE, limit)
    kept: defaultdict[str, int] = defaultdict(int)
    of_model: defaultdict[str, int] = defaultdict(int)
    for (model, name), series in found.items():
        of_model[model] += series
        if (model, name) not in out:
            kept[model] += series
    assert sum(kept.values()) <= limit
    share = fair_share(of_model, limit)
    assert all(kept[model] == total for model, total in of_model.items() if total <= share)


@given(counts, st.integers(0, 3_000))
def test_no_family_goes_before_one_that_is_needed_less(found, limit):
    out = left_out(found, CATALOGUE, limit)
    rank = {name: place for place, name in enumerate(drop_order(CATALOGUE))}
    for model in {model for model, _ in found}:
        gone = [rank[name] for other, name in out if other == model]
        kept = [rank[name] for other, name in found if other == model and (other, name) not in out]
        assert not gone or not kept or max(gone) < min(kept)


def test_series_of_the_process_are_kept_and_take_their_part_of_the_limit():
    found = {
        ("", "stream_monitor_ready"): 5,
        ("a", "model_drift_score"): 6,
        ("a", "model_accuracy"): 5,
    }
    assert left_out(found, CATALOGUE, 16) == set()
    assert left_out(found, CATALOGUE, 15) == {("a", "model_drift_score")}
    assert left_out(found, CATALOGUE, 9) == {("a", "model_drift_score"), ("a", "model_accuracy")}


def test_histograms_by_feature_go_first_and_predictions_last():
    order = drop_order(CATALOGUE)
    assert order[0] == "model_feature_values"
    assert (
        order.index("model_drift_score")
        < order.index("model_segment_accuracy")
        < order.index("model_prediction_latency_seconds")
        < order.index("model_accuracy")
    )
    assert [name for name in order if name.startswith("model_")][-1] == "model_info"
