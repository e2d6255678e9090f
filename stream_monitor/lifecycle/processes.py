"""
Commands of the loop as processes: one at a time, whoever started the last one.

Rule of the file: the log of a command is also its lock. All its descendants hold the file through
their output, so the lock is free only when the last of them is gone, also if the one who started
them was killed. A new start ends what is left first. A result counts when its file has its name,
so a half-written one is none.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import secrets
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import msgspec

from stream_monitor.errors import StateError
from stream_monitor.lifecycle.events import LOG_BYTES_MAX, RESULT_BYTES_MAX

MARK = "STREAM_MONITOR_COMMAND"
"""Environment variable by which all descendants of a command are found."""
PASSED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "VIRTUAL_ENV")
"""Variables that every command gets; others only by name."""
RESULT = ".result"
GRACE_S, END_S = 1.0, 10.0
LINE_MAX = 300
"""Characters of a log's last line in a reason."""
SHIM = ("/bin/sh", "-c", 'echo $$ >"$0"; exec "$@"')
"""Writes the number of the process group before the command begins; its text is fixed."""


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A command of the configuration, and where it runs."""

    name: str
    command: Sequence[str]
    cwd: Path
    environment: Mapping[str, str]
    timeout_ms: int


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a command."""

    done: bool
    result: dict[str, Any] = {}
    reason: str = ""
    log: str = ""


def environment(names: Sequence[str], ours: Mapping[str, str]) -> dict[str, str]:
    """
    The environment of a command: a few variables of everybody, those that are named, and ours.

    >>> sorted(environment((), {"STREAM_MONITOR_RUN": "a"}).keys() - set(PASSED))
    ['STREAM_MONITOR_RUN']
    """
    passed = {n: os.environ[n] for n in (*PASSED, *names) if n in os.environ}
    return {**passed, **ours}


async def run(folder: Path, command: Command, attempt: int = 1) -> Outcome:
    """
    Run a command to its end, unless its result is there already.

    Parameters
    ----------
    folder : Path
        Holds the log, the lock and the result of the command.
    command : Command
    attempt : int
        A new attempt runs again.

    Raises
    ------
    StateError
        An earlier start cannot be ended.
    OSError
        The disk is full, for example; nothing was kept.

    Notes
    -----
    When the task is cancelled, the command and all its descendants are ended first.
    """
    kept = _result(folder, command.name, attempt)
    found = _kept(kept)
    if found is not None:
        return found
    path = folder / f"{command.name}.log"
    with path.open("ab") as log:
        await _alone(log, path)
        token = secrets.token_hex(8)
        given, start = _fresh(folder / f"{command.name}.json", path)
        try:
            process = await _begun(command, log, given, token)
        except OSError as e:
            return Outcome(done=False, reason=f"{command.command[0]}: {e.strerror or e}")
    # closed here: the lock is the command's alone, so a starter that is stopped does not hold it
    try:
        code = await _code(process, command)
    finally:
        await asyncio.shield(end(path, token))
    outcome = _outcome(code, command, given, _tail(path, start), attempt)
    with path.open("ab") as log:
        _demand_ours(log, process.pid)
        _keep(kept, outcome)
    return outcome


def is_kept(folder: Path, name: str, attempt: int) -> bool:
    """Whether a command has a result."""
    return _result(folder, name, attempt).exists()


def _result(folder: Path, name: str, attempt: int) -> Path:
    return folder / f"{name}.{attempt}{RESULT}"


async def _begun(
    command: Command, log: IO[bytes], given: Path, token: str
) -> asyncio.subprocess.Process:
    env = {**command.environment, MARK: f"{log.name}#{token}", "STREAM_MONITOR_RESULT": str(given)}
    return await asyncio.create_subprocess_exec(
        *SHIM,
        str(_pid_file(Path(log.name))),
        *command.command,
        cwd=command.cwd,
        env=env,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
        umask=0o077,
    )


def _demand_ours(log: IO[bytes], pid: int) -> None:
    """A result counts only if nobody has started the command since."""
    taken = f"{Path(log.name).stem} was started by another controller"
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StateError(taken) from None
    if _pid_file(Path(log.name)).read_text().strip() != str(pid):
        raise StateError(taken)


def _kept(path: Path) -> Outcome | None:
    return msgspec.json.decode(path.read_bytes(), type=Outcome) if path.exists() else None


def _keep(path: Path, outcome: Outcome) -> None:
    part = path.with_suffix(".part")
    part.write_bytes(msgspec.json.encode(outcome))
    part.replace(path)


async def _code(process: asyncio.subprocess.Process, command: Command) -> int | None:
    """How it ended; None: not in time."""
    try:
        return await asyncio.wait_for(process.wait(), command.timeout_ms / 1e3)
    except TimeoutError:
        return None


def _outcome(code: int | None, command: Command, given: Path, tail: str, attempt: int) -> Outcome:
    if code is None:
        seconds = command.timeout_ms / 1e3
        return Outcome(done=False, reason=f"it took longer than {seconds:g} s", log=tail)
    said = _given(given)
    if isinstance(said, str):
        return Outcome(done=False, reason=said, log=tail)
    if code != 0:
        why = (
            f"exit code {code}{_last(tail)}"
            if code > 0
            else f"ended by {signal.Signals(-code).name}"
        )
        return Outcome(done=False, result=said, reason=why, log=tail)
    return Outcome(done=True, result={**said, "attempt": attempt})


def _fresh(given: Path, log: Path) -> tuple[Path, int]:
    """The file for the result, not there yet, and where the log of this attempt begins."""
    given.unlink(missing_ok=True)
    return given, log.stat().st_size


def _given(path: Path) -> dict[str, Any] | str:
    """What the command wrote as its result; a text is why it cannot be used."""
    if not path.exists():
        return {}
    if path.stat().st_size > RESULT_BYTES_MAX:
        return f"its result has more than {RESULT_BYTES_MAX} bytes"
    try:
        said = json.loads(path.read_bytes())
    except ValueError as e:
        return f"its result is no JSON: {e}"
    return said if isinstance(said, dict) else "its result is no JSON object"


def _tail(path: Path, start: int) -> str:
    """The last lines of a log, from a place on."""
    with path.open("rb") as log:
        log.seek(max(start, path.stat().st_size - LOG_BYTES_MAX))
        return log.read().decode("utf-8", "replace")[-LOG_BYTES_MAX:]


def _last(tail: str) -> str:
    """The last line of a log, for a reason; programs say there what is wrong."""
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    return f": {lines[-1][:LINE_MAX]}" if lines else ""


# ---- at most one


async def _alone(log: IO[bytes], path: Path) -> None:
    """Take the lock; what an earlier start left is ended."""
    loop = asyncio.get_running_loop()
    until = loop.time() + END_S
    while True:
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if loop.time() > until:
                message = f"an earlier start of {path.stem} cannot be ended; {path} is locked"
                raise StateError(message) from None
            await end(path)
            await asyncio.sleep(0.05)
        else:
            return


async def end(log: Path, token: str = "") -> None:
    """
    End all processes of a command: politely, and after a second by force.

    Parameters
    ----------
    log : Path
        Its log.
    token : str
        Only those of one start. Who was stopped and wakes up must not end what another one began.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    sent: set[int] = set()
    while left := await asyncio.to_thread(_members, log, token):
        waited = loop.time() - began
        if waited > END_S:
            return
        for pid in left:
            if waited > GRACE_S or pid not in sent:
                sent.add(pid)
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL if waited > GRACE_S else signal.SIGTERM)
        await asyncio.sleep(0.05)


async def end_orphans(work: Path, is_wanted: Callable[[Path], bool]) -> list[Path]:
    """
    End the commands that nobody will start, read or end again; their logs.

    Parameters
    ----------
    work : Path
        Absolute; commands whose log lies below it are looked at.
    is_wanted : callable
        Whether somebody goes on with the command of a log.

    Notes
    -----
    Without `/proc` those are found whose log is still there.
    """
    logs = sorted(await asyncio.to_thread(_logs, work))
    orphans = [log for log in logs if not is_wanted(log)]
    for log in orphans:
        await end(log)
    return orphans


def _logs(work: Path) -> set[Path]:
    """Logs of the commands that live."""
    proc = Path("/proc")
    if not (proc / "self" / "environ").exists():
        known = {path.with_suffix(".log") for path in work.glob("**/*.pid")}
        return {log for log in known if _group(log)}
    mark, found = f"{MARK}={work}/".encode(), set()
    for entry in proc.iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                for value in (entry / "environ").read_bytes().split(b"\0"):
                    if value.startswith(mark):
                        name = value.partition(b"=")[2].rpartition(b"#")[0]
                        found.add(Path(os.fsdecode(name)))
    return found


def _pid_file(log: Path) -> Path:
    return log.with_suffix(".pid")


def _members(log: Path, token: str) -> list[int]:
    """
    Processes of a command that live. Numbers of processes are given again, so each is asked for
    its environment; without `/proc` the group that was written down is believed.
    """
    proc = Path("/proc")
    if not (proc / "self" / "environ").exists():
        return _group(log)
    mark, found = f"{MARK}={log}#{token}".encode(), []
    for entry in proc.iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                dead = (entry / "stat").read_bytes().rpartition(b")")[2].split()[:1] == [b"Z"]
                environ = (entry / "environ").read_bytes().split(b"\0")
                if not dead and any(v.startswith(mark) for v in environ):
                    found.append(int(entry.name))
    return found


def _group(log: Path) -> list[int]:
    try:
        group = int(_pid_file(log).read_text())
        os.killpg(group, 0)
    except (OSError, ValueError):
        return []
    return [-group]
