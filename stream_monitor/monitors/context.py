"""
What is judged: a model version, with its settings and its baseline.

Rule of the file: values only. Functions that make verdicts get a context instead of the version, so
everything that they use is visible.
"""

from __future__ import annotations

from typing import NamedTuple

from stream_monitor.settings import ModelSettings
from stream_monitor.verdicts import AlertKey, Kind


class Context(NamedTuple):
    """A model version as those see it who judge a part of it."""

    model: str
    version: str
    settings: ModelSettings
    baseline_id: str = ""
    """Id of the baseline; empty if there is none yet."""

    def key(self, kind: Kind, subject: str, detector: str, segment: str = "") -> AlertKey:
        """
        Key of an alert of this model version.

        >>> Context("fraud", "3", ModelSettings()).key("freshness", "labels", "silence").title
        'fraud 3'
        """
        return AlertKey(self.model, self.version, segment, kind, subject, detector)
