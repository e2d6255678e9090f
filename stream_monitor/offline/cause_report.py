"""
The part of a report on causes: each incident with its sentences, what moved, the pictures that
prove it, and its alerts.

Rule of the file: text in, text out. Every text from the input is escaped. The number of pictures is
bounded; what has none is in a table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import islice
from math import inf
from typing import Any, NamedTuple

from stream_monitor.alerts.wording import number, signal
from stream_monitor.monitors.evidence_verdicts import METHOD
from stream_monitor.monitors.signals import ERRORS
from stream_monitor.offline.alarms import ms_of
from stream_monitor.offline.cause_words import (
    ERROR_KINDS,
    Told,
    family,
    place,
    told,
)
from stream_monitor.offline.chart import Mark
from stream_monitor.offline.episodes import Cause, Episode
from stream_monitor.offline.labelled import Labelled
from stream_monitor.offline.labelled_pictures import labelled_pictures
from stream_monitor.offline.law_picture import law_picture
from stream_monitor.offline.laws import Law
from stream_monitor.offline.markup import (
    count,
    details,
    prose,
    sentence,
    table,
    when,
    words,
)
from stream_monitor.offline.metric_curves import Curves
from stream_monitor.offline.witness import Witness
from stream_monitor.times import DAY_MS, rfc3339

PICTURES_MAX, PICTURES_OF_CAUSE = 30, 6
"""Pictures of laws on the page, and of one cause."""
CONTRIBUTORS_MAX, CONTRIBUTORS_LEAST = 600, 10
"""Rows of the tables of what moved: of all of them, and at least of each."""
ALERTS_MAX, OTHERS_MAX = 50, 20
SIGNS = {"rose": "↑", "fell": "↓"}


class Card(NamedTuple):
    """A cause, with all that is known of it."""

    n: int
    cause: Cause
    told: Told
    laws: tuple[Law, ...]

    @property
    def mark(self) -> Mark:
        """Where it is in a chart."""
        end = self.cause.end
        return Mark(
            str(self.n),
            self.cause.severity,
            self.told.change_ms,
            ms_of(self.cause.start),
            None if end is None else ms_of(end),
        )


def cards(
    found: Sequence[Cause], summary: Mapping[str, Any], witness: Witness, curves: Curves
) -> list[Card]:
    """The causes in words, numbered from 1."""
    laws, out = _Laws(found, witness), []
    of: dict[tuple[str, str], list[tuple[int, Cause]]] = {}
    for n, cause in enumerate(found, 1):
        of.setdefault((cause.model, cause.version), []).append((n, cause))
    for n, cause in enumerate(found, 1):
        version = summary["models"].get(cause.model, {}).get("versions", {}).get(cause.version, {})
        near = (
            (k, c)
            for k, c in of[cause.model, cause.version]
            if c is not cause and c.severity != "info" and _near(cause, c)
        )
        others = list(islice(near, OTHERS_MAX))
        bad = family(cause) == "errors" and cause.severity != "info"
        mine = laws.of(cause)
        said = told(
            cause,
            mine,
            others,
            binary=version.get("task") != "regression",
            labels=version.get("labels", 0),
            harm=curves.harm(cause) if bad else "",
        )
        out.append(Card(n, cause, said, mine))
    return out


def _near(a: Cause, b: Cause) -> bool:
    return abs(ms_of(a.start) - ms_of(b.start)) <= DAY_MS


class _Laws:
    """Which laws belong to which cause."""

    def __init__(self, every: Sequence[Cause], witness: Witness) -> None:
        self.witness = witness
        self.ends: dict[str, list[int]] = {}
        """By fingerprint: when its episodes ended."""
        for e in (e for cause in every for e in cause.episodes if e.end is not None):
            self.ends.setdefault(e.first["fingerprint"], []).append(ms_of(e.end or ""))
        self.drifts: dict[tuple[str, ...], list[Law]] = {}
        """By model, version and kind."""
        for key, law in witness.laws.items():
            if law.change:
                self.drifts.setdefault(key[:3], []).append(law)

    def of(self, cause: Cause) -> tuple[Law, ...]:
        """
        The laws of a cause: those of its detectors on counts, the farthest first, then those of
        other alerts on signals that have none yet.
        """
        drifts, others = list[Law](), list[Law]()
        for e in cause.episodes:
            first = e.first
            at = (first["model"], first["version"], first["kind"])
            if first["segment"] is not None:
                continue
            if first["detector"] == METHOD:
                drifts += self._of_episode(e, at)
                if first["kind"] == "concept_drift":  # calibration that changed with the errors
                    drifts += self._of_episode(e, (*at[:2], "calibration"))
            elif (law := self.witness.laws.get((*at, first["subject"], e.start))) is not None:
                others.append(law)
        drifts = list({(law.signal, law.change_ms): law for law in drifts}.values())
        drifts.sort(key=lambda law: (law.signal != ERRORS, -law.change["effect"], law.signal))
        seen = {law.signal for law in drifts}
        kept = {law.signal: law for law in reversed(others) if law.signal not in seen}
        return (*drifts, *reversed(kept.values()))

    def _of_episode(self, e: Episode, at: tuple[str, str, str]) -> list[Law]:
        """Signals that drifted until the end of an episode, and after the one before."""
        start_ms = ms_of(e.start)
        ends = self.ends.get(e.first["fingerprint"], ())
        after_ms = max((end for end in ends if end <= start_ms), default=-1)
        until_ms = inf if e.end is None else ms_of(e.end)
        return [law for law in self.drifts.get(at, ()) if after_ms < law.found_ms <= until_ms]


def cause_sections(
    found: Sequence[Card], witness: Witness, curves: Curves, marks: Mapping[Any, Sequence[Mark]]
) -> list[str]:
    """A section for each cause."""
    left, rows, out = PICTURES_MAX, CONTRIBUTORS_MAX, []
    for card in found:
        room = 0 if card.cause.severity == "info" else min(left, PICTURES_OF_CAUSE)
        pictures = [_picture(law) for law in _drawn(card)[:room]]
        left -= len(pictures)
        moved = _contributors(card, max(rows, CONTRIBUTORS_LEAST))
        rows -= len(card.laws)
        out.append(_section(card, moved, pictures, witness, curves, marks))
    return out


def _drawn(card: Card) -> list[Law]:
    """Laws with a picture: 0 and 1 of errors is said in the sentence."""
    return [law for law in card.laws if len(law.bins) > (2 if law.signal == ERRORS else 0)]


def _picture(law: Law) -> str:
    c = law.change
    text = f"{_sign(c)} {c['change']}{place(c)}" if c else ""
    return law_picture(law, signal(law.signal, binary=False), text)


def _section(
    card: Card,
    moved: str,
    pictures: Sequence[str],
    witness: Witness,
    curves: Curves,
    marks: Mapping[Any, Sequence[Mark]],
) -> str:
    cause, said = card.cause, card.told
    title = " ".join(part for part in (cause.model, cause.version) if part)
    state = "goes on" if cause.end is None else "over"
    facts = "".join(
        f"<dt>{name}</dt><dd>{prose(sentence(text))}.</dd>"
        for name, text in (
            ("When", said.when),
            ("How bad", said.bad),
            ("Look at", said.look),
            ("Meanwhile", said.together),
            ("What next", said.then),
        )
        if text
    )
    proof = [*pictures]
    if family(cause) == "errors" and cause.severity != "info":
        shown = marks.get((cause.model, cause.version), ())
        proof = [curves.main(cause, shown), *_labelled(cause, witness), *proof]
    proof = [part for part in proof if part]
    return "\n".join(
        part
        for part in (
            f'<section class="cause {escape(cause.severity)}" id="cause-{card.n}">',
            (
                f'<p class="meta"><span class="badge {escape(cause.severity)}">'
                f"{escape(cause.severity)}</span> {escape(title)} · {state}</p>"
            ),
            f"<h3>{card.n}. {prose(sentence(said.headline))}</h3>",
            f"<dl>{facts}</dl>",
            moved,
            f'<div class="pictures">{"".join(proof)}</div>' if proof else "",
            _alerts(cause.episodes),
            "</section>",
        )
        if part
    )


def _contributors(card: Card, most: int) -> str:
    """What moved, ranked; one signal alone is in the headline."""
    changes = [law.change for law in card.laws if law.change]
    if len(changes) < 2:
        return ""
    greatest = max(*(c["effect"] for c in changes), 1e-9)
    rows = [
        (
            words(prose(signal(c["subject"]))),
            words(f"{_sign(c)} {prose(c['change'] + place(c))}"),
            when(c["changed_at"]),
            (
                f'<td><span class="effect" style="--w:{round(100 * c["effect"] / greatest)}%">'
                f"{c['effect']:.3f}</span></td>"
            ),
        )
        for c in changes[:most]
    ]
    more = len(changes) - most
    rest = f"<p class=dim>and {more:,} more</p>" if more > 0 else ""
    head = ("signal", "what changed", "since (UTC)", "distance")
    caption = f"What moved, the farthest first ({count(len(changes), 'signal')})"
    inside = table(head, rows, caption=caption, kind="stack few") + rest
    return inside if len(rows) <= 10 else details(caption, inside)


def _sign(change: Mapping[str, Any]) -> str:
    up = change["after"] >= change["before"]
    return "" if change["what"] == "distribution" else SIGNS["rose" if up else "fell"]


def _labelled(cause: Cause, witness: Witness) -> list[str]:
    """Labelled rows before, and since the errors changed."""
    at = cause.model, cause.version
    first = witness.samples.get((*at, "first"))
    for e in cause.episodes:
        if e.first["kind"] in ERROR_KINDS:
            now = witness.samples.get((*at, e.first["fingerprint"], e.start))
            if now is not None:
                samples = [("at the alert", now)]
                if first is not None and first.end_ms < now.start_ms:
                    samples.insert(0, ("at first", first))
                return [*_period(samples), *labelled_pictures(samples)]
    return []


def _period(samples: Sequence[tuple[str, Labelled]]) -> list[str]:
    parts = (
        f"{name}: {count(s.rows, 'labelled row')} of {when(rfc3339(s.start_ms))} to "
        f"{when(rfc3339(s.end_ms))}"
        for name, s in samples
    )
    return [f'<p class="dim wide">{escape("; ".join(parts))} (UTC).</p>']


def _alerts(found: Sequence[Episode]) -> str:
    """The alerts of a cause."""
    items = "".join(
        f'<li><span class="badge {escape(e.severity)}">{escape(e.severity)}</span> '
        f"{when(e.start)} to {when(e.end) or 'the end'} <span class=dim>{escape(e.first['kind'])}, "
        f"{escape(e.first['detector'])}{_value(e)}</span><br>{prose(e.first['summary'])}"
        f"<br><small>id {escape(e.first['id'][:12])}, fingerprint "
        f"{escape(e.first['fingerprint'][:12])}</small></li>"
        for e in found[:ALERTS_MAX]
    )
    more = len(found) - ALERTS_MAX
    rest = f"<li>and {more:,} more</li>" if more > 0 else ""
    text = f"{count(len(found), 'alert')} of this cause"
    return details(text, f'<ul class="alerts">{items}{rest}</ul>')


def _value(e: Episode) -> str:
    value, limit = e.told["value"], e.told["threshold"]
    if value is None or not limit:
        return ""
    return f": {number(value)}, limit {number(limit)}"
