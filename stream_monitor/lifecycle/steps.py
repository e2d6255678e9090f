"""
The steps of a run, done.

Rule of the file: a step can be done again. What it made is found again by the run: a result file, a
work tree with its mark, a tag with `Run:`. Git and DVC run in threads or as processes, because they
must not stop the heartbeats of the controller.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from stream_monitor.errors import InputError, StreamMonitorError
from stream_monitor.kafka.clocks import now_ms
from stream_monitor.lifecycle import processes, references, registration
from stream_monitor.lifecycle.actions import Execute, Work
from stream_monitor.lifecycle.events import Deployment, Event, Retraining, Version
from stream_monitor.lifecycle.in_use import InUse
from stream_monitor.lifecycle.model import COLLECT, DECIDE, REGISTER, Model, Run
from stream_monitor.lifecycle.processes import Command, Outcome
from stream_monitor.lifecycle.registration import Registration
from stream_monitor.lifecycle.stoppable import in_thread
from stream_monitor.lifecycle.tags import artifact_of, one_line
from stream_monitor.lifecycle.work_trees import TREE
from stream_monitor.lifecycle_settings import ModelLoop
from stream_monitor.times import HOUR_MS, rfc3339

log = logging.getLogger(__name__)

DEPLOYMENTS = "deployments"
"""Folder of the commands of rollouts; a run has a folder with its id."""
RETRIES = {COLLECT: 2, REGISTER: 2}
"""Of our own steps; the project's have theirs in the configuration."""


class Project:
    """
    The project of a model: a clone, and a folder for its runs.

    Parameters
    ----------
    name : str
        The model.
    loop : ModelLoop
        With the steps that are done, also those of a `dvc.yaml`.
    work : Path
        Folder of this model's runs.
    config : str or None
        File of the configuration, for commands of ours.
    """

    def __init__(self, name: str, loop: ModelLoop, work: Path, config: str | None) -> None:
        self.name, self.loop, self.work, self.config = name, loop, work, config
        self._tidied: set[str] = set()
        self.in_use = InUse(name, loop)

    def folder(self, run: str) -> Path:
        """Folder of a run: its work tree, logs and results."""
        return self.work / run

    async def do(self, m: Model, action: Work) -> list[Event]:
        """Do a step; the events that say what came of it."""
        run = m.runs[action.run]
        try:
            outcome = await self._step(m, run, action)
        except (StreamMonitorError, OSError) as e:
            outcome = Outcome(done=False, reason=str(e))
        except Exception as e:  # a fault of one step must not end the loop of other models
            log.exception("%s: run %s, step %s", self.name, run.run, action.step)
            outcome = Outcome(done=False, reason=f"{type(e).__name__}: {e}")
        made = Retraining(
            model=self.name,
            at=rfc3339(now_ms()),
            run=run.run,
            step=action.step,
            attempt=action.attempt,
            outcome=(
                "done"
                if outcome.done
                else "again"
                if action.attempt <= self._retries(action.step)
                else "failed"
            ),
            result=outcome.result,
            log=outcome.log,
            reason="" if outcome.done else f"{action.step}: {outcome.reason}",
        )
        registered = outcome.done and action.step == REGISTER
        said: list[Event] = [self._version(run, outcome.result)] if registered else []
        return [*said, made.named()]

    def profile(self, version: Version) -> bytes | None:
        """The baseline profile of a version of ours; None: it has none."""
        if not version.reference:
            return None
        return references.of_version(Path(self.loop.repository), version.revision)

    def _retries(self, step: str) -> int:
        known = {s.name: s.retries for s in self.loop.steps}
        return known.get(step, RETRIES.get(step, 0))

    async def _step(self, m: Model, run: Run, action: Work) -> Outcome:
        tree = await in_thread(self._tree, run.run)
        lacks = await self._done_again(m, run, action.step, tree)
        if lacks is not None:
            return lacks
        if action.step == DECIDE:
            return await asyncio.to_thread(self._decide, m, run, tree)
        if action.step == REGISTER:
            outcome = await self._ran(run, self._registration(run), action.attempt, tree)
            return registration.told(outcome)
        command = self._command(m, run, action.step, tree)
        if command is None:
            return Outcome(done=False, reason="the configuration has no such step any more")
        return await self._ran(run, command, action.attempt, tree)

    async def _ran(self, run: Run, command: Command, attempt: int, tree: Path) -> Outcome:
        for folder in (tree, self.folder(run.run) / TREE):
            for stale in (folder / ".dvc" / "tmp").glob("rwlock*"):
                # nobody else works here, and the number of a process elsewhere means nothing
                stale.unlink()
        return await processes.run(self.folder(run.run), command, attempt)

    async def _done_again(self, m: Model, run: Run, step: str, tree: Path) -> Outcome | None:
        """
        What earlier steps made is there, unless another machine made it: then they are done again,
        with the same range of time. The outcome of one that fails now; None: all is there.
        """
        for earlier in run.steps[: run.steps.index(step)]:
            attempt = int(run.results.get(earlier, {}).get("attempt", 1))
            command = self._command(m, run, earlier, tree)
            if command is None or processes.is_kept(self.folder(run.run), earlier, attempt):
                continue
            if step == REGISTER and await in_thread(self._is_registered, run):
                return None
            log.info("%s: run %s, step %s again: its files are gone", self.name, run.run, earlier)
            outcome = await self._ran(run, command, attempt, tree)
            if not outcome.done:
                why = f"{earlier}, done again because its files are gone: {outcome.reason}"
                return msgspec.structs.replace(outcome, reason=why)
        return None

    def _tree(self, run: str) -> Path:
        from stream_monitor.lifecycle import work_trees

        return work_trees.make(
            Path(self.loop.repository), self.loop.remote, self.loop.base, self.folder(run)
        )

    # ---- commands

    def _command(self, m: Model, run: Run, name: str, tree: Path) -> Command | None:
        if name == COLLECT:
            return self._collect(run, tree)
        step = next((s for s in self.loop.steps if s.name == name), None)
        if step is None:
            return None
        return Command(
            name=step.name,
            command=step.command,
            cwd=tree,
            environment=processes.environment(step.environment, self.given(m, run)),
            timeout_ms=step.timeout_ms,
        )

    def given(self, m: Model, run: Run) -> dict[str, str]:
        """What a command is told about its run."""
        champion = m.champion or ""
        known, anchor = m.versions.get(champion), m.versions.get(m.anchor or "")
        found = {
            "STREAM_MONITOR_MODEL": self.name,
            "STREAM_MONITOR_RUN": run.run,
            "STREAM_MONITOR_SINCE": run.since or "",
            "STREAM_MONITOR_UNTIL": run.until or "",
            "STREAM_MONITOR_CHAMPION": champion,
            "STREAM_MONITOR_CHAMPION_TAG": known.tag if known else "",
            "STREAM_MONITOR_ANCHOR_TAG": anchor.tag if anchor and anchor != known else "",
        }
        if self.loop.collect is not None:
            found["STREAM_MONITOR_DATA"] = self.loop.collect.output
        return found

    def _collect(self, run: Run, tree: Path) -> Command:
        output = tree / (self.loop.collect.output if self.loop.collect else "data.parquet")
        words = [
            sys.executable,
            "-m",
            "stream_monitor",
            "collect",
            *(("--config", self.config) if self.config else ()),
            *("--model", self.name),
            *("--since", run.since or "", "--until", run.until or ""),
            *("--as-of", run.until or ""),  # a step that is done again sees the same rows
            *("--output", str(output), "--json"),
        ]
        return Command(
            name=COLLECT,
            command=words,
            cwd=Path.cwd(),
            environment=processes.environment(_ours(), {}),
            timeout_ms=HOUR_MS,
        )

    # ---- steps of our own

    def _decide(self, m: Model, run: Run, tree: Path) -> Outcome:
        if m.champion is None:
            return Outcome(
                done=True, result={"decision": "promote", "reason": "there is no champion yet"}
            )
        from stream_monitor.lifecycle import champion
        from stream_monitor.lifecycle.model_sizes import model_bytes

        d, known = self.loop.decide, m.versions.get(m.champion)
        for name in (d.champion, d.challenger):
            if not (tree / name).exists():
                raise InputError(
                    f"no step wrote {name}, the answers of "
                    f"{'the champion' if name == d.champion else 'the new model'} on the held-out "
                    "rows: docs/lifecycle.md#champion-against-challenger; a stage that DVC may "
                    "skip needs always_changed"
                )
        anchor = tree / (d.champion if m.anchor in (None, m.champion) else d.anchor)
        found = champion.decide(
            str(tree / d.champion),
            str(tree / d.challenger),
            d,
            run.run,
            anchor_file=str(anchor) if anchor.exists() else None,
            model_bytes=None if known is None else model_bytes(tree, known.tag, known.artifact),
        )
        return Outcome(done=True, result=found)

    def _registration(self, run: Run) -> Command:
        reason = run.results.get(DECIDE, {}).get("reason") or run.trigger.comment or ""
        return registration.command(
            Registration(
                repository=str(Path(self.loop.repository).absolute()),
                artifact=artifact_of(self.name, self.loop.artifact),
                tree=str(self.folder(run.run) / TREE),
                run=run.run,
                remote=self.loop.remote,
                data=() if self.loop.collect is None else (self.loop.collect.output,),
                reason=one_line(str(reason)),
                sign=self.loop.verify_tags,
                branch=self.loop.branch,
            )
        )

    def _is_registered(self, run: Run) -> bool:
        from stream_monitor.lifecycle import tagging

        artifact = artifact_of(self.name, self.loop.artifact)
        repository = Path(self.loop.repository)
        return tagging.find(repository, artifact, self.loop.remote, run.run) is not None

    def _version(self, run: Run, result: Mapping[str, Any]) -> Version:
        return Version(
            model=self.name,
            at=rfc3339(now_ms()),
            version=result["version"],
            tag=result["tag"],
            revision=result["revision"],
            data=result.get("data", {}),
            artifact=result.get("artifact", {}),
            metrics=result.get("metrics", {}),
            reference=result.get("reference", ""),
            run=run.run,
            reason=result.get("reason", ""),
        ).named()

    # ---- deployment

    async def execute(self, m: Model, action: Execute) -> list[Event]:
        """Do a command of a deployment, or take it back."""
        command = next((c for c in self.loop.deploy.commands if c.name == action.command), None)
        if command is None:
            outcome = Outcome(done=False, reason="the configuration has no such command any more")
        else:
            folder = self.work / DEPLOYMENTS / action.experiment
            await asyncio.to_thread(folder.mkdir, 0o700, parents=True, exist_ok=True)
            verb = "undo" if action.undo else "do"
            made = Command(
                name=f"{action.step}-{command.name}-{verb}",
                command=command.rollback if action.undo else command.command,
                cwd=Path(self.loop.repository),
                environment=processes.environment(command.environment, self._of_rollout(m, action)),
                timeout_ms=command.timeout_ms,
            )
            try:
                outcome = await processes.run(folder, made)
            except (StreamMonitorError, OSError) as e:
                outcome = Outcome(done=False, reason=str(e))
        said = {False: ("failed", "done"), True: ("not_taken_back", "taken_back")}[action.undo]
        return [
            Deployment(
                model=self.name,
                at=rfc3339(now_ms()),
                experiment=action.experiment,
                step=action.step,
                command=action.command,
                outcome=said[outcome.done],  # type: ignore[arg-type]  # one of its words
                log=outcome.log or outcome.reason,
            ).named()
        ]

    def _of_rollout(self, m: Model, action: Execute) -> dict[str, str]:
        """What a command is told; one that takes back may run when the rollout is over."""
        r = m.rollout
        if r is not None and r.experiment == action.experiment:
            version, champion = r.version, r.against
            percent = 0.0 if action.undo else r.stages[action.step]
        else:
            version, champion = action.experiment.rpartition("-")[0], m.champion
            percent = 0.0
        weights = {version: percent} | ({champion: 100 - percent} if champion else {})
        return {
            "STREAM_MONITOR_MODEL": self.name,
            "STREAM_MONITOR_VERSION": version,
            "STREAM_MONITOR_CHAMPION": champion or "",
            "STREAM_MONITOR_WEIGHTS": json.dumps(weights),
        }

    # ---- what is kept

    def tidy(self, m: Model) -> None:
        """Remove work trees of runs that are over, and the oldest runs."""
        from stream_monitor.lifecycle import work_trees

        over = [run for run, r in m.runs.items() if r.end is not None]
        for run in over:
            folder = self.folder(run)
            if run not in self._tidied and folder.exists():
                work_trees.remove(Path(self.loop.repository), folder)
        if set(over) != self._tidied:
            for run in over[: -self.loop.keep_runs]:
                shutil.rmtree(self.folder(run), ignore_errors=True)
        self._tidied = set(over)
        self.in_use.follow(m)


def _ours() -> tuple[str, ...]:
    """Variables of our own configuration, which our own commands need."""
    return tuple(n for n in os.environ if n.startswith("STREAM_MONITOR_"))
