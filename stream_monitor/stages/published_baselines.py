"""
The baseline profiles a worker starts with.

Rule of the file: published for exactly this model version, else published for the model, else the
file of the configuration (else it is learnt). One that cannot be used is left out with a line in
the log: a worker never stops because of it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from stream_monitor.errors import StateError
from stream_monitor.kafka.records import read_compacted
from stream_monitor.monitors.baseline import decode_profile
from stream_monitor.settings import Settings

log = logging.getLogger("stream_monitor")
LEARNT_HEADER = "stream-monitor.learnt"
"""
On baselines that a worker learnt.

They are for people to see: the fold of the log learns them again, and taking them from here would
make it another fold.
"""


def usable(published: Mapping[str, bytes]) -> dict[str, bytes]:
    """The published profiles that are profiles; each other one is told."""
    out = {}
    for key, value in published.items():
        fault = _fault(key, value)
        if fault:
            log.error(
                "the baseline published as %r cannot be used and is ignored (%s); publish it "
                "again with `stream-monitor baseline publish`",
                key,
                fault,
            )
        else:
            out[key] = value
    return out


def _fault(key: str, value: bytes) -> str:
    if not key.partition("/")[0]:  # `ANY_MODEL` too, which is the configuration's
        return "its key is not MODEL/VERSION"
    try:
        decode_profile(value)
    except StateError as e:
        return str(e)
    return ""


async def read_baselines(settings: Settings, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """
    Profiles by "model/version": those of files under "model/" and `ANY_MODEL`, unless published
    ones stand there.

    What workers learnt is no published one.
    """
    return {**files, **usable(await read_compacted(settings, "baselines", without=LEARNT_HEADER))}
