"""
`stream-monitor demo`: everything in one command, without any other installation.

Rule of the file: options in, `demo.session.run`, a summary out.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from stream_monitor.demo.session import DemoOptions, State, View


@click.command(name="demo")
@click.option(
    "--seconds",
    type=click.FloatRange(min=5),
    help="Stop after this many seconds; the story is told in that time.  [default: until Ctrl-C]",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="Port of /metrics; 0 is any.  [default: 9108, or any when that is taken]",
)
@click.option(
    "--rate",
    default=200.0,
    show_default=True,
    type=click.FloatRange(min=1, max=5_000),
    help="Predictions a second.",
)
@click.option(
    "--seed", default=0, show_default=True, help="Random seed; the same seed gives the same events."
)
@click.option(
    "--broker",
    metavar="HOST:PORT",
    help="Use this Kafka instead of the embedded one; the topics get their own prefix and are "
    "removed at the end.",
)
@click.option("--json", "as_json", is_flag=True, help="Print nothing but a JSON object at the end.")
def command(
    *,
    seconds: float | None,
    port: int | None,
    rate: float,
    seed: int,
    broker: str | None,
    as_json: bool,
) -> None:
    """
    Show a model that goes wrong, and the alerts about it.

    A broker, a worker and a simulated model server run in this terminal: the model is good at first, then the world changes, an input drifts and a field breaks.

    \b
    Examples:
      stream-monitor demo
      stream-monitor demo --seconds 30 --json
    """  # noqa: D301, E501
    from stream_monitor.demo.session import DemoOptions
    from stream_monitor.demo.view import NEXT, LineView, LiveView, NoView, summary, summary_text

    for name in ("aiokafka", "stream_monitor.demo"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # errors that matter are raised
    options = DemoOptions(seconds=seconds, port=port, rate_per_s=rate, seed=seed, broker=broker)
    with (
        NoView() if as_json else LiveView() if sys.stdout.isatty() else LineView(sys.stdout) as view
    ):
        state = asyncio.run(_run(options, view))
    if as_json:
        import json

        click.echo(json.dumps(summary(state)))
    else:
        for text in (summary_text(state), NEXT):
            click.echo(
                click.wrap_text(text, shutil.get_terminal_size().columns)
                if sys.stdout.isatty()
                else text
            )


async def _run(options: DemoOptions, view: View) -> State:
    from stream_monitor.cli.produce import stopped_by_signals
    from stream_monitor.demo.session import run

    stop = asyncio.Event()
    with stopped_by_signals(stop):
        return await run(options, view, stop)
