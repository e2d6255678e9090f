"""
The baseline profiles with which a worker starts.

Rule of the file: the profile published for exactly this model version comes first, then the one
published for the model, then the file of the configuration; otherwise the baseline is learnt. A
profile that cannot be used is skipped with a line in the log: it never stops a worker.
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
Header of baselines that a worker learnt.

They are published for people to read. A worker ignores them: folding the log learns them again, and
reading them would make the state depend on more than the log.
"""


def usable(published: Mapping[str, bytes]) -> dict[str, bytes]:
    """The published records that are valid profiles; each other record is logged."""
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
    if not key.partition("/")[0]:  # also `ANY_MODEL`, which belongs to the configuration
        return "its key is not MODEL/VERSION"
    try:
        decode_profile(value)
    except StateError as e:
        return str(e)
    return ""


async def read_baselines(settings: Settings, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """
    Profiles by "model/version". Profiles of files are under "model/" and `ANY_MODEL`, unless a
    published one has that key.

    Baselines that workers learnt are left out.
    """
    return {**files, **usable(await read_compacted(settings, "baselines", without=LEARNT_HEADER))}
