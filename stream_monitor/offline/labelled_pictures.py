"""
The pictures of labelled rows: confusion matrices, a reliability diagram, residuals; each of what
was and what is.

Rule of the file: SVG and HTML without a script. Every text from the input is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import pairwise

from stream_monitor.alerts.wording import number, percent
from stream_monitor.offline.labelled import (
    Confusion,
    Labelled,
    Reliable,
    confusions,
    reliability,
    residual_laws,
)
from stream_monitor.offline.law_picture import law_picture
from stream_monitor.offline.laws import Law
from stream_monitor.offline.markup import count, details, short, table

SIDE = 240
"""Height of a reliability diagram, px."""
NAMES = ("was", "now")


def labelled_pictures(samples: Sequence[tuple[str, Labelled]]) -> list[str]:
    """
    The pictures that the task of a model has.

    Parameters
    ----------
    samples : sequence of (name, Labelled)
        One, or what was and what is.
    """
    kept = [(name, s) for name, s in samples if s.task == samples[-1][1].task]
    if kept[-1][1].task == "regression":
        return _residuals(kept)
    return [*_matrices(kept), *_diagram(kept)]


def _matrices(samples: Sequence[tuple[str, Labelled]]) -> list[str]:
    found = confusions([s for _, s in samples])
    tables = "".join(
        _matrix(f"{name}, {count(s.rows, 'row')}", matrix)
        for (name, s), matrix in zip(samples, found, strict=True)
    )
    wide = " wide" if len(found[-1].answers) > 3 else ""
    text = "<strong>Confusion matrix</strong>: how labels were answered; dark is frequent in a row"
    return [
        (
            f'<figure class="matrices{wide}"><figcaption>{text}</figcaption>'
            f"<div>{tables}</div></figure>"
        )
    ]


def _matrix(caption: str, of: Confusion) -> str:
    totals = of.counts.sum(axis=1)
    rows = "".join(
        f'<tr><th scope="row">{escape(short(name))}</th>'
        + "".join(
            f'<td style="--s:{round(n / max(total, 1), 3):g}" title="'
            f'{escape(f"label {name}, answer {answer}: {n:,} of {total:,}")}">'
            f"{n:,}<small>{percent(n / max(total, 1), 2)}</small></td>"
            for answer, n in zip(of.answers, of.counts[i].tolist(), strict=True)
        )
        + "</tr>"
        for i, (name, total) in enumerate(zip(of.names, totals.tolist(), strict=True))
    )
    head = "".join(f'<th scope="col">{escape(short(name))}</th>' for name in of.answers)
    return (
        f'<div class="scroll"><table class="matrix"><caption>{escape(caption)}</caption><thead>'
        f'<tr><th scope="col">label ↓ answer →</th>{head}</tr></thead><tbody>{rows}</tbody>'
        "</table></div>"
    )


def _diagram(samples: Sequence[tuple[str, Labelled]]) -> list[str]:
    """A reliability diagram: what scores promise, and what came true."""
    found = [(name, s, reliability(s)) for name, s in samples]
    if not found[-1][2]:
        return []
    latest = found[-1][1]
    about = (
        f"of class {short(latest.classes[latest.positive])}"
        if latest.positive >= 0
        else "of the answer"
    )
    out = [f'<line x1="0" y1="{SIDE}" x2="100%" y2="0" class="ideal"/>']
    for part in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = round(SIDE * (1 - part), 1)
        anchor = "start" if not part else "end" if part == 1 else "middle"
        out.append(
            f'<line x2="100%" y1="{y:g}" y2="{y:g}" class="grid"/><text x="-6" y="{y + 4:g}" '
            f'text-anchor="end">{percent(part)}</text><text x="{100 * part:g}%" y="{SIDE + 16}" '
            f'text-anchor="{anchor}">{part:g}</text>'
        )
    kinds = NAMES[-len(found) :]
    for kind, (_, _, bins) in zip(kinds, found, strict=True):
        out += _reliable(kind, bins)
    rows = [
        (
            f"<td>{escape(name)}</td>",
            f"{b.rows:,}",
            number(b.score, 3),
            percent(b.share),
            f"{percent(b.low)} to {percent(b.high)}",
        )
        for name, _, bins in found
        for b in bins
    ]
    legend = " ".join(
        f'<span class="{kind}">{escape(name)}, {count(sum(b.rows for b in bins), "row")}'
        f"{_gap(s)}</span>"
        for kind, (name, s, bins) in zip(kinds, found, strict=True)
    )
    text = (
        f"scores {about}, and how often it came true. On the diagonal scores mean what they say; "
        "bars are 99 % intervals"
    )
    label = "; ".join(
        f"{name}: " + ", ".join(f"{b.score:.2g} came true in {b.share:.0%}" for b in bins)
        for name, _, bins in found
    )
    return [
        '<figure class="reliable"><figcaption><strong>Calibration</strong>: '
        f"{escape(text)}</figcaption>"
        f'<p class="legend">{legend}</p><div class="plot"><svg role="img" height="{SIDE + 20}" '
        f'aria-label="{escape(label)}">{"".join(out)}</svg></div>'
        + details(
            "Numbers",
            table(("rows of", "rows", "mean score", "came true", "99 %"), rows, kind="plain"),
        )
        + "</figure>"
    ]


def _gap(sample: Labelled) -> str:
    error = sample.metrics.get("calibration_error")
    return "" if error is None else f", calibration error {number(error, 3)}"


def _reliable(kind: str, bins: Sequence[Reliable]) -> list[str]:
    at = [(f"{round(100 * b.score, 2):g}%", round(SIDE * (1 - b.share), 1)) for b in bins]
    out = [
        f'<line x1="{x}" y1="{y:g}" x2="{u}" y2="{v:g}" class="{kind} path"/>'
        for (x, y), (u, v) in pairwise(at)
    ]
    for b, (x, y) in zip(bins, at, strict=True):
        high, low = (round(SIDE * (1 - v), 1) for v in (b.high, b.low))
        title = (
            f"mean score {number(b.score, 3)}: {percent(b.share)} of {count(b.rows, 'row')} came "
            "true"
        )
        out.append(
            f'<line x1="{x}" x2="{x}" y1="{high:g}" y2="{low:g}" class="{kind} reach"/>'
            f'<circle cx="{x}" cy="{y:g}" r="4" class="{kind}"><title>{title}</title></circle>'
        )
    return out


def _residuals(samples: Sequence[tuple[str, Labelled]]) -> list[str]:
    both = [samples[0], samples[-1]]
    alone = len(samples) == 1
    bins, counts = residual_laws([s for _, s in both])
    if not bins:
        return []
    law = Law(
        signal="residuals",
        change_ms=both[1][1].start_ms,
        found_ms=both[1][1].end_ms,
        change_row=0,
        found_row=0,
        bins=tuple(bins),
        before=tuple(0.0 for _ in bins) if alone else tuple(counts[0]),
        after=tuple(counts[1]),
        before_is=both[0][0],
        after_is=both[1][0],
        change={},
    )
    means = [float(s.residuals.mean()) if len(s.residuals) else 0.0 for _, s in both]
    mean = f"was {number(means[0])} and is" if not alone else "is"
    text = (
        f"prediction minus label; their mean {mean} {number(means[1])} (above 0: predictions are "
        "too high)"
    )
    return [law_picture(law, "Residuals", text)]
