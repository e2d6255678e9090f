"""
`stream-monitor quality check`: a gate before a training, and in CI.

Rule of the file: the exit code is the verdict, 0 or 1; 2 is a file or rule that cannot be used.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stream_monitor.cli.terminal import readable
from stream_monitor.errors import InputError

if TYPE_CHECKING:
    from stream_monitor.training.quality import Report
    from stream_monitor.training.quality_rules import Rules


@click.group()
def command() -> None:
    """
    Check a file: may a model be trained on it?

    \b
    Examples:
      stream-monitor quality check data/collected.parquet --model fraud
      stream-monitor quality check train.csv --rules rules.yaml --json
    """  # noqa: D301


@command.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--model",
    metavar="NAME",
    help="Model whose `features` in monitor.yaml are rules. [default: `defaults`]",
)
@click.option(
    "--rules",
    "rules_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="YAML with more rules, and with commands.",
)
@click.option(
    "--reference",
    type=click.Path(dir_okay=False),
    help="Profile of `baseline build` that the columns must fit.",
)
@click.option(
    "--max-missing",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="The share of missing values must be less. [default: 0.1]",
)
@click.option("--min-rows", type=click.IntRange(min=0), metavar="N", help="[default: 2]")
@click.option("--label", metavar="COLUMN", help="The label. [default: label, or one like it]")
@click.option("--no-label", is_flag=True, help="Ask nothing of a label.")
@click.option(
    "--ignore",
    multiple=True,
    metavar="COLUMN",
    help="Ask nothing of this column.",
)
@click.option(
    "--fail-on",
    multiple=True,
    metavar="RULE",
    help="Kind of rule that counts: missing, type, range …; the others are only told. "
    "[default: all]",
)
@click.option(
    "--config",
    type=click.Path(dir_okay=False),
    help="The configuration. [default: ./monitor.yaml if it exists]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def check(
    file: Path,
    *,
    model: str | None,
    rules_file: Path | None,
    reference: str | None,
    max_missing: float | None,
    min_rows: int | None,
    label: str | None,
    no_label: bool,
    ignore: tuple[str, ...],
    fail_on: tuple[str, ...],
    config: str | None,
    as_json: bool,
) -> None:
    """
    Say of each rule whether FILE keeps it. Exit codes: 0 all do; 1 one does not.

    FILE is CSV, JSON Lines or Parquet. Without any rules: less than 10 % of the values of a column are missing, a column has one kind of values, and the label is there and not always the same.

    \b
    Examples:
      stream-monitor quality check train.csv --label churned --max-missing 0.05
      stream-monitor quality check data/collected.parquet --model fraud --reference profile.json
      stream-monitor quality check train.csv --rules rules.yaml --fail-on missing --fail-on label
    """  # noqa: D301, E501
    import msgspec

    from stream_monitor.config.baseline_files import read_profile
    from stream_monitor.training.quality import as_fail_on
    from stream_monitor.training.quality import check as checked

    if label is not None and no_label:
        raise InputError("--label and --no-label exclude each other")
    rules = _rules(config, model, rules_file)
    given = {"max_missing": max_missing, "min_rows": min_rows, "label": label}
    rules = msgspec.structs.replace(rules, **{k: v for k, v in given.items() if v is not None})
    if no_label:
        rules = msgspec.structs.replace(rules, label=None)
    rules = msgspec.structs.replace(rules, ignore=(*rules.ignore, *ignore))
    profile = None if reference is None else read_profile(reference)
    report = checked(file, rules, profile, fail_on=as_fail_on(fail_on))
    if as_json:
        click.echo(msgspec.json.encode(report))
    else:
        _show(report)
    sys.exit(0 if report.passed else 1)


def _rules(config: str | None, model: str | None, file: Path | None) -> Rules:
    from stream_monitor.config import load
    from stream_monitor.inputs.options import did_you_mean
    from stream_monitor.training.quality_rules import of_model, read_rules

    settings = load(config, os.environ)
    core = settings.core
    known = sorted({*core.models, *settings.lifecycle.models})
    if model is not None and model not in known:
        there = ", ".join(known) or "no model at all"
        where = config or "monitor.yaml"
        raise InputError(
            f"--model {readable(model)}: the configuration ({where}) has no such model, but "
            f"{there}.{did_you_mean(model, known)} Name one that it has, give --config, or leave "
            "--model out: then the rules are those of `defaults`"
        )
    rules = of_model(core.defaults if model is None else core.of(model))
    return rules if file is None else read_rules(file, rules)


def _show(report: Report) -> None:
    """Broken rules first, one a line; of the others only their number."""
    broken = [v for v in report.verdicts if not v.passed]
    for verdict in broken:
        where = "" if verdict.column is None else f" {verdict.column}"
        click.echo(
            readable(f"broken: {verdict.rule}{where}: {' | '.join(verdict.text.splitlines())}")
        )
    for note in report.notes:
        click.echo(readable(f"note: {note}"), err=True)
    kept = len(report.verdicts) - len(broken)
    click.echo(
        readable(
            f"{report.file}: {'good' if report.passed else 'not good'} for training; "
            f"{report.rows:,} rows, {kept} rules kept, {len(broken)} broken"
        )
    )
