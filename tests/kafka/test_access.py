"""
The user of k8s/components/strimzi on a broker that demands SCRAM and denies whatever is not
allowed: a worker needs no more.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from confluent_kafka import Producer
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from tests.kafka.test_worker import Process, events, wait

pytestmark = pytest.mark.kafka
K8S = Path(__file__).parents[2] / "k8s"
USER, PASSWORD = "stream-monitor", "not-for-logs"
ROWS = 2_000
GUARDED = {
    "listener.name.clients.sasl.enabled.mechanisms": "SCRAM-SHA-512",
    "listener.name.clients.scram-sha-512.sasl.jaas.config": "org.apache.kafka.common.security.scram.ScramLoginModule required;",  # noqa: E501
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:ANONYMOUS",
}
KINDS = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactionalId": ResourceType.TRANSACTIONAL_ID,
}
PATTERNS = {"literal": ResourcePatternType.LITERAL, "prefix": ResourcePatternType.PREFIXED}


def documents(path: str) -> list[Any]:
    return list(yaml.safe_load_all((K8S / path).read_text()))


class Guarded:
    """
    A broker with what k8s/components/strimzi asks for: topics, user, access.

    Its plain listener is for the administrator.
    """

    def __init__(self, module: Any) -> None:
        self.server = module.KafkaServer({"CLIENTS": "SASL_PLAINTEXT"}, GUARDED).start()
        self.admin = AdminClient({"bootstrap.servers": self.server.bootstrap})
        self._done(
            self.admin.create_topics(
                [
                    NewTopic(t["metadata"]["name"], t["spec"]["partitions"], 1)
                    for t in documents("components/strimzi/kafkatopics.yaml")
                ]
            )
        )
        (user,) = documents("components/strimzi/kafkauser.yaml")
        self.admit(user)

    def admit(self, user: dict[str, Any]) -> None:
        """Make a user of a manifest, with its access."""
        name = user["metadata"]["name"]
        scram = UserScramCredentialUpsertion(
            name, ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4_096), PASSWORD.encode()
        )
        self._done(self.admin.alter_user_scram_credentials([scram]))
        self._done(self.admin.create_acls([binding for acl in self.acls(user) for binding in acl]))

    def acls(self, user: dict[str, Any]) -> Iterator[list[AclBinding]]:
        for acl in user["spec"]["authorization"]["acls"]:
            resource = acl["resource"]
            where = (
                KINDS[resource["type"]],
                resource["name"],
                PATTERNS[resource["patternType"]],
                f"User:{user['metadata']['name']}",
                "*",
            )
            yield [
                AclBinding(*where, AclOperation[operation.upper()], AclPermissionType.ALLOW)
                for operation in acl["operations"]
            ]

    def forbid_transactions(self) -> None:
        everything: tuple[Any, ...] = (
            None,
            ResourcePatternType.ANY,
            None,
            None,
            AclOperation.ANY,
            AclPermissionType.ANY,
        )
        self._done(
            self.admin.delete_acls([AclBindingFilter(ResourceType.TRANSACTIONAL_ID, *everything)])
        )

    def _done(self, futures: dict[Any, Any]) -> None:
        for future in futures.values():
            future.result(30)


@pytest.fixture
def guarded(kafka: Any) -> Iterator[Guarded]:
    if os.environ.get("KAFKA_BOOTSTRAP"):
        pytest.skip("needs a broker of its own")
    made = Guarded(sys.modules["kafka_server"])
    yield made
    made.server.close()


def start(broker: Guarded, folder: Path, log: str) -> subprocess.Popen[str]:
    """A worker with the configuration of the production overlay, without TLS."""
    (config,) = documents("overlays/production/monitor.yaml")
    del config["kafka"]["security"]["ca_file"]
    config["kafka"] |= {
        "bootstrap_servers": broker.server.addresses["CLIENTS"],
        "security": config["kafka"]["security"] | {"protocol": "SASL_PLAINTEXT"},
    }
    config["worker"]["metrics"] = {"port": 0}
    (folder / "monitor.yaml").write_text(json.dumps(config))
    (folder / "password").write_text(PASSWORD + "\n")
    environ = os.environ | {
        "STREAM_MONITOR_KAFKA__SECURITY__PASSWORD_FILE": str(folder / "password")
    }
    with (folder / log).open("w") as err:
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "stream_monitor",
                "worker",
                "--config",
                str(folder / "monitor.yaml"),
            ],
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
            env=environ,
        )


def listening(process: subprocess.Popen[str]) -> Process:
    assert process.stdout is not None
    return Process(process, process.stdout.readline().split()[-1])


def ready(worker: Process) -> bool:
    with urllib.request.urlopen(worker.url + "/ready", timeout=10) as response:
        return response.status == 200


def counted(worker: Process) -> float:
    return sum(
        value
        for name, value in worker.metrics().items()
        if name.startswith("model_predictions_total")
    )


def test_the_access_of_the_manifest_is_enough_and_is_demanded(
    guarded: Guarded, tmp_path: Path
) -> None:
    producer = Producer({"bootstrap.servers": guarded.server.bootstrap})
    for prediction, label in events(ROWS, seed=5):
        producer.produce("predictions", json.dumps(prediction).encode())
        producer.produce("labels", json.dumps(label).encode())
        producer.poll(0)
    producer.produce("predictions", b"not JSON")
    assert producer.flush(30) == 0

    workers = [start(guarded, tmp_path, "first.log")]
    try:
        worker = listening(workers[0])
        wait("every event counted", lambda: counted(worker) == ROWS)
        wait(
            "the dead letter",
            lambda: any(
                name.startswith("stream_monitor_dead_letters_total") and value == 1
                for name, value in worker.metrics().items()
            ),
        )
        worker.process.send_signal(signal.SIGKILL)
        worker.process.wait(10)

        # restores: reads snapshots, observations and its committed position
        workers.append(start(guarded, tmp_path, "second.log"))
        worker = listening(workers[1])
        wait("ready again", lambda: ready(worker) and counted(worker) == ROWS)
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(20) == 0

        guarded.forbid_transactions()
        workers.append(start(guarded, tmp_path, "third.log"))
        assert workers[2].wait(60) == 1
        assert "transaction" in (tmp_path / "third.log").read_text().lower()
    finally:
        for process in workers:
            if process.poll() is None:
                process.kill()
                process.wait(10)
            if process.stdout is not None:
                process.stdout.close()
    for log in tmp_path.glob("*.log"):
        assert PASSWORD not in log.read_text()
        assert "AuthorizationFailed" not in log.read_text() or log.name == "third.log"


def test_a_controller_needs_no_more_than_its_user(guarded: Guarded, tmp_path: Path) -> None:
    """It becomes active, claims and reads back; the other topics are hidden from it."""
    (user,) = [
        each
        for each in documents("overlays/loop/kafkausers.yaml")
        if each["metadata"]["name"] == "stream-monitor-controller"
    ]
    guarded.admit(user)
    subprocess.run(["git", "init", "-q", "-b", "main", str(tmp_path)], check=True)
    step = {"name": "train", "command": ["true"]}
    config = {
        "kafka": {
            "bootstrap_servers": guarded.server.addresses["CLIENTS"],
            "create_topics": False,
            "security": {
                "protocol": "SASL_PLAINTEXT",
                "sasl_mechanism": "SCRAM-SHA-512",
                "username": user["metadata"]["name"],
            },
        },
        "lifecycle": {"port": 0, "models": {"churn": {"repository": ".", "steps": [step]}}},
    }
    (tmp_path / "monitor.yaml").write_text(json.dumps(config))
    (tmp_path / "password").write_text(PASSWORD + "\n")
    secret = {"STREAM_MONITOR_KAFKA__SECURITY__PASSWORD_FILE": str(tmp_path / "password")}
    words = ["-m", "stream_monitor", "controller", "--config", str(tmp_path / "monitor.yaml")]
    with (tmp_path / "log").open("w") as err:
        process = subprocess.Popen(
            [sys.executable, *words],
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
            env=os.environ | secret,
        )
    try:
        controller = listening(process)
        wait("active", lambda: controller.metrics().get("stream_monitor_controller_active") == 1)
        assert ready(controller)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)
        assert process.stdout is not None
        process.stdout.close()
    said = (tmp_path / "log").read_text()
    assert PASSWORD not in said
    assert "AuthorizationFailed" not in said
