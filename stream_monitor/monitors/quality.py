"""
Did a field break? Missing and broken values, and outliers, as shares of a recent window against the
baseline.

Rule of the file: pure functions of the windows of features and their baseline. How a share is
compared with that of the baseline is in `shares`. Too few rows give no verdict.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from stream_monitor.alerts.wording import apart, percent, signal
from stream_monitor.events.origins import prediction_at
from stream_monitor.monitors.baseline import FeatureProfile, Profile
from stream_monitor.monitors.context import Context
from stream_monitor.monitors.faults import BITS
from stream_monitor.monitors.inputs import Inputs
from stream_monitor.monitors.shares import Share, against_rules, shares_of, value_share
from stream_monitor.monitors.value_rules import FIELDS
from stream_monitor.monitors.windowed import Windowed
from stream_monitor.settings import LOOKED_AT, OTHER, STEADY, ModelSettings
from stream_monitor.stats.inference import is_back
from stream_monitor.times import DAY_MS
from stream_monitor.verdicts import AlertKey, Span, Verdict

NAMES_SHOWN = 5


def recent(
    inputs: Inputs, watermark_ms: int, rows_min: int
) -> list[tuple[dict[str, Windowed], Span]]:
    """
    Every feature in the newest rows, in more of them and in many (`LOOKED_AT`), with the bounds of
    these windows; none if even a day has too few rows.

    A window has as few panes as possible. So neither a pane that has only begun, nor rows from
    before the change, hide what is new.
    """
    found: list[tuple[dict[str, Windowed], Span]] = []
    for times in LOOKED_AT:
        if inputs.profile is None:
            break
        vector, start, end = inputs.panes.newest(
            times * rows_min, watermark_ms, DAY_MS, slice(-1, None)
        )
        if vector[-1] < rows_min:
            break
        span = Span(start, end, int(vector[-1]))
        if found and found[-1][1] == span:
            found.append(found[-1])
        else:
            found.append((inputs.layout.all_windowed(vector), span))
    return found


def judge(
    context: Context, inputs: Inputs, watermark_ms: int, sources: Sequence[str] = ()
) -> Iterator[Verdict]:
    """
    Verdicts on missing values, broken values and outliers of every feature, one a rule.

    With the names of source partitions they name some of the newest rows that break the rule.
    """
    for verdict in _judge(context, inputs, watermark_ms):
        bit = BITS.get(verdict.key.detector, 0)
        rows = () if verdict.clear else inputs.drift.newest.faulty(verdict.key.subject, bit)
        found = [place for row in rows if (place := prediction_at(row, sources)) is not None]
        if found:
            shown = {**verdict.evidence, "examples": found}
            verdict = msgspec.structs.replace(verdict, evidence=shown)
        yield verdict


def _judge(context: Context, inputs: Inputs, watermark_ms: int) -> Iterator[Verdict]:
    if inputs.profile is None:
        return
    found = recent(inputs, watermark_ms, context.settings.quality.min_rows)
    for name in inputs.layout.start if found else ():
        windows = [(now[name], span) for now, span in found if now[name].rows]
        if windows:
            dispersion = inputs.drift.dispersion(name)
            yield from _verdicts(context, name, windows, inputs.profile.features[name], dispersion)
    yield from _of_values(context, inputs, watermark_ms)


def unwatched(context: Context, inputs: Inputs) -> Iterator[Verdict]:
    """
    The verdict on fields that a given baseline does not have, or has beyond the limit; those of a
    baseline that was learnt are learnt too.
    """
    if inputs.extends or inputs.profile is None or not (inputs.unknown_at or inputs.left_out):
        return
    beyond = inputs.left_out
    known = {*beyond, OTHER} if beyond else ()
    names = sorted(
        name
        for name, row in inputs.unknown_at.items()
        if inputs.rows - row < context.settings.baseline.rows and name not in known
    )
    texts = []
    if names:
        texts.append(
            "the events have fields that the baseline does not have, so they are not watched: "
            f"{_shown(names)}; build a baseline that has them"
        )
    if beyond:
        texts.append(
            f"limits.features = {inputs.limits.features:,} leaves out {len(beyond):,} features of "
            f"the baseline, so they are not watched: {_shown(beyond)}; raise the limit, or build a "
            "baseline without them"
        )
    key = context.key("data_quality", FIELDS, "profile")
    yield Verdict(
        key=key,
        level="info" if texts else "ok",
        clear=not texts,
        value=float(len(names) + len(beyond)),
        threshold=0.0,
        direction="up",
        window=Span(0, 0, inputs.rows),
        summary=f"{key.title}: "
        f"{'; '.join(texts) or 'the events have only fields that the baseline has'}",
        baseline_id=context.baseline_id,
        cooldown_ms=context.settings.cooldown_ms,
        evidence={"fields": [*names, *beyond][:NAMES_SHOWN], "guarantee": "none"},
    )


def _shown(names: list[str]) -> str:
    """Some names."""
    more = f" and {len(names) - NAMES_SHOWN:,} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(signal(name) for name in names[:NAMES_SHOWN]) + more


def _verdicts(
    context: Context,
    name: str,
    windows: list[tuple[Windowed, Span]],
    profile: FeatureProfile,
    dispersion: float,
) -> Iterator[Verdict]:
    """One verdict for each rule."""
    key = context.key("data_quality", name, "")
    found: dict[AlertKey, list[tuple[Share, Span]]] = {}
    for now, span in windows:
        for rule, share in shares_of(key, now, profile, context.settings, dispersion):
            found.setdefault(rule, []).append((share, span))
    for rule, shares in found.items():
        judged = _judged(shares)
        what = f"{signal(name)} is {judged.share.what} in"
        yield _verdict(context, rule, judged, what)


def _of_values(context: Context, inputs: Inputs, watermark_ms: int) -> Iterator[Verdict]:
    """Verdicts on patterns, repeated values and unknown fields: rules that no baseline knows."""
    rules, quality = inputs.value_rules, context.settings.quality
    found: dict[tuple[str, str], list[tuple[Share, Span]]] = {}
    for times in LOOKED_AT if rules.names else ():
        sums, start, end = rules.panes.newest(
            times * quality.min_rows, watermark_ms, DAY_MS, slice(-1, None)
        )
        for (name, rule), (part, rows) in rules.counts(sums).items():
            share = value_share(rule, part, rows, quality) if rows >= quality.min_rows else None
            if share is not None:
                found.setdefault((name, rule), []).append((share, Span(start, end, int(rows))))
    for (name, rule), shares in found.items():
        judged = _judged(shares)
        what = f"{signal(name)} is {judged.share.what} in"
        if name == FIELDS:
            what = "a field that neither the baseline nor `features` has"
            if fields := sorted(inputs.unknown_at.keys() - rules.described)[:NAMES_SHOWN]:
                what += f" ({', '.join(map(signal, fields))})"
            what += " is in"
        yield _verdict(context, context.key("data_quality", name, rule), judged, what)


class Judged(NamedTuple):
    """A share in the window that is clearest, and its verdict."""

    share: Share
    span: Span
    bad: bool
    clear: bool


def _judged(windows: list[tuple[Share, Span]]) -> Judged:
    """
    A share by its windows, newest first: it is over when it is so in the newest, and not by chance.
    """
    newest, steady = windows[0][0], windows[min(STEADY, len(windows) - 1)][0]
    clear = is_back((newest.part, newest.rows), (steady.part, steady.rows), newest.limit)
    beyond = None if clear else next((w for w in windows if w[0].surplus > w[0].margin), None)
    shown = beyond or next(
        (w for w in windows if not clear and w[0].value > w[0].limit), windows[0]
    )
    return Judged(*shown, beyond is not None, clear)


def _verdict(context: Context, key: AlertKey, found: Judged, what: str) -> Verdict:
    """The verdict on a share; `what` is the subject of its sentence, up to the share itself."""
    share = found.share
    said, limit = apart(share.value, share.limit, form=percent, digits=3)
    usual = f"baseline {percent(share.baseline)}, " if share.usual_rows else ""
    counts = f"{int(share.part):,} of {int(share.rows):,}; {usual}limit {limit} by {share.rule}"
    return Verdict(
        key=key,
        level="warning" if found.bad else "ok",
        clear=found.clear,
        value=share.value,
        threshold=share.limit,
        direction="up",
        window=found.span,
        summary=f"{key.title}: {what} {said} of rows ({counts})",
        baseline_id=context.baseline_id,
        cooldown_ms=context.settings.cooldown_ms,
        evidence={
            "rows": int(share.rows),
            "count": int(share.part),
            "reference_ratio": share.baseline,
            "guarantee": "none",
        },
    )


def breaches(profile: Profile, settings: ModelSettings) -> list[str]:
    """
    Sentences on the rules under `features` that the baseline itself breaks, of more rows than
    would be an alert.
    """
    found = []
    limit = 1.0 if settings.quality.violation_ratio is None else settings.quality.violation_ratio
    for name, rule in settings.features.items():
        f = profile.features.get(name)
        if f is None or not f.rows:
            continue
        for key, n in against_rules(f, rule).items():
            if n / f.rows > (0.0 if key == "required" else limit):
                found.append(
                    f"the baseline itself breaks `{key}` of feature `{name}` in "
                    f"{percent(n / f.rows)} of its rows: rows like these are an alert"
                )
    return found
