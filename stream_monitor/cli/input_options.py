"""
Options of the commands that read files, in one place, so that `replay`, `produce` and `baseline
build` read the same table the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from stream_monitor.inputs.options import InputOptions, parse_duration_ms

if TYPE_CHECKING:
    from stream_monitor.settings import CoreSettings

Command = TypeVar("Command", bound=Callable[..., Any])
_OPTIONS = (
    click.option(
        "--predictions",
        metavar="FILE",
        help="Prediction events: .csv, .jsonl or .parquet (.gz too); - is JSON Lines on stdin.",
    ),
    click.option(
        "--labels", metavar="FILE", help="Label events, merged with the predictions by time."
    ),
    click.option(
        "--map",
        "maps",
        multiple=True,
        metavar="FIELD=COLUMN",
        help="Column to use for a field of the event; FIELD=:VALUE sets a constant.",
    ),
    click.option("--ignore", multiple=True, metavar="COLUMN", help="Leave a column out."),
    click.option(
        "--interval",
        default="1s",
        show_default=True,
        help="Time between the rows of a table without timestamps.",
    ),
    click.option(
        "--label-delay",
        default="0s",
        show_default=True,
        help="Delay after its prediction for a label without its own time.",
    ),
    click.option(
        "--timezone",
        default="UTC",
        show_default=True,
        metavar="ZONE",
        help="Time zone of times without one: Europe/Berlin, +02:00.",
    ),
    click.option(
        "--dates",
        type=click.Choice(["day-first", "month-first"]),
        help="How dates such as 3/4/2025 are meant.  [default: what the column tells]",
    ),
    click.option(
        "--decimal",
        type=click.Choice(["point", "comma"]),
        help="The decimal mark of numbers in CSV.  [default: what the columns tell]",
    ),
    click.option(
        "--missing",
        multiple=True,
        metavar="MARK",
        help="Another mark of missing values in CSV, such as - or 'not known'.",
    ),
)


def input_options(command: Command) -> Command:
    """Add the options to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def options_of(
    given: Mapping[str, Any], table: str | None, core: CoreSettings | None = None, **more: Any
) -> InputOptions:
    """The input that the options describe; `core` has the configured types of features."""
    return InputOptions(
        table=table,
        predictions=given["predictions"],
        labels=given["labels"],
        maps=given["maps"],
        ignore=given["ignore"],
        interval_ms=parse_duration_ms(given["interval"]),
        label_delay_ms=parse_duration_ms(given["label_delay"]),
        timezone=given["timezone"],
        day_first=None if given["dates"] is None else given["dates"] == "day-first",
        decimal=given["decimal"],
        missing=given["missing"],
        types=feature_types(core) if core is not None else {},
        **more,
    )


def feature_types(core: CoreSettings) -> dict[str, str]:
    """
    Types of features, of all models together. If two models give a feature two types, its column
    decides.
    """
    found: dict[str, set[str]] = {}
    for model in (core.defaults, *core.models.values()):
        for name, feature in model.features.items():
            if feature.type != "auto":
                found.setdefault(name, set()).add(feature.type)
            elif feature.categories:
                found.setdefault(name, set()).add("category")
    return {name: types.pop() for name, types in found.items() if len(types) == 1}
