"""
The manifests in k8s/, without a cluster: they parse, fit together, are valid for the kinds they are
of, and true of the program.

What kustomize makes of them is tested where kubectl is there; the schemas of core kinds come from
kubernetes-validate, those of custom resources from `crds.yaml` beside this file, and where Go is
there from the projects' own CRDs.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import aiohttp
import jsonschema
import kubernetes_validate
import pytest
import yaml

from stream_monitor import __version__
from stream_monitor.config import load
from stream_monitor.frozen import Secret
from stream_monitor.runtime.http import HttpServer
from stream_monitor.settings import HttpSettings, WorkerSettings
from tests.repo.test_deployment import parsed

ROOT = Path(__file__).parents[2]
K8S = ROOT / "k8s"
FILES = sorted(K8S.rglob("*.yaml"))
KUSTOMIZATIONS = [path for path in FILES if path.name == "kustomization.yaml"]
OVERLAYS = ["dev", "production"]
CRDS = yaml.safe_load((Path(__file__).parent / "crds.yaml").read_text())
KUBERNETES = ["1.30", kubernetes_validate.latest_version()]
MODULES = {
    "github.com/kedacore/keda/v2@v2.21.0": [
        "config/crd/bases/keda.sh_scaledobjects.yaml",
        "config/crd/bases/keda.sh_triggerauthentications.yaml",
    ],
    "github.com/prometheus-operator/prometheus-operator@v0.85.0": [
        f"example/prometheus-operator-crd/monitoring.coreos.com_{name}.yaml"
        for name in ("podmonitors", "prometheusrules")
    ],
}
INSTANCE_ID = "STREAM_MONITOR_WORKER__INSTANCE_ID"


def generator():
    spec = importlib.util.spec_from_file_location(
        "kubernetes_manifests", ROOT / "scripts" / "kubernetes_manifests.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def documents(path: Path) -> list[dict]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document is not None]


@cache
def built(overlay: str) -> list[dict]:
    """What kustomize makes of an overlay."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not on PATH")
    done = subprocess.run(
        ["kubectl", "kustomize", str(K8S / "overlays" / overlay)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def one(overlay: str, kind: str) -> dict:
    (found,) = [
        document
        for document in built(overlay)
        if document["kind"] == kind and not document["metadata"]["name"].endswith("-kafka")
    ]
    return found


def pod(overlay: str) -> dict:
    return one(overlay, "StatefulSet")["spec"]["template"]["spec"]


def container(overlay: str) -> dict:
    (found,) = pod(overlay)["containers"]
    return found


# ---- structure


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(K8S)) for path in FILES])
def test_every_file_is_yaml(path):
    assert documents(path)


def test_kustomizations_name_what_is_there_and_nothing_is_forgotten():
    named = set()
    for path in KUSTOMIZATIONS:
        (content,) = documents(path)
        assert content["kind"] == ("Component" if "components" in path.parts else "Kustomization")
        patches = [patch["path"] for patch in content.get("patches", [])]
        generated = [
            name for made in content.get("configMapGenerator", []) for name in made["files"]
        ]
        for name in [
            *content.get("resources", []),
            *content.get("components", []),
            *patches,
            *generated,
        ]:
            target = (path.parent / name).resolve()
            assert target.exists(), f"{path}: {name}"
            named.add(target / "kustomization.yaml" if target.is_dir() else target)
    assert named | {
        K8S / "overlays" / overlay / "kustomization.yaml" for overlay in (*OVERLAYS, "loop")
    } == set(FILES)


def test_generated_files_are_those_of_the_generator():
    for path, text in generator().manifests().items():
        assert path.read_text() == text, "run: python scripts/kubernetes_manifests.py"


def test_the_rules_are_those_of_prometheus():
    (rule,) = documents(K8S / "components/prometheus-operator/prometheusrule.yaml")
    assert rule["spec"] == yaml.safe_load(
        (ROOT / "dashboards/stream-monitor.rules.yml").read_text()
    )


def test_the_topics_are_those_that_are_described():
    described = {
        content["name"]: content
        for path in (ROOT / "topics").glob("*.yaml")
        for content in documents(path)
    }
    made = {
        topic["metadata"]["name"]: topic["spec"]
        for topic in documents(K8S / "components/strimzi/kafkatopics.yaml")
    }
    assert made.keys() == described.keys()
    for name, spec in made.items():
        assert spec["partitions"] == described[name]["partitions"]
        assert spec["config"] == described[name]["config"] | {"min.insync.replicas": "2"}
        assert spec["replicas"] == 3


def test_the_user_may_do_no_more_than_a_worker_does():
    (user,) = documents(K8S / "components/strimzi/kafkauser.yaml")
    acls = user["spec"]["authorization"]["acls"]
    allowed = {
        (acl["resource"]["type"], acl["resource"]["name"]): set(acl["operations"]) for acl in acls
    }
    assert len(allowed) == len(acls)
    assert {kind for kind, _ in allowed} == {"topic", "group", "transactionalId"}
    assert (
        allowed["topic", "predictions"]
        == allowed["topic", "labels"]
        == allowed["group", "stream-monitor"]
        == {"Read", "Describe"}
    )
    assert (
        allowed["topic", "observations"]
        == allowed["topic", "snapshots"]
        == {"Read", "Write", "Describe"}
    )
    assert (
        allowed["topic", "dead-letters"]
        == allowed["transactionalId", "stream-monitor."]
        == {"Write", "Describe"}
    )
    assert set().union(*allowed.values()) == {"Read", "Write", "Describe"}
    assert [
        acl["resource"]["name"] for acl in acls if acl["resource"]["patternType"] == "prefix"
    ] == ["stream-monitor."]


def test_the_documentation_names_the_access_of_the_manifest():
    (user,) = documents(K8S / "components/strimzi/kafkauser.yaml")
    rows = re.findall(
        r"^\| (topic|group|transactionalId) \| (?:prefix )?(.+?) \| (.+?) \|$",
        (ROOT / "docs/deployment.md").read_text(),
        re.MULTILINE,
    )
    told = {
        (kind, name): operations.split(", ")
        for kind, names, operations in rows
        for name in re.findall(r"`(.+?)`", names)
    }
    assert told == {
        (acl["resource"]["type"], acl["resource"]["name"]): acl["operations"]
        for acl in user["spec"]["authorization"]["acls"]
    }


# ---- schemas


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_core_kinds_are_valid(overlay, version):
    core = [document for document in built(overlay) if document["kind"] not in CRDS]
    assert {document["kind"] for document in core} >= {
        "ServiceAccount",
        "Service",
        "ConfigMap",
        "StatefulSet",
        "PodDisruptionBudget",
        "NetworkPolicy",
    }
    for document in core:
        kubernetes_validate.validate(document, version, strict=True)


def test_custom_resources_are_valid():
    custom = [
        document
        for path in FILES
        if "components" in path.parts
        for document in documents(path)
        if document["kind"] in CRDS
    ]
    assert {document["kind"] for document in custom} == set(CRDS)
    for document in custom:
        assert set(document) == {"apiVersion", "kind", "metadata", "spec"}
        jsonschema.Draft202012Validator(CRDS[document["kind"]]).validate(document["spec"])


def test_a_misspelt_key_would_be_found():
    (monitor,) = documents(K8S / "components/prometheus-operator/podmonitor.yaml")
    monitor["spec"]["podMetricsEndpoint"] = monitor["spec"].pop("podMetricsEndpoints")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(monitor["spec"], CRDS["PodMonitor"])


def closed(schema):
    """A CRD's schema as JSON Schema that refuses unknown keys, as the API server prunes them."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {
        key: {name: closed(value) for name, value in of.items()}
        if key == "properties"
        else closed(of)
        for key, of in schema.items()
    }
    if isinstance(made.get("properties"), dict) and not made.get(
        "x-kubernetes-preserve-unknown-fields"
    ):
        made.setdefault("additionalProperties", False)
    if made.get("x-kubernetes-int-or-string") is True:
        made["type"] = ["integer", "string"]
    return made


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_custom_resources_are_valid_for_the_crds_of_their_projects(module):
    if shutil.which("go") is None:
        pytest.skip("go is not on PATH")
    done = subprocess.run(
        ["go", "mod", "download", "-json", module],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        cwd=tempfile.gettempdir(),
    )
    if done.returncode:
        pytest.skip(f"go could not fetch {module}: {(done.stdout + done.stderr)[-500:]}")
    checked = 0
    for name in MODULES[module]:
        (crd,) = documents(Path(json.loads(done.stdout)["Dir"]) / name)
        for version in crd["spec"]["versions"]:
            api, kind = f"{crd['spec']['group']}/{version['name']}", crd["spec"]["names"]["kind"]
            schema = closed(version["schema"]["openAPIV3Schema"]["properties"]["spec"])
            for document in built("production"):
                if (document["apiVersion"], document["kind"]) == (api, kind):
                    jsonschema.Draft202012Validator(schema).validate(document["spec"])
                    checked += 1
    assert checked == 2


# ---- what is run


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_container_starts_a_command_that_exists(overlay):
    parsed(container(overlay)["args"])
    assert container(overlay)["image"].split(":")[1] == __version__


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_configuration_is_one_that_the_worker_takes(overlay, tmp_path):
    path = tmp_path / "monitor.yaml"
    path.write_text(one(overlay, "ConfigMap")["data"]["monitor.yaml"])
    environ = {
        variable["name"]: variable["value"]
        for variable in container(overlay)["env"]
        if "value" in variable
    }
    for name in [name for name in environ if name.endswith("_FILE")]:
        assert mounted(overlay, environ[name])
        (tmp_path / "secret").write_text("hush\n")
        environ[name] = str(tmp_path / "secret")
    settings = load(str(path), environ)
    assert settings.worker.group == "stream-monitor"
    security = settings.kafka.security
    if overlay == "production":
        assert (security.protocol, security.sasl_mechanism, security.password) == (
            "SASL_SSL",
            "SCRAM-SHA-512",
            Secret("hush"),
        )
        assert security.ca_file is not None
        assert mounted(overlay, security.ca_file)
        assert not settings.kafka.create_topics
        assert security.username == one(overlay, "KafkaUser")["metadata"]["name"]
    assert (
        settings.worker.shutdown_timeout_ms < pod(overlay)["terminationGracePeriodSeconds"] * 1_000
    )


def mounted(overlay: str, path: str) -> bool:
    """Whether a secret is mounted as this file."""
    volumes = {volume["name"]: volume for volume in pod(overlay)["volumes"]}
    return any(
        path == f"{mount['mountPath']}/{item['path']}"
        for mount in container(overlay)["volumeMounts"]
        for item in volumes[mount["name"]].get("secret", {}).get("items", [])
    )


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_worker_is_known_by_the_name_of_its_pod(overlay):
    variables = {variable["name"]: variable for variable in container(overlay)["env"]}
    assert variables[INSTANCE_ID]["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}


def test_the_name_of_the_worker_is_configuration_that_exists():
    assert load(None, {INSTANCE_ID: "stream-monitor-0"}).worker.instance_id == "stream-monitor-0"


@pytest.mark.parametrize("overlay", OVERLAYS)
async def test_probes_ask_what_the_worker_answers(overlay):
    async def answers(paths: set[str]) -> dict[str, int]:
        async def metrics(_accept: str) -> tuple[bytes, str]:
            return b"", "text/plain"

        server = HttpServer(
            HttpSettings(port=0), metrics, lambda: (False, "no partition is open yet")
        )
        port = await server.start()
        try:
            async with aiohttp.ClientSession() as session:
                found = {}
                for path in paths:
                    async with session.get(f"http://127.0.0.1:{port}{path}") as response:
                        found[path] = response.status
                return found
        finally:
            await server.stop()

    worker = container(overlay)
    probes = {
        name: worker[name]["httpGet"]
        for name in ("startupProbe", "livenessProbe", "readinessProbe")
    }
    assert {probe["port"] for probe in probes.values()} == {"metrics"}
    assert worker["ports"] == [{"name": "metrics", "containerPort": HttpSettings().port}]
    paths = {name: probe["path"] for name, probe in probes.items()}
    status = await answers(set(paths.values()))
    assert {name: status[path] for name, path in paths.items()} == {
        "startupProbe": 200,
        "livenessProbe": 200,
        "readinessProbe": 503,
    }


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_pod_can_do_little(overlay):
    template, worker = pod(overlay), container(overlay)
    assert template["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 10001,
        "fsGroup": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert template["automountServiceAccountToken"] is False
    context = worker["securityContext"]
    assert (
        context["allowPrivilegeEscalation"],
        context["privileged"],
        context["readOnlyRootFilesystem"],
        context["capabilities"],
    ) == (False, False, True, {"drop": ["ALL"]})
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(template)
    writable = {mount["mountPath"] for mount in worker["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"/tmp"}
    for kind in ("requests", "limits"):
        assert set(worker["resources"][kind]) == {"cpu", "memory", "ephemeral-storage"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_selectors_find_the_pods(overlay):
    labels = one(overlay, "StatefulSet")["spec"]["template"]["metadata"]["labels"].items()
    selectors = [
        one(overlay, "StatefulSet")["spec"]["selector"]["matchLabels"],
        one(overlay, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        one(overlay, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        one(overlay, "Service")["spec"]["selector"],
        pod(overlay)["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
    ]
    if overlay == "production":
        monitor = one(overlay, "PodMonitor")["spec"]
        selectors.append(monitor["selector"]["matchLabels"])
        assert [
            (endpoint["port"], endpoint["path"]) for endpoint in monitor["podMetricsEndpoints"]
        ] == [("metrics", "/metrics")]
    assert all(selector and selector.items() <= labels for selector in selectors)
    assert (
        one(overlay, "StatefulSet")["spec"]["serviceName"]
        == one(overlay, "Service")["metadata"]["name"]
    )
    assert one(overlay, "NetworkPolicy")["spec"]["ingress"][0]["ports"] == [
        {"protocol": "TCP", "port": HttpSettings().port}
    ]


def test_production_scales_between_its_replicas_and_the_partitions():
    scaled = one("production", "ScaledObject")["spec"]
    topics = {
        topic["metadata"]["name"]: topic["spec"]
        for topic in built("production")
        if topic["kind"] == "KafkaTopic"
    }
    config = yaml.safe_load(one("production", "ConfigMap")["data"]["monitor.yaml"])
    assert (
        scaled["minReplicaCount"]
        == one("production", "StatefulSet")["spec"]["replicas"]
        == scaled["fallback"]["replicas"]
        == 3
    )
    assert scaled["maxReplicaCount"] == topics["observations"]["partitions"]
    assert [trigger["metadata"]["topic"] for trigger in scaled["triggers"]] == [
        "predictions",
        "labels",
        "observations",
    ]
    for trigger in scaled["triggers"]:
        about = trigger["metadata"]
        assert about["topic"] in topics
        assert (about["bootstrapServers"], about["consumerGroup"]) == (
            config["kafka"]["bootstrap_servers"],
            config["worker"]["group"],
        )
        assert about["offsetResetPolicy"] == WorkerSettings().auto_offset_reset
    target = one("production", "StatefulSet")
    assert scaled["scaleTargetRef"] == {
        "apiVersion": target["apiVersion"],
        "kind": target["kind"],
        "name": target["metadata"]["name"],
    }


def test_keda_logs_in_as_the_worker():
    (authentication,) = [
        document for document in built("production") if document["kind"] == "TriggerAuthentication"
    ]
    triggers = one("production", "ScaledObject")["spec"]["triggers"]
    assert {trigger["authenticationRef"]["name"] for trigger in triggers} == {
        authentication["metadata"]["name"]
    }
    (username,) = authentication["spec"]["configMapTargetRef"]
    (names,) = [
        document
        for document in built("production")
        if document["kind"] == "ConfigMap" and document["metadata"]["name"] == username["name"]
    ]
    assert names["data"][username["key"]] == one("production", "KafkaUser")["metadata"]["name"]
    secrets = {
        volume["secret"]["secretName"]
        for volume in pod("production")["volumes"]
        if "secret" in volume
    }
    assert {reference["name"] for reference in authentication["spec"]["secretTargetRef"]} == secrets


def test_production_replicas_can_be_spread_and_drained():
    assert one("production", "StatefulSet")["spec"]["replicas"] == 3
    assert one("production", "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    assert {document["metadata"].get("namespace") for document in built("production")} == {"kafka"}


def test_dev_needs_no_operator():
    assert not {document["kind"] for document in built("dev")} & set(CRDS)
    assert one("dev", "StatefulSet")["spec"]["replicas"] == 1
