"""Commands of a deployment, as real processes: what each is told, forward and on the way back."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import msgspec
import pytest

from stream_monitor.lifecycle.actions import Execute
from stream_monitor.lifecycle.events import Deployment, Rollout, Stage
from stream_monitor.lifecycle.model import Model
from stream_monitor.lifecycle.steps import Project
from stream_monitor.lifecycle_settings import Deploy, DeployCommand, ModelLoop

AT = "2026-01-01T00:00:00Z"
TELL = """
import json, os, pathlib, sys
told = {k: v for k, v in os.environ.items() if k.startswith("STREAM_MONITOR_")}
pathlib.Path(sys.argv[1]).write_text(json.dumps(told))
"""


def a_model(rollout: Rollout | None) -> Model:
    stage = Stage(model="churn", at=AT, stages={"v1.0.0": "production"}, rollout=rollout)
    return Model(stage=stage, stages=stage.stages)


ROLLOUT = Rollout(
    version="v1.1.0",
    against="v1.0.0",
    experiment="v1.1.0-abc123",
    stages=(5.0, 25.0, 100.0),
    step=1,
    since=AT,
)


@pytest.mark.parametrize(
    ("rollout", "undo", "weights"),
    [
        (ROLLOUT, False, {"v1.1.0": 25, "v1.0.0": 75}),
        (ROLLOUT, True, {"v1.1.0": 0, "v1.0.0": 100}),
        (None, True, {"v1.1.0": 0, "v1.0.0": 100}),
        # the next rollout has begun meanwhile
        (msgspec.structs.replace(ROLLOUT, version="v1.2.0", experiment="v1.2.0-f0"), True, None),
        (msgspec.structs.replace(ROLLOUT, against=None, stages=(100.0,), step=0), False, None),
    ],
)
async def test_a_command_knows_its_version_and_where_the_traffic_shall_go(
    tmp_path: Path, rollout, undo, weights
):
    told = {False: tmp_path / "do", True: tmp_path / "undo"}
    words = {k: (sys.executable, "-c", TELL, str(path)) for k, path in told.items()}
    command = DeployCommand(name="pods", command=words[False], rollback=words[True])
    loop = ModelLoop(repository=str(tmp_path), deploy=Deploy(commands=(command,)))
    project = Project("churn", loop, tmp_path / "work", None)
    step = rollout.step if rollout is not None and not undo else 1
    action = Execute("v1.1.0-abc123", step, "pods", undo)
    (event,) = await project.execute(a_model(rollout), action)
    assert isinstance(event, Deployment)
    assert event.outcome == ("taken_back" if undo else "done"), event.log
    got = json.loads(told[undo].read_text())
    first = rollout is not None and rollout.against is None
    expected = {"v1.1.0": 100} if first else weights or {"v1.1.0": 0, "v1.0.0": 100}
    assert json.loads(got["STREAM_MONITOR_WEIGHTS"]) == expected
    assert got["STREAM_MONITOR_VERSION"] == "v1.1.0"
    assert got["STREAM_MONITOR_CHAMPION"] == ("" if first else "v1.0.0")
    assert got["STREAM_MONITOR_MODEL"] == "churn"
