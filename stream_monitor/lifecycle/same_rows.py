"""
Two versions on the same rows: their answers on held-out rows, as their commits have them.

Rule of the file: two files are of the same rows only if their ids and labels say so. What cannot be
shown is not compared, with the reason: rows that differ make a difference of their own.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from stream_monitor.errors import InputError, StreamMonitorError
from stream_monitor.lifecycle import dvc, git
from stream_monitor.lifecycle.champion import decide
from stream_monitor.lifecycle.matched_metrics import ALIASES, METRICS
from stream_monitor.lifecycle.prediction_files import class_of, matched
from stream_monitor.lifecycle_settings import Decide

BRING_S = 120.0
RARER_MIN = 3
"""
Labels beside those of the most frequent class. Rows that are numbered alike and have one label each
could be any rows.
"""


class NotTheSameError(StreamMonitorError):
    """There is no pair of files of the same rows; the message says why."""


class Of(NamedTuple):
    """Whose answers they are."""

    name: str
    revision: str | None
    """None: the work tree."""


def compared(
    repository: Path, champion: Of, challenger: Of, settings: Decide, challengers: int = 1
) -> dict[str, Any]:
    """
    The paired difference of two versions, of the file `decide.challenger` of each.

    Parameters
    ----------
    repository : Path
    champion, challenger : Of
    settings : Decide
    challengers : int
        How many models are compared with this champion.

    Returns
    -------
    dict
        As `champion.decide` says it.

    Raises
    ------
    NotTheSameError
        One of them has no such file, or they are not of the same rows, or lack what the metric
        needs.

    Notes
    -----
    A file that DVC keeps is copied from the cache or brought from its remote, for at most
    `BRING_S` s.
    """
    metric = settings.metric.rpartition(".")[2]
    if ALIASES.get(metric, metric) not in METRICS:
        raise NotTheSameError(f"{settings.metric} is no metric that can be paired")
    settings = _with_metric(settings, metric)
    with tempfile.TemporaryDirectory(prefix="stream-monitor-") as folder:
        a, b = (
            _file(repository, of, settings.challenger, Path(folder) / side)
            for of, side in ((champion, "champion"), (challenger, "challenger"))
        )
        try:
            _demand_same(a, b)
            return decide(str(a), str(b), settings, "0", challengers=challengers)
        except InputError as e:
            raise NotTheSameError(str(e).replace(f"{folder}/", "")) from None


def _with_metric(settings: Decide, metric: str) -> Decide:
    import msgspec

    return msgspec.structs.replace(settings, metric=metric)


def _file(repository: Path, of: Of, path: str, folder: Path) -> Path:
    """The answers of one of them, in a file of its own."""
    lacks = NotTheSameError(f"{of.name} has no {path}")
    folder.mkdir()
    found = folder / Path(path).name
    if of.revision is None:
        if not (repository / path).is_file():
            raise lacks
        return repository / path
    try:
        if git.bring(repository, of.revision, path, found):
            return found
        lock = git.text_of(repository, of.revision, "dvc.lock") or ""
        if f"path: {path}\n" not in lock:
            raise lacks
        found.unlink()
        dvc.get(repository, path, of.revision, found, timeout_s=BRING_S)
    except (OSError, subprocess.TimeoutExpired, git.GitError, dvc.DvcError, InputError) as e:
        raise NotTheSameError(f"{path} of {of.name} cannot be brought back: {e}") from None
    return found


def _demand_same(a: Path, b: Path) -> None:
    """
    Refuse files that may be of different rows.

    Raises
    ------
    InputError
        They have no ids, other rows or other labels, or hardly any labels that differ.
    """
    rows = matched([str(a), str(b)], strict=True)
    counts = Counter(class_of(label) for label in rows.label).most_common()
    if len(rows.label) - (counts[0][1] if counts else 0) < RARER_MIN:
        raise InputError("nearly all labels are alike, so they do not show that rows are the same")
