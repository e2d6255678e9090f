"""
A monitor that raises is switched off, and everything else goes on.

Rule of the file: off for one model version from that position of the log on. A fold of the same log by the same software switches it off at the same place; other
software tries it again. Running out of memory and being told to stop are no defects of a monitor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from stream_monitor import __version__
from stream_monitor.verdicts import AlertKey, Span, Verdict

MESSAGE_MAX = 300
NOT_OURS = (MemoryError, KeyboardInterrupt, SystemExit, GeneratorExit)


class Containment:
    """The monitors of one model version that are off, and why."""

    def __init__(self) -> None:
        self.off: dict[str, str] = {}

    def run(self, monitor: str, work: Callable[..., None], *args: Any) -> None:
        """Run a part of a monitor, unless it is off; switch it off when that raises."""
        if monitor in self.off:
            return
        try:
            work(*args)
        except NOT_OURS:
            raise
        except BaseException as e:  # a panic inside River's Rust is no Exception
            self.off[monitor] = f"{type(e).__name__}: {e}"[:MESSAGE_MAX]

    def verdicts(self, model: str, version: str, log_ms: int) -> Iterator[Verdict]:
        """One alert for each monitor that is off."""
        for monitor, why in self.off.items():
            yield Verdict(
                key=AlertKey(model, version, "", "data_quality", f"monitor.{monitor}", "threshold"),
                level="critical",
                clear=False,
                value=1.0,
                threshold=0.0,
                direction="up",
                window=Span(log_ms, log_ms, 0),
                summary=f"{model}: the monitor {monitor} failed and is off ({why}); everything else goes on. Please report it, and restart with a version that has it mended",
                evidence={"error": why, "guarantee": "none"},
            )

    def state(self) -> dict[str, Any]:
        """Plain values for the snapshot."""
        return {"software": __version__, "off": self.off}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Containment:
        """What was off, if this is the software that switched it off."""
        found = cls()
        if state["software"] == __version__:
            found.off = dict(state["off"])
        return found
