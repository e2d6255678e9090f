"""
Accuracy estimated without labels: how far it is from the realised one, and how often and how soon
it says that it is not valid.

Rule of the file: seeded streams of a model with a calibrated score, or one that is too sure of
itself, go through a model version as the worker folds them. Each window's estimate is compared with
the labels of the same rows, which come later. The last third of a stream is another world: other
inputs (the share of easy rows changes, what a score means stays), another concept (a tenth or a
quarter of the labels are turned), or nothing.

    python bench/estimate.py                 # the table of docs/monitors.md
    python bench/estimate.py --seeds 3 --rows 6000
    python bench/estimate.py --false-alarms 600000    # labels of each of four streams
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_monitor.join.rows import Pairs
from stream_monitor.monitors.rows import Rows
from stream_monitor.monitors.version import Version
from stream_monitor.settings import CoreSettings, Labels, ModelSettings
from stream_monitor.verdicts import Verdict

Float = NDArray[np.float64]
T0, STEP_MS, CHUNK, WINDOW = 1_760_000_000_000, 100, 500, 1_000
LATE = 2_000
"""Rows between a prediction and its label."""
STREAMS = {
    "clean": ("calibrated", ""),
    "clean, too sure": ("too sure", ""),
    "clean, three classes": ("classes", ""),
    "clean, score alone": ("alone", ""),
    "other inputs": ("calibrated", "inputs"),
    "other inputs, too sure": ("too sure", "inputs"),
    "a tenth of labels turned": ("calibrated", "0.1"),
    "a quarter of labels turned": ("calibrated", "0.25"),
    "a quarter turned, three classes": ("classes", "0.25"),
}


SETTINGS, MULTICLASS = (
    ModelSettings(task=task, labels=Labels(max_delay_ms=600_000))
    for task in ("binary", "multiclass")
)


class Stream(NamedTuple):
    """Scores of the positive class (or of three), answers, and labels."""

    scores: Float
    answers: Float
    labels: Float
    changed: int
    """The row from which on the world is another one."""


class Found(NamedTuple):
    """What one stream gave."""

    errors: list[float]
    """Absolute errors of the shown estimates of the rows before the change, then after it."""
    later: list[float]
    inside: list[bool]
    """Whether the interval contained the realised accuracy."""
    false: int
    """Times that it was said to be invalid without a change of the concept."""
    delay: int | None
    """Labels of changed rows until it was said; None: never."""
    old: list[float]
    """Errors after the change of the accuracy of the newest labelled rows, taken for the newest."""
    fell: float
    """Accuracy after the change less that before it."""


def stream(kind: str, change: str, rows: int, rng: np.random.Generator) -> Stream:
    """A stream of one kind, whose last third is another world."""
    changed = rows * 2 // 3
    after = np.arange(rows) >= changed
    easy = rng.random(rows) < np.where(after & (change == "inputs"), 0.2, 0.7)
    turned = np.where(after, float(change), 0.0) if change[:1].isdigit() else np.zeros(rows)
    logit = np.where(easy, rng.normal(0, 4, rows), rng.normal(0, 1, rows))
    truth = 1 / (1 + np.exp(-logit))
    if kind == "classes":
        rest = rng.random(rows)
        best = 1 / (1 + 2 * np.exp(-np.abs(logit)))
        table = np.stack([best, (1 - best) * rest, (1 - best) * (1 - rest)], axis=1)
        order = rng.permuted(np.tile(np.arange(3), (rows, 1)), axis=1)
        scores = np.take_along_axis(table, order, axis=1)
        draw = rng.random(rows)[:, None]
        labels = np.minimum((scores.cumsum(axis=1) < draw).sum(axis=1), 2)
        answers = scores.argmax(axis=1)
        flip = rng.random(rows) < turned
        labels = np.where(flip, (answers + 1 + (rng.random(rows) < 0.5)) % 3, labels)
        return Stream(scores, answers.astype(float), labels.astype(float), changed)
    labels = rng.random(rows) < truth
    labels ^= rng.random(rows) < turned
    shown = 1 / (1 + np.exp(-2.5 * logit)) if kind == "too sure" else truth
    answers = (shown >= 0.5).astype(float) if kind != "alone" else np.full(rows, np.nan)
    return Stream(shown, answers, labels.astype(float), changed)


def run(of: Stream, change: str) -> Found:
    """Fold one stream: predictions as they come, and each label `LATE` rows later."""
    settings = SETTINGS if of.scores.ndim == 1 else MULTICLASS
    version = Version("m", "1", CoreSettings(defaults=settings), {}, [], [])
    columns = (
        ("prediction", *(f"score.{k}" for k in range(3)))
        if of.scores.ndim == 2
        else ("prediction", "score")
    )
    for k in range(3 if of.scores.ndim == 2 else 0):
        version.class_column(str(k))
    right = _right(of)
    n, found = len(of.labels), Found([], [], [], 0, None, [], 0.0)
    said: list[int] = []
    told: dict[str, bool] = {}
    labelled = 0

    def judge(verdict: Verdict) -> None:
        if verdict.key.detector == "estimate":
            bad = verdict.level != "ok"
            if bad and not told.get("bad"):
                said.append(labelled)
            told["bad"] = bad

    errors: list[tuple[int, float, bool]] = []
    old: list[float] = []
    for start in range(0, n + LATE, CHUNK):
        now = T0 + (start + CHUNK) * STEP_MS
        if start < n:
            here = slice(start, start + CHUNK)
            scores = of.scores[here] if of.scores.ndim == 2 else of.scores[here, None]
            cells = np.concatenate([of.answers[here, None], scores], axis=1).T.copy()
            times = T0 + np.arange(start, start + len(cells.T)) * STEP_MS
            version.take(Rows(columns, cells, times, []), now)
        if start >= LATE:
            labelled = start - LATE + CHUNK
            version.take_pairs(_pairs(of, start - LATE, labelled), [], now)
        version.reduce(judge, look=False)
        version.tick(now, judge, "")
        estimate, name = version.estimate, f"last_{WINDOW}"
        if start < n and not estimate.why_not(name, version.watermark_ms)[0]:
            expected = estimate.expected(name, version.watermark_ms)
            if expected is not None:
                end = start + CHUNK
                value, (low, high) = expected.metrics["accuracy"]
                realised = float(right[end - expected.span.count : end].mean())
                errors.append((end, value - realised, low <= realised <= high))
                if end >= of.changed + WINDOW:
                    old.append(abs(version.performance.window(name)[0]["accuracy"] - realised))
    assert not version.contained.off, version.contained.off
    concept = change[:1].isdigit()
    true = [at for at in said if concept and at > of.changed]
    return found._replace(
        errors=[abs(e) for at, e, _ in errors if at <= of.changed],
        later=[abs(e) for at, e, _ in errors if at >= of.changed + WINDOW],
        inside=[ok for at, _, ok in errors if not concept or at <= of.changed],
        false=len(said) - len(true),
        old=old,
        fell=float(right[of.changed :].mean() - right[: of.changed].mean()),
        delay=true[0] - of.changed if true else None,
    )


def _right(of: Stream) -> NDArray[np.bool_]:
    answers = (
        np.where(np.isnan(of.answers), of.scores >= 0.5, of.answers)
        if (of.scores.ndim == 1)
        else of.answers
    )
    return answers == of.labels


def _pairs(of: Stream, start: int, end: int) -> Pairs:
    here = slice(start, end)
    m = len(of.labels[here])
    nan = np.full(m, np.nan)
    classes = of.scores.ndim == 2
    return Pairs(
        row=np.arange(m),
        version=np.zeros(m, np.int64),
        id=np.arange(start + 1, start + m + 1).astype(np.uint64),
        time=T0 + np.arange(start, start + m) * STEP_MS,
        outcome=of.answers[here],
        score=nan if classes else of.scores[here],
        segment=np.zeros(m, np.int64),
        probabilities=of.scores[here] if classes else np.empty((m, 0)),
        label=of.labels[here],
        label_time=T0 + np.arange(start, start + m) * STEP_MS + LATE * STEP_MS,
        previous=nan,
        corrected=np.zeros(m, bool),
        origin=np.arange(m),
    )


CLEAN = {
    "accuracy 0.81": lambda rng, n: np.where(
        rng.random(n) < 0.7, rng.normal(0, 4, n), rng.normal(0, 1, n)
    ),
    "accuracy 0.63": lambda rng, n: rng.normal(0, 0.7, n),
    "accuracy 0.97, a rare class": lambda rng, n: rng.normal(-5, 2, n),
    "accuracy 0.99": lambda rng, n: rng.choice([-1, 1], n) * rng.normal(5, 1, n),
}
"""Logits of calibrated scores, in streams that do not change."""


def false_alarms(rows: int) -> None:
    """Times that labels of streams of 100,000 rows without a change contradict the estimate."""
    each = min(rows, 100_000)
    for name, logits in CLEAN.items():
        times = 0
        for seed in range(rows // each):
            rng = np.random.default_rng([seed, 7])
            score = 1 / (1 + np.exp(-logits(rng, each)))
            labels = (rng.random(each) < score).astype(np.float64)
            of = Stream(score, (score >= 0.5).astype(np.float64), labels, each)
            version = Version("m", "1", CoreSettings(defaults=SETTINGS), {}, [], [])
            said: list[Verdict] = []
            for start in range(0, each, 10 * CHUNK):
                version.take_pairs(_pairs(of, start, start + 10 * CHUNK), [], T0)
                version.reduce(said.append, look=False)
            assert not version.contained.off, version.contained.off
            times += len({v.window for v in said if v.key.detector == "estimate" and not v.clear})
        print(f"{name}: said to be invalid {times} times in {rows // each * each:,} labels")


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--rows", type=int, default=30_000)
    parser.add_argument("--false-alarms", type=int, help="labels a stream; without the table")
    options = parser.parse_args(argv)
    if options.false_alarms:
        false_alarms(options.false_alarms)
        return
    print(
        f"| stream ({options.seeds} x {options.rows:,} rows) | accuracy changes by | mean error of "
        "the estimate | after the change | of the newest labels then | in the interval | said "
        "invalid without cause | found | labels until then, median and p90 |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name, (kind, change) in STREAMS.items():
        all_found = [
            run(stream(kind, change, options.rows, np.random.default_rng([seed, 14])), change)
            for seed in range(options.seeds)
        ]
        print(row(name, all_found, concept=change[:1].isdigit()))


def row(name: str, found: list[Found], *, concept: bool) -> str:
    """One line of the table."""
    before = [e for f in found for e in f.errors]
    later = [e for f in found for e in f.later]
    inside = [ok for f in found for ok in f.inside]
    delays = [f.delay for f in found if f.delay is not None]
    cells = [
        name,
        f"{np.mean([f.fell for f in found]):+.3f}",
        f"{np.mean(before):.4f}" if before else "",
        f"{np.mean(later):.4f}" if later else "",
        f"{np.mean([e for f in found for e in f.old]):.4f}" if later else "",
        f"{np.mean(inside):.2%}" if inside else "",
        str(sum(f.false for f in found)),
        f"{len(delays)} of {len(found)}" if concept else "",
        f"{np.median(delays):,.0f}, {np.quantile(delays, 0.9):,.0f}" if delays else "",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
