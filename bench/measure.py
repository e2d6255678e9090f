"""
What is measured: a process with all its children, from outside, and the same way for our worker and for every peer.

Rule of the file: a subject says `listening on http://HOST:PORT` on its output and counts on /metrics under the names of our catalogue; nothing else is asked of it.
CPU and memory are those that the kernel tells (Linux, /proc), so that no subject measures itself.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
from kafka_server import KafkaServer, missing  # noqa: E402 - scripts are no package

CLOCK = os.sysconf("SC_CLK_TCK")
START_S, STALL_S, POLL_S = 90, 20, 0.25
COUNTERS = {"predictions": "model_predictions_total", "pairs": "model_labels_total", "both": "model_labels_total"}


class Measurement(NamedTuple):
    """One run: what was counted after the warm-up, and what it took."""

    events: int
    cpu_s: float
    wall_s: float
    rss_mb: float
    scrape_ms_max: float
    """The slowest answer of /metrics under this load."""
    complete: bool
    """False: it was cut off by the time limit, or stopped counting."""

    @property
    def per_cpu_s(self) -> float:
        return self.events / max(self.cpu_s, 1 / CLOCK)


class Subject:
    """A process that is measured, with its output in a file."""

    def __init__(self, command: Sequence[str], folder: Path, env: dict[str, str] | None = None) -> None:
        self.output = folder / f"output-{random.randrange(10**9)}.txt"
        with self.output.open("wb") as out:
            self.process = subprocess.Popen(
                command, stdout=out, stderr=subprocess.STDOUT, cwd=ROOT, env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})}, start_new_session=True
            )
        self.pid = self.process.pid
        try:
            self.url = self._listening()
        except BaseException:
            self.stop()
            raise

    def said(self) -> str:
        """The end of its output."""
        return self.output.read_text(errors="replace")[-2_000:]

    def _listening(self) -> str:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            for line in self.output.read_text(errors="replace").splitlines():
                if line.startswith("listening on http"):
                    return line.split()[-1]
            time.sleep(0.05)
        raise RuntimeError(f"{self.process.args} did not say where it listens: {self.said()}")

    def metrics(self) -> str:
        """The page of /metrics."""
        with urllib.request.urlopen(self.url + "/metrics", timeout=60) as response:
            text: str = response.read().decode()
            return text

    def counted(self, name: str) -> int:
        """Sum of a counter over its series."""
        return int(sum(float(line.rpartition(" ")[2]) for line in self.metrics().splitlines() if line.startswith((name + "{", name + " "))))

    def wait_ready(self) -> None:
        """Until our worker has opened its partitions."""
        deadline = time.monotonic() + START_S
        while "\nstream_monitor_ready 1" not in self.metrics():
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise RuntimeError(f"the worker was not ready: {self.said()}")
            time.sleep(0.1)

    def tree(self) -> list[int]:
        """The process and all its descendants."""
        parents: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and (fields := _stat(int(entry.name))):
                parents.setdefault(int(fields[1]), []).append(int(entry.name))
        found, at = [self.pid], 0
        while at < len(found):
            found += parents.get(found[at], [])
            at += 1
        return found

    def cpu_s(self) -> float:
        """User + system of all its processes, ended children too."""
        return sum(sum(map(int, fields[11:15])) for pid in self.tree() if (fields := _stat(pid))) / CLOCK

    def rss_mb(self) -> float:
        """Peak resident memory of all its processes."""
        total = 0
        for pid in self.tree():
            try:
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            except OSError:
                continue
            total += sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
        return total / 1024

    def stop(self) -> None:
        """End it and its children."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(15)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)  # its own session: only its own processes
        self.process.wait(10)


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat after the name, state first; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def drained(subject: Subject, counter: str, n: int, *, warmup_s: float = 10, limit_s: float = 60) -> Measurement:
    """
    Measure a subject while it works through `n` events.

    The measured stretch begins when a fifth of them is counted, or `warmup_s` after the first (a slow subject), and ends with the last, or `limit_s` later.
    """
    first = begin = last = (0, 0.0, 0.0)  # counted, CPU seconds, time
    started, scrape_s_max = time.monotonic(), 0.0
    while True:
        asked = time.monotonic()
        now = (subject.counted(counter), subject.cpu_s(), time.monotonic())
        scrape_s_max = max(scrape_s_max, now[2] - asked)
        if subject.process.poll() is not None:
            raise RuntimeError(f"{subject.process.args} ended: {subject.said()}")
        if now[0] and not first[0]:
            first = now
        if now[0] and not begin[0] and (now[0] >= n / 5 or now[2] - first[2] >= warmup_s):
            begin = last = now
        if now[0] > last[0] and begin[0]:
            last = now
        if now[0] >= n or (begin[0] and now[2] - begin[2] >= limit_s):
            break
        if now[2] - max(last[2], started) > max(STALL_S, START_S if not first[0] else 0):
            break
        time.sleep(POLL_S)
    if last[0] <= begin[0]:
        raise RuntimeError(f"{subject.process.args} counted {last[0]} of {n} events, too few to measure: {subject.said()}")
    return Measurement(last[0] - begin[0], last[1] - begin[1], last[2] - begin[2], subject.rss_mb(), scrape_s_max * 1e3, last[0] >= n)


def worker_command(
    folder: Path, bootstrap: str, prefix: str, *, defaults: dict[str, Any] | None = None, limits: dict[str, int] | None = None, models: dict[str, Any] | None = None
) -> list[str]:
    """Write a `monitor.yaml` with a group of its own; the command of a worker."""
    kafka = {"bootstrap_servers": bootstrap, "topic_prefix": prefix}
    worker = {"group": f"{prefix}{random.randrange(10**9)}", "metrics": {"port": 0}}
    config = folder / "monitor.yaml"
    config.write_text(json.dumps({"kafka": kafka, "worker": worker, "defaults": defaults or {}, "limits": limits or {}, "models": models or {}}))
    return [sys.executable, "-m", "stream_monitor", "worker", "--config", str(config)]


@contextmanager
def running(command: Sequence[str], folder: Path, env: dict[str, str] | None = None) -> Iterator[Subject]:
    """A subject that is ended afterwards."""
    subject = Subject(command, folder, env)
    try:
        yield subject
    finally:
        subject.stop()


@contextmanager
def broker(bootstrap: str | None) -> Iterator[str]:
    """The broker given, or one of our own for this time."""
    if bootstrap:
        yield bootstrap
        return
    if why := missing():
        raise SystemExit(why)
    server = KafkaServer()
    try:
        yield server.start().bootstrap
    finally:
        server.close()


@contextmanager
def workplace() -> Iterator[tuple[Path, str]]:
    """A folder, and a prefix of topics that nobody else has."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        yield Path(folder), f"bench{random.randrange(10**9)}."
