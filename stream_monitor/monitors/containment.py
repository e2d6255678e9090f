"""
A monitor that raises is switched off, and everything else goes on.

Rule of the file: it is off for one model version, from that position of the log on. The same
software and configuration switch it off at the same place of the same log; another version or
configuration tries it again. Running out of memory and a request to stop are not defects of a
monitor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal, ParamSpec, get_args

import msgspec

from stream_monitor import __version__
from stream_monitor.monitors.context import Context
from stream_monitor.verdicts import Span, Verdict

MESSAGE_MAX = 300
Monitor = Literal[
    "volume",
    "custom",
    "features",
    "outputs",
    "performance",
    "estimate",
    "drift",
    "segments",
    "patterns",
    "history",
]
"""Monitors that can be switched off, each by itself."""
MONITORS: tuple[Monitor, ...] = get_args(Monitor)
P = ParamSpec("P")
Judge = Callable[[Verdict], None]
NOT_OURS = (MemoryError, KeyboardInterrupt, SystemExit, GeneratorExit)


class Containment(msgspec.Struct):
    """The monitors of one model version that are off, and why."""

    software: str = __version__
    """The software and configuration that tried them."""
    off: dict[str, str] = {}
    tried: dict[str, str] = {}
    """Monitors that were off and are tried again: the reason, or empty once it has worked."""

    def run(
        self, monitor: Monitor, work: Callable[P, object], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Run a part of a monitor, unless it is off; switch it off when that raises."""
        if monitor in self.off:
            return
        try:
            work(*args, **kwargs)
        except NOT_OURS:
            raise
        except BaseException as e:  # a panic inside River's Rust is no Exception
            self.off[monitor] = f"{type(e).__name__}: {e}"[:MESSAGE_MAX]
            self.tried.pop(monitor, None)
        else:
            if monitor in self.tried:
                self.tried[monitor] = ""

    def judge(self, monitor: Monitor, verdicts: Iterable[Verdict], judge: Judge) -> None:
        """Hand on the verdicts of a monitor one by one, as they are made, unless it is off."""

        def hand_on() -> None:
            for verdict in verdicts:
                judge(verdict)

        self.run(monitor, hand_on)

    def verdicts(self, context: Context, log_ms: int) -> Iterator[Verdict]:
        """
        One alert for each monitor that is off; it ends when the monitor was tried again and works.
        """
        mended = [monitor for monitor, why in self.tried.items() if not why]
        for monitor in mended:
            del self.tried[monitor]
            yield self._verdict(context, monitor, "", log_ms)
        for monitor, why in self.off.items():
            yield self._verdict(context, monitor, why, log_ms)

    @staticmethod
    def _verdict(context: Context, monitor: str, why: str, log_ms: int) -> Verdict:
        key = context.key("data_quality", f"monitor.{monitor}", "threshold")
        failed = (
            f"failed and is off ({why}); all others keep running. Please report this and upgrade "
            "to a fixed version"
        )
        return Verdict(
            key=key,
            level="critical" if why else "ok",
            clear=not why,
            value=float(bool(why)),
            threshold=0.0,
            direction="up",
            window=Span(log_ms, log_ms, 0),
            summary=f"{key.title}: the {monitor} monitor "
            f"{failed if why else 'was tried again and works'}",
            evidence={"error": why, "guarantee": "none"},
        )

    def go_on(self, *, again: bool) -> None:
        """
        After a restart, try again what is off, if the software or configuration is another
        (`again`).
        """
        if again or self.software != __version__:
            self.tried |= self.off
            self.off, self.software = {}, __version__
