"""
A real Apache Kafka (KRaft, one node, one JVM; or several nodes as one cluster) on free ports of
127.0.0.1, from Maven's packages. Needs Java 17 and Maven.

Example: python scripts/kafka_server.py           # prints the bootstrap address, until Ctrl-C
         python scripts/kafka_server.py --fetch   # only fetches the packages
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

VERSION = "4.1.1"
CACHE = Path(__file__).resolve().parent.parent / ".kafka"
START_S = 60
POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>local</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>
<dependencies><dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version></dependency>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>{VERSION}</version></dependency></dependencies></project>"""
PROPERTIES = """process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
message.max.bytes=8388608
log.cleaner.enable=true
"""


class MissingError(Exception):
    """What the machine lacks."""


def missing() -> str | None:
    """What is not there, for a message; None when Kafka can be started."""
    lacking = [name for name in ("java", "mvn") if shutil.which(name) is None]
    return (
        f"a real Kafka needs Java 17 and Maven; not found: {', '.join(lacking)}"
        if lacking
        else None
    )


def classpath() -> str:
    """Jars of Kafka, fetched once into `.kafka/`."""
    jars = CACHE / f"jars-{VERSION}"
    if not (jars / "complete").exists():
        CACHE.mkdir(exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=CACHE))
        (work / "pom.xml").write_text(POM)
        command = [
            "mvn",
            "-q",
            "-B",
            "-f",
            str(work / "pom.xml"),
            "dependency:copy-dependencies",
            "-DincludeScope=runtime",
            f"-DoutputDirectory={work / 'jars'}",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        if done.returncode:
            raise MissingError(
                f"Maven could not fetch Kafka {VERSION}: {(done.stdout + done.stderr)[-2000:]}"
            )
        (work / "jars" / "complete").touch()
        try:
            (work / "jars").rename(jars)
        except OSError:
            if not (jars / "complete").exists():
                raise
        shutil.rmtree(work, ignore_errors=True)
    return f"{jars}/*"


def free_port() -> int:
    """
    A port that nobody listens on. None of those that the system gives to clients: one of them may
    have it when a broker starts again.
    """
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as s, contextlib.suppress(OSError):
            s.bind(("127.0.0.1", port))
            return port


class KafkaServer:
    """
    One broker; its data lives in a temporary folder until `close`.

    Parameters
    ----------
    listeners : mapping, optional
        More listeners, by name (capitals) with their security protocol; their addresses are in
        `addresses`.
    properties : mapping, optional
        More properties of the broker, or others.
    node : int
        Its id in a cluster, from 1.
    controllers : sequence of int, optional
        Ports of the controllers of all nodes of the cluster, by node.
    heap_mb : int, MiB
    """

    def __init__(
        self,
        listeners: Mapping[str, str] | None = None,
        properties: Mapping[str, str] | None = None,
        *,
        node: int = 1,
        controllers: Sequence[int] = (),
        heap_mb: int = 512,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="kafka-"))
        self.node, self.heap_mb = node, heap_mb
        ports = controllers or [free_port()]
        self.port, self.controller = free_port(), ports[node - 1]
        self.bootstrap = f"127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        self.properties = self.folder / "server.properties"
        self.addresses = {name: f"127.0.0.1:{free_port()}" for name in listeners or ()}
        voters = ",".join(f"{i}@127.0.0.1:{port}" for i, port in enumerate(ports, 1))
        text = PROPERTIES.format(
            port=self.port,
            controller=self.controller,
            data=self.folder / "data",
            node=node,
            voters=voters,
        )
        settings = dict(line.split("=", 1) for line in text.splitlines())
        for name, protocol in (listeners or {}).items():
            settings["listeners"] += f",{name}://{self.addresses[name]}"
            settings["advertised.listeners"] += f",{name}://{self.addresses[name]}"
            settings["listener.security.protocol.map"] += f",{name}:{protocol}"
        self.properties.write_text(
            "".join(
                f"{key}={value}\n" for key, value in (settings | dict(properties or {})).items()
            )
        )
        self.run(
            "kafka.tools.StorageTool",
            "format",
            "-t",
            "sm-test-cluster-0000001",
            "-c",
            str(self.properties),
        )

    def _arguments(self, main: str, *arguments: str) -> list[str]:
        return [
            "java",
            f"-Xmx{self.heap_mb}m",
            "-Xms128m",
            "-XX:+UseSerialGC",
            "-cp",
            classpath(),
            main,
            *arguments,
        ]

    def run(self, main: str, *arguments: str) -> None:
        """Run one of Kafka's own tools."""
        done = subprocess.run(
            self._arguments(main, *arguments),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode:
            raise MissingError(f"{main} failed: {(done.stdout + done.stderr)[-2000:]}")

    def start(self) -> KafkaServer:
        """Start it, and wait until it answers."""
        out = (self.folder / "server.log").open("ab")
        self.process = subprocess.Popen(
            self._arguments("kafka.Kafka", str(self.properties)),
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            with socket.socket() as s:
                s.settimeout(0.5)
                if s.connect_ex(("127.0.0.1", self.port)) == 0:
                    time.sleep(1)
                    return self
            time.sleep(0.2)
        raise MissingError(
            f"Kafka did not start: {(self.folder / 'server.log').read_text()[-2000:]}"
        )

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self.process is not None
        os.kill(self.process.pid, number)

    def stop(self) -> None:
        """Stop it; `start` makes it go on with the same data."""
        if self.process is not None and self.process.poll() is None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
        self.process = None

    def close(self) -> None:
        """Stop it and forget its data."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def main() -> int:
    if why := missing():
        print(why, file=sys.stderr)
        return 1
    if sys.argv[1:] == ["--fetch"]:
        classpath()
        return 0
    server = KafkaServer().start()
    # else they end this process at once, and nobody stops the broker
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    print(server.bootstrap, flush=True)
    try:
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
    finally:
        server.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
