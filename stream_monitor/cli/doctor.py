"""
`stream-monitor doctor`: checks whether a worker has everything that it needs.

Rule of the file: it prints the findings of `checks.doctor` and exits 1 if a check failed. A warning
is not a failure.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import click

from stream_monitor.errors import InputError

if TYPE_CHECKING:
    from stream_monitor.findings import Finding
    from stream_monitor.settings import Settings

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command(name="doctor")
@click.option(
    "--config",
    type=click.Path(dir_okay=False),
    help="The configuration. [default: ./monitor.yaml if it exists]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--topic-sample",
    default=100,
    show_default=True,
    type=click.IntRange(0, 100_000),
    metavar="N",
    help="How many of the newest records of each input to check; 0 reads none.",
)
@click.option(
    "--probe",
    is_flag=True,
    help="Also send a prediction and a label of model __probe__ and measure how long they take to "
    "reach the gauge. This is the only check that writes.",
)
@click.option(
    "--metrics-url",
    multiple=True,
    metavar="URL",
    help="/metrics of a worker, for --probe; once for each worker. [default: worker.metrics]",
)
def command(
    config: str | None, as_json: bool, topic_sample: int, probe: bool, metrics_url: tuple[str, ...]
) -> None:
    """
    Check broker, topics, permissions, lag, clocks and the newest records.

    Each line is ok, warn or fail, and says what to do. Exit 1 if a check failed.

    \b
    Examples:
      stream-monitor doctor --config monitor.yaml
      stream-monitor doctor --probe --metrics-url http://127.0.0.1:9108/metrics
    """  # noqa: D301
    from stream_monitor.config import load

    settings = load(config, os.environ)
    urls = probe_urls(settings, metrics_url) if probe else []
    # its errors are in the findings
    logging.getLogger("asyncio").addHandler(logging.NullHandler())
    logging.getLogger("asyncio").propagate = False
    if report(settings, sample_n=topic_sample, urls=urls, as_json=as_json)["fail"]:
        raise SystemExit(1)


def report(settings: Settings, *, sample_n: int, urls: list[str], as_json: bool) -> Counter[str]:
    """Print the findings, and return how many are ok, warn and fail."""
    return asyncio.run(_report(_findings(settings, sample_n, urls), as_json=as_json))


def probe_urls(settings: Settings, given: tuple[str, ...]) -> list[str]:
    """
    Addresses from which the probe reads metrics.

    Raises
    ------
    InputError
        No address was given, and the worker uses a free port.
    """
    if given:
        return [
            url if url.rstrip("/").endswith("/metrics") else f"{url.rstrip('/')}/metrics"
            for url in given
        ]
    http = settings.worker.metrics
    if not http.port:
        raise InputError(
            "--probe needs --metrics-url: worker.metrics.port is 0, so the worker listens on "
            "a free port"
        )

    return [f"{http.url(http.port)}/metrics"]


def shown(finding: Finding) -> str:
    """A finding as lines for people; its names come from records."""
    from stream_monitor.runtime.logs import printable

    line = (
        f"{click.style(f'{finding.status:<4}', fg=COLOURS[finding.status], bold=True)}  "
        f"{finding.check:<13}  {printable(finding.detail)}"
    )
    return (
        f"{line}\n{'':21}-> {finding.advice}" if finding.advice and finding.status != "ok" else line
    )


async def _findings(settings: Settings, sample_n: int, urls: list[str]) -> AsyncIterator[Finding]:
    from stream_monitor.checks.doctor import examine
    from stream_monitor.checks.probe import probe
    from stream_monitor.lifecycle.checkup import checkup

    async for finding in examine(settings, sample_n=sample_n):
        yield finding
    async for finding in checkup(settings):
        yield finding
    if urls:
        yield await probe(settings.kafka, urls, metrics=settings.worker.metrics)


async def _report(findings: AsyncIterator[Finding], *, as_json: bool) -> Counter[str]:
    import msgspec

    found = []
    async for finding in findings:
        found.append(finding)
        if not as_json:
            click.echo(shown(finding))
    statuses = Counter(str(finding.status) for finding in found)
    if as_json:
        click.echo(
            msgspec.json.format(
                msgspec.json.encode(
                    {"checks": found, **{status: statuses[status] for status in COLOURS}}
                ),
                indent=2,
            )
        )
    else:
        click.echo(f"{statuses['ok']} ok, {statuses['warn']} warning(s), {statuses['fail']} failed")
    return statuses
