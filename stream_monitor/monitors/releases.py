"""
What `lifecycle` says of the versions of models: their commit in git, and their stage.

Rule of the file: pure; an event counts from its place in the log on, unless a newer controller has
spoken before it (those of experiments too, as in routers). A model without a registered version is
not looked at. A version that is used and was never registered is told by an alert of
severity info: it stops no retraining and no rollout.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec

from stream_monitor.errors import UNREADABLE
from stream_monitor.monitors.version import Version
from stream_monitor.verdicts import AlertKey, Span, Verdict

MODELS_MAX, VERSIONS_MAX = 1_000, 1_000
UNREGISTERED = "unregistered"


class Release(msgspec.Struct):
    """A version of a model."""

    revision: str = ""
    """Its commit; empty: only its stage is known."""
    stage: str = ""


NOT_THERE = Release()


class _Event(msgspec.Struct):
    """The fields of the two events that are read."""

    type: Literal["version", "stage"]
    model: str
    version: str = ""
    revision: str = ""
    stages: dict[str, str] = {}
    epoch: int | None = None


class _Other(msgspec.Struct):
    """An event of others, of which only the epoch is read."""

    type: str = ""
    epoch: int | None = None


class Releases(msgspec.Struct):
    """
    Registered versions of the models of a partition.

    Examples
    --------
    >>> releases = Releases()
    >>> releases.take(
    ...     [(0, '{"type": "version", "model": "m", "version": "v1.0.0", "revision": "ab"}')]
    ... )
    []
    >>> releases.take([(1, '{"type": "stage", "model": "m", "stages": {"v1.0.0": "canary"}}')])
    []
    >>> releases.of("m", "v1.0.0"), releases.of("m", "2").stage, releases.of("n", "2").stage
    (Release(revision='ab', stage='canary'), 'unregistered', '')
    """

    of_model: dict[str, dict[str, Release]] = {}
    """By model and version."""
    epochs: dict[str, int] = {}
    """
    The controller that spoke last, of all models, under an empty name. An older one counts no more.
    """

    def take(self, events: list[tuple[int, str]]) -> list[tuple[int, str]]:
        """
        Read the events of versions and stages; the others are returned, without those of
        controllers that count no more.

        Parameters
        ----------
        events : list of (place in the record, JSON)
        """
        left = []
        for place, text in events:
            try:
                event = msgspec.json.decode(text, type=_Event)
            except UNREADABLE:
                other = _other(text)
                if not self._is_stale(other.epoch) and other.type != "claim":
                    left.append((place, text))
            else:
                if not self._is_stale(event.epoch):
                    self._take(event)
        return left

    def _is_stale(self, epoch: int | None) -> bool:
        if epoch is None:
            return False
        newest = max(self.epochs.values(), default=-1)
        self.epochs = {"": max(newest, epoch)}
        return epoch < newest

    def _take(self, event: _Event) -> None:
        if event.model not in self.of_model and len(self.of_model) >= MODELS_MAX:
            return
        known = self.of_model.setdefault(event.model, {})
        if event.type == "version":
            known.setdefault(event.version, Release()).revision = event.revision
        else:
            for version, release in known.items():
                release.stage = event.stages.get(version, "")
            for version, stage in event.stages.items():
                known.setdefault(version, Release()).stage = stage
        for oldest in [v for v, r in known.items() if r.stage in ("", "retired")]:
            if len(known) <= VERSIONS_MAX:
                break
            del known[oldest]

    def stage_of(self, model: str, version: str) -> str:
        """The stage of a version; empty if nobody said."""
        return self.of(model, version).stage

    def of(self, model: str, version: str) -> Release:
        """What is known of a version; its stage says so if others are registered and it is not."""
        known = self.of_model.get(model)
        if known is None:
            return NOT_THERE
        return known.get(version) or Release(stage=UNREGISTERED)

    def marked(self, verdict: Verdict) -> Verdict:
        """A verdict whose alert says which commit and which stage it is about."""
        if verdict.key.model not in self.of_model or not verdict.key.version:
            return verdict
        found = self.of(verdict.key.model, verdict.key.version)
        told = {k: v for k, v in (("revision", found.revision), ("stage", found.stage)) if v}
        return msgspec.structs.replace(verdict, annotations={**verdict.annotations, **told})

    def judge(self, versions: Iterable[Version], log_ms: int) -> Iterator[Verdict]:
        """Verdicts on the versions that are used, of models with registered versions."""
        if not self.of_model:
            return
        for version in versions:
            known = self.of_model.get(version.model)
            if known is None:
                continue
            calls = version.volume.predictions + version.volume.failures
            unknown = version.name not in known and calls > 0
            key = AlertKey(version.model, version.name, "", "anomaly", "version", "registry")
            what = (
                "is used, and was never registered; `stream-monitor models list` shows the versions"
                if unknown
                else "is registered"
            )
            yield Verdict(
                key=key,
                level="info" if unknown else "ok",
                clear=not unknown,
                value=float(unknown),
                threshold=0.0,
                direction="up",
                window=Span(log_ms, log_ms, calls),
                summary=f"{key.title} {what}",
                evidence={"registered": len(known), "guarantee": "none"},
            )


def _other(text: str) -> _Other:
    try:
        return msgspec.json.decode(text, type=_Other)
    except UNREADABLE:
        return _Other()
