"""
Rules of the user's own: a command, or a function of an installed package.

Rule of the file: a command is a list of arguments and comes from a local file; there is no shell.
It has its own process group, few variables of the environment, and an end.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from contextlib import suppress
from importlib.metadata import entry_points
from pathlib import Path

from stream_monitor.errors import InputError
from stream_monitor.training.quality_rules import OwnCommand
from stream_monitor.training.verdict import Verdict

GROUP = "stream_monitor.quality"
KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "VIRTUAL_ENV", "PYTHONPATH")
"""Variables of the environment that a command gets, beside `STREAM_MONITOR_FILE`."""
LINES, CHARS = 5, 2_000
"""What is told of the output: its last lines, and how much of them."""


def command_verdict(own: OwnCommand, path: Path) -> Verdict:
    """
    Run a command; exit code 0 is good.

    Raises
    ------
    InputError
        There is no such program.
    """
    arguments = [argument.replace("{file}", str(path)) for argument in own.command]
    environment = {name: os.environ[name] for name in KEPT if name in os.environ}
    environment["STREAM_MONITOR_FILE"] = str(path)
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(  # noqa: S603, a list, from a local file
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        except OSError as e:
            raise InputError(
                f"commands: {own.name}: {arguments[0]!r} cannot be started: {e.strerror}"
            ) from None
        try:
            code: int | None = process.wait(own.timeout_ms / 1e3)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with suppress(ProcessLookupError):  # also what it left running
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(max(output.seek(0, os.SEEK_END) - 4 * CHARS, 0))
        lines = output.read().decode("utf-8", "replace").splitlines()
    said = "\n".join(lines[-LINES:])[-CHARS:]
    text = f"no end within {own.timeout}" if code is None else f"exit code {code}"
    return Verdict("command", own.name, code == 0, code, 0, f"{text}: {said}" if said else text)


def entry_point_verdict(name: str, path: Path) -> Verdict:
    """
    Call the function `name` of the group `stream_monitor.quality` with the path of the file; it
    returns the problems as texts.

    Raises
    ------
    InputError
        No installed package has it.
    """
    found = entry_points(group=GROUP)
    if name not in found.names:
        there = ", ".join(sorted(found.names)) or "none"
        raise InputError(
            f"entry_points: {name!r} is not installed; in group {GROUP} there is {there}"
        )
    try:
        problems = [str(problem) for problem in found[name].load()(str(path)) or ()]
    except Exception as e:  # the code of somebody else
        problems = [f"{type(e).__name__}: {e}"]
    text = "; ".join(problems[:LINES])[:CHARS] or "no problems"
    return Verdict("entry_point", name, not problems, len(problems), 0, text)
