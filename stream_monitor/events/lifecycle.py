"""
Records of `lifecycle` that belong into the log that is folded: the events of experiments, what is
said of versions and their stages, and the marks of people on alerts.

Rule of the file: a change of weights must have one place among the calls of its model, so it goes
the way of any row. Of all but experiments only what is folded goes in. All other records of
`lifecycle` are for others: they are skipped, whatever they hold, and never rejected. Whether an
experiment can work is decided where it is folded.

An epoch is the offset of a controller's claim. A record with one that is not below its own offset
is forged: it is rejected. One of an older controller than has spoken before it is skipped, as
routers and the fold of the loop do. Which ones spoke is not kept over a restart, so a claim goes
into the log of every partition, and EVALUATE knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from stream_monitor.events.decode import Columns, Decoded, Groups
from stream_monitor.events.observations import ALONE, LIFECYCLE
from stream_monitor.events.parse import Bad, load
from stream_monitor.settings import OTHER
from stream_monitor.verdicts import Reject

MARK = b"experiment_"
"""What cannot be read is rejected if it has this; without it, it is of others."""
EPOCHS_MAX = 16
"""Controllers that are remembered."""
FORWARDED = frozenset(("experiment_started", "experiment_changed", "experiment_stopped"))
OF_ALERTS = ("fingerprint", "starts_at", "until", "by")
KEPT: dict[str, tuple[str, ...]] = {
    "claim": (),
    "version": ("version", "revision"),
    "stage": ("stages",),
    "reference": ("version", "reference", "part", "parts", "content"),
    "acknowledged": OF_ALERTS,
    "muted": OF_ALERTS,
    "false_alarm": OF_ALERTS,
}
"""By type: the fields that are folded, beside those that make the event one of its own."""
ALONE_TYPES = frozenset(("stage", "reference"))
"""Rows after them may be counted in another way: a new version takes the reference that is said."""
PART_CHARS, PARTS_MAX = 65_536, 16
"""
Of a part of a baseline profile, and parts that one may have. A part is well below what a record of
`observations` may have beyond `RECORD_BYTES_MAX`.
"""
PART, PART_BYTES = b'"content"', PART_CHARS + 4_096
"""A record with this may have so many bytes, however low `worker.max_record_bytes` is."""


class _Refused(Bad):
    """It is rejected, whoever it is of."""


class LifecycleDecoder:
    """
    Decodes records of `lifecycle`.

    Parameters
    ----------
    groups : Groups
        Shared with the decoders of the same stage; an event is a group of its own.
    bytes_max : int, bytes
        Larger records are rejected.
    of_log : bool
        Offsets are those of the log; those of a file that is replayed say nothing about epochs.
    """

    def __init__(self, groups: Groups, bytes_max: int, *, of_log: bool = True) -> None:
        self.groups, self.bytes_max, self.of_log = groups, bytes_max, of_log
        self._said: dict[int, int] = {}
        """By epoch: where it was said first. A batch may come twice, so the place matters."""

    def decode(
        self,
        values: Sequence[bytes | None],
        times_ms: NDArray[np.int64],
        offsets: NDArray[np.int64],
    ) -> Decoded:
        """Rows without cells; `times_ms` are the records' timestamps."""
        rejects: list[Reject] = []
        place: list[int] = []
        groups: list[int] = []
        ids: list[int] = []
        for i, value in enumerate(values):
            if value is None:
                continue
            try:
                is_part = PART in value[:PART_BYTES]
                event = load(value, max(self.bytes_max, PART_BYTES) if is_part else self.bytes_max)
                stale = self.of_log and self._is_stale(event, int(offsets[i]))
                found = None if stale else _forwarded(event)
            except Bad as e:
                if MARK in value or isinstance(e, _Refused):
                    rejects.append(Reject(i, e.reason, str(e)))
                continue
            if found is not None:
                model, text = found
                kind = ALONE if event["type"] in ALONE_TYPES else LIFECYCLE
                groups.append(self.groups[kind, model, text.decode(), ()])
                ids.append(xxh3_64_intdigest(text))
                place.append(i)
        at = np.array(place, np.int64)
        rows = Columns(
            (),
            at,
            np.array(groups, np.int64),
            np.array(ids, np.uint64),
            times_ms[at],
            np.empty((len(at), 0)),
        )
        others = len(values) - len(at) - len(rejects)
        return Decoded([rows], rejects, others, 0, 0)

    def _is_stale(self, event: dict[str, Any], offset: int) -> bool:
        """Whether a controller wrote it that another one had taken over from."""
        epoch = event.get("epoch")
        if type(epoch) is not int:
            return False
        if epoch >= offset:
            kind = event.get("type")
            if type(kind) is str and (kind in FORWARDED or kind in KEPT):
                raise _Refused(
                    "out_of_range",
                    f"`epoch` {epoch} is not below the offset {offset} of its record, so no "
                    "controller has it",
                )
            return True
        self._said[epoch] = min(offset, self._said.get(epoch, offset))
        if len(self._said) > EPOCHS_MAX:
            del self._said[min(self._said)]
        return any(newer > epoch and at < offset for newer, at in self._said.items())


def _forwarded(event: dict[str, Any]) -> tuple[str, bytes] | None:
    """
    The model and the JSON of an event that is folded; None for what is of others. The model is
    empty for a claim, and for a mark on what belongs to no model: every partition has alerts about
    its own limits.
    """
    kind, model = event.get("type"), event.get("model")
    if type(kind) is not str or (kind not in FORWARDED and kind not in KEPT):
        return None
    of_alerts = KEPT.get(kind) is OF_ALERTS
    if of_alerts and type(event.get("fingerprint")) is not str:
        return None
    if kind == "claim":  # it is of all models; the first of two has no epoch and says nothing
        if type(event.get("epoch")) is not int:
            return None
        model = OTHER
    if type(model) is not str or not model:
        raise Bad("missing_field", "`model` is missing, or is no text")
    if kind == "reference":
        _demand_part(event)
    if kind in KEPT:
        kept = ("type", "model", "at", "id", "epoch", *KEPT[kind])
        event = {name: event[name] for name in kept if name in event}
    text = msgspec.json.encode(event)
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError as e:  # it goes into the log, so everybody must be able to read it
        raise Bad("out_of_range", str(e)) from None
    everywhere = kind == "claim" or (of_alerts and model == OTHER)
    return "" if everywhere else model, text


def _demand_part(event: dict[str, Any]) -> None:
    """
    Refuse a part of a profile that cannot be one.

    Raises
    ------
    _Refused
        It is too long, or its number is none.
    """
    part, parts, content = (event.get(name) for name in ("part", "parts", "content"))
    if (
        type(part) is not int
        or type(parts) is not int
        or not 1 <= part <= parts <= PARTS_MAX
        or type(content) is not str
        or not len(content.encode("utf-8", "replace")) <= PART_CHARS
    ):
        raise _Refused(
            "out_of_range",
            f"a part of a baseline profile is a text of at most {PART_CHARS} bytes, and is number "
            f"1 to {PARTS_MAX}: `stream-monitor baseline publish` writes it so",
        )
