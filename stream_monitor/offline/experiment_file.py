"""
An experiment out of a file, for a replay: the events that `lifecycle` would have had.

Rule of the file: what cannot work is refused before the first row is read, with the file, the key
and the way out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from stream_monitor.errors import InputError
from stream_monitor.events.parse import text_time
from stream_monitor.experiments.definition import (
    CHANGED,
    STARTED,
    TYPES,
    Definition,
    changed_of,
    check_maturity,
    definition_of,
    shares_of,
)
from stream_monitor.experiments.measures import with_fields
from stream_monitor.settings import CoreSettings

Event = tuple[str, bytes, Any, int]
"""Kind, value, key, time in ms: as `Replay.feed` takes them."""


def experiment_events(
    path: str, core: CoreSettings, prepare: Callable[[dict[str, Any]], None] = lambda _: None
) -> list[tuple[dict[str, Any], int | None]]:
    """
    The events of a file, in order, with their times; None: that of the first row.

    Parameters
    ----------
    path : str
        One `experiment_started` event (JSON); or several events, changes of weights among them, as
        JSON Lines or as one JSON list. An event without a `type` is an `experiment_started`.
    core : CoreSettings
        How long models wait for labels, and their custom metrics.
    prepare : callable
        Gets each event that starts an experiment, before it is checked.

    Raises
    ------
    InputError
        The file cannot be read, or an experiment cannot work.
    """
    try:
        raw = Path(path).read_bytes()
    except OSError as e:
        raise InputError(f"--experiment {path}: cannot be read: {e.strerror or e}") from None
    try:
        events = _objects(raw)
    except (msgspec.DecodeError, ValueError) as e:
        raise InputError(f"--experiment {path}: is not a JSON object: {e}") from None
    found = []
    arms: dict[str, list[str]] = {}
    for number, event in enumerate(events, 1):
        event.setdefault("type", STARTED)
        try:
            if event["type"] == STARTED:
                custom = core.of(str(event.get("model"))).metrics.custom
                event |= with_fields(event, custom)
                prepare(event)
            _check(event, arms, core)
        except InputError as e:
            where = f"event {number}: " if len(events) > 1 else ""
            raise InputError(f"--experiment {path}: {where}{e}") from None
        at = event.get("at")
        found.append((event, None if at is None else text_time(at)))
    if not arms:
        raise InputError(f"--experiment {path}: there is no experiment_started event in it")
    return found


def definitions(events: Iterable[tuple[dict[str, Any], int | None]]) -> list[Definition]:
    """The experiments that these events start."""
    return [definition_of(event) for event, _ in events if event["type"] == TYPES[0]]


def _objects(raw: bytes) -> list[dict[str, Any]]:
    """The JSON objects of a file: one, a list of them, or one a line."""
    try:
        whole = msgspec.json.decode(raw)
        return msgspec.convert(whole if isinstance(whole, list) else [whole], list[dict[str, Any]])
    except msgspec.DecodeError:
        lines = [line for line in raw.splitlines() if line.strip()]
        if len(lines) < 2:
            raise
        return [msgspec.json.decode(line, type=dict[str, Any]) for line in lines]


def _check(event: dict[str, Any], arms: dict[str, list[str]], core: CoreSettings) -> None:
    kind = event["type"]
    if kind == STARTED:
        definition = definition_of(event)
        check_maturity(definition, core.of(definition.model).labels.max_delay_ms)
        arms[definition.name] = [arm.name for arm in definition.arms]
    elif kind == CHANGED:
        changed = changed_of(event)
        if changed.name not in arms:
            raise InputError(f"experiment {changed.name!r} was not started before")
        shares_of(changed.weights, arms[changed.name])
        if text_time(str(event.get("at"))) is None:
            raise InputError("experiment_changed needs `at`, an RFC 3339 time with an offset")
    elif kind not in TYPES:
        raise InputError(f"`type` must be one of {', '.join(TYPES)}, not {kind!r}")


def merged(
    rows: Iterable[Event], events: list[tuple[dict[str, Any], int | None]]
) -> Iterator[Event]:
    """
    Rows with the events among them, each before the rows of its time.

    >>> rows = [("predictions", b"", None, 7), ("predictions", b"", None, 9)]
    >>> [e[0] for e in merged(rows, [({}, None), ({}, 8)])]
    ['lifecycle', 'predictions', 'lifecycle', 'predictions']
    """
    waiting = list(events)
    for row in rows:
        while waiting and (waiting[0][1] is None or waiting[0][1] <= row[3]):
            event, time_ms = waiting.pop(0)
            yield (
                "lifecycle",
                msgspec.json.encode(event),
                None,
                row[3] if time_ms is None else time_ms,
            )
        yield row
