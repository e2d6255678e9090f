"""The commands of `models` on real git and the embedded broker."""

from __future__ import annotations

import asyncio
import json
import shlex
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from stream_monitor.cli import cli
from stream_monitor.cli.models_metrics import Side, compared, lines
from stream_monitor.demo.broker import start_in_thread
from stream_monitor.errors import InputError, StreamMonitorError
from stream_monitor.kafka.records import TopicReader, read_compacted, write
from stream_monitor.lifecycle import same_rows
from stream_monitor.lifecycle.events import Reference, Rollout, Stage, decode, encode
from stream_monitor.lifecycle.events import Version as VersionEvent
from stream_monitor.monitors.baseline import Profile, encode_profile, profile_id
from stream_monitor.settings import KafkaSettings, Settings
from stream_monitor.times import rfc3339
from tests.model_project import Project
from tests.unit.test_topics_schema import SCHEMAS, accepts

PROFILE = Profile()
FILES = {
    "model.json": "1",
    "data/train.csv": "x,y\n1,2\n",
    "metrics.json": '{"accuracy": 0.9, "log_loss": 0.3}',
    "reference.json": encode_profile(PROFILE).decode(),
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    project = Project(tmp_path, FILES)
    monkeypatch.chdir(tmp_path)
    return project


def run(*words: str) -> Any:
    result = CliRunner().invoke(cli, ("models", *words))
    run.said = result.stderr  # type: ignore[attr-defined]
    run.code = result.exit_code  # type: ignore[attr-defined]
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    told = result.stdout.splitlines()
    return [json.loads(line) for line in told] if "--json" in words else result.stdout


def configured(project: Project, bootstrap: str) -> Settings:
    (project.folder / "monitor.yaml").write_text(
        f"kafka: {{bootstrap_servers: '{bootstrap}', topic_prefix: 'x.'}}\n"
        f"lifecycle: {{models: {{Churn EU: {{repository: '{project.clone}', artifact: churn}}}}}}\n"
    )
    return Settings(kafka=KafkaSettings(bootstrap_servers=bootstrap, topic_prefix="x."))


def said(settings: Settings) -> list[Any]:
    """Events on lifecycle."""

    async def read() -> list[bytes]:
        async with TopicReader(settings, ["lifecycle"]) as records:
            return [r.value async for r in records.whole() if r.value is not None]

    values = asyncio.run(read())
    for value in values:
        assert accepts(SCHEMAS["lifecycle"], json.loads(value)), value
    return [decode(value) for value in values]


def test_the_life_of_versions_from_the_command_line(project: Project):
    with start_in_thread(partitions=1) as broker:
        settings = configured(project, broker.bootstrap)
        assert "has no versions" in run("list")
        (dry,) = run("register", "--dry-run", "--json")
        assert (dry["tag"], project.tags()) == ("churn@v1.0.0", {})
        (made,) = run("register", "--by", "ana", "--reason", "the first", "--json")
        assert (made["event"], made["model"], made["found"]) == ("written", "Churn EU", False)
        assert list(project.tags()) == ["churn@v1.0.0"]
        published = asyncio.run(read_compacted(settings, "baselines"))
        assert published == {"Churn EU/v1.0.0": FILES["reference.json"].encode()}
        part, event = said(settings)
        assert isinstance(part, Reference)
        assert isinstance(event, VersionEvent)
        about = (part.version, part.reference, part.parts, part.by)
        assert about == ("v1.0.0", event.reference, 1, "ana")
        assert (event.by, event.version, event.reference) == ("ana", "v1.0.0", profile_id(PROFILE))
        assert event.metrics == {"accuracy": 0.9, "log_loss": 0.3}

        (again,) = run("register", "--json")
        assert again["found"], "the same commit"
        ids = [e.id for e in said(settings)]
        assert ids == [part.id, event.id] * 2, "written again it counts once"

        project.write({"model.json": "2"})
        with pytest.raises(InputError, match=r"differs from its last commit: model\.json"):
            run("register")
        project.write({"metrics.json": '{"accuracy": 0.8, "log_loss": 0.2}'})
        project.commit("worse")
        run("register", "--patch")
        assert [v["version"] for v in run("list", "--json")] == ["v1.0.1", "v1.0.0"]

        _promote_and_retire(project, settings)


def _promoted_without_an_event(project: Project, settings: Settings) -> None:
    """A version that CI registered, where no Kafka is."""
    project.write({"model.json": "3"})
    project.commit("by CI")
    run("register", "--no-event")
    run("promote", "v1.1.0")
    events = said(settings)[-3:]
    assert [type(e) for e in events] == [Reference, VersionEvent, Stage]
    assert events[0].version == "v1.1.0"
    assert "Churn EU/v1.1.0" in asyncio.run(read_compacted(settings, "baselines"))


def _promote_and_retire(project: Project, settings: Settings) -> None:
    count = len(said(settings))
    (dry,) = run("promote", "v1.0.0", "--dry-run", "--json")
    assert (dry["stages"], len(said(settings))) == ({"v1.0.0": "production"}, count)
    run("promote", "churn@v1.0.0", "--by", "ana", "--comment", "it is time")
    stage = said(settings)[-1]
    assert isinstance(stage, Stage)
    assert (stage.stages, stage.by, stage.reason) == ({"v1.0.0": "production"}, "ana", "it is time")
    assert (stage.reference, stage.epoch) == (profile_id(PROFILE), None)
    with pytest.raises(StreamMonitorError, match="is production already"):
        run("promote", "champion")

    now = time.time_ns() // 1_000_000
    minute = {
        "model": "Churn EU",
        "version": "v1.0.0",
        "start": rfc3339(now - 120_000),
        "end": rfc3339(now - 60_000),
        "labels": 40,
        "metrics": {"accuracy": 0.75},
    }
    asyncio.run(write(settings, "history", "Churn EU", json.dumps(minute).encode()))
    text = run("show", "champion")
    assert "stage    production since" in text
    assert "by ana: it is time" in text
    assert "live     accuracy 0.75, 40 labels in 24 h" in text
    (shown,) = run("show", "1.0.0", "--json")
    assert shown["revision"] == project.git("rev-list", "-n1", "churn@v1.0.0").strip()
    assert shown["reason"] == "the first"
    brought = {
        subprocess.check_output(shlex.split(command), cwd="/", text=True)
        for command in shown["get"]
    }
    assert brought == {FILES["data/train.csv"], FILES["model.json"]}

    run("promote", "v1.0.1")
    assert said(settings)[-1].stages == {"v1.0.0": "retired", "v1.0.1": "production"}
    run("compare", "v1.0.0", "champion", "--fail-on", "worse")
    assert run.code == 1  # type: ignore[attr-defined]
    run("retire", "v1.0.1", "--comment", "it was worse")
    assert said(settings)[-1].stages == {"v1.0.0": "retired", "v1.0.1": "retired"}
    marks = project.git("ls-remote", "--tags", "--refs", "origin", "refs/tags/churn#*")
    assert [line.rpartition("/")[2] for line in marks.splitlines()] == [
        "churn#prod!#3",
        "churn#prod#1",
        "churn#prod#2",
    ]
    with pytest.raises(InputError, match="has no champion"):
        run("show", "champion")
    _promoted_without_an_event(project, settings)
    rollout = Rollout(
        version="v1.0.1", against=None, experiment="e", stages=(100,), step=0, since=stage.at
    )
    under_way = Stage(model="Churn EU", at=stage.at, stages={"v1.0.1": "canary"}, rollout=rollout)
    asyncio.run(write(settings, "lifecycle", "Churn EU", encode(under_way.named())))
    with pytest.raises(StreamMonitorError, match=r"the rollout of v1\.0\.1 is under way"):
        run("promote", "v1.0.0")


def test_without_a_broker_git_is_enough_and_it_says_what_is_not_known(project: Project):
    configured(project, "127.0.0.1:1")
    (made,) = run("register", "--json")
    assert made["event"].startswith("not written: no connection to Kafka")
    assert list(project.tags()) == ["churn@v1.0.0"]
    (shown,) = run("show", "latest", "--json")
    assert "stages and live metrics are unknown" in shown["notes"][0]
    assert "stage" not in shown
    assert run("show", "v1.0.0", "--offline").startswith("churn@v1.0.0  stage unknown\n")
    with pytest.raises(InputError, match="is not known without Kafka, and git has no tag churn#"):
        run("show", "champion", "--offline")
    with pytest.raises(StreamMonitorError, match="no connection to Kafka"):
        run("promote", "v1.0.0")
    project.git("tag", "-a", "-m", "by gto", "churn#prod#1", "churn@v1.0.0^{}")
    assert run("show", "champion", "--offline").startswith("churn@v1.0.0 ")


def test_a_gate_compares_the_champion_with_a_commit_or_the_work_tree(project: Project):
    configured(project, "127.0.0.1:1")
    run("register", "--no-event")
    project.write({"metrics.json": '{"accuracy": 0.91, "log_loss": 0.5}'})
    project.commit("next")
    (found,) = run("compare", "v1.0.0", "HEAD", "--fail-on", "worse", "--offline", "--json")
    assert (found["failed"], found["metrics"]["accuracy"]["b"]) == (False, 0.91)
    run("compare", "v1.0.0", "HEAD", "--metric", "log_loss", "--fail-on", "worse", "--offline")
    assert run.code == 1  # type: ignore[attr-defined]
    project.write({"metrics.json": '{"accuracy": 0.89}'})
    run("compare", "v1.0.0", "workspace", "--fail-on", "worse", "--offline")
    assert run.code == 1  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="workspace has no metric 'log_loss'"):
        run("compare", "v1.0.0", "workspace", "--metric", "log_loss", "--fail-on", "worse")
    with pytest.raises(InputError, match="compare two versions"):
        run("compare", "v1.0.0")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("show", "v9.9.9"), "has no version v9.9.9 of churn"),
        (("show", "nonsense"), "is not a version such as v1.2.0"),
        (("show", "--", "-x"), "is not a version such as v1.2.0"),
        (("register", "--major", "--patch"), "choose one"),
        (("register", "--run", "a b"), "run 'a b'"),
        (("list", "--repository", "/nowhere"), "no such directory"),
    ],
)
def test_what_cannot_be_meant_is_refused(project: Project, words: tuple[str, ...], says: str):
    configured(project, "127.0.0.1:1")
    with pytest.raises(InputError, match=says):
        run(*words)


def test_the_picture_of_two_versions():
    a = Side("churn@v1.0.0", {"accuracy": 0.9, "log_loss": 0.3})
    b = Side("HEAD", {"accuracy": 0.8, "log_loss": 0.2, "f1": 0.5})
    found = compared(a, b, "accuracy", None)
    *table, words = lines(found)
    assert "measured on rows of its own" in words
    assert "models compare --predictions A B" in words
    assert (found["same_rows"], found["note"]) == (False, words)
    assert table == [
        "          churn@v1.0.0        HEAD",
        "accuracy           0.9         0.8  worse by 0.1",
        "log_loss           0.3         0.2  better by 0.1",
        "f1                   -         0.5",
    ]


def answers(wrong: int, n: int = 600, first: int = 0) -> str:
    """Answers on rows with ids; the first `wrong` of them are wrong."""
    rows = [(first + i, i % 3 == 0, (i % 3 == 0) ^ (i < wrong)) for i in range(n)]
    return "\n".join(["event_id,label,prediction", *(f"{i},{y:d},{p:d}" for i, y, p in rows), ""])


def test_versions_with_answers_on_the_same_rows_are_compared_by_them(project: Project):
    (project.folder / "monitor.yaml").write_text(
        "kafka: {bootstrap_servers: '127.0.0.1:1'}\nlifecycle: {models: {Churn EU: {repository: "
        f"'{project.clone}', artifact: churn, decide: {{challenger: held/out.csv}}}}}}}}\n"
    )
    project.write({"held/out.csv": answers(60), "metrics.json": '{"accuracy": 0.8}'})
    project.commit("with answers")
    run("register", "--no-event")
    # its metric says that it is better, the same rows say that it is worse
    project.write({"held/out.csv": answers(120), "metrics.json": '{"accuracy": 0.95}'})
    project.commit("worse")
    words = ("compare", "v1.0.0", "HEAD", "--fail-on", "worse", "--offline")
    (found,) = run(*words, "--json")
    assert (found["same_rows"], found["failed"]) == (True, True)
    assert found["paired"]["difference"] == pytest.approx(-0.1)
    assert found["paired"]["lower"] < -0.1 < found["paired"]["upper"] < 0
    told = run(*words)
    assert "the difference on the same rows decides" in told
    assert "600 rows" in told
    assert "worse by" not in told.split("decides")[1]
    project.write({"held/out.csv": answers(120, first=1)})
    (found,) = run("compare", "v1.0.0", "workspace", "--fail-on", "worse", "--offline", "--json")
    assert (found["same_rows"], found["failed"], found["paired"]) == (False, False, None)
    assert "lacks 1 rows" in found["note"]
    (project.clone / "held/out.csv").unlink()
    (found,) = run("compare", "v1.0.0", "workspace", "--offline", "--json")
    assert "workspace has no held/out.csv" in found["note"]


@pytest.mark.parametrize(
    ("a", "b", "why"),
    [
        ("label,prediction\n1,1\n0,0\n" * 9, "label,prediction\n1,1\n0,0\n" * 9, "no column `even"),
        (
            "event_id,label,prediction\n" + "".join(f"{i},0,0\n" for i in range(600)),
            "event_id,label,prediction\n" + "".join(f"{i},0,1\n" for i in range(600)),
            "nearly all labels are alike",
        ),
        (answers(3).replace("label", "truth"), answers(4), "no column `label`"),
        ("event_id,label,prediction\n", answers(4), "no rows"),
    ],
)
def test_rows_that_may_be_others_are_not_paired(tmp_path: Path, a: str, b: str, why: str):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder, text in zip(folders, (a, b), strict=True):
        folder.mkdir()
        (folder / "x.csv").write_text(text)
    with pytest.raises(InputError, match=why):
        same_rows._demand_same(*(folder / "x.csv" for folder in folders))
