"""
What each program and each person of the loop does on Kafka, beside the worker (`topics.ACCESS`).

Rule of the file: this is the only list. The manifests, the pages and the tests read it. Nobody gets
more than is done: a model server that could write to `lifecycle` could give itself traffic.
"""

from __future__ import annotations

from typing import NamedTuple

from stream_monitor.kafka.operations import READ, WRITE


class Role(NamedTuple):
    """Operations by topic, and the consumer groups that it reads with; `G` is `worker.group`."""

    topics: dict[str, frozenset[int]]
    groups: tuple[str, ...] = ()


ROLES: dict[str, Role] = {
    "controller": Role(
        {
            "lifecycle": frozenset({READ, WRITE}),
            "alerts": frozenset({READ}),
            "history": frozenset({READ}),
            "baselines": frozenset({WRITE}),
        },
        ("G-controller",),
    ),
    "archive": Role({"observations": frozenset({READ})}, ("G-archive",)),
    "model-server": Role({"lifecycle": frozenset({READ}), "predictions": frozenset({WRITE})}),
    "operator": Role(
        {
            "lifecycle": frozenset({READ, WRITE}),
            "alerts": frozenset({READ}),
            "history": frozenset({READ}),
            "baselines": frozenset({WRITE}),
        }
    ),
}
"""By name; `operator` is a person with `retrain`, `deploy` and `models`."""
