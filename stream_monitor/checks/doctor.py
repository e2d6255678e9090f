"""
Checks whether a worker has everything that it needs, and whether the records mean what they should.

Rule of the file: every check is one function that returns findings and writes nothing. A check says
what it cannot find out, and a check that breaks is a finding too. A finding that is not ok says
what to do. `CHECKUPS` lists the checks; each module beside this one has the checks of one subject.
"""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator

import aiohttp

from stream_monitor.checks import archive, broker, events, group, topics
from stream_monitor.checks.patient import Checkup, Patient
from stream_monitor.errors import BrokerError
from stream_monitor.findings import Finding
from stream_monitor.kafka.cluster import Cluster
from stream_monitor.settings import HttpSettings, Settings

TIMEOUT_S = 10.0
CHECKUPS: dict[str, Checkup] = {
    "protocol": broker.apis,
    "transactions": broker.transactions,
    "topics": topics.topics,
    "permissions": topics.permissions,
    "retention": topics.retention,
    "group": group.group,
    "configuration": group.configuration,
    "archive": archive.archive,
    "sample": events.sample,
    "clock": events.log_time,
}
"""The checks, in the order in which they run."""


async def examine(
    settings: Settings, *, sample_n: int = 100, timeout_s: float = TIMEOUT_S
) -> AsyncIterator[Finding]:
    """
    Run all checks, one after another.

    Parameters
    ----------
    settings : Settings
        The whole configuration.
    sample_n : int, records
        Newest records of `predictions` and of `labels` that are checked against the contract; 0
        reads none.
    timeout_s : float, seconds
        For each question to the broker.

    Yields
    ------
    Finding
        As soon as it is known.
    """
    yield await metrics_port(settings.worker.metrics)
    try:
        async with Cluster(settings.kafka, timeout_s) as cluster:
            facts = await cluster.topics()
            yield Finding(
                "broker",
                "ok",
                f"{settings.kafka.bootstrap_servers} answers, {cluster.brokers} broker(s) in "
                "the cluster",
            )
            ours = [settings.kafka.topic_prefix + topic for topic in topics.ACCESS]
            configs = await _configs(cluster, [name for name in ours if name in facts])
            patient = Patient(
                settings, cluster, facts, configs, sample_n, time.time_ns() // 1_000_000
            )
            for check, checkup in CHECKUPS.items():
                try:
                    for finding in await checkup(patient):
                        yield finding
                except Exception as error:
                    yield Finding(
                        check,
                        "fail",
                        f"could not be checked: {str(error) or type(error).__name__}",
                        "check that the user of kafka.security may describe it and that the "
                        "broker is healthy",
                    )
    except (BrokerError, TimeoutError) as error:
        yield Finding(
            "broker",
            "fail",
            f"cannot be used: {str(error) or 'no answer'}",
            "check kafka.bootstrap_servers and kafka.security, and that the broker's "
            "advertised listeners are reachable from here",
        )


async def _configs(cluster: Cluster, names: list[str]) -> dict[str, dict[str, str]]:
    """Settings of the topics; none if we may not read them, which the check of topics reports."""
    try:
        return await cluster.configs(names)
    except Exception:
        return {}


async def metrics_port(http: HttpSettings) -> Finding:
    """Whether the port of the metrics is free, or a worker answers on it."""
    place = f"{http.host}:{http.port}"
    if http.port == 0:
        return Finding("metrics port", "ok", "the worker picks a free port at start")
    with socket.socket(socket.AF_INET6 if ":" in http.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((http.host, http.port))
        except OSError as error:
            reason = error.strerror
        else:
            return Finding("metrics port", "ok", f"{place} is free")
    try:
        # the certificate does not matter, because nothing is sent to the server
        url = f"{http.url(http.port)}/ready"
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=3)) as session,
            session.get(url, ssl=False) as response,
        ):
            text = (await response.text())[:200].strip()
            if response.headers.get("Server") == "stream-monitor":
                if response.status == 200:
                    return Finding("metrics port", "ok", f"a worker answers on {place}: {text}")
                return Finding(
                    "metrics port",
                    "warn",
                    f"the worker on {place} is not ready: {text}",
                    "see the log of the worker",
                )
    except (aiohttp.ClientError, TimeoutError, UnicodeDecodeError):
        pass
    return Finding(
        "metrics port",
        "fail",
        f"{place} cannot be used: {reason}",
        "set worker.metrics.port to another port (0 takes a free one), or stop the program "
        "that has it",
    )
