"""
A baseline profile made from files.

Rule of the file: the rows of the file are processed by the code with which a worker learns from the
first rows of a model version. So the same rows give the same profile with the same id.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec

from stream_monitor.errors import InputError
from stream_monitor.monitors.baseline import Profile
from stream_monitor.monitors.performance_windows import ALL
from stream_monitor.monitors.rows import Rows
from stream_monitor.monitors.version import Version
from stream_monitor.offline.replay import CHUNK_EVENTS, Replay
from stream_monitor.settings import Baseline, ModelSettings, Settings

ENDLESS = 1 << 62
"""Number of rows after which a baseline is learnt by itself; so large that this never happens."""
SHOWN = 10
IN_PROFILES = ("accuracy", "mae", "rmse")


class Builder:
    """
    Reads events until there are enough rows, and makes the profile.

    Parameters
    ----------
    settings : Settings
        Types and limits of features matter as in a worker; `baseline` does not.
    model, version : str or None
        Whose rows; None if the events have only one.
    rows : int or None
        How many rows, from the first on; None for all.
    """

    def __init__(
        self,
        settings: Settings,
        model: str | None = None,
        version: str | None = None,
        rows: int | None = None,
    ) -> None:
        self.model, self.version, self.rows = model, version, rows
        core = settings.core
        core = msgspec.structs.replace(
            core,
            defaults=_learning(core.defaults),
            models={name: _learning(m) for name, m in core.models.items()},
        )
        self.replay = Replay(msgspec.structs.replace(settings, core=core))
        self.answers = True
        """
        Whether the predictions are those of a model; otherwise the profile has no performance.
        """
        self.predictions = 0
        """Number of rows that were read so far."""

    def feed(self, events: Iterable[tuple[str, bytes, Any, int]]) -> bool:
        """Read events. Returns False if there are enough rows; then no more were read."""
        chunk = []
        for event in events:
            chunk.append(event)
            self.predictions += event[0] == "predictions"
            if len(chunk) == CHUNK_EVENTS:
                self.replay.feed(chunk)
                chunk = []
                if self.rows is not None and any(
                    v.features.waiting_rows >= self.rows for v in self._versions()
                ):
                    return False
        self.replay.feed(chunk)
        return True

    def _versions(self) -> list[Version]:
        """The requested versions that have rows."""
        found = (v for shard in self.replay.shards for v in shard.versions)
        return [
            v
            for v in found
            if v.features.waiting_rows
            and self.model in {None, v.model}
            and self.version in {None, v.name}
        ]

    def profile(self) -> tuple[Version, Profile]:
        """
        The version that was found, and the profile of its rows.

        Raises
        ------
        InputError
            The version does not exist, or there is more than one.
        """
        found, _, profile = self.rows_and_profile()
        return found, profile

    def rows_and_profile(self) -> tuple[Version, list[Rows], Profile]:
        """As `profile`, with the rows that the profile is of."""
        self.replay.close()
        found = self._versions()
        if len(found) != 1:
            raise InputError(self._not_one(found))
        features = found[0].features
        rows, count = features.waiting, min(self.rows or ENDLESS, features.waiting_rows)
        features.learn(count)
        assert features.profile is not None
        profile = msgspec.structs.replace(
            features.profile, performance=_performance(found[0]) if self.answers else {}
        )
        return found[0], rows, profile

    def _not_one(self, found: list[Version]) -> str:
        if found:
            names = ", ".join(
                f"{v.model}/{v.name} ({v.features.waiting_rows} rows)" for v in found[:SHOWN]
            )
            return (
                f"a profile is of one model version, and there are {len(found)}: {names}; choose "
                "with --model and --version"
            )
        asked = "/".join(name for name in (self.model, self.version) if name is not None)
        self.model = self.version = None
        others = [f"{v.model}/{v.name}" for v in self._versions()]
        if others:
            return f"no rows of {asked}; there are rows of {', '.join(others[:SHOWN])}"
        reasons = Counter(d.reason for d in self.replay.dead_letters)
        why = (
            (
                ": "
                f"{', '.join(f'{n} rejected as {reason}' for reason, n in reasons.most_common())}; "
                f"the first: {self.replay.dead_letters[0].message}"
            )
            if reasons
            else ""
        )
        return f"no usable prediction in {self.predictions} rows{why}"


def _performance(version: Version) -> dict[str, float]:
    """
    The metrics of all labelled rows, which a worker later uses as the usual level of performance.
    """
    found, span = version.performance.window(ALL)
    metrics = {name: found[name] for name in IN_PROFILES if name in found}
    return {**metrics, "labels": float(span.count)} if metrics else {}


def _learning(model: ModelSettings) -> ModelSettings:
    return msgspec.structs.replace(model, baseline=Baseline(rows=ENDLESS))
