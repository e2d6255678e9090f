"""
Laws of incidents and of people's words: who is told what follows from the alerts that fire and from
what people said, as a loop in plain Python says, wherever the worker was restarted.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_monitor.alerts import said
from stream_monitor.alerts.event import Alert, fingerprint
from stream_monitor.alerts.incidents import CAUSES, TOGETHER_MS
from stream_monitor.alerts.lifecycle import Alerts
from stream_monitor.alerts.marks import Mark, MarkType, ms_of
from stream_monitor.state import decode, encode
from stream_monitor.times import DAY_MS, HOUR_MS, rfc3339
from stream_monitor.verdicts import LEVELS, AlertKey, Kind, Level, Span, Verdict

T0 = 1_760_000_000_000
KEYS = (
    AlertKey("m", "1", "", "concept_drift", "__error__", "adwin"),
    AlertKey("m", "1", "", "performance", "accuracy", "threshold"),
    AlertKey("m", "1", "country=DE", "performance", "accuracy", "threshold"),
    AlertKey("m", "1", "", "anomaly", "accuracy", "trend"),
    AlertKey("m", "1", "", "data_drift", "age", "adwin"),
    AlertKey("m", "1", "", "data_drift", "age", "js"),
    AlertKey("m", "1", "", "data_drift", "amount", "js"),
    AlertKey("m", "1", "", "anomaly", "amount", "iqr"),
    AlertKey("m", "1", "", "data_quality", "age", "threshold"),
    AlertKey("m", "1", "", "data_quality", "kind", "threshold"),
    AlertKey("m", "1", "", "data_quality", "monitor.drift", "threshold"),
    AlertKey("m", "1", "", "prediction_drift", "__score__", "adwin"),
    AlertKey("m", "1", "", "latency", "latency_seconds", "profile"),
    AlertKey("m", "1", "", "volume", "prediction_errors", "profile"),
    AlertKey("m", "1", "", "freshness", "labels", "silence"),
    AlertKey("m", "2", "", "performance", "accuracy", "threshold"),
    AlertKey("m", "", "", "data_quality", "labels", "threshold"),
)
FAMILY = dict.fromkeys((0, 1, 2, 3, 15), "errors") | {4: "in", 5: "in", 6: "in", 7: "in"}
FAMILY |= {8: "field", 9: "field", 11: "out"}
"""By place in KEYS; the others stand alone."""


def verdict(key: AlertKey, level: Level) -> Verdict:
    return Verdict(
        key=key,
        level=level,
        clear=level == "ok",
        value=1.0,
        threshold=0.5,
        direction="up",
        window=Span(0, 0, 1),
        summary=f"{key.subject} is 1",
    )


class Fire(NamedTuple):
    """An alert that fires, as the plain loop knows it."""

    place: int
    starts_ms: int
    severity: int
    incident: str
    speaks: bool
    false: bool = False


class ByHand:
    """The rules as they are written in docs/alerts.md, with lists that are read from end to end."""

    def __init__(self) -> None:
        self.firing: list[Fire] = []
        self.opened: dict[str, int] = {}
        self.opener: dict[str, int] = {}
        self.mutes: dict[int, int] = {}
        self.hushes: list[tuple[str, int, int]] = []
        """(incident, place of the muted alert or -1, severity)."""
        self.false: set[tuple[int, int]] = set()
        self.past: dict[int, int] = {}
        self.alone: dict[str, bool] = {}

    def shown(self, incident: str) -> int:
        hush = max(
            (s for i, by, s in self.hushes if i == incident and (by < 0 or by in self.mutes)),
            default=0,
        )
        heard = [
            f.severity
            for f in self.firing
            if f.incident == incident and not f.false and f.place not in self.mutes
        ]
        return max((s for s in heard if s > hush), default=0)

    def all_shown(self) -> dict[str, int]:
        return {i: s for i in {f.incident for f in self.firing} if (s := self.shown(i))}

    def home(self, place: int, severity: int, now_ms: int) -> str | None:
        family, key = FAMILY.get(place), KEYS[place]
        if family is None or severity == 1:
            return None
        found = {f.incident for f in self.firing}
        for incident in sorted(found, key=lambda i: -list(self.opened).index(i)):
            mates = [f for f in self.firing if f.incident == incident]
            first = self.opener[incident]
            theirs = FAMILY.get(first)
            if KEYS[first][:2] != key[:2] or theirs is None or self.alone.get(incident):
                continue
            if family == theirs == "errors":
                return incident
            if "errors" in (family, theirs):
                continue
            if any(KEYS[f.place].subject == key.subject for f in mates):
                return incident
        for incident in sorted(found, key=lambda i: -list(self.opened).index(i)):
            first = self.opener[incident]
            theirs = FAMILY.get(first)
            if KEYS[first][:2] != key[:2] or theirs is None or self.alone.get(incident):
                continue
            near = family == theirs or "out" in (family, theirs)
            young = now_ms - self.opened[incident] <= TOGETHER_MS
            if near and young and "errors" not in (family, theirs):
                return incident
        return None

    def step(self, event: Alert, place: int, now_ms: int) -> tuple[str, bool, bool]:
        """(incident, primary, notify) that the event of a verdict must have."""
        severity = LEVELS.index(event.severity)
        before = self.all_shown()
        old = next((f for f in self.firing if f.place == place), None)
        if event.status == "firing":
            own = self.home(place, severity, now_ms)
            incident, speaks = own or event.incident, own is None
            if own is None:
                self.opened[incident], self.opener[incident] = now_ms, place
                self.alone[incident] = severity == 1
            false = (place, now_ms) in self.false
            self.firing.append(Fire(place, now_ms, severity, incident, speaks, false))
        else:
            assert old is not None
            self.firing.remove(old)
            incident, speaks = old.incident, old.speaks
            if event.status == "updated":
                self.firing.append(old._replace(severity=severity))
        now, was = self.shown(incident), before.get(incident, 0)
        if event.status == "resolved":
            assert old is not None
            self.past[place] = old.starts_ms
            over = all(f.incident != incident for f in self.firing)
            if over:
                self.hushes = [h for h in self.hushes if h[0] != incident]
            return incident, speaks, over and was > 1
        speaks = speaks or now > was
        self.firing[-1] = self.firing[-1]._replace(speaks=speaks)
        return incident, speaks, now > was and now > 1

    def rises(self, event: Alert) -> bool:
        return any(
            fingerprint(KEYS[f.place]) == event.fingerprint
            and f.severity < LEVELS.index(event.severity)
            for f in self.firing
        )

    def say(self, kind: MarkType, place: int, until_ms: int, now_ms: int) -> None:
        """Marks change what is shown; `told` makes those speak that are heard again."""
        at = next((i for i, f in enumerate(self.firing) if f.place == place), None)
        if kind == "muted" and until_ms <= now_ms:
            self.end(place)
        elif kind == "muted":
            self.mutes[place] = until_ms
            if at is not None and self.firing[at].speaks:
                self.hushes.append((self.firing[at].incident, place, self.firing[at].severity))
        elif kind == "false_alarm" and at is not None:
            fire = self.firing[at] = self.firing[at]._replace(false=True)
            self.false.add((place, fire.starts_ms))
            if fire.speaks:
                self.hushes.append((fire.incident, -1, fire.severity))
        elif kind == "false_alarm" and place in self.past:
            self.false.add((place, self.past[place]))

    def end(self, place: int) -> None:
        self.mutes.pop(place, None)
        self.hushes = [h for h in self.hushes if h[1] != place]


KINDS: tuple[MarkType, ...] = ("muted", "false_alarm", "acknowledged")
steps = st.lists(
    st.tuples(
        st.integers(0, len(KEYS) - 1),
        st.sampled_from(["ok", "ok", "info", "warning", "warning", "critical", *KINDS]),
        st.sampled_from([0, 1, 30, 61, 3_000]),
        st.sampled_from([0, 90, 4_000]),
    ),
    max_size=50,
)


@settings(max_examples=200, deadline=None)
@given(steps, st.booleans())
def test_who_is_told_is_what_a_plain_loop_says(
    story: list[tuple[int, Any, int, int]], restarted: bool
) -> None:
    """Seconds pass, verdicts come, people speak; every event and every gauge is as by hand."""
    alerts, hand, now, told = Alerts(), ByHand(), T0, 0
    for place, what, seconds, lasts in story:
        now += seconds * 1_000
        over = [p for p, until in hand.mutes.items() if until <= now]
        ended = alerts.tick(now)
        assert all(a.status == "updated" for a in ended)
        for a in [a for a in ended if hand.rises(a)]:  # it waited for a minute
            place_of = next(i for i, k in enumerate(KEYS) if fingerprint(k) == a.fingerprint)
            assert (a.incident, a.primary, a.notify) == hand.step(a, place_of, now)
            told += a.notify
            ended.remove(a)
        shown = hand.all_shown()
        for p in over:
            hand.end(p)
        rose = {i for i, s in hand.all_shown().items() if s > max(shown.get(i, 0), 1)}
        assert {a.incident for a in ended if a.notify} == rose
        told += sum(a.notify for a in ended)
        _speak(hand, ended)
        key = KEYS[place]
        if what in KINDS:
            until = now + lasts * 1_000
            shown = hand.all_shown()
            mark = Mark(
                type=what,
                model=key.model,
                at=rfc3339(now),
                fingerprint=fingerprint(key),
                until=rfc3339(until) if what == "muted" else None,
                by="ana",
            )
            events = alerts.take(mark, now)
            hand.say(what, place, until, now)
            rose = {i for i, s in hand.all_shown().items() if s > max(shown.get(i, 0), 1)}
            assert {a.incident for a in events if a.notify} == rose
            told += sum(a.notify for a in events)
            _speak(hand, events)
        else:
            for a in alerts.observe(verdict(key, what), now):
                assert (a.incident, a.primary, a.notify) == hand.step(a, place, now)
                told += a.notify and a.status != "resolved"
        if restarted:
            alerts = decode(encode(alerts), Alerts)
        _agree(alerts, hand)
        assert alerts.notified == told
        assert alerts.said.false.total() == len(hand.false)


def _speak(hand: ByHand, events: list[Alert]) -> None:
    """An alert at whose step a mute ended and something is heard again speaks from there on."""
    for a in events:
        for i, f in enumerate(hand.firing):
            if fingerprint(KEYS[f.place]) == a.fingerprint:
                assert a.primary >= f.speaks
                hand.firing[i] = f._replace(speaks=a.primary)


def _agree(alerts: Alerts, hand: ByHand) -> None:
    firing = {key: e.incident for key, e in alerts.firing()}
    assert firing == {KEYS[f.place]: f.incident for f in hand.firing}
    assert set(alerts.incidents.open) == set(firing.values()), "open while an alert of it fires"
    shown = {i: LEVELS.index(x.shown) for i, x in alerts.incidents.open.items() if x.shown != "ok"}
    assert shown == hand.all_shown()
    for incident in alerts.incidents.open.values():
        assert incident.firing == incident.subjects.total()
    grouped = [name for names in alerts.incidents.groups.values() for name in names]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) <= set(alerts.incidents.open)


def test_every_kind_has_a_cause_or_stands_alone() -> None:
    from typing import get_args

    assert set(CAUSES) == set(get_args(Kind))


def after(alerts: Alerts, place: int, level: Level = "warning", now_ms: int = T0) -> Alert:
    (event,) = alerts.observe(verdict(KEYS[place], level), now_ms)
    return event


def test_a_change_of_concept_is_told_once_and_again_when_it_is_worse() -> None:
    alerts = Alerts()
    events = [after(alerts, 0), after(alerts, 2), after(alerts, 3), after(alerts, 1, "critical")]
    assert len({e.incident for e in events}) == 1
    assert [e.notify for e in events] == [True, False, False, True]
    assert [e.primary for e in events] == [True, False, False, True]
    ends = [after(alerts, place, "ok", T0 + 1_000) for place in (1, 0, 3, 2)]
    assert [e.notify for e in ends] == [False, False, False, True], "told when all of it is over"


def test_a_drift_that_stays_open_does_not_hide_the_next_one() -> None:
    alerts = Alerts()
    age = after(alerts, 4)
    assert after(alerts, 5, now_ms=T0 + DAY_MS).incident == age.incident, "the same feature"
    amount = after(alerts, 6, now_ms=T0 + DAY_MS)
    assert (amount.incident != age.incident, amount.notify) == (True, True)
    score = after(alerts, 11, now_ms=T0 + DAY_MS + HOUR_MS)
    assert (score.incident, score.notify) == (amount.incident, False)


def drifted(*features: str) -> Verdict:
    key = AlertKey("m", "1", "", "data_drift", "__features__", "evidence")
    named = [{"subject": name} for name in features]
    return msgspec.structs.replace(verdict(key, "warning"), evidence={"contributors": named})


def test_a_drift_is_about_the_features_that_it_names() -> None:
    alerts = Alerts()
    (drift,) = alerts.observe(drifted("age", "income"), T0)
    later = T0 + 2 * TOGETHER_MS
    missing = after(alerts, 8, now_ms=later)
    assert (missing.incident, missing.notify) == (drift.incident, False), "`age` was told"
    assert after(alerts, 7, now_ms=later).notify, "`amount` was not"
    alerts.observe(msgspec.structs.replace(drifted(), level="ok", clear=True), later)
    (incident,) = (i for i in alerts.incidents.open.values() if i.subjects["age"])
    assert dict(incident.subjects) == {"age": 1}, "nothing stays of what has ended"


def test_a_field_that_breaks_in_a_model_without_versions_is_told_once() -> None:
    alerts = Alerts()
    drift = drifted("age")
    alerts.observe(msgspec.structs.replace(drift, key=drift.key._replace(version="")), T0)
    missing = AlertKey("m", "", "", "data_quality", "age", "missing")
    (event,) = alerts.observe(verdict(missing, "warning"), T0)
    assert not event.notify
    for detector in ("threshold", "profile"):
        labels = AlertKey("m", "", "", "data_quality", "labels", detector)
        (event,) = alerts.observe(verdict(labels, "warning"), T0)
        assert event.notify, "labels without a prediction are of no version"


@pytest.mark.parametrize(("features", "told"), [(("age",), False), (("age", "income"), True)])
def test_a_drift_joins_what_was_told_of_all_its_features(features: Any, told: bool) -> None:
    alerts = Alerts()
    after(alerts, 8)
    (drift,) = alerts.observe(drifted(*features), T0 + 2 * TOGETHER_MS)
    assert drift.notify == told


def test_an_improvement_hides_nothing_and_is_not_told() -> None:
    alerts = Alerts()
    better = after(alerts, 0, "info")
    worse = after(alerts, 1)
    assert (better.notify, worse.notify) == (False, True)
    assert better.incident != worse.incident


def said_of(alert: Alert, kind: MarkType, **more: Any) -> Mark:
    return Mark(
        type=kind, model=alert.model, at=alert.starts_at, fingerprint=alert.fingerprint, **more
    )


def test_a_mute_silences_its_incident_until_it_ends_or_something_worse_comes() -> None:
    alerts = Alerts()
    first = after(alerts, 0)
    (muted,) = alerts.take(said_of(first, "muted", until=rfc3339(T0 + HOUR_MS)), T0)
    assert (muted.status, muted.notify, muted.muted_until) == (
        "updated",
        False,
        rfc3339(T0 + HOUR_MS),
    )
    joined = after(alerts, 2, now_ms=T0 + 1_000)
    assert (joined.notify, joined.muted_until) == (False, muted.muted_until)
    assert alerts.incidents.open[first.incident].shown == "ok"
    worse = after(alerts, 1, "critical", T0 + 2_000)
    assert (worse.notify, worse.muted_until) == (True, None)
    assert after(alerts, 1, "ok", T0 + 3_000).notify is False
    assert alerts.tick(T0 + HOUR_MS - 1) == []
    (again,) = alerts.tick(T0 + HOUR_MS)
    assert (again.status, again.notify, again.muted_until) == ("updated", True, None)


def test_a_mute_of_an_alert_that_is_gone_ends_for_those_that_it_spoke_for() -> None:
    alerts = Alerts()
    first = after(alerts, 0)
    after(alerts, 1)
    alerts.take(said_of(first, "muted", until=rfc3339(T0 + HOUR_MS)), T0)
    after(alerts, 0, "ok", T0 + 1_000)
    (again,) = alerts.tick(T0 + HOUR_MS)
    assert (again.subject, again.notify, again.primary) == ("accuracy", True, True)


def test_a_mute_said_before_hides_no_other_alert() -> None:
    alerts = Alerts()
    mark = Mark(
        type="muted",
        model="m",
        at=rfc3339(T0),
        fingerprint=fingerprint(KEYS[0]),
        until=rfc3339(T0 + DAY_MS),
    )
    assert alerts.take(mark, T0) == []
    first, other = after(alerts, 0), after(alerts, 1)
    assert (first.notify, first.muted_until) == (False, rfc3339(T0 + DAY_MS))
    assert (other.incident, other.notify, other.muted_until) == (first.incident, True, None)


@pytest.mark.parametrize("restarted", [False, True])
def test_an_episode_is_a_false_alarm_once_also_when_it_is_over(restarted: bool) -> None:
    alerts = Alerts()
    first = after(alerts, 0)
    mark = said_of(first, "false_alarm", starts_at=first.starts_at)
    (told,) = alerts.take(mark, T0)
    assert (told.false_alarm, told.notify) == (True, False)
    for _ in range(3):
        if restarted:
            alerts = decode(encode(alerts), Alerts)
        assert alerts.take(mark, T0) == []
    after(alerts, 0, "ok", T0 + 1_000)
    assert alerts.take(mark, T0 + 2_000) == []
    assert alerts.said.false == {("m", "1"): 1}
    second = after(alerts, 0, now_ms=T0 + DAY_MS)
    assert (second.false_alarm, second.notify) == (False, True), "of one episode only"
    after(alerts, 0, "ok", T0 + DAY_MS + 1_000)
    alerts.tick(T0 + 2 * DAY_MS)
    assert alerts.episodes == {}, "nothing is left of the episode"
    late = said_of(second, "false_alarm", starts_at=second.starts_at)
    for _ in range(2):
        if restarted:
            alerts = decode(encode(alerts), Alerts)
        assert alerts.take(late, T0 + 2 * DAY_MS) == []
    assert alerts.said.false == {("m", "1"): 2}
    unknown = said_of(second, "false_alarm", starts_at=rfc3339(T0 + 5))
    alerts.take(unknown, T0 + 2 * DAY_MS)
    assert alerts.said.false == {("m", "1"): 2}


def test_an_acknowledgement_is_of_the_incident_until_it_gets_worse() -> None:
    alerts = Alerts()
    first = after(alerts, 0)
    (event,) = alerts.take(said_of(first, "acknowledged", by="ana" * 100), T0)
    assert (event.acknowledged_by, event.notify) == (("ana" * 100)[: said.BY_MAX], False)
    assert after(alerts, 2).acknowledged_by == event.acknowledged_by
    worse = after(alerts, 1, "critical")
    assert (worse.acknowledged_by, worse.notify) == (None, True)
    stale = said_of(first, "acknowledged", by="bo", starts_at=rfc3339(T0 - 1))
    assert alerts.take(stale, T0) == [], "it was said of an earlier episode"


def test_what_people_say_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(said, "MUTES_MAX", 5)
    monkeypatch.setattr(said, "PAST_MAX", 5)
    alerts = Alerts()
    first = after(alerts, 0)
    for i in range(20):
        mark = f"{i:032x}" if i else first.fingerprint
        until = rfc3339(T0 + (i + 1) * HOUR_MS)
        events = alerts.take(
            Mark(type="muted", model="m", at=rfc3339(T0), fingerprint=mark, until=until), T0
        )
        assert [e.muted_until is None for e in events] == ([False] if not i else [True] * (i == 5))
        assert len(alerts.said.mutes) <= 5
    for i in range(10):
        after(alerts, 1, "warning", T0 + i * HOUR_MS)
        after(alerts, 1, "ok", T0 + i * HOUR_MS + 1)
        assert len(alerts.said.past) <= 5


def test_a_time_in_a_mark_is_read_as_it_is_written() -> None:
    assert [ms_of(rfc3339(T0 + i)) for i in range(1_000)] == [T0 + i for i in range(1_000)]


def test_an_estimate_that_errors_made_invalid_is_part_of_their_incident() -> None:
    estimate = AlertKey("m", "1", "", "calibration", "estimated_accuracy", "estimate")
    alerts = Alerts()
    errors = after(alerts, 0)
    (event,) = alerts.observe(verdict(estimate, "info"), T0)
    assert (event.incident, event.primary, event.notify) == (errors.incident, False, False)
    alone = Alerts()
    (first,) = alone.observe(verdict(estimate, "info"), T0)
    errors = after(alone, 0)
    assert first.primary
    assert first.incident != errors.incident, "an alert of severity info opens none for others"
    assert errors.notify


def test_times_of_a_window_that_are_not_known_are_null() -> None:
    alerts = Alerts()
    event = after(alerts, 0)
    assert (event.window.start, event.window.end, event.window.count) == (None, None, 1)
