"""
The baseline profile of a version, on its way to the workers.

Rule of the file: a profile goes to `lifecycle`, whose place in the log decides from which row on it
counts, and to `baselines`, from which it is read where that log is gone. Its parts come before the
event of its version. Written twice it counts once.
"""

from __future__ import annotations

from pathlib import Path

from stream_monitor.kafka.records import write
from stream_monitor.lifecycle import git
from stream_monitor.lifecycle.contents import REFERENCE
from stream_monitor.lifecycle.events import Reference, encode
from stream_monitor.monitors.baseline import baseline_key
from stream_monitor.monitors.references import events_of
from stream_monitor.settings import Settings


def of_version(repository: Path, revision: str) -> bytes | None:
    """The profile of a commit, as it is in git; None: it has none."""
    text = git.text_of(repository, revision, REFERENCE)
    return None if text is None else text.encode()


def parts_of(model: str, version: str, profile: bytes, at: str, by: str) -> list[Reference]:
    """
    The events that bring a profile to the workers.

    Raises
    ------
    StreamMonitorError
        It is no profile, or too big.
    """
    return [
        Reference(model=model, at=at, by=by, version=version, **part).named()
        for part in events_of(model, version, profile)
    ]


async def publish(
    settings: Settings, model: str, version: str, profile: bytes, parts: list[Reference]
) -> None:
    """
    Write a profile for a version, or for all that are new from now on if it is empty.

    Raises
    ------
    BrokerError
        The broker cannot be reached, or refuses a record.
    """
    await write(settings, "baselines", baseline_key(model, version), profile)
    for part in parts:
        await write(settings, "lifecycle", model, encode(part))
