"""
Two versions side by side: by their answers on the same rows if both have such a file, and by the
metrics that stand in their tags.

Rule of the file: metrics were measured elsewhere, perhaps on other rows. So the paired difference
decides where there is one (`lifecycle/same_rows.py`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from stream_monitor.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_monitor.cli.models_project import Chosen

LOWER_IS_BETTER = re.compile(
    r"(^|[^a-z])(error|loss|brier|rmse|mse|mae|mape|latency|ece|bias)", re.IGNORECASE
)
WORKSPACE = "workspace"
OWN_ROWS = (
    "each number was measured on rows of its own, so a difference may be that of the rows; "
    "`stream-monitor models compare --predictions A B` judges both on the same rows"
)
SAME_ROWS = (
    "the difference on the same rows decides; each number above was measured on its own rows"
)


class Side(NamedTuple):
    """A version, a commit, or the work tree."""

    name: str
    metrics: dict[str, float]
    revision: str | None = None
    """Its commit; None: the work tree."""


def side_of(text: str, of: Chosen, *, offline: bool) -> Side:
    """
    What a word means: a version, `workspace`, or a commit such as HEAD.

    Raises
    ------
    InputError
        There is no such version.
    GitError
        There is no such commit.
    """
    from stream_monitor.cli.models_project import version_of
    from stream_monitor.cli.models_versions import known
    from stream_monitor.lifecycle import dvc, git
    from stream_monitor.lifecycle.contents import merged, metrics_of, metrics_of_work_tree

    if text == WORKSPACE:
        if dvc.is_project(of.repository):
            return Side(text, merged(dvc.metrics(of.repository)))
        return Side(text, metrics_of_work_tree(of.repository))
    tagged, board, _ = known(of, offline=offline)
    tag = version_of(text, of, tagged, board)
    if tag is not None:
        metrics = tag.message.metrics or metrics_of(of.repository, tag.revision)
        return Side(tag.name, metrics, tag.revision)
    commit = git.commit_of(of.repository, text)
    return Side(f"{text} ({commit[:12]})", metrics_of(of.repository, commit), commit)


def gain(name: str, a: float, b: float) -> float:
    """
    How much better the second value is, whatever the metric.

    >>> gain("accuracy", 0.5, 0.75), gain("test.log_loss", 0.5, 0.75)
    (0.25, -0.25)
    """
    return a - b if LOWER_IS_BETTER.search(name) else b - a


def compared(
    a: Side,
    b: Side,
    metric: str,
    fail_on: str | None,
    paired: dict[str, Any] | None = None,
    why_not: str = "",
) -> dict[str, Any]:
    """
    Two sides as an object.

    Parameters
    ----------
    a, b : Side
        Champion and challenger.
    metric : str
        The one that decides; `test.accuracy` is found by `accuracy` too.
    fail_on : {"worse", "not-better"} or None
    paired : dict or None
        Their difference on the same rows, as `champion.decide` says it, with `failed`; None: it is
        not known.
    why_not : str
        Why it is not.

    Raises
    ------
    InputError
        One of them lacks the metric, and `fail_on` needs it.

    Examples
    --------
    >>> found = compared(
    ...     Side("v1", {"accuracy": 0.9}), Side("v2", {"accuracy": 0.8}), "accuracy", "worse"
    ... )
    >>> found["failed"], round(found["metrics"]["accuracy"]["gain"], 3)
    (True, -0.1)
    """
    both = {
        name: [side.metrics.get(name) for side in (a, b)] for name in {**a.metrics, **b.metrics}
    }
    rows = {
        name: {
            "a": first,
            "b": second,
            "gain": None if first is None or second is None else gain(name, first, second),
        }
        for name, (first, second) in both.items()
    }
    decides = _named(metric, rows)
    change = rows[decides]["gain"] if decides is not None else None
    if change is None and fail_on is not None and paired is None:
        lacks = ", ".join(side.name for side in (a, b) if _named(metric, side.metrics) is None)
        raise InputError(
            f"--fail-on {fail_on}: {lacks or a.name} has no metric {metric!r}; known are "
            f"{', '.join(rows) or 'none'} (--metric)"
        )
    failed = change is not None and (change < 0 if fail_on == "worse" else change <= 0)
    if paired is not None:
        failed = paired["failed"]
    because = f" ({why_not})" if why_not else ""
    return {
        "a": a.name,
        "b": b.name,
        "metric": decides if paired is None else paired["metric"],
        "metrics": rows,
        "failed": fail_on is not None and failed,
        "same_rows": paired is not None,
        "paired": paired,
        "note": SAME_ROWS if paired is not None else f"{OWN_ROWS}{because}",
    }


def lines(found: Mapping[str, Any]) -> list[str]:
    """The comparison for a terminal."""
    width = max([len(name) for name in found["metrics"]] + [6])
    names = [found["a"], found["b"]]
    columns = [max(len(name), 10) for name in names]
    head = "  ".join(f"{name:>{w}}" for name, w in zip(names, columns, strict=True))
    out = [f"{'':{width}}  {head}"]
    for name, row in found["metrics"].items():
        values = "  ".join(
            f"{'-' if row[side] is None else f'{row[side]:.6g}':>{w}}"
            for side, w in zip("ab", columns, strict=True)
        )
        out.append(f"{name:{width}}  {values}  {_word(row['gain'])}".rstrip())
    if not found["metrics"]:
        out = [] if found["paired"] else [*out, "neither has metrics"]
    return [*out, found["note"]] if found["metrics"] or found["paired"] else out


def _word(change: float | None) -> str:
    if change is None:
        return ""
    word = "better" if change > 0 else "worse" if change < 0 else "equal"
    return f"{word} by {abs(change):.4g}" if change else word


def _named(metric: str, names: Mapping[str, Any]) -> str | None:
    if metric in names:
        return metric
    fitting = [name for name in names if name.rpartition(".")[2] == metric]
    return fitting[0] if len(fitting) == 1 else None
