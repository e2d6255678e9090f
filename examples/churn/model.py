"""
The model: a logistic regression whose weights are JSON.

A file of JSON is data. A pickle is a program, and whoever may write it may run it on the server.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple


class Model(NamedTuple):
    """A trained model."""

    features: Sequence[str]
    weights: Sequence[float]
    intercept: float

    @classmethod
    def load(cls, path: str | Path) -> Model:
        """The model of a file."""
        found = json.loads(Path(path).read_text())
        return cls(found["features"], found["weights"], found["intercept"])

    def save(self, path: str | Path) -> None:
        """Write the model."""
        Path(path).write_text(json.dumps(self._asdict(), indent=1) + "\n")

    def score(self, features: Mapping[str, float | None]) -> float:
        """Probability that a customer leaves; what is missing counts as average."""
        risk = self.intercept + sum(
            w * (features.get(name) or 0.0)
            for name, w in zip(self.features, self.weights, strict=True)
        )
        return 1 / (1 + math.exp(-max(min(risk, 50.0), -50.0)))
