"""
The commit of a version on a branch as well, for people who want to see and merge it there.

Rule of the file: nothing is forced and no commit of others is rewritten. If the branch has moved
on, a new commit on top of it has what the version changed. A file that both changed is taken from
the version only if its own run made it; otherwise nothing is pushed, and a person merges. The tag
is the version, so a failure here is a note.
"""

from __future__ import annotations

import random
import re
import tempfile
import time
from pathlib import Path

from stream_monitor.lifecycle import git
from stream_monitor.lifecycle.git import GitError
from stream_monitor.lifecycle.tags import Tag
from stream_monitor.times import rfc3339

TRIES_MAX = 5
TRAILER = "Version-Tag"
Entry = tuple[str, str]
"""Mode and object of a file; an empty mode: it was removed."""


def put(repository: Path, remote: str, branch: str, tag: Tag) -> list[str]:
    """
    Put the commit of a version on a branch; what a person must know, if anything.

    Parameters
    ----------
    repository : Path
    remote : str
        Name of the remote; without any remote the branch of the clone is meant.
    branch : str
        Made if it is not there.
    tag : Tag
    """
    ref = f"refs/heads/{git.checked(branch)}"
    try:
        known = git.remote_of(repository, remote)
        for _ in range(TRIES_MAX):
            tip = _tip(repository, known, ref)
            commit = _commit(repository, tip, tag)
            if commit is None or _moved(repository, known, ref, commit, tip):
                return []
            time.sleep(random.uniform(0.02, 0.2))  # noqa: S311
        why = f"others pushed {TRIES_MAX} times meanwhile"
    except GitError as e:
        why = str(e)
    return [f"{tag.name} is registered, and not on the branch {branch}: {why}; merge it by hand"]


def _tip(repository: Path, remote: str | None, ref: str) -> str | None:
    if remote is None:
        head = git.run(repository, "symbolic-ref", "--quiet", "HEAD", check=False).strip()
        if head == ref:
            raise GitError("it is checked out in the clone, which has no remote")
        return (
            git.run(repository, "rev-parse", "--verify", "--quiet", ref, check=False).strip()
            or None
        )
    if not git.run(repository, "ls-remote", "--heads", "--", remote, ref, timeout_s=60):
        return None
    own = f"refs/remotes/{remote}/{ref.removeprefix('refs/heads/')}"
    words = ("fetch", "--quiet", "--no-tags", "--no-recurse-submodules", remote, f"+{ref}:{own}")
    git.run(repository, *words, timeout_s=git.REMOTE_S)
    return git.commit_of(repository, own)


def _commit(repository: Path, tip: str | None, tag: Tag) -> str | None:
    """The commit that the branch shall have; None: it has the version already."""
    if tip is None:
        return tag.revision
    base = git.run(repository, "merge-base", tip, tag.revision, check=False).strip()
    if not base:
        raise GitError("it has no commit in common with the version")
    if base == tip:
        return tag.revision  # forward
    said = f"^{TRAILER}: {re.escape(tag.name)}$"
    picked = git.run(
        repository, "log", "-1", "--format=%H", "--extended-regexp", f"--grep={said}", tip
    )
    return None if base == tag.revision or picked.strip() else _on_top(repository, base, tip, tag)


def _on_top(repository: Path, base: str, tip: str, tag: Tag) -> str | None:
    wanted, theirs = (_changes(repository, base, commit) for commit in (tag.revision, tip))
    parent = git.run(repository, "rev-parse", "--verify", f"{tag.revision}^1").strip()
    made = _changes(repository, parent, tag.revision)
    clash = [p for p, e in wanted.items() if p not in made and theirs.get(p, e) != e]
    if clash:
        raise GitError(f"both changed {', '.join(sorted(clash)[:5])}")
    with tempfile.TemporaryDirectory(prefix="stream-monitor-") as folder:
        index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        git.run(repository, "read-tree", tip, environment=index)
        entries = "".join(
            f"{mode or '0'} {known if mode else '0' * len(known)}\t{path}\0"
            for path, (mode, known) in wanted.items()
        )
        git.run(repository, "update-index", "-z", "--index-info", stdin=entries, environment=index)
        tree = git.run(repository, "write-tree", environment=index).strip()
    if tree == git.line(repository, "rev-parse", f"{tip}^{{tree}}"):
        return None
    at = rfc3339(time.time_ns() // 1_000_000)
    who = {
        f"GIT_{role}_{what}": value
        for role in ("AUTHOR", "COMMITTER")
        for what, value in (
            ("NAME", "stream-monitor"),
            ("EMAIL", "stream-monitor@localhost"),
            ("DATE", at),
        )
    }
    text = f"{tag.message.subject or tag.name}\n\n{TRAILER}: {tag.name}\n"
    return git.run(
        repository, "commit-tree", tree, "-p", tip, "-F", "-", stdin=text, environment=who
    ).strip()


def _changes(repository: Path, before: str, after: str) -> dict[str, Entry]:
    """Files that differ, by path from the top."""
    told = git.run(repository, "diff-tree", "-r", "-z", "--no-renames", before, after).split("\0")
    found: dict[str, Entry] = {}
    for head, path in zip(told[::2], told[1::2], strict=False):
        _, mode, _, known, _ = head.split(" ")
        found[path] = ("" if mode == "000000" else mode, known)
    return found


def _moved(repository: Path, remote: str | None, ref: str, commit: str, tip: str | None) -> bool:
    """Move the branch forward; False: somebody else did meanwhile."""
    try:
        if remote is None:
            git.run(repository, "update-ref", ref, commit, tip or "0" * len(commit))
        else:
            options = ("--quiet", "--no-verify", "--no-follow-tags", "--recurse-submodules=no")
            words = ("push", *options, remote, f"{commit}:{ref}")
            git.run(repository, *words, timeout_s=git.REMOTE_S)
    except GitError as e:
        if e.remote_away or _tip(repository, remote, ref) == tip:
            raise
        return False
    return True
