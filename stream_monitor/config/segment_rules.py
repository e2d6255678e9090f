"""
The meaning of each key of `segment_alerts` and `fairness`, as `rules.py` has it for the rest.

Rule of the file: texts and bounds only. Relations between keys are in `relations.py`.
"""

from __future__ import annotations

from stream_monitor import settings as s
from stream_monitor.config.forms import LAST_N_MAX
from stream_monitor.config.rule import Rule

RULES: dict[type, dict[str, Rule]] = {
    s.SegmentAlerts: {
        "level": Rule(
            "A segment whose accuracy (or mean absolute error) is worse than in its own first "
            "labelled rows is an alert, unless all segments are worse."
        ),
        "max_gap": Rule("How much worse than the other segments together a segment may be."),
        "min_labels": Rule(
            "A segment with fewer labelled rows has no gap.", low=1, high=LAST_N_MAX
        ),
        "severity": Rule("Severity of these alerts."),
    },
    s.GapLimits: {
        "accuracy": Rule("Accuracy of the others less that of the segment.", above=0, high=1),
        "precision": Rule("The same of precision (binary).", above=0, high=1),
        "recall": Rule("The same of recall (binary).", above=0, high=1),
        "mae": Rule("Mean absolute error of the segment less that of the others.", above=0),
    },
    s.Fairness: {
        "reference": Rule(
            "Value of the segment with which every other group is compared; by default each group "
            "is compared with all others together.",
            form="name",
        ),
        "limits": Rule(
            "Beyond which a comparison is an alert; without limits there are gauges only."
        ),
        "min_rows": Rule("A rate of fewer rows is not compared.", low=1, high=LAST_N_MAX),
        "severity": Rule("Severity of these alerts."),
    },
    s.FairnessLimits: {
        "statistical_parity_difference": Rule(
            "Absolute difference of the shares of positive answers.", above=0, high=1
        ),
        "disparate_impact_ratio": Rule(
            "Least ratio of these shares; 1 divided by it is the greatest. 0.8 is the four-fifths "
            "rule.",
            above=0,
            high=1,
        ),
        "equal_opportunity_difference": Rule(
            "Absolute difference of the true positive rates.", above=0, high=1
        ),
        "false_positive_rate_difference": Rule(
            "Absolute difference of the false positive rates.", above=0, high=1
        ),
        "equalized_odds_difference": Rule("The greater of the last two.", above=0, high=1),
    },
}
