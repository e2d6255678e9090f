"""What `doctor` says about the loop, on real clones and on the embedded broker."""

from __future__ import annotations

import subprocess
from hashlib import md5
from pathlib import Path
from typing import Any

import pytest

from stream_monitor.demo.broker import start_in_thread
from stream_monitor.findings import Finding
from stream_monitor.kafka import topics
from stream_monitor.kafka.records import write
from stream_monitor.lifecycle import checkup as module
from stream_monitor.lifecycle.checkup import checkup
from stream_monitor.lifecycle.events import Claim, encode
from stream_monitor.lifecycle.membership import Membership
from stream_monitor.lifecycle_settings import Lifecycle, ModelLoop, Step
from stream_monitor.settings import KafkaSettings, Settings
from tests.model_project import Project

TRAIN = Step(name="train", command=("true",))


def git(path: Path, *words: str) -> None:
    identity = ("-c", "user.name=t", "-c", "user.email=t@localhost")
    subprocess.run(["git", *identity, *words], cwd=path, check=True, capture_output=True)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    made = tmp_path / "clone"
    made.mkdir()
    git(tmp_path, "init", "-q", "--bare", "-b", "main", "remote.git")
    git(made, "init", "-q", "-b", "main")
    git(made, "remote", "add", "origin", str(tmp_path / "remote.git"))
    git(made, "commit", "-q", "--allow-empty", "-m", "first")
    git(made, "push", "-q", "origin", "main")
    return made


def settings_of(bootstrap: str, clone: Path, **changes: Any) -> Settings:
    loop = ModelLoop(**{"repository": str(clone), "steps": (TRAIN,), **changes})
    lifecycle = Lifecycle(work=str(clone.parent / "work"), models={"churn": loop})
    return Settings(kafka=KafkaSettings(bootstrap_servers=bootstrap), lifecycle=lifecycle)


async def found_by(settings: Settings) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    async for finding in checkup(settings):
        found.setdefault(finding.check, []).append(finding)
    return found


async def test_a_loop_that_is_well_and_who_is_active(clone):
    with start_in_thread() as broker:
        settings = settings_of(broker.bootstrap, clone)
        await topics.ensure(settings)
        _, nobody = (await found_by(settings))["controller"]
        claim = Claim(model="", at="2026-01-01T00:00:00Z", host="ada").named()
        await write(settings, "lifecycle", "", encode(claim))
        _, gone = (await found_by(settings))["controller"]
        async with Membership(settings) as member:
            await member.joined.wait()
            found = await found_by(settings)
    assert (nobody.status, nobody.detail) == ("warn", "none has run yet")
    assert gone.status == "warn"
    assert "has no member; newest claim by ada" in gone.detail
    assert {f.status for each in found.values() for f in each} == {"ok"}
    assert "1 member(s); newest claim by ada" in found["controller"][1].detail
    assert "epoch 0" in found["controller"][1].detail
    assert found["project"][0].detail.endswith("of origin/main; steps train")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"base": "next"}, "origin has no next"),
        ({"remote": "upstream"}, "has origin"),
        ({"steps": ()}, "no step that trains"),
        ({"repository": "/nowhere"}, "no such directory"),
    ],
)
async def test_a_clone_that_cannot_be_used_is_named(clone, changes, words):
    found = await found_by(settings_of("127.0.0.1:1", clone, **changes))
    (project,) = found["project"]
    assert project.status == "fail"
    assert words in project.detail
    assert project.advice
    assert found["controller"][0].status == "warn", "the broker is away"


async def test_what_is_not_installed_is_named_with_the_extra(clone, monkeypatch):
    """Only what these models need: without a schedule, no crontab is read."""
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    (extra,) = (await found_by(settings_of("127.0.0.1:1", clone)))["extra"]
    assert (extra.status, extra.detail) == ("fail", "not installed: duckdb, pyarrow")
    (extra,) = (await found_by(settings_of("127.0.0.1:1", clone, collect=None)))["extra"]
    assert extra.status == "ok"


async def test_nothing_is_said_without_a_loop():
    assert await found_by(Settings()) == {}


async def test_a_folder_that_cannot_be_made_is_named(clone):
    settings = settings_of("127.0.0.1:1", clone)
    (clone.parent / "work").write_text("a file")
    (work,) = (await found_by(settings))["work"]
    assert (work.status, work.check) == ("fail", "work")


@pytest.mark.slow
def test_the_remote_of_dvc_is_asked(tmp_path):
    """Its files are written by hand, because each command of DVC takes a second."""
    project = Project(tmp_path, {".dvc/.gitignore": "/config.local\n"})
    digest = md5(b"m").hexdigest()
    kept = f"outs:\n- md5: {digest}\n  size: 1\n  hash: md5\n  path: model.pkl\n"
    project.write({"model.pkl.dvc": kept, ".dvc/config": ""})

    def found(url: str) -> tuple[str, str]:
        config = f"[core]\n    remote = store\n['remote \"store\"']\n    url = {url}\n"
        project.write({".dvc/config": config if url else ""})
        finding = module._data("churn", project.clone)
        assert finding.check == "dvc"
        assert (finding.status == "ok") == (not finding.advice)
        return finding.status, finding.detail

    assert found("")[0] == "warn"
    assert found("")[1].startswith("churn: no default remote; data and models are in the cache of")
    assert found(str(project.store)) == ("fail", f"churn: {project.store} is not there")
    project.store.mkdir()
    lacks = f"churn: {project.store} lacks model.pkl, or does not answer"
    assert found(str(project.store)) == ("warn", lacks)
    (project.store / "files" / "md5" / digest[:2]).mkdir(parents=True)
    (project.store / "files" / "md5" / digest[:2] / digest[2:]).write_bytes(b"m")
    assert found(str(project.store))[0] == "ok"
    status, detail = found("ssh://ana:secret@127.0.0.1:1/x")
    assert status == "fail"
    assert "does not answer" in detail
    assert "secret" not in detail
