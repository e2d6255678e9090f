"""
Worker processes as an orchestrator runs them: one that dies is started again.

Rule of the file: it starts, signals, restarts and asks; what a fault is and what must come of it is
not its business.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path

BACKOFF_S = 0.5


class Member:
    """One worker process and its log."""

    def __init__(self, number: int, file: Path, folder: Path) -> None:
        self.number = number
        self.out, self.err = folder / f"worker-{number}.out", folder / f"worker-{number}.log"
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "stream_monitor", "worker", "--config", str(file)],
                stdout=out,
                stderr=err,
            )
        self.stopped = False
        """By SIGSTOP."""
        self.retired = False
        """Told to end and not to be started again."""

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    @property
    def log(self) -> str:
        return self.err.read_text()

    def send(self, number: signal.Signals) -> None:
        self.stopped = number == signal.SIGSTOP or (
            self.stopped and number not in (signal.SIGCONT, signal.SIGKILL)
        )
        if self.alive:
            os.kill(self.process.pid, number)

    def get(self, path: str) -> str:
        """What it answers over HTTP. Raises OSError."""
        told = self.out.read_text().split()
        if not told:
            raise ConnectionError("not listening yet")
        with urllib.request.urlopen(told[-1] + path, timeout=5) as response:
            return str(response.read().decode())

    def metrics(self) -> dict[str, float]:
        """What it shows, or nothing when it does not answer."""
        try:
            lines = self.get("/metrics").splitlines() if self.alive and not self.stopped else []
        except OSError:
            return {}
        return {
            line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
            for line in lines
            if line and not line.startswith("#")
        }

    def ready(self) -> bool:
        """Whether it has opened what it was assigned."""
        try:
            return self.alive and not self.stopped and bool(self.get("/ready"))
        except OSError:  # 503 too
            return False

    def owned(self) -> list[int]:
        """
        Partitions of `observations` it evaluates now; from its log, since a scrape of many models
        is dear.
        """
        opened = (
            [line for line in self.log.splitlines() if " open: " in line] if self.ready() else []
        )
        return [int(n) for n in re.findall(r"observations/(\d+)", opened[-1])] if opened else []


class Fleet:
    """All workers of a group."""

    def __init__(self, file: Path, folder: Path) -> None:
        self.file, self.folder = file, folder
        self.members: list[Member] = []
        self.ended: list[Member] = []
        self.codes: Counter[int] = Counter()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._supervise, name="orchestrator", daemon=True)

    def start(self, workers: int) -> None:
        for _ in range(workers):
            self.add()
        self._thread.start()

    def add(self) -> Member:
        with self._lock:
            member = Member(len(self.members) + len(self.ended), self.file, self.folder)
            self.members.append(member)
            return member

    def _supervise(self) -> None:
        while not self._stop.wait(BACKOFF_S):
            for member in [m for m in self.members if not m.alive]:
                self._bury(member)
                if not member.retired:
                    self.add()

    def _bury(self, member: Member) -> None:
        with self._lock:
            if member in self.members:
                self.members.remove(member)
                self.ended.append(member)
                self.codes[member.process.returncode] += 1

    @property
    def running(self) -> list[Member]:
        """Those that live and are not stopped."""
        return [m for m in self.members if m.alive and not m.stopped and not m.retired]

    def metrics(self) -> list[dict[str, float]]:
        return [m.metrics() for m in self.running]

    def ready(self) -> bool:
        """Whether every worker has opened what it was assigned."""
        return all(m.ready() for m in self.running)

    def logs(self) -> list[str]:
        return [m.log for m in [*self.ended, *self.members]]

    def terminate(self, limit_s: float = 30) -> list[tuple[int, float]]:
        """SIGTERM to all at once; exit code and seconds of each."""
        self._stop.set()
        self._thread.join(5)
        began, waiting = time.monotonic(), list(self.members)
        out = []
        for member in waiting:
            member.retired = True
            member.send(signal.SIGCONT)
            member.send(signal.SIGTERM)
        while waiting and time.monotonic() - began < limit_s:
            for member in [m for m in waiting if not m.alive]:
                waiting.remove(member)
                out.append((member.process.returncode, time.monotonic() - began))
                self._bury(member)
            time.sleep(0.05)
        return out + [(-1, limit_s) for _ in waiting]

    def close(self) -> None:
        """Nothing of ours stays."""
        self._stop.set()
        for member in list(self.members):
            if member.alive:
                member.process.kill()
                member.process.wait(10)
