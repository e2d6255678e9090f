"""
The controller: reads the log, decides, acts, and reads again what it wrote.

Rule of the file: it acts only on what it has read back, and only while the newest claim is its own.
Whatever it does may be done by another one after it was killed; so every action leads to an event
whose id does not depend on who did it. Nothing here blocks the event loop, because a controller
without heartbeats is put out of its group.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import suppress
from pathlib import Path

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from stream_monitor.errors import BrokerError, StreamMonitorError
from stream_monitor.kafka import topics
from stream_monitor.kafka.clocks import now_ms
from stream_monitor.kafka.connection import client_options, connecting
from stream_monitor.kafka.patience import RETRY_S, quietly
from stream_monitor.kafka.records import TopicReader
from stream_monitor.lifecycle import processes, references
from stream_monitor.lifecycle.actions import Action, Execute, Say, Tell, Work
from stream_monitor.lifecycle.decisions import next_action
from stream_monitor.lifecycle.events import Claim, Event, Version, encode
from stream_monitor.lifecycle.fold import Fold
from stream_monitor.lifecycle.membership import SESSION_MS, Membership
from stream_monitor.lifecycle.observed import Observed
from stream_monitor.lifecycle.stages import planned
from stream_monitor.lifecycle.steps import DEPLOYMENTS, Project
from stream_monitor.monitors.baseline import baseline_key
from stream_monitor.settings import Settings
from stream_monitor.times import rfc3339

log = logging.getLogger(__name__)

LOG = "lifecycle"
READ = (LOG, "alerts", "history")
BASELINES = "baselines"


class Controller:
    """
    One controller. Several may run; one is active.

    Parameters
    ----------
    settings : Settings
    projects : dict of Project
        By model.
    once : bool
        End as soon as there is nothing to do.
    """

    def __init__(
        self, settings: Settings, projects: dict[str, Project], *, once: bool = False
    ) -> None:
        self.settings, self.projects, self.once = settings, projects, once
        self.fold = Fold()
        self.epoch = -1
        self.active = False
        """Whether it is the active one and has read the log."""
        self.leading = False
        """Whether it is the active one, or reads the log to become it."""
        self.joined = False
        """Whether it is in the group."""
        self.last_read_ms = 0
        self._unread = -1
        """Offset of the newest record of ours; nothing is decided before it is read back."""
        self._read = -1
        self._doing: dict[str, tuple[Action, asyncio.Task[list[Event]]]] = {}
        self.observed = Observed(now_ms)
        self._work = Path(settings.lifecycle.work).absolute()

    async def run(self, stop: asyncio.Event) -> None:
        """
        Run until `stop` is set.

        Raises
        ------
        BrokerError
            Kafka cannot be reached, or refuses.
        """
        await topics.ensure(self.settings, (*READ, BASELINES))
        self._producer = AIOKafkaProducer(
            **client_options(self.settings.kafka), acks="all", enable_idempotence=True
        )
        with connecting(self.settings.kafka):
            await self._producer.start()
        try:
            async with Membership(self.settings) as membership:
                while not stop.is_set():
                    await _first(stop, membership.joined)
                    self.joined = membership.joined.is_set()
                    await _first(stop, membership.active)
                    if membership.active.is_set() and not stop.is_set():
                        await self._tenure(membership, stop)
                        if self.once:
                            return
        finally:
            ends = (asyncio.to_thread(each.in_use.end) for each in self.projects.values())
            await asyncio.gather(*ends)
            await quietly(self._producer.stop())

    # ---- a tenure

    async def _tenure(self, membership: Membership, stop: asyncio.Event) -> None:
        """From the claim until another one is active, or it is told to stop."""
        try:
            await self._lead(membership, stop)
        except (KafkaError, BrokerError) as e:
            log.warning("the broker is away, it is tried again: %s", e)
            await asyncio.sleep(RETRY_S)
        finally:
            self.active = self.leading = False
            await self._drop()

    async def _lead(self, membership: Membership, stop: asyncio.Event) -> None:
        self.leading = True
        self.fold, self.observed = Fold(), Observed(now_ms)
        self._read = self._unread = -1
        claim = Claim(model="", at=rfc3339(now_ms()), host=socket.gethostname()).named()
        self.epoch = await self._send("", encode(claim))
        # said again with its epoch, for readers that know no offsets
        await self._send("", encode(msgspec.structs.replace(claim, id="", epoch=self.epoch)))
        async with TopicReader(self.settings, READ) as records:
            while membership.active.is_set() and not stop.is_set():
                for record in await records.batch():
                    self.last_read_ms = now_ms()
                    self.observed.take(record.topic, record.value)
                    if record.topic == LOG:
                        self.fold.take(record.value, record.offset)
                        self._read = record.offset
                if self.fold.epoch > self.epoch:
                    log.warning("another controller has claimed since; waiting for the group")
                    await _first(stop, seconds=SESSION_MS / 1e3 + RETRY_S)
                    return
                if self._read < self._unread:
                    continue
                if not self.active:
                    await self._end_orphans()
                self.active = True
                waits = [await self._act(name, project) for name, project in self.projects.items()]
                if self.once and all(waits):
                    return

    async def _end_orphans(self) -> None:
        """
        End what a controller that was killed left running, if no run of ours goes on with it: its
        model is not configured any more, or its run is over.
        """
        work = self._work
        ours = {folder_of(name): name for name in self.projects}

        def is_wanted(log: Path) -> bool:
            model, run, *_ = log.relative_to(work).parts
            name = ours.get(model)
            return name is not None and run in (DEPLOYMENTS, self.fold.of(name).current)

        for log_file in await processes.end_orphans(work, is_wanted):
            log.warning("ended a command that nobody waits for: %s", log_file)

    async def _act(self, name: str, project: Project) -> bool:
        """Do the next thing for a model; whether there is nothing to do."""
        model = self.fold.of(name)
        action = next_action(name, model, project.loop, self.observed, now_ms())
        doing = self._doing.get(name)
        if doing is not None and doing[0] != action and not isinstance(action, Say | Tell):
            log.info("%s: %s is not wanted any more", name, _words(doing[0]))
            await self._drop(name)
            doing = None
        if isinstance(action, Say):
            refused = await asyncio.to_thread(project.in_use.refused, model, action.event)
            if refused is None:
                return False
            for said in refused or [project.in_use.told(model, action.event)]:
                await self._say(said)
        elif isinstance(action, Tell):
            event = {**action.event, "epoch": self.epoch}
            await self._send(name, msgspec.json.encode(event))
        elif action is not None and doing is None:
            log.info("%s: %s", name, _words(action))
            work = (
                project.do(model, action)
                if isinstance(action, Work)
                else project.execute(model, action)
            )
            self._doing[name] = action, asyncio.ensure_future(work)
        elif doing is not None and doing[1].done():
            del self._doing[name]
            for made in doing[1].result():
                if isinstance(made, Version):
                    await self._refer(project, made)
                await self._say(made)
        if action is None:
            await self._tidy(name, project)
        return action is None

    async def _tidy(self, name: str, project: Project) -> None:
        """What cannot be tidied of one model must not end the loop of the others."""
        try:
            await asyncio.to_thread(project.tidy, self.fold.of(name))
        except (StreamMonitorError, OSError) as e:
            log.warning("%s: what old runs left cannot be removed: %s", name, e)

    async def _drop(self, name: str | None = None) -> None:
        """End what is under way, of one model or of all."""
        for model in [name] if name is not None else list(self._doing):
            _, task = self._doing.pop(model)
            task.cancel()
            with suppress(asyncio.CancelledError, StreamMonitorError, OSError):
                await task

    # ---- writing

    async def _say(self, event: Event) -> None:
        said = msgspec.structs.replace(event, epoch=self.epoch)
        log.info("%s: %s", event.model, _told(event))
        await self._send(event.model, encode(said))

    async def _refer(self, project: Project, version: Version) -> None:
        """Publish the baseline of a version, before the version: it is done again with its step."""
        model, name = version.model, version.version
        try:
            profile = await asyncio.to_thread(project.profile, version)
            parts = (
                references.parts_of(model, name, profile, version.at, version.by)
                if profile is not None
                else []
            )
        except (StreamMonitorError, OSError) as e:
            log.warning("%s: the baseline of %s cannot be published: %s", model, name, e)
            return
        if profile is not None:
            await self._send(baseline_key(model, name), profile, BASELINES)
        for part in parts:
            await self._say(part)

    async def _send(self, key: str, value: bytes, topic: str = LOG) -> int:
        to = self.settings.kafka.topic_prefix + topic
        sent = await self._producer.send_and_wait(to, value, key.encode())
        if topic == LOG:
            self._unread = max(self._unread, sent.offset)
        offset: int = sent.offset
        return offset


def _told(event: Event) -> str:
    """An event for the log: what it is, and the fields that tell most."""
    names = ("cause", "run", "step", "outcome", "end", "version", "reason")
    known = (str(getattr(event, name, None) or "") for name in names)
    return " ".join([str(event.__struct_config__.tag), *filter(None, known)])


def _words(action: Action) -> str:
    if isinstance(action, Work):
        again = f", attempt {action.attempt}" if action.attempt > 1 else ""
        return f"run {action.run}, step {action.step}{again}"
    if isinstance(action, Execute):
        verb = "taking back" if action.undo else "doing"
        return f"{verb} {action.command} of stage {action.step + 1}"
    return type(action).__name__


async def _first(*events: asyncio.Event, seconds: float | None = None) -> None:
    """Wait for the first of some events, or for some time."""
    waits = [asyncio.ensure_future(e.wait()) for e in events]
    await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


def projects_of(settings: Settings, config: str | None) -> dict[str, Project]:
    """
    The projects of a configuration, by model.

    Raises
    ------
    InputError
        A `dvc.yaml` cannot be read, or a model has no step that trains.
    """
    found = {}
    for name, loop in settings.lifecycle.models.items():
        work = Path(settings.lifecycle.work) / folder_of(name)
        found[name] = Project(name, planned(name, loop), work.absolute(), config)
    return found


def folder_of(model: str) -> str:
    """
    A name of a folder for a model, whatever characters its name has.

    >>> folder_of("fraud"), folder_of("a/b c")
    ('fraud', 'a%2Fb%20c')
    """
    from urllib.parse import quote

    return quote(model, safe="").replace(".", "%2E") or "%00"
