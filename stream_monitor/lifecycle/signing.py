"""
The object of a tag; signed tags are made by git with the key of its configuration, and checked by
git.

Rule of the file: no ref is written here. Git decides what a good signature is (`gpg.format`,
`gpg.ssh.allowedSignersFile`, the keyring). A signature is of one name: a signed tag that lies under
another name is refused, and so is one of another commit than the version says.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from stream_monitor.lifecycle import git, tags
from stream_monitor.lifecycle.git import GitError
from stream_monitor.lifecycle.tags import Message

TAGGER, ADDRESS = "stream-monitor", "stream-monitor@localhost"
WAY_OUT = "set user.signingkey (and gpg.format: ssh, for a key of SSH) in the clone"


def made(
    repository: Path, name: str, commit: str, message: Message, by: str, *, signed: bool = False
) -> str:
    """
    The object of a tag.

    Parameters
    ----------
    repository : Path
    name, commit : str
        Of the tag.
    message : Message
    by : str
        Who tags.
    signed : bool

    Raises
    ------
    GitError
        There is no key, or it cannot be used.

    Notes
    -----
    `git tag` writes a ref at once, and a version comes to be only with its push. So it runs in an
    empty repository that shares the objects and the configuration of the clone.
    """
    who = "".join(c for c in tags.one_line(by) if c not in "<>\\") or TAGGER
    text = tags.written(message)
    if not signed:
        now_s = time.time_ns() // 1_000_000_000
        head = f"object {commit}\ntype commit\ntag {name}\ntagger {who} <{ADDRESS}> {now_s} +0000"
        return git.run(repository, "mktag", stdin=f"{head}\n\n{text}").strip()
    common = (repository / git.line(repository, "rev-parse", "--git-common-dir")).absolute()
    tagger = {"GIT_COMMITTER_NAME": who, "GIT_COMMITTER_EMAIL": ADDRESS}
    with tempfile.TemporaryDirectory(prefix="stream-monitor-") as folder:
        git.run(repository, "init", "--quiet", "--bare", "--", folder)
        git.run(Path(folder), "config", "include.path", str(common / "config"))
        place = {"GIT_DIR": folder, "GIT_OBJECT_DIRECTORY": str(common / "objects"), **tagger}
        words = ("tag", "--sign", "--cleanup=verbatim", "--file=-", "--", name, commit)
        try:
            git.run(repository, *words, stdin=text, environment=place)
        except GitError as e:
            raise GitError(f"{name} cannot be signed: {e}; {WAY_OUT}", e.said) from None
        return git.run(
            repository, "rev-parse", "--verify", f"refs/tags/{name}", environment=place
        ).strip()


def why_not(repository: Path, name: str, revision: str | None = None) -> str | None:
    """
    Why a tag of the clone is not to be trusted; None: git accepts its signature.

    Parameters
    ----------
    repository : Path
    name : str
        Of the tag.
    revision : str or None
        The commit that it must be of.

    Raises
    ------
    InputError
        There is no clone.
    """
    ref = f"refs/tags/{git.checked(name)}"
    try:
        tag = git.line(repository, "rev-parse", "--verify", "--quiet", ref)
    except GitError:
        return f"the clone has no tag {name}"
    try:
        git.run(repository, "verify-tag", tag)
        text = git.run(repository, "cat-file", "tag", tag)
    except GitError as e:
        said = (e.said.splitlines() or ["no signature"])[-1]
        return f"git does not accept the signature of {name}: {said.removeprefix('error: ')}"
    head = dict(line.partition(" ")[::2] for line in text.partition("\n\n")[0].splitlines())
    if head.get("tag") != name:
        return f"the tag {name} is signed as {head.get('tag')}"
    if revision is not None and head.get("object") != revision:
        return f"the tag {name} is of another commit than {revision[:12]}"
    return None
