"""The scripts of the recipes in docs/lifecycle.md, against a fake `kubectl` that keeps Jobs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PAGE = (Path(__file__).parents[2] / "docs/lifecycle.md").read_text("utf-8")
RECIPES = PAGE.partition("## Recipes")[2]
SCRIPTS = {
    name: text
    for text in re.findall(r"^```\n(.*?)^```", RECIPES, re.DOTALL | re.MULTILINE)
    for name in re.findall(r"^# (\S+\.sh)$", text, re.MULTILINE)[:1]
}
KUBECTL = """#!{python}
import json, os, sys
from pathlib import Path

words, here = sys.argv[1:], Path(os.environ["FAKE"])
with (here / "calls").open("a") as file:
    print(json.dumps(words), file=file)
job = here / "job"
if words[:2] == ["get", "job"]:
    sys.exit(not job.exists())
if words[0] == "create":
    if job.exists():
        sys.exit("AlreadyExists")
    job.write_text(sys.stdin.read())
if words[0] == "delete":
    job.unlink()
if words[0] == "wait":
    ends = (here / "ends").read_text().split()
    if "condition=complete" in words[1] and len(ends) > 1:  # it takes a while
        (here / "ends").write_text(" ".join(ends[1:]))
        sys.exit(1)
    sys.exit(words[1] != f"--for=condition={{ends[0]}}")
if words[0] == "logs":
    print("epoch 1\\nschema: '2.0'\\nstages: {{}}")
if "status" in words:
    sys.exit(os.environ.get("ABORTED") == "1")
"""


class FakeCluster:
    """What a script does, and how it ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        for name, text in (
            ("kubectl", KUBECTL.format(python=sys.executable)),
            ("dvc", '#!/bin/sh\necho "[\\"dvc\\", \\"$1\\"]" >> "$FAKE/calls"\n'),
        ):
            (folder / "bin" / name).write_text(text)
            (folder / "bin" / name).chmod(0o755)
        for name, text in SCRIPTS.items():
            (folder / name).write_text(text)
        (folder / "job.yaml").write_text("{name: NAME, args: [SINCE, UNTIL, CHAMPION_TAG]}\n")

    def run(self, script: str, *words: str, **given: str) -> tuple[int, list[list[str]]]:
        """Exit code, and the calls."""
        (self.folder / "calls").write_text("")
        done = subprocess.run(
            ["sh", script, *words],
            cwd=self.folder,
            env={
                "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
                "FAKE": str(self.folder),
                **{f"STREAM_MONITOR_{k}": v for k, v in given.items() if k != "ABORTED"},
                "ABORTED": given.get("ABORTED", ""),
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        calls = (self.folder / "calls").read_text().splitlines()
        return done.returncode, [json.loads(line) for line in calls]


@pytest.fixture
def cluster(tmp_path: Path) -> FakeCluster:
    return FakeCluster(tmp_path)


RUN = {"RUN": "9f31c2", "SINCE": "2026-01-01T00:00:00Z", "UNTIL": "2026-01-02T00:00:00Z"}
RUN["CHAMPION_TAG"] = "fraud@v1.3.0"


def test_there_are_three():
    assert set(SCRIPTS) == {"train-job.sh", "kserve.sh", "argo.sh"}


def test_a_training_waits_for_its_job_and_takes_what_it_made(cluster):
    (cluster.folder / "ends").write_text("no no complete")
    code, calls = cluster.run("train-job.sh", **RUN)
    assert code == 0
    told = [RUN["SINCE"], RUN["UNTIL"], RUN["CHAMPION_TAG"]]
    assert (cluster.folder / "job").read_text() == (
        f"{{name: train-9f31c2, args: [{', '.join(told)}]}}\n"
    )
    assert (cluster.folder / "dvc.lock").read_text() == "schema: '2.0'\nstages: {}\n"
    assert calls[-1] == ["dvc", "pull"]
    (cluster.folder / "ends").write_text("complete")
    code, calls = cluster.run("train-job.sh", **RUN)  # after a crash: the Job is there
    assert (code, [c for c in calls if c[0] == "create"]) == (0, [])


def test_a_job_that_fails_fails_the_step_and_a_retry_makes_another(cluster):
    (cluster.folder / "ends").write_text("no failed")
    code, calls = cluster.run("train-job.sh", **RUN)
    assert code == 1
    assert calls[-1] == ["delete", "job", "train-9f31c2"]
    assert ["dvc", "pull"] not in calls
    (cluster.folder / "ends").write_text("complete")
    code, calls = cluster.run("train-job.sh", **RUN)
    assert (code, len([c for c in calls if c[0] == "create"])) == (0, 1)


def patched(cluster: FakeCluster, percent: float) -> dict[str, Any]:
    weights = json.dumps({"v1.4.0": percent, "v1.3.0": 100 - percent})
    code, (words,) = cluster.run("kserve.sh", VERSION="v1.4.0", WEIGHTS=weights)
    assert code == 0
    assert words[:-1] == ["patch", "inferenceservice", "fraud", "--type", "merge", "-p"]
    found: dict[str, Any] = json.loads(words[-1])["spec"]["predictor"]
    return found


@pytest.mark.parametrize(("percent", "said"), [(0.0, 0), (5.0, 5), (25.0, 25), (100.0, None)])
def test_kserve_gets_the_share_and_loses_the_field_at_the_end(cluster, percent, said):
    model = {"storageUri": "s3://models/fraud/v1.4.0"}
    first = patched(cluster, percent)
    assert first == {"model": model, "canaryTrafficPercent": said}
    assert patched(cluster, percent) == first


def test_argo_goes_and_comes_back_however_often(cluster):
    given = {"VERSION": "v1.4.0", "CHAMPION": "v1.3.0"}
    image = "fraud=registry.example.com/fraud:"
    for word, version in (("new", "v1.4.0"), ("back", "v1.3.0"), ("back", "v1.3.0")):
        code, calls = cluster.run("argo.sh", word, **given)
        assert code == 0
        assert calls[0] == ["argo", "rollouts", "set", "image", "fraud", image + version]
    assert cluster.run("argo.sh", "new", ABORTED="1", **given)[0] != 0
