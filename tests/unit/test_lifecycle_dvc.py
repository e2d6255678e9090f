"""
Versions of a project with real DVC, read again by DVC and by GTO.

One project for all tests of the module, because each DVC command takes about a second.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from hashlib import md5
from pathlib import Path

import msgspec
import pytest

from stream_monitor.demo.broker import start_in_thread
from stream_monitor.errors import InputError
from stream_monitor.lifecycle import dvc, tagging, versions
from stream_monitor.lifecycle.dvc import DvcError
from stream_monitor.lifecycle.events import Stage
from stream_monitor.lifecycle.in_use import InUse
from tests.model_project import DVC, QUIET, Project
from tests.unit.test_deploy_commands import (
    AT,
    ROLLOUT,
    configured,
    run,
    said,
    staged,
    started,
    state,
)

pytestmark = pytest.mark.slow
GTO = DVC.with_name("gto")
ROWS = "x,y\n" + "".join(f"{i},{i % 2}\n" for i in range(100))
TRAIN = """
import json, pathlib
rows = pathlib.Path("data/collected.csv").read_bytes()
pathlib.Path("model.pkl").write_bytes(rows[::-1])
pathlib.Path("metrics.json").write_text(json.dumps({"accuracy": 0.9, "test": {"f1": 0.8}}))
"""
PIPELINE = """
stages:
  train:
    cmd: python train.py
    deps: [train.py, data/collected.csv]
    outs: [model.pkl]
    metrics:
    - metrics.json:
        cache: false
artifacts:
  churn:
    path: model.pkl
    type: model
"""


def hash_of(data: str | bytes) -> str:
    return "md5:" + md5(data if isinstance(data, bytes) else data.encode()).hexdigest()


def gto(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    who = {
        f"GIT_{role}_{what}": "ana"
        for role in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    return subprocess.run(
        [GTO, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **who},
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(
        tmp_path_factory.mktemp("dvc"), {"train.py": TRAIN, "dvc.yaml": PIPELINE}, with_dvc=True
    )


@pytest.fixture(scope="module")
def made(project: Project) -> versions.Registered:
    """A version by a run: rows are collected, the pipeline of DVC runs, the outcome is tagged."""
    tree = project.folder / "tree"
    project.git("worktree", "add", "--quiet", "--detach", str(tree), "origin/main")
    project.write({"data/collected.csv": ROWS}, tree)
    project.dvc("repro", "--quiet", cwd=tree)
    (tree / ".dvc" / "tmp" / "rwlock").write_text("{half")  # of a run that was killed
    return versions.register(
        project.clone, "churn", tree, "a1", data=("data/collected.csv",), reason="it is better"
    )


def test_hashes_are_those_of_the_files(made: versions.Registered):
    assert made.data == {"data/collected.csv": hash_of(ROWS)}
    assert made.artifact == {"model.pkl": hash_of(ROWS.encode()[::-1])}
    assert made.metrics == {"accuracy": 0.9, "test.f1": 0.8}
    assert made.notes == ()


def test_dvc_brings_the_data_and_the_model_of_a_tag_back(
    project: Project, made: versions.Registered, tmp_path: Path
):
    project.dvc("get", str(project.clone), "data/collected.csv", "--rev", made.tag, cwd=tmp_path)
    assert (tmp_path / "collected.csv").read_text() == ROWS
    code = (
        "import dvc.api, sys\n"
        "print(dvc.api.read('model.pkl', repo=sys.argv[1], rev=sys.argv[2]), end='')"
    )
    done = subprocess.run(
        [DVC.with_name("python"), "-c", code, project.remote, made.tag],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env={**os.environ, **QUIET},
    )
    assert done.stdout == ROWS[::-1]  # from the remotes alone: the clone's cache is not asked


def test_gto_reads_the_versions_and_knows_that_the_commit_has_one(
    project: Project, made: versions.Registered
):
    shown = gto(project.clone, "show", "churn", "--json")
    assert shown.returncode == 0, shown.stderr
    assert made.version in shown.stdout
    assert made.revision in shown.stdout
    again = gto(project.clone, "register", "churn", made.revision)
    assert again.returncode != 0
    assert "already" in again.stdout + again.stderr
    theirs = gto(project.clone, "register", "churn", "HEAD", "--bump-minor")
    assert theirs.returncode == 0, theirs.stdout + theirs.stderr
    assert [t.version for t in tagging.versions_of(project.clone, "churn")] == ["v1.1.0", "v1.0.0"]
    project.git("tag", "--delete", "churn@v1.1.0")


def test_done_again_it_is_found_and_needs_no_tree(project: Project, made: versions.Registered):
    again = versions.register(project.clone, "churn", project.folder / "gone", "a1")
    assert (again.found, again.tag, again.data) == (True, made.tag, made.data)


def test_a_model_that_differs_from_dvc_lock_is_refused(project: Project, tmp_path: Path):
    clone = project.cloned(tmp_path / "other")
    project.git("checkout", "--quiet", "churn@v1.0.0", cwd=clone)
    made = versions.register_commit(clone, "churn", "by-hand")  # without `dvc pull` it is fine
    assert versions.register_commit(clone, "churn", "by-hand").revision == made.revision
    assert project.git("diff", "churn@v1.0.0", made.tag, cwd=clone) == ""
    shown = gto(clone, "show", "churn", "--json")  # it ends with 1 if a commit has two versions
    assert (shown.returncode, made.version in shown.stdout) == (0, True), shown.stderr
    assert made.artifact == {"model.pkl": hash_of(ROWS.encode()[::-1])}
    project.dvc("pull", "--quiet", cwd=clone)
    (clone / "model.pkl").chmod(0o644)
    (clone / "model.pkl").write_text("another one")
    with pytest.raises(InputError, match=r"differs from its last commit: model\.pkl"):
        versions.register_commit(clone, "churn", "by-hand-2")


def test_killed_in_and_after_the_push_of_data_and_done_again_it_is_one_tag(
    project: Project, made: versions.Registered, tmp_path: Path
):
    tree, wanted = project.folder / "tree", set(project.tags())
    for n, then in enumerate(("sleep 0.5 & wait $!", "wait $dvc")):
        rows = ROWS + f"{n},0\n" * 200_000
        project.write({"data/collected.csv": rows}, tree)
        project.dvc("repro", "--quiet", cwd=tree)
        program = tmp_path / f"dvc{n}"
        program.write_text(
            f'#!/bin/sh\n{DVC} "$@" & dvc=$!\n[ "$1" = push ] && {{ {then}; kill -9 -$PPID; }}\n'
            "wait $dvc\n"
        )
        program.chmod(0o755)
        child = os.fork()
        if child == 0:
            os.setpgid(0, 0)
            dvc._program = [str(program)].copy
            versions.register(project.clone, "churn", tree, f"killed{n}")
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9
        assert set(project.tags()) == wanted, "nothing is visible before the tag"
        again = versions.register(project.clone, "churn", tree, f"killed{n}")
        wanted.add(again.tag)
        assert set(project.tags()) == wanted
        assert again.artifact == {"model.pkl": hash_of(rows.encode()[::-1])}
        known = again.artifact["model.pkl"].removeprefix("md5:")
        stored = project.store / "files" / "md5" / known[:2] / known[2:]
        assert stored.read_bytes() == rows.encode()[::-1]


def test_a_model_that_is_gone_is_named(project: Project, made: versions.Registered):
    (tag,) = [t for t in tagging.versions_of(project.clone, "churn") if t.name == made.tag]
    assert versions.missing_models(project.clone, tag) == []
    known = made.artifact["model.pkl"].removeprefix("md5:")
    kept = [p for p in project.folder.rglob(known[2:]) if p.parent.name == known[:2]]
    assert len(kept) == 2, "the cache and the remote"
    texts = {path: path.read_bytes() for path in kept}
    for path in kept:
        path.unlink()
    try:
        assert [c.hash for c in versions.missing_models(project.clone, tag)] == [
            made.artifact["model.pkl"]
        ]
    finally:
        for path, text in texts.items():
            path.write_bytes(text)


def test_a_rollback_to_a_version_whose_model_is_gone_is_refused(
    project: Project, made: versions.Registered, tmp_path: Path
):
    known = made.artifact["model.pkl"]
    digest = known.removeprefix("md5:")
    kept = [p for p in project.folder.rglob(digest[2:]) if p.parent.name == digest[:2]]
    texts = {path: path.read_bytes() for path in kept}
    rollout = msgspec.structs.replace(ROLLOUT, against=made.version)
    canary = staged(made.version, {"v2.0.0": "canary"}, rollout)
    back = staged(made.version, {"v2.0.0": "retired"})
    with start_in_thread() as broker:
        settings = configured(tmp_path, broker, project.clone)
        start = started(ROLLOUT.experiment, {made.version: 75, "v2.0.0": 25})
        asyncio.run(said(settings, made.event("churn", AT, "ana"), canary, start))
        code, told = run(tmp_path, "deploy", "rollback", "--dry-run")
        assert (code, "nobody looked" in told) == (0, False), told
        try:
            for path in kept:
                path.unlink()
            code, told = run(tmp_path, "deploy", "rollback")
            assert code == 2, told
            assert f"model.pkl ({known})" in told
            m = state(tmp_path)
            assert m.rollout is not None, "nothing was written"
            assert not m.trials[ROLLOUT.experiment].stopped
            in_use = InUse("churn", settings.lifecycle.models["churn"])
            assert in_use.told(m, back) == back
            in_use._look(made.version, m.versions[made.version])
        finally:
            for path, text in texts.items():
                path.write_bytes(text)
        assert run(tmp_path, "deploy", "rollback", "--force")[0] == 0
        assert state(tmp_path).rollout is None
    event = in_use.told(m, back)  # the controller asks nobody, and says it
    assert isinstance(event, Stage)
    assert event.reason.endswith(f"DVC cannot bring back model.pkl ({known}) of {made.version}")
    assert in_use.told(m, staged("v2.0.0")) == staged("v2.0.0")


def test_what_is_neither_in_the_cache_nor_on_the_remote_is_no_version(
    project: Project, made: versions.Registered, tmp_path: Path
):
    clone = project.cloned(tmp_path / "other")
    project.git("checkout", "--quiet", made.tag, cwd=clone)
    project.store.rename(tmp_path / "away")
    try:
        with pytest.raises(DvcError, match=r"data/collected\.csv.*(not in the cache|failed)"):
            versions.register_commit(clone, "churn", "lost")
    finally:
        shutil.rmtree(project.store, ignore_errors=True)  # DVC makes it again
        (tmp_path / "away").rename(project.store)
    assert tagging.find(clone, "churn", "origin", "lost") is None


def test_without_a_remote_of_dvc_it_is_a_note(tmp_path: Path):
    project = Project(tmp_path, {"a.py": ""})
    project.dvc("init", "--quiet")
    project.write({"model.pkl": "m"})
    project.dvc("add", "--quiet", "model.pkl")
    project.commit("with DVC")
    made = versions.register_commit(project.clone, "churn")
    assert made.artifact == {"model.pkl": hash_of("m")}
    assert made.notes == (
        "DVC has no remote: data and models are in the cache of this clone alone",
    )
    assert not dvc.push(project.clone)
