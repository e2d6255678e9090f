"""
What the worker writes to `lifecycle` about experiments: verdicts, numbers between them, refusals.

Rule of the file: pure functions of an experiment at a log time. An id is the hash of what an event
is about, so the same log gives the same ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import msgspec

from stream_monitor.experiments.experiment import Experiment
from stream_monitor.experiments.judgement import ArmVerdict, fixed_horizon, hours
from stream_monitor.times import DAY_MS, HOUR_MS, rfc3339
from stream_monitor.verdicts import Out

SCHEMA = 1
VERDICT, PROGRESS, REFUSED = "experiment_verdict", "experiment_progress", "experiment_refused"
PROGRESS_DAYS_MAX = 366
REASON_CHARS_MAX, NAME_CHARS_MAX = 1_000, 128


def progress_age(age_ms: int, longest_ms: int) -> int:
    """
    The age at which numbers were due last: after 1, 2, 4, 8 and 16 hours, and after each day.

    Parameters
    ----------
    age_ms : int
        Age of the experiment.
    longest_ms : int
        Its longest duration: later there are only verdicts.

    Returns
    -------
    int, ms
        0 before the first hour.

    Examples
    --------
    >>> [progress_age(int(h * HOUR_MS), 3 * DAY_MS) // HOUR_MS for h in (0.9, 1, 7, 23, 25, 99)]
    [0, 1, 4, 16, 24, 72]
    """
    age_ms = min(age_ms, longest_ms, PROGRESS_DAYS_MAX * DAY_MS)
    if age_ms >= DAY_MS:
        return age_ms // DAY_MS * DAY_MS
    hours_whole = max(age_ms, 0) // HOUR_MS
    return HOUR_MS << (hours_whole.bit_length() - 1) if hours_whole else 0


def verdict_id(name: str, arm: str, phase: int, verdict: str) -> str:
    """
    The id of a verdict, the same wherever and whenever the log is folded.

    >>> verdict_id("fraud-17", "b", 2, "rollback")
    '700436f45c95fd21dde62bb1959e8126'
    """
    return _hash(name, arm, str(phase), verdict)


def verdict_event(experiment: Experiment, found: ArmVerdict, now_ms: int, log_position: int) -> Out:
    """The `experiment_verdict` event of an arm."""
    id_ = verdict_id(experiment.definition.name, found.arm, experiment.phase, found.verdict)
    return _numbers(VERDICT, id_, experiment, found, now_ms, log_position)


def progress_event(
    experiment: Experiment, found: ArmVerdict, now_ms: int, log_position: int, why: str
) -> Out:
    """
    The `experiment_progress` event of an arm: a verdict's evidence, while none is due.

    `why` is the age of the experiment, or that there are enough outcomes; it is part of the id.
    """
    id_ = _hash(PROGRESS, experiment.definition.name, found.arm, str(experiment.phase), why)
    return _numbers(PROGRESS, id_, experiment, found, now_ms, log_position)


def refused_event(event: Mapping[str, Any], reason: str, now_ms: int) -> Out:
    """
    The `experiment_refused` event about an event that cannot be used.

    Parameters
    ----------
    event : mapping
        What was refused, as somebody wrote it; INGEST has seen that it names a model.
    reason : str
        The words of the error.
    now_ms : int
        Log time.
    """
    model, name = str(event["model"]), event.get("experiment")
    named = {"experiment": name[:NAME_CHARS_MAX]} if isinstance(name, str) and name else {}
    told = {
        "schema": SCHEMA,
        "type": REFUSED,
        "model": model,
        "at": rfc3339(now_ms),
        **named,
        "id": _hash(REFUSED, msgspec.json.encode(event, order="sorted").decode()),
        "refused": str(event.get("type")),
        "reason": reason[:REASON_CHARS_MAX],
    }
    return Out("lifecycle", model.encode(), msgspec.json.encode(told))


def _hash(*parts: str) -> str:
    return blake2b("\x00".join(parts).encode(), digest_size=16).hexdigest()


def _numbers(
    kind: str, id_: str, experiment: Experiment, found: ArmVerdict, now_ms: int, log_position: int
) -> Out:
    d = experiment.definition
    names = [arm.name for arm in d.arms]
    event = {
        "schema": SCHEMA,
        "type": kind,
        "model": d.model,
        "at": rfc3339(now_ms),
        "experiment": d.name,
        "id": id_,
        "arm": found.arm,
        "phase": experiment.phase,
        "verdict": found.verdict,
        "because": found.because,
        "log_position": log_position,
        "hours": round(hours(experiment, now_ms), 3),
        "units": dict(zip(names, experiment.all_units.tolist(), strict=True)),
        **complete_of(experiment),
        "unit": d.unit,
        "outcomes": dict(zip(names, experiment.counted, strict=True)),
        "left_out": {reason: n for reason, n in experiment.left_out.items() if n},
        "evidence": found.evidence,
        "fixed_horizon": fixed_horizon(experiment, found.number),
    }
    return Out("lifecycle", d.model.encode(), msgspec.json.encode(event))


def complete_of(experiment: Experiment) -> dict[str, dict[str, int]]:
    """`complete` of events: units of this phase whose window is over, by arm; {} without one."""
    d = experiment.definition
    units = zip(d.arms, experiment.units.complete.tolist(), strict=True)
    return {"complete": {arm.name: n for arm, n in units}} if d.window_ms else {}
