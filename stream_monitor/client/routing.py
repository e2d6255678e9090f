"""
Which arm of an experiment serves a key: sticky, salted by the experiment, equal in every language.

Rule of the file: a router is a table of ranges and a hash, and never changes. It knows no history
and does no I/O. `examples/router/` has the same in other languages, and vectors to check them.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from contextlib import suppress
from hashlib import sha256
from typing import Any, Protocol, SupportsIndex
from uuid import UUID

from stream_monitor.client.allocation import SLOTS, Ranges, checked, reassign, shares

Key = str | bytes | UUID | SupportsIndex
"""What is routed: a user, a session. Its text is the `unit` of the event."""

_STARTED, _CHANGED = "experiment_started", "experiment_changed"
_from_bytes = int.from_bytes


class Routing(Protocol):
    """What gives an event its `variant` and `unit`: a `Router` or a `Follower`."""

    @property
    def current(self) -> Router | None:
        """The router of this moment, which never changes."""
        ...


def unit_text(key: Key) -> str:
    r"""
    The text of a key: it is hashed, and it is the `unit` of the event.

    Text is itself; each surrogate without its other half becomes U+FFFD, because JSON in UTF-8
    cannot carry it. A whole number is its decimal text. Bytes are read as UTF-8; if they are not
    UTF-8, they are their hexadecimal text. A UUID is its usual text.

    Raises
    ------
    TypeError
        The key is something else. None is refused, because all anonymous users would be one unit.

    Examples
    --------
    >>> from uuid import UUID
    >>> unit_text("user-17"), unit_text(17), unit_text(b"user-17"), unit_text(b"\xff\x00")
    ('user-17', '17', 'user-17', 'ff00')
    """
    if type(key) is int:
        return str(key)
    if isinstance(key, str):
        try:
            key.encode()
        except UnicodeEncodeError:
            return key.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return str.__str__(key)  # also of a member of an enumeration
    if isinstance(key, bytes):
        try:
            return key.decode()
        except UnicodeDecodeError:
            return key.hex()
    if isinstance(key, UUID):
        return str(key)
    if not isinstance(key, bool):
        with suppress(TypeError):  # an array of numpy has `__index__`, but is no number
            return str(operator.index(key))
    raise TypeError(
        f"key: expected text, a whole number, bytes or a UUID, got {key!r} ({type(key).__name__}); "
        "a call without a user needs a key of its own, such as the id of its session"
    )


def point(experiment: str, key: Key) -> int:
    """
    Where a key lies in an experiment: a whole number in [0, 2**53).

    The first 8 bytes, big endian, of SHA-256 of the experiment, a zero byte and the key (UTF-8),
    shifted right by 11. It is uniform, and independent between experiments. 53 bits are exact in
    every language.

    Examples
    --------
    >>> point("fraud-17", "user-17")
    8574996917757979
    """
    return _point(_prefix(experiment) + unit_text(key).encode())


class Router:
    """
    The split of one experiment: `router(key)` is the arm that serves the key.

    A call costs about 0.7 µs (`bench/bench_router.py`) and no memory.

    Parameters
    ----------
    experiment : str
        Name of the experiment; it salts the hash.
    ranges : iterable of (end, arm)
        Table of the slots, from `ranges` of the event or from `reassign`.
    model : str
        Model of the experiment.
    arms : mapping of arm to version, optional
        Arms with the version each of them serves, the control first.
    phase : int
        1 at the start, one more after each change of weights.

    Raises
    ------
    ValueError
        The table or the name is wrong.

    Examples
    --------
    >>> router = Router("fraud-17", [(5000, "control"), (10000, "b")])
    >>> router("user-17"), router.fields("user-17")
    ('b', {'variant': 'b', 'unit': 'user-17'})
    """

    __slots__ = ("_owner", "_prefix", "arms", "experiment", "model", "phase", "ranges")

    def __init__(
        self,
        experiment: str,
        ranges: Iterable[tuple[int, str]],
        *,
        model: str = "",
        arms: Mapping[str, str | None] | None = None,
        phase: int = 1,
    ) -> None:
        self._prefix = _prefix(experiment)
        self.experiment = experiment
        self.ranges: Ranges = checked(list(ranges))
        self.model = model
        self.phase = phase
        self.arms: Mapping[str, str | None] = arms or dict.fromkeys(a for _, a in self.ranges)
        self._owner: list[str] = []
        for end, arm in self.ranges:
            self._owner += [arm] * (end - len(self._owner))

    @classmethod
    def from_event(cls, event: Mapping[str, Any], before: Router | None = None) -> Router:
        """
        Make the router of an `experiment_started` or `experiment_changed` event.

        Parameters
        ----------
        event : mapping
            The record on `lifecycle`, decoded. `ranges` decides if it is there; otherwise the table
            is computed from `weights`.
        before : Router, optional
            Router of the same experiment until now. It brings the arms and versions that a change
            does not repeat, and the table from which `weights` without `ranges` is reached.

        Returns
        -------
        Router

        Raises
        ------
        ValueError
            The event is of another type, or a field is missing or wrong; the message begins with
            the name of the field.

        Examples
        --------
        >>> event = {
        ...     "schema": 1,
        ...     "type": "experiment_started",
        ...     "model": "fraud",
        ...     "experiment": "fraud-17",
        ...     "arms": [{"name": "control", "version": "3"}, {"name": "b", "version": "4"}],
        ...     "weights": {"control": 99, "b": 1},
        ... }
        >>> router = Router.from_event(event)
        >>> router.ranges, router.arms
        ([(9900, 'control'), (10000, 'b')], {'control': '3', 'b': '4'})
        >>> Router.from_event({**event, "weights": {"control": 99, "c": 1}})
        Traceback (most recent call last):
        ...
        ValueError: weights: 'c' is not among the arms control, b
        """
        if not isinstance(event, Mapping):
            raise ValueError(f"type: expected an event (an object), got {event!r}")  # noqa: TRY004, one kind of error for all faults of an event
        kind = event.get("type")
        if kind not in {_STARTED, _CHANGED}:
            raise ValueError(f"type: expected {_STARTED} or {_CHANGED}, got {kind!r}")
        if event.get("schema", 1) != 1:
            raise ValueError(f"schema: expected 1, got {event['schema']!r}; update stream-monitor")
        experiment, model = _name(event, "experiment"), _name(event, "model")
        if before is not None and before.experiment != experiment:
            raise ValueError(f"experiment: expected {before.experiment!r}, got {experiment!r}")
        phase = event.get("phase", 1 if before is None or kind == _STARTED else before.phase + 1)
        if type(phase) is not int or phase < 1:
            raise ValueError(f"phase: expected a whole number from 1, got {phase!r}")
        arms = before.arms if before is not None and kind == _CHANGED else None
        if kind == _STARTED or event.get("arms") is not None:
            arms = _arms(event.get("arms"))
        ranges = _ranges(event, arms, before if kind == _CHANGED else None)
        return cls(experiment, ranges, model=model, arms=arms, phase=phase)

    def __call__(self, key: Key) -> str:
        """
        The arm that serves a key.

        Raises
        ------
        TypeError
            The key is not text, a whole number, bytes or a UUID; never for a text.
        """
        try:
            data = (key if type(key) is str else unit_text(key)).encode()
        except UnicodeEncodeError:
            data = unit_text(key).encode()
        digest = sha256(self._prefix + data).digest()
        return self._owner[(_from_bytes(digest[:8], "big") >> 11) * SLOTS >> 53]

    def fields(self, key: Key) -> dict[str, str]:
        """Arm and key as the event has them, for `client.prediction(…, **router.fields(key))`."""
        unit = unit_text(key)
        return {"variant": self(unit), "unit": unit}

    @property
    def current(self) -> Router:
        """Itself; of a `Follower` it is the newest one."""
        return self

    @property
    def control(self) -> str:
        """The arm that the others are compared with: the first."""
        return next(iter(self.arms))

    def kept(self, arm: str | None) -> Router:
        """
        The router after the experiment: one arm is left; the control if it is None.

        Raises
        ------
        ValueError
            The experiment has no such arm.
        """
        arm = self.control if arm is None else arm
        if arm not in self.arms:
            raise ValueError(f"keep: {arm!r} is not among the arms {', '.join(self.arms)}")
        return Router(
            self.experiment,
            [(SLOTS, arm)],
            model=self.model,
            arms={arm: self.arms[arm]},
            phase=self.phase,
        )

    def without(self, arms: Iterable[str]) -> Router:
        """
        The router in which the control serves the keys of some arms; no other key moves.

        Examples
        --------
        >>> Router("e", [(50, "control"), (75, "b"), (10_000, "c")]).without(["b"]).ranges
        [(75, 'control'), (10000, 'c')]
        """
        gone, control = set(arms), self.control
        ranges: Ranges = []
        for end, arm in self.ranges:
            owner = control if arm in gone else arm
            if ranges and ranges[-1][1] == owner:
                ranges.pop()
            ranges.append((end, owner))
        return Router(self.experiment, ranges, model=self.model, arms=self.arms, phase=self.phase)

    def __repr__(self) -> str:
        return f"Router({self.experiment!r}, {self.ranges!r})"


def _point(data: bytes) -> int:
    return _from_bytes(sha256(data).digest()[:8], "big") >> 11


def _prefix(experiment: str) -> bytes:
    if not isinstance(experiment, str) or not experiment or "\0" in experiment:
        raise ValueError(f"experiment: expected a name without a zero byte, got {experiment!r}")
    return unit_text(experiment).encode() + b"\0"


def _name(event: Mapping[str, Any], field: str) -> str:
    name = event.get(field)
    if not isinstance(name, str) or not name or "\0" in name:
        raise ValueError(f"{field}: expected a name, got {name!r}")
    return name


def _arms(arms: Any) -> dict[str, str | None]:
    """Names and versions; the first is the control. A name may stand for itself."""
    if not isinstance(arms, list) or len(arms) < 2:
        raise ValueError(f'arms: expected two or more, such as {{"name": "control"}}, got {arms!r}')
    found: dict[str, str | None] = {}
    for i, arm in enumerate(arms):
        name = arm.get("name") if isinstance(arm, Mapping) else arm
        version = arm.get("version") if isinstance(arm, Mapping) else None
        if not isinstance(name, str) or not name or name in found:
            raise ValueError(f"arms[{i}].name: expected a name of its own, got {name!r}")
        if version is not None and not isinstance(version, str):
            raise ValueError(f"arms[{i}].version: expected text, got {version!r}")
        found[name] = version
    return found


def _ranges(
    event: Mapping[str, Any], arms: Mapping[str, Any] | None, before: Router | None
) -> Ranges:
    if event.get("ranges") is not None:
        table = checked(event["ranges"])
        _known("ranges", [name for _, name in table], arms)
        return table
    weights = event.get("weights")
    if not isinstance(weights, Mapping):
        raise ValueError(f'weights: expected an object such as {{"b": 1}}, got {weights!r}')  # noqa: TRY004, as above
    _known("weights", weights, arms)
    # The order of the arms decides, not that of the object: JSON may be written in another order.
    ordered = {name: weights[name] for name in arms or weights if name in weights}
    control = next(iter(arms)) if arms else None
    slots = shares(ordered)
    if any(abs(100 * ordered[name] - n) > 1e-6 for name, n in slots.items()):
        percent = {name: n / 100 for name, n in slots.items()}
        raise ValueError(f"weights: must add up to 100 (percent), got {weights!r}; write {percent}")
    return reassign(before.ranges if before is not None else [], ordered, control=control)


def _known(field: str, names: Iterable[str], arms: Mapping[str, Any] | None) -> None:
    for name in names:
        if arms is not None and name not in arms:
            raise ValueError(f"{field}: {name!r} is not among the arms {', '.join(arms)}")
