"""
The DVC commands of the loop.

Rule of the file: DVC is a program, never an import: its import takes 0.35 s and 600 modules, and
it is needed only where a project has `.dvc`. It sends no statistics and looks for no updates.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from stream_monitor.errors import UNREADABLE, InputError, StreamMonitorError
from stream_monitor.lifecycle.git import SECRET, place_of
from stream_monitor.lifecycle.stoppable import finished

TIMEOUT_S = 3_600
QUIET = {"DVC_NO_ANALYTICS": "1", "CI": "1"}
KEPT_ALREADY = ("overlap", "already specified in stage", "is specified in", "already tracked by")
NO_REMOTE = "no remote specified"


class DvcError(StreamMonitorError):
    """A DVC command failed."""

    def __init__(self, message: str, said: str = "") -> None:
        super().__init__(message)
        self.said = said
        """What DVC wrote on stderr."""


def is_project(directory: Path) -> bool:
    """Whether DVC was set up in a directory, or above it in the same clone."""
    for folder in (directory.absolute(), *directory.absolute().parents):
        if (folder / ".dvc").is_dir():
            return True
        if (folder / ".git").exists():
            break
    return False


def run(directory: Path, *arguments: str, timeout_s: float = TIMEOUT_S) -> str:
    """
    What a DVC command writes on stdout.

    Raises
    ------
    InputError
        DVC is not installed.
    DvcError
        The command failed; every failure has the exit code 1 or 255, so only its text tells why.
    """
    words = f"dvc {arguments[0]} in {directory}"  # never --quiet: it hides errors too
    try:
        done = finished(
            [*_program(), *arguments],
            timeout_s=timeout_s,
            cwd=directory,
            env={**os.environ, **QUIET},
        )
    except subprocess.TimeoutExpired:
        raise DvcError(f"{words} did not end within {timeout_s:g} s") from None
    if done.returncode:
        said = SECRET.sub(r"\1…@", (done.stderr or done.stdout).strip())
        raise DvcError(f"{words} failed: {said or f'exit {done.returncode}'}", said)
    return done.stdout


def push(directory: Path) -> bool:
    """
    Send data and models to the remote of DVC; False: it has none.

    `dvc push` ends with 0 where the cache lacks a file, so it is asked what is still missing.

    Raises
    ------
    DvcError
        The remote does not answer, or a file is neither in the cache nor on the remote.
    """
    try:
        run(directory, "push")
        lacks = not_sent(directory)
    except DvcError as e:
        if NO_REMOTE in e.said:
            return False
        raise
    if lacks:
        raise DvcError(
            f"{', '.join(lacks[:5])}: not in the cache of {directory} and not on its DVC remote; "
            "`dvc repro` or `dvc commit` makes it"
        )
    return True


def remote_of(directory: Path, *, timeout_s: float = TIMEOUT_S) -> str | None:
    """Address of the default remote, without a password; None: there is none."""
    # not `remote list`: it folds long lines
    name = run(directory, "config", "core.remote", timeout_s=timeout_s).strip()
    if not name:
        return None
    url = run(directory, "config", f"remote.{name}.url", timeout_s=timeout_s).strip()
    return SECRET.sub(r"\1…@", url)


def not_sent(directory: Path, *, timeout_s: float = TIMEOUT_S) -> list[str]:
    """
    Data and models of the work tree that its remote lacks.

    Raises
    ------
    DvcError
        The remote does not answer, or there is none.
    """
    told = _object(run(directory, "status", "--cloud", "--json", timeout_s=timeout_s))
    return sorted(path for path, state in told.items() if state in ("missing", "new"))


def changed(directory: Path) -> list[str]:
    """
    Data and models that differ from what git has of them.

    A file that is only absent, as in a clone without `dvc pull`, does not differ.
    """
    told = _object(run(directory, "data", "status", "--json")).get("uncommitted", {})
    return sorted(
        name if isinstance(name, str) else str(name.get("new", name))
        for what in ("added", "modified", "renamed")
        for name in told.get(what, [])
    )


def add(directory: Path, path: str) -> None:
    """Let DVC keep a file; one that a stage makes is kept already."""
    try:
        run(directory, "add", "--", path)
    except DvcError as e:
        if not any(words in e.said for words in KEPT_ALREADY):
            raise


def get(
    repository: Path, path: str, revision: str, output: Path, *, timeout_s: float = TIMEOUT_S
) -> None:
    """
    Bring a file of a tag or commit back, from the cache of the clone or the remote of DVC.

    Raises
    ------
    DvcError
        Neither has it.
    """
    top, below = place_of(repository)
    words = ("get", "--rev", revision, "--out", str(output), "--", str(top), below + path)
    run(top, *words, timeout_s=timeout_s)


def metrics(directory: Path) -> dict[str, dict[str, Any]]:
    """Metrics of the work tree, by file."""
    told = _object(run(directory, "metrics", "show", "--json")).get("", {})
    return {
        path: found["data"]
        for path, found in (told.get("data") or {}).items()
        if isinstance(found.get("data"), dict)
    }


def take_over_locks(tree: Path) -> None:
    """
    Remove the locks of processes that are gone.

    Only for a work tree that nobody else uses: a lock names a process by its number, and in a
    container that was restarted another process has it.
    """
    for stale in (tree / ".dvc" / "tmp").glob("rwlock*"):
        stale.unlink(missing_ok=True)


def _program() -> list[str]:
    beside = Path(sys.executable).with_name("dvc")
    found = str(beside) if beside.exists() else shutil.which("dvc")
    if found is not None:
        return [found]
    if find_spec("dvc") is not None:
        return [sys.executable, "-m", "dvc"]
    raise InputError(
        "this project uses DVC, which is not installed: pip install "
        "'model-stream-monitor[lifecycle]'"
    )


def _object(told: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(told or "{}", type=dict[str, Any])
    except UNREADABLE as e:
        raise DvcError(f"DVC said something that is not JSON: {told[:200]!r} ({e})") from None
