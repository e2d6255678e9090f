"""
The models and versions of a shard, within limits.

Rule of the file: the first to come get the places; everything beyond a limit goes to `__other__`
and is counted. A configured model always has a place. Codes are given in the order of the log and
never change. A version without events for `retire_after` retires: its series and its place are
free, and its state stays in case it is used again. As many retired versions are kept as may be
active; beyond that, only the counters stay of the one that was silent for longest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import msgspec

from stream_monitor.join.join import Join
from stream_monitor.join.store import VERSIONS_MAX
from stream_monitor.monitors.definitions import Changes, Definitions, definitions
from stream_monitor.monitors.references import References
from stream_monitor.monitors.version import Version
from stream_monitor.monitors.version_state import VersionForm, form_of, load
from stream_monitor.settings import OTHER, CoreSettings, days_of


class RegistryState(msgspec.Struct):
    """Which names have a place, and when they were used last."""

    models: dict[str, int] = {}
    """Code of every model name that was seen, of those beyond the limit that of `__other__`."""
    model_names: list[str] = []
    codes: dict[tuple[int, str], int] = {}
    """Code of every version, by its model's code and its name."""
    sources: list[str] = []
    """Names of source partitions, by the number that rows carry."""
    hits: Counter[str] = msgspec.field(default_factory=Counter)
    """Things beyond a limit, by its name."""
    log_ms: int = 0
    """Time of the rows that come."""
    active: dict[int, None] = {}
    """Codes of versions that are monitored."""
    retired: dict[int, None] = {}
    """Codes of versions whose state is kept, in the order in which they retired."""
    used_ms: list[int] = []
    """By version code: log time of the last prediction or label that named it."""
    named_ms: list[int] = []
    """By model code: log time of the last prediction or label that named it."""
    living: dict[int, None] = {}
    """Codes of models that are named or used."""


class RegistryForm(msgspec.Struct):
    """A registry in a snapshot."""

    state: RegistryState
    versions: list[VersionForm]
    defined: dict[str, Definitions]
    """The definitions that they were made by; under no name those of all other models."""


class Registry:
    """
    Models and versions of one partition of `observations`.

    Parameters
    ----------
    settings : CoreSettings
    baselines : mapping of "model/version" to bytes
        Published baseline profiles (JSON).
    partitions : int
        Number of partitions of `observations`.
    """

    def __init__(
        self, settings: CoreSettings, baselines: Mapping[str, bytes], partitions: int = 1
    ) -> None:
        self.settings, self.baselines, self.partitions = settings, baselines, partitions
        self.state = RegistryState()
        self.versions: list[Version] = []
        self.references = References()
        self.stage_of: Callable[[str, str], str] = lambda _model, _version: ""
        """The stage of a version of a model, as `lifecycle` says."""
        self._holding: set[int] = set()
        """Codes of models in places that `limits.models` counts."""
        self._of_model: Counter[int] = Counter()
        """Active versions, by model code."""

    def model(self, name: str) -> int:
        """Code of a model."""
        code = self.state.models.get(name)
        if code is None:
            if not self._has_place(name) and len(self._holding) >= self.settings.limits.models:
                self.state.hits["models"] += 1
                return self.model(OTHER)
            code = self.state.models[name] = len(self.state.model_names)
            self.state.model_names.append(name)
            self.state.named_ms.append(self.state.log_ms)
        self.state.named_ms[code] = self.state.log_ms
        self.state.living[code] = None
        if not self._has_place(name):
            self._holding.add(code)
        return code

    def _has_place(self, name: str) -> bool:
        """Whether a model needs none of the places that `limits.models` counts."""
        return name in self.settings.models or name == OTHER

    def version(self, model: int, name: str, join: Join) -> int:
        """Code of a version of a model; a new one is made known to the join."""
        code = self.state.codes.get((model, name))
        if code is None:
            full = self._of_model[model] >= self.settings.limits.versions or len(
                self.versions
            ) >= VERSIONS_MAX - len(self.state.model_names)
            if name != OTHER and full:
                self.state.hits["versions"] += 1
                return self.version(model, OTHER, join)
            self._of_model[model] += 1
            code = self.state.codes[model, name] = len(self.versions)
            self.state.active[code] = None
            self.state.used_ms.append(self.state.log_ms)
            self.versions.append(self._made(model, name, code))
            join.register(code, model, self.versions[code].settings.labels.max_delay_ms)
        elif code not in self.state.active:
            self._of_model[model] += 1
            self.state.active[code] = None
            self.state.retired.pop(code, None)
        self.state.used_ms[code] = self.state.log_ms
        return code

    def _made(self, model: int, name: str, code: int) -> Version:
        siblings = [
            self.versions[c]
            for (m, _), c in self.state.codes.items()
            if m == model and c < min(code, len(self.versions))
        ]
        of = self.state.model_names[model]
        siblings.sort(key=lambda v: self.stage_of(of, v.name) != "production")
        version = Version(
            of,
            name,
            self.settings,
            self.references.over(self.baselines, of, name),
            siblings,
            self.state.sources,
        )
        version.sharers = partial(self._sharers, model, version.settings.days_per_alarm)
        for group in version.drifts:
            group.sharers = version.sharers
        return version

    def referred(self, model: str, name: str) -> tuple[int, bytes | None]:
        """A version that was seen, and the profile that came for it; None: one is not there."""
        code = self.state.codes.get((self.state.models.get(model, -1), name))
        return (-1, None) if code is None else (code, self.references.of(model, name))

    def _sharers(self, model: int, days: float) -> float:
        """
        By how many the budget of a model, one false alarm in so many `days`, is shared: by its
        active versions, and by more if the fleet allows it less. Each partition has an equal part
        of what the fleet may have, and the models that live there share it.
        """
        least, fleet = 1.0, self.settings.limits.fleet_alarm_budget
        if fleet is not None:
            models = max(len(self.state.living), 1)
            least = max(days_of(fleet) * self.partitions * models / days, 1.0)
        return least * max(self._of_model[model], 1)

    def in_use(self) -> Iterator[Version]:
        """Versions that are monitored."""
        return (self.versions[code] for code in self.state.active)

    def retire(self, log_ms: int) -> list[Version]:
        """Let the versions retire that nobody uses any more; those that do so now."""
        out = []
        for code in list(self.state.active):
            version = self.versions[code]
            # a label need not name it
            used_ms = max(self.state.used_ms[code], version.volume.last_label_ms)
            if log_ms - used_ms > version.settings.silence_ms:
                out.append(version)
                del self.state.active[code]
                self.state.retired[code] = None
                self._of_model[self._model_of(version)] -= 1
        for code in sorted(self.state.living):
            if (
                not self._of_model[code]
                and log_ms - self.state.named_ms[code]
                > self.settings.of(self.state.model_names[code]).silence_ms
            ):
                del self.state.living[code]
                self._holding.discard(code)
        if out:
            self._forget()
        return out

    def _model_of(self, version: Version) -> int:
        return self.state.models[version.model]

    def _forget(self) -> None:
        """
        State is bounded: of the versions of a model, and of models without an active version, those
        go that are silent for longest.
        """
        by_model: dict[int, list[int]] = {}
        for code in self.state.retired:
            by_model.setdefault(self._model_of(self.versions[code]), []).append(code)
        gone = [
            code for codes in by_model.values() for code in codes[: -self.settings.limits.versions]
        ]
        silent = [
            m
            for m in by_model
            if not self._of_model[m] and not self._has_place(self.state.model_names[m])
        ]
        silent.sort(key=lambda m: self.state.named_ms[m])
        gone += [code for m in silent[: -self.settings.limits.models] for code in by_model[m]]
        for code in dict.fromkeys(gone):
            version = self.versions[code]
            del self.state.retired[code]
            self.versions[code] = self._made(self._model_of(version), version.name, code)
            self.versions[code].go_on_from(version)

    def form(self) -> RegistryForm:
        """The registry in a snapshot."""
        versions = [form_of(version) for version in self.versions]
        return RegistryForm(self.state, versions, self._definitions())

    def load(self, form: RegistryForm, texts: list[str], *, changed: bool) -> list[str]:
        """
        Go on from a snapshot; returns the parts that began again.

        `texts` is the dictionary of outcomes of the shard; `changed` means another configuration.
        """
        self.state = state = form.state
        self._holding = {c for c in state.living if not self._has_place(state.model_names[c])}
        before, now, anew = form.defined, self._definitions(), list[str]()
        for ((model, name), code), saved in zip(state.codes.items(), form.versions, strict=True):
            self.versions.append(self._made(model, name, code))
            self._of_model[model] += code in state.active
            of = state.model_names[model]
            changes = Changes(before.get(of, before[""]), now.get(of, now[""]))
            load(self.versions[code], saved, texts, changes, changed=changed)
            anew += [f"{of}/{name}: {what}" for what in changes.anew]
        return anew

    def _definitions(self) -> dict[str, Definitions]:
        """Settings by configured model; the empty name has those of all others."""
        of = {"": self.settings.defaults, **self.settings.models}
        return {name: definitions(model, self.settings.limits) for name, model in of.items()}

    def restarted_detectors(self) -> list[str]:
        """Detectors that restarted when the snapshot was loaded: `MODEL/VERSION SUBJECT METHOD`."""
        return [
            f"{version.model}/{version.name} {subject} {method}"
            for version in self.versions
            for subject, signal in version.signals.items()
            for method, detector in signal.detectors.items()
            if detector.restarted
        ]

    def knows(self, sources: list[str]) -> bool:
        """Whether all these source partitions have a number."""
        return all(name in self.state.sources for name in sources)

    def source(self, name: str) -> int:
        """Number of a source partition; a new one gets the next."""
        if name not in self.state.sources:
            self.state.sources.append(name)
        return self.state.sources.index(name)
