"""
The topics as Strimzi's KafkaTopic resources.

Rule of the file: everything comes from `topics/*.yaml`; no broker is asked.
"""

from __future__ import annotations

import re
from typing import Any

from stream_monitor.schema import topics

API_VERSION = "kafka.strimzi.io/v1"


def kafka_topics(prefix: str, *, cluster: str, replicas: int) -> list[dict[str, Any]]:
    """
    One resource per topic.

    Parameters
    ----------
    prefix : str
        `kafka.topic_prefix`.
    cluster : str
        Name of the Kafka resource, for the label that the topic operator needs.
    replicas : int

    Examples
    --------
    >>> resource = kafka_topics("Prod_", cluster="events", replicas=3)[0]
    >>> resource["metadata"]["name"], resource["spec"]["topicName"], resource["spec"]["replicas"]
    ('prod-alerts', 'Prod_alerts', 3)
    """
    found = []
    for spec in topics().values():
        topic = prefix + spec.name
        name = resource_name(topic)
        found.append(
            {
                "apiVersion": API_VERSION,
                "kind": "KafkaTopic",
                "metadata": {"name": name, "labels": {"strimzi.io/cluster": cluster}},
                "spec": {
                    **({} if name == topic else {"topicName": topic}),
                    "partitions": spec.partitions,
                    "replicas": replicas,
                    "config": spec.settings(replicas),
                },
            }
        )
    return found


def resource_name(topic: str) -> str:
    """
    A valid name in Kubernetes: lower case, digits, `-` and `.`, beginning and ending with a letter
    or digit.

    >>> resource_name("Team_A.labels")
    'team-a.labels'
    """
    return re.sub(r"[^a-z0-9.-]", "-", topic.lower()).strip("-.")
