"""
Calls of a model become events: a `with` block, a decorator, and functions for what is left.

Rule of the file: nothing here fails or delays a call of the model. What goes wrong around it (an
event that is not valid, a function of yours that raises) is counted by the sender, by its reason.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextvars import ContextVar, Token
from os import urandom
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypedDict, TypeVar, Unpack, overload

from stream_monitor.client import events
from stream_monitor.client.buffer import Buffer
from stream_monitor.client.events import LABELS, PREDICTIONS, Score, Value
from stream_monitor.client.routing import Key, Routing, unit_text

P = ParamSpec("P")
R = TypeVar("R")


class Answer(TypedDict, total=False):
    """What the model answered, with the names of `client.prediction`."""

    prediction: Value
    score: Score
    features: Mapping[str, Value | None]
    segments: Mapping[str, str]
    embedding: Iterable[float]


class Monitor:
    """
    Report the calls of one model.

    Parameters
    ----------
    model : str
        Name of the model.
    sender : Sender or AsyncSender
        Takes the events.
    version : str
        Version of the model, if no arm of an experiment names another one.
    router : Router or Follower, optional
        Gives each call with a unit its arm; `variant` and `unit` are written into the event.
    topic_prefix : str
        As `kafka.topic_prefix` of the worker.

    Notes
    -----
    A call costs less than 20 µs (`bench/bench_client.py`). Reasons in `sender.counts().dropped`:
    `invalid` (what `client.prediction` refuses), `observe` (your function raised), `no_answer` (the
    block ended without `answer`), `cancelled` (it was cancelled from outside, so nobody knows the
    answer). `unit` counts calls whose unit could not be had; their events are sent without it.

    Examples
    --------
    >>> from stream_monitor.client import Sender
    >>> sent = []
    >>> monitor = Monitor("fraud", Sender(lambda topic, value, key: sent.append(value)))
    >>> with monitor.call(event_id="order-17") as call:
    ...     call.answer(score=0.93, features={"amount": 12.5})
    >>> monitor.sender.close()
    >>> sent[0][:65]
    b'{"event_id":"order-17","model":"fraud","timestamp":...
    """

    def __init__(
        self,
        model: str,
        sender: Buffer,
        *,
        version: str = "",
        router: Routing | None = None,
        topic_prefix: str = "",
    ) -> None:
        events.label("x", 0, model=model, version=version)  # a wrong name is told here
        self.model, self.version, self.router = model, version, router
        self.sender = sender
        self.predictions, self.labels = topic_prefix + PREDICTIONS, topic_prefix + LABELS

    def call(self, *, unit: Key | None = None, event_id: str | None = None) -> Call:
        """
        A call of the model, for `with`: it is timed, and reported when the block ends.

        Parameters
        ----------
        unit : text, int, bytes or UUID, optional
            The user or session; it decides the arm.
        event_id : str, optional
            The label has the same; a random one if left out, in `call.event_id`.
        """
        return Call(self, unit, event_id)

    def watch(
        self,
        observe: Callable[Concatenate[R, P], Answer],
        *,
        unit: Callable[P, Key | None] | None = None,
        event_id: Callable[P, str | None] | None = None,
    ) -> Watch[P, R]:
        """
        Decorate the function that calls the model, `def` or `async def`.

        Parameters
        ----------
        observe : function of the result, then the arguments of the call
            Returns what the event says. It is called after the call, not timed.
        unit, event_id : functions of the arguments of the call, optional
            As for `call`.

        Notes
        -----
        An exception goes on unchanged, and becomes an event with `status` "error". Inside the
        function `current_call()` is the call, with its arm.

        Examples
        --------
        >>> from stream_monitor.client import Sender
        >>> monitor = Monitor("fraud", Sender(lambda topic, value, key: None))
        >>> def observe(score: float, user: str, amount: float) -> Answer:
        ...     return {"score": score, "features": {"amount": amount}}
        >>> @monitor.watch(observe, unit=lambda user, amount: user)
        ... def predict(user: str, amount: float) -> float:
        ...     return min(0.99, amount / 200)
        >>> predict("user-17", 120.0)
        0.6
        """
        return Watch(self, observe, unit, event_id)

    def prediction(self, event_id: str, **fields: Any) -> bool:
        """Send a prediction with the fields of `client.prediction`; False if it was dropped."""
        return self._put(self.predictions, events.prediction, event_id, self.model, **fields)

    def label(self, event_id: str, label: Value, **fields: Any) -> bool:
        """Send a label with the fields of `client.label`; False if it was dropped."""
        fields.setdefault("model", self.model)
        return self._put(self.labels, events.label, event_id, label, **fields)

    def _put(
        self, topic: str, make: Callable[..., bytes], event_id: str, *a: Any, **k: Any
    ) -> bool:
        try:
            return self.sender.put(topic, make(event_id, *a, **k), event_id.encode())
        except Exception as e:
            self.sender.drop("invalid", e)
            return False


class Call:
    """
    One call of the model, made by `Monitor.call`.

    Attributes
    ----------
    event_id : str
        To be given to whoever will know the label.
    variant : str or None
        The arm that serves the call; None without a router or before it knows an experiment. A call
        without a unit is served by the control, and its event has no arm.
    version : str
        That of the arm, otherwise that of the monitor.
    """

    __slots__ = (
        "_answer",
        "_began_ns",
        "_failed",
        "_fields",
        "_left_out",
        "_monitor",
        "_token",
        "_took_ns",
        "event_id",
        "variant",
        "version",
    )

    def __init__(self, monitor: Monitor, unit: Key | None, event_id: str | None) -> None:
        self._monitor = monitor
        self.event_id = urandom(16).hex() if event_id is None else event_id
        self.version = monitor.version
        self.variant: str | None = None
        self._fields: Mapping[str, Any] = {}
        self._answer: Answer | None = None
        self._left_out: tuple[str, BaseException | str] | None = None
        self._token: Token[Call | None] | None = None
        self._failed = False
        self._took_ns = -1
        self._route(unit)
        self._began_ns = time.perf_counter_ns()

    def _route(self, unit: Key | None) -> None:
        monitor = self._monitor
        try:
            # A follower may change its router meanwhile: arm and version are of the same one.
            router = None if monitor.router is None else monitor.router.current
            if router is not None:
                self.variant = router.control
                self.version = router.arms[router.control] or monitor.version
            if unit is not None:
                self._fields = {"unit": unit_text(unit)} if router is None else router.fields(unit)
            elif monitor.router is not None:
                monitor.sender.fault("unit", "the call has no unit")
            if router is not None and self._fields:
                self.variant = self._fields["variant"]
                self.version = router.arms.get(self.variant) or monitor.version
        except Exception as e:
            monitor.sender.fault("unit", e)

    def answer(self, **answer: Unpack[Answer]) -> None:
        """What the model answered, with the names of `client.prediction`; the last one counts."""
        self._answer = answer

    def end(self, error: BaseException | None = None) -> None:
        """Report the call; the `with` block does it."""
        self.stop_clock()
        sender = self._monitor.sender
        if error is not None and not isinstance(error, Exception):
            sender.drop("cancelled", error)
        elif error is not None or self._failed:
            self._put({"status": "error"})
        elif self._left_out is not None:
            sender.drop(*self._left_out)
        elif self._answer is None:
            sender.drop("no_answer", "call `answer` inside of the block")
        else:
            self._put(self._answer)

    def leave_out(self, reason: str, error: BaseException | str) -> None:
        """Send no event of this call, but count it as dropped."""
        self._left_out = reason, error

    def fail(self) -> None:
        """Report the call as failed, though no exception tells so."""
        self._failed = True

    def stop_clock(self) -> None:
        """The latency ends here; only the first time counts."""
        if self._took_ns < 0:
            self._took_ns = time.perf_counter_ns() - self._began_ns

    def _put(self, answer: Mapping[str, Any]) -> None:
        monitor = self._monitor
        try:
            value = events.prediction(
                self.event_id,
                monitor.model,
                version=self.version,
                timestamp=time.time_ns() // 1_000_000,
                latency_ms=self._took_ns / 1e6,
                **self._fields,
                **answer,
            )
            monitor.sender.put(monitor.predictions, value, self.event_id.encode())
        except Exception as e:
            monitor.sender.drop("invalid", e)

    def __enter__(self) -> Self:
        self._token = _CURRENT.set(self)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.end(error)
        if self._token is not None:
            try:
                _CURRENT.reset(self._token)
            except ValueError:  # a generator went on in another context
                _CURRENT.set(None)


_CURRENT: ContextVar[Call | None] = ContextVar("stream_monitor_call", default=None)


def current_call() -> Call:
    """
    The call that runs: inside of `Monitor.call`, a watched function or a request.

    Raises
    ------
    LookupError
        There is none.
    """
    call = _CURRENT.get()
    if call is None:
        raise LookupError("no call of a model runs here: use `with monitor.call()`, or `watch`")
    return call


class Watch(Generic[P, R]):
    """The decorator of `Monitor.watch`."""

    def __init__(
        self,
        monitor: Monitor,
        observe: Callable[Concatenate[R, P], Answer],
        unit: Callable[P, Key | None] | None,
        event_id: Callable[P, str | None] | None,
    ) -> None:
        self._monitor, self._observe, self._unit, self._event_id = monitor, observe, unit, event_id

    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, R]]
    ) -> Callable[P, Coroutine[Any, Any, R]]: ...

    @overload
    def __call__(self, function: Callable[P, R]) -> Callable[P, R]: ...

    def __call__(self, function: Callable[P, Any]) -> Callable[P, Any]:
        """
        Wrap the function.

        Raises
        ------
        TypeError
            It is a generator: use `with monitor.call()` inside of it. Or it is a class, or no
            function: decorate the method that predicts, below `@staticmethod` or `@classmethod`.
        """
        if isinstance(function, (type, staticmethod, classmethod)) or not callable(function):
            raise TypeError(
                f"{function!r} is no function: decorate the method that predicts, and put "
                "@staticmethod or @classmethod above"
            )
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"{function!r} is a generator: use `with monitor.call()` inside of it")

        if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004, an object with an async `__call__`
        ):

            @functools.wraps(function)
            async def asynchronous(*args: P.args, **kwargs: P.kwargs) -> Any:
                with self._call(*args, **kwargs) as call:
                    result = await function(*args, **kwargs)
                    self._observed(call, result, *args, **kwargs)
                    return result

            return asynchronous

        @functools.wraps(function)
        def synchronous(*args: P.args, **kwargs: P.kwargs) -> Any:
            with self._call(*args, **kwargs) as call:
                result = function(*args, **kwargs)
                self._observed(call, result, *args, **kwargs)
                return result

        return synchronous

    def _call(self, *args: P.args, **kwargs: P.kwargs) -> Call:
        unit, event_id = None, None
        try:
            unit = self._unit(*args, **kwargs) if self._unit else None
            event_id = self._event_id(*args, **kwargs) if self._event_id else None
        except Exception as e:
            self._monitor.sender.fault("unit", e)
        return self._monitor.call(unit=unit, event_id=event_id)

    def _observed(self, call: Call, result: R, *args: P.args, **kwargs: P.kwargs) -> None:
        call.stop_clock()
        try:
            call.answer(**self._observe(result, *args, **kwargs))
        except Exception as e:
            call.leave_out("observe", e)
