"""
The git commands of the loop.

Rule of the file: one program, argument lists, no shell. Hooks and `ext::` addresses are off, no
command asks for a password, and each has a limit of time. A name is checked before it comes here,
or stands behind `--`. An error says which command failed, what git said, and what to do.

The library GitPython is not used: it runs the same program, and had a row of advisories about
arguments that are taken for options (CVE-2022-24439, CVE-2023-40267).
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from stream_monitor.errors import InputError, StreamMonitorError
from stream_monitor.lifecycle.stoppable import finished

SAFE = (
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "protocol.ext.allow=never",
    "-c",
    "gc.auto=0",
)
"""Options of every command. No `gc`: it would go on in the background."""
KEPT = ("GIT_SSH", "GIT_SSH_COMMAND", "GIT_ASKPASS", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM")
"""Variables of git that are kept; `GIT_DIR` of a hook, for one, would lead elsewhere."""
LOCAL_S, REMOTE_S = 120, 600
REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./@^~#=-]*")
REMOTE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
SECRET = re.compile(r"(://)[^/@\s]+@")
AWAY = (
    "could not read from remote",
    "unable to access",
    "could not resolve",
    "timed out",
    "does not appear to be a git repository",
)
WAY_OUT = {
    "not a git repository": "name a clone: --repository, or lifecycle.models.….repository",
    "must be run in a work tree": "it is a bare repository; name a clone with files",
    "dubious ownership": "the clone belongs to another user: `git config --global --add "
    "safe.directory PATH`",
    "couldn't find remote ref": "the remote has no such branch; set lifecycle.models.….base",
    ".lock': file exists": "another git command runs there, or one was killed: remove the file if "
    "none runs",
    "terminal prompts disabled": "git may not ask for a password: give it a credential helper or "
    "an SSH key",
    "no space left": "make room",
}


class GitError(StreamMonitorError):
    """A git command failed. Nothing that it should have done counts as done."""

    def __init__(self, message: str, said: str = "") -> None:
        super().__init__(message)
        self.said = said
        """What git wrote on stderr."""

    @property
    def remote_away(self) -> bool:
        """Whether the remote did not answer, so that it is worth another try."""
        return any(words in self.said.lower() for words in AWAY)


def run(
    directory: Path,
    *arguments: str,
    stdin: str | None = None,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = LOCAL_S,
    check: bool = True,
) -> str:
    """
    What a git command writes on stdout.

    Parameters
    ----------
    directory : Path
        A clone, a work tree, or a directory inside of one.
    *arguments : str
        The command and its arguments.
    stdin : str, optional
    environment : mapping, optional
        Variables beside ours.
    timeout_s : float, seconds
    check : bool
        Whether a failure is an error.

    Raises
    ------
    InputError
        There is no such directory, or no git.
    GitError
        The command failed, or took too long.
    """
    words = f"git {arguments[0]} in {directory}"
    try:
        done = finished(
            ["git", *SAFE, *arguments],  # no shell; names are checked
            text=stdin,
            timeout_s=timeout_s,
            cwd=directory,
            env={**_environment(), **(environment or {})},
        )
    except subprocess.TimeoutExpired:
        raise GitError(f"{words} did not end within {timeout_s:g} s", "timed out") from None
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(_missing(directory)) from None
    if check and done.returncode:
        said = SECRET.sub(r"\1…@", done.stderr.strip()) or f"exit {done.returncode}"
        raise GitError(f"{words} failed: {said}{_way_out(said)}", said)
    return done.stdout


def line(directory: Path, *arguments: str) -> str:
    """The one line that a command writes; errors are those of `run`."""
    return run(directory, *arguments).strip()


def commit_of(directory: Path, revision: str) -> str:
    """
    The full hash of the commit of a branch, tag or hash.

    Raises
    ------
    InputError
        It has forbidden characters.
    GitError
        There is none.
    """
    try:
        return line(directory, "rev-parse", "--verify", f"{checked(revision)}^{{commit}}")
    except GitError as e:
        if "single revision" not in e.said:
            raise
        if revision == "HEAD":
            raise GitError(
                f"{directory} has no commit yet; `git commit` makes one", e.said
            ) from None
        raise GitError(
            f"{directory} has no branch, tag or commit {revision!r}; `stream-monitor models list` "
            "shows the versions, `git branch -a` the branches",
            e.said,
        ) from None


def base_commit(repository: Path, remote: str, base: str) -> str:
    """
    The newest commit of a branch of the remote; of the clone if it has no remote.

    Raises
    ------
    GitError
        The remote does not answer, or has no such branch.
    """
    known = remote_of(repository, remote)
    if known is None:
        return commit_of(repository, f"refs/heads/{base}")
    run(
        repository,
        "fetch",
        "--quiet",
        "--no-recurse-submodules",
        known,
        f"+refs/heads/{checked(base)}:refs/remotes/{known}/{base}",
        timeout_s=REMOTE_S,
    )
    return commit_of(repository, f"refs/remotes/{known}/{base}")


def text_of(directory: Path, revision: str, path: str) -> str | None:
    """A file of a commit or tree, by its path below the directory; None if it is not there."""
    try:
        return run(directory, "show", f"{checked(revision)}:./{path}")
    except GitError as e:
        if "exist" in e.said:  # `does not exist in`, `exists on disk, but not in`
            return None
        raise


def bring(directory: Path, revision: str, path: str, output: Path) -> bool:
    """Write a file of a commit, byte by byte; whether git has it."""
    with output.open("wb") as out:
        done = subprocess.run(  # noqa: S603  no shell; names are checked
            ["git", *SAFE, "show", f"{checked(revision)}:./{path}"],  # noqa: S607
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.DEVNULL,
            env=_environment(),
            timeout=LOCAL_S,
            check=False,
        )
    return done.returncode == 0


def remote_of(repository: Path, name: str) -> str | None:
    """
    The remote of this name; None if the clone has no remote at all.

    Raises
    ------
    InputError
        It has others, or the name is none.
    """
    if not REMOTE.fullmatch(name):
        raise InputError(f"remote {name!r}: expected a name such as origin, not an address")
    known = run(repository, "remote").split()
    if known and name not in known:
        raise InputError(
            f"remote {name!r}: {repository} has {', '.join(known)}; set lifecycle.models.….remote"
        )
    return name if known else None


def place_of(directory: Path) -> tuple[Path, str]:
    """The top of the clone or work tree that a directory is in, and the way from there to it."""
    top = line(directory, "rev-parse", "--show-toplevel")
    return Path(top), line(directory, "rev-parse", "--show-prefix")


def changed_files(tree: Path) -> list[str]:
    """Files of a work tree that differ from its commit, untracked ones too."""
    status = run(tree, "status", "--porcelain=v1", "-z", "--untracked-files=all", "--no-renames")
    return [entry[3:] for entry in status.split("\0") if entry]


def checked(revision: str) -> str:
    """
    A revision that cannot be taken for an option.

    >>> checked("churn@v1.2.0"), checked("HEAD~1")
    ('churn@v1.2.0', 'HEAD~1')
    >>> checked("--upload-pack=x")
    Traceback (most recent call last):
    stream_monitor.errors.InputError: '--upload-pack=x' is not a branch, a tag or a commit
    """
    if not REVISION.fullmatch(revision) or ".." in revision:
        raise InputError(f"{revision!r} is not a branch, a tag or a commit")
    return revision


def _environment() -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or name in KEPT or name.startswith("GIT_SSL_")
    }
    return {**kept, "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"}


def _way_out(said: str) -> str:
    lowered = said.lower()
    for words, what in WAY_OUT.items():
        if words in lowered:
            return f"; {what}"
    if any(words in lowered for words in AWAY):
        return "; the remote does not answer: check its address (`git remote -v`) and the network"
    return ""


def _missing(directory: Path) -> str:
    if directory.is_dir():
        return "the program `git` is not there; install git"
    return (
        f"{directory}: no such directory; name a clone: --repository, or "
        "lifecycle.models.….repository"
    )
