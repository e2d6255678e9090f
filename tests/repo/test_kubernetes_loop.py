"""The manifests of the loop: valid, little privileged, and no more access to Kafka than is used."""

from __future__ import annotations

import re
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from stream_monitor.config import load
from stream_monitor.lifecycle_settings import Archive, Lifecycle
from tests.repo.test_deployment import parsed
from tests.repo.test_kubernetes import CRDS, K8S, KUBERNETES, ROOT, built, documents

ALLOWED = {
    "stream-monitor-controller": {
        ("topic", "lifecycle"): {"Read", "Write", "Describe"},
        ("topic", "alerts"): {"Read", "Describe"},
        ("topic", "history"): {"Read", "Describe"},
        ("topic", "baselines"): {"Write", "Describe"},
        ("group", "stream-monitor-controller"): {"Read", "Describe"},
    },
    "stream-monitor-archive": {
        ("topic", "observations"): {"Read", "Describe"},
        ("group", "stream-monitor-archive"): {"Read", "Describe"},
    },
    "stream-monitor-model-server": {
        ("topic", "lifecycle"): {"Read", "Describe"},
        ("topic", "predictions"): {"Write", "Describe"},
    },
    "stream-monitor-operator": {
        ("topic", "lifecycle"): {"Read", "Write", "Describe"},
        ("topic", "alerts"): {"Read", "Describe"},
        ("topic", "history"): {"Read", "Describe"},
        ("topic", "baselines"): {"Write", "Describe"},
    },
}


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    return {d["metadata"]["name"]: d for d in built("loop") if d["kind"] == kind}


def pods() -> dict[str, dict[str, Any]]:
    made = {**of_kind("StatefulSet"), **of_kind("Deployment")}
    return {name: d["spec"]["template"] for name, d in made.items()}


@pytest.mark.parametrize("version", KUBERNETES)
def test_they_are_valid(version):
    core = [d for d in built("loop") if d["kind"] not in CRDS]
    assert {d["kind"] for d in core} >= {"StatefulSet", "Deployment", "NetworkPolicy"}
    for document in core:
        kubernetes_validate.validate(document, version, strict=True)
    for document in built("loop"):
        if document["kind"] in CRDS:
            jsonschema.Draft202012Validator(CRDS[document["kind"]]).validate(document["spec"])


def test_each_user_may_do_what_it_does_and_no_more():
    users = {
        d["metadata"]["name"]: d["spec"] for d in documents(K8S / "overlays/loop/kafkausers.yaml")
    }
    found = {
        name: {
            (a["resource"]["type"], a["resource"]["name"]): set(a["operations"])
            for a in spec["authorization"]["acls"]
        }
        for name, spec in users.items()
    }
    assert found == ALLOWED
    writers = {
        name for name, acls in found.items() if "Write" in acls.get(("topic", "lifecycle"), {})
    }
    assert writers == {"stream-monitor-controller", "stream-monitor-operator"}


def test_the_page_names_the_same_access():
    rows = re.findall(
        r"^\| `(stream-monitor-[a-z-]+)` \| (.+?) \| (.+?) \|$",
        (ROOT / "docs/deployment.md").read_text(),
        re.MULTILINE,
    )
    told: dict[str, Any] = {}
    for user, what, operations in rows:
        for kind, name in re.findall(r"(topic|group) `(.+?)`", what):
            told.setdefault(user, {})[kind, name] = set(operations.split(", "))
    assert told == ALLOWED


def test_the_pods_can_do_little():
    assert set(pods()) == {"stream-monitor-controller", "stream-monitor-archive"}
    for name, template in pods().items():
        spec = template["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        for each in (*spec["containers"], *spec.get("initContainers", [])):
            context = each["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            for kind in ("requests", "limits"):
                assert set(each["resources"][kind]) == {"cpu", "memory", "ephemeral-storage"}
        (container,) = spec["containers"]
        writable = {m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")}
        own = "/data" if name.endswith("controller") else "/archive"
        assert writable == {own, "/tmp"}


def test_what_they_start_and_how_they_are_configured(tmp_path):
    (config,) = of_kind("ConfigMap").values()
    path = tmp_path / "monitor.yaml"
    path.write_text(config["data"]["monitor.yaml"])
    password = tmp_path / "password"
    password.write_text("hush")
    for name, template in pods().items():
        (container,) = template["spec"]["containers"]
        parsed(container["args"])
        environ = {v["name"]: v["value"] for v in container["env"]}
        mounts = {m["mountPath"] for m in container["volumeMounts"]}
        secret = next(k for k in environ if k.endswith("PASSWORD_FILE"))
        assert environ[secret].rpartition("/")[0] in mounts
        ours = {k: v for k, v in environ.items() if k.startswith("STREAM_MONITOR_")}
        settings = load(str(path), {**ours, secret: str(password)})
        assert settings.kafka.security.username == name
        assert settings.archive.path in mounts
        assert settings.worker.metrics.host == "0.0.0.0"
        if name.endswith("controller"):
            assert settings.lifecycle.work.startswith("/data/")
            (loop,) = settings.lifecycle.models.values()
            assert loop.repository.startswith("/data/")


def test_ports_and_selectors_fit():
    ports = {
        "stream-monitor-controller": Lifecycle().port,
        "stream-monitor-archive": Archive().port,
    }
    policies, monitors = of_kind("NetworkPolicy"), of_kind("PodMonitor")
    assert set(pods()) == set(policies) == set(monitors) == set(ports)
    for name, template in pods().items():
        (container,) = template["spec"]["containers"]
        assert container["ports"] == [{"name": "metrics", "containerPort": ports[name]}]
        probed = [container[f"{probe}Probe"]["httpGet"] for probe in ("startup", "liveness")]
        assert probed == [{"path": "/live", "port": "metrics"}] * 2
        assert container["readinessProbe"]["httpGet"] == {"path": "/ready", "port": "metrics"}
        (ingress,) = policies[name]["spec"]["ingress"]
        assert ingress["ports"] == [{"protocol": "TCP", "port": ports[name]}]
        labels = template["metadata"]["labels"].items()
        assert policies[name]["spec"]["podSelector"]["matchLabels"].items() <= labels
        assert monitors[name]["spec"]["selector"]["matchLabels"].items() <= labels
        (endpoint,) = monitors[name]["spec"]["podMetricsEndpoints"]
        assert (endpoint["port"], endpoint["path"]) == ("metrics", "/metrics")


def test_secrets_are_those_that_strimzi_makes_for_the_users():
    for name, template in pods().items():
        named = {v["secret"]["secretName"] for v in template["spec"]["volumes"] if "secret" in v}
        assert {name, "kafka-cluster-ca-cert"} <= named
    assert yaml.safe_load((K8S / "overlays/loop/monitor.yaml").read_text())["kafka"]
