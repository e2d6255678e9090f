"""
The part of a report on experiments: each arm with its verdict, the confidence sequence, the other
tests, what a textbook says, and what was left out.

Rule of the file: text in, text out, from the `experiments` of `summary.json` and the points of the
replay. Every text from the input is escaped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from stream_monitor.experiments.words import LEFT_OUT, MEANINGS, PEEKED
from stream_monitor.offline.experiment_chart import sequence_chart
from stream_monitor.offline.markup import number, table
from stream_monitor.offline.replay import Course

COLOURS = {"rollback": "critical", "mismatch": "warning", "promote": "ok"}


def experiments(found: Mapping[str, Any], courses: Sequence[Course]) -> Iterator[str]:
    """The sections of all experiments."""
    for model, of_name in found.items():
        for name, e in of_name.items():
            mine = [c for c in courses if (c.model, c.experiment) == (model, name)]
            yield f"<h2>Experiment {escape(name)}</h2>"
            yield _state(model, e)
            for arm, a in e["arms"].items():
                yield _arm(e, arm, a, [c for c in mine if c.arm == arm])
            yield _left_out(e)


def _state(model: str, e: Mapping[str, Any]) -> str:
    weights = " · ".join(f"{escape(arm)} {w:g}" for arm, w in e["weights"].items())
    units = " · ".join(f"{escape(arm)} {n:,}" for arm, n in e["units"].items())
    if "complete" in e:
        complete = " · ".join(f"{escape(arm)} {n:,}" for arm, n in e["complete"].items())
        units += f"; those whose window is over, which count: {complete}"
    unit = "units are events" if e["unit"] == "event" else f"unit: {escape(e['unit'])}"
    end = ", stopped" if e["stopped"] else ""
    return (
        f"<p>Model {escape(model)}, {e['hours'] / 24:.3g} days{end}, phase {e['phase']}, weights "
        f"{weights} %. Units ({unit}): {units}.</p>"
    )


def _arm(e: Mapping[str, Any], arm: str, a: Mapping[str, Any], points: Sequence[Course]) -> str:
    control = next(iter(e["weights"]))
    reasons = [f"{b} ({MEANINGS[b]})" if b in MEANINGS else b for b in a["because"]]
    because = f" because of {escape(', '.join(reasons))}" if reasons else ""
    colour = COLOURS.get(a["verdict"], "dim")
    metrics = [name for name, found in a["evidence"].items() if "ready" in found]
    parts = [
        f'<h3>{escape(arm)}: <span class="{colour}">{escape(a["verdict"])}</span>{because}</h3>'
    ]
    if points:
        title = (
            f"{metrics[0]}: {arm} compared with {control}. The band holds at every look at once; a "
            "verdict waits for enough units"
        )
        parts.append(sequence_chart(points, title))
    parts += [_intervals(a["evidence"], metrics), _tests(arm, a["evidence"])]
    if a["fixed_horizon"]:
        parts.append(_textbook(a["fixed_horizon"]))
    return "\n".join(parts)


def _intervals(evidence: Mapping[str, Any], metrics: Sequence[str]) -> str:
    rows = []
    for metric in metrics:
        c = evidence[metric]
        low, high = c.get("interval", (None, None))
        coverage = " · ".join(number(v) for v in c.get("coverage", ()) if v is not None)
        ready = "yes" if c["ready"] else "too few units"
        worse = c.get("worse")
        against = "" if worse is None else f"{worse['e']:.3g} of {worse['needed']:,.0f}"
        ends = [number(v) for v in (c.get("estimate"), low, high)]
        rows.append([escape(metric), *ends, ready, against, coverage])
    head = ("metric", "difference", "from", "to", "judged", "evidence that worse", "coverage")
    return table(head, rows)


def _tests(arm: str, evidence: Mapping[str, Any]) -> str:
    races = "".join(
        f"{_first(name)} of units: {race['first'][1]:,} of {sum(race['first']):,} in "
        f"{escape(arm)}, expected {100 * race['share']:.3g} % ({_of(race)}). "
        for name, race in evidence.items()
        if "first" in race
    )
    return f"<p>{races}Sample ratio: {_of(evidence['sample_ratio'])}.</p>"


def _first(race: str) -> str:
    return "First failures" if race == "failures" else f"First bad calls ({escape(race)})"


def _of(found: Mapping[str, float]) -> str:
    e, needed = found["e"], found["needed"]
    if e >= needed:
        return f'<span class="critical">evidence over {needed:,.0f}</span>'
    return f"fine: evidence {e:.3g} of {needed:,.0f}"


def _textbook(found: Mapping[str, Mapping[str, Any]]) -> str:
    names = ("t", "df", "p", "d", "h")
    rows = [
        [
            escape(metric),
            *(number(f.get(n)) for n in names[:3]),
            *(_with_interval(f, n) for n in names[3:]),
        ]
        for metric, f in found.items()
    ]
    return table(("at one planned look", *names), rows) + f'<p class="dim">{PEEKED}</p>'


def _with_interval(f: Mapping[str, Any], name: str) -> str:
    if f.get(name) is None:
        return ""
    low, high = f[f"{name}_interval"]
    return f"{number(f[name])} [{number(low)}, {number(high)}]"


def _left_out(e: Mapping[str, Any]) -> str:
    if not e["left_out"]:
        return f'<p class="dim">All {e["rows"]:,} rows of the model count.</p>'
    rows = [
        (f"{n:,}", f'<td class="text">{escape(LEFT_OUT.get(reason, reason))}</td>')
        for reason, n in e["left_out"].items()
    ]
    return f"<h3>Left out of {e['rows']:,} rows</h3>" + table(("rows", "why"), rows)
