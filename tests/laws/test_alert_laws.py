"""
Laws: an alert fires as long as it is bad, its steps are told apart, and the numbers of two things
that differ never look the same.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_monitor.alerts import lifecycle
from stream_monitor.alerts.event import Alert
from stream_monitor.alerts.lifecycle import Alerts
from stream_monitor.alerts.wording import apart, number, percent
from stream_monitor.monitors.drift import Signal
from stream_monitor.monitors.episodes import BACK
from stream_monitor.state import decode, encode
from stream_monitor.times import rfc3339
from stream_monitor.verdicts import AlertKey, Span, Verdict

KEY = AlertKey("m", "1", "", "performance", "accuracy", "threshold")
LIMIT = 0.8
T0 = 1_000_000
finite = st.floats(allow_nan=False, allow_infinity=False)


def verdict(value: float, *, cooldown_ms: int, for_ms: int = 0, key: AlertKey = KEY) -> Verdict:
    bad = value < LIMIT
    return Verdict(
        key=key,
        level="warning" if bad else "ok",
        clear=not bad,
        value=value,
        threshold=LIMIT,
        direction="down" if bad else None,
        window=Span(0, 0, 1),
        summary=f"accuracy is {value}",
        for_ms=for_ms,
        cooldown_ms=cooldown_ms,
    )


looks = st.lists(
    st.tuples(st.integers(0, 90), st.sampled_from([0.0, 0.5, 0.7, 0.75, 0.79, 0.8, 0.9])),
    min_size=1,
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(looks, st.sampled_from([0, 60_000, 300_000]), st.sampled_from([0, 30_000]), st.booleans())
def test_an_alert_fires_as_long_as_it_is_bad(
    steps: list[tuple[int, float]], cooldown_ms: int, for_ms: int, restarted: bool
) -> None:
    """
    Second by second: where it is bad and nothing fires, the dwell or the cooldown is not over, and
    it is no worse than what was told before.
    """
    alerts, told, now = Alerts(), [], T0
    bad_since: int | None = None
    quiet_until, worst, was_firing = 0, LIMIT, False
    for wait, value in steps:
        for _ in range(wait):
            now += 1_000
            told += alerts.tick(now)
        told += alerts.observe(verdict(value, cooldown_ms=cooldown_ms, for_ms=for_ms), now)
        if restarted:
            alerts = decode(encode(alerts), Alerts)
        bad_since = None if value >= LIMIT else now if bad_since is None else bad_since
        fires = bool(list(alerts.firing()))
        assert fires == (bool(told) and told[-1].status != "resolved")
        if value >= LIMIT:
            assert not fires
            if told and told[-1].status == "resolved" and told[-1].ends_at == rfc3339(now):
                quiet_until = now + cooldown_ms
                worst = min(
                    worst,
                    *(
                        a.value
                        for a in told
                        if a.value is not None
                        and a.status == "firing"
                        and a.starts_at == told[-1].starts_at
                    ),
                )
        elif fires:
            worst = min(worst, value) if was_firing or now < quiet_until else value
        else:
            assert bad_since is not None
            assert now - bad_since < for_ms or (now < quiet_until and value >= worst)
        was_firing = fires
    assert len({a.id for a in told}) == len(told)
    _alternate(told)


def _alternate(told: list[Alert]) -> None:
    open_ = False
    last: Alert | None = None
    for alert in told:
        assert open_ == (alert.status != "firing")
        if alert.status == "updated":
            assert last is not None
            assert (alert.value, alert.severity) != (last.value, last.severity)
        open_, last = alert.status != "resolved", alert


events = st.lists(
    st.tuples(st.integers(0, 7), st.sampled_from([0.5, 0.9]), st.integers(0, 2_000)), max_size=80
)


@settings(max_examples=150, deadline=None)
@given(events, st.sampled_from([0, 5_000]), st.sampled_from([0, 1_500]))
def test_with_more_alerts_than_there_is_room_firing_and_resolved_alternate(
    steps: list[tuple[int, float, int]], cooldown_ms: int, for_ms: int
) -> None:
    """An alert that has fired is resolved by its next good verdict, however many others fire."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lifecycle, "EPISODES_MAX", 4)
        patch.setattr(lifecycle, "ROOM", 1)
        alerts, told, now = Alerts(), [], T0
        for subject, value, wait in steps:
            now += wait
            key = AlertKey("m", "1", "", "performance", str(subject), "threshold")
            firing = key in dict(alerts.firing())
            caused = alerts.observe(
                verdict(value, cooldown_ms=cooldown_ms, for_ms=for_ms, key=key), now
            )
            if firing and value >= LIMIT:
                assert [a.status for a in caused] == ["resolved"]
            told += caused + alerts.tick(now)
            assert len(alerts.episodes) <= 4
    assert len({a.id for a in told}) == len(told)
    for subject in range(8):
        _alternate([a for a in told if a.subject == str(subject)])


def test_a_firing_alert_is_never_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "EPISODES_MAX", 20)
    monkeypatch.setattr(lifecycle, "ROOM", 2)
    keys = [AlertKey("m", "1", "", "performance", str(i), "threshold") for i in range(25)]
    alerts = Alerts()
    fired = [a for key in keys for a in alerts.observe(verdict(0.5, cooldown_ms=0, key=key), T0)]
    assert ([a.status for a in fired], alerts.refused) == (["firing"] * 20, 5)
    assert alerts.tick(T0 + 1_000) == []
    alerts = decode(encode(alerts), Alerts)
    assert [key for key, _ in alerts.firing()] == keys[:20]
    for key in keys[:20]:
        good = alerts.observe(verdict(0.9, cooldown_ms=60_000, key=key), T0 + 2_000)
        assert [a.status for a in good] == ["resolved"]
    # all of them cool down; two are forgotten, so that two new ones have a place
    alerts.tick(T0 + 3_000)
    late = [
        a
        for key in keys[20:]
        for a in alerts.observe(verdict(0.5, cooldown_ms=0, key=key), T0 + 4_000)
    ]
    assert ([a.status for a in late], alerts.refused) == (["firing"] * 2, 8)


def test_what_waits_needs_no_further_verdict() -> None:
    alerts = Alerts()
    assert alerts.observe(verdict(0.5, cooldown_ms=0, for_ms=120_000), T0) == []
    assert [a.status for s in range(1, 200) for a in alerts.tick(T0 + s * 1_000)] == ["firing"]


def test_an_equal_state_waits_for_the_cooldown_and_a_worse_one_does_not() -> None:
    alerts = Alerts()
    for when, value in ((0, 0.7), (1, 0.9), (2, 0.7)):
        alerts.observe(verdict(value, cooldown_ms=300_000), T0 + when)
    assert not list(alerts.firing())
    assert [a.status for a in alerts.observe(verdict(0.69, cooldown_ms=300_000), T0 + 3)] == [
        "firing"
    ]
    alerts.observe(verdict(0.9, cooldown_ms=300_000), T0 + 4)
    alerts.observe(verdict(0.7, cooldown_ms=300_000), T0 + 5)
    assert alerts.tick(T0 + 300_003) == []
    assert [a.status for a in alerts.tick(T0 + 300_004)] == ["firing"]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("binary", [True, False])
def test_a_drift_is_open_as_long_as_the_signal_is_away(seed: int, binary: bool) -> None:
    """
    Levels that hold for long enough: at the end of each, an episode is open if and only if the
    level is not the usual one.
    """
    rng = np.random.default_rng(seed)
    signal = Signal(
        "__error__" if binary else "x",
        {"adwin": {}} if binary else {"adwin": {}, "page_hinkley": {}},
        None if binary else 0.0,
    )
    signal.state.binary = binary
    usual = 0.1 if binary else 0.0
    away = rng.uniform(0.3, 0.6, 3) if binary else rng.uniform(0.6, 2, 3) * rng.choice([-1, 1], 3)
    for level in (usual, away[0], usual, away[1], away[2], usual):
        n = 8_000
        values = (rng.random(n) < level).astype(float) if binary else rng.normal(level, 1, n)
        for part in np.array_split(values, 17):
            signal.update(part, np.arange(len(part)))
        assert {episode.open for episode in signal.state.episodes.values()} == {
            bool(level != usual)
        }


def test_a_drift_that_stays_is_open_after_a_million_values() -> None:
    rng = np.random.default_rng(5)
    signal = Signal("__error__", {"adwin": {}})
    signal.state.binary = True
    for rate, n in ((0.1, 5_000), (0.16, 1_000_000)):
        signal.update((rng.random(n) < rate).astype(float), np.arange(n))
    assert signal.state.episodes["adwin"].open
    assert signal.state.episodes["adwin"].back < BACK


@given(finite, finite)
def test_numbers_that_differ_look_different(a: float, b: float) -> None:
    one, other = apart(a, b)
    assert (one == other) == (a == b)


@given(st.floats(min_value=-1e300, max_value=1e300))
def test_a_number_is_near_what_it_says(a: float) -> None:
    said = float(number(a).replace(",", ""))
    assert said == pytest.approx(a, rel=5e-4)
    if abs(a) < 1e290:
        assert float(percent(a).replace(",", "").removesuffix("%")) == pytest.approx(
            a * 100, rel=5e-3
        )
