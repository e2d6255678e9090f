"""
Who may let a version go on.

Rule of the file: with `two_people` it is somebody else than those who started it. The fold and the
commands ask here, so that an event which was written past a command is refused too.
"""

from __future__ import annotations

from stream_monitor.lifecycle.model import Model
from stream_monitor.lifecycle_settings import ModelLoop


def starters(m: Model, version: str | None) -> set[str]:
    """The people who started the run that made a version, or its rollout; empty: nobody did."""
    known, r = m.versions.get(version or ""), m.rollout
    under_way = r is not None and r.version == version
    run = m.runs.get(
        (r.run if r is not None and under_way else None) or (known and known.run) or ""
    )
    found = {run.trigger.by} if run is not None else set()
    if r is not None and under_way and r.by:
        found.add(r.by)
    return found


def is_approved(m: Model, loop: ModelLoop, version: str) -> bool:
    """Whether a person approved the promotion of a version who may."""
    own = starters(m, version) if loop.limits.two_people else set()
    return bool(set(m.approved.get(version, [])) - own)


def lacks_another(m: Model, loop: ModelLoop, version: str | None, who: str) -> str | None:
    """
    Why a person may not promote a version; None: they may.

    Parameters
    ----------
    m : Model
    loop : ModelLoop
    version : str or None
    who : str
        Without a rollout of the version, whoever asks for its promotion starts it too.
    """
    if not loop.limits.two_people:
        return None
    begins = m.rollout is None or m.rollout.version != version
    own = starters(m, version) | ({who} if begins else set())
    if who not in own or set(m.approved.get(version or "", [])) - own:
        return None
    return (
        f"{who} started it, and two_people wants another person: `stream-monitor deploy promote` "
        "by somebody else, or `retrain approve` of its run"
        if not begins
        else f"two_people wants a second person: `stream-monitor deploy start {version}`, and "
        "somebody else promotes it"
    )
