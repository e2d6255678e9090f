"""
An experiment on a real Kafka, from the command that starts it to its verdict, through kill -9
and rebalances.

Rule of the file: what the worker wrote is compared with a fold of `observations` by the test, and
with an id that is computed here.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest

from bench.chaos_fleet import Member
from stream_monitor.evaluate import Shard
from stream_monitor.events.observations import LIFECYCLE, unpack
from stream_monitor.experiments.experiment import Experiment
from stream_monitor.ingest import home, tick
from stream_monitor.settings import CoreSettings
from tests.kafka.site import DEADLINE_S, Site, read_all, value

pytestmark = [pytest.mark.kafka, pytest.mark.slow]
HEALTHY, FAILING, AFTER = 400, 1_200, 300
"""Calls before the kill, while the worker is away, and after the change of weights."""
BACKLOG, CALL_MS, BATCH = 6_000, 100, 20
"""Calls of a backlog, the time between two of them, and calls in a batch of the producer."""
MARK = {"schema": 1, "type": "acknowledged", "model": "m", "at": "2026-01-01T00:00:00Z"}


@pytest.fixture
def site(kafka: Any, tmp_path: Path) -> Iterator[Site]:
    found = Site(kafka.bootstrap, tmp_path)
    try:
        found.start()
        found.ready()
        yield found
    finally:
        if found.process is not None:
            found.process.kill()
            found.process.wait(10)


def experiment(site: Site, *words: str) -> Any:
    command = [sys.executable, "-m", "stream_monitor", "experiment", *words, "--json"]
    done = subprocess.run(
        [*command, "--config", str(site.file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def calls(first: int, n: int, *, failing: int) -> list[bytes]:
    """Calls of users, of whom half are in b; one in `failing` fails there, a tenth of it else."""
    out = []
    for i in range(first, first + n):
        in_b = i % 2 == 1
        call = {
            "event_id": f"e{i}",
            "model": "m",
            "timestamp": int(time.time() * 1_000),
            "variant": "b" if in_b else "control",
            "unit": f"user-{i}",
        }
        fails = i // 2 % (failing if in_b else 10 * failing) == 0
        answer = {"status": "error"} if fails else {"score": 0.3, "latency_ms": 20.0 + i % 7}
        out.append(json.dumps(call | answer).encode())
    return out


def verdicts(site: Site) -> list[dict[str, Any]]:
    records = [value(m) for m in read_all(site.bootstrap, site.prefix + "lifecycle")]
    return [json.loads(record) for record in records if b"experiment_verdict" in record]


def folded(site: Site) -> tuple[Experiment, list[dict[str, Any]]]:
    """The experiment, and verdicts, as a fold of the whole log finds them."""
    log = read_all(site.bootstrap, site.prefix + "observations")
    target = home("m", 1 + max(m.partition() or 0 for m in log))
    shard = Shard(target, CoreSettings())
    of_target = [m for m in log if m.partition() == target]
    for m in sorted(of_target, key=lambda m: m.offset() or 0):
        shard.fold(value(m), m.timestamp()[1])
    shard.fold(tick(shard.log_time_ms + 2_000))  # rows are taken in at looks
    told = [json.loads(o.value) for o in shard.outbox if o.topic == "lifecycle"]
    verdicts = [e for e in told if e["type"] == "experiment_verdict"]
    return shard.experiments.state.of_model["m"]["x-1"], verdicts


def calls_read(site: Site, n: int) -> None:
    """Wait until the worker has folded so many calls."""
    name = 'stream_monitor_records_total{outcome="accepted",topic="predictions"}'
    site.wait(f"{n} calls", lambda: site.metrics().get(name, 0) >= n)


def test_an_arm_that_fails_is_rolled_back_once_through_kill_9_and_a_change_has_its_place(
    site: Site,
) -> None:
    arms = ("--arm", "control", "--arm", "b", "--metric", "latency_ms", "--effect", "0.05")
    words = ("start", "--model", "m", "--name", "x-1", *arms, "--guard", "error=0.01")
    started = experiment(site, *words)
    assert started["ranges"] == [[5000, "control"], [10000, "b"]]
    site.send([json.dumps(MARK).encode(), b"not JSON at all"], "lifecycle")
    forwarded = 'stream_monitor_records_total{outcome="forwarded",topic="lifecycle"}'
    site.wait("the start", lambda: site.metrics().get(forwarded) == 1)

    site.send(calls(0, HEALTHY, failing=10**6))
    calls_read(site, HEALTHY)
    assert verdicts(site) == [], "nothing is wrong yet"
    assert site.process is not None
    site.process.kill()
    assert site.ended() == -9
    site.send(calls(HEALTHY, FAILING, failing=5))
    site.start()
    site.ready()
    site.wait("a verdict", lambda: verdicts(site))
    calls_read(site, HEALTHY + FAILING)
    site.process.kill()
    assert site.ended() == -9

    changed = experiment(site, "change", "x-1", "--weights", "control=90,b=10")
    assert changed["phase"] == 2
    site.start()
    site.ready()
    site.wait("the change", lambda: folded(site)[0].phase == 2)
    site.send(calls(HEALTHY + FAILING, AFTER, failing=5))
    calls_read(site, HEALTHY + FAILING + AFTER)
    assert site.stop() == 0

    found, told = folded(site)
    key = "x-1\x00b\x001\x00rollback"
    written = verdicts(site)
    assert [v["id"] for v in written] == [blake2b(key.encode(), digest_size=16).hexdigest()]
    assert written[0]["because"] == ["failures"]
    assert [v["id"] for v in told] == [v["id"] for v in written], "the fold of the log says so too"
    assert written[0]["log_position"] == told[0]["log_position"]
    assert (found.rows, found.left_out["change"]) == (HEALTHY + FAILING + AFTER, AFTER)
    assert found.weights == (9_000, 1_000)
    assert site.letters() == [], "what others write on lifecycle is skipped"
    shown = experiment(site, "status", "x-1")
    assert shown["arms"]["b"]["verdict"] == "rollback"
    assert (shown["phase"], len(shown["verdicts"])) == (2, 1)


def test_a_verdict_is_told_once_while_its_partition_moves_from_worker_to_worker(
    site: Site, tmp_path: Path
) -> None:
    assert site.stop() == 0
    site.file.write_text(site.file.read_text().replace("instance_id: one, ", ""))
    members = [Member(0, site.file, tmp_path)]
    try:
        members.append(Member(1, site.file, tmp_path))
        wait("both own partitions", lambda: all(m.owned() for m in members))
        arms = ("--arm", "control", "--arm", "b", "--metric", "latency_ms", "--effect", "0.05")
        experiment(site, "start", "--model", "m", "--name", "x-1", *arms)
        wait("the start", lambda: rows(site)[0] == [LIFECYCLE])
        target = home("m", sum(len(m.owned()) for m in members))
        site.send(calls(0, HEALTHY, failing=10**6))
        wait("calls", lambda: len(rows(site)[0]) == 1 + HEALTHY)
        owner = next(m for m in members if target in m.owned())
        site.send(calls(HEALTHY, FAILING // 4, failing=5))
        owner.send(signal.SIGTERM)  # it leaves in the middle
        other = next(m for m in members if m is not owner)
        wait("the other one has it", lambda: not owner.alive and target in other.owned())
        site.send(calls(HEALTHY + FAILING // 4, FAILING // 2, failing=5))
        members.append(Member(2, site.file, tmp_path))  # and another one joins
        wait("both own partitions", lambda: all(m.owned() for m in members if m.alive))
        site.send(calls(HEALTHY + 3 * FAILING // 4, FAILING // 4, failing=5))
        wait("all calls", lambda: len(rows(site)[0]) == 1 + HEALTHY + FAILING)
        wait("a verdict", lambda: verdicts(site))
    finally:
        for member in members:
            member.send(signal.SIGTERM)
        codes = [member.process.wait(20) for member in members]
    assert codes == [0, 0, 0]
    found, told = folded(site)
    written = verdicts(site)
    assert found.rows == HEALTHY + FAILING
    assert [v["verdict"] for v in written] == ["rollback"]
    assert written == told, "as one fold of the whole log says, to the last digit"


def wait(what: str, condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {DEADLINE_S} s: {what}")
        time.sleep(0.2)


def test_in_a_backlog_events_have_their_place_among_the_calls_of_that_time(site: Site) -> None:
    assert site.stop() == 0
    began_ms = int(time.time() * 1_000) - BACKLOG * CALL_MS
    event = {"schema": 1, "model": "m", "experiment": "x-1"}
    start = event | {
        "type": "experiment_started",
        "arms": ["control", "b"],
        "primary": {"metric": "latency_ms", "effect": 0.05},
    }
    change = event | {"type": "experiment_changed", "weights": {"control": 90, "b": 10}}
    changed_ms = began_ms + BACKLOG * CALL_MS // 2
    for each, at_ms in [(start, began_ms - 1), (change, changed_ms)]:
        site.send([{"value": json.dumps(each).encode(), "timestamp": at_ms}], "lifecycle")
    records = []
    for i, call in enumerate(calls(0, BACKLOG, failing=10**6)):
        at_ms = began_ms + i * CALL_MS
        text = json.dumps(json.loads(call) | {"timestamp": at_ms}).encode()
        records.append({"value": text, "timestamp": at_ms, "partition": i % 2})
    site.send(records, "predictions", **{"batch.num.messages": BATCH})
    site.start()
    calls_read(site, BACKLOG)
    assert site.stop() == 0

    kinds, times = rows(site)
    first, second = (i for i, kind in enumerate(kinds) if kind == LIFECYCLE)
    assert first == 0, "the experiment began before all calls"
    assert len(times) == BACKLOG + 2
    near_ms = 2 * BATCH * CALL_MS + 1_000
    assert max(times[1:second]) <= changed_ms + near_ms
    assert min(times[second + 1 :]) >= changed_ms - near_ms


def rows(site: Site) -> tuple[list[int], list[int]]:
    """Kind and time of the rows of the model's partition, in the order of the log."""
    log = read_all(site.bootstrap, site.prefix + "observations")
    kinds: list[int] = []
    times: list[int] = []
    for m in sorted(log, key=lambda m: (m.partition() or 0, m.offset() or 0)):
        found = unpack(value(m))
        kinds += [found.head.groups[g].kind for g in found.rows["group"].tolist()]
        times += found.rows["time"].tolist()
    return kinds, times
