"""
How large the files of two models are: those of a version, and those in the work tree of a run.

Rule of the file: sizes only. Those of the version stand in its `dvc.lock`, or git has them; nothing
is fetched. What is not known is None, and then nothing is compared.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import msgspec

from stream_monitor.errors import StreamMonitorError
from stream_monitor.lifecycle import git


class _Out(msgspec.Struct):
    path: str
    size: int | None = None


class _Stage(msgspec.Struct):
    outs: list[_Out] = []


class _Lock(msgspec.Struct):
    stages: dict[str, _Stage] = {}


def model_bytes(tree: Path, tag: str, paths: Iterable[str]) -> tuple[int, int] | None:
    """
    Bytes of the model's files: of a version, and of the work tree.

    Parameters
    ----------
    tree : Path
        Work tree of the run, a clone that has the tag.
    tag : str
        Of the version.
    paths : iterable of str
        The model's files, below the tree.

    Returns
    -------
    (version, work tree) or None
        None if a size is not known, or there are no files.
    """
    wanted = list(paths)
    if not wanted or not all(map(_is_below, wanted)):
        return None
    try:
        lock = _sizes_of_lock(git.text_of(tree, tag, "dvc.lock"))
        before = [lock[p] if p in lock else _size_in_git(tree, tag, p) for p in wanted]
        after = [_size(tree / path) for path in wanted]
    except (OSError, StreamMonitorError, ValueError):
        return None
    return sum(before), sum(after)


def _is_below(path: str) -> bool:
    """Whether a path stays in the work tree: it comes from an event."""
    parts = PurePosixPath(path)
    return bool(path) and not parts.is_absolute() and ".." not in parts.parts


def _sizes_of_lock(text: str | None) -> dict[str, int]:
    if text is None:
        return {}
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        lock = msgspec.convert(YAML(typ="safe", pure=True).load(text), _Lock)
    except (YAMLError, msgspec.ValidationError):
        return {}
    outs = (out for stage in lock.stages.values() for out in stage.outs)
    return {out.path: out.size for out in outs if out.size is not None}


def _size_in_git(tree: Path, tag: str, path: str) -> int:
    return int(git.line(tree, "cat-file", "-s", f"{git.checked(tag)}:./{path}"))


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    return path.stat().st_size
