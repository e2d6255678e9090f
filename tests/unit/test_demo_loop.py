"""
What `demo --loop` says where something is missing, before it does anything. That it works, and that
Ctrl-C leaves nothing, is tested on a real Kafka.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

WITHOUT = """
import importlib.machinery, sys
from stream_monitor.cli import main
real, gone = importlib.machinery.PathFinder.find_spec, sys.argv.pop(1)
importlib.machinery.PathFinder.find_spec = lambda name, *rest: (
    None if name.split(".")[0] == gone else real(name, *rest)
)
main()
"""
NO_FOLDER = """
import sys, tempfile
from stream_monitor.cli import main
gone = sys.argv.pop(1)
tempfile._candidate_tempdir_list = lambda: [gone]
main()
"""


def refused(code: str, argument: str, folder: Path, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, argument, "demo", "--loop"],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder), **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert not list(folder.iterdir())
    return done.stderr


@pytest.mark.parametrize("package", ["dvc", "sklearn"])
def test_a_package_that_is_missing_is_named_with_the_way_out(package, tmp_path):
    said = refused(WITHOUT, package, tmp_path)
    assert f"needs {package}: pip install 'model-stream-monitor[lifecycle]' scikit-learn" in said


def test_git_is_named_if_it_is_missing(tmp_path):
    assert "needs git" in refused(WITHOUT, "nothing", tmp_path, PATH=str(tmp_path))


def test_no_folder_to_write_to_is_named_with_the_way_out(tmp_path):
    said = refused(NO_FOLDER, str(tmp_path / "not-there"), tmp_path)
    assert "not-there" in said
    assert "set TMPDIR" in said
