"""
Columns that a person may mean for a field that is missing in their file.

Rule of the file: it guesses by the name of a column alone and changes nothing; the person decides
with `--map`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from stream_monitor.inputs.options import Role

LIKELY = {
    "prediction": (
        "yhat",
        "ypred",
        "pred",
        "preds",
        "predicted",
        "predictions",
        "predictedlabel",
        "predictedclass",
        "predclass",
        "predlabel",
        "modeloutput",
        "forecast",
    ),
    "label": (
        "y",
        "ytrue",
        "target",
        "actual",
        "actuals",
        "truth",
        "groundtruth",
        "outcome",
        "observed",
        "labels",
        "truelabel",
        "class",
    ),
    "score": (
        "probability",
        "proba",
        "prob",
        "probs",
        "yscore",
        "yprob",
        "yproba",
        "ypredproba",
        "predproba",
        "p",
        "p1",
        "prob1",
        "proba1",
        "probability1",
        "confidence",
        "scores",
    ),
    "timestamp": (
        "ts",
        "time",
        "datetime",
        "date",
        "createdat",
        "eventtime",
        "eventtimestamp",
        "when",
        "servedat",
    ),
    "event_id": (
        "id",
        "eventid",
        "requestid",
        "uuid",
        "predictionid",
        "rowid",
        "transactionid",
        "caseid",
    ),
    "latency_ms": ("latency", "latencyms", "durationms", "responsetimems"),
}
"""Names that columns for these fields often have."""


def likely_columns(
    role: Role, candidates: Sequence[str], fields: frozenset[str]
) -> Iterator[tuple[str, str]]:
    """
    Missing fields, each with the first column that may be meant.

    Parameters
    ----------
    role : str
        Role of the file.
    candidates : sequence of str
        Columns that are not fields of the event.
    fields : frozenset of str
        Fields that the file has.

    Examples
    --------
    >>> list(likely_columns("labels", ["Ground Truth", "when"], frozenset({"event_id"})))
    [('label', 'Ground Truth'), ('timestamp', 'when')]
    """
    taken = {field.partition(".")[0] for field in fields}
    wanted = {
        "table": set(LIKELY),
        "predictions": set(LIKELY) - {"label"},
        "labels": {"event_id", "label", "timestamp"},
    }[role]
    for field, names in LIKELY.items():
        if field not in wanted - taken:
            continue
        known = (*names, field.replace("_", ""))
        for column in candidates:
            # `Y_true`, `y-true` and `ytrue` are the same name to a person
            if re.sub("[^a-z0-9]", "", column.lower()) in known:
                yield field, column
                break
