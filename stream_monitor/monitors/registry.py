"""
Which models and versions there are, within bounds.

Rule of the file: who came first has a place; whatever comes beyond a limit goes to `__other__` and
is counted. A configured model always has its place. Codes are given in the order of the log and
never change. A version that nobody uses for `retire_after` retires: its series and its place go,
its state stays for when it is used again. Of the retired as many are kept as may be active; beyond
that the one silent for longest is forgotten but for its counters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from stream_monitor.join.join import Join
from stream_monitor.join.store import VERSIONS_MAX
from stream_monitor.monitors.definitions import Changes, Definitions, definitions
from stream_monitor.monitors.version import Version
from stream_monitor.monitors.version_state import load, version_state
from stream_monitor.settings import OTHER, CoreSettings


class Registry:
    """
    Models and versions of one partition of `observations`.

    Parameters
    ----------
    settings : CoreSettings
    baselines : mapping of "model/version" to bytes
        Published baseline profiles (JSON).
    """

    def __init__(self, settings: CoreSettings, baselines: Mapping[str, bytes]) -> None:
        self.settings, self.baselines = settings, baselines
        self.models: dict[str, int] = {}
        """Code of every model name that was seen, of those beyond the limit that of `__other__`."""
        self.model_names: list[str] = []
        self.versions: list[Version] = []
        self.codes: dict[tuple[int, str], int] = {}
        self.sources: list[str] = []
        """Names of source partitions, by the number that rows carry."""
        self.hits: Counter[str] = Counter()
        """Things beyond a limit, by its name."""
        self.log_ms = 0
        """Time of the rows that come."""
        self.active: dict[int, None] = {}
        """Codes of versions that are monitored."""
        self.retired: dict[int, None] = {}
        """Codes of versions whose state is kept, in the order in which they retired."""
        self._used_ms: list[int] = []
        """By version code: when a prediction or a label named it last."""
        self._named_ms: list[int] = []
        """By model code, likewise."""
        self._living: set[int] = set()
        """Codes of models that are named or used."""
        self._holding: set[int] = set()
        """Those in places that `limits.models` counts."""
        self._of_model: Counter[int] = Counter()
        """Active versions, by model code."""

    def model(self, name: str) -> int:
        """Code of a model."""
        code = self.models.get(name)
        if code is None:
            if not self._has_place(name) and len(self._holding) >= self.settings.limits.models:
                self.hits["models"] += 1
                return self.model(OTHER)
            code = self.models[name] = len(self.model_names)
            self.model_names.append(name)
            self._named_ms.append(self.log_ms)
        self._named_ms[code] = self.log_ms
        self._living.add(code)
        if not self._has_place(name):
            self._holding.add(code)
        return code

    def _has_place(self, name: str) -> bool:
        """Whether a model needs none of the places that `limits.models` counts."""
        return name in self.settings.models or name == OTHER

    def version(self, model: int, name: str, join: Join) -> int:
        """Code of a version of a model; a new one is made known to the join."""
        code = self.codes.get((model, name))
        if code is None:
            full = self._of_model[model] >= self.settings.limits.versions or len(
                self.versions
            ) >= VERSIONS_MAX - len(self.model_names)
            if name != OTHER and full:
                self.hits["versions"] += 1
                return self.version(model, OTHER, join)
            self._of_model[model] += 1
            code = self.codes[model, name] = len(self.versions)
            self.active[code] = None
            self._used_ms.append(self.log_ms)
            self.versions.append(self._made(model, name, code))
            join.register(code, model, self.versions[code].settings.labels.max_delay_ms)
        elif code not in self.active:
            self._of_model[model] += 1
            self.active[code] = None
            self.retired.pop(code, None)
        self._used_ms[code] = self.log_ms
        return code

    def _made(self, model: int, name: str, code: int) -> Version:
        siblings = [
            self.versions[c]
            for (m, _), c in self.codes.items()
            if m == model and c < min(code, len(self.versions))
        ]
        return Version(
            self.model_names[model], name, self.settings, self.baselines, siblings, self.sources
        )

    def in_use(self) -> Iterator[Version]:
        """Versions that are monitored."""
        return (self.versions[code] for code in self.active)

    def retire(self, log_ms: int) -> list[Version]:
        """Let the versions retire that nobody uses any more; those that do so now."""
        out = []
        for code in list(self.active):
            version = self.versions[code]
            # a label need not name it
            used_ms = max(self._used_ms[code], version.volume.last_label_ms)
            if log_ms - used_ms > version.settings.silence_ms:
                out.append(version)
                del self.active[code]
                self.retired[code] = None
                self._of_model[self._model_of(version)] -= 1
        for code in sorted(self._living):
            if (
                not self._of_model[code]
                and log_ms - self._named_ms[code]
                > self.settings.of(self.model_names[code]).silence_ms
            ):
                self._living.discard(code)
                self._holding.discard(code)
        if out:
            self._forget()
        return out

    def _model_of(self, version: Version) -> int:
        return self.models[version.model]

    def _forget(self) -> None:
        """
        State is bounded: of the versions of a model, and of models without an active version, those
        go that are silent for longest.
        """
        by_model: dict[int, list[int]] = {}
        for code in self.retired:
            by_model.setdefault(self._model_of(self.versions[code]), []).append(code)
        gone = [
            code for codes in by_model.values() for code in codes[: -self.settings.limits.versions]
        ]
        silent = [
            m
            for m in by_model
            if not self._of_model[m] and not self._has_place(self.model_names[m])
        ]
        silent.sort(key=lambda m: self._named_ms[m])
        gone += [code for m in silent[: -self.settings.limits.models] for code in by_model[m]]
        for code in dict.fromkeys(gone):
            version = self.versions[code]
            del self.retired[code]
            self.versions[code] = self._made(self._model_of(version), version.name, code)
            self.versions[code].go_on_from(version)

    def state(self) -> dict[str, Any]:
        """Plain values for the snapshot."""
        return {
            "models": list(self.models.items()),
            "model_names": self.model_names,
            "codes": [[m, n] for m, n in self.codes],
            "sources": self.sources,
            "hits": dict(self.hits),
            "active": list(self.active),
            "retired": list(self.retired),
            "used": [self.log_ms, self._used_ms, self._named_ms],
            "living": sorted(self._living),
            "versions": [version_state(v) for v in self.versions],
            "defined": self._definitions(),
        }

    def load(self, state: Mapping[str, Any], texts: list[str], *, changed: bool) -> list[str]:
        """
        Go on from the state of a snapshot; what began anew.

        `texts` is the dictionary of outcomes of the shard, `changed`: the configuration is another
        one.
        """
        self.models, self.model_names, self.hits = (
            dict(state["models"]),
            list(state["model_names"]),
            Counter(state["hits"]),
        )
        self.sources += state["sources"]
        self.active, self.retired, self._living = (
            dict.fromkeys(state["active"]),
            dict.fromkeys(state["retired"]),
            set(state["living"]),
        )
        self._holding = {
            code for code in self._living if not self._has_place(self.model_names[code])
        }
        self.log_ms, self._used_ms, self._named_ms = (
            state["used"][0],
            list(state["used"][1]),
            list(state["used"][2]),
        )
        before, now, anew = state["defined"], self._definitions(), []
        for (model, name), saved in zip(state["codes"], state["versions"], strict=True):
            code = self.codes[model, name] = len(self.versions)
            self.versions.append(self._made(model, name, code))
            self._of_model[model] += code in self.active
            of = self.model_names[model]
            changes = Changes(before.get(of, before[""]), now.get(of, now[""]))
            load(self.versions[code], saved, texts, changes, changed=changed)
            anew += [f"{of}/{name}: {what}" for what in changes.anew]
        return anew

    def _definitions(self) -> dict[str, Definitions]:
        """By model of the configuration, and under no name those of all others."""
        of = {"": self.settings.defaults, **self.settings.models}
        return {name: definitions(model, self.settings.limits) for name, model in of.items()}

    def source(self, name: str) -> int:
        """Number of a source partition."""
        if name not in self.sources:
            self.sources.append(name)
        return self.sources.index(name)
