"""
What a commit holds: data, model and metrics, by hash.

Rule of the file: the answer is a function of the commit. With DVC the hashes are those of
`dvc.lock` and `.dvc` files; without it, those of git. A model is what `artifacts:` of `dvc.yaml`
names, or a file whose name says so; what else DVC keeps, and tables, are data.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from stream_monitor.errors import UNREADABLE, StateError
from stream_monitor.lifecycle import git
from stream_monitor.lifecycle.model import ms_of
from stream_monitor.lifecycle.tags import HASH, Content, finite

FILES_MAX = 30
"""More files of one kind are told by their directories."""
METRICS, REFERENCE = "metrics.json", "reference.json"
MANIFESTS = ("{stem}.manifest.json", "{path}.manifest.json")
"""What `collect` writes beside its rows: how many, and from when until when."""
CODE = re.compile(
    r"\.(py|ipynb|r|sh|md|txt|ya?ml|toml|cfg|ini|lock|dvc|html|css|js|sql|c|h|cpp|rs|go|java)$|"
    r"(^|/)\.[^/]*$|(^|/)(dockerfile|makefile|license)$",
    re.IGNORECASE,
)
MODEL_FORM = re.compile(
    r"\.(pkl|pickle|joblib|onnx|pt|pth|safetensors|h5|keras|pb|cbm|ubj|tflite|pmml|bst|skops)$",
    re.IGNORECASE,
)
MODEL_WORD = re.compile(r"model|weights|checkpoint", re.IGNORECASE)
TABLE = re.compile(
    r"\.(csv|tsv|parquet|jsonl|ndjson|arrow|feather|orc|avro|npy|npz|db|sqlite)(\.gz|\.zst|\.xz)?$",
    re.IGNORECASE,
)
DATA_WORD = re.compile(r"(^|/)(data|dataset)s?(/|$)", re.IGNORECASE)
MADE = re.compile(
    r"(^|/)(predictions?|metrics?|plots?|reports?)(/|$|[._-][^/]*$)|(^|/)tests?/|manifest[^/]*$",
    re.IGNORECASE,
)
"""What is made from a model and data, and is neither."""


class Contents(NamedTuple):
    """What a commit holds."""

    data: tuple[Content, ...]
    model: tuple[Content, ...]
    reference: bytes | None
    """The baseline profile of the project."""
    notes: tuple[str, ...]


def contents_of(
    tree: Path, revision: str, artifact: str, metric_files: Iterable[str] = ()
) -> Contents:
    """
    Data and model of a commit, or of a tree object.

    Parameters
    ----------
    tree : Path
        A clone, or the project inside of one.
    revision : str
    artifact : str
        Its entry in `artifacts:` of `dvc.yaml` names the model.
    metric_files : iterable of str
        Files that are neither.

    Raises
    ------
    GitError
        There is no such commit.
    """
    files = _files(tree, revision)
    lies = {p: _yaml(git.text_of(tree, revision, p) or "") for p in files if _is_dvc(p)}
    kept, named = _tracked(lies), _named(lies, artifact)
    kept |= _inputs(lies, kept, files)
    other = {METRICS, REFERENCE, *metric_files}
    if not kept:
        kept = {p: f"git:{h}" for p, h in files.items() if not CODE.search(p)}
        data = [p for p in kept if _is_data(p) and p not in other]
    else:
        data = [p for p in kept if not MADE.search(p) and p not in other]
    if named is not None:
        known = kept.get(named) or f"git:{files.get(named, '')}"
        models = {named: known} if HASH.fullmatch(known) else {}
    else:
        models = {p: h for p, h in kept.items() if _is_model(p) and p not in other}
    notes = []
    if not models:
        notes.append(
            "no model file was recognised; name it in dvc.yaml: "
            f"artifacts: {{{artifact}: {{path: …, type: model}}}}"
        )
    found = _few({p: kept[p] for p in data if p not in models})
    text = git.text_of(tree, revision, REFERENCE) if REFERENCE in files else None
    return Contents(
        tuple(_described(tree, revision, files, p, h) for p, h in found.items()),
        tuple(Content(p, h) for p, h in _few(models).items()),
        text.encode() if text is not None else None,
        tuple(notes),
    )


def metrics_of(tree: Path, revision: str) -> dict[str, float]:
    """Metrics of a commit, from the files that `dvc.yaml` names, or `metrics.json`."""
    files = _files(tree, revision)
    lies = {p: _yaml(git.text_of(tree, revision, p) or "") for p in files if _is_dvc(p)}
    texts = {p: git.text_of(tree, revision, p) for p in metric_files(lies) if p in files}
    return merged({path: _yaml(text or "") for path, text in texts.items()})


def metrics_of_work_tree(tree: Path) -> dict[str, float]:
    """Metrics of a work tree without DVC, from `metrics.json`."""
    path = tree / METRICS
    return finite(_yaml(path.read_text(errors="replace"))) if path.is_file() else {}


def merged(by_file: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """
    Metrics of some files; a name that two of them have is preceded by the file's.

    >>> merged({"a.json": {"accuracy": 0.9, "f1": 1}, "b.json": {"accuracy": 0.8}})
    {'a.accuracy': 0.9, 'f1': 1.0, 'b.accuracy': 0.8}
    """
    flat = {path: finite(found) for path, found in by_file.items()}
    names = [name for found in flat.values() for name in found]
    return {
        name if names.count(name) == 1 else f"{posixpath.splitext(path)[0]}.{name}": value
        for path, found in flat.items()
        for name, value in found.items()
    }


def metric_files(lies: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Metric files that some `dvc.yaml` name; `metrics.json` if none does."""
    found = []
    for place, lie in lies.items():
        if posixpath.basename(place) != "dvc.yaml":
            continue
        stages = [s for s in _dict(lie.get("stages")).values() if isinstance(s, dict)]
        for owner in (lie, *stages):
            for entry in owner.get("metrics") or ():
                path = next(iter(entry), None) if isinstance(entry, dict) else entry
                if isinstance(path, str):
                    found.append(_at(place, owner.get("wdir"), path))
    return found or [METRICS]


def profile_of(reference: bytes | None) -> tuple[str, str | None]:
    """Id of a baseline profile, and what is wrong with it."""
    from stream_monitor.monitors.baseline import decode_profile, profile_id

    if reference is None:
        return "", None
    try:
        return profile_id(decode_profile(reference)), None
    except StateError as e:
        return "", f"{REFERENCE} is not a baseline profile and is left out: {e}"


# ---- what a name says


def _is_model(path: str) -> bool:
    form = MODEL_FORM.search(path) or (MODEL_WORD.search(path) and not TABLE.search(path))
    return bool(form) and not MADE.search(path)


def _is_data(path: str) -> bool:
    form = TABLE.search(path) or (DATA_WORD.search(path) and not _is_model(path))
    return bool(form) and not MADE.search(path)


# ---- what DVC wrote


def _is_dvc(path: str) -> bool:
    return path.endswith(".dvc") or posixpath.basename(path) in ("dvc.lock", "dvc.yaml")


def _tracked(lies: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Outputs of stages and `.dvc` files, by path."""
    found: dict[str, str] = {}
    for place, lie in lies.items():
        if place.endswith(".dvc"):
            found |= _hashes(place, lie.get("wdir"), lie.get("outs"))
        elif posixpath.basename(place) == "dvc.lock":
            for wdir, stage in _stages(lies, place, lie):
                found |= _hashes(place, wdir, stage.get("outs"))
    return found


def _inputs(
    lies: Mapping[str, Mapping[str, Any]], kept: Mapping[str, str], files: Mapping[str, str]
) -> dict[str, str]:
    """Tables that stages read and that no stage made: those of git, and those of nobody."""
    found: dict[str, str] = {}
    for place, lie in lies.items():
        if posixpath.basename(place) == "dvc.lock":
            for wdir, stage in _stages(lies, place, lie):
                found |= _hashes(place, wdir, stage.get("deps"))
    return {
        path: f"git:{files[path]}" if path in files else known
        for path, known in found.items()
        if path not in kept and _is_data(path) and not CODE.search(path)
    }


def _stages(
    lies: Mapping[str, Mapping[str, Any]], place: str, lock: Mapping[str, Any]
) -> Iterable[tuple[Any, dict[str, Any]]]:
    """Stages of a `dvc.lock`, with the directories that `dvc.yaml` has of them."""
    yaml = lies.get(posixpath.join(posixpath.dirname(place), "dvc.yaml"), {})
    written = _dict(yaml.get("stages"))
    for name, stage in _dict(lock.get("stages")).items():
        if isinstance(stage, dict):
            yield _dict(written.get(name.partition("@")[0])).get("wdir"), stage


def _hashes(place: str, wdir: object, entries: object) -> dict[str, str]:
    found = {}
    for entry in entries if isinstance(entries, list) else ():
        path, kind = entry.get("path"), entry.get("hash", "md5")
        known = f"{kind}:{entry.get(kind)}"
        if isinstance(path, str) and "://" not in path and HASH.fullmatch(known):
            found[_at(place, wdir, path)] = known
    return found


def _named(lies: Mapping[str, Mapping[str, Any]], artifact: str) -> str | None:
    """The path that `artifacts:` of a `dvc.yaml` has for an artifact."""
    for place, lie in lies.items():
        entry = _dict(_dict(lie.get("artifacts")).get(artifact))
        if posixpath.basename(place) == "dvc.yaml" and isinstance(entry.get("path"), str):
            return _at(place, None, entry["path"])
    return None


def _at(place: str, wdir: object, path: str) -> str:
    base = posixpath.join(posixpath.dirname(place), wdir if isinstance(wdir, str) else "")
    return posixpath.normpath(posixpath.join(base, path))


# ---- what git has


def _files(tree: Path, revision: str) -> dict[str, str]:
    """Blobs below the project, by path."""
    listed = git.run(tree, "ls-tree", "-r", "-z", git.checked(revision))
    found = {}
    for entry in filter(None, listed.split("\0")):
        about, _, path = entry.partition("\t")
        mode, kind, name = about.split()
        if kind == "blob" and mode != "120000":
            found[path] = name
    return found


def _few(found: Mapping[str, str]) -> dict[str, str]:
    """At most so many entries: the rest goes by the hash of all."""
    if len(found) <= FILES_MAX:
        return dict(sorted(found.items()))
    from hashlib import md5

    told = msgspec.json.encode(sorted(found.items()))
    return {f"({len(found)} files)": f"md5:{md5(told, usedforsecurity=False).hexdigest()}"}


def _described(
    tree: Path, revision: str, files: Mapping[str, str], path: str, known: str
) -> Content:
    """Rows and times of data, from the manifest beside it."""
    stem = posixpath.splitext(path)[0]
    for form in MANIFESTS:
        place = form.format(path=path, stem=stem)
        if place in files and place != path:
            told = _yaml(git.text_of(tree, revision, place) or "")
            if isinstance(told.get("rows"), int):
                return Content(path, known, told["rows"], _range(told))
    return Content(path, known)


def _range(told: Mapping[str, Any]) -> tuple[str, str] | None:
    first, last = (told.get(end) for end in ("since", "until"))
    if not isinstance(first, str) or not isinstance(last, str):
        return None
    return (first, last) if ms_of(first) and ms_of(last) else None


def _yaml(text: str) -> dict[str, Any]:
    """A YAML or JSON object; empty if it is none."""
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except UNREADABLE:
        pass
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return _dict(YAML(typ="safe", pure=True).load(text))
    except (YAMLError, *UNREADABLE):
        return {}


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
