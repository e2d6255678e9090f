"""
Which models and versions there are, within bounds.

Rule of the file: who came first has a place; whatever comes beyond a limit goes to `__other__` and is counted. A configured model always has its place.
Codes are given in the order of the log and never change.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from stream_monitor.events.join import VERSIONS_MAX, Join
from stream_monitor.monitors.version import Version
from stream_monitor.settings import CoreSettings

OTHER = "__other__"


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
            siblings = [self.versions[c] for (m, _), c in self.codes.items() if m == model and c < code]
            self.versions.append(Version(self.model_names[model], name, self.settings, self.baselines, siblings, self.sources))
            join.register(code, model, self.versions[code].settings.labels.max_delay_ms)
        return code

    def source(self, name: str) -> int:
        """Number of a source partition."""
        if name not in self.sources:
            self.sources.append(name)
        return self.sources.index(name)
