"""
A broker that demands TLS, certificates and logins: the worker on each, and what is said when
something is wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AclOperation, ResourceType

from stream_monitor.checks.probe import probe
from stream_monitor.config import parse
from stream_monitor.errors import BrokerError, StreamMonitorError
from stream_monitor.kafka import topics
from stream_monitor.kafka.cluster import Cluster
from stream_monitor.kafka.publish import Publisher
from stream_monitor.kafka.records import TopicReader, write
from stream_monitor.runtime.preflight import demand_access
from stream_monitor.settings import Settings
from tests.kafka.demanding_broker import (
    LIMITED,
    SCRAM,
    SECRETS,
    TOKEN,
    WRONG,
    Client,
    DemandingBroker,
)
from tests.kafka.test_worker import Process, events, send, wait

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.xdist_group("security"),  # one broker for all of them
]
ROWS = 300


@pytest.fixture(scope="module")
def broker(kafka: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemandingBroker]:
    if os.environ.get("KAFKA_BOOTSTRAP"):
        pytest.skip("needs a broker of its own")
    made = DemandingBroker(sys.modules["kafka_server"], tmp_path_factory.mktemp("certificates"))
    yield made
    made.server.close()


@pytest.fixture
def prefix() -> str:
    return f"t{random.randrange(10**9)}."


def configured(client: Client, prefix: str, **worker: Any) -> str:
    """The text of a monitor.yaml."""
    kafka = {
        "bootstrap_servers": client.address,
        "topic_prefix": prefix,
        "security": client.security,
    }
    return json.dumps(
        {"kafka": kafka, "worker": {"group": f"{prefix}group", "metrics": {"port": 0}, **worker}}
    )


def settings_of(client: Client, prefix: str) -> Settings:
    return parse(configured(client, prefix), environ=client.environ())


def start(
    client: Client, prefix: str, folder: Path, log: str, environ: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    """A worker; its secrets are in files."""
    (folder / "monitor.yaml").write_text(configured(client, prefix))
    variables = {}
    for variable, secret in {**client.environ(), **(environ or {})}.items():
        (folder / variable).write_text(secret + "\n")
        variables[f"{variable}_FILE"] = str(folder / variable)
    command = [
        sys.executable,
        "-m",
        "stream_monitor",
        "worker",
        "--config",
        str(folder / "monitor.yaml"),
    ]
    with (folder / log).open("w") as err:
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=err, text=True, env=os.environ | variables
        )


def listening(process: subprocess.Popen[str]) -> Process:
    assert process.stdout is not None
    return Process(process, process.stdout.readline().split()[-1])


def counted(worker: Process) -> float:
    return sum(
        value
        for name, value in worker.metrics().items()
        if name.startswith("model_predictions_total")
    )


def ended(process: subprocess.Popen[str]) -> int:
    """Its exit code after SIGTERM."""
    process.send_signal(signal.SIGTERM)
    code = process.wait(30)
    if process.stdout is not None:
        process.stdout.close()
    return code


def killed(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.kill()
        process.wait(10)
    if process.stdout is not None:
        process.stdout.close()


def ports(pid: int) -> set[int]:
    """Ports that a process listens on."""
    sockets = set()
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            sockets.add(str(file.readlink()).removeprefix("socket:[").removesuffix("]"))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in sockets:
                found.add(int(fields[1].rpartition(":")[2], 16))
    return found


@pytest.mark.parametrize("kind", ["tls", "mutual", "plain", "scram256", "scram512", "clear"])
def test_a_worker_works_and_listens_on_one_port_and_tells_no_secret(
    broker: DemandingBroker, prefix: str, tmp_path: Path, kind: str
) -> None:
    client = broker.clients()[kind]
    asyncio.run(topics.ensure(settings_of(client, prefix)))
    send(broker.server.bootstrap, prefix, events(ROWS, seed=3))
    first, second = start(client, prefix, tmp_path, "first.log"), None
    try:
        worker = listening(first)
        wait("every prediction counted", lambda: counted(worker) == ROWS)
        assert ports(first.pid) == {int(worker.url.rpartition(":")[2])}
        if kind == "mutual":
            # once: who comes after it reads committed offsets, snapshots and observations
            first.kill()
            second = start(client, prefix, tmp_path, "second.log")
            worker = listening(second)
            wait("all restored", lambda: counted(worker) == ROWS)
        assert ended(second or first) == 0
    finally:
        for process in (first, second):
            if process is not None:
                killed(process)
    said = "".join(log.read_text() for log in tmp_path.glob("*.log"))
    assert not any(secret in said for secret in SECRETS)
    assert "Traceback" not in said


Wrong = dict[str, tuple[Client, str]]
"""Clients that are refused, by what is wrong, and the beginning of what they are told to do."""


def wrong(broker: DemandingBroker) -> Wrong:
    return (
        wrong_logins(broker)
        | wrong_certificates(broker)
        | wrong_protocols(broker)
        | wrong_files(broker)
    )


def wrong_logins(broker: DemandingBroker) -> Wrong:
    good, lie = broker.clients(), {"password": WRONG}
    scram = good["scram512"]
    return {
        "wrong password": (
            scram.but(secrets=lie),
            (
                "refuses the login of 'monitor' by SCRAM-SHA-512; check kafka.security.username, "
                "and the password"
            ),
        ),
        "wrong plain password": (
            good["plain"].but(secrets=lie),
            (
                "refuses the login of 'monitor' by PLAIN; check kafka.security.username, and the "
                "password"
            ),
        ),
        "unknown user": (
            scram.but(username="nobody"),
            "refuses the login of 'nobody' by SCRAM-SHA-512; check kafka.security.username",
        ),
        "other mechanism": (
            scram.but(sasl_mechanism="PLAIN"),
            "does not support PLAIN; set kafka.security.sasl_mechanism",
        ),
    }


def wrong_certificates(broker: DemandingBroker) -> Wrong:
    good, at, folder = broker.clients(), broker.server.addresses, broker.folder
    mutual, tls = good["mutual"], good["tls"]

    def showing(name: str) -> Client:
        return mutual.but(
            cert_file=str(folder / f"{name}.crt"), key_file=str(folder / f"{name}.key")
        )

    return {
        "expired": (tls.but(at["EXPIRED"]), "the broker's certificate has expired; renew it"),
        "unknown authority": (
            tls.but(ca_file=None),
            "is not trusted (unable to get local issuer certificate); set kafka.security.ca_file",
        ),
        "other name": (
            tls.but(at["MISNAMED"]),
            "not valid for '127.0.0.1'.; give kafka.bootstrap_servers",
        ),
        "no certificate": (
            tls.but(at["MUTUAL"]),
            "requires a client certificate; set kafka.security.cert_file",
        ),
        "certificate of a stranger": (
            showing("stranger"),
            (
                "refuses our certificate (sslv3 alert certificate unknown); set "
                "kafka.security.cert_file and key_file"
            ),
        ),
        "expired certificate": (
            showing("late"),
            (
                "refuses our certificate (sslv3 alert certificate unknown); set "
                "kafka.security.cert_file and key_file"
            ),
        ),
    }


def wrong_protocols(broker: DemandingBroker) -> Wrong:
    good, at = broker.clients(), broker.server.addresses
    scram, tls = good["scram512"], good["tls"]

    def bare(address: str) -> Client:
        return Client(address, {"protocol": "PLAINTEXT"}, {})

    return {
        "no TLS": (
            bare(at["TLS"]),
            "when it demands TLS or a login on this port, set kafka.security.protocol",
        ),
        "neither TLS nor login": (
            bare(at["CHALLENGE"]),
            "when it demands TLS or a login on this port, set kafka.security.protocol",
        ),
        "no login": (
            bare(at["CLEAR"]),
            "when it demands TLS or a login on this port, set kafka.security.protocol",
        ),
        "login without TLS": (
            good["clear"].but(at["CHALLENGE"]),
            "when it demands TLS on this port, set kafka.security.protocol to SASL_SSL",
        ),
        "TLS without login": (
            tls.but(at["CHALLENGE"]),
            "demands a login (kafka.security.protocol: SASL_SSL)",
        ),
        "TLS where there is none": (
            tls.but(broker.server.bootstrap),
            "see whether it speaks TLS on this port",
        ),
        "login where there is none": (
            good["clear"].but(broker.server.bootstrap),
            "not accept a login on this port; set kafka.security.protocol to PLAINTEXT",
        ),
        "TLS and login where there is none": (
            scram.but(at["TLS"]),
            "not accept a login on this port; set kafka.security.protocol to SSL",
        ),
    }


def wrong_files(broker: DemandingBroker) -> Wrong:
    good = broker.clients()
    mutual, tls = good["mutual"], good["tls"]
    return {
        "password of the key": (
            mutual.but(secrets={"key_password": WRONG}),
            "kafka.security.cert_file and key_file: ",
        ),
        "no password of the key": (
            mutual.but(secrets={}),
            "the key has a password, and key_password does not match it",
        ),
        "no file": (
            tls.but(ca_file="/nowhere"),
            "kafka.security.ca_file: /nowhere: cannot be read: No such file",
        ),
        "no certificate in the file": (tls.but(ca_file=__file__), "is not a certificate in PEM"),
    }


def test_what_is_wrong_is_told_as_the_setting_to_change(
    broker: DemandingBroker, prefix: str
) -> None:
    for name, (client, expected) in wrong(broker).items():
        with pytest.raises(StreamMonitorError) as told:
            asyncio.run(topics.ensure(settings_of(client, prefix)))
        line = str(told.value)
        assert expected in line, name
        assert "\n" not in line
        assert not any(secret in line for secret in SECRETS)


async def _read(settings: Settings) -> None:
    async with TopicReader(settings, ["alerts"]):
        pass


async def _publish(settings: Settings) -> None:
    async with Publisher(settings.kafka):
        pass


async def _ask(settings: Settings) -> None:
    async with Cluster(settings.kafka, 10):
        pass


async def _probe(settings: Settings) -> None:
    from aiohttp import web

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(text="")

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    try:
        raise BrokerError((await probe(settings.kafka, [f"http://{host}:{port}/metrics"])).detail)
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    "command",
    [_read, _publish, _ask, _probe, lambda settings: write(settings, "lifecycle", "m", b"{}")],
)
def test_every_client_says_the_same(broker: DemandingBroker, prefix: str, command: Any) -> None:
    for name in ("wrong password", "expired"):
        client, expected = wrong(broker)[name]
        with pytest.raises(BrokerError) as told:
            asyncio.run(command(settings_of(client, prefix)))
        assert expected in str(told.value), name


@pytest.mark.parametrize("name", ["wrong password", "expired", "no TLS", "no file"])
def test_a_worker_that_cannot_connect_ends_with_one_line(
    broker: DemandingBroker, prefix: str, tmp_path: Path, name: str
) -> None:
    client, expected = wrong(broker)[name]
    process = start(client, prefix, tmp_path, "log")
    assert process.wait(60) == (2 if name == "no file" else 1)
    killed(process)
    said = (tmp_path / "log").read_text()
    assert expected in said
    assert said.count("\n") == 1
    assert not any(secret in said for secret in SECRETS)


def test_doctor_and_check_tell_no_secret(
    broker: DemandingBroker, prefix: str, tmp_path: Path
) -> None:
    for name in ("wrong password", "password of the key"):
        client, _ = wrong(broker)[name]
        (tmp_path / "monitor.yaml").write_text(configured(client, prefix))
        environ = os.environ | client.environ() | {"STREAM_MONITOR_WORKER__METRICS__TOKEN": TOKEN}
        for arguments in (
            ["doctor", "--config"],
            ["doctor", "--json", "--config"],
            ["config", "check"],
            ["alerts", "--config"],
            ["topics", "list", "--config"],
        ):
            command = [
                sys.executable,
                "-X",
                "dev",
                "-W",
                "ignore",
                "-m",
                "stream_monitor",
                *arguments,
                str(tmp_path / "monitor.yaml"),
            ]
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=60, check=False, env=environ
            )
            said = done.stdout + done.stderr
            assert said
            assert not any(secret in said for secret in SECRETS)
            assert "Traceback" not in said


def test_access_that_is_missing_is_named(
    broker: DemandingBroker, prefix: str, tmp_path: Path
) -> None:
    asyncio.run(topics.ensure(settings_of(broker.clients()["tls"], prefix)))
    client = broker.clients()["scram512"].but(username=LIMITED)
    settings = settings_of(client, prefix)
    with pytest.raises(
        BrokerError,
        match=rf"missing access: topics .*{prefix}predictions.* are hidden from the user",
    ):
        asyncio.run(topics.ensure(settings))
    # may see what is not there, and not make it
    broker.allow(ResourceType.TOPIC, f"{prefix}new.", AclOperation.READ)
    with pytest.raises(BrokerError, match=r"cannot create topics: .*; grant Create to the user"):
        asyncio.run(topics.ensure(settings_of(client, f"{prefix}new.")))
    broker.allow(ResourceType.TOPIC, prefix, AclOperation.READ)
    process = start(client, prefix, tmp_path, "log")
    assert process.wait(60) == 1
    killed(process)
    said = (tmp_path / "log").read_text()
    assert said.count("\n") == 1
    assert f"topic {prefix}alerts: Write not allowed (allow Write on topic {prefix}alerts)" in said
    assert f"group {prefix}group: Read not allowed (allow Read on group {prefix}group)" in said
    assert f"grant Describe and Write on transactional ids that begin with {prefix}group." in said
    broker.allow(ResourceType.TOPIC, prefix, AclOperation.WRITE)
    broker.allow(ResourceType.GROUP, prefix, AclOperation.READ)
    with pytest.raises(BrokerError) as told:
        asyncio.run(demand_access(settings))
    assert "topic" not in str(told.value).replace("topics", "")
    broker.allow(ResourceType.TRANSACTIONAL_ID, f"{prefix}group.", AclOperation.WRITE)
    asyncio.run(demand_access(settings))
    for kind in (ResourceType.TOPIC, ResourceType.GROUP, ResourceType.TRANSACTIONAL_ID):
        broker.forbid(kind)


def test_a_changed_password_is_told_and_the_work_goes_on_when_it_is_right_again(
    broker: DemandingBroker, prefix: str, tmp_path: Path
) -> None:
    client = broker.clients()["scram512"]
    asyncio.run(topics.ensure(settings_of(client, prefix)))
    send(broker.server.bootstrap, prefix, events(ROWS, seed=4))
    process = start(client, prefix, tmp_path, "first.log")
    try:
        worker = listening(process)
        wait("every prediction counted", lambda: counted(worker) == ROWS)
        broker.set_password("monitor", WRONG)
        broker.server.stop()
        broker.server.start()  # connections that are open stay so; new ones need the password
        log = tmp_path / "first.log"
        wait("it says why", lambda: "refuses the login of 'monitor'" in log.read_text())
        # transactions fail meanwhile, and nothing is opened while no heartbeat is answered
        time.sleep(15)
        assert process.poll() is None
        broker.set_password("monitor", SCRAM)
        send(broker.server.bootstrap, prefix, events(ROWS, seed=5))
        wait("the rest counted", lambda: counted(worker) == 2 * ROWS)
        assert ended(process) == 0
    finally:
        killed(process)
    said = "".join(log.read_text() for log in tmp_path.glob("*.log"))
    assert not any(secret in said for secret in SECRETS)
