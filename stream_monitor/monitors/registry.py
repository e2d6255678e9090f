"""
Which models and versions there are, within bounds.

Rule of the file: who came first has a place; whatever comes beyond a limit goes to `__other__` and is counted. A configured model always has its place.
Codes are given in the order of the log and never change. A version that nobody used for a week retires: its state goes, its place is free, its counters stay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from stream_monitor.events.join import VERSIONS_MAX, Join
from stream_monitor.monitors.definitions import Changes, Definitions, definitions
from stream_monitor.monitors.version import Version
from stream_monitor.monitors.version_state import load, version_state
from stream_monitor.settings import CoreSettings

OTHER = "__other__"
RETIRE_MS = 7 * 86_400_000
"""Log time without a prediction or a label after which a version retires."""


class Registry:
    """
    Models and versions of one partition of `observations`.

    Parameters
    ----------
    settings : CoreSettings
    baselines : mapping of "model/version" to bytes
        Published reference profiles (JSON).
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
        self._unconfigured = 0
        self._of_model: Counter[int] = Counter()

    def model(self, name: str) -> int:
        """Code of a model."""
        code = self.models.get(name)
        if code is None:
            configured = name in self.settings.models
            if not configured and name != OTHER and self._unconfigured >= self.settings.limits.models:
                self.hits["models"] += 1
                return self.model(OTHER)
            self._unconfigured += not configured and name != OTHER
            code = self.models[name] = len(self.model_names)
            self.model_names.append(name)
        return code

    def version(self, model: int, name: str, join: Join) -> int:
        """Code of a version of a model; a new one is made known to the join."""
        code = self.codes.get((model, name))
        if code is None:
            full = self._of_model[model] >= self.settings.limits.versions or len(self.versions) >= VERSIONS_MAX - len(self.model_names)
            if name != OTHER and full:
                self.hits["versions"] += 1
                return self.version(model, OTHER, join)
            self._of_model[model] += 1
            code = self.codes[model, name] = len(self.versions)
            self.versions.append(self._made(model, name, code))
            join.register(code, model, self.versions[code].settings.labels.max_delay_ms)
        return code

    def _made(self, model: int, name: str, code: int) -> Version:
        siblings = [self.versions[c] for (m, _), c in self.codes.items() if m == model and c < min(code, len(self.versions))]
        return Version(self.model_names[model], name, self.settings, self.baselines, siblings, self.sources)

    def retire(self, log_ms: int) -> list[Version]:
        """Let the versions retire that nobody used for so long; those that do so now."""
        out = []
        for (model, name), code in self.codes.items():
            version = self.versions[code]
            active = max(version.volume.last_prediction_ms, version.volume.last_label_ms)
            if active and log_ms - active > RETIRE_MS:
                out.append(version)
                self.versions[code] = self._made(model, name, code)
                self.versions[code].go_on_from(version)
                self._of_model[model] -= 1
                if not self._of_model[model]:
                    self._unconfigured -= self.model_names[model] not in self.settings.models and self.model_names[model] != OTHER
        return out

    def state(self) -> dict[str, Any]:
        """Plain values for the snapshot."""
        return {
            "models": list(self.models.items()),
            "model_names": self.model_names,
            "codes": [[m, n] for m, n in self.codes],
            "sources": self.sources,
            "hits": dict(self.hits),
            "of_model": list(self._of_model.items()),
            "versions": [version_state(v) for v in self.versions],
            "defined": self._definitions(),
        }

    def load(self, state: Mapping[str, Any], texts: list[str], *, changed: bool) -> list[str]:
        """Go on from the state of a snapshot; what began anew. `texts` is the dictionary of outcomes of the shard, `changed`: the configuration is another one."""
        self.models, self.model_names, self.hits = dict(state["models"]), list(state["model_names"]), Counter(state["hits"])
        self.sources += state["sources"]
        self._of_model = Counter(dict(state["of_model"]))
        before, now, anew = state["defined"], self._definitions(), []
        for (model, name), saved in zip(state["codes"], state["versions"], strict=True):
            code = self.codes[model, name] = len(self.versions)
            self.versions.append(self._made(model, name, code))
            of = self.model_names[model]
            changes = Changes(before.get(of, before[""]), now.get(of, now[""]))
            load(self.versions[code], saved, texts, changes, changed=changed)
            anew += [f"{of}/{name}: {what}" for what in changes.anew]
        has_versions = {m for m, _ in self.codes}
        living = [name for m, name in enumerate(self.model_names) if m not in has_versions or self._of_model[m]]
        self._unconfigured = sum(name not in self.settings.models and name != OTHER for name in living)
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
