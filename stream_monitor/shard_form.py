"""
What a snapshot has of a partition of `observations`: the state, and the configuration it is of.

Rule of the file: types only, and what must be known before they can be read. Who changes what a
field means, or adds one without a default, gives `SNAPSHOT_SCHEMA` the next number.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from stream_monitor.alerts.lifecycle import Alerts
from stream_monitor.errors import StateError
from stream_monitor.experiments.registry import ExperimentsState
from stream_monitor.join.store import StoreForm
from stream_monitor.monitors.bounds import Bounds
from stream_monitor.monitors.references import References
from stream_monitor.monitors.registry import RegistryForm
from stream_monitor.monitors.releases import Releases
from stream_monitor.outcomes import Outcomes
from stream_monitor.settings import CoreSettings
from stream_monitor.state import decode
from stream_monitor.verdicts import Out
from stream_monitor.windows.log_time import LogTime

SNAPSHOT_SCHEMA = 6

_SETTINGS = msgspec.json.Decoder(CoreSettings)  # made here, because restores run in threads


class Versioned(msgspec.Struct):
    """What the state of every schema has."""

    schema: int


class ShardForm(msgspec.Struct):
    """A shard in a snapshot, without the full slabs of its rings."""

    config: str
    """Hash of the configuration."""
    changed_ms: int
    anew: list[str]
    log_time: LogTime
    outcomes: Outcomes
    join: StoreForm
    registry: RegistryForm
    texts: list[str]
    """Of outcomes of predictions, by their number in the join."""
    alerts: Alerts
    bounds: Bounds
    experiments: ExperimentsState
    outbox: list[Out]
    dirty: dict[int, int]
    """By version code: since when rows wait to be reduced (log time, ms)."""
    schema: int = SNAPSHOT_SCHEMA
    releases: Releases = msgspec.field(default_factory=Releases)
    """What was registered; none, in snapshots from before there were any."""
    references: References = msgspec.field(default_factory=References)
    """Baseline profiles that came through the log."""


def form_of(parts: Mapping[str, bytes]) -> ShardForm:
    """
    The state in the parts of a snapshot.

    Raises
    ------
    StateError
        It is of another schema.
    msgspec.ValidationError
        A part of it is missing or of another type.
    """
    schema = decode(parts["state"], Versioned).schema
    if schema != SNAPSHOT_SCHEMA:
        raise StateError(
            f"the snapshot has schema {schema}, this version reads "
            f"{SNAPSHOT_SCHEMA}: reset the group's offsets of observations to fold it again"
        )
    return decode(parts["state"], ShardForm)


def settings_of(parts: Mapping[str, bytes]) -> CoreSettings:
    """
    With which configuration a snapshot was folded.

    Raises
    ------
    StateError
        This version of the software does not know it.
    """
    try:
        return _SETTINGS.decode(parts["settings"])
    except (KeyError, msgspec.MsgspecError) as e:
        raise StateError(f"the configuration of the snapshot cannot be read: {e}") from None
