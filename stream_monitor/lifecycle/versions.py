"""
Versions of a model: made, found again, listed.

Rule of the file: a version comes to be at one moment, when its tag is on the remote (without a
remote: in the clone). What happens before leaves nothing that anybody sees, and can be done again:
the same content gives the same commit and the same hashes. After it the version is found by its
run, so a registration that was killed anywhere and is done again gives one tag.

`tagging` gives the number, `contents` says what the commit holds.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from stream_monitor.errors import InputError
from stream_monitor.lifecycle import branches, dvc, git, tagging, tags
from stream_monitor.lifecycle.contents import contents_of, merged, metrics_of, profile_of
from stream_monitor.lifecycle.dvc import DvcError
from stream_monitor.lifecycle.events import Version
from stream_monitor.lifecycle.tagging import ADDRESS, TAGGER
from stream_monitor.lifecycle.tags import Content, Message, Part, Tag

METRICS_MAX = 100
PLAIN_BYTES_MAX = 50 << 20
"""Larger files do not go into git by themselves."""


class Registered(msgspec.Struct, frozen=True, kw_only=True):
    """A version that is there."""

    artifact_name: str
    version: str
    tag: str
    revision: str
    run: str | None
    data: dict[str, str]
    """Hashes by path."""
    artifact: dict[str, str]
    """Hashes of the model's files by path."""
    metrics: dict[str, float]
    reference: str
    """Id of the baseline profile; empty: there is none."""
    reason: str
    found: bool = False
    """It was there before."""
    notes: tuple[str, ...] = ()

    def event(self, model: str, at: str, by: str) -> Version:
        """The event that says so; the same version has the same id."""
        return Version(
            model=model,
            at=at,
            by=by,
            version=self.version,
            tag=self.tag,
            revision=self.revision,
            data=self.data,
            artifact=self.artifact,
            metrics=self.metrics,
            reference=self.reference,
            run=self.run,
            reason=self.reason,
        ).named()


def register(
    repository: Path,
    artifact: str,
    tree: Path,
    run: str,
    *,
    remote: str = "origin",
    part: Part = "minor",
    data: Sequence[str] = (),
    reason: str = "",
    by: str = TAGGER,
    sign: bool = False,
    branch: str | None = None,
) -> Registered:
    """
    Make a version of what lies in the work tree of a run.

    The commit has the tree's base as parent and is on no branch; a person may merge it.

    Parameters
    ----------
    repository : Path
        The clone, or the directory of the project in it.
    artifact : str
        Name before the @ of the tag.
    tree : Path
        The top of a work tree of the clone, changed by the steps of the run. Nobody else uses it.
    run : str
        By it the version is found again.
    remote : str
        Name of the remote; without any remote the tag stays in the clone.
    part : {"major", "minor", "patch"}
        Which number is raised.
    data : sequence of str
        Files that DVC shall keep if nobody does yet, such as the output of `collect`.
    reason : str
    by : str
        Who tags.
    sign : bool
        Whether git signs the tag.
    branch : str or None
        A branch that gets the commit as well.

    Returns
    -------
    Registered

    Raises
    ------
    GitError
        The remote is away, or refuses the tag; or it cannot be signed.
    DvcError
        Data or a model cannot be sent.
    InputError
        A name cannot be used, or a file is too large for git.
    StateError
        Another registration in this clone does not end.

    Notes
    -----
    Two to three commands on the remote of git, two on that of DVC.
    """
    _check(artifact, run)
    known = tagging.find(repository, artifact, remote, run)
    if known is not None:
        return registered(known, _branched(repository, remote, branch, known), found=True)
    tree = tree / git.place_of(repository)[1]
    with tagging.alone(tree, "work tree"):
        if dvc.is_project(tree):
            dvc.take_over_locks(tree)
            for path in data:
                in_git = git.run(tree, "ls-files", "--", f":(literal){path}")
                if (tree / path).exists() and not in_git:
                    dvc.add(tree, path)
        content = _tree_object(tree)
        base = git.commit_of(tree, "HEAD")
        message = _message(tree, content, artifact, run, reason, work_tree=tree)
        commit = _commit(tree, content, base, message.message)
        notes = [*message.notes, *_push_data(tree)]
    tag, found = tagging.give(
        repository, artifact, remote, part, commit, message.message, by, sign=sign
    )
    notes += _branched(repository, remote, branch, tag)
    return registered(tag, notes, found=found)


def register_commit(
    repository: Path,
    artifact: str,
    run: str | None = None,
    *,
    remote: str = "origin",
    part: Part = "minor",
    reason: str = "",
    by: str = TAGGER,
    sign: bool = False,
    branch: str | None = None,
    dry_run: bool = False,
) -> Registered:
    """
    Make a version of the commit that is checked out, for a person.

    A commit has one version of an artifact. With `run` the version gets a commit of its own, with
    the same content and the commit that is checked out as parent.

    Parameters and errors are those of `register`; `repository` is the work tree as well. `dry_run`
    sends nothing and writes no tag.

    Raises
    ------
    InputError
        The work tree differs from its commit; it names the files.
    """
    _check(artifact, run)
    commit = git.commit_of(repository, "HEAD")
    _check_clean(repository)
    known = tagging.find(repository, artifact, remote, run, commit)
    if known is not None:
        notes = [] if dry_run else _branched(repository, remote, branch, known)
        return registered(described(repository, known), notes, found=True)
    message = _message(repository, commit, artifact, run, reason, work_tree=repository)
    if run is not None:  # GTO reads nothing any more if a commit has two versions of an artifact
        commit = _commit(repository, f"{commit}^{{tree}}", commit, message.message)
    if dry_run:
        tag = tagging.next_tag(repository, artifact, part, commit, message.message)
        return registered(tag, message.notes, found=False)
    with tagging.alone(repository, "work tree"):
        notes = [*message.notes, *_push_data(repository)]
    tag, found = tagging.give(
        repository, artifact, remote, part, commit, message.message, by, sign=sign
    )
    notes += _branched(repository, remote, branch, tag)
    return registered(tag, notes, found=found)


def _branched(repository: Path, remote: str, branch: str | None, tag: Tag) -> list[str]:
    return [] if branch is None else branches.put(repository, remote, branch, tag)


def _check_clean(repository: Path) -> None:
    lacks = git.changed_files(repository)
    if not lacks and dvc.is_project(repository):
        with tagging.alone(repository, "work tree"):
            lacks = dvc.changed(repository)
    if lacks:
        more = f" and {len(lacks) - 10} more" if len(lacks) > 10 else ""
        raise InputError(
            f"{repository} differs from its last commit: {', '.join(lacks[:10])}{more}; commit or "
            "remove them (data and models: `dvc commit`, then git)"
        )


# ---- before the moment


class _Made(msgspec.Struct):
    message: Message
    notes: list[str]


def _check(artifact: str, run: str | None) -> None:
    tags.artifact_of(artifact)
    if run is not None and not tags.RUN.fullmatch(run):
        raise InputError(f"run {run!r}: expected letters, digits, `-`, `_`, `.` and `:`")


def _tree_object(tree: Path) -> str:
    """
    What lies in a work tree, as an object of git.

    The index is a new file: that of the work tree may be locked by a command that was killed.
    """
    new = git.run(tree, "ls-files", "--others", "--exclude-standard", "-z").split("\0")
    large = [p for p in new if p and (tree / p).is_file() and _bytes(tree / p) > PLAIN_BYTES_MAX]
    if large:
        raise InputError(
            f"{', '.join(large[:5])}: larger than {PLAIN_BYTES_MAX >> 20} MiB, which is not for "
            "git; let DVC keep it (`dvc add`, or `outs` in dvc.yaml), or name it in .gitignore"
        )
    with tempfile.TemporaryDirectory(prefix="stream-monitor-") as folder:
        index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        git.run(tree, "read-tree", "HEAD", environment=index)
        git.run(tree, "add", "--all", environment=index)
        return git.run(tree, "write-tree", environment=index).strip()


def _bytes(path: Path) -> int:
    return path.stat().st_size


def _message(
    tree: Path, revision: str, artifact: str, run: str | None, reason: str, work_tree: Path
) -> _Made:
    """What the tag will say, without the number."""
    if dvc.is_project(work_tree) and git.text_of(tree, revision, "dvc.yaml") is not None:
        by_file = dvc.metrics(work_tree)
        metrics, files = merged(by_file), list(by_file)
    else:
        metrics, files = metrics_of(tree, revision), []
    held = contents_of(tree, revision, artifact, files)
    reference, wrong = profile_of(held.reference)
    notes = [*held.notes, *([wrong] if wrong else [])]
    if len(metrics) > METRICS_MAX:
        notes.append(f"{len(metrics) - METRICS_MAX} metrics beyond {METRICS_MAX} are left out")
        metrics = dict(list(metrics.items())[:METRICS_MAX])
    message = Message(
        subject=artifact,
        run=run,
        data=held.data,
        model=held.model,
        metrics=metrics,
        reference=reference,
        reason=tags.one_line(reason),
    )
    return _Made(message, notes)


def _commit(tree: Path, content: str, base: str, message: Message) -> str:
    """The commit: of fixed author and time, so that its hash depends on the content alone."""
    at = git.line(tree, "show", "--no-patch", "--format=%ct", base)
    who = {
        f"GIT_{role}_{what}": value
        for role in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", TAGGER), ("EMAIL", ADDRESS), ("DATE", f"@{at} +0000"))
    }
    text = tags.written(
        msgspec.structs.replace(
            message, subject=tagging.subject_of(message.subject, message.metrics)
        )
    )
    return git.run(
        tree, "commit-tree", content, "-p", base, "-F", "-", stdin=text, environment=who
    ).strip()


def _push_data(tree: Path) -> list[str]:
    if not dvc.is_project(tree) or dvc.push(tree):
        return []
    return ["DVC has no remote: data and models are in the cache of this clone alone"]


def missing_models(repository: Path, tag: Tag) -> list[Content]:
    """
    Model files of a version that DVC cannot bring back.

    Raises
    ------
    InputError
        DVC is not installed.

    Notes
    -----
    Each file that is there is copied once, into a temporary folder.
    """
    lacks = []
    for each in tag.message.model:
        if not each.hash.startswith("md5:") or each.path.startswith("("):
            continue
        with tempfile.TemporaryDirectory(prefix="stream-monitor-") as folder:
            try:
                dvc.get(repository, each.path, tag.name, Path(folder) / "model")
            except DvcError:
                lacks.append(each)
    return lacks


def described(repository: Path, tag: Tag) -> Tag:
    """
    A tag with what its commit holds, if its message does not say so: `gto` or a person wrote it.

    Raises
    ------
    GitError
        The commit is not in the clone.
    """
    said = tag.message
    if said.data or said.model or said.metrics:
        return tag
    held = contents_of(repository, tag.revision, tag.artifact)
    message = msgspec.structs.replace(
        said,
        data=held.data,
        model=held.model,
        metrics=metrics_of(repository, tag.revision),
        reference=profile_of(held.reference)[0],
    )
    return msgspec.structs.replace(tag, message=message)


def registered(tag: Tag, notes: Sequence[str], *, found: bool) -> Registered:
    """A tag as a registration; `found`: it was there before."""
    said = tag.message
    return Registered(
        artifact_name=tag.artifact,
        version=tag.version,
        tag=tag.name,
        revision=tag.revision,
        run=said.run,
        data={c.path: c.hash for c in said.data},
        artifact={c.path: c.hash for c in said.model},
        metrics=said.metrics,
        reference=said.reference,
        reason=said.reason,
        found=found,
        notes=tuple(notes),
    )
