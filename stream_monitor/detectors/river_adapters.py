"""
River's detectors behind our interface: the only importer of River.

Rule of the file: alarms are River's, value by value. A state is plain values and bytes. It is
stored with the version of River and used only with the same version; otherwise the detector
restarts and sets `restarted`. No pickle: objects are made by their constructors, and only numbers
are put into them. River owns the form of its objects. So a state stays plain values until its
version of River is known to be the same, and it is written by hand, because no `Struct` can name
the content.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from operator import length_hint
from typing import Any

import msgspec
import numpy as np
import river
from numpy.typing import NDArray
from river._river_rust.drift import AdaptiveWindowing
from river.drift import KSWIN
from river.drift.binary import DDM, HDDMA, HDDMW

from stream_monitor.arrays import Float
from stream_monitor.state import plain, typed

VERSION: str = river.__version__
PLAIN = (bool, int, float, str, type(None))


class AdwinState(msgspec.Struct):
    """The state of ADWIN."""

    river: str
    window: bytes
    """The window in River's own bytes."""
    score: float


class PlainState(msgspec.Struct):
    """The state of a detector of River that is written in Python."""

    river: str
    detector: Any
    """The numbers inside River's object."""
    n: int
    total: float
    """Sum of the values since the last alarm."""
    score: float


class Adwin:
    """
    ADWIN on an array of values, straight on River's Rust object: 0.2 µs a value.

    References
    ----------
    A. Bifet, R. Gavaldà, Learning from time-changing data with adaptive windowing, SDM 2007.

    Examples
    --------
    >>> detector = Adwin(
    ...     {
    ...         "delta": 0.002,
    ...         "clock": 32,
    ...         "max_buckets": 5,
    ...         "min_window_length": 5,
    ...         "grace_period": 10,
    ...     }
    ... )
    >>> detector.update(np.repeat([0.0, 1.0], 500)).tolist()
    [511]
    """

    def __init__(self, parameters: Mapping[str, float]) -> None:
        self._arguments = (
            parameters["delta"],
            int(parameters["clock"]),
            int(parameters["max_buckets"]),
            int(parameters["min_window_length"]),
            int(parameters["grace_period"]),
        )
        self._window = AdaptiveWindowing(*self._arguments)
        self.score = 0.0
        self.befores: list[float] = []
        self.restarted = False

    def update(self, values: Float) -> NDArray[np.int64]:
        """Indices of alarms in (n,) finite values."""
        rest, self.befores = values.tolist(), []
        alarms: list[int] = []
        done = 0
        while rest:
            width, total = self._window.get_width(), self._window.get_total()
            left = iter(rest)
            if not any(map(self._window.update, left)):  # stops after the value that fires
                break
            taken = len(rest) - length_hint(left)
            done += taken
            self.befores.append((total + sum(rest[:taken])) / (width + taken))
            rest = rest[taken:]
            alarms.append(done - 1)
            # like River's ADWIN after a change
            self._window = AdaptiveWindowing(*self._arguments)
        self.score = self._mean() or 0.0
        return np.array(alarms, np.int64)

    def _mean(self) -> float | None:
        width = self._window.get_width()
        return self._window.get_total() / width if width else None

    def state(self) -> dict[str, Any]:
        """River's own bytes of the window, and gauges."""
        window = bytes(self._window.__getstate__())
        return dict(plain(AdwinState(VERSION, window, self.score)))

    def load(self, state: Mapping[str, Any]) -> None:
        """
        Continue from a state; restart if it comes from another version of River or cannot be read.
        """
        if state.get("river") != VERSION:
            self.restarted = True
            return
        window = AdaptiveWindowing(*self._arguments)
        try:
            saved = typed(state, AdwinState)
            window.__setstate__(saved.window)
        except BaseException as e:
            if isinstance(e, (KeyboardInterrupt, SystemExit)):
                raise
            self.restarted = True  # malformed bytes raise a panic of Rust, not an Exception
            return
        self._window, self.score = window, saved.score


class Plain:
    """A detector of River that is written in Python, fed value by value."""

    def __init__(self, make: Any, parameters: Mapping[str, Any]) -> None:
        self._make, self._parameters = make, dict(parameters)
        self._detector = make(**self._parameters)
        self.score = 0.0
        self.befores: list[float] = []
        self.restarted = False
        self._n, self._total = 0, 0.0

    def update(self, values: Float) -> NDArray[np.int64]:
        """Indices of alarms in (n,) finite values."""
        detector, alarms, self.befores = self._detector, [], []
        for i, value in enumerate(values.tolist()):
            detector.update(value)
            self._n += 1
            self._total += value
            if detector.drift_detected:
                alarms.append(i)
                self.befores.append(self._total / self._n)
                self._n, self._total = 0, 0.0
        self.score = self._total / self._n if self._n else 0.0
        return np.array(alarms, np.int64)

    def state(self) -> dict[str, Any]:
        """The numbers inside River's object."""
        inside = _export(self._detector)
        return dict(plain(PlainState(VERSION, inside, self._n, self._total, self.score)))

    def load(self, state: Mapping[str, Any]) -> None:
        """
        Continue from a state; restart if it comes from another version of River or has another
        form.
        """
        if state.get("river") != VERSION:
            self.restarted = True
            return
        detector = self._make(**self._parameters)
        try:
            saved = typed(state, PlainState)
            _import(detector, saved.detector)
        except BaseException as e:
            if isinstance(e, (KeyboardInterrupt, SystemExit)):
                raise
            self.restarted = True  # malformed bytes raise a panic of Rust, not an Exception
            return
        self._detector, self.score = detector, saved.score
        self._n, self._total = saved.n, saved.total


def _export(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, PLAIN):
        return value
    if type(value).__module__.startswith("river._river_rust"):
        return {"rust": bytes(value.__getstate__())}
    if isinstance(value, deque):
        return {"deque": [float(v) for v in value]}
    if hasattr(value, "getstate"):
        kind, numbers, rest = value.getstate()
        return {"random": [kind, list(numbers), rest]}
    inside = {
        **{k: getattr(value, k) for k in getattr(type(value), "__slots__", ())},
        **getattr(value, "__dict__", {}),
    }
    return {"object": {k: _export(v) for k, v in inside.items() if not callable(v)}}


def _import(target: Any, state: Mapping[str, Any]) -> None:
    """Put exported numbers into an object that its constructor made."""
    for name, value in state["object"].items():
        current = getattr(target, name)
        if not isinstance(value, Mapping):
            setattr(target, name, value)
        elif "deque" in value:
            setattr(target, name, deque(value["deque"], maxlen=current.maxlen))
        elif "random" in value:
            kind, numbers, rest = value["random"]
            current.setstate((kind, tuple(numbers), rest))
        elif "rust" in value:
            current.__setstate__(value["rust"])
        else:
            _import(current, value)


def adapter(method: str, parameters: Mapping[str, float]) -> Adwin | Plain:
    """The adapter of a method of `base.METHODS`, with all its parameters."""
    if method == "adwin":
        return Adwin(parameters)
    whole = {
        k: int(v)
        if k in ("warm_start", "window_size", "stat_size", "seed")
        else bool(v)
        if k == "two_sided_test"
        else v
        for k, v in parameters.items()
    }
    return Plain({"ddm": DDM, "hddm_a": HDDMA, "hddm_w": HDDMW, "kswin": KSWIN}[method], whole)
