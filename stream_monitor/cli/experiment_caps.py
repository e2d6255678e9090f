"""
Caps of an experiment that are quantiles of a file (`--from`), as numbers.

Rule of the file: it reads options and files, and prints. `offline.caps` computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from stream_monitor.cli.input_options import options_of
from stream_monitor.errors import InputError

if TYPE_CHECKING:
    from stream_monitor.settings import Settings


def resolve_caps(
    event: dict[str, Any], option: str, path: str, given: Mapping[str, Any], settings: Settings
) -> None:
    """
    Put numbers in place of the caps of an event that are quantiles of a file, and say which.

    Raises
    ------
    InputError
        No cap is a quantile, or the file knows too little.
    """
    from stream_monitor.cli.terminal import readable, reading
    from stream_monitor.experiments.measures import with_fields
    from stream_monitor.offline.caps import quantiles, resolve

    event |= with_fields(event, settings.core.of(str(event.get("model"))).metrics.custom)
    if not any(quantiles(event)):
        raise InputError(f"{option} {path}: no `cap` is a quantile such as p99; leave it out")
    options = options_of({**given, "predictions": None, "labels": None}, path, settings.core)
    with reading(options, "reading") as events:
        events.scan()
        span_ms = (events.last_ms or 0) - (events.first_ms or 0)
        for cap in resolve(event, events, settings, span_ms=span_ms):
            text = (
                f"note: cap of {cap.metric} is {cap.value:.6g}, {cap.quantile} of "
                f"{cap.outcomes:,} outcomes before the experiment"
            )
            click.echo(readable(text), err=True)
