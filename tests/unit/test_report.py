"""
The report of a replay says why: its sentences, and the numbers of its pictures, which numpy and
scikit-learn count again from the file.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import warnings
from contextlib import chdir
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from stream_monitor.cli import cli
from stream_monitor.offline.chart import Mark, Scale, apart_enough
from stream_monitor.offline.episodes import causes, episodes
from stream_monitor.offline.labelled import Labelled, confusions, reliability, residual_laws
from stream_monitor.offline.law_picture import law_picture, merged
from stream_monitor.offline.laws import Bin, Law
from stream_monitor.offline.replay import Point
from stream_monitor.offline.report import STYLE, render
from stream_monitor.offline.witness import Watch, Witness

ROWS, CHANGE = 2_900, 2_500
EVIL, CLASS = '<script>alert("1")</script>', "<b>yes</b>"
VERSION = '3"><img src=x>'
NAMES = (CLASS, "no")
CONFIG = "defaults: {windows: [last_500], baseline: {rows: 500}, thresholds: {f1: 0.5}}\n"


class Page(HTMLParser):
    """Tags with their attributes, texts, and the cells of each table."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.figures: dict[str, int] = {}
        """By caption: the number of the first table after it."""
        self.texts: list[str] = []
        self._caption: list[str] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag == "figcaption":
            self._caption = []

    def handle_endtag(self, tag: str) -> None:
        if tag == "figcaption" and self._caption is not None:
            self.figures.setdefault("".join(self._caption), len(self.tables))
            self._caption = None

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self._caption is not None:
            self._caption.append(data)
        if self.tables and self.tables[-1] and self.tables[-1][-1]:
            self.tables[-1][-1][-1] += data

    def table_of(self, caption: str) -> list[list[str]]:
        """The first table of the figure whose caption begins so."""
        found = next(n for text, n in self.figures.items() if text.startswith(caption))
        return self.tables[found]


def rows_of_people(rng: np.random.Generator) -> dict[str, list[Any]]:
    """As a data frame writes them; from CHANGE on three columns and the labels are others."""
    late = np.arange(ROWS) >= CHANGE
    amount = np.exp(rng.normal(3, 0.5, ROWS) + 0.8 * late)
    age = np.where(rng.random(ROWS) < np.where(late, 0.3, 0.02), np.nan, rng.integers(18, 80, ROWS))
    country = np.where(
        late & (rng.random(ROWS) < 0.5), "BR", rng.choice(["DE", "FR"], ROWS, p=[0.7, 0.3])
    )
    x = rng.normal(size=ROWS)
    score = np.round(1 / (1 + np.exp(-2 * x)), 6)
    label = rng.random(ROWS) < np.where(late & (rng.random(ROWS) < 0.6), 1 - score, score)
    names = np.array(["no", CLASS])
    seconds = np.datetime64("2025-10-09T06:00:00") + np.arange(ROWS)
    return {
        "timestamp": [f"{t}Z" for t in seconds.tolist() and np.datetime_as_string(seconds)],
        "version": [VERSION] * ROWS,
        EVIL: amount.tolist(),
        "age": ["" if v != v else v for v in age.tolist()],
        "country": country.tolist(),
        "flag": (rng.random(ROWS) < 0.2).tolist(),
        "const": [1] * ROWS,
        "score": score.tolist(),
        "prediction": names[(score > 0.5).astype(int)].tolist(),
        "label": names[label.astype(int)].tolist(),
    }


class Ran:
    """One replay with its report."""

    def __init__(self, folder: Path, columns: dict[str, list[Any]], config: str = CONFIG) -> None:
        folder.mkdir(exist_ok=True)
        with (folder / "m.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))
        (folder / "monitor.yaml").write_text(config)
        outputs = [f"--{k}={folder / k}" for k in ("report", "alerts", "summary")]
        given = ["replay", "m.csv", "--config", str(folder / "monitor.yaml")]
        with chdir(folder):
            run = CliRunner().invoke(cli, [*given, *outputs])
        assert run.exit_code == 0, run.output
        self.html = (folder / "report").read_text()
        self.path = folder / "report"
        self.page = Page(self.html)
        self.alerts = [json.loads(line) for line in (folder / "alerts").read_text().splitlines()]


@pytest.fixture(scope="module")
def columns() -> dict[str, list[Any]]:
    return rows_of_people(np.random.default_rng(4))


@pytest.fixture(scope="module")
def ran(columns, tmp_path_factory) -> Ran:
    return Ran(tmp_path_factory.mktemp("report"), columns)


def whole(text: str) -> int:
    return int(text.replace(",", ""))


def test_the_page_begins_with_what_happened_and_each_cause_is_told_once(ran):
    incidents = {a["incident"] for a in ran.alerts if a["severity"] != "info"}
    links = [a["href"] for tag, a in ran.page.tags if tag == "a"]
    assert links == [f"#cause-{n}" for n in range(1, len(incidents) + 1)]
    sections = [a.get("id") for tag, a in ran.page.tags if tag == "section"]
    assert set(links) <= {f"#{name}" for name in sections}
    text = " ".join("".join(ran.page.texts).split())
    first = text.index("things happened in")
    for heading in ("When", "How bad", "Meanwhile", "What next", "Windows at the end"):
        assert text.index(heading) > first, heading
    assert re.search(r"The error rate rose from 2\d\.?\d?% to [4-6]\d", text)
    assert "after 2,500 rows of this version" in text


def test_reference_and_current_counts_are_those_of_the_rows_of_the_file(ran, columns):
    contributors = {
        c["subject"]: c
        for a in ran.alerts
        if a["kind"] == "data_drift" and a["status"] == "firing"
        for c in a["evidence"].get("contributors", ())
    }
    assert {EVIL, "country"} <= contributors.keys()
    cells = ran.page.table_of(f"{EVIL}: ")
    before, after = (sum(whole(row[k]) for row in cells[1:]) for k in (1, 2))
    assert (before, after) == (CHANGE, contributors[EVIL]["rows"])
    amount = np.array(columns[EVIL])
    agree(cells, amount[:before], amount[before : before + after])
    shares = {row[0]: row[2:] for row in ran.page.table_of("country: ")[1:]}
    now = columns["country"][before : before + contributors["country"]["rows"]]
    for name in ("DE", "FR"):
        was = 100 * columns["country"][:before].count(name) / before
        at = 100 * now.count(name) / len(now)
        assert [float(s.rstrip("%")) for s in shares[name]] == pytest.approx([was, at], abs=0.05)


def agree(cells: list[list[str]], was: Any, now: Any) -> None:
    """Whether the counts of a table of bins are those of two samples."""
    seen = 0
    for row in cells[1:]:
        span = re.fullmatch(r"(?:below |)([\d.,]+)(?: to ([\d.,]+)| or more|)", row[0])
        assert span is not None, row
        low, high = (float((v or "inf").replace(",", "")) for v in span.groups())
        if row[0].startswith("below"):
            low, high = 0.0, low
        near = 1e-3 * (1 + low)  # edges are shown with four digits
        for part, got in ((was, row[1]), (now, row[2])):
            exact = int(((part >= low) & (part < high)).sum())
            least = int(((part >= low + near) & (part < high - near)).sum())
            most = int(((part >= low - near) & (part < high + near)).sum())
            assert least <= whole(got) <= most, row
            seen += exact == whole(got)
    assert seen > len(cells)  # and most agree whatever the digits


def test_answers_at_the_end_are_beside_the_baseline(ran, columns):
    score = np.array(columns["score"])
    cells = ran.page.tables[ran.page.figures["the score"]]
    assert cells[0][1:3] == ["baseline", "at the end"]
    agree(cells, score[:500], score)  # the last hour has all rows


def test_confusion_and_calibration_are_counted_from_the_rows_of_the_file(ran, columns):
    label, answer = (np.array(columns[k]) for k in ("label", "prediction"))
    score = np.array(columns["score"])
    matrix = ran.page.table_of("Confusion matrix")
    assert matrix[0][1:] == [CLASS, "no"]
    # a replay looks each few rows, so the first block may end some rows later
    found = [
        [whole(title.split(": ")[1].split(" of ")[0]) for title in titles]
        for titles in _titles(ran.page, "matrix")
    ]
    first, now = np.array(found[0] + found[1]), np.array(found[2] + found[3])
    ends = [e for e in range(500, 700) if _matrix(label, answer, e - 500, e) == first.tolist()]
    assert ends, "the first block of labelled rows"
    since = int(now.sum())
    ends = [
        e for e in range(CHANGE, ROWS + 1) if _matrix(label, answer, e - since, e) == now.tolist()
    ]
    assert ends, "the rows since the change"
    numbers = [row for row in ran.page.table_of("Calibration")[1:] if row[0] == "at the alert"]
    for end in ends:
        part = slice(end - since, end)
        at = np.minimum((score[part] * 10).astype(int), 9)
        true = label[part] == CLASS
        expected = [
            [int((at == b).sum()), score[part][at == b].mean(), true[at == b].mean()]
            for b in np.unique(at)
        ]
        got = [[whole(r[1]), float(r[2]), float(r[3].rstrip("%")) / 100] for r in numbers]
        if [g[0] for g in got] == [e[0] for e in expected]:
            assert np.array(got) == pytest.approx(np.array(expected), abs=6e-4)
            return
    pytest.fail("no end of the rows explains the bins of scores")


def _titles(page: Page, kind: str) -> list[list[str]]:
    """Titles of the cells of matrices, by row."""
    cells = [
        a["title"] or "" for tag, a in page.tags if tag == "td" and "--s" in (a.get("style") or "")
    ]
    return [cells[i : i + 2] for i in range(0, len(cells), 2)]


def _matrix(label: Any, answer: Any, start: int, end: int) -> list[int]:
    label, answer = label[start:end], answer[start:end]
    return [int(((label == a) & (answer == b)).sum()) for a in NAMES for b in NAMES]


def test_limit_and_reference_are_on_the_curves(ran):
    text = "".join(ran.page.texts)
    assert re.search(r"f1 over last_500; limit \(min\): 0\.5; reference \(the first 500 lab", text)
    kinds = [a.get("class") for tag, a in ran.page.tags if tag == "line"]
    assert kinds.count("limit") >= 1
    assert kinds.count("reference") >= 3


def test_bars_of_what_moved_are_parts_of_the_greatest(ran):
    styles = [a.get("style") or "" for tag, a in ran.page.tags if tag == "span"]
    widths = [int(s[4:-1]) for s in styles if s.startswith("--w:")]
    assert len(widths) >= 2
    assert max(widths) == 100
    assert min(widths) >= 0


def test_names_from_the_input_are_text(ran):
    assert not {"script", "img", "iframe", "link"} & {tag for tag, _ in ran.page.tags}
    for _, attributes in ran.page.tags:
        assert not [k for k in attributes if k.startswith("on") or k == "src"]
        assert (attributes.get("href") or "#").startswith("#")
    assert EVIL in "".join(ran.page.texts)
    assert "http" not in ran.html


def test_every_picture_has_a_name_for_those_who_do_not_see_it(ran):
    pictures = [a for tag, a in ran.page.tags if tag == "svg" and a.get("role") == "img"]
    assert len(pictures) > 8
    assert all(a.get("aria-label") for a in pictures)
    figures = sum(tag == "figure" for tag, _ in ran.page.tags)
    assert figures == sum(tag == "figcaption" for tag, _ in ran.page.tags)


def test_the_same_input_gives_the_same_bytes_and_looking_changes_nothing(
    ran, columns, tmp_path, monkeypatch
):
    again = Ran(tmp_path, columns)
    assert again.html == ran.html
    monkeypatch.setattr("stream_monitor.offline.witness.Witness.look", lambda *_: None)
    monkeypatch.setattr("stream_monitor.offline.witness.Witness.close", lambda *_: None)
    assert Ran(tmp_path / "blind", columns).alerts == ran.alerts


def test_without_alerts_it_says_what_was_watched_and_what_not(columns, tmp_path):
    few = {k: v[:300] for k, v in columns.items() if k != "label"}
    got = Ran(tmp_path, few)
    text = "".join(got.page.texts)
    assert "No alert fired in 300 predictions and 0 labels." in text
    assert "Drift was not watched: it has fewer rows than its baseline needs" in text
    assert ("details", {"open": None}) in got.page.tags
    one = Ran(tmp_path / "one", {k: v[:1] for k, v in columns.items()})
    assert "1 prediction and 1 label" in "".join(one.page.texts)


# ---- pictures of rows, held to others


CODES = st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 3)), min_size=1, max_size=60)


@settings(max_examples=60, deadline=None)
@given(CODES)
def test_a_confusion_matrix_is_that_of_scikit_learn(pairs):
    actual, predicted = (np.array(c, float) for c in zip(*pairs, strict=True))
    names = ("a", "b", "c", "d")
    none = np.full(len(actual), np.nan)
    (found,) = confusions([Labelled("multiclass", 0, 1, predicted, actual, none, names, -1, {})])
    code = {**{n: float(i) for i, n in enumerate(names)}, "none": -1.0}
    rows, columns = ([code[n] for n in of] for of in (found.names, found.answers))
    labels = sorted({*rows, *columns})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a single class
        theirs = sk.confusion_matrix(actual, predicted, labels=labels)
    index = [labels.index(c) for c in rows], [labels.index(c) for c in columns]
    assert found.counts.tolist() == theirs[np.ix_(*index)].tolist()
    assert found.counts.sum() == len(actual)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
def test_reliability_is_that_of_plain_python(pairs):
    score, actual = (np.array(c, float) for c in zip(*pairs, strict=True))
    rows = Labelled("binary", 0, 1, actual, actual, score, ("no", "yes"), 1, {})
    bins: dict[int, list[tuple[float, bool]]] = {}
    for s, y in pairs:
        bins.setdefault(min(int(s * 10), 9), []).append((s, y))
    expected = [
        (len(b), sum(s for s, _ in b) / len(b), sum(y for _, y in b) / len(b))
        for _, b in sorted(bins.items())
    ]
    found = reliability(rows)
    assert [r[:3] for r in found] == [pytest.approx(e) for e in expected]
    assert all(r.low <= r.share + 1e-9 and r.share <= r.high + 1e-9 for r in found)


def test_residuals_are_counted_on_the_bins_of_the_first_rows():
    rng = np.random.default_rng(1)
    none = np.full(500, np.nan)
    samples = [
        Labelled("regression", 0, 1, rng.normal(m, 1, 500), np.zeros(500), none, (), -1, {})
        for m in (0.0, 9.0)
    ]
    bins, counts = residual_laws(samples)
    for sample, found in zip(samples, counts, strict=True):
        r = sample.predicted
        assert found == [((r >= b.low) & (r < b.high)).sum() for b in bins]
    assert counts[1][-1] > 490


def test_bars_are_as_high_as_their_shares_and_joining_bins_loses_nothing():
    edges = np.linspace(0, 10, 11)
    bins = [Bin("", -np.inf, 0.0), *(Bin("", a, a + 1) for a in edges[:-1].tolist())]
    bins = [*bins, Bin("", 10.0, np.inf), Bin("missing")]
    before, after = (0.0, *range(1, 11), 0.0, 5.0), (0.0, *range(10, 0, -1), 0.0, 5.0)
    law = Law("x", 0, 1, 0, 9, tuple(bins), before, after, "before", "after", {})
    page = Page(law_picture(law, "`x`", ""))
    rects = [a for tag, a in page.tags if tag == "rect" and a["class"] == "was"]
    heights = [float(a["height"] or 0) for a in rects][:10]
    assert heights == pytest.approx([k * heights[0] for k in range(1, 11)], rel=0.05)
    areas = [float(a["height"] or 0) * float((a["width"] or "")[:-1]) for a in rects]
    assert areas[-1] == pytest.approx(5 * areas[0], rel=0.05)  # rows without a number too
    fine = Law(
        "x",
        0,
        1,
        0,
        9,
        tuple(Bin("", k / 100, (k + 1) / 100) for k in range(100)),
        tuple(map(float, range(100))),
        (1.0,) * 100,
        "",
        "",
        {},
    )
    few = merged(fine)
    assert len(few.bins) < 30
    assert (sum(few.before), sum(few.after)) == (sum(fine.before), 100.0)
    assert [b.low for b in few.bins][1:] == [b.high for b in few.bins][:-1]


# ---- size, width, colours


def alert(n: int, **more: Any) -> dict[str, Any]:
    start = f"2025-10-09T{n % 24:02}:{n % 60:02}:00.000Z"
    return {
        "id": f"{n:032x}", "fingerprint": f"{n:032x}", "status": "firing", "severity": "warning",
        "kind": "data_drift", "model": "m", "version": "1", "segment": None, "subject": "x",
        "detector": "js", "value": 0.5, "threshold": 0.1, "starts_at": start, "ends_at": None,
        "incident": f"{n:032x}", "summary": f"m 1: `x` has drifted ({'long ' * 40})",
        "evidence": {}, **more,
    }  # fmt: skip


def test_a_page_of_a_hundred_features_and_hundreds_of_causes_has_less_than_two_megabytes():
    features = [f"feature with a long name number {i}" for i in range(100)]
    witness = Witness()
    bins = tuple(Bin("", k + 0.123456789, k + 1.123456789) for k in range(60))
    alerts, models = [], {}
    for v in range(30):
        version = str(v)
        for n, name in enumerate(features):
            change = {
                "subject": name, "effect": 0.3, "what": "mean", "before": 1.0, "after": 2.0,
                "change": "mean from 1 to 2", "changed_at": "2025-10-09T06:00:00.000Z",
            }  # fmt: skip
            law = Law(
                name,
                0,
                2_000_000_000_000,
                5,
                9,
                bins,
                (11.0,) * 60,
                (12.0,) * 60,
                "before",
                "since",
                change,
            )
            if len(witness.laws) < 3_000:
                witness.laws["m", version, "data_drift", name, str(n)] = law
        found = {"contributors": [{"subject": features[0]}]}
        alerts += [
            alert(v, version=version, detector="evidence", evidence=found),
            *(
                alert(1_000 * v + n + 50, version=version, subject=f)
                for n, f in enumerate(features)
            ),
        ]
        drift = dict.fromkeys(("psi", "js", "ks", "wasserstein", "evidence"), 0.123456)
        models[version] = {
            "predictions": 1_000_000, "labels": 900_000, "pending": 0, "expired": 0, "evicted": 0,
            "task": "binary", "windows": {"last_1000": {"start": "2025-10-09T06:00:00.000Z",
            "end": "2025-10-09T06:00:00.000Z", "labels": 1000, "accuracy": 0.9}},
            "features": {f: {"rows": 9, "mean": 1.0, "drift": drift} for f in features},
        }  # fmt: skip
        witness.watched["m", version] = Watch("1/30d", {}, 9, {}, {"accuracy": 0.9}, "the baseline")
    metrics = dict.fromkeys(("accuracy", "f1", "recall", "precision", "roc_auc"), 0.123456)
    points = [
        Point("m", str(v), 1_760_000_000_000 + i, 1_000, metrics)
        for v in range(30)
        for i in range(300)
    ]
    summary = {
        "records": {"predictions": dict.fromkeys(("received", "accepted", "duplicate",
                                                  "rejected"), 9)},
        "models": {"m": {"versions": models}}, "alerts": {"firing": 9},
    }  # fmt: skip
    page = render(summary, alerts, points, "m", witness=witness)
    assert len(page.encode()) < 2_000_000
    assert len(causes(episodes(alerts))) > 1_000


def test_texts_have_twelve_pixels_and_colours_contrast_in_light_and_dark():
    sizes = [float(s) for s in re.findall(r"font(?:-size)?:(?:[^;{}]* )?([\d.]+)px", STYLE)]
    assert len(sizes) > 8
    assert min(sizes) >= 12
    themes = re.findall(r":root\{[^}]*--fg:[^}]*\}", STYLE)
    assert len(themes) == 3  # light, dark, print
    for theme in themes:
        colours = dict(re.findall(r"--([a-z-]+):(#[0-9a-f]+)", theme))
        for name in ("fg", "dim", "data", "warning", "critical", "ok"):
            assert contrast(colours[name], colours["bg"]) >= 4.5, (name, colours)
        if "soft" in colours:
            assert contrast(colours["fg"], colours["soft"]) >= 4.5


def contrast(one: str, other: str) -> float:
    """The contrast of two colours by WCAG 2."""

    def light(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    a, b = sorted((light(one), light(other)))
    return (b + 0.05) / (a + 0.05)


def test_numbers_of_causes_that_were_found_together_share_a_place():
    scale = Scale(0, 1_000, 0.0, 1.0)
    marks = [Mark(str(n), "info", 0, at, None) for n, at in ((1, 30), (2, 10), (3, 900))]
    assert [m.name for m in apart_enough(scale, marks)] == ["2 1", "", "3"]


BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
LOOK = """<body><iframe id=f src="report.html" style="border:0;width:400px;height:900px"></iframe>
<script>f.onload = () => {const d = f.contentDocument, w = f.contentWindow; let least = 99;
for (const e of d.querySelectorAll('main *')) if ([...e.childNodes].some(
  c => c.nodeType == 3 && c.data.trim())) least = Math.min(least,
  parseFloat(w.getComputedStyle(e).fontSize)); const p = document.createElement('p');
p.textContent = `width ${d.documentElement.scrollWidth} of ${d.documentElement.clientWidth}, `
  + `text ${least} px`; document.body.append(p)}</script></body>"""


@pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")
def test_a_browser_of_400_pixels_scrolls_down_only(ran, tmp_path):
    shutil.copy(ran.path, tmp_path / "report.html")
    (tmp_path / "look.html").write_text(LOOK)
    command = [
        str(BROWSER),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--allow-file-access-from-files",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--virtual-time-budget=2000",
        "--dump-dom",
        f"file://{tmp_path / 'look.html'}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    found = re.search(r"width (\d+) of (\d+), text ([\d.]+) px</p>", done.stdout)
    assert found is not None, done.stderr[-500:]
    assert int(found[1]) <= int(found[2])
    assert float(found[3]) >= 12
