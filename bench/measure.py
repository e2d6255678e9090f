"""
What is measured: a process with all its children, from outside, and the same way for our worker and
for every peer.

Rule of the file: a subject says `listening on http://HOST:PORT` on its output and counts on
/metrics under the names of our catalogue; nothing else is asked of it. CPU and memory are those
that the kernel tells (Linux, /proc), so that no subject measures itself.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
from kafka_server import KafkaServer, missing  # noqa: E402 - scripts are no package

CLOCK = os.sysconf("SC_CLK_TCK")
START_S, STALL_S, POLL_S = 90, 20, 1.0
WAITED_MAX, IDLE_CORES = 0.1, 0.2
COUNTERS = {
    "predictions": "model_predictions_total",
    "pairs": "model_labels_total",
    "both": "model_labels_total",
}


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
    waited: float = 0.0
    """
    Share of the measured time between looks at which it had counted nothing new while it used less
    than a fifth of a core.
    """

    @property
    def per_cpu_s(self) -> float:
        return self.events / max(self.cpu_s, 1 / CLOCK)

    @property
    def is_rate(self) -> bool:
        """Whether the measured stretch is one of work: what waited, or stood still, has no rate."""
        return self.events > 0 and self.waited <= WAITED_MAX


class Subject:
    """A process that is measured, with its output in a file."""

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        env: dict[str, str] | None = None,
        cwd: Path = ROOT,
    ) -> None:
        self.output = folder / f"output-{random.randrange(10**9)}.txt"
        with self.output.open("wb") as out:
            self.process = subprocess.Popen(
                command,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
                start_new_session=True,
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
        """The page of /metrics; RuntimeError with the end of its output when it does not answer."""
        try:
            with urllib.request.urlopen(self.url + "/metrics", timeout=60) as response:
                text: str = response.read().decode()
                return text
        except OSError as e:
            raise RuntimeError(
                f"{self.process.args}: /metrics does not answer ({e}): {self.said()}"
            ) from None

    def counted(self, name: str) -> int:
        """Sum of a counter over its series."""
        return int(
            sum(
                float(line.rpartition(" ")[2])
                for line in self.metrics().splitlines()
                if line.startswith((name + "{", name + " "))
            )
        )

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
        return (
            sum(sum(map(int, fields[11:15])) for pid in self.tree() if (fields := _stat(pid)))
            / CLOCK
        )

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


class Reading(NamedTuple):
    """What a subject had counted and taken at a moment."""

    events: int
    cpu_s: float
    time_s: float


def drained(
    subject: Subject, counter: str, n: int, *, warmup_s: float = 10, limit_s: float = 60
) -> Measurement:
    """
    Measure a subject while it works through `n` events, by a look each second.

    The measured stretch begins when a fifth of them is counted, or `warmup_s` after the first (a
    slow subject). It ends with the last look before the last event, so that no idle time is in it,
    or `limit_s` after it began; a run so short that this would leave out half of it is measured to
    the first look after the last event.
    """
    readings: list[Reading] = []
    answers_s: list[float] = []
    begin: int | None = None
    moved_s = time.monotonic() + START_S - STALL_S
    while True:
        asked = time.monotonic()
        now = Reading(subject.counted(counter), subject.cpu_s(), time.monotonic())
        if subject.process.poll() is not None:
            raise RuntimeError(f"{subject.process.args} ended: {subject.said()}")
        answers_s.append(now.time_s - asked)
        if not readings or now.events > readings[-1].events:
            moved_s = max(moved_s, now.time_s)
        readings.append(now)
        first = next((r for r in readings if r.events), None)
        if (
            begin is None
            and first
            and (now.events >= n / 5 or now.time_s - first.time_s >= warmup_s)
        ):
            begin = len(readings) - 1
        if (
            now.events >= n
            or (begin is not None and now.time_s - readings[begin].time_s >= limit_s)
            or now.time_s - moved_s > STALL_S
        ):
            break
        time.sleep(max(0.0, POLL_S - answers_s[-1]))
    if begin is None or readings[-1].events == 0:
        raise RuntimeError(
            f"{subject.process.args} counted {now.events} of {n} events, too few to measure: "
            f"{subject.said()}"
        )
    start, end = stretch(readings, begin, n)
    part = [r for r in readings if start.time_s <= r.time_s <= end.time_s]
    return Measurement(
        end.events - start.events,
        end.cpu_s - start.cpu_s,
        end.time_s - start.time_s,
        subject.rss_mb(),
        max(answers_s[begin:]) * 1e3,
        now.events >= n,
        waited(part),
    )


def waited(readings: list[Reading]) -> float:
    """
    Share of the time in which nothing was counted and hardly a core was used.

    Examples
    --------
    >>> waited([Reading(0, 0.0, 0), Reading(50, 0.9, 1), Reading(50, 0.9, 3), Reading(90, 1.8, 4)])
    0.5
    """
    if len(readings) < 2:
        return 0.0
    still = [
        b.time_s - a.time_s
        for a, b in itertools.pairwise(readings)
        if b.events == a.events and b.cpu_s - a.cpu_s < IDLE_CORES * (b.time_s - a.time_s)
    ]
    return sum(still) / (readings[-1].time_s - readings[0].time_s)


def fresh(group: str) -> str:
    """
    The name of a group that nobody has used: a group that was there goes on where it was, and
    counts nothing.
    """
    return f"{group}-{random.randrange(10**9)}"


def whole(subject: Subject, counter: str, n: int) -> Measurement:
    """
    Measure our worker over all of its `n` events: from the last look before it took a record to the
    first look at all of them counted, or until it counts no more for a while.
    """
    answers_s: list[float] = []
    begun = False

    def look() -> Reading:
        asked = time.monotonic()
        found = Reading(subject.counted(counter), subject.cpu_s(), time.monotonic())
        answers_s.append(found.time_s - asked)
        if subject.process.poll() is not None:
            raise RuntimeError(f"{subject.process.args} ended: {subject.said()}")
        return found

    begin = now = moved = look()
    readings = [begin]
    while now.events < n and now.time_s - moved.time_s < (STALL_S if now.events else START_S):
        time.sleep(POLL_S if begun else POLL_S / 10)
        now = look()
        readings.append(now)
        begun = begun or subject.counted("stream_monitor_records_total") > 0
        if not begun:
            begin = now
        if now.events > moved.events:
            moved = now
    end = now if now.events >= n else moved
    return Measurement(
        end.events,
        end.cpu_s - begin.cpu_s,
        end.time_s - begin.time_s,
        subject.rss_mb(),
        max(answers_s) * 1e3,
        now.events >= n,
        waited([r for r in readings if begin.time_s <= r.time_s <= end.time_s]),
    )


def stretch(readings: list[Reading], begin: int, n: int) -> tuple[Reading, Reading]:
    """
    First and last reading of the measured stretch.

    Examples
    --------
    >>> looks = [
    ...     Reading(0, 0.5, 1),
    ...     Reading(30, 1, 2),
    ...     Reading(60, 2, 3),
    ...     Reading(90, 3, 4),
    ...     Reading(100, 3.5, 5),
    ... ]
    >>> stretch(looks, 1, 100)
    (Reading(events=30, cpu_s=1, time_s=2), Reading(events=90, cpu_s=3, time_s=4))
    >>> stretch([looks[0], looks[4]], 1, 100)
    (Reading(events=0, cpu_s=0.5, time_s=1), Reading(events=100, cpu_s=3.5, time_s=5))
    """
    while begin and readings[begin].events >= readings[-1].events:
        begin -= 1
    start = readings[begin]
    last = next(r for r in readings if r.events == readings[-1].events)
    inner = [r for r in readings if start.events < r.events < n]
    return start, inner[-1] if inner and (
        last.events < n or 2 * (inner[-1].events - start.events) >= n - start.events
    ) else last


def worker_command(
    folder: Path,
    bootstrap: str,
    prefix: str,
    *,
    defaults: dict[str, Any] | None = None,
    limits: dict[str, int] | None = None,
    models: dict[str, Any] | None = None,
) -> list[str]:
    """Write a `monitor.yaml` with a group of its own; the command of a worker."""
    kafka = {"bootstrap_servers": bootstrap, "topic_prefix": prefix}
    worker = {"group": f"{prefix}{random.randrange(10**9)}", "metrics": {"port": 0}}
    config = folder / "monitor.yaml"
    config.write_text(
        json.dumps(
            {
                "kafka": kafka,
                "worker": worker,
                "defaults": defaults or {},
                "limits": limits or {},
                "models": models or {},
            }
        )
    )
    return [sys.executable, "-m", "stream_monitor", "worker", "--config", str(config)]


@contextmanager
def running(
    command: Sequence[str], folder: Path, env: dict[str, str] | None = None, cwd: Path = ROOT
) -> Iterator[Subject]:
    """A subject that is ended afterwards; it runs in `cwd`, from where Python imports it."""
    subject = Subject(command, folder, env, cwd)
    try:
        yield subject
    finally:
        subject.stop()


@contextmanager
def broker(bootstrap: str | None) -> Iterator[str]:
    """The broker given, or one of our own for this time."""
    with server(bootstrap) as (address, _):
        yield address


@contextmanager
def server(
    bootstrap: str | None, properties: Mapping[str, str] | None = None
) -> Iterator[tuple[str, KafkaServer | None]]:
    """The address of a broker, and the broker if it is our own, made with these properties."""
    if bootstrap:
        yield bootstrap, None
        return
    if why := missing():
        raise SystemExit(why)
    own = KafkaServer(properties=properties)
    try:
        yield own.start().bootstrap, own
    finally:
        own.close()


@contextmanager
def workplace() -> Iterator[tuple[Path, str]]:
    """A folder, and a prefix of topics that nobody else has."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        yield Path(folder), f"bench{random.randrange(10**9)}."
