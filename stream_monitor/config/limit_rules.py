"""
The meaning of each key of `limits`, as `rules.py` has it for the rest.

Rule of the file: texts and bounds only.
"""

from __future__ import annotations

from stream_monitor import settings as s
from stream_monitor.config.rule import Rule

RULES: dict[type, dict[str, Rule]] = {
    s.Limits: {
        "models": Rule(
            "Models without a configuration; further ones are counted as `__other__`.", low=1
        ),
        "versions": Rule("Versions per model.", low=1),
        "features": Rule("Features per model version.", low=1),
        "segments": Rule("Values per segment.", low=1),
        "categories": Rule("Categories per feature.", low=1),
        "pending": Rule(
            "Predictions, and labels, that are kept. Beyond it, those that have their label "
            "are dropped first, then the oldest. It decides how late labels may be.",
            low=1_000,
            high=50_000_000,
        ),
        "series": Rule("Series that a worker exports.", low=100, high=10_000_000),
        "fleet_alarm_budget": Rule(
            "How many false alarms of drift all models together may raise in how much time. Each "
            "model keeps its own `alarm_budget` too.",
            form="budget",
        ),
    },
}
