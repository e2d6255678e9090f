"""
The image, the compose file and what they mount: valid for the tools that read them, and true of the
program.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

from stream_monitor import __version__
from stream_monitor.cli import cli
from stream_monitor.config import load
from stream_monitor.demo.simulation import MODEL
from stream_monitor.settings import HttpSettings

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
OURS = {
    name: service
    for name, service in SERVICES.items()
    if service["image"].startswith("stream-monitor:")
}
PROMETHEUS = yaml.safe_load((ROOT / "dashboards/prometheus.yml").read_text())
PROVISIONING = ROOT / "dashboards/provisioning"
EXACT = re.compile(r"[a-z0-9./-]+:v?\d+\.\d+\.\d+(-[a-z0-9-]+)?(@sha256:[0-9a-f]{64})?")
LISTENING = {"kafka": 19092, "worker": HttpSettings().port, "prometheus": 9090, "grafana": 3000}


def instructions() -> list[tuple[str, str]]:
    """Instructions of the Dockerfile, continued lines joined."""
    lines = [
        line
        for line in (ROOT / "Dockerfile").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    return [
        (line.split()[0], line.split(maxsplit=1)[1])
        for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()
    ]


IMAGE = instructions()
RUNTIME = IMAGE[max(i for i, (name, _) in enumerate(IMAGE) if name == "FROM") :]


def parsed(arguments: list[str]) -> click.Command:
    """
    The command that a command line means; an option that does not exist is an error.

    Nothing is run.
    """
    name, *rest = arguments
    parent = click.Context(cli)
    command = cli.get_command(parent, name)
    if command is None:
        raise click.UsageError(f"no such command: {name}")
    command.make_context(name, rest, parent=parent)
    return command


def mounts(service: dict) -> dict[str, Path]:
    """Files and folders of the repository by where they are in the container."""
    return {
        target: ROOT / source
        for source, target, *_ in (volume.split(":") for volume in service.get("volumes", []))
        if source.startswith("./")
    }


def check_jsonschema(schema: str, path: str) -> None:
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        schema,
        str(ROOT / path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# ---- the image


def test_hadolint_accepts_the_dockerfile():
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run(
        [str(hadolint), str(ROOT / "Dockerfile")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_the_base_is_one_exact_version():
    base = dict(text.split("=", 1) for name, text in IMAGE if name == "ARG")
    assert EXACT.fullmatch(base["PYTHON_IMAGE"])
    assert {text.split()[0] for name, text in IMAGE if name == "FROM"} == {"${PYTHON_IMAGE}"}
    assert len([name for name, _ in IMAGE if name == "FROM"]) == 2


def test_the_image_runs_as_nobody_in_particular_and_stops_on_sigterm():
    last = dict(RUNTIME)
    assert last["USER"] == "10001:10001"
    assert last["STOPSIGNAL"] == "SIGTERM"
    assert "RUN" not in last


def test_the_image_starts_the_worker_without_a_shell():
    last = dict(RUNTIME)
    entry, arguments = json.loads(last["ENTRYPOINT"]), json.loads(last["CMD"])
    assert entry == ["stream-monitor"]
    parsed(arguments)


def test_the_image_looks_at_its_own_health():
    last = dict(RUNTIME)
    command = json.loads(last["HEALTHCHECK"].split("CMD", 1)[1])
    assert command[:2] == ["python", "-c"]
    compile(command[2], "healthcheck", "exec")
    assert f"http://127.0.0.1:{HttpSettings().port}/live" in command[2]
    assert last["EXPOSE"] == str(HttpSettings().port)


def test_the_environment_of_the_image_is_configuration_that_exists():
    environ = dict(re.findall(r"(STREAM_MONITOR_\w+)=(\S+)", dict(RUNTIME)["ENV"]))
    assert load(None, environ).worker.metrics.host == "0.0.0.0"


def test_what_the_image_is_built_from_is_sent_to_the_builder():
    sent = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = {
        source
        for name, text in IMAGE
        if name == "COPY" and "--from" not in text
        for source in text.split()[:-1]
    }
    assert copied == sent
    assert all((ROOT / source).exists() for source in copied)
    project = (ROOT / "pyproject.toml").read_text()
    assert all(
        re.search(f'"{name}["/]', project) or name in {"LICENSE", "pyproject.toml"}
        for name in copied
    ), "the wheel is made of something that is not copied"


# ---- the compose file


def test_the_compose_file_follows_its_specification():
    check_jsonschema("vendor.compose-spec", "docker-compose.yml")


@pytest.mark.parametrize("name", SERVICES)
def test_services_are_pinned_and_can_do_little(name):
    service = SERVICES[name]
    assert EXACT.fullmatch(service["image"])
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert "privileged" not in service
    assert service.get("read_only") is (None if name == "kafka" else True)
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert service["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", SERVICES)
def test_services_wait_for_what_they_need(name):
    health = SERVICES[name]["healthcheck"]
    assert health.get("disable") or health["test"][0] == "CMD"
    for other, how in SERVICES[name].get("depends_on", {}).items():
        assert how == {"condition": "service_healthy"}
        assert "test" in SERVICES[other]["healthcheck"]


def test_health_is_asked_where_somebody_listens():
    for name, service in SERVICES.items():
        for host, port in re.findall(
            r"(127\.0\.0\.1|kafka):(\d+)", " ".join(service["healthcheck"].get("test", []))
        ):
            assert host in {"127.0.0.1", name}
            assert int(port) == LISTENING[name]


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_is_there_and_read_only(name):
    for volume in SERVICES[name].get("volumes", []):
        source, _, *mode = volume.split(":")
        if source.startswith("./"):
            assert (ROOT / source).exists()
            assert mode == ["ro"]
        else:
            assert source in COMPOSE["volumes"]


@pytest.mark.parametrize("name", OURS)
def test_our_services_are_told_what_the_program_understands(name):
    service = OURS[name]
    assert service["image"] == f"stream-monitor:{__version__}"
    parsed(service["command"])
    path = (
        service["command"][service["command"].index("--config") + 1]
        if "--config" in service["command"]
        else None
    )
    settings = load(str(mounts(service)[path]) if path else None, service["environment"])
    assert (
        settings.kafka.bootstrap_servers
        in SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    )
    assert settings.worker.metrics.port == LISTENING["worker"]
    if path:
        assert set(settings.core.models) == {MODEL}


def test_a_command_line_that_is_wrong_would_be_found():
    with pytest.raises(click.NoSuchOption):
        parsed(["worker", "--konfig", "x"])
    with pytest.raises(click.UsageError):
        parsed(["warker"])


def test_the_broker_has_a_name_for_the_inside_and_one_for_the_outside():
    environment = SERVICES["kafka"]["environment"]
    names = [listener.split("://")[0] for listener in environment["KAFKA_LISTENERS"].split(",")]
    assert sorted(names) == sorted(
        pair.split(":")[0]
        for pair in environment["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(",")
    )
    assert set(environment["KAFKA_ADVERTISED_LISTENERS"].split(",")) == {
        "INTERNAL://kafka:19092",
        "HOST://127.0.0.1:9092",
    }
    assert SERVICES["kafka"]["ports"] == ["127.0.0.1:9092:9092"]


# ---- Prometheus and Grafana


def test_promtool_accepts_the_configuration_of_prometheus():
    if shutil.which("promtool") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("promtool must be on PATH in CI")
        pytest.skip("promtool is not on PATH")
    done = subprocess.run(
        ["promtool", "check", "config", str(ROOT / "dashboards/prometheus.yml")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 rule files found" in done.stdout


def test_prometheus_reads_our_rules_and_scrapes_the_worker():
    mounted = mounts(SERVICES["prometheus"])
    config = next(
        argument.split("=")[1]
        for argument in SERVICES["prometheus"]["command"]
        if argument.startswith("--config.file")
    )
    assert mounted[config].samefile(ROOT / "dashboards/prometheus.yml")
    assert all(f"{Path(config).parent}/{name}" in mounted for name in PROMETHEUS["rule_files"])
    targets = [
        target
        for job in PROMETHEUS["scrape_configs"]
        for group in job["static_configs"]
        for target in group["targets"]
    ]
    assert targets == [f"worker:{LISTENING['worker']}"]


def test_grafana_has_a_data_source_that_is_prometheus():
    (path,) = (PROVISIONING / "datasources").iterdir()
    content = yaml.safe_load(path.read_text())
    (source,) = content["datasources"]
    assert content["apiVersion"] == 1
    assert set(source) == {
        "name",
        "uid",
        "type",
        "access",
        "url",
        "isDefault",
        "editable",
        "jsonData",
    }
    assert (source["type"], source["access"], source["isDefault"]) == ("prometheus", "proxy", True)
    assert source["url"] == f"http://prometheus:{LISTENING['prometheus']}"
    assert source["jsonData"]["timeInterval"] == PROMETHEUS["global"]["scrape_interval"]


def test_grafana_finds_the_dashboards():
    (path,) = (PROVISIONING / "dashboards").iterdir()
    content = yaml.safe_load(path.read_text())
    (provider,) = content["providers"]
    assert content["apiVersion"] == 1
    assert set(provider) == {
        "name",
        "type",
        "folder",
        "allowUiUpdates",
        "updateIntervalSeconds",
        "options",
    }
    assert provider["type"] == "file"
    mounted = mounts(SERVICES["grafana"])
    assert mounted["/etc/grafana/provisioning"].samefile(PROVISIONING)
    boards = sorted(mounted[provider["options"]["path"]].glob("*.json"))
    assert len(boards) >= 2
    assert len({json.loads(board.read_text())["uid"] for board in boards}) == len(boards)


# ---- continuous integration


def test_the_workflow_follows_its_specification():
    check_jsonschema("vendor.github-workflows", ".github/workflows/ci.yml")


def test_the_workflow_runs_what_everybody_runs():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    job = workflow["jobs"]["test"]
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert os.access(ROOT / ".ci/run", os.X_OK)
    assert all(
        re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step["uses"])
        for step in job["steps"]
        if "uses" in step
    )
    assert workflow["permissions"] == {"contents": "read"}
