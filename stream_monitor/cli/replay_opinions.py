"""
How often detectors that the configuration names fired in a replay, beside the detector on counts.

Rule of the file: pure; it reads what the summary and the alerts say. Nobody knows what in a history
is drift, so these are upper bounds of false alarms, and the lines say so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from stream_monitor.detectors.base import EVIDENCE
from stream_monitor.settings import CoreSettings
from stream_monitor.times import DAY_MS

MONTH = 30


def opinion_lines(
    summary: Mapping[str, Any],
    alerts: Iterable[Mapping[str, Any]],
    span_ms: int,
    core: CoreSettings,
) -> Iterator[str]:
    """
    A line for each detector and model; none if the configuration names no detector.

    Parameters
    ----------
    summary : mapping
        The content of `summary.json`.
    alerts : iterable of mapping
        Alert events.
    span_ms : int, ms
        From the first event to the last.
    core : CoreSettings
    """
    began = Counter((a["model"], a["detector"]) for a in alerts if a["status"] == "firing")
    found: dict[str, Counter[tuple[str, str]]] = {}
    for model, of_model in summary["models"].items():
        for version in of_model["versions"].values():
            for method, of in version.get("second_opinions", {}).items():
                counts = found.setdefault(model, Counter())
                counts.update({(method, key): n for key, n in of.items()})
    if found:
        yield (
            "second opinions: firings on all of this history. If nothing changed in it, all of "
            "them are false alarms; otherwise they are an upper bound"
        )
    for model, counts in found.items():
        for method in dict.fromkeys(method for method, _ in counts):
            firings, values = counts[method, "firings"], max(counts[method, "values"], 1)
            yield (
                f"  {model} {method}: {_often(firings, span_ms)} on {values:,} values of "
                f"{counts[method, 'signals']} signals, {1e6 * firings / values:.3g} a million; "
                f"{began[model, method]} alerts were confirmed"
            )
        yield (
            f"  {model} {EVIDENCE}: {_often(began[model, EVIDENCE], span_ms)}, as alerts; "
            f"`alarm_budget` is {core.of(model).alarm_budget}"
        )


def _often(times: int, span_ms: int) -> str:
    """
    A count, and what it is in a month if the history has a length.

    >>> _often(12, 6 * DAY_MS), _often(12, 0)
    ('12 (60 in 30 days)', '12')
    """
    a_month = f" ({times * MONTH * DAY_MS / span_ms:.3g} in 30 days)" if span_ms else ""
    return f"{times:,}{a_month}"
