"""
Signed tags with a real key of SSH: what the loop makes git accepts, and what git does not accept is
not deployed. Commits of versions on a branch: never forced, nothing of others is lost.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from stream_monitor.lifecycle import signing, tagging, versions
from stream_monitor.lifecycle.actions import Say
from stream_monitor.lifecycle.events import Asked, Rejected, Stage
from stream_monitor.lifecycle.git import GitError
from stream_monitor.lifecycle.in_use import InUse, lacks_signature
from stream_monitor.lifecycle.model import Model
from stream_monitor.lifecycle_settings import ModelLoop
from stream_monitor.times import rfc3339
from tests.laws.test_lifecycle_laws import in_production, person
from tests.laws.test_lifecycle_people_laws import asks
from tests.lifecycle_world import MODEL, World
from tests.model_project import Project

FILES = {"train.py": "print('train')\n", "data/train.csv": "x,y\n1,0\n"}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path, FILES)


def a_key(project: Project, name: str, *, allowed: bool) -> None:
    """The clone signs with it; git trusts it if it is allowed."""
    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen is not on PATH (openssh-client)")
    key = project.folder / name
    words = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(key))
    subprocess.run(words, check=True, timeout=60)
    signers = project.folder / "allowed"
    if allowed:
        public = key.with_suffix(".pub").read_text()
        signers.write_text(f"{tagging.ADDRESS} {public}")
    project.git("config", "gpg.format", "ssh")
    project.git("config", "user.signingkey", str(key))
    project.git("config", "gpg.ssh.allowedSignersFile", str(signers))


def a_model(*made: versions.Registered) -> Model:
    return Model(versions={m.version: m.event(MODEL, "2026-01-01T00:00:00Z", "ana") for m in made})


def loop_of(project: Project) -> ModelLoop:
    return ModelLoop(repository=str(project.clone), verify_tags=True)


def test_a_version_is_signed_and_git_and_we_accept_it(project: Project):
    a_key(project, "ours", allowed=True)
    before = project.tags()
    made = versions.register(
        project.clone, "churn", project.tree("r1", 0.9), "r1", sign=True, by="ana <x>"
    )
    assert set(project.tags()) - set(before) == {"churn@v1.0.0"}
    project.git("verify-tag", made.tag)  # git itself
    other = project.cloned(project.folder / "other")
    for name in ("gpg.format", "gpg.ssh.allowedSignersFile"):
        project.git("config", name, project.git("config", name).strip(), cwd=other)
    project.git("verify-tag", made.tag, cwd=other)
    assert signing.why_not(project.clone, made.tag, made.revision) is None
    (tag,) = tagging.versions_of(project.clone, "churn")
    assert (tag.message.run, tag.by) == ("r1", "ana x")
    assert tag.message.metrics == {"accuracy": 0.9}
    again = versions.register(project.clone, "churn", project.folder / "r1", "r1", sign=True)
    assert (again.tag, again.found) == (made.tag, True)
    assert lacks_signature(loop_of(project), a_model(made), made.version) is None


def test_what_git_does_not_accept_is_named(project: Project):
    first = versions.register(project.clone, "churn", project.tree("r1", 0.9), "r1")
    a_key(project, "ours", allowed=True)
    good = versions.register(project.clone, "churn", project.tree("r2", 0.9), "r2", sign=True)
    a_key(project, "theirs", allowed=False)
    bad = versions.register(project.clone, "churn", project.tree("r3", 0.9), "r3", sign=True)
    loop, m = loop_of(project), a_model(first, good, bad)

    def said(version: str) -> str | None:
        return lacks_signature(loop, m, version)

    assert said(good.version) is None
    for made in (first, bad):
        assert f"does not accept the signature of {made.tag}" in (said(made.version) or "")
    assert said("v7.0.0") == "verify_tags: v7.0.0 was never registered"
    # a good signature, under another name or of another commit
    ref = project.git("rev-parse", f"refs/tags/{good.tag}").strip()
    project.git("update-ref", f"refs/tags/{bad.tag}", ref)
    assert said(bad.version) == f"verify_tags: the tag {bad.tag} is signed as {good.tag}"
    m.versions[good.version] = msgspec.structs.replace(
        m.versions[good.version], revision=bad.revision
    )
    assert f"{good.tag} is of another commit" in (said(good.version) or "")
    # a tag that only the remote has is fetched
    m = a_model(good)
    project.git("update-ref", "-d", f"refs/tags/{good.tag}")
    assert said(good.version) is None
    project.git("update-ref", "-d", f"refs/tags/{good.tag}")
    project.git("push", "-q", "origin", f":refs/tags/{good.tag}")
    assert said(good.version) == f"verify_tags: the clone has no tag {good.tag}"


def test_without_a_key_nothing_is_registered(project: Project, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    project.git("config", "gpg.format", "ssh")
    tree = project.tree("r1", 0.9)
    with pytest.raises(GitError, match=r"cannot be signed.*set user\.signingkey"):
        versions.register(project.clone, "churn", tree, "r1", sign=True)
    assert project.tags() == {}


@pytest.mark.parametrize("how", ["asked", "run"])
def test_a_rollout_of_an_unsigned_version_does_not_begin(
    project: Project, monkeypatch: pytest.MonkeyPatch, how: str
):
    made = versions.register(project.clone, "churn", project.tree("r1", 0.9), "r1")
    world = World(msgspec.structs.replace(loop_of(project), verify_tags=True))
    in_use = InUse(MODEL, world.loop)
    in_production(world, "v0.9.0")
    world.write(made.event(MODEL, rfc3339(world.now_ms), "ana"))
    if how == "asked":
        asks(world, "start", made.version)
    else:
        person(Asked, world, what="start", version=made.version)
    action = world.next()
    assert isinstance(action, Say)
    m = world.model()
    if how == "run":
        m.asked = None
    said = in_use.refused(m, action.event)
    assert said is not None, "git answers at once"
    assert [type(e) for e in said] == ([Stage] if how == "asked" else [Rejected, Stage])
    assert isinstance(said[-1], Stage)
    assert "does not accept the signature" in said[-1].reason
    assert (said[-1].rollout, said[-1].stages) == (None, {"v0.9.0": "production"})
    for error in (OSError("no memory"), ValueError("no number"), SystemExit("no more")):

        def fail(*_: object, error: BaseException = error) -> None:
            raise error

        # a check that ended without an answer would let the rollout wait for ever
        with monkeypatch.context() as patch:
            patch.setattr("stream_monitor.lifecycle.signing.why_not", fail)
            told = in_use.refused(m, action.event)
        assert told is not None
        assert str(error) in getattr(told[-1], "reason", "")
    for event in said:
        world.write(event)
    assert world.settle() == []
    assert world.model().rollout is None
    assert InUse(MODEL, ModelLoop(repository=".")).refused(m, action.event) == []


# ---- branch


def log_of(project: Project, branch: str = "retrained") -> list[str]:
    project.git("fetch", "-q", "origin")
    return project.git("log", "--format=%s", f"origin/{branch}").splitlines()


def file_of(project: Project, path: str) -> str:
    return project.git("show", f"origin/retrained:{path}")


def test_versions_come_one_after_the_other_on_their_branch(project: Project):
    trees = {run: project.tree(run, 0.9) for run in ("r1", "r2")}  # both from the same base

    def put(run: str) -> versions.Registered:
        return versions.register(project.clone, "churn", trees[run], run, branch="retrained")

    made = put("r1")
    assert made.notes == ()
    assert project.git("rev-parse", "origin/retrained").strip() == made.revision
    # somebody else pushes to the branch
    theirs = project.cloned(project.folder / "theirs")
    project.git("checkout", "-q", "retrained", cwd=theirs)
    project.write({"notes.md": "seen\n"}, theirs)
    project.git("add", "-A", cwd=theirs)
    project.git("commit", "-q", "-m", "notes", cwd=theirs)
    project.git("push", "-q", "origin", "retrained", cwd=theirs)
    tip = project.git("rev-parse", "HEAD", cwd=theirs).strip()
    second = put("r2")
    assert second.notes == ()
    subjects = log_of(project)
    assert len(subjects) == 4
    assert subjects[1] == "notes"
    project.git("merge-base", "--is-ancestor", tip, "origin/retrained")
    assert not project.git("log", "--merges", "origin/retrained")
    assert file_of(project, "notes.md") == "seen\n"
    assert file_of(project, "model.json") == '"r2"'
    head = project.git("rev-parse", "origin/retrained")
    for run in ("r1", "r2"):  # done again, as after a kill
        assert put(run).found
        project.git("fetch", "-q", "origin")
        assert project.git("rev-parse", "origin/retrained") == head


def test_what_people_changed_too_is_left_to_people(project: Project):
    first = project.tree("r1", 0.9)
    versions.register(project.clone, "churn", first, "r1", branch="retrained")
    theirs = project.cloned(project.folder / "theirs")
    for branch, text in (("retrained", "print('theirs')\n"), ("main", "print('main')\n")):
        project.git("checkout", "-q", branch, cwd=theirs)
        project.write({"train.py": text}, theirs)
        project.git("commit", "-q", "-a", "-m", branch, cwd=theirs)
        project.git("push", "-q", "origin", branch, cwd=theirs)
    project.git("fetch", "-q", "origin")
    head = project.git("ls-remote", "origin", "refs/heads/retrained")
    made = versions.register(
        project.clone, "churn", project.tree("r2", 0.8), "r2", branch="retrained"
    )
    assert made.tag == "churn@v1.1.0", "the version is there all the same"
    (note,) = made.notes
    assert "both changed train.py; merge it by hand" in note
    assert project.git("ls-remote", "origin", "refs/heads/retrained") == head


def test_a_clone_without_a_remote_has_the_branch_itself(project: Project):
    project.write({"model.json": "1"})
    project.commit("a model")
    project.git("remote", "remove", "origin")
    for run in ("r1", "r2"):
        made = versions.register_commit(project.clone, "churn", run, branch="retrained")
        assert made.notes == ()
    assert (
        project.git("merge-base", "retrained", "churn@v1.0.0").strip()
        == project.git("rev-parse", "churn@v1.0.0^{commit}").strip()
    )
    project.git("checkout", "-q", "retrained")
    project.write({"a.txt": "a"})
    project.git("add", "-A")
    project.git("commit", "-q", "-m", "more")
    made = versions.register_commit(project.clone, "churn", branch="retrained")
    assert "checked out in the clone" in made.notes[0]
