"""
A monitor that raises is switched off, and everything else goes on.

Rule of the file: off for one model version from that position of the log on. A fold of the same log
by the same software and configuration switches it off at the same place; another one tries it
again. Running out of memory and being told to stop are no defects of a monitor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ParamSpec

from stream_monitor import __version__
from stream_monitor.alerts.wording import named
from stream_monitor.verdicts import AlertKey, Span, Verdict

MESSAGE_MAX = 300
MONITORS = (
    "volume",
    "custom",
    "features",
    "outputs",
    "performance",
    "drift",
    "segments",
    "patterns",
    "history",
)
"""What can be off, each by itself."""
P = ParamSpec("P")
NOT_OURS = (MemoryError, KeyboardInterrupt, SystemExit, GeneratorExit)


class Containment:
    """The monitors of one model version that are off, and why."""

    def __init__(self) -> None:
        self.off: dict[str, str] = {}
        self.tried: dict[str, str] = {}
        """What was off, and is tried again: why it was, or nothing when it has worked since."""

    def run(self, monitor: str, work: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
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

    def verdicts(self, model: str, version: str, log_ms: int) -> Iterator[Verdict]:
        """
        One alert for each monitor that is off; it ends when the monitor was tried again and works.
        """
        mended = [monitor for monitor, why in self.tried.items() if not why]
        for monitor in mended:
            del self.tried[monitor]
            yield self._verdict(model, version, monitor, "", log_ms)
        for monitor, why in self.off.items():
            yield self._verdict(model, version, monitor, why, log_ms)

    @staticmethod
    def _verdict(model: str, version: str, monitor: str, why: str, log_ms: int) -> Verdict:
        failed = (
            f"failed and is off ({why}); all others keep running. Please report this and upgrade "
            "to a fixed version"
        )
        return Verdict(
            key=AlertKey(model, version, "", "data_quality", f"monitor.{monitor}", "threshold"),
            level="critical" if why else "ok",
            clear=not why,
            value=float(bool(why)),
            threshold=0.0,
            direction="up",
            window=Span(log_ms, log_ms, 0),
            summary=f"{named(model, version)}: the {monitor} monitor "
            f"{failed if why else 'was tried again and works'}",
            evidence={"error": why, "guarantee": "none"},
        )

    def state(self) -> dict[str, Any]:
        """Plain values for the snapshot."""
        return {"software": __version__, "off": self.off, "tried": self.tried}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], *, again: bool) -> Containment:
        """What was off; another software, or configuration (`again`), tries it again."""
        found = cls()
        found.tried = dict(state["tried"])
        if state["software"] == __version__ and not again:
            found.off = dict(state["off"])
        else:
            found.tried |= state["off"]
        return found
