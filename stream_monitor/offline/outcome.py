"""
The outcome of a replay in sentences: what was refused and why, which labels matched no prediction,
and whether the run checked anything.

Rule of the file: a run that could use nothing, or hardly anything, has failed, whatever the alerts
say. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from stream_monitor.events.parse import model_of
from stream_monitor.inputs.meetings import Meetings
from stream_monitor.monitors.estimate_verdicts import told
from stream_monitor.times import DAY_MS, HOUR_MS

MOST = 0.5
"""A run has failed if more than this share of its rows was refused or counted as repeated."""
MODELS_MANY = 20
"""If one table has more models than this, the column is probably wrong."""


class Refused(NamedTuple):
    """A record that could not be used."""

    kind: str
    offset: int
    reason: str
    message: str
    value: bytes


def reasons(refused: Iterable[Refused]) -> dict[str, list[dict[str, Any]]]:
    """
    Why records of each kind were refused: the count of each reason and its first record, the most
    frequent reason first.

    Examples
    --------
    >>> reasons([Refused("predictions", 4, "wrong_type", "`score` must be a number", b"{}")])
    {'predictions': [{'reason': 'wrong_type', 'count': 1, 'first': {'offset': 4, 'message': '`score` must be a number'}}]}
    """  # noqa: E501
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for r in refused:
        entry = found.setdefault(r.kind, {}).setdefault(
            r.reason,
            {"reason": r.reason, "count": 0, "first": {"offset": r.offset, "message": r.message}},
        )
        entry["count"] += 1
    return {
        kind: sorted(of_kind.values(), key=lambda entry: -entry["count"])
        for kind, of_kind in found.items()
    }


def refused_by_model(refused: Iterable[Refused]) -> Counter[str]:
    """How many predictions of each model were refused, if their model can be read."""
    return Counter(
        model
        for r in refused
        if r.kind == "predictions" and (model := model_of(r.value)) is not None
    )


class Note(NamedTuple):
    """
    A sentence about the run; `fails` means that the run checked nothing, or not what was meant.
    """

    text: str
    fails: bool = False


def notes(
    summary: Mapping[str, Any],
    *,
    clipped: int = 0,
    ahead: int,
    unmet: int,
    unlabelled: int = 0,
    meetings: Meetings | None,
    max_delay_ms: int,
    model_column: str | None = None,
) -> list[Note]:
    """
    The sentences about a finished replay.

    Parameters
    ----------
    summary : mapping
        The content of `summary.json`.
    clipped : int
        Rows whose score was clipped to [0, 1].
    ahead : int
        Rows whose time was replaced because it was too far ahead.
    unmet : int
        Accepted labels that matched no prediction.
    unlabelled : int
        Rows with an empty label.
    meetings : Meetings or None
        How ids of labels and predictions compare; known if labels matched nothing.
    max_delay_ms : int, ms
        `labels.max_delay`.
    model_column : str or None
        The column of a plain table from which `model` was read.
    """
    found = [
        *_refused(summary.get("refused", {})),
        *_records(summary["records"]),
        *_models(summary["models"], model_column),
    ]
    if clipped:
        found.append(
            Note(
                f"{clipped:,} row{' has' if clipped == 1 else 's have'} a score outside [0, "
                "1] by rounding: clipped"
            )
        )
    if ahead:
        found.append(
            Note(
                f"{_times(ahead, 'event time')} more than 5 minutes ahead of the row before: "
                "replaced by the time of that row"
            )
        )
    if unlabelled:
        none = not summary["records"]["labels"]["received"]
        found.append(
            Note(
                "no row has a label"
                if none
                else f"{unlabelled:,} row{' has' if unlabelled == 1 else 's have'} no label yet",
                fails=none,
            )
        )
    return [
        *found,
        *_labels(summary["records"]["labels"]["accepted"], unmet, meetings, max_delay_ms),
        *_baselines(summary["models"]),
        *_tasks(summary["models"]),
        *_classes(summary["models"]),
        *_estimates(summary["models"]),
    ]


def _times(n: int, noun: str) -> str:
    return f"{n:,} {noun}{' was' if n == 1 else 's were'}"


def _refused(refused: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[Note]:
    for kind, of_kind in refused.items():
        for reason in of_kind:
            first = reason["first"]
            yield Note(
                f"{kind} refused as {reason['reason']}: {reason['count']:,}; the first (row "
                f"{first['offset'] + 1:,}): {first['message']}"
            )


def _records(records: Mapping[str, Mapping[str, Any]]) -> Iterator[Note]:
    if not any(found["received"] for found in records.values()):
        yield Note("the input has no rows", fails=True)
    for kind, found in records.items():
        received, rejected, duplicate = found["received"], found["rejected"], found["duplicate"]
        if received and not found["accepted"]:
            yield Note(f"none of {received:,} {kind} could be used", fails=True)
        elif rejected > MOST * received:
            yield Note(
                f"most {kind} were refused: {rejected:,} of {received:,} "
                f"({rejected / received:.0%}); what is left is no fair sample",
                fails=True,
            )
        elif rejected:
            yield Note(
                f"{rejected / received:.2%} of the {kind} were refused; what is refused is "
                "rarely a random sample"
            )
        if duplicate > MOST * received:
            yield Note(
                f"most {kind} have an id that another row has, and count once: {duplicate:,} "
                f"of {received:,}; is event_id really an id?",
                fails=True,
            )
        elif duplicate and kind == "predictions":
            yield Note(
                f"{duplicate:,} of {received:,} predictions have an id that another row has, "
                "and count once"
            )


def _models(models: Mapping[str, Any], column: str | None) -> Iterator[Note]:
    if len(models) > MODELS_MANY:
        where = (
            f"column `{column}` is read as `model`"
            if column is not None
            else "`model` differs from row to row"
        )
        yield Note(
            (
                f"{where}: {len(models):,} models, such as "
                f"{', '.join(map(repr, list(models)[:3]))}, each with a baseline and windows of "
                "its own; "
            )
            + (
                f"if it is a feature: --map model=:NAME --map features.{column}={column}"
                if column is not None
                else "is that meant?"
            )
        )
    for name, found in models.items():
        rejected = found.get("rejected", 0)
        taken = sum(v["predictions"] for v in found["versions"].values())
        if rejected and taken and len(models) > 1:
            yield Note(
                f"{name}: {rejected:,} of {rejected + taken:,} predictions refused "
                f"({rejected / (rejected + taken):.1%})"
            )


def _labels(
    accepted: int, unmet: int, meetings: Meetings | None, max_delay_ms: int
) -> Iterator[Note]:
    if not accepted or not unmet:
        return
    joined = accepted - unmet
    start = (
        f"no label met a prediction ({accepted:,} labels)"
        if not joined
        else f"{unmet:,} of {accepted:,} labels met no prediction"
    )
    if meetings is None:
        yield Note(start, fails=not joined)
        return
    text = start
    if meetings.label_ids:
        theirs = (
            f"; ids of predictions without a label: {_quoted(meetings.prediction_ids)}"
            if meetings.prediction_ids
            else ""
        )
        text += f"; ids of such labels: {_quoted(meetings.label_ids)}{theirs}"
    if meetings.rewriting:
        text += f"; written {meetings.rewriting}, the ids would be equal"
    yield Note(text, fails=not joined)
    late = meetings.met - joined
    if late > 0 and meetings.delay_ms is not None and meetings.delay_ms[1] > max_delay_ms:
        half, most = meetings.delay_ms
        yield Note(
            f"{late:,} labels came later than labels.max_delay ({_duration(max_delay_ms)}) "
            f"and met nothing: half of the labels come up to {_duration(half)} after their "
            "predictions, "
            f"the last {_duration(most)}; set labels.max_delay to more than that"
        )


def _quoted(ids: Sequence[str]) -> str:
    return ", ".join(map(repr, ids))


def _duration(ms: int) -> str:
    """
    A length of time as the configuration writes it, rounded.

    >>> _duration(86_400_000), _duration(30 * 86_400_000), _duration(5_400_000), _duration(-1_000)
    ('24h', '30d', '1.5h', '-1s')
    """
    for unit_ms, unit, least in ((DAY_MS, "d", 2), (HOUR_MS, "h", 1), (60_000, "m", 1)):
        if abs(ms) >= least * unit_ms:
            return f"{round(ms / unit_ms, 1):g}{unit}"
    return f"{round(ms / 1_000, 1):g}s"


FOUND_BY = {
    "configured": "as configured",
    "name": "by its name",
    "score": "the greater mean score",
    "rarer": "the rarer class",
}


def _tasks(models: Mapping[str, Any]) -> Iterator[Note]:
    """Notes on models whose labels were taken for numbers without a configured task."""
    for model, found in list(models.items())[:MODELS_MANY]:
        for version, v in found["versions"].items():
            if (
                v["labels"]
                and v.get("task") == "regression"
                and v.get("task_source") != "configured"
            ):
                yield Note(
                    f"{model} {version}".strip()
                    + (
                        ": labels are read as numbers, not as classes (a regression); `task` in "
                        "the configuration says otherwise"
                    )
                )


def _classes(models: Mapping[str, Any]) -> Iterator[Note]:
    """Notes on the positive class of binary models, and on classes beyond the two."""
    versions = [
        (f"{model} {version}".strip(), v)
        for model, found in models.items()
        for version, v in found["versions"].items()
        if v.get("task") == "binary" and v["labels"]
    ]
    for name, v in versions[:MODELS_MANY]:
        positive, source = v.get("positive_class"), v.get("positive_class_source")
        if positive:
            yield Note(
                f"{name}: `{positive}` is the positive class ({FOUND_BY[source]})"
                + (
                    ""
                    if source == "configured"
                    else "; `positive_class` in the configuration says otherwise"
                )
            )
        elif source == "configured":
            yield Note(
                f"{name}: the configured `positive_class` never occurs, so there is no metric "
                "that needs it"
            )
        else:
            yield Note(
                f"{name}: nothing says which class is the positive one, so there is no metric "
                "that needs it; set `positive_class`"
            )
        if odd := v.get("unexpected_classes"):
            yield Note(
                f"{name}: unexpected classes beside the two of a binary model: "
                f"{', '.join(f'`{c}`' for c in odd[:10])}; their rows count as wrong unless "
                "answer and label agree"
            )


def _estimates(models: Mapping[str, Any]) -> Iterator[Note]:
    """A line about the accuracy of classes that is estimated without labels, or why it is not."""
    for model, found in list(models.items())[:MODELS_MANY]:
        for version, v in found["versions"].items():
            if v["labels"] and v.get("task") in ("binary", "multiclass") and "estimate" in v:
                yield Note(f"{model} {version}".strip() + f": {told(v['estimate'])}")


def _baselines(models: Mapping[str, Any]) -> Iterator[Note]:
    for model, found in models.items():
        for version, v in found["versions"].items():
            if v["predictions"] and "baseline" not in v:
                name = f"{model} {version}".strip()
                yield Note(
                    f"{name}: fewer rows than baseline.rows (5,000 by default), so there is "
                    "no baseline yet for drift, quality and anomalies"
                )
            for text in v.get("broken_rules", ()):
                yield Note(f"{model} {version}".strip() + f": {text}")
