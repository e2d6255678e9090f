"""
`stream-monitor demo`: everything in one command, without any other installation.

Rule of the file: options in, `demo.session.run`, a summary out.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import sys
import time
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
@click.option(
    "--loop",
    is_flag=True,
    help="The whole loop: alert, retraining, canary, promotion, and a rollback. Needs git and the "
    "extra `lifecycle`; takes two to three minutes.",
)
@click.option("--json", "as_json", is_flag=True, help="Print nothing but a JSON object at the end.")
def command(
    *,
    seconds: float | None,
    port: int | None,
    rate: float,
    seed: int,
    broker: str | None,
    loop: bool,
    as_json: bool,
) -> None:
    """
    Show a model that goes wrong, and the alerts about it.

    A broker, a worker and a simulated model server run in this terminal: the model is good at first, then the world changes, an input drifts and a field breaks.

    \b
    Examples:
      stream-monitor demo
      stream-monitor demo --seconds 30 --json
      stream-monitor demo --loop
    """  # noqa: D301, E501
    from stream_monitor.demo.session import DemoOptions
    from stream_monitor.demo.view import NEXT, LineView, LiveView, NoView, summary, summary_text

    for name in ("aiokafka", "stream_monitor.demo"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # errors that matter are raised
    if loop:
        sys.exit(_loop(DemoOptions(seed=seed, broker=broker), as_json=as_json))
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


def _loop(options: DemoOptions, *, as_json: bool) -> int:
    """Run the loop; 0 if all of its story happened."""
    import msgspec

    from stream_monitor.demo.loop import LoopStory, run

    began = time.monotonic()

    def say(sentence: str) -> None:
        if not as_json:
            click.echo(f"{time.monotonic() - began:6.1f} s  {sentence}")

    async def told() -> tuple[LoopStory, bool]:
        from stream_monitor.cli.produce import stopped_by_signals

        stop = asyncio.Event()
        with stopped_by_signals(stop):
            return await run(options, say, stop), stop.is_set()

    story, stopped = asyncio.run(told())
    if as_json:
        click.echo(msgspec.json.encode(story).decode())
    elif story.complete:
        say(
            f"accuracy {story.accuracy_before:.2f}, {story.accuracy_broken:.2f} after the change, "
            f"{story.accuracy_after:.2f} with {story.version}; {story.bad_version} went back"
        )
    else:
        say("stopped" if stopped else "the story did not come to its end in time")
    return 0 if story.complete else 1


async def _run(options: DemoOptions, view: View) -> State:
    from stream_monitor.cli.produce import stopped_by_signals
    from stream_monitor.demo.session import run

    stop = asyncio.Event()
    with stopped_by_signals(stop):
        return await run(options, view, stop)
