"""
`stream-monitor models compare`: two models on the same labelled rows, as people and CI read it.

Rule of the file: options and lines; `lifecycle.champion` decides. The gate fails if it could not be
judged: a check that passes without data is none.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import click

from stream_monitor.cli import models_metrics, models_project
from stream_monitor.cli.terminal import readable
from stream_monitor.errors import InputError
from stream_monitor.inputs.options import did_you_mean
from stream_monitor.lifecycle_settings import Decide

WIDTH = 41
"""Characters of the picture; odd, so that 0 has one in the middle."""
DEFAULT = Decide()


@click.command()
@click.argument("versions", nargs=-1, metavar="[A B]")
@click.option(
    "--predictions",
    nargs=2,
    metavar="CHAMPION CHALLENGER",
    help="Predictions of both on the same held-out rows, with labels: .csv, .jsonl or .parquet "
    "(.gz too). Rows are matched by event_id (or id), without it by their order.",
)
@click.option("--anchor", metavar="FILE", help="The same of the anchor; --rule not-worse needs it.")
@click.option(
    "--metric",
    default=DEFAULT.metric,
    show_default=True,
    metavar="NAME",
    help="accuracy, error_rate, brier, absolute_error, squared_error, precision, recall, f1, "
    "roc_auc, log_loss, rmse or r2.",
)
@click.option(
    "--rule",
    type=click.Choice(["better", "not-worse"]),
    default="better",
    show_default=True,
    help="What promotes: the lower bound of the difference is above 0, or above minus --margin "
    "against champion and anchor.",
)
@click.option(
    "--margin",
    type=click.FloatRange(0),
    default=DEFAULT.margin,
    show_default=True,
    help="The largest loss that does not matter, for --rule not-worse.",
)
@click.option(
    "--alpha",
    type=click.FloatRange(0, 0.5, min_open=True),
    default=DEFAULT.alpha,
    show_default=True,
    help="Chance to call an equal challenger better.",
)
@click.option(
    "--challengers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="How many are compared with this champion; --alpha is divided by it.",
)
@click.option(
    "--min-rows",
    type=click.IntRange(2),
    default=DEFAULT.min_rows,
    show_default=True,
    help="Fewer labelled rows are not judged, and fail the gate.",
)
@click.option("--unit", metavar="COLUMN", help="Rows of one unit belong together. [default: unit]")
@click.option(
    "--segments", multiple=True, metavar="COLUMN", help="No value of it may be harmed; repeatable."
)
@click.option(
    "--segment-margin",
    type=click.FloatRange(0),
    default=DEFAULT.segment_margin,
    show_default=True,
    help="The largest loss of a segment that does not matter.",
)
@click.option("--positive", metavar="CLASS", help="The positive class. [default: by its name]")
@click.option(
    "--map", "maps", multiple=True, metavar="FIELD=COLUMN", help="Column to use for a field."
)
@click.option("--run", default="0", metavar="ID", help="Seed of the bootstrap.")
@click.option(
    "--fail-on",
    type=click.Choice(["worse", "not-better"]),
    help="Exit 1 if it is shown to be worse (or a segment, or latency), or unless --rule promotes "
    "it. Rows that cannot be judged fail both.",
)
@click.option("--offline", is_flag=True, help="A and B: ask neither Kafka nor the remote of git.")
@models_project.options
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def compare(
    versions: tuple[str, ...],
    predictions: tuple[str, str] | None,
    maps: tuple[str, ...],
    fail_on: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """
    Compare two models on the same rows, or by their registered metrics.

    With --predictions: rows of one unit are summed first. The bounds are those of the paired
    difference; above 0 the challenger is better, whatever the metric.

    A and B are versions (v1.2.0, champion, challenger, latest), commits (HEAD) or `workspace`. If
    both have the file `decide.challenger` of the same rows (by event_id and label), their paired
    difference decides. Otherwise only their metrics do, each measured on its own rows; --metric is
    the one that --fail-on looks at.

    \b
    Examples:
      stream-monitor models compare --predictions champion.csv challenger.csv --unit user
      stream-monitor models compare --predictions a.parquet b.parquet --segments country --fail-on worse
      stream-monitor models compare champion HEAD --fail-on worse
    """  # noqa: D301, E501
    from stream_monitor.lifecycle.champion import decide

    if predictions is None or versions:
        _by_metrics(versions, predictions, fail_on, as_json=as_json, **given)
        return
    settings = Decide(
        metric=given["metric"],
        rule="better" if given["rule"] == "better" else "not worse",
        margin=given["margin"],
        alpha=given["alpha"],
        min_rows=given["min_rows"],
        segments=tuple(dict.fromkeys(given["segments"])),
        segment_margin=given["segment_margin"],
        unit=given["unit"],
        positive_class=given["positive"],
    )
    found = decide(
        *predictions,
        settings,
        given["run"],
        anchor_file=given["anchor"],
        challengers=given["challengers"],
        columns=_columns(maps),
    )
    found["failed"] = fails(found, fail_on)
    if as_json:
        click.echo(json.dumps(found))
    else:
        for line in lines(found):
            click.echo(readable(line))
    if found["failed"]:
        click.echo(f"failed: --fail-on {fail_on}", err=True)
        sys.exit(1)


def _by_metrics(
    versions: tuple[str, ...],
    predictions: tuple[str, str] | None,
    fail_on: str | None,
    *,
    as_json: bool,
    **given: Any,
) -> None:
    if len(versions) != 2 or predictions is not None:
        raise InputError("compare two versions, A and B, or two files: --predictions A B")
    of = models_project.chosen(given["config"], given["model"], given["repository"], versions[0])
    settings = _settings_of(of, given)
    a, b = (models_metrics.side_of(v, of, offline=given["offline"]) for v in versions)
    paired, why_not = _paired(of, a, b, settings, given["challengers"])
    if paired is not None:
        paired["failed"] = fails(paired, fail_on)
    found = models_metrics.compared(a, b, settings.metric, fail_on, paired, why_not)
    if as_json:
        click.echo(json.dumps(found))
    else:
        for line in (*models_metrics.lines(found), *(lines(paired) if paired is not None else ())):
            click.echo(readable(line))
    if found["failed"]:
        click.echo(f"failed: --fail-on {fail_on}: {found['metric']}", err=True)
        sys.exit(1)


def _settings_of(of: models_project.Chosen, given: Mapping[str, Any]) -> Decide:
    """What the configuration of the model says under `decide`, and before it the options."""
    import msgspec

    loop = of.settings.lifecycle.models.get(of.model)
    source = click.get_current_context().get_parameter_source
    options = {
        "metric": given["metric"],
        "rule": "better" if given["rule"] == "better" else "not worse",
        "margin": given["margin"],
        "alpha": given["alpha"],
        "min_rows": given["min_rows"],
        "segments": tuple(dict.fromkeys(given["segments"])),
        "segment_margin": given["segment_margin"],
        "unit": given["unit"],
        "positive_class": given["positive"],
    }
    names = {"positive_class": "positive"}
    said = {
        k: v
        for k, v in options.items()
        if source(names.get(k, k)) != click.core.ParameterSource.DEFAULT
    }
    base = loop.decide if loop is not None else DEFAULT
    # the rule of the model may need an anchor, whose answers nobody has here
    return msgspec.structs.replace(base, **{"rule": "better", **said})


def _paired(
    of: models_project.Chosen,
    a: models_metrics.Side,
    b: models_metrics.Side,
    settings: Decide,
    challengers: int,
) -> tuple[dict[str, Any] | None, str]:
    """Their difference on the same rows, or why there is none."""
    from stream_monitor.lifecycle import same_rows

    first, second = (same_rows.Of(side.name, side.revision) for side in (a, b))
    try:
        return same_rows.compared(of.repository, first, second, settings, challengers), ""
    except same_rows.NotTheSameError as e:
        return None, str(e)


def fails(found: Mapping[str, Any], fail_on: str | None) -> bool:
    """
    Whether the gate fails.

    Parameters
    ----------
    found : mapping
        What `decide` returned.
    fail_on : {"worse", "not-better"} or None

    Examples
    --------
    >>> found = {"decision": "reject", "rows": 900, "upper": 0.01, "guards": {}, "segments": []}
    >>> fails(found, "worse"), fails(found, "not-better"), fails(found | {"upper": -0.01}, "worse")
    (False, True, True)
    """
    if fail_on is None or found["decision"] == "promote":
        return False
    if fail_on == "not-better" or found["decision"] == "inconclusive":
        return True
    return (
        found["upper"] < 0
        or any(not guard["passed"] for guard in found["guards"].values())
        or any(segment["verdict"] == "harmful" for segment in found["segments"])
    )


def lines(found: Mapping[str, Any]) -> list[str]:
    """What was found, for a terminal."""
    confidence = f"{1 - found['alpha']:.4g}"
    rows = [(found["metric"], found), *((_named(s), s) for s in found["segments"])]
    if found["anchor"] is not None:
        rows.insert(1, ("against the anchor", found["anchor"]))
    ends = [abs(of[k]) for _, of in rows for k in ("lower", "upper") if of[k] is not None]
    scale = max([1.1 * end for end in ends] + [1.1 * found["margin"]]) or 1.0
    width = max(len(name) for name, _ in rows)
    middle = (WIDTH - 1) // 2
    out = [
        (
            f"champion {_text(found['champion'])}, challenger {_text(found['challenger'])}: "
            f"{found['rows']:,} rows, {found['units']:,} units, each bound at {confidence}"
        ),
        f"{'':{width}}  {'worse':<{middle}}0{'better':>{middle}}",
    ]
    out += [
        f"{name:{width}}  {picture(of['lower'], of['difference'], of['upper'], scale)}  "
        f"{_signed(of['difference'])} [{_signed(of['lower'])}, {_signed(of['upper'])}]"
        + (f"  {of['rows']:,} rows, {of['verdict']}" if "verdict" in of else "")
        for name, of in rows
    ]
    if found["segments_left_out"]:
        out.append(f"{found['segments_left_out']:,} more segments are not shown")
    for name, guard in found["guards"].items():
        if "limit" in guard:
            out.append(
                f"{name}: {guard['challenger']:g} against {guard['champion']:g}, at most "
                f"{guard['limit']:g} times: {'passed' if guard['passed'] else 'failed'}"
            )
    if found["unlabelled"]:
        out.append(f"{found['unlabelled']:,} rows have no label and were left out")
    return [*out, f"{found['decision']}: {found['reason']}"]


def picture(lower: float | None, gain: float | None, upper: float | None, scale: float) -> str:
    """
    An interval as text, from minus `scale` to `scale`.

    >>> picture(-0.25, 0.25, 0.5, 1.0)
    '---------------[====|====o====]----------'
    """
    if lower is None or gain is None or upper is None:
        return f"{'not defined':^{WIDTH}}"
    half = (WIDTH - 1) // 2
    start, point, end = (half + round(half * x / scale) for x in (lower, gain, upper))
    cells = ["=" if start < i < end else "-" for i in range(WIDTH)]
    cells[half] = "|"
    cells[start], cells[end] = "[", "]"
    cells[point] = "o"
    return "".join(cells)


def _named(segment: Mapping[str, Any]) -> str:
    return f"{segment['segment']}={segment['value']}"


def _text(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.4g}"


def _signed(value: float | None) -> str:
    return "?" if value is None else f"{value:+.4g}"


def _columns(maps: tuple[str, ...]) -> dict[str, str]:
    from stream_monitor.lifecycle.prediction_files import COLUMNS

    found: dict[str, str] = {}
    for text in maps:
        field, equals, column = text.partition("=")
        field = "id" if field == "event_id" else field
        if not equals or not column:
            raise InputError(f"--map {text}: write FIELD=COLUMN")
        if field not in COLUMNS:
            raise InputError(
                f"--map {text}: no field {field!r}.{did_you_mean(field, list(COLUMNS))} The "
                f"fields: {', '.join(COLUMNS)}"
            )
        found[field] = column
    return found
