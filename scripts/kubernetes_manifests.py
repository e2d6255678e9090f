"""
Manifests that follow from what stream-monitor knows of itself: its rules, its topics and the access
it needs.

Rule of the file: nothing is decided here; `tests/repo/test_kubernetes.py` holds the files in k8s/
equal to these.

Example: python scripts/kubernetes_manifests.py        # writes them
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stream_monitor.checks.roles import ROLES, Role
from stream_monitor.checks.topics import ACCESS
from stream_monitor.kafka.operations import READ, WRITE
from stream_monitor.metrics.rules import rules
from stream_monitor.schema import topics

K8S = Path(__file__).resolve().parent.parent / "k8s"
COMPONENTS = K8S / "components"
CLUSTER = "kafka"
USER = GROUP = "stream-monitor"
REPLICAS, IN_SYNC_MIN = 3, 2
HEAD = "# Generated: python scripts/kubernetes_manifests.py\n"


def manifests() -> dict[Path, str]:
    """Text of every generated file by its path."""
    return {
        COMPONENTS / "prometheus-operator" / "prometheusrule.yaml": _text(prometheus_rule()),
        COMPONENTS / "strimzi" / "kafkatopics.yaml": _text(*kafka_topics()),
        COMPONENTS / "strimzi" / "kafkauser.yaml": _text(kafka_user()),
        K8S / "overlays" / "loop" / "kafkausers.yaml": _text(
            *(role_user(name, role) for name, role in ROLES.items())
        ),
    }


def prometheus_rule() -> dict[str, Any]:
    """The rules of dashboards/, for the Prometheus Operator."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "stream-monitor"},
        "spec": rules(),
    }


def kafka_topics() -> list[dict[str, Any]]:
    """The topics of topics/, replicated."""
    return [
        _strimzi(
            "KafkaTopic",
            topic.name,
            {
                "partitions": topic.partitions,
                "replicas": REPLICAS,
                "config": topic.config | {"min.insync.replicas": str(IN_SYNC_MIN)},
            },
        )
        for topic in topics().values()
    ]


def kafka_user() -> dict[str, Any]:
    """The user of the workers, who may do what a worker does and nothing else."""
    acls = [
        *_topics(ACCESS),
        _acl("group", GROUP, ["Read"]),
        _acl("transactionalId", f"{GROUP}.", ["Write"], pattern="prefix"),
    ]
    return _user(USER, acls)


def role_user(name: str, role: Role) -> dict[str, Any]:
    """The user of a program or of people beside the workers."""
    groups = [_acl("group", group.replace("G", GROUP, 1), ["Read"]) for group in role.groups]
    return _user(f"{USER}-{name}", [*_topics(role.topics), *groups])


def _topics(access: Mapping[str, frozenset[int]]) -> list[dict[str, Any]]:
    words = {READ: "Read", WRITE: "Write"}
    return [
        _acl("topic", name, [words[o] for o in words if o in operations])
        for name, operations in access.items()
    ]


def _user(name: str, acls: list[dict[str, Any]]) -> dict[str, Any]:
    return _strimzi(
        "KafkaUser",
        name,
        {
            "authentication": {"type": "scram-sha-512"},
            "authorization": {"type": "simple", "acls": acls},
        },
    )


def _acl(kind: str, name: str, operations: list[str], pattern: str = "literal") -> dict[str, Any]:
    return {
        "resource": {"type": kind, "name": name, "patternType": pattern},
        "operations": [*operations, "Describe"],
    }


def _strimzi(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "kafka.strimzi.io/v1",
        "kind": kind,
        "metadata": {"name": name, "labels": {"strimzi.io/cluster": CLUSTER}},
        "spec": spec,
    }


def _text(*documents: dict[str, Any]) -> str:
    yaml = YAML()
    yaml.width = 4_096
    yaml.indent(mapping=2, sequence=4, offset=2)
    out = io.StringIO()
    yaml.dump_all(documents, out)
    return HEAD + out.getvalue()


def main() -> None:
    for path, text in manifests().items():
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
