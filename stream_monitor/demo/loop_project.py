"""
The project of `demo --loop`: a copy of `examples/churn`, with git, a remote, and DVC.

Rule of the file: all of it is in one folder that is removed afterwards. Programs are called as a
person would call them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import util
from pathlib import Path

from stream_monitor.errors import InputError

NEEDED = ("dvc", "duckdb", "pyarrow", "sklearn")
HERE = Path(__file__).parent
SOURCES = (HERE / "churn", HERE.parents[1] / "examples" / "churn")
"""Where the example is: in an installation, and in a clone."""
MADE = (
    *("__pycache__", ".pytest_cache", ".git", ".dvc", ".dvcignore", "dvc.lock", "*.json"),
    *("data", "models", "predictions"),
)
MINUTES_S = 120.0


def demand() -> None:
    """
    Check what the demo needs.

    Raises
    ------
    InputError
        A package or git is missing.
    """
    missing = [name for name in NEEDED if util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"demo --loop needs {', '.join(missing)}: "
            "pip install 'model-stream-monitor[lifecycle]' scikit-learn"
        )
    if shutil.which("git") is None:
        raise InputError("demo --loop needs git, and there is no program of this name")


def copied_example(source: Path, target: Path) -> None:
    """Copy the example, without what somebody made who tried it where it lies."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(*MADE))


class DemoProject:
    """
    A project with one version.

    Parameters
    ----------
    folder : Path
        An empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.clone = folder, folder / "churn"
        self._running: set[subprocess.Popen[str]] = set()
        self._ended = False

    def end(self) -> None:
        """End the programs that run, and begin no other: the folder is about to be removed."""
        self._ended = True
        for process in list(self._running):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        while self._running:
            time.sleep(0.01)

    def make(self) -> None:
        """The first data, the first model, and a commit with both on the remote."""
        source = next(s for s in SOURCES if s.is_dir())
        copied_example(source, self.clone)
        self.git("init", "--quiet", "--bare", "-b", "main", str(self.folder / "remote.git"))
        self.git("init", "--quiet", "-b", "main")
        self.git("remote", "add", "origin", str(self.folder / "remote.git"))
        self.dvc("init", "--quiet")
        self.dvc("remote", "add", "--quiet", "-d", "storage", str(self.folder / "storage"))
        self.dvc("config", "core.analytics", "false")
        self.python("customers.py", "data/collected.parquet")
        self.dvc("add", "--quiet", "data/collected.parquet")
        self.dvc("repro", "--quiet")
        self.git("add", "-A")
        self.git("commit", "--quiet", "-m", "The first model")
        self.git("push", "--quiet", "origin", "main")

    def spoil(self) -> None:
        """A model with wrong weights, as a broken training pipeline makes one."""
        from json import dumps, loads

        path = self.clone / "model.json"
        self.dvc("unprotect", "model.json")
        found = loads(path.read_text())
        found["weights"] = [-w for w in found["weights"]]
        path.write_text(dumps(found))
        self.dvc("commit", "--force", "--quiet", "train")
        self.git("add", "-A")
        self.git("commit", "--quiet", "-m", "A change of the training that nobody looked at")
        self.git("push", "--quiet", "origin", "main")

    def model_of(self, tag: str) -> Path:
        """The model file of a version, brought back by DVC."""
        path = self.folder / f"{tag.replace('/', '-')}.json"
        if not path.exists():
            part = path.with_suffix(".part")
            self.dvc("get", "--quiet", "--force", ".", "model.json", "--rev", tag, "-o", str(part))
            part.replace(path)
        return path

    # ---- programs

    def git(self, *words: str) -> None:
        self._run(("git", *IDENTITY, *words))

    def dvc(self, *words: str) -> None:
        self._run((sys.executable, "-m", "dvc", *words))

    def python(self, *words: str) -> None:
        self._run((sys.executable, *words))

    def ours(self, *words: str) -> str:
        """A command of stream-monitor; returns what it printed."""
        return self._run((sys.executable, "-m", "stream_monitor", *words))

    def _run(self, words: Sequence[str]) -> str:
        if self._ended:
            raise InputError("the demo was stopped")
        with subprocess.Popen(  # noqa: S603  fixed programs of the demo
            words,
            cwd=self.clone if self.clone.exists() else self.folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the demo alone; it ends them
        ) as process:
            self._running.add(process)
            try:
                out, err = process.communicate(timeout=MINUTES_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise InputError(f"{' '.join(words)}: no end after {MINUTES_S:g} s") from None
            finally:
                self._running.discard(process)
        if process.returncode:
            raise InputError(f"{' '.join(words)}: {(err or out).strip()[-2_000:]}")
        return out


IDENTITY = ("-c", "user.name=demo", "-c", "user.email=demo@localhost", "-c", "commit.gpgsign=false")


def environment() -> dict[str, str]:
    """Ours, with the programs of this installation first."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    return {**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "1"}
