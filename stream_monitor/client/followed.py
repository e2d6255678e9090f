"""
What is known of an experiment by its events, for the follower.

Rule of the file: pure functions of events, which may be wrong in any way; an error says what was
expected.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from stream_monitor.client.routing import Router

CHANGED = "experiment_changed"


class Followed(NamedTuple):
    """
    What is known of an experiment.

    Which arms are served follows from the newest event and the set of arms that were rolled back,
    so it does not depend on which of them came first.
    """

    router: Router
    """As the newest event says."""
    stopped_at: str | None = None
    stops: bool = False
    """`"on_rollback": "stop"`: the control takes over from an arm that is rolled back."""
    back: frozenset[str] = frozenset()
    """Arms that were rolled back."""
    despite: frozenset[str] = frozenset()
    """Arms that the newest event gives traffic although they were rolled back."""
    since: str = ""
    """Verdicts of an earlier experiment of this name are not later than this."""

    @property
    def serves(self) -> Router:
        """The router that decides."""
        gone = self.back - self.despite if self.stops and self.stopped_at is None else None
        return self.router.without(gone) if gone else self.router

    @property
    def state(self) -> tuple[Any, ...]:
        return self.router.ranges, self.router.phase, *self[1:]


def in_production(event: Mapping[str, Any]) -> str | None:
    stages = event.get("stages")
    if not isinstance(stages, dict):
        return None
    return next((str(v) for v, stage in stages.items() if stage == "production"), None)


def rolled_back(event: Mapping[str, Any], old: Followed | None) -> Followed | None:
    """What a verdict makes of its experiment: nothing, but for `rollback` where that was wanted."""
    if old is None or event.get("verdict") != "rollback" or not old.stops:
        return None
    arm = event.get("arm")
    if old.stopped_at is not None:
        return None
    if not isinstance(arm, str) or arm not in old.router.arms or arm == old.router.control:
        others = ", ".join(list(old.router.arms)[1:])
        raise ValueError(f"arm: expected one of {others}, got {arm!r}")
    if arm in old.back or (old.since and not is_later(event.get("at"), old.since)):
        return None
    return old._replace(back=old.back | {arm})


def wants_stop(event: Mapping[str, Any], old: Followed | None) -> bool:
    """Whether a rollback takes the traffic of its arm; only the start decides, if it is known."""
    if old is not None and event["type"] == CHANGED:
        return old.stops
    wanted = event.get("on_rollback", "tell")
    if wanted not in {"tell", "stop"}:
        raise ValueError(f'on_rollback: expected "tell" or "stop", got {wanted!r}')
    return bool(wanted == "stop")


def named_arms(event: Mapping[str, Any], field: str) -> frozenset[str]:
    names = event.get(field) or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{field}: expected a list of arms, got {names!r}")
    return frozenset(names)


def is_earlier(new: Followed, old: Followed) -> bool:
    if old.stopped_at is not None:
        return new.stopped_at is None and new.router.phase <= old.router.phase
    return new.stopped_at is None and new.router.phase < old.router.phase


def is_later(at: Any, stopped_at: str) -> bool:
    try:
        return datetime.fromisoformat(at) > datetime.fromisoformat(stopped_at)
    except (TypeError, ValueError):
        return False
