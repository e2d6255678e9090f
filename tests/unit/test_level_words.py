"""What is said of an accuracy before its level is known."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from stream_monitor.monitors.performance_verdicts import level_verdict
from stream_monitor.settings import ModelSettings
from stream_monitor.verdicts import AlertKey, Span


@pytest.mark.parametrize(
    ("accuracy", "level", "said"),
    [
        (0.55, "info", "below the limit of 80% (the level of this model is not known yet"),
        (0.76, "ok", "not certainly below any limit; the level of this model is not known yet"),
    ],
)
def test_no_limit_is_named_where_there_is_none(accuracy: float, level: str, said: str) -> None:
    found = ({"accuracy": accuracy}, Span(1, 2, 200))
    windows: Any = SimpleNamespace(window=lambda *_: found, chance=lambda _: None)
    of: Any = SimpleNamespace(loss=None)
    key = AlertKey("m", "1", "", "performance", "", "threshold")
    (verdict,) = level_verdict(ModelSettings(), windows, key, of)
    assert (verdict.level, said in verdict.summary) == (level, True), verdict.summary
