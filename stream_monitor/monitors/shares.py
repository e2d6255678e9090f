"""
Shares of the rows of a window that are missing, broken or outliers, each with the share of the
baseline and the increase that is allowed.

Rule of the file: pure functions of a `Windowed` feature and its baseline. Only the increase over
the baseline is judged, because what the baseline has is not a fault; and by the lower end of its
interval, because few rows prove little.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from stream_monitor.events.cells import class_name
from stream_monitor.monitors.baseline import FeatureProfile
from stream_monitor.monitors.windowed import Windowed, outlier_share, share_outside
from stream_monitor.settings import Anomalies, Feature, ModelSettings, Quality
from stream_monitor.stats.inference import wilson_interval
from stream_monitor.verdicts import AlertKey

LOOK_Z = 4.0
"""A share is looked at every second, so its interval is wide: 1 in 30,000 on one side."""


class Share(NamedTuple):
    """
    So many of the rows of a window, and of those of the baseline; by `margin` it may be more.
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
    Rows of the baseline that break a rule which holds whatever the baseline has: they are told,
    and allow nothing.
    """
    dispersion: float = 1.0
    """
    So many rows are worth one independent row: where values depend on those before, outliers come
    together.
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
    def baseline(self) -> float:
        """Share of the baseline, as alerts show it; 0 if no baseline knows it (`usual_rows`)."""
        return (self.usual_part + self.of_rule) / self.usual_rows if self.usual_rows else 0.0

    @property
    def usual(self) -> float:
        """Share of the baseline."""
        return self.usual_part / self.usual_rows if self.usual_rows else 0.0

    @property
    def surplus(self) -> float:
        """
        The lower end of an interval of the increase over the baseline.

        Both shares are of samples, so the interval is Newcombe's, of two Wilson intervals. A
        baseline of 0 counts as exact.

        >>> [
        ...     round(Share("missing", "", 30, 100, *usual, 0.05).surplus, 2)
        ...     for usual in ((0, 5_000), (12, 100))
        ... ]
        [0.16, -0.05]
        """
        part, rows = self.part / self.dispersion, self.rows / self.dispersion
        share, low = self.value, wilson_interval(part, rows, LOOK_Z)[0]
        if not self.usual_part:
            return low
        usual, of = self.usual_part / self.dispersion, self.usual_rows / self.dispersion
        high = wilson_interval(usual, of, LOOK_Z)[1]
        return share - self.usual - math.hypot(share - low, high - self.usual)


def shares_of(
    key: AlertKey,
    now: Windowed,
    profile: FeatureProfile,
    settings: ModelSettings,
    dispersion: float = 1.0,
) -> Iterator[tuple[AlertKey, Share]]:
    """
    The shares of a feature that are judged, each with the alert that it may raise: one a rule.

    `dispersion` is how much more the feature varies between chunks than independent rows do.
    """
    rule = settings.features.get(key.subject) or Feature()
    missing = _missing(key.subject, now, profile, rule, settings.quality.missing_ratio)
    if missing is not None:
        yield key._replace(detector="missing"), missing
    if settings.quality.violation_ratio is not None:
        for name, share in _broken(now, profile, rule, settings.quality.violation_ratio):
            yield key._replace(detector=name), share
    outside = _outside(now, profile, settings.anomalies, dispersion)
    if outside is not None:
        yield key._replace(kind="anomaly", detector="iqr"), outside


def _missing(
    name: str, now: Windowed, profile: FeatureProfile, rule: Feature, margin: float | None
) -> Share | None:
    """Missing values: of a required feature none are allowed, whatever the baseline has."""
    if rule.required:
        key, usual, allowed, of_rule = f"features.{name}.required", 0, 0.0, profile.missing
    elif rule.max_missing is not None:
        key, usual = f"features.{name}.max_missing", 0
        allowed, of_rule = rule.max_missing, profile.missing
    elif margin is not None:
        key, usual, allowed, of_rule = "quality.missing_ratio", profile.missing, margin, 0
    else:
        return None
    return Share("missing", key, now.missing, now.rows, usual, profile.rows, allowed, of_rule)


def _broken(
    now: Windowed, profile: FeatureProfile, rule: Feature, margin: float
) -> Iterator[tuple[str, Share]]:
    """Values that the feature should not have, by the rule that they break."""
    of_rules = against_rules(profile, rule)
    for name, what, part, usual, of_rule in (
        ("type", "of the wrong type", now.wrong_type, profile.wrong_type, 0.0),
        ("range", "out of range", now.out_of_range, profile.out_of_range, of_rules["min and max"]),
        ("category", "of an unknown category", now.unknown, 0, of_rules["categories"]),
    ):
        if name != "category" or profile.type == "category":
            key = "quality.violation_ratio"
            yield name, Share(what, key, part, now.rows, usual, profile.rows, margin, of_rule)


def value_share(rule: str, part: float, rows: float, quality: Quality) -> Share | None:
    """The share of rows that break a rule on single values; None if nobody asks for an alert."""
    what, key, limit = {
        "pattern": ("not of its pattern", "violation_ratio", quality.violation_ratio),
        "unique": ("repeated", "repeated_ratio", quality.repeated_ratio),
        "unknown_field": ("there", "unknown_field_ratio", quality.unknown_field_ratio),
    }[rule]
    return None if limit is None else Share(what, f"quality.{key}", part, rows, 0, 0, limit)


def _outside(
    now: Windowed, profile: FeatureProfile, anomalies: Anomalies, dispersion: float
) -> Share | None:
    """Outliers among the numbers of a numeric feature; None if there are no numbers."""
    numbers, known = float(now.counts.sum()), profile.count
    if profile.type != "numeric" or not known or numbers <= 0:
        return None
    usual = outlier_share(profile, anomalies.fence) * known
    what, key = "outside its fences", "anomalies.share"
    return Share(
        what, key, now.outliers, numbers, usual, known, anomalies.share, dispersion=dispersion
    )


def against_rules(profile: FeatureProfile, rule: Feature) -> dict[str, float]:
    """Rows of the baseline that break the configured rules of a feature, by key."""
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
