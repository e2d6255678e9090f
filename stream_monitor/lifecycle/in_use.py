"""
The versions that are in use, as git and DVC have them: the stage as a tag for people, and whether
the files of the version to go back to are still there.

Rule of the file: what is asked of git and DVC here has a thread of its own, because a remote that
hangs must not delay a rollback. A way back waits for no answer; it says what is known.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import msgspec

from stream_monitor.errors import InputError, StreamMonitorError
from stream_monitor.lifecycle.events import Event, Rejected, Stage, Version
from stream_monitor.lifecycle.model import Model
from stream_monitor.lifecycle.stoppable import OURS, Commands
from stream_monitor.lifecycle.tags import artifact_of, split
from stream_monitor.lifecycle_settings import ModelLoop

log = logging.getLogger(__name__)
ANSWER_S = 2.0
"""So long the first look at a rollout waits for git; the next ones do not."""
GRACE_S = 3.0
"""So long a controller that ends waits for git."""


class _Asked:
    """A version whose signature is looked at; a look at another one cannot answer for it."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.answer: tuple[str | None] | None = None
        """Why it may not be deployed; None: git has not answered."""


class InUse:
    """
    What git and DVC know of the versions in use.

    Parameters
    ----------
    name : str
        The model.
    loop : ModelLoop
    """

    def __init__(self, name: str, loop: ModelLoop) -> None:
        self.name, self.loop = name, loop
        self._champion: str | None = None
        """The version whose stage is in git."""
        self._looked = ""
        """The rollout for whose way back somebody looked."""
        self._lost: dict[str, str] = {}
        """By version: model files that DVC cannot bring back."""
        self._commands = Commands()
        self._threads: list[Thread] = []
        self._asking: _Asked | None = None
        """The version whose signature is looked at."""

    def end(self, grace_s: float = GRACE_S) -> None:
        """Wait a moment for what is under way, such as the tag of a stage, and end what is left."""
        until = time.monotonic() + grace_s
        for thread in self._threads:
            thread.join(max(until - time.monotonic(), 0.0))
        self._commands.end()

    def _begin(self, function: Callable[..., None], *arguments: object) -> Thread:
        def run() -> None:
            OURS.set(self._commands)
            function(*arguments)

        thread = Thread(target=run, name=function.__name__, daemon=True)
        thread.start()
        self._threads = [*(t for t in self._threads if t.is_alive()), thread]
        return thread

    def follow(self, m: Model) -> None:
        """Begin what is due: the tag of a new champion, a look at the way back of a rollout."""
        if m.champion is not None and m.champion != self._champion:
            self._champion = m.champion
            self._begin(self._mark, m.champion)
        r = m.rollout
        if r is not None and r.against is not None and r.experiment != self._looked:
            self._looked = r.experiment
            known = m.versions.get(r.against)
            self._begin(self._look, r.against, known)

    def _mark(self, version: str) -> None:
        """The stage as a tag in git, for people and CI; the topic is the truth."""
        from stream_monitor.lifecycle import tagging

        artifact = artifact_of(self.name, self.loop.artifact)
        try:
            tagging.mark_champion(Path(self.loop.repository), artifact, version, self.loop.remote)
        except (StreamMonitorError, OSError) as e:
            log.warning("%s: git has no tag of the stage of %s: %s", self.name, version, e)

    def _look(self, version: str, known: Version | None) -> None:
        """Early, so that somebody can act."""
        from stream_monitor.lifecycle import way_back

        words = way_back.look(self.loop, known).words
        self._lost[version] = words
        if words:
            log.warning("%s: DVC cannot bring back %s of %s", self.name, words, version)

    def refused(self, m: Model, event: Event) -> list[Event] | None:
        """
        What is said instead of an event that begins a rollout: with `verify_tags` git must accept
        the tag of its version. Empty: it may begin; None: git has not answered within `ANSWER_S`,
        so ask again.
        """
        if not self.loop.verify_tags or not isinstance(event, Stage):
            return []
        r = event.rollout
        if r is None or m.rollout is not None:
            return []
        answer = self._signature(m, r.version)
        if answer is None:
            return None
        (why,) = answer
        if why is None:
            return []
        asked = f"{m.asked.by} asked for {m.asked.what} {r.version}, and " if m.asked else ""
        said = Stage(
            model=self.name,
            at=event.at,
            stages=m.stages,
            reference=m.stage.reference if m.stage is not None else "",
            reason=f"{asked}{why}",
            answers=event.answers,
        )
        no = Rejected(model=self.name, at=event.at, by=event.by, version=r.version, comment=why)
        return [said.named()] if m.asked else [no.named(), said.named()]

    def _signature(self, m: Model, version: str) -> tuple[str | None] | None:
        """Why a version may not be deployed, if git has answered."""
        asked = self._asking
        if asked is None or asked.version != version:
            asked = self._asking = _Asked(version)
            self._begin(self._ask, m, asked).join(ANSWER_S)
        found = asked.answer
        if found is not None:
            self._asking = None
        return found

    def _ask(self, m: Model, asked: _Asked) -> None:
        try:
            why = lacks_signature(self.loop, m, asked.version)
        except OSError as e:
            why = f"verify_tags: {e}"
        except BaseException as e:  # the rollout waits for an answer, whatever it is
            log.exception("%s: the signature of %s cannot be checked", self.name, asked.version)
            why = (
                f"verify_tags: the check failed ({type(e).__name__}: {e}); the log of the "
                "controller says where"
            )
        asked.answer = (why,)

    def told(self, m: Model, event: Event) -> Event:
        """An event as it is written: a way back says which files of its version are missing."""
        r = m.rollout
        if not isinstance(event, Stage) or r is None or event.stages.get(r.version) != "retired":
            return event
        lost = self._lost.get(r.against or "")
        if not lost:
            return event
        reason = f"{event.reason}; DVC cannot bring back {lost} of {r.against}"
        return msgspec.structs.replace(event, reason=reason).named()


def lacks_signature(loop: ModelLoop, m: Model, version: str) -> str | None:
    """
    Why a version may not be deployed with `verify_tags`; None: git accepts the signature of its
    tag. The remote is asked only for a tag that the clone lacks.
    """
    from stream_monitor.lifecycle import signing, tagging

    known = m.versions.get(version)
    if known is None or split(known.tag) is None:
        return f"verify_tags: {version} was never registered"
    repository = Path(loop.repository)
    try:
        why = signing.why_not(repository, known.tag, known.revision)
        if why is not None and why.startswith("the clone has no tag"):
            artifact, _ = split(known.tag) or ("", "")
            tagging.refresh(repository, artifact, loop.remote)
            why = signing.why_not(repository, known.tag, known.revision)
    except (InputError, StreamMonitorError) as e:
        why = str(e)
    return None if why is None else f"verify_tags: {why}"
