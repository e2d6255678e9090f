"""
What a cause says to people: what happened, when, how bad it is, and what to do next.

Rule of the file: pure text from alert events. Names stand between backticks. What is not known is
said to be unknown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from stream_monitor.alerts.wording import apart, duration, percent, signal
from stream_monitor.monitors.calibration import CALIBRATION
from stream_monitor.monitors.evidence_verdicts import LARGE, SMALL
from stream_monitor.monitors.signals import ERRORS
from stream_monitor.offline.alarms import ms_of
from stream_monitor.offline.episodes import Cause, Episode
from stream_monitor.offline.laws import Law
from stream_monitor.offline.markup import count, sentence

MODERATE = 0.1
"""Distance of a shift of about a third of a standard deviation."""
WHATS = ("mean", "standard deviation", "share", "missing", "distribution")
"""Changes that have words here; others bring their own."""
SEGMENTS_MAX = 3
ERROR_KINDS = ("performance", "calibration", "concept_drift")
INPUT_KINDS = ("data_drift", "anomaly")


NO_LEVELS = {"missing": "missing values", "other categories": "rare or new categories"}
OF_NUMBERS = {"value", "above", "below"}
"""Keys of a level that is a number, or a range of numbers."""


class Told(NamedTuple):
    """A cause in words."""

    headline: str
    when: str
    bad: str
    look: str
    """At which rows to look."""
    together: str
    then: str
    change_ms: int
    """When it began, as far as that is known."""


def family(cause: Cause) -> str:
    """
    What a cause is about: `errors`, `fields`, `inputs`, `outputs`, `latency`, or `other`.
    """
    kinds = {e.first["kind"] for e in cause.episodes}
    trends = any(e.first["detector"] == "trend" for e in cause.episodes)
    if trends or kinds & set(ERROR_KINDS):
        return "errors"
    first = cause.episodes[0].first
    if first["kind"] == "data_quality":
        return "fields"
    if kinds & set(INPUT_KINDS):
        return "inputs"
    if "latency" in kinds:
        return "latency"
    return "outputs" if "prediction_drift" in kinds else "other"


def direction(change: Mapping[str, Any]) -> str:
    """`rose` or `fell`."""
    return "rose" if change["after"] >= change["before"] else "fell"


def change_in_words(change: Mapping[str, Any], *, binary: bool = True) -> str:
    """
    The change of one signal.

    Examples
    --------
    >>> change_in_words({"subject": "x", "what": "mean", "before": 1.0, "after": 3.0})
    'the mean of `x` rose from 1 to 3'
    >>> change_in_words(
    ...     {"subject": "c", "what": "share", "level": "BR", "before": 0.0, "after": 0.25}
    ... )
    '`BR` became more frequent in `c`: from 0% to 25%'
    """
    return _moved(change, binary=binary) + place(change)


def place(change: Mapping[str, Any]) -> str:
    """
    The segment of a change, or those in which it is most.

    >>> place({"segment": "country=DE"}), place({"segments": ["a=b", "a=c"]}), place({})
    (', in segment `country=DE` only', ', above all in segment `a=b`, `a=c`', '')
    """
    if "segment" in change:
        return f", in segment `{change['segment']}` only"
    names = ", ".join(f"`{name}`" for name in change.get("segments", ())[:SEGMENTS_MAX])
    return f", above all in segment {names}" if names else ""


def _moved(change: Mapping[str, Any], *, binary: bool) -> str:
    name, what = signal(change["subject"], binary=binary), change["what"]
    before, after = change["before"], change["after"]
    if what not in WHATS:
        return str(change["change"])
    if what == "share":
        level = change["level"]
        level = level if OF_NUMBERS & change.keys() else NO_LEVELS.get(level, f"`{level}`")
        much = "more" if after >= before else "less"
        was, now = apart(before, after, form=percent, digits=3)
        return f"{level} became {much} frequent in {name}: from {was} to {now}"
    if what == "missing":
        was, now = apart(before, after, form=percent, digits=3)
        return f"{name} is missing or broken in {now} of rows, it was in {was}"
    if what == "distribution":
        return f"the values of {name} are spread in another way, around the same mean"
    if change["subject"] == ERRORS and binary and what == "mean":
        was, now = apart(before, after, form=percent, digits=3)
        return f"{name} {direction(change)} from {was} to {now}"
    was, now = apart(before, after)
    if change["subject"] == ERRORS and what == "mean":
        return f"{name} {direction(change)} from {was} to {now}"
    return f"the {what} of {name} {direction(change)} from {was} to {now}"


def told(
    cause: Cause,
    laws: Sequence[Law],
    others: Sequence[tuple[int, Cause]],
    *,
    binary: bool,
    labels: int,
    harm: str,
) -> Told:
    """
    A cause in words.

    Parameters
    ----------
    cause : Cause
    laws : sequence of Law
        Of its detectors on counts, the one that moved farthest first.
    others : sequence of (number, Cause)
        Causes of the same version that fired at the same time, by their numbers on the page.
    binary : bool
        Whether errors are 0 and 1.
    labels : int
        Labelled rows of the version.
    harm : str
        How far the main metric fell; empty if it is not known.
    """
    first, about = cause.episodes[0], family(cause)
    changes = [law.change for law in laws if law.change]
    headline = (
        change_in_words(changes[0], binary=binary)
        if changes and _ranked(first)
        else _of_summary(first)
    )
    if (segment := first.first["segment"]) is not None:
        headline += f", in `{next(iter(segment.items()))[0]}={next(iter(segment.values()))}`"
    began = [law.change_ms for law in laws if law.change]
    change_ms = min([*began, ms_of(cause.start)])
    bad = _size(changes, about) if changes and _ranked(first) else _summary(first)
    return Told(
        headline=headline,
        when=_when(cause, [law for law in laws if law.change and _ranked(first)]),
        bad=". ".join(sentence(part) for part in (bad, harm) if part),
        look=_look(first),
        together=_together(about, others, labels),
        then=_next(cause, about, [c["subject"] for c in changes], others),
        change_ms=change_ms,
    )


def _ranked(episode: Episode) -> bool:
    return bool(episode.told["evidence"].get("contributors"))


def _of_summary(episode: Episode) -> str:
    """The first part of the summary, without numbers in brackets."""
    text = _summary(episode)
    found = re.match(r"(?:`[^`]*`|[^`(;])*", text)
    return (found[0] if found else text).strip(" ,") or text


def _summary(episode: Episode) -> str:
    """The last summary of an alert, without the name of the model."""
    first = episode.first
    title = " ".join(part for part in (first["model"], first["version"]) if part)
    return str(episode.told["summary"]).removeprefix(title).removeprefix(": ")


def _clock(text: str) -> str:
    return text[:19].replace("T", " ")


def _when(cause: Cause, laws: Sequence[Law]) -> str:
    """When it began, was found and ended."""
    end = (
        "It goes on at the end of the input"
        if cause.end is None
        else f"It was over at {_clock(cause.end)}, after "
        f"{duration((ms_of(cause.end) - ms_of(cause.start)) / 1_000)}"
    )
    if not laws:
        return f"Told at {_clock(cause.start)} (UTC). {end}"
    law, found = laws[0], cause.episodes[0].start
    rows = law.found_row - law.change_row
    began = law.change["changed_at"]
    found_s = (ms_of(found) - ms_of(began)) / 1_000
    later = f"{duration(max(found_s, 0.0))} and {count(rows, 'row')} later"
    seen = "labelled rows" if law.signal == ERRORS else "rows"
    stream = "segment" if "segment" in law.change else "version"
    # calibration counts rows with a score and a known positive class only
    after = (
        "" if law.signal == CALIBRATION else f", after {law.change_row:,} {seen} of this {stream}"
    )
    return f"It began about {_clock(began)} (UTC){after}, and was found {later}. {end}"


def _size(changes: Sequence[Mapping[str, Any]], about: str) -> str:
    """The size of the greatest change, in a word and as a number."""
    effect = changes[0]["effect"]
    word = (
        "slight"
        if effect < SMALL
        else "moderate"
        if effect < MODERATE
        else "large"
        if effect < LARGE
        else "very large"
    )
    also = f"; {len(changes)} signals moved" if len(changes) > 1 and about != "errors" else ""
    if changes[0].get("what") == "calibration error":  # its effect is twice that, and no distance
        return f"A {word} change: labels moved by {effect / 2:.2f} against their scores{also}"
    return (
        f"A {word} change: distance {effect:.2f} between before and after, where 0 is no change "
        f"and 1 is nothing in common{also}"
    )


def _look(episode: Episode) -> str:
    """The first row since a change, and some that show it."""
    evidence = episode.told["evidence"]
    changes, examples = evidence.get("contributors"), evidence.get("examples", ())
    if not changes or "first" not in changes[0]:
        return f"Some of the rows: {', '.join(map(_row, examples))}" if examples else ""
    first = changes[0]["first"]
    kind = f" of {first['topic']}" if first["topic"] == "labels" else ""
    text = f"Row {_row(first)}{kind} is the first since then, give or take a few"
    return text + (f"; these show it: {', '.join(map(_row, examples))}" if examples else "")


def _row(place: Mapping[str, Any]) -> str:
    number = f"{place['offset'] + 1:,}"
    return f"{number} (`{place['event_id']}`)" if "event_id" in place else number


def _together(about: str, others: Sequence[tuple[int, Cause]], labels: int) -> str:
    """What else happened to the version at that time."""
    if about in ("latency", "other"):
        return ""
    numbers = {"errors": [n for n, c in others if family(c) == "errors"]}
    numbers["rest"] = [n for n, c in others if family(c) in ("inputs", "fields", "outputs")]
    listed = {k: ", ".join(str(n) for n in v) for k, v in numbers.items()}
    if about == "errors":
        if numbers["rest"]:
            return f"Inputs or answers changed at the same time: see {listed['rest']}"
        return "No input alarmed at the same time"
    found = []
    if numbers["rest"]:
        found.append(f"More changed at the same time: see {listed['rest']}")
    if numbers["errors"]:
        found.append(f"The model became worse at the same time: see {listed['errors']}")
    elif labels:
        found.append("No alert says that the model became worse at that time")
    else:
        found.append("There are no labels, so it is not known whether the model became worse")
    return ". ".join(found)


def _next(
    cause: Cause, about: str, subjects: Sequence[str], others: Sequence[tuple[int, Cause]]
) -> str:
    """What to do next."""
    start = _clock(cause.start)
    inputs = [n for n, c in others if family(c) in ("inputs", "fields")]
    if cause.severity == "info":
        return "Nothing is urgent: nobody would have been told"
    if {e.first["kind"] for e in cause.episodes} == {"calibration"}:
        return (
            "Calibrate the scores again on rows since then, or retrain: who reads them as "
            "probabilities is misled"
        )
    if about == "errors":
        return (
            f"Begin with {inputs[0]}: if the inputs are wrong, repair them, and the errors go. If "
            "they are right, retrain with rows since then"
            if inputs
            else "Ask how labels were made since then, because no input moved. If they are right, "
            "the world has changed: retrain with rows since then"
        )
    if about == "fields":
        return (
            "Repair what sends this field; the alert ends by itself. If the values are right, "
            "allow them under `features` in the configuration, or build a new baseline"
        )
    if about == "inputs":
        names = " and ".join(signal(s) for s in subjects[:2]) or "these features"
        return (
            f"Ask what changed in the source of {names}: a unit, a release, a new group of "
            "customers. If it is a fault, repair it. If it is here to stay, retrain where the "
            "model became worse, and take a new baseline (`stream-monitor baseline build`)"
        )
    if about == "outputs":
        return (
            f"Begin with {inputs[0]}: answers follow their inputs"
            if inputs
            else f"Ask what was deployed about {start}: the answers moved and no input did"
        )
    if about == "latency":
        return (
            "Look at the service about that time: its load, its machines, a release, what it calls"
        )
    return "Read the alerts below; each says what to look at"
