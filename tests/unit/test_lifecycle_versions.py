"""
Registration of versions with real git: one tag for a run, whatever is killed and whoever is faster.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha1
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_monitor.errors import InputError
from stream_monitor.lifecycle import git, tagging, tags, versions
from stream_monitor.lifecycle.git import GitError
from stream_monitor.lifecycle.model import Model
from stream_monitor.lifecycle.steps import Project as OfRuns
from stream_monitor.lifecycle_settings import ModelLoop
from stream_monitor.monitors.baseline import Profile, encode_profile, profile_id
from tests.model_project import Project

ROWS = "x,y\n1,0\n2,1\n"
FILES = {
    "train.py": "print('train')\n",
    "data/train.csv": ROWS,
    "data/train.manifest.json": json.dumps(
        {"rows": 2, "since": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z"}
    ),
    "reference.json": encode_profile(Profile()).decode(),
}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path, FILES)


def blob(text: str) -> str:
    """The hash of a file in git, by its definition."""
    data = text.encode()
    return "git:" + sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


LINE = st.text(st.characters(exclude_categories=("C", "Z")) | st.just(" "), min_size=1).map(
    tags.one_line
)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
CONTENT = st.builds(
    tags.Content,
    LINE.filter(bool) | st.sampled_from(["rows=5 x", "./rows=1 y", "range=a/b c", "./a", "a: b"]),
    st.binary(min_size=16, max_size=16).map(lambda b: f"md5:{b.hex()}"),
    st.none() | st.integers(0, 10**12),
    st.none() | st.just(("2026-01-01T00:00:00Z", "2026-02-01T00:00:00.123Z")),
)


@given(
    st.builds(
        tags.Message,
        subject=LINE,
        run=st.none() | st.from_regex(tags.RUN, fullmatch=True),
        data=st.lists(CONTENT, max_size=3).map(tuple),
        model=st.lists(CONTENT, max_size=3).map(tuple),
        metrics=st.dictionaries(
            LINE.filter(bool), st.floats(allow_nan=False, allow_infinity=False)
        ),
        reference=st.just("") | st.just("ab" * 16),
        reason=LINE,
    )
)
def test_a_message_says_what_was_put_into_it(message: tags.Message):
    assert tags.read(tags.written(message)) == message


@pytest.mark.parametrize("path", ["a\nRun: b", "a\x1b[2J", " a", "a "])
def test_a_path_that_would_say_something_else_is_refused(path: str):
    content = tags.Content(path, "md5:" + "ab" * 16)
    with pytest.raises(InputError, match="cannot stand in a tag"):
        tags.written(tags.Message(subject="x", data=(content,)))


def test_a_version_has_data_model_metrics_reference_and_run(project: Project):
    tree = project.tree("9f31c2", 0.91)
    base = project.git("rev-parse", "origin/main").strip()
    made = versions.register(
        project.clone, "churn", tree, "9f31c2", reason="lower bound +0.031\nafter 212 labels"
    )
    assert (made.version, made.tag, made.found) == ("v1.0.0", "churn@v1.0.0", False)
    assert made.data == {"data/train.csv": blob(ROWS)}
    assert made.artifact == {"model.json": blob('"9f31c2"')}
    assert (made.metrics, made.reference) == ({"accuracy": 0.91}, profile_id(Profile()))
    assert project.says("churn@v1.0.0").split("\n") == [
        "churn v1.0.0: accuracy 0.91",
        "",
        "Run: 9f31c2",
        f"Data: {blob(ROWS)} rows=2 range=2026-01-01T00:00:00Z/2026-01-02T00:00:00Z data/train.csv",
        f"Model: {blob(chr(34) + '9f31c2' + chr(34))} model.json",
        'Metrics: {"accuracy":0.91}',
        f"Reference: {profile_id(Profile())}",
        "Reason: lower bound +0.031 after 212 labels",
        "",
        "",
    ]
    assert project.git("rev-parse", f"{made.revision}^").strip() == base
    assert project.git("branch", "--all", "--contains", made.revision) == ""
    assert project.git("show", f"{made.tag}:model.json") == '"9f31c2"'
    event = made.event("Churn model", "2026-01-03T00:00:00Z", "ana")
    assert (event.model, event.version, event.run) == ("Churn model", "v1.0.0", "9f31c2")


def test_a_project_may_be_a_directory_of_a_clone(tmp_path: Path):
    files = {f"eu/churn/{name}": text for name, text in FILES.items()}
    project = Project(tmp_path, {**files, "model.pkl": "of another project"})
    tree = project.tree("a1")
    project.write({"model.json": "7", "metrics.json": '{"f1": 0.5}'}, tree / "eu" / "churn")
    made = versions.register(project.clone / "eu" / "churn", "churn", tree, "a1")
    assert made.data == {"data/train.csv": blob(ROWS)}
    assert (made.artifact, made.metrics) == ({"model.json": blob("7")}, {"f1": 0.5})
    by_hand = versions.register_commit(project.clone / "eu" / "churn", "churn")
    assert (by_hand.version, by_hand.data) == ("v1.1.0", made.data)


def test_the_same_run_is_one_version_and_the_next_run_the_next_minor(project: Project):
    tree = project.tree("a1")
    first = versions.register(project.clone, "churn", tree, "a1")
    again = versions.register(project.clone, "churn", tree, "a1")
    assert (again.found, again.version, again.revision) == (True, first.version, first.revision)
    assert (again.data, again.metrics) == (first.data, first.metrics)
    numbers = [
        versions.register(project.clone, "churn", project.tree(f"b{i}"), f"b{i}").version
        for i in range(10)
    ]
    assert numbers == [f"v1.{i}.0" for i in range(1, 11)]  # v1.10.0 comes after v1.9.0
    listed = [t.version for t in tagging.versions_of(project.clone, "churn")]
    assert listed == [*reversed(numbers), "v1.0.0"]


@pytest.mark.parametrize("clones", ["one", "six"])
def test_six_at_once_get_six_numbers(project: Project, clones: str):
    code = (
        "import sys\nfrom pathlib import Path\nfrom stream_monitor.lifecycle import versions\n"
        "clone, tree, run = sys.argv[1:]\n"
        "print(versions.register(Path(clone), 'churn', Path(tree), run).version)"
    )
    runs = [f"run{i}" for i in range(6)]
    work = []
    for run in runs:
        clone = project.clone if clones == "one" else project.cloned(project.folder / run)
        work.append((clone, project.tree(run, clone=clone), run))
    started = [
        subprocess.Popen([sys.executable, "-c", code, *map(str, each)], stdout=subprocess.PIPE)
        for each in work
    ]
    found = {p.communicate(timeout=120)[0].decode().strip() for p in started}
    assert [p.returncode for p in started] == [0] * 6
    assert found == {f"v1.{i}.0" for i in range(6)}
    assert len(project.tags()) == 6
    assert {tags.read(project.says(tag)).run for tag in project.tags()} == set(runs)


def wrapped(folder: Path, at: int) -> str:
    """A PATH on which the git command of this number kills who called it, after it ended."""
    folder.mkdir()
    real = subprocess.check_output(["which", "git"], text=True).strip()
    program = folder / "git"
    program.write_text(
        f"""#!/bin/sh
n=$(cat {folder}/count 2>/dev/null || echo 0); n=$((n + 1)); echo $n > {folder}/count
{real} "$@"; code=$?
[ "$n" = {at} ] && kill -9 $PPID
exit $code
"""
    )
    program.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def registered_with(path: str, project: Project, tree: Path, run: str) -> int:
    """Register in a process of its own; its exit code, or the number of the signal."""
    child = os.fork()
    if child == 0:
        os.environ["PATH"] = path
        try:
            versions.register(project.clone, "churn", tree, run)
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("remote", ["with a remote", "without"])
def test_killed_at_each_command_and_done_again_it_is_one_tag(
    project: Project, tmp_path: Path, remote: str
):
    tree = project.tree("any")
    if remote == "without":
        project.git("remote", "remove", "origin")
    runs = []
    for at in range(1, 40):
        runs.append(f"run{at}")
        code = registered_with(wrapped(tmp_path / f"bin{at}", at), project, tree, runs[-1])
        if code == 0:
            break
        assert code == -9
        versions.register(project.clone, "churn", tree, runs[-1])
    assert at > 12
    tagged = tagging.versions_of(project.clone, "churn")
    assert sorted(t.message.run or "" for t in tagged) == sorted(runs)
    assert len({t.version for t in tagged}) == len(runs)


def test_without_a_remote_the_tag_is_in_the_clone(project: Project):
    tree = project.tree("a1")
    project.git("remote", "remove", "origin")
    with ThreadPoolExecutor(2) as both:
        first, second = both.map(
            lambda run: versions.register(project.clone, "churn", tree, run), ["a1", "a2"]
        )
    assert {first.version, second.version} == {"v1.0.0", "v1.1.0"}
    assert project.tags() == {}
    assert versions.register(project.clone, "churn", tree, "a1").version == first.version


def test_a_remote_that_is_away_leaves_nothing_and_later_it_works(project: Project):
    tree = project.tree("a1")
    project.remote.rename(project.folder / "away")
    with pytest.raises(GitError, match="the remote does not answer") as away:
        versions.register(project.clone, "churn", tree, "a1")
    assert away.value.remote_away
    assert tagging.versions_of(project.clone, "churn") == []
    (project.folder / "away").rename(project.remote)
    assert versions.register(project.clone, "churn", tree, "a1").version == "v1.0.0"


def test_a_push_that_the_remote_refuses_is_an_error_and_no_version(project: Project):
    hook = project.remote / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho protected tags >&2\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(GitError, match=r"git push .* failed: .*protected tags"):
        versions.register(project.clone, "churn", project.tree("a1"), "a1")
    assert project.tags() == {}
    assert tagging.versions_of(project.clone, "churn") == []


def test_hooks_of_the_clone_do_not_run(project: Project):
    for name in ("pre-push", "reference-transaction", "post-checkout"):
        hook = project.clone / ".git" / "hooks" / name
        hook.write_text(f"#!/bin/sh\ntouch {project.folder}/ran-{name}\nexit 1\n")
        hook.chmod(0o755)
    tree = project.folder / "own"
    git.run(project.clone, "worktree", "add", "--detach", "--", str(tree), "origin/main")
    versions.register(project.clone, "churn", tree, "a1")
    assert list(project.folder.glob("ran-*")) == []


def test_a_person_tags_the_commit_that_is_checked_out(project: Project):
    head = project.git("rev-parse", "HEAD").strip()
    first = versions.register_commit(project.clone, "churn", by="ana")
    assert (first.version, first.revision, first.found) == ("v1.0.0", head, False)
    assert versions.register_commit(project.clone, "churn").found
    project.write({"model.json": "2"})
    with pytest.raises(InputError, match=r"differs from its last commit: model\.json"):
        versions.register_commit(project.clone, "churn")
    project.commit("second")
    assert versions.register_commit(project.clone, "churn", part="patch").version == "v1.0.1"
    project.write({"model.json": "3"})
    project.commit("third")
    assert versions.register_commit(project.clone, "churn", part="major").version == "v2.0.0"
    assert versions.register_commit(project.clone, "churn", "nightly-7").version == "v2.1.0"
    assert project.git("log", "-1", "--format=%an", first.tag).strip() == "ana"
    assert len(project.tags()) == 4


@pytest.mark.parametrize(
    "name", ["-x", "churn.v2", "a b", "a//b", "a:b", "ä", "", "x" * 129, "a\n", "--upload-pack=x"]
)
def test_names_that_are_no_names_never_reach_git(project: Project, name: str):
    with pytest.raises(InputError, match="cannot be the name of a tag"):
        versions.register_commit(project.clone, name)
    with pytest.raises(InputError, match="run"):
        versions.register_commit(project.clone, "churn", f"{name} x")


def test_a_file_that_is_too_large_for_git_is_named(project: Project, monkeypatch):
    monkeypatch.setattr(versions, "PLAIN_BYTES_MAX", 10)
    tree = project.tree("a1")
    (tree / "rows.parquet").write_bytes(b"x" * 11)
    with pytest.raises(InputError, match=r"metrics\.json, rows\.parquet|rows\.parquet"):
        versions.register(project.clone, "churn", tree, "a1")


def test_errors_say_what_to_do(project: Project, tmp_path: Path):
    for wanted, call in {
        "name a clone": lambda: git.commit_of(tmp_path, "main"),
        "no such directory": lambda: git.run(tmp_path / "none", "status"),
        "has no branch, tag or commit 'nope'": lambda: git.commit_of(project.clone, "nope"),
        r"lifecycle\.models\.….base": lambda: git.base_commit(project.clone, "origin", "nope"),
        r"has origin; set lifecycle": lambda: git.remote_of(project.clone, "upstream"),
        "not an address": lambda: git.remote_of(project.clone, "https://ana:secret@host/x"),
        "is not a branch": lambda: git.commit_of(project.clone, "--output=/etc/passwd"),
    }.items():
        with pytest.raises((GitError, InputError), match=wanted):
            call()


def test_an_error_has_no_password(project: Project):
    project.git("remote", "set-url", "origin", "https://ana:secret@127.0.0.1:1/x.git")
    with pytest.raises(GitError) as away:
        tagging.refresh(project.clone, "churn", "origin")
    assert "secret" not in str(away.value)


def test_tags_of_others_are_read_as_far_as_they_go(project: Project):
    project.git("tag", "-a", "-m", "by hand", "churn@v1.2.0")
    project.git("tag", "churn@v1.3.0")
    for other in ("churn@v1.4.0-rc.1", "churn@v01.5.0", "churn#prod#1", "churn@v9.9.9!", "v7.0.0"):
        project.git("tag", other)
    project.git("push", "--quiet", "origin", "--tags")
    found = tagging.versions_of(project.clone, "churn")
    assert [(t.version, t.message.subject) for t in found] == [
        ("v1.3.0", ""),
        ("v1.2.0", "by hand"),
    ]
    assert versions.register(project.clone, "churn", project.tree("a1"), "a1").version == "v1.4.0"
    assert tagging.artifacts_in(project.clone) == ["churn"]


def marks(project: Project, n: int) -> list[str]:
    """Tags of stages on the remote, once there are so many."""
    for _ in range(600):
        refs = git.run(project.remote, "for-each-ref", "--format=%(refname)", "refs/tags/churn#*")
        if len(refs.split()) >= n:
            return refs.split()
        time.sleep(0.05)
    raise AssertionError(refs)


def test_the_controller_marks_the_champion_in_git_once(project: Project, tmp_path: Path):
    made = [versions.register(project.clone, "churn", project.tree(r), r) for r in ("a", "b")]
    loop = ModelLoop(repository=str(project.clone))
    owner = OfRuns("churn", loop, tmp_path / "work", None)
    for n, each in enumerate(made, 1):
        for _ in range(3):
            owner.tidy(Model(stages={each.version: "production"}))
        assert len(marks(project, n)) == n
        project.git("fetch", "--quiet", "origin", "refs/tags/churn#*:refs/tags/churn#*")
        assert tagging.marked(project.clone, "churn", "prod") == each.revision
    tagging.mark_champion(project.clone, "churn", "v1.1.0", "origin")
    assert marks(project, 2) == ["refs/tags/churn#prod#1", "refs/tags/churn#prod#2"]
