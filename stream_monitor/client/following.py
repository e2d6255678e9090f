"""
The routers of a model, as the newest events of `lifecycle` say.

Rule of the file: no I/O; sources hand in events. A prediction reads one attribute and is never
stopped by an event that is wrong or a source that is away: the follower goes on with what it knew.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from stream_monitor.client.allocation import SLOTS
from stream_monitor.client.followed import (
    CHANGED,
    Followed,
    in_production,
    is_earlier,
    is_later,
    named_arms,
    rolled_back,
    wants_stop,
)
from stream_monitor.client.forking import register
from stream_monitor.client.routing import Key, Router, unit_text

_STARTED, _STOPPED = "experiment_started", "experiment_stopped"
_VERDICT, _STAGE = "experiment_verdict", "stage"
STOPPED_MAX = 64
"""Experiments that are over and still remembered; the oldest are forgotten."""


_Known = dict[str, Followed]
"""By name, in the order of their starts."""


class Follower:
    """
    Keep the routers of a model current.

    Parameters
    ----------
    model : str
        Events of other models are ignored.
    experiment : str, optional
        Follow only this experiment. Without it, the experiment that was started last decides.
    clock : function, optional
        Seconds, for `age_s`.

    Notes
    -----
    After `experiment_stopped` one arm serves all: `keep` of the event, and the control if the event
    does not say. An experiment that ran before goes on to decide, if there is one. An event that
    comes a second time, or of an earlier phase, changes nothing, so a log may be read again.

    If the experiment has `"on_rollback": "stop"`, the control serves the keys of an arm as soon as
    there is a verdict `rollback` on it. No other key moves. A later change of weights gives it keys
    again only if it names the arm in `despite_rollback`; so a change by somebody who did not know
    of the verdict cannot undo it, and the order of the two does not matter.

    Examples
    --------
    >>> follower = Follower("fraud")
    >>> follower("user-17")
    >>> follower.take(
    ...     b'{"schema": 1, "type": "experiment_changed", "model": "fraud",'
    ...     b'"experiment": "fraud-17", "weights": {"control": 50, "b": 50}}'
    ... )
    True
    >>> follower("user-17"), follower.fields("user-17")
    ('b', {'variant': 'b', 'unit': 'user-17'})
    """

    def __init__(
        self,
        model: str,
        *,
        experiment: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not isinstance(model, str) or not model:
            raise ValueError(f"model: expected a name, got {model!r}")
        self.model, self.experiment = model, experiment
        self._clock = clock
        self._known: _Known = {}
        self._current: Router | None = None
        self._production: str | None = None
        self._epoch = -1
        self._heard_s = -math.inf
        self.errors: dict[str, int] = {}
        """Events and readings that failed, by reason: `unreadable`, `invalid`, `source`."""
        self.last_error = ""
        self.after_fork()
        register(self)

    def after_fork(self) -> None:
        """Begin with new locks, and with what was known."""
        self._lock = threading.RLock()
        ready = self.ready if hasattr(self, "_ready") else False
        self._ready = threading.Event()
        if ready:
            self._ready.set()

    # ---- for predictions

    def __call__(self, key: Key) -> str | None:
        """
        The arm that serves a key; None while no experiment is known.

        Raises
        ------
        TypeError
            The key is not text, a whole number, bytes or a UUID.
        """
        router = self._current
        return None if router is None else router(key)

    def fields(self, key: Key) -> dict[str, str]:
        """`variant` and `unit` of an event; only `unit` while no experiment is known."""
        router = self._current
        return {"unit": unit_text(key)} if router is None else router.fields(key)

    @property
    def current(self) -> Router | None:
        """The router that decides now, with its arms and versions; None if there is none yet."""
        return self._current

    def version(self, key: Key) -> str | None:
        """
        The version that serves a key: that of its arm while an experiment runs, otherwise the one
        in production, as the newest event `stage` says. None if nobody has said it.

        Examples
        --------
        >>> follower = Follower("churn")
        >>> _ = follower.take(
        ...     b'{"type": "stage", "model": "churn", "stages": {"v1.0.0": "production"}}'
        ... )
        >>> follower.version("user-17")
        'v1.0.0'
        """
        router = self._current
        found = None if router is None else router.arms.get(router(key))
        running = router is not None and self._is_running(router.experiment)
        return (found or self._production) if running else (self._production or found)

    def _is_running(self, experiment: str) -> bool:
        found = self._known.get(experiment)
        return found is not None and found.stopped_at is None

    # ---- for whoever watches it

    @property
    def routers(self) -> dict[str, Router]:
        """Routers of the experiments that run, by name."""
        return {name: f.serves for name, f in self._known.items() if f.stopped_at is None}

    def router(self, experiment: str) -> Router | None:
        """The router of an experiment, also if it is over; None if it is not known."""
        found = self._known.get(experiment)
        return None if found is None else found.serves

    @property
    def age_s(self) -> float:
        """Seconds for which the source was not heard of; infinite before the first time."""
        return self._clock() - self._heard_s

    @property
    def ready(self) -> bool:
        """The source was read to its end once."""
        return self._ready.is_set()

    def wait(self, timeout_s: float) -> bool:
        """
        Wait until `ready`, before the first prediction; False if there was not enough time.

        Without it the first calls after a start may be served by arms of old weights.
        """
        return self._ready.wait(timeout_s)

    # ---- for sources

    def take(self, value: bytes | None, offset: int | None = None) -> bool:
        """
        Take a record of `lifecycle`; True if a router changed. It never raises.

        Other types of events, other models and tombstones are ignored. So is a record with an
        `epoch` that is not below its `offset`, where the source knows it: it is forged, because an
        epoch is the offset of an earlier record.
        """
        self.heard()
        with self._lock:
            known = dict(self._known)
            changed = self._apply(known, value, offset)
            if changed:
                self._publish(known)
            return changed

    def take_all(self, values: Iterable[bytes]) -> bool:
        """
        Take all events of a source that has its whole history each time, such as a file.

        They count at once, so nobody is routed by weights in between. An experiment that is not
        among them stays as it is, and so does one that would go back to an earlier phase: half of a
        file that is being written must not undo anything. The source calls `caught_up`.
        """
        with self._lock:
            fresh: _Known = {}
            for value in values:
                self._apply(fresh, value)
            known = dict(self._known)
            for name, new in fresh.items():
                old = known.get(name)
                if old is None or not is_earlier(new, old):
                    known[name] = new if old is None else new._replace(back=new.back | old.back)
            before = [(name, f.serves.ranges, f.stopped_at) for name, f in self._known.items()]
            after = [(name, f.serves.ranges, f.stopped_at) for name, f in known.items()]
            self._publish(known)
            return before != after

    def heard(self) -> None:
        """The source answered, whether or not there was an event."""
        self._heard_s = self._clock()

    def caught_up(self) -> None:
        """The source was read to its end."""
        self.heard()
        self._ready.set()

    def failed(self, reason: str, error: BaseException | str) -> None:
        """Count an error; what is known stays."""
        with self._lock:
            self.errors[reason] = self.errors.get(reason, 0) + 1
            name = "" if isinstance(error, str) else f"{type(error).__name__}: "
            self.last_error = f"{reason}: {name}{error}"

    # ---- one event

    def _apply(self, known: _Known, value: bytes | None, offset: int | None = None) -> bool:
        if not value:
            return False
        try:
            event = msgspec.json.decode(value)
        except Exception as e:
            self.failed("unreadable", e)
            return False
        if not isinstance(event, dict) or self._is_stale(event.get("epoch"), offset):
            return False
        if event.get("model") != self.model:
            return False
        if event.get("type") == _STAGE:
            self._production = in_production(event)
        name = event.get("experiment")
        if event.get("type") not in {_STARTED, CHANGED, _STOPPED, _VERDICT} or (
            self.experiment is not None and name != self.experiment
        ):
            return False
        try:
            found = self._next(event, known.get(name) if isinstance(name, str) else None)
        except Exception as e:
            self.failed("invalid", e)
            return False
        if found is None:
            return False
        name = found.router.experiment
        before = known.get(name)
        if event["type"] == _STARTED:
            known.pop(name, None)  # the newest start is the last
        known[name] = found
        return before is None or (before.serves.ranges, before.state[1:3]) != (
            found.serves.ranges,
            found.state[1:3],
        )

    def _is_stale(self, epoch: object, offset: int | None) -> bool:
        """Whether a controller wrote it that another one has taken over from since, or none did."""
        if not isinstance(epoch, int):
            return False
        if offset is not None and epoch >= offset:
            return True
        self._epoch = max(self._epoch, epoch)
        return epoch < self._epoch

    def _next(self, event: Mapping[str, Any], old: Followed | None) -> Followed | None:
        """What an event makes of its experiment; None if it says nothing new."""
        if event["type"] == _STOPPED:
            return self._stopped(event, old)
        if event["type"] == _VERDICT:
            return rolled_back(event, old)
        router = Router.from_event(event, None if old is None else old.router)
        stops = wants_stop(event, old)
        despite = named_arms(event, "despite_rollback")
        if old is None:
            return Followed(router, stops=stops, despite=despite)
        if event["type"] == _STARTED:
            again = old.stopped_at is not None and is_later(event.get("at"), old.stopped_at)
            return Followed(router, stops=stops, since=old.stopped_at or "") if again else None
        if old.stopped_at is not None or router.phase < old.router.phase:
            return None
        new = old._replace(router=router, stops=stops, despite=despite)
        return None if new.state == old.state else new

    def _stopped(self, event: Mapping[str, Any], old: Followed | None) -> Followed | None:
        keep, at = event.get("keep"), str(event.get("at", ""))
        if keep is not None and not isinstance(keep, str):
            raise ValueError(f"keep: expected the name of an arm, got {keep!r}")
        if old is None:  # its start is older than the log
            if keep is None:
                return None
            router = Router(event.get("experiment", ""), [(SLOTS, keep)], model=self.model)
            return Followed(router, at)
        if old.stopped_at is not None:
            if keep is None or not is_later(at, old.stopped_at):
                return None
            # a version that was promoted is taken back
            router = Router(old.router.experiment, [(SLOTS, keep)], model=self.model)
            return None if keep in old.router.arms else Followed(router, at)
        try:
            router = old.router.kept(keep)
        except ValueError as e:  # over is over: the control is what served before
            self.failed("invalid", e)
            router = old.router.kept(None)
        return Followed(router, at)

    def _publish(self, known: _Known) -> None:
        over = [name for name, f in known.items() if f.stopped_at is not None]
        for name in over[: max(0, len(over) - STOPPED_MAX)]:
            del known[name]
        running = [f for f in known.values() if f.stopped_at is None]
        routers = running or list(known.values())
        self._known = known
        self._current = routers[-1].serves if routers else None
