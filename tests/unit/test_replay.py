"""What `replay` says of files, held to numpy and scikit-learn on the same rows."""

from __future__ import annotations

import base64
import csv
import gzip
import itertools
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from river.drift import ADWIN
from sklearn import metrics as sk

from stream_monitor.cli import cli
from stream_monitor.config import parse
from stream_monitor.errors import InputError
from stream_monitor.evaluate import Shard
from stream_monitor.ingest import Ingest, tick
from stream_monitor.offline.episodes import episodes
from stream_monitor.offline.pace import Pace, of_files
from stream_monitor.offline.replay import Replay

T0 = 1_700_000_000_000
CONFIG = "defaults: {windows: [last_100, 10m], baseline: {rows: 200}}\n"
Event = dict[str, Any]


class Result:
    """One run of the command."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        files = {
            name: folder / f"out.{name}" for name in ("summary", "alerts", "dead-letters", "report")
        }
        for file in files.values():
            file.unlink(missing_ok=True)
        outputs = [part for name, file in files.items() for part in (f"--{name}", str(file))]
        run = CliRunner().invoke(cli, ["replay", *outputs, *arguments])
        if run.exception is not None and not isinstance(run.exception, SystemExit):
            raise run.exception
        self.code, self.stdout, self.stderr = run.exit_code, run.stdout, run.stderr
        if files["summary"].exists():
            self.summary: Event = json.loads(files["summary"].read_text())
            self.alerts, self.dead = (
                [json.loads(line) for line in files[name].read_text().splitlines()]
                for name in ("alerts", "dead-letters")
            )
            self.report = files["report"].read_text()

    def version(self, model: str = "m", version: str = "") -> Event:
        found: Event = self.summary["models"][model]["versions"][version]
        return found


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, Iterable[Event] | str], str]:
    def write(name: str, content: Iterable[Event] | str) -> str:
        (tmp_path / name).write_text(
            content
            if isinstance(content, str)
            else "".join(json.dumps(row) + "\n" for row in content)
        )
        return str(tmp_path / name)

    return write


@pytest.fixture
def config(write) -> str:
    return write("monitor.yaml", CONFIG)


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1_000)


# ---- the oracle: a dictionary, and scikit-learn


def joined(
    predictions: Iterable[Event], labels: Iterable[Event]
) -> dict[tuple[str, str], list[tuple[Event, Any]]]:
    """
    The labelled predictions of each model version in order of time: the first prediction of an id
    counts, and its label with the greatest time.
    """
    first: dict[tuple[str, str, str], Event] = {}
    for p in predictions:
        first.setdefault((p["model"], p.get("version", ""), p["event_id"]), p)
    found: dict[tuple[str, str], list[tuple[Event, Any]]] = {}
    for (model, version, event_id), p in first.items():
        mine = [
            x
            for x in labels
            if x["event_id"] == event_id
            and x.get("model", model) == model
            and x.get("version", version) == version
        ]
        found.setdefault((model, version), [])
        if mine:
            found[model, version].append((p, max(mine, key=lambda x: x["timestamp"])["label"]))
    for rows in found.values():
        rows.sort(key=lambda row: row[0]["timestamp"])
    return found


def binary(rows: list[tuple[Event, Any]]) -> dict[str, float]:
    y = np.array([int(label) for _, label in rows])
    predicted, score = (
        np.array([p["prediction"] for p, _ in rows]),
        np.array([p["score"] for p, _ in rows]),
    )
    bins = np.minimum((score * 10).astype(int), 9)
    ece = sum(
        abs(score[bins == b].mean() - y[bins == b].mean()) * (bins == b).mean()
        for b in range(10)
        if (bins == b).any()
    )
    return {
        "accuracy": sk.accuracy_score(y, predicted),
        "precision": sk.precision_score(y, predicted),
        "recall": sk.recall_score(y, predicted),
        "f1": sk.f1_score(y, predicted),
        "roc_auc": sk.roc_auc_score(y, score),
        "log_loss": sk.log_loss(y, score),
        "brier_score": sk.brier_score_loss(y, score),
        "calibration_error": ece,
    }


def multiclass(rows: list[tuple[Event, Any]]) -> dict[str, float]:
    names = sorted(rows[0][0]["score"])
    y = [label for _, label in rows]
    p = np.array([[p["score"][name] for name in names] for p, _ in rows])
    predicted = [names[i] for i in p.argmax(axis=1)]
    precision, recall, f1, _ = sk.precision_recall_fscore_support(
        y, predicted, average="weighted", zero_division=0
    )
    one_hot = np.array([[name == label for name in names] for label in y])
    return {
        "accuracy": sk.accuracy_score(y, predicted),
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "roc_auc": sk.roc_auc_score(y, p, multi_class="ovr", average="macro", labels=names),
        "log_loss": sk.log_loss(y, p, labels=names),
        "brier_score": float(((p - one_hot) ** 2).sum(axis=1).mean()),
    }


def regression(rows: list[tuple[Event, Any]]) -> dict[str, float]:
    y, p = [label for _, label in rows], [p["prediction"] for p, _ in rows]
    return {
        "mae": sk.mean_absolute_error(y, p),
        "rmse": float(np.sqrt(sk.mean_squared_error(y, p))),
        "r2": sk.r2_score(y, p),
        "bias": float(np.mean(np.subtract(p, y))),
    }


def check_windows(
    told: Event,
    rows: list[tuple[Event, Any]],
    metrics_of: Callable[[list[tuple[Event, Any]]], dict[str, float]],
) -> None:
    assert set(told["windows"]) == {"last_100", "10m", "all"}
    for name, window in told["windows"].items():
        start, end = ms(window["start"]), ms(window["end"])
        if name == "10m":
            last = rows[-1][0]["timestamp"]
            assert last < end <= last + 10_000
            assert 600_000 <= end - start < 660_000  # whole panes
            inside = [row for row in rows if start <= row[0]["timestamp"] < end]
        else:
            inside = rows[-100:] if name == "last_100" else rows
            assert (start, end) == (inside[0][0]["timestamp"], inside[-1][0]["timestamp"])
        assert window["labels"] == len(inside)
        assert 0 < window["coverage"] <= 1
        want = metrics_of(inside)
        binned = {"roc_auc"} if name != "last_100" else set()  # within its bound, or left out
        assert set(window) - {"start", "end", "labels", "coverage"} | binned == set(want) | binned
        for metric in set(window) & set(want):
            assert window[metric] == pytest.approx(
                want[metric], abs=0.02 if metric in binned else 1e-9
            ), (name, metric)


# ---- performance


def stream(
    n: int, seed: int, predict: Callable[[random.Random, int], tuple[Event, Any]]
) -> tuple[list[Event], list[Event]]:
    """
    Predictions and labels with all that happens.

    One or two versions, ids that come twice, labels late, early, missing, repeated, corrected (the
    correction may be older than what it meets), with a model or without.
    """
    rnd = random.Random(seed)
    predictions, labels = [], []
    for i in range(n):
        outcome, label = predict(rnd, i)
        head = {"event_id": f"e{i}", "model": "m", **({"version": "2"} if i % 3 == 0 else {})}
        time = T0 + i * 2_000 + rnd.randrange(1_000)
        predictions.append(
            {**head, "timestamp": time, **outcome, "features": {"x": rnd.gauss(0, 1)}}
        )
        if rnd.random() < 0.05:
            predictions.append({**predictions[-1], "timestamp": time + rnd.randrange(1, 900_000)})
        if rnd.random() < 0.1:
            continue
        due = max(time + rnd.randrange(-60_000, 600_000), T0)
        keep = {k: v for k, v in head.items() if k == "event_id" or rnd.random() < 0.5}
        labels.append({**keep, "label": label, "timestamp": due})
        if rnd.random() < 0.05:
            labels.append(dict(labels[-1]))
        if rnd.random() < 0.1:
            other = predict(rnd, i)[1]
            labels.append(
                {
                    **keep,
                    "label": other,
                    "timestamp": due + rnd.choice([-1, 1]) * rnd.randrange(1, 50_000),
                }
            )
    return predictions, labels


def a_binary(rnd: random.Random, _: int) -> tuple[Event, Any]:
    score = rnd.random()
    return {"prediction": int(score >= 0.5), "score": score}, int(rnd.random() < score)


def a_class(rnd: random.Random, _: int) -> tuple[Event, Any]:
    weights = [rnd.expovariate(1) for _ in range(3)]
    score = {
        name: w / sum(weights) for name, w in zip(("bird", "cat", "dog"), weights, strict=True)
    }
    return {"score": score}, rnd.choices(list(score), list(score.values()))[0]


def a_number(rnd: random.Random, _: int) -> tuple[Event, Any]:
    y = rnd.gauss(50, 10)
    return {"prediction": y + rnd.gauss(1, 3)}, y


@pytest.mark.parametrize(
    ("predict", "task", "oracle"),
    [
        (a_binary, "binary", binary),
        (a_class, "multiclass", multiclass),
        (a_number, "regression", regression),
    ],
)
def test_windows_equal_scikit_learn_on_the_same_rows(
    write, config, tmp_path, predict, task, oracle
):
    predictions, labels = stream(900, 1, predict)
    random.Random(2).shuffle(predictions)  # files need not be in order
    predictions.sort(key=lambda p: p["timestamp"] // 600_000)
    in_time = sorted(predictions, key=lambda p: p["timestamp"])
    want = joined(in_time, labels)
    got = Result(
        tmp_path,
        "--predictions",
        write("p.jsonl", predictions),
        "--labels",
        write("l.jsonl", labels),
        "--config",
        config,
    )
    assert set(got.summary["models"]["m"]["versions"]) == {"", "2"}
    for version in ("", "2"):
        told, rows = got.version("m", version), want["m", version]
        distinct = len({p["event_id"] for p in predictions if p.get("version", "") == version})
        assert (told["task"], told["predictions"], told["labels"]) == (task, distinct, len(rows))
        assert (told["pending"], told["expired"], told["evicted"]) == (distinct - len(rows), 0, 0)
        check_windows(told, rows, oracle)
        mine = {
            p["event_id"]: p for p in reversed(in_time) if p.get("version", "") == version
        }.values()
        end = max(p["timestamp"] for p in mine) // 10_000 * 10_000 + 10_000
        start = (end - 600_000) // 60_000 * 60_000  # the shortest time window, in whole panes
        x = [p["features"]["x"] for p in mine if start <= p["timestamp"] < end]
        assert told["features"]["x"]["missing_ratio"] == 0
        assert told["features"]["x"]["mean"] == pytest.approx(np.mean(x), abs=1e-9)
    twice = len(predictions) - len({p["event_id"] for p in predictions})
    assert got.summary["records"]["predictions"] == {
        "received": len(predictions),
        "accepted": len(predictions) - twice,
        "duplicate": twice,
        "rejected": 0,
    }
    assert got.summary["records"]["labels"]["received"] == len(labels)


@pytest.mark.parametrize("rows", [20, 3_000])
def test_a_label_is_in_time_up_to_max_delay_and_not_after(write, tmp_path, rows):
    yaml = write("monitor.yaml", "defaults: {labels: {max_delay: 1h}, windows: [last_100]}\n")
    table = write("m.csv", "prediction,label\n" + "1,1\n" * rows)
    in_time = Result(
        tmp_path, table, "--label-delay", "1h", "--interval", "30s", "--config", yaml
    ).version()
    assert (in_time["labels"], in_time["expired"], in_time["pending"]) == (rows, 0, 0)
    late = Result(
        tmp_path, table, "--label-delay", "70m", "--interval", "30s", "--config", yaml
    ).version()
    assert (late["labels"], late["expired"] + late["pending"]) == (0, rows)
    assert late["expired"] == rows if rows > 1_000 else True


def test_a_short_input_is_exact_to_the_step(write, tmp_path):
    yaml = write("monitor.yaml", "defaults: {labels: {max_delay: 1h}}\n")
    predictions = [
        {"event_id": f"{i}", "model": "m", "timestamp": T0 + i, "prediction": 1} for i in range(2)
    ]
    labels = [
        {"event_id": f"{i}", "label": 1, "timestamp": T0 + i + 3_600_000 + 2_000 * i}
        for i in range(2)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stream_monitor.offline.pace.STEPS_MAX", 10_000_000)
        got = Result(
            tmp_path,
            "--predictions",
            write("p.jsonl", predictions),
            "--labels",
            write("l.jsonl", labels),
            "--config",
            yaml,
        )
    assert (got.version()["labels"], got.version()["expired"]) == (1, 1)


def test_a_step_is_small_beside_what_is_judged():
    rule = "thresholds: {accuracy: {min: 0.8, window: 2h, min_labels: 40, for: 30m}}"
    pace = Pace.of(
        of_files(
            parse(
                f"defaults: {{windows: [last_100, 2h], {rule}}}\nmodels: {{m: {{freshness: "
                f"{{predictions: 4h}}}}}}"
            ).core
        ),
        0,
    )
    assert pace.rows == 5
    assert pace.longest_ms(1_000, several=False) == 30 * 60_000 / 8
    # too few rows in half an hour
    assert pace.longest_ms(45 * 60_000, several=False) == 2 * 3_600_000 / 8
    assert pace.longest_ms(9 * 3_600_000, several=False) == 4 * 3_600_000 / 8  # and in two


def steps_of(gap_s: int, rows: int = 600) -> int:
    replay, steps = Replay(parse(CONFIG), span_ms=rows * gap_s * 1_000), 0
    fold = replay.shards[0].fold

    def counted(*record: Any, **given: Any) -> None:
        nonlocal steps
        steps += bool(given)
        fold(*record, **given)

    replay.shards[0].fold = counted  # type: ignore[method-assign]
    for i in range(rows):
        t = T0 + i * gap_s * 1_000
        event = {"event_id": f"{i}", "model": "m", "timestamp": t}
        replay.feed(
            [
                ("predictions", json.dumps({**event, "prediction": i % 2}).encode(), None, t),
                ("labels", json.dumps({**event, "label": 1}).encode(), None, t),
            ]
        )
    replay.close()
    assert replay.summary()["models"]["m"]["versions"][""]["labels"] == rows
    return steps


def test_rows_a_week_apart_take_as_many_steps_as_rows_a_second_apart():
    steps = [steps_of(gap_s) for gap_s in (1, 60, 3_600, 86_400, 7 * 86_400)]
    assert max(steps) <= 1.1 * min(steps)
    assert max(steps) < 100


@pytest.mark.parametrize("gap_s", [1, 3_600, 86_400])
@pytest.mark.parametrize("late", [0, 3, 30])
def test_a_replay_is_the_core_fed_live_in_ticks_of_a_second(gap_s: int, late: int) -> None:
    """
    Rows of which the answers turn wrong half way and a feature breaks: alerts, their order, and the
    summary are those of live, labels that come too late included.
    """
    rng, rows, gap_ms = random.Random(f"{gap_s} {late}"), 1_200, gap_s * 1_000
    settings = parse(
        f"defaults: {{windows: [last_100, 24h], baseline: {{rows: 200}}, labels: {{max_delay: "
        f"{20 * gap_s}s}}, thresholds: {{accuracy: {{min: 0.7}}}}}}"
    )
    events = []
    for i in range(rows):
        t, y = T0 + i * gap_ms, rng.random() < 0.5
        wrong = rng.random() < (0.1 if i < 700 else 0.7)
        event = {"event_id": f"{i}", "model": "m", "timestamp": t}
        x = None if i >= 900 and rng.random() < 0.5 else rng.gauss(0, 1)
        events.append(
            (t, 0, "predictions", {**event, "prediction": int(y ^ wrong), "features": {"x": x}})
        )
        then = t + (40 if i % 10 == 9 else late) * gap_ms if late else t
        events.append((then, 1, "labels", {**event, "timestamp": then, "label": int(y)}))
    events.sort(key=lambda e: e[:2])
    coded = [(kind, json.dumps(event).encode(), None, t) for t, _, kind, event in events]
    replay = Replay(settings, span_ms=coded[-1][3] - coded[0][3])
    replay.feed(coded)
    replay.close()

    ingest, shard = Ingest(1), Shard(0, of_files(settings.core), confirm_ms=0)
    offsets: Counter[str] = Counter()
    told: list[Any] = []
    for t, together in itertools.groupby(coded, key=lambda e: e[3]):
        shard.fold(tick(t))
        for kind, value, _, _ in together:
            ingest.take(f"{kind}@replay/0", kind, [value], np.array([offsets[kind]]), np.array([t]))
            offsets[kind] += 1
        for record in ingest.flush(t)[0]:
            shard.fold(record)
        if gap_s > 1:
            shard.fold(tick(t + 1_000))
        told += [json.loads(o.value) for o in shard.outbox if o.topic == "alerts"]
        shard.outbox = []
    shard.fold(tick(t + 1_000))
    shard.close()
    told += [json.loads(o.value) for o in shard.outbox if o.topic == "alerts"]

    def seen(alerts: Iterable[Event]) -> list[tuple[Any, ...]]:
        return [
            (a["status"], a["kind"], a["subject"], a["direction"])
            for a in alerts
            if a["status"] == "firing"
        ]

    assert seen(map(json.loads, replay.alerts())) == seen(told)
    assert any(kind == "performance" for _, kind, _, _ in seen(told)) == (late < 20)
    want = shard.summary()
    same(replay.summary()["models"], want["models"])
    assert replay.shards[0].outcomes.labels == shard.outcomes.labels


def test_a_gap_in_a_file_is_no_silence_unless_the_configuration_says_how_long_one_is(
    write, tmp_path
):
    table = write(
        "m.csv", "prediction,timestamp\n" + "".join(f"1,{T0 + i * 3_600_000}\n" for i in range(5))
    )
    assert Result(tmp_path, table).alerts == []
    told = Result(
        tmp_path,
        table,
        "--config",
        write("monitor.yaml", "defaults: {freshness: {predictions: 20m}}\n"),
    )
    assert {a["kind"] for a in told.alerts} == {"freshness"}


def flat(found: Event, path: str = "") -> Event:
    """The leaves of a summary by their path."""
    leaves: Event = {}
    for key, value in found.items():
        leaves |= (
            flat(value, f"{path}/{key}") if isinstance(value, dict) else {f"{path}/{key}": value}
        )
    return leaves


def same(one: Event, other: Event) -> None:
    """Equal, but for the last digits of sums."""
    a, b = flat(one), flat(other)
    assert a.keys() == b.keys()
    for path, value in b.items():
        assert a[path] == (pytest.approx(value, rel=1e-9) if isinstance(value, float) else value), (
            path
        )


def test_partitions_and_chunks_do_not_show(monkeypatch):
    predictions, labels = stream(300, 3, a_binary)
    rows = [
        *((p["timestamp"], 0, "predictions", p) for p in predictions),
        *((x["timestamp"], 1, "labels", x) for x in labels),
    ]
    rows.sort(key=lambda row: row[:2])

    def told(partitions: int) -> tuple[Event, list[str]]:
        replay = Replay(parse(CONFIG), partitions=partitions, span_ms=600_000)
        replay.feed((kind, json.dumps(event).encode(), b"", time) for time, _, kind, event in rows)
        replay.close()
        return replay.summary(), [json.loads(a)["id"] for a in replay.alerts()]

    want = told(1)
    assert told(3) == want
    monkeypatch.setattr("stream_monitor.offline.replay.CHUNK_EVENTS", 7)
    summary, ids = told(1)
    assert ids == want[1]
    same(summary, want[0])  # sums of pieces, in another order


# ---- the files


def table(n: int, wrong_from: int) -> list[Event]:
    rnd = random.Random(5)
    out = []
    for i in range(n):
        y = rnd.random() < 0.5
        wrong = rnd.random() < (0.1 if i < wrong_from else 0.6)
        out.append(
            {
                "prediction": int(y ^ wrong),
                "label": int(y),
                "age": rnd.gauss(40, 5),
                "city": rnd.choice(["Rome", "Bonn"]),
            }
        )
    return out


def as_csv(rows: list[Event], path: Path) -> str:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def test_the_same_table_in_every_format_gives_the_same_summary(tmp_path, config):
    rows = table(300, 200)
    texts = Result(tmp_path, as_csv(rows, tmp_path / "m.csv"), "--config", config)
    (tmp_path / "m.csv.gz").write_bytes(gzip.compress((tmp_path / "m.csv").read_bytes()))
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pa = pytest.importorskip("pyarrow")
    pa.parquet = pytest.importorskip("pyarrow.parquet")
    pa.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "m.parquet")
    for name in ("m.csv.gz", "m.jsonl", "m.parquet"):
        other = Result(tmp_path, str(tmp_path / name), "--config", config)
        assert (other.summary, other.alerts) == (texts.summary, texts.alerts), name
    assert texts.version()["predictions"] == texts.version()["labels"] == 300
    assert set(texts.version()["features"]) == {"age", "city"}


def test_stdin_is_json_lines_of_events(tmp_path):
    lines = "".join(
        json.dumps({"event_id": f"{i}", "model": "m", "prediction": 1, "timestamp": T0 + i}) + "\n"
        for i in range(5)
    )
    run = CliRunner().invoke(cli, ["replay", "--predictions", "-", "--json"], input=lines)
    assert run.exit_code == 0
    assert json.loads(run.stdout)["models"]["m"]["versions"][""]["predictions"] == 5


def test_the_keys_of_the_summary(write, config, tmp_path):
    got = Result(tmp_path, as_csv(table(300, 300), tmp_path / "m.csv"), "--config", config)
    assert set(got.summary) == {"schema", "records", "models", "alerts"}
    assert got.summary["schema"] == 1
    assert set(got.summary["records"]) == {"predictions", "labels"}
    assert all(
        set(r) == {"received", "accepted", "duplicate", "rejected"}
        for r in got.summary["records"].values()
    )
    assert set(got.version()) == {
        "predictions",
        "labels",
        "pending",
        "expired",
        "evicted",
        "estimate",
        "task",
        "task_source",
        "baseline",
        "windows",
        "features",
        "positive_class",
        "positive_class_source",
    }
    assert set(got.version()["features"]["age"]) == {"rows", "missing_ratio", "mean", "drift"}
    assert set(got.version()["features"]["city"]) == {"rows", "missing_ratio", "drift"}
    assert set(got.summary["alerts"]) == {"firing", "resolved", "notifications"}
    few = Result(tmp_path, write("few.csv", "prediction,label\n1,1\n")).version("few")
    assert set(few) >= {
        "predictions",
        "labels",
        "pending",
        "expired",
        "evicted",
        "windows",
        "features",
    }


def test_second_opinions_say_how_often_they_fired_on_this_history(write, tmp_path):
    """ADWIN of River itself, on the same values in standard deviations of the baseline."""
    rng = random.Random(2)
    ages = [rng.gauss(0, 1) + 2 * (i >= 1_500) for i in range(2_000)]
    lines = [f"{T0 + i * 60_000},1,{i % 10 != 0:d},{age!r}\n" for i, age in enumerate(ages)]
    file = write("a.csv", "timestamp,prediction,label,age\n" + "".join(lines))
    drift = "{features: {adwin: {}, evidence: {}}, errors: {ddm: {}, evidence: {}}}"
    config = write("named.yaml", f"defaults: {{baseline: {{rows: 500}}, drift: {drift}}}\n")
    got = Result(tmp_path, file, "--config", config)
    found = got.version("a")["second_opinions"]
    assert found["adwin"]["values"] == 2_000
    assert found["ddm"] == {"signals": 1, "values": 2_000, "firings": found["ddm"]["firings"]}
    first = np.array(ages[:500])
    adwin, fired = ADWIN(), 0
    for value in np.clip((np.array(ages) - first.mean()) / first.std(), -3, 3).tolist():
        adwin.update(value)
        fired += adwin.drift_detected
    assert found["adwin"]["firings"] == fired > 0
    a_month = fired * 30 / (1_999 / 1_440)
    assert f"a adwin: {fired} ({a_month:.3g} in 30 days) on 2,000 values" in got.stdout
    assert re.search(r"a evidence: [0-9].*, as alerts; `alarm_budget` is 1/30d", got.stdout)
    assert "upper bound" in got.stdout
    silent = Result(tmp_path, file)
    assert "second_opinions" not in silent.version("a")
    assert "second opinions" not in silent.stdout


def test_bad_rows_are_dead_letters_and_the_others_count(write, tmp_path):
    good = {"event_id": "a", "model": "m", "prediction": 1, "timestamp": T0}
    path = tmp_path / "p.jsonl"
    bad = [
        b"{",
        b"[1]",
        b"{}",
        b'{"event_id":"b","model":"m","prediction":1,"timestamp":915148800000}',
        b'{"event_id":"c","model":"m","prediction":[1],"timestamp":1700000000000}',
        b'"\xff"',
        b'{"event_id":"d","model":"\xff","prediction":1}',
        b'{"event_id":"d","model":"m","prediction":1,"features":{"a":'
        + b"[" * 20_000
        + b"]" * 20_000
        + b"}}",
    ]
    path.write_bytes(
        b"\n".join([*bad, json.dumps(good).encode(), json.dumps(good).encode()]) + b"\n"
    )
    got = Result(tmp_path, "--predictions", str(path))
    assert got.code == 0
    assert got.summary["records"]["predictions"] == {
        "received": 10,
        "accepted": 1,
        "duplicate": 1,
        "rejected": 8,
    }
    by_value = {
        d.get("value", "").encode() or base64.b64decode(d["value_base64"]): d for d in got.dead
    }
    assert {value: by_value[value]["reason"] for value in bad} == dict(
        zip(
            bad,
            (
                "invalid_json",
                "not_an_object",
                "missing_field",
                "out_of_range",
                "wrong_type",
                "invalid_json",
                "invalid_json",
                "too_deep",
            ),
            strict=True,
        )
    )
    assert {d["topic"] for d in got.dead} == {"predictions"}
    assert "invalid_json 3" in got.stdout
    assert next((r["reason"], r["count"]) for r in got.summary["refused"]["predictions"]) == (
        "invalid_json",
        3,
    )
    assert sum(r["count"] for r in got.summary["refused"]["predictions"]) == 8
    for text in (got.report, got.stdout):
        assert "event_id` is missing" in text
        assert "`prediction` must be a number, a string or a boolean, not an array" in text


@pytest.mark.parametrize("name", ['a "b"', "back\\slash", "two\nlines", "tab\t", "\x7f", "é", "."])
def test_a_feature_may_have_any_name(write, tmp_path, name):
    rows = [
        {
            "event_id": f"{i}",
            "model": name,
            "version": name,
            "prediction": 1,
            "features": {name: float(i), "x": 1.0},
            "timestamp": T0 + i,
        }
        for i in range(300)
    ]
    got = Result(
        tmp_path, "--predictions", write("p.jsonl", rows), "--config", write("monitor.yaml", CONFIG)
    )
    assert got.version(name, name)["features"][name]["mean"] == pytest.approx(149.5)


def test_notes_on_columns_are_told(write, tmp_path):
    got = Result(tmp_path, write("m.csv", "y_hat,label\n1,1\n"))
    assert "--map prediction=COLUMN" in got.stderr
    assert got.summary["records"]["predictions"]["rejected"] == 1


# ---- exits


THRESHOLD = (
    "defaults: {{windows: [last_100, 10m], thresholds: {{accuracy: {{min: 0.8, severity: {}}}}}, "
    "drift: {{errors: {{}}, score: {{}}, features: {{}}}}}}\n"
)


@pytest.mark.parametrize(
    ("severity", "fail_on", "code"),
    [
        ("info", "warning", 0),
        ("warning", "warning", 1),
        ("warning", "critical", 0),
        ("critical", "warning", 1),
        ("critical", "critical", 1),
    ],
)
def test_fail_on_is_exit_1_when_such_an_alert_fired(write, tmp_path, severity, fail_on, code):
    path = as_csv(table(400, 200), tmp_path / "m.csv")
    got = Result(
        tmp_path,
        path,
        "--config",
        write("monitor.yaml", THRESHOLD.format(severity)),
        "--fail-on",
        fail_on,
    )
    assert got.code == code
    gate = got.summary.pop("gate")
    assert (gate["fail_on"], gate["failed"], len(gate["because"])) == (fail_on, code == 1, code)
    newest = [a["summary"] for a in got.alerts if a["status"] != "resolved"][-1:]
    assert gate["because"] == newest * code
    assert [(a["kind"], a["severity"]) for a in got.alerts if a["status"] == "firing"] == [
        ("performance", severity)
    ]
    told = int(severity != "info")
    assert got.summary["alerts"] == {"firing": 1, "resolved": 0, "notifications": told}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no input"),
        (("absent.csv",), "No such file"),
        (("{table}", "--interval", "soon"), "not a duration"),
        (
            ("{table}", "--summary", "{folder}/absent/s.json"),
            "--summary .*folder .* does not exist",
        ),
        (("{table}", "--dead-letters", "{folder}"), "--dead-letters .*is a folder"),
        (("{table}", "--map", "predicton=x"), "Did you mean 'prediction'"),
    ],
)
def test_what_was_asked_wrong_is_said_before_anything_is_written(
    write, tmp_path, arguments, message
):
    path = write("m.csv", "prediction\n1\n")
    run = CliRunner().invoke(
        cli,
        [
            "replay",
            "--alerts",
            str(tmp_path / "a"),
            *(a.format(table=path, folder=tmp_path) for a in arguments),
        ],
    )
    assert isinstance(run.exception, InputError)  # `main` makes it exit 2
    assert re.search(message, str(run.exception))
    assert not (tmp_path / "a").exists()


# ---- the report


class Page(HTMLParser):
    """Tags that were opened, and their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs


def test_the_report_stands_alone_and_escapes_what_comes_from_the_input(write, config, tmp_path):
    evil = '<img src=x onerror="alert(1)">'
    rows = [{**row, f"{evil}f": row.pop("age")} for row in table(600, 300)]
    got = Result(
        tmp_path,
        as_csv(rows, tmp_path / "m.csv"),
        "--config",
        config,
        "--map",
        f"model=:{evil}",
        "--map",
        f"version=:{evil}",
    )
    page = Page(got.report)
    assert not {"img", "script", "link", "iframe"} & set(page.tags)
    assert not [
        name
        for name, value in page.attributes
        if name.startswith("on") or name == "src" or (name == "href" and (value or "")[:1] != "#")
    ]
    assert "http" not in got.report.replace("http-equiv", "")
    assert "&lt;img src=x" in got.report
    assert {"svg", "polyline", "table"} <= set(page.tags)
    assert any(a["status"] == "firing" for a in got.alerts)
    bars = [v for name, v in page.attributes if name == "class" and (v or "").startswith("bar ")]
    assert len(bars) == len(episodes(a for a in got.alerts))
    assert "prefers-color-scheme:dark" in got.report


def test_the_chart_follows_the_metric_and_an_empty_input_has_a_report_too(write, config, tmp_path):
    got = Result(tmp_path, as_csv(table(600, 300), tmp_path / "m.csv"), "--config", config)
    line = re.search(r'polyline points="([^"]+)"', got.report)
    assert line is not None
    heights = [float(point.split(",")[1]) for point in line[1].split()]
    assert len(heights) > 40
    assert heights[-1] > heights[len(heights) // 2 - 5]  # downwards: it got worse
    empty = Result(tmp_path, write("e.csv", "prediction,label\n"))
    assert "No prediction could be used" in empty.report
    assert empty.summary["models"] == {}


def test_episodes_of_a_report():
    at = [(datetime(2025, 1, 1, tzinfo=UTC) + timedelta(hours=h)).isoformat() for h in range(3)]
    base = {"fingerprint": "f", "starts_at": at[0], "severity": "warning", "ends_at": None}
    found = episodes(
        [
            {**base, "status": "firing"},
            {**base, "status": "updated", "severity": "critical"},
            {**base, "status": "resolved", "severity": "critical", "ends_at": at[2]},
        ]
    )
    assert [(e.severity, e.end, e.updates) for e in found] == [("critical", at[2], 1)]
