"""
Panels of the metrics that are estimated without labels.

Rule of the file: what is estimated is beside what is measured, in panels of its own.
"""

from __future__ import annotations

from stream_monitor.metrics.panels import Panel, gauges


def estimates() -> tuple[Panel, ...]:
    """The estimates, whether they are valid, and how far labels differ from them."""
    shares = [f"model_estimated_{name}" for name in ("precision", "recall", "f1")]
    accuracy = "model_estimated_accuracy"
    return (
        gauges("Accuracy, estimated without labels", accuracy, unit="percentunit", maximum=1.0),
        gauges("Precision, recall and F1, estimated", *shares, unit="percentunit", maximum=1.0),
        gauges("Estimate valid", "model_estimate_valid", unit="none", maximum=1.0),
        gauges(
            "Accuracy less the estimate", "model_estimate_difference", unit="none", minimum=None
        ),
    )
