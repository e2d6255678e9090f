"""Commands of the loop: one at a time, ended with all descendants, results kept whole."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stream_monitor.lifecycle.processes import Command, environment, run

FAST_MS = 60_000


def a_command(tmp_path: Path, code: str, **changes: Any) -> Command:
    command = Command(
        name="train",
        command=[sys.executable, "-c", code],
        cwd=tmp_path,
        environment=environment((), {}),
        timeout_ms=FAST_MS,
    )
    return msgspec.structs.replace(command, **changes)


WRITES = "import os, json; json.dump({'rows': 3}, open(os.environ['STREAM_MONITOR_RESULT'], 'w'))"
SAYS = "import os; open(os.environ['STREAM_MONITOR_RESULT'], 'w').write('{}')"
LONG = """
import subprocess, sys, time
child = "import time, os; os.setsid(); open('child', 'w').write(str(os.getpid())); time.sleep(60)"
subprocess.Popen([sys.executable, "-c", child])
open("began", "a").write("x")
time.sleep(60)
"""


async def until(condition: Any) -> None:
    for _ in range(600):
        if condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it never came")


def lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


async def test_a_result_is_kept_and_not_made_again(tmp_path):
    command = a_command(tmp_path, f"{WRITES}; open('ran', 'a').write('x')")
    first = await run(tmp_path, command)
    assert first.done
    assert first.result == {"rows": 3, "attempt": 1}
    assert await run(tmp_path, command) == first
    assert (tmp_path / "ran").read_text() == "x"
    await run(tmp_path, command, attempt=2)
    assert (tmp_path / "ran").read_text() == "xx"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import sys; print('no data'); sys.exit(3)", "exit code 3: no data"),
        ("import os; print('no data'); os.kill(os.getpid(), 9)", "ended by SIGKILL"),
        (f"print('no data'); {SAYS.format('[1]')}", "no JSON object"),
        (f"print('no data'); {SAYS.format('{{')}", "no JSON"),
    ],
)
async def test_a_failure_has_its_reason_and_its_log(tmp_path, code, reason):
    outcome = await run(tmp_path, a_command(tmp_path, code))
    assert not outcome.done
    assert reason in outcome.reason
    if "SIGKILL" not in reason:
        assert "no data" in outcome.log


async def test_a_program_that_is_not_there(tmp_path):
    command = a_command(tmp_path, "", command=["no-such-program-here"])
    outcome = await run(tmp_path, command)
    assert not outcome.done
    assert "no-such-program-here" in outcome.log + outcome.reason


async def test_a_timeout_ends_all_descendants(tmp_path):
    outcome = await run(tmp_path, a_command(tmp_path, LONG, timeout_ms=3_000))
    assert outcome.reason == "it took longer than 3 s"
    assert not lives(int((tmp_path / "child").read_text()))


async def test_a_cancel_ends_all_descendants(tmp_path):
    task = asyncio.ensure_future(run(tmp_path, a_command(tmp_path, LONG)))
    await until(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not lives(int((tmp_path / "child").read_text()))
    assert not list(tmp_path.glob("*.result"))


async def test_what_a_killed_starter_left_is_ended_first(tmp_path):
    """The starter dies by SIGKILL; its command, and a child in a session of its own, live on."""
    starter = f"""
import asyncio, sys
from pathlib import Path
sys.path.insert(0, {str(Path.cwd())!r})
from tests.unit.test_lifecycle_processes import LONG, a_command
from stream_monitor.lifecycle.processes import run
path = Path({str(tmp_path)!r})
asyncio.run(run(path, a_command(path, LONG)))
"""
    process = subprocess.Popen([sys.executable, "-c", starter])  # noqa: ASYNC220  it is quick
    child = tmp_path / "child"
    await until(lambda: child.exists() and child.read_text())
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    left = int(child.read_text())
    assert lives(left)
    began = time.monotonic()
    outcome = await run(tmp_path, a_command(tmp_path, WRITES))
    assert outcome.done
    assert not lives(left)
    assert time.monotonic() - began < 30


def test_only_named_variables_are_passed(monkeypatch):
    monkeypatch.setenv("AWS_SECRET", "x")
    monkeypatch.setenv("AWS_PROFILE", "y")
    made = environment(("AWS_PROFILE", "NOT_SET"), {"STREAM_MONITOR_RUN": "r"})
    assert "AWS_SECRET" not in made
    assert made["AWS_PROFILE"] == "y"
    assert "NOT_SET" not in made


STUBBORN = """
import signal, subprocess, sys, time
child = '''
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.setsid()
open("child", "w").write(str(os.getpid()))
time.sleep(60)
'''
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", child])
time.sleep(60)
"""


async def test_who_ignores_a_request_to_end_is_ended_by_force(tmp_path):
    """The polite request gets a second; a cancel reaches the last descendant soon after it."""
    task = asyncio.ensure_future(run(tmp_path, a_command(tmp_path, STUBBORN)))
    child = tmp_path / "child"
    await until(lambda: child.exists() and child.read_text())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not lives(int(child.read_text()))
    assert not list(tmp_path.glob("*.result"))
