"""
Tags of versions in a clone and on its remote: listed, found, given.

Rule of the file: the number of a version is taken where the tag counts: on the remote, or in the
clone if there is none. Git creates a tag once, so the loser of a race for a number sees it and
takes the next one. What the remote has afterwards counts, not what the command said.
"""

from __future__ import annotations

import fcntl
import random
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from stream_monitor.errors import InputError, StateError
from stream_monitor.lifecycle import git, signing, tags
from stream_monitor.lifecycle.git import GitError
from stream_monitor.lifecycle.stoppable import is_ended
from stream_monitor.lifecycle.tags import Message, Part, Tag
from stream_monitor.times import rfc3339

TAGGER, ADDRESS = signing.TAGGER, signing.ADDRESS
RACES_MAX, TRIES_MAX = 100, 5
LOCK_S = 1_200
STAGE = re.compile(r"[A-Za-z0-9]+")
SHOWN_FIRST = ("accuracy", "f1", "auc", "roc_auc", "rmse", "mae")
FORM = "%00".join(
    f"%({field})"
    for field in (
        "refname:lstrip=2",
        "objecttype",
        "objectname",
        "*objectname",
        "*objecttype",
        "taggername",
        "taggerdate:unix",
        "contents",
    )
)


def versions_of(repository: Path, artifact: str) -> list[Tag]:
    """
    The versions of an artifact in a clone, the newest number first.

    Parameters
    ----------
    repository : Path
    artifact : str
        Checked by `tags.artifact_of`.

    Raises
    ------
    GitError
        It is not a clone.
    """
    listed = git.run(
        repository,
        "for-each-ref",
        f"--format={FORM}%00%00%00",
        f"refs/tags/{tags.artifact_of(artifact)}@v*",
    )
    found = (_tag(entry) for entry in listed.split("\0\0\0\n") if entry.strip("\n"))
    return sorted(
        (tag for tag in found if tag is not None and tag.artifact == artifact),
        key=lambda tag: tags.number_of(tag.version),
        reverse=True,
    )


def artifacts_in(repository: Path) -> list[str]:
    """Artifacts that have a version in a clone."""
    names = git.run(repository, "for-each-ref", "--format=%(refname:lstrip=2)", "refs/tags/")
    return sorted({found[0] for found in map(tags.split, names.splitlines()) if found})


def refresh(repository: Path, artifact: str, remote: str) -> None:
    """
    Bring the tags of versions and stages from the remote into the clone, if it has one.

    Raises
    ------
    GitError
        The remote does not answer.
    """
    known = git.remote_of(repository, remote)
    if known is not None:
        with alone(repository, "clone", common=True):
            _fetch(repository, known, f"refs/tags/{tags.artifact_of(artifact)}@v*")
            _fetch(repository, known, f"refs/tags/{artifact}#*")


def find(
    repository: Path, artifact: str, remote: str, run: str | None, commit: str | None = None
) -> Tag | None:
    """
    The version that a run has already; without a run, that of a commit.

    Raises
    ------
    GitError
        The remote does not answer.
    """
    with alone(repository, "clone", common=True):
        there = _fetch_tags(repository, artifact, git.remote_of(repository, remote))
        return _mine(versions_of(repository, artifact), there, run, commit)


def give(
    repository: Path,
    artifact: str,
    remote: str,
    part: Part,
    commit: str,
    message: Message,
    by: str,
    *,
    sign: bool = False,
) -> tuple[Tag, bool]:
    """
    Give a commit the next number, and whether it had one already.

    Parameters
    ----------
    repository : Path
    artifact, remote : str
    part : {"major", "minor", "patch"}
        Which number is raised.
    commit : str
    message : Message
        Its subject becomes the name with the number.
    by : str
        Who tags.
    sign : bool
        Whether git signs it.

    Raises
    ------
    GitError
        The remote is away, or refuses the tag; or it cannot be signed.
    StateError
        Others took every number that was tried.
    """
    with alone(repository, "clone", common=True):
        known = git.remote_of(repository, remote)
        for race in range(RACES_MAX):
            there = _fetch_tags(repository, artifact, known)
            tagged = versions_of(repository, artifact)
            mine = _mine(tagged, there, message.run, commit)
            if mine is not None:
                return mine, race == 0
            tag = _next(tagged, artifact, part, commit, message)
            made = signing.made(repository, tag.name, commit, tag.message, by, signed=sign)
            if _put(repository, known, tag.name, made):
                return tag, False
            time.sleep(random.uniform(0, 0.05 * min(race + 1, 10)))  # noqa: S311
    raise StateError(f"{RACES_MAX} others took each number first; try again")


def next_tag(repository: Path, artifact: str, part: Part, commit: str, message: Message) -> Tag:
    """The tag that a commit would get now, as far as the clone knows; nothing is written."""
    return _next(versions_of(repository, artifact), artifact, part, commit, message)


def mark(
    repository: Path, tag: Tag, stage: str, remote: str, by: str = TAGGER, *, off: bool = False
) -> str:
    """
    Write the stage of a version as a tag of GTO, `NAME#STAGE#N`, for people who read git.

    The topic `lifecycle` stays the truth. The newest N counts; with `off` the stage ends.

    Raises
    ------
    GitError
        The remote is away, or refuses the tag.
    StateError
        Others took every number that was tried.
    """
    if not STAGE.fullmatch(stage):
        raise InputError(f"stage {stage!r}: expected letters and digits")
    with alone(repository, "clone", common=True):
        known = git.remote_of(repository, remote)
        for _ in range(RACES_MAX):
            there = _refs(repository, known, f"refs/tags/{tag.artifact}#*")
            last = max((int(n) for n in map(_counter, there) if n), default=0)
            name = f"{tag.artifact}#{stage}{'!' if off else ''}#{last + 1}"
            message = Message(subject=f"{tag.name}: {'no longer ' if off else ''}{stage}")
            made = signing.made(repository, name, tag.revision, message, by)
            if _put(repository, known, name, made):
                return name
    raise StateError(f"{RACES_MAX} others took each number first; try again")


def mark_champion(repository: Path, artifact: str, version: str, remote: str) -> None:
    """
    Write `NAME#prod#N` for a version, unless the newest one is of it already.

    Raises
    ------
    GitError
        The remote is away, or refuses the tag.
    """
    refresh(repository, artifact, remote)
    tag = next((t for t in versions_of(repository, artifact) if t.version == version), None)
    if tag is not None and marked(repository, artifact, "prod") != tag.revision:
        mark(repository, tag, "prod", remote)


def marked(repository: Path, artifact: str, stage: str) -> str | None:
    """The commit that has a stage by the newest tag of GTO in the clone; None: there is none."""
    form = "--format=%(refname)%09%(*objectname)%09%(objectname)"
    pattern = f"refs/tags/{tags.artifact_of(artifact)}#{stage}*"
    newest: tuple[int, str | None] = (0, None)
    for line in git.run(repository, "for-each-ref", form, pattern).splitlines():
        ref, target, own = line.split("\t")
        number, is_off = int(_counter(ref) or 0), ref.rpartition("#")[0].endswith("!")
        newest = max(newest, (number, None if is_off else target or own), key=lambda n: n[0])
    return newest[1]


def subject_of(name: str, metrics: dict[str, float]) -> str:
    """
    The first line of a message: a name and the metric that matters most.

    >>> subject_of("churn v1.2.0", {"loss": 0.3, "test.accuracy": 0.9123})
    'churn v1.2.0: test.accuracy 0.9123'
    """
    by_last = {m.rpartition(".")[2]: m for m in reversed(metrics)}
    known = [by_last[m] for m in SHOWN_FIRST if m in by_last] or sorted(metrics)
    return f"{name}: {known[0]} {tags.shown(metrics[known[0]])}" if known else name


def _next(tagged: Sequence[Tag], artifact: str, part: Part, commit: str, message: Message) -> Tag:
    version = tags.following([tag.version for tag in tagged], part)
    subject = subject_of(f"{artifact} {version}", message.metrics)
    return Tag(
        artifact=artifact,
        version=version,
        revision=commit,
        message=msgspec.structs.replace(message, subject=subject),
    )


def _counter(ref: str) -> str:
    number = ref.rpartition("#")[2]
    return number if number.isdecimal() and len(number) < 10 else ""


def _put(repository: Path, remote: str | None, name: str, tag: str) -> bool:
    """
    Create a tag of an object, on the remote if there is one; False: somebody took the name.

    What counts is what the remote has afterwards, not what git said: an answer can get lost.
    """
    ref = f"refs/tags/{name}"
    for left in reversed(range(TRIES_MAX)):
        try:
            if remote is None:
                git.run(repository, "update-ref", "--stdin", stdin=f"create {ref} {tag}\n")
            else:
                git.run(
                    repository,
                    "push",
                    "--quiet",
                    "--atomic",
                    "--no-verify",
                    "--no-follow-tags",
                    "--recurse-submodules=no",
                    remote,
                    f"{tag}:{ref}",
                    timeout_s=git.REMOTE_S,
                )
                _keep(repository, ref, tag)
        except GitError as e:
            there = _refs(repository, remote, ref).get(ref)
            if there is not None:
                return there == tag
            if not left or not _is_race(e.said):
                raise
            time.sleep(random.uniform(0.02, 0.2))  # noqa: S311
        else:
            return True
    return False


def _is_race(said: str) -> bool:
    """Whether another push or a lock was in the way, and the next try may pass."""
    lowered = said.lower()
    return any(
        words in lowered
        for words in ("cannot lock ref", "failed to update ref", "already exists", ".lock'")
    )


def _keep(repository: Path, ref: str, tag: str) -> None:
    """The tag in the clone too; if it cannot be, the next fetch brings it."""
    git.run(repository, "update-ref", ref, tag, check=False)


def _refs(repository: Path, remote: str | None, pattern: str) -> dict[str, str]:
    """Refs of a remote, or of the clone, by name."""
    if remote is None:
        form = "--format=%(objectname)%09%(refname)"
        listed = git.run(repository, "for-each-ref", form, pattern)
    else:
        listed = git.run(repository, "ls-remote", "--tags", "--refs", remote, pattern, timeout_s=60)
    return {ref: tag for tag, _, ref in (line.partition("\t") for line in listed.splitlines())}


def _fetch_tags(repository: Path, artifact: str, remote: str | None) -> dict[str, str]:
    """Version tags where they count; the clone has them then too."""
    pattern = f"refs/tags/{artifact}@v*"
    found = _refs(repository, remote, pattern)
    if remote is not None and not found.items() <= _refs(repository, None, pattern).items():
        _fetch(repository, remote, pattern)
    return found


def _fetch(repository: Path, remote: str, pattern: str) -> None:
    git.run(
        repository,
        "fetch",
        "--quiet",
        "--no-tags",
        "--no-recurse-submodules",
        remote,
        f"+{pattern}:{pattern}",
        timeout_s=git.REMOTE_S,
    )


def _mine(
    all_tags: Sequence[Tag], on_remote: dict[str, str], run: str | None, commit: str | None
) -> Tag | None:
    for tag in all_tags:
        same = tag.message.run == run if run is not None else tag.revision == commit
        if same and f"refs/tags/{tag.name}" in on_remote:
            return tag
    return None


def _tag(entry: str) -> Tag | None:
    """A tag, as `for-each-ref` tells it; None if it is not of a commit."""
    name, kind, own, target, target_kind, who, at, text = entry.lstrip("\n").split("\0", 7)
    named = tags.split(name)
    if named is None or "commit" not in (kind, target_kind):
        return None
    return Tag(
        artifact=named[0],
        version=named[1],
        revision=target if kind == "tag" else own,
        message=tags.read(text) if kind == "tag" else Message(subject=""),
        by=who,
        at=rfc3339(int(at) * 1_000) if at else "",
    )


@contextmanager
def alone(directory: Path, what: str, *, common: bool = False) -> Iterator[None]:
    """
    One registration at a time in a clone, or in a work tree. The lock ends with the process.

    Git's own locks would make all but one fail, and DVC's too.
    """
    place = git.line(directory, "rev-parse", "--git-common-dir" if common else "--git-dir")
    name = "stream-monitor.lock" if common else "stream-monitor-tree.lock"
    end_s = time.monotonic() + LOCK_S
    with (directory / place / name).open("ab") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if is_ended():
                    raise StateError(f"nobody waits for {what} {directory} any more") from None
                if time.monotonic() > end_s:
                    raise StateError(
                        f"another registration holds the {what} {directory} for {LOCK_S} s; "
                        "look for a `dvc push` or `git push` that hangs"
                    ) from None
                time.sleep(0.05)
        yield
