"""
`demo --loop`: the world changes, the model is trained again and deployed; then a bad version comes,
and goes back.

Rule of the file: the parts are real: a worker, a controller, git, DVC and a model server, with the
embedded broker or a Kafka. The story only waits for what they say on `alerts` and `lifecycle`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec

from stream_monitor.demo.loop_project import DemoProject, demand, environment
from stream_monitor.demo.loop_server import MODEL, ModelServer
from stream_monitor.demo.session import DemoOptions, broker_of
from stream_monitor.demo.worker import WorkerProcess
from stream_monitor.errors import BrokerError, InputError
from stream_monitor.kafka.records import TopicReader
from stream_monitor.settings import KafkaSettings, Settings

LIMIT_S = 180.0
RATE_PER_S = 300.0
QUIET_S = 12.0
"""Time in which the model is good and its usual level is learnt."""
Say = Callable[[str], None]


class LoopStory(msgspec.Struct):
    """What happened, in seconds since the start; None: it did not."""

    alert_s: float | None = None
    retraining_s: float | None = None
    version: str | None = None
    canary_s: float | None = None
    promotion_s: float | None = None
    accuracy_before: float | None = None
    accuracy_broken: float | None = None
    accuracy_after: float | None = None
    bad_version: str | None = None
    rollback_s: float | None = None
    rollback_because: str | None = None
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether all of it happened."""
        return None not in (self.alert_s, self.promotion_s, self.rollback_s)


def configuration(
    kafka: KafkaSettings, *, guarantee: str, port: int, project: DemoProject
) -> dict[str, Any]:
    """Content of `monitor.yaml`: the one of the example, quick enough for a demo."""
    return {
        "kafka": {
            "bootstrap_servers": kafka.bootstrap_servers,
            "topic_prefix": kafka.topic_prefix,
        },
        "worker": {
            "group": f"{kafka.topic_prefix}stream-monitor",
            "processing_guarantee": guarantee,
            "metrics": {"port": port},
        },
        "models": {
            MODEL: {
                "task": "binary",
                "windows": ["last_500", "1m"],
                "baseline": {"rows": 1_000},
                "thresholds": {
                    "accuracy": {
                        "min": 0.8,
                        "severity": "critical",
                        "window": "last_500",
                        "min_labels": 300,
                    }
                },
            }
        },
        "lifecycle": {
            "work": str(project.folder / "work"),
            "port": 0,
            "models": {
                MODEL: {
                    "repository": str(project.clone),
                    "triggers": {"alerts": {"kinds": ["performance"], "for": "9s"}},
                    "limits": {"cooldown": "0s", "min_new_labels": 0, "max_a_week": 5},
                    "decide": {"min_rows": 300},
                    "deploy": {
                        "stages": [25, 100],
                        "settle": "1s",
                        "min_time": "4s",
                        "min_labels": 200,
                        "watch": "5s",
                    },
                }
            },
        },
    }


async def run(options: DemoOptions, say: Say, stop: asyncio.Event) -> LoopStory:
    """
    Run the demo to the end of its story.

    Raises
    ------
    InputError
        Something that it needs is missing.
    BrokerError
        A part ended.
    """
    demand()
    story, began = LoopStory(), time.monotonic()
    with _folder() as folder:
        project = DemoProject(Path(folder))
        say("making a project: git with a remote, DVC, first data, a first model …")
        async with contextlib.AsyncExitStack() as stack:
            # threads write into the folder that is about to be removed
            stack.push_async_callback(asyncio.get_running_loop().shutdown_default_executor)
            stack.callback(project.end)
            await _until(asyncio.to_thread(project.make), stop)
            if stop.is_set():
                return story
            kafka, guarantee = await stack.enter_async_context(broker_of(options))
            stack.callback(project.end)  # nobody makes topics again
            content = configuration(kafka, guarantee=guarantee, port=0, project=project)
            path = Path(folder) / "monitor.yaml"
            path.write_text(json.dumps(content, indent=1), encoding="utf-8")
            say(f"starting a worker and a controller for the broker at {kafka.bootstrap_servers} …")
            async with WorkerProcess(content), _controller(path):
                told = _Story(project, path, kafka, say, story, began, options.seed)
                await _until(told.tell(), stop)
    story.seconds = round(time.monotonic() - began, 1)
    return story


def _folder() -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix="stream-monitor-loop-")
    except OSError as e:
        raise InputError(
            f"demo --loop needs a folder for its project: {e.strerror or e}; set TMPDIR to one "
            "where this user may write"
        ) from None


async def _until(work: Any, stop: asyncio.Event) -> None:
    """A story, until it is over, it takes too long, or somebody stops it."""
    task, stopped = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    await asyncio.wait((task, stopped), timeout=LIMIT_S, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if task.done():
        task.result()
        return
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@contextlib.asynccontextmanager
async def _controller(path: Path) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "stream_monitor", "controller", "--config", str(path)),
        env=environment(),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=(path.parent / "controller.log").open("wb"),
        start_new_session=True,
    )
    try:
        yield
        if process.returncode is not None:
            log = (path.parent / "controller.log").read_text(errors="replace")
            raise BrokerError(
                f"the controller ended with code {process.returncode}: {log[-2_000:]}"
            )
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(10):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


class _Story:
    """Tells what happens, and does what a person would do."""

    def __init__(
        self,
        project: DemoProject,
        config: Path,
        kafka: KafkaSettings,
        say: Say,
        story: LoopStory,
        began: float,
        seed: int,
    ) -> None:
        self.project, self.config, self.say, self.story = project, config, say, story
        self.began = began
        self.server = ModelServer(kafka, project, RATE_PER_S, seed)
        self.settings = Settings(kafka=kafka)
        self.seen: list[dict[str, Any]] = []
        self._news = asyncio.Event()
        self._spoiling: asyncio.Task[None] | None = None

    def at(self) -> float:
        return round(time.monotonic() - self.began, 1)

    async def tell(self) -> None:
        await self._ours("models", "register", "--model", MODEL)
        await self._ours("models", "promote", "v1.0.0", "--comment", "the first one")
        self.say(
            "v1.0.0 is registered (tag churn@v1.0.0, data and model by hash) and in production"
        )
        async with TopicReader(self.settings, ["lifecycle", "alerts"]) as records:
            parts = [
                asyncio.ensure_future(self._listen(records)),
                asyncio.ensure_future(self.server.run("v1.0.0")),
                asyncio.ensure_future(self._chapters()),
            ]
            try:
                await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            finally:
                if self._spoiling is not None:
                    parts.append(self._spoiling)
                for part in parts:
                    part.cancel()
                results = await asyncio.gather(*parts, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _ours(self, *words: str) -> None:
        await asyncio.to_thread(self.project.ours, *words, "--config", str(self.config))

    # ---- what happens

    async def _listen(self, records: TopicReader) -> None:
        while True:
            for record in await records.batch():
                if record.value is not None:
                    event = msgspec.json.decode(record.value)
                    self.seen.append(event | {"topic": record.topic})
                    self._news.set()

    async def _event(self, wanted: Callable[[dict[str, Any]], bool], start: int = 0) -> Any:
        """The first event of a kind."""
        while True:
            self._news.clear()
            found = next((e for e in self.seen[start:] if wanted(e)), None)
            if found is not None:
                return found
            await self._news.wait()

    async def _chapters(self) -> None:
        await asyncio.sleep(QUIET_S)
        story, server = self.story, self.server
        story.accuracy_before = round(server.accuracy, 3)
        self.say(f"accuracy {server.accuracy:.2f}; now the world changes")
        server.changed = True
        alert = await self._event(
            lambda e: (
                e["topic"] == "alerts" and e["kind"] == "performance" and e["status"] == "firing"
            )
        )
        story.alert_s, story.accuracy_broken = self.at(), round(server.accuracy, 3)
        self.say(f"ALERT {alert['summary']}")
        await self._retrained()
        await self._promoted()
        await self._a_bad_version()

    async def _retrained(self) -> None:
        accepted = await self._event(lambda e: e.get("type") == "accepted")
        self.story.retraining_s = self.at()
        self.say(f"RETRAINING run {accepted['run']}: {' → '.join(accepted['steps'])}")
        for step in accepted["steps"]:
            done = await self._event(
                lambda e, step=step: (
                    e.get("type") == "retraining"  # type: ignore[misc]
                    and e["step"] == step
                    and e["outcome"] in ("done", "failed")
                )
            )
            if done["outcome"] == "failed":
                raise BrokerError(
                    f"the step {step} failed: {done.get('reason')}\n{done.get('log')}"
                )
            told = done.get("result", {})
            words = told.get("reason") or told.get("version") or ""
            self.say(f"  {step} done{f': {words}' if words else ''}")

    async def _promoted(self) -> None:
        self._spoiling = asyncio.create_task(asyncio.to_thread(self.project.spoil))
        stage = await self._event(lambda e: e.get("type") == "stage" and bool(e.get("rollout")))
        r = stage["rollout"]
        self.story.version, self.story.canary_s = r["version"], self.at()
        self.say(f"CANARY {r['version']} gets {r['stages'][0]:g} % of the users")
        await self._event(
            lambda e: e.get("type") == "stage" and e["stages"].get(r["version"]) == "production"
        )
        self.story.promotion_s = self.at()
        self.say(f"PROMOTION {r['version']} is in production")
        await asyncio.sleep(4)
        self.story.accuracy_after = round(self.server.accuracy, 3)
        self.say(f"accuracy {self.server.accuracy:.2f} again")
        await self._event(
            lambda e: (
                e.get("type") == "stage"
                and e["stages"].get(r["version"]) == "production"
                and not e.get("rollout")
            )
        )

    async def _a_bad_version(self) -> None:
        self.say("somebody registers a version with wrong weights, and deploys it")
        assert self._spoiling is not None
        await self._spoiling
        await self._ours("models", "register", "--model", MODEL)
        version = next(e for e in reversed(self.seen) if e.get("type") == "version")["version"]
        self.story.bad_version = version
        start = len(self.seen)
        await self._ours("deploy", "start", version)
        await self._event(lambda e: e.get("type") == "stage" and bool(e.get("rollout")), start)
        self.say(f"CANARY {version}")
        back = await self._event(
            lambda e: e.get("type") == "stage" and e["stages"].get(version) == "retired", start
        )
        self.story.rollback_s, self.story.rollback_because = self.at(), back["reason"]
        self.say(f"ROLLBACK {version}: {back['reason']}; the champion serves everybody again")
