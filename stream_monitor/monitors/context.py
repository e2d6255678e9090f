"""
What is judged: a model version, by which settings, against which baseline.

Rule of the file: values alone. Functions that make verdicts take a context in place of the version
that owns it, so that nothing which they use is hidden.
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
    """Empty as long as there is no baseline."""

    def key(self, kind: Kind, subject: str, detector: str, segment: str = "") -> AlertKey:
        """
        What an alert of this model version is about.

        >>> Context("fraud", "3", ModelSettings()).key("freshness", "labels", "silence").title
        'fraud 3'
        """
        return AlertKey(self.model, self.version, segment, kind, subject, detector)
