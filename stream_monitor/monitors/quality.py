"""
Did a field break? Missing and broken values, and outliers, as shares of a recent window against the
reference; hours against the same hour of earlier days.

Rule of the file: pure functions of a `Windowed` feature and its reference. A share is judged by the
lower end of the interval of what it is beyond that of the reference, so that few rows say little,
and what the reference itself has is no fault; where there are too few rows there is no verdict.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from stream_monitor.alerts.wording import apart, named, percent, signal
from stream_monitor.events.cells import class_name
from stream_monitor.monitors.anomaly import PATTERN_ROWS_MIN, Patterns, pattern
from stream_monitor.monitors.inputs import Inputs
from stream_monitor.monitors.reference import FeatureProfile, Profile
from stream_monitor.monitors.windowed import Windowed, outlier_share, share_outside
from stream_monitor.settings import DAY_MS, Feature, ModelSettings
from stream_monitor.stats.inference import is_back, wilson_interval
from stream_monitor.verdicts import AlertKey, Span, Verdict

LEAST = (1, 5, 25)
"""
Rows of the windows that are judged, in `quality.min_rows`: the newest, where something new shows
first; the steady one; and a long one, for what is only little beyond its limit.
"""
STEADY = 1
NAMES_SHOWN = 5
LOOK_Z = 4.0
"""A share is looked at every second, so its interval is wide: 1 in 30,000 on one side."""


def recent(
    inputs: Inputs, watermark_ms: int, rows_min: int
) -> list[tuple[dict[str, Windowed], Span]]:
    """
    Every feature in the newest rows, in more of them and in many (`LEAST`), with the bounds of
    these windows; none where even a day has too few rows.

    A window has as few panes as hold its rows, so that neither a pane that has only begun nor rows
    from before the change thin out what is new.
    """
    found: list[tuple[dict[str, Windowed], Span]] = []
    for times in LEAST:
        if inputs.profile is None:
            break
        vector, start, end = inputs.panes.newest(
            times * rows_min, watermark_ms, DAY_MS, slice(-1, None)
        )
        if vector[-1] < rows_min:
            break
        span = Span(start, end, int(vector[-1]))
        found.append(
            found[-1]
            if found and found[-1][1] == span
            else ({name: inputs.windowed(name, vector) for name in inputs.start}, span)
        )
    return found


def judge(
    model: str,
    version: str,
    inputs: Inputs,
    watermark_ms: int,
    settings: ModelSettings,
    reference: str,
) -> Iterator[Verdict]:
    """Verdicts on missing values, broken values and outliers of every feature."""
    found = recent(inputs, watermark_ms, settings.quality.min_rows)
    for name in inputs.start if found else ():
        windows = [(now[name], span) for now, span in found if now[name].rows]
        if windows:
            yield from _verdicts(
                AlertKey(model, version, "", "data_quality", name, "threshold"),
                windows,
                inputs,
                Given(settings, reference),
            )


def unwatched(
    model: str, version: str, inputs: Inputs, settings: ModelSettings, reference: str
) -> Iterator[Verdict]:
    """
    The verdict on fields that a given reference does not have; those of a reference that was learnt
    are learnt too.
    """
    if inputs.extends or inputs.profile is None or not inputs.unknown_at:
        return
    names = sorted(
        name
        for name, row in inputs.unknown_at.items()
        if inputs.rows - row < settings.baseline.rows
    )
    shown = ", ".join(signal(name) for name in names[:NAMES_SHOWN]) + (
        f" and {len(names) - NAMES_SHOWN:,} more" if len(names) > NAMES_SHOWN else ""
    )
    text = (
        "the events have fields that the reference does not have, so they are not watched: "
        f"{shown}; build a reference that has them"
    )
    yield Verdict(
        key=AlertKey(model, version, "", "data_quality", "__features__", "profile"),
        level="info" if names else "ok",
        clear=not names,
        value=float(len(names)),
        threshold=0.0,
        direction="up",
        window=Span(0, 0, inputs.rows),
        summary=f"{named(model, version)}: "
        f"{text if names else 'the events have only fields that the reference has'}",
        reference=reference,
        cooldown_ms=settings.cooldown_ms,
        evidence={"fields": names[:NAMES_SHOWN], "guarantee": "none"},
    )


def _verdicts(
    key: AlertKey, windows: list[tuple[Windowed, Span]], inputs: Inputs, given: Given
) -> Iterator[Verdict]:
    """
    One verdict a rule and alert: of what is beyond its limit in one of the windows, else of what is
    not over yet.
    """
    found: dict[AlertKey, dict[str, list[tuple[Share, Span]]]] = {}
    for now, span in windows:
        for rule, share in _shares(key, now, inputs, given.settings):
            found.setdefault(rule, {}).setdefault(share.what, []).append((share, span))
    for rule, kinds in found.items():
        judged = [_judged(of_kind) for of_kind in kinds.values()]
        yield _verdict(
            rule, max(judged, key=lambda j: (j.bad, not j.clear, j.share.surplus)), given
        )


def _judged(windows: list[tuple[Share, Span]]) -> Judged:
    """
    A share by its windows, newest first: it is over when it is so in the newest, and not by chance.
    """
    newest, steady = windows[0][0], windows[min(STEADY, len(windows) - 1)][0]
    clear = is_back((newest.part, newest.rows), (steady.part, steady.rows), newest.limit)
    beyond = None if clear else next((w for w in windows if w[0].surplus > w[0].margin), None)
    shown = beyond or next(
        (w for w in windows if not clear and w[0].value > w[0].limit), windows[0]
    )
    return Judged(*shown, beyond is not None, clear)


def _shares(
    key: AlertKey, now: Windowed, inputs: Inputs, settings: ModelSettings
) -> Iterator[tuple[AlertKey, Share]]:
    assert inputs.profile is not None
    name, profile = key.subject, inputs.profile.features[key.subject]
    rows, rule, quality = profile.rows, settings.features.get(name) or Feature(), settings.quality
    if rule.required:
        yield (
            key,
            Share(
                "missing",
                f"features.{name}.required",
                now.missing,
                now.rows,
                0,
                rows,
                0.0,
                profile.missing,
            ),
        )
    elif quality.missing_ratio is not None:
        yield (
            key,
            Share(
                "missing",
                "quality.missing_ratio",
                now.missing,
                now.rows,
                profile.missing,
                rows,
                quality.missing_ratio,
            ),
        )
    if quality.violation_ratio is not None:
        broken = against_rules(profile, rule)
        for what, n, usual, of_rule in (
            ("of the wrong type", now.wrong_type, profile.wrong_type, 0.0),
            ("out of range", now.out_of_range, profile.out_of_range, broken["min and max"]),
            ("of an unknown category", now.unknown, 0, broken["categories"]),
        ):
            yield (
                key._replace(detector="profile"),
                Share(
                    what,
                    "quality.violation_ratio",
                    n,
                    now.rows,
                    usual,
                    rows,
                    quality.violation_ratio,
                    of_rule,
                ),
            )
    numbers, known = float(now.counts.sum()), profile.count
    if profile.type == "numeric" and known and numbers > 0:
        outside = outlier_share(profile, settings.anomalies.fence) * known
        yield (
            key._replace(kind="anomaly", detector="iqr"),
            Share(
                "outside its fences",
                "anomalies.share",
                now.outliers,
                numbers,
                outside,
                known,
                settings.anomalies.share,
            ),
        )


def against_rules(profile: FeatureProfile, rule: Feature) -> dict[str, float]:
    """Rows of the reference that break what is written down of a feature, by key."""
    low, high = (
        (-math.inf if rule.min is None else rule.min),
        (math.inf if rule.max is None else rule.max),
    )
    allowed = {class_name(c) for c in rule.categories or profile.categories}
    return {
        "required": float(profile.missing) if rule.required else 0.0,
        "min and max": share_outside(profile, low, high) * profile.count
        if profile.type == "numeric"
        else 0.0,
        "categories": float(sum(n for c, n in profile.categories.items() if c not in allowed)),
    }


def breaches(profile: Profile, settings: ModelSettings) -> list[str]:
    """
    Sentences on the rules under `features` that the reference itself breaks, of more rows than
    would be an alert.
    """
    found = []
    limit = 1.0 if settings.quality.violation_ratio is None else settings.quality.violation_ratio
    for name, rule in settings.features.items():
        f = profile.features.get(name)
        if f is None or not f.rows:
            continue
        for key, n in against_rules(f, rule).items():
            if n / f.rows > (0.0 if key == "required" else limit):
                found.append(
                    f"the reference itself breaks `{key}` of feature `{name}` in "
                    f"{percent(n / f.rows)} of its rows: rows like these are an alert"
                )
    return found


class Given(NamedTuple):
    """What a verdict needs besides."""

    settings: ModelSettings
    reference: str


class Share(NamedTuple):
    """
    So many of the rows of a window, and of those of the reference; by `margin` it may be more.
    """

    what: str
    rule: str
    part: float
    rows: float
    usual_part: float
    usual_rows: float
    margin: float
    of_rule: float = 0.0
    """
    Rows of the reference that break a rule which holds whatever the reference has: they are told,
    and allow nothing.
    """

    @property
    def value(self) -> float:
        """Share of the window."""
        return self.part / self.rows

    @property
    def limit(self) -> float:
        """Beyond which the share is an alert."""
        return self.usual + self.margin

    @property
    def reference(self) -> float:
        """Share of the reference, as it is told."""
        return (self.usual_part + self.of_rule) / self.usual_rows if self.usual_rows else 0.0

    @property
    def usual(self) -> float:
        """Share of the reference."""
        return self.usual_part / self.usual_rows if self.usual_rows else 0.0

    @property
    def surplus(self) -> float:
        """
        The lower end of an interval of what the share is more than that of the reference.

        Both are samples: the interval is Newcombe's, of two Wilson intervals. What the reference
        does not have at all is no estimate, and has no error.

        >>> [
        ...     round(Share("missing", "", 30, 100, *usual, 0.05).surplus, 2)
        ...     for usual in ((0, 5_000), (12, 100))
        ... ]
        [0.16, -0.05]
        """
        share, low = self.part / self.rows, wilson_interval(self.part, self.rows, LOOK_Z)[0]
        if not self.usual_part:
            return low
        high = wilson_interval(self.usual_part, self.usual_rows, LOOK_Z)[1]
        return share - self.usual - math.hypot(share - low, high - self.usual)


class Judged(NamedTuple):
    """A share of the window that says most, and what it amounts to."""

    share: Share
    span: Span
    bad: bool
    clear: bool


def _verdict(key: AlertKey, found: Judged, given: Given) -> Verdict:
    share = found.share
    said, limit = apart(share.value, share.limit, form=percent, digits=3)
    counts = (
        f"{int(share.part):,} of {int(share.rows):,}; reference {percent(share.reference)}, limit "
        f"{limit} by {share.rule}"
    )
    return Verdict(
        key=key,
        level="warning" if found.bad else "ok",
        clear=found.clear,
        value=share.value,
        threshold=share.limit,
        direction="up",
        window=found.span,
        summary=f"{named(key.model, key.version)}: {signal(key.subject)} is {share.what} in "
        f"{said} of rows ({counts})",
        reference=given.reference,
        cooldown_ms=given.settings.cooldown_ms,
        evidence={
            "rows": int(share.rows),
            "count": int(share.part),
            "reference_ratio": share.reference,
            "guarantee": "none",
        },
    )


def patterns(
    model: str,
    version: str,
    known: Patterns,
    hour_ms: int,
    found: dict[str, Windowed],
    span: Span,
    settings: ModelSettings,
    reference: str,
) -> Iterator[Verdict]:
    """
    Verdicts on an hour that is over, of every numeric feature with enough rows and enough earlier
    days.
    """
    for name, now in found.items():
        present = now.rows - now.missing
        if now.mean is None or now.sd is None or present < PATTERN_ROWS_MIN:
            continue
        values = pattern(now.rows, present, now.mean, now.sd, now.missing, now.outliers)
        if not known.judge(name, hour_ms, values, settings.anomalies):
            continue
        z, beyond = known.z[name], known.running[name] >= settings.anomalies.pattern_windows
        said, limit = apart(z, settings.anomalies.pattern_z)
        text = (
            f"{signal(name)} {'differs from' if known.running[name] else 'is like'} the same hour "
            f"on earlier days (robust z-score {said}, limit {limit} by anomalies.pattern_z)"
        )
        text += f" for {known.running[name]} hours in a row" if beyond else ""
        yield Verdict(
            key=AlertKey(model, version, "", "anomaly", name, "profile"),
            level="warning" if beyond else "ok",
            clear=known.running[name] == 0,
            value=z,
            threshold=settings.anomalies.pattern_z,
            direction="up",
            window=Span(span.start_ms, span.end_ms, int(now.rows)),
            summary=f"{named(model, version)}: {text}",
            reference=reference,
            cooldown_ms=settings.cooldown_ms,
            evidence={
                "mean": now.mean,
                "sd": now.sd,
                "missing_ratio": now.missing / now.rows,
                "outliers_ratio": now.outliers / present,
                "guarantee": "none",
            },
        )
