"""
The step `register`, as a process of its own.

Rule of the file: a push that hangs ends as any other step does: when the run is cancelled, when
its controller stops, when the next one takes over. A thread would go on, and tag a run that a
person has cancelled.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec

from stream_monitor.errors import StreamMonitorError
from stream_monitor.lifecycle.events import RESULT_BYTES_MAX
from stream_monitor.lifecycle.model import REGISTER
from stream_monitor.lifecycle.processes import Command, Outcome
from stream_monitor.lifecycle.versions import Registered, register
from stream_monitor.times import DAY_MS

MODULE = "stream_monitor.lifecycle.registration"


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    """Arguments of `versions.register`."""

    repository: str
    artifact: str
    tree: str
    run: str
    remote: str
    data: tuple[str, ...]
    reason: str
    sign: bool = False
    branch: str | None = None


def command(wanted: Registration) -> Command:
    """
    The command that registers a version. It is ours, so it gets the whole environment, as git and
    DVC need it for their remotes.
    """
    return Command(
        name=REGISTER,
        command=(sys.executable, "-m", MODULE, msgspec.json.encode(wanted).decode()),
        cwd=Path.cwd(),
        environment=os.environ,
        timeout_ms=DAY_MS,
    )


def told(outcome: Outcome) -> Outcome:
    """What came of it, with our own words as the reason if it failed."""
    why = outcome.result.get("error")
    return outcome if why is None else msgspec.structs.replace(outcome, result={}, reason=str(why))


def main(wanted: Registration, result: Path) -> int:
    """Register, and write the version, or why there is none, as the result."""
    try:
        made = register(
            Path(wanted.repository),
            wanted.artifact,
            Path(wanted.tree),
            wanted.run,
            remote=wanted.remote,
            data=wanted.data,
            reason=wanted.reason,
            sign=wanted.sign,
            branch=wanted.branch,
        )
    except (StreamMonitorError, OSError) as e:
        result.write_bytes(msgspec.json.encode({"error": str(e)[: RESULT_BYTES_MAX // 8]}))
        return 1
    result.write_bytes(fitting(made))
    return 0


def fitting(made: Registered) -> bytes:
    """A version as a result: what is too long for an event stands in its tag alone."""
    fewer = msgspec.structs.replace(made, metrics={})
    least = msgspec.structs.replace(fewer, data={}, artifact={}, notes=())
    texts = (msgspec.json.encode(m) for m in (made, fewer, least))
    return next(text for text in texts if len(text) <= RESULT_BYTES_MAX)


if __name__ == "__main__":
    sys.exit(
        main(
            msgspec.json.decode(sys.argv[1], type=Registration),
            Path(os.environ["STREAM_MONITOR_RESULT"]),
        )
    )
