"""docs/metrics.md is what the catalogue says."""

from __future__ import annotations

from pathlib import Path

from stream_monitor.metrics.catalogue import CATALOGUE
from stream_monitor.metrics.page import LABELS, page


def test_the_page_is_up_to_date():
    assert (Path(__file__).parents[2] / "docs" / "metrics.md").read_text() == page(), (
        "run: python -m stream_monitor.metrics.page > docs/metrics.md"
    )


def test_every_label_is_explained_and_none_besides():
    assert set(LABELS) == {label for metric in CATALOGUE.values() for label in metric.labels}
