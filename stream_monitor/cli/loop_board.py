"""
The loop of each model, read from Kafka, and what is said about it.

Rule of the file: it reads `lifecycle`, `alerts` and `history` as the controller does, so that both
see the same. Nothing is stored anywhere else.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from stream_monitor.errors import InputError
from stream_monitor.kafka.clocks import now_ms
from stream_monitor.lifecycle import rollout
from stream_monitor.lifecycle.events import Event, encode
from stream_monitor.lifecycle.fold import Fold
from stream_monitor.lifecycle.model import Run
from stream_monitor.lifecycle.observed import Observed
from stream_monitor.lifecycle.tags import in_order
from stream_monitor.lifecycle_settings import ModelLoop

if TYPE_CHECKING:
    from stream_monitor.settings import Settings


NO_MODEL = (
    "no model is known: monitor.yaml (--config) names none under lifecycle.models, and no event on "
    "lifecycle speaks of one; docs/lifecycle.md has an example"
)


class LoopBoard:
    """
    All models of the loop.

    Parameters
    ----------
    settings : Settings
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.fold, self.observed = Fold(), Observed(now_ms)

    @classmethod
    def read(cls, settings: Settings) -> LoopBoard:
        """
        Read the topics.

        Raises
        ------
        BrokerError
            Kafka cannot be reached.
        """
        board = cls(settings)
        asyncio.run(board._read())
        return board

    async def _read(self) -> None:
        from stream_monitor.kafka.records import TopicReader

        async with TopicReader(self.settings, ["lifecycle", "alerts", "history"]) as records:
            async for record in records.whole():
                self.observed.take(record.topic, record.value)
                if record.topic == "lifecycle":
                    self.fold.take(record.value, record.offset)

    # ---- what is asked for

    def loop(self, model: str) -> ModelLoop:
        """The configuration of a model; its defaults if it is configured elsewhere."""
        return self.settings.lifecycle.models.get(model) or ModelLoop(repository=".")

    def names(self, model: str | None) -> list[str]:
        """Models that are configured or were spoken of; one if it is named."""
        known = sorted({*self.settings.lifecycle.models, *self.fold.models} - {""})
        if model is not None and model not in known:
            raise InputError(
                f"nothing is known about model {model!r}; known are {', '.join(known) or 'none'}"
            )
        return [model] if model is not None else known

    def known(self, model: str | None) -> list[str]:
        """
        As `names`, for a command that shows them.

        Raises
        ------
        InputError
            There is none.
        """
        found = self.names(model)
        if not found:
            raise InputError(NO_MODEL)
        return found

    def one(self, model: str | None) -> str:
        """
        The model that is meant.

        Raises
        ------
        InputError
            There is not exactly one.
        """
        names = self.names(model)
        if len(names) != 1:
            raise InputError(f"name the model: {', '.join(names)}" if names else NO_MODEL)
        return names[0]

    def demand_known(self, name: str, version: str) -> None:
        """
        A version is registered, or was deployed.

        Raises
        ------
        InputError
            It is neither.
        """
        from stream_monitor.inputs.options import did_you_mean

        m = self.fold.of(name)
        known = in_order({*m.versions, *m.deployed})
        if version in known:
            return
        if not known:
            raise InputError(
                f"no event on lifecycle tells of a version of {name}; "
                "`stream-monitor models register` makes one, and writes it again if git has it"
            )
        raise InputError(
            f"{name} has no version {version!r}; registered are {', '.join(known)}."
            f"{did_you_mean(version, known)} `stream-monitor models register` makes one"
        )

    def demand_signature(self, name: str, version: str) -> None:
        """
        With `verify_tags` git accepts the tag of a version.

        Raises
        ------
        InputError
            It does not.
        """
        from stream_monitor.lifecycle.in_use import lacks_signature

        loop = self.settings.lifecycle.models.get(name)
        if loop is None or not loop.verify_tags:
            return
        why = lacks_signature(loop, self.fold.of(name), version)
        if why is not None:
            raise InputError(f"{version} of {name}: {why}")

    def run(self, run: str) -> tuple[str, Run]:
        """
        A run by the beginning of its id, and its model.

        Raises
        ------
        InputError
            None, or several.
        """
        found = [
            (name, r)
            for name, m in self.fold.models.items()
            for r in m.runs.values()
            if r.run.startswith(run)
        ]
        if len(found) != 1:
            what = "no run begins" if not found else f"{len(found)} runs begin"
            raise InputError(f"{what} with {run!r}; `stream-monitor retrain history` lists them")
        return found[0]

    # ---- words

    def waits(self, name: str) -> str | None:
        """What a rollout waits for; None: nothing, or there is none."""
        m = self.fold.of(name)
        if m.rollout is None or m.rollout.state == "watch":
            return None
        wait = rollout.waiting_for(name, m, m.rollout, self.loop(name), self.observed, now_ms())
        return wait.words if wait is not None else None


def written(settings: Settings, event: Event) -> None:
    """Write an event of a person."""
    from stream_monitor.kafka.records import write

    asyncio.run(write(settings, "lifecycle", event.model, encode(event)))


def as_object(value: Any) -> dict[str, Any]:
    """A struct as a JSON object."""
    found: dict[str, Any] = msgspec.to_builtins(value)
    return found
