"""
`stream-monitor experiment`: its commands, and `compare`.

Rule of the file: it reads options and prints; `offline.results` reads files and
`offline.comparison` computes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

from stream_monitor.cli import experiment_control, experiment_plan
from stream_monitor.errors import InputError

if TYPE_CHECKING:
    from stream_monitor.offline.comparison import ArmNumbers, Comparison, Effect


@click.group()
def command() -> None:
    """
    Plan, start, change, watch and stop experiments; compare two models on results.

    \b
    Examples:
      stream-monitor experiment plan --metric accuracy --effect 0.02 --mean 0.9
      stream-monitor experiment start fraud-17.json
      stream-monitor experiment change fraud-17 --weights control=95,b=5
      stream-monitor experiment status fraud-17
      stream-monitor experiment stop fraud-17 --keep control
      stream-monitor experiment compare results.csv
    """  # noqa: D301  \b is how click keeps lines apart


for _each in (experiment_plan.plan, *experiment_control.COMMANDS):
    command.add_command(_each)


@command.command()
@click.argument("file")
@click.option(
    "--control",
    metavar="NAME",
    help="Column of the control, or its name in the column of variants.",
)
@click.option("--arm", metavar="NAME", help="Column or name of what is compared with it.")
@click.option(
    "--variant",
    metavar="COLUMN",
    help="Column that says which arm a row is of. [default: variant, arm or group]",
)
@click.option(
    "--value",
    metavar="COLUMN",
    help="Column of the results beside --variant. [default: value, outcome or result]",
)
@click.option(
    "--unit",
    metavar="COLUMN",
    help="Column of users or sessions: results of one unit belong together. "
    "[default: unit, unit_id, user or user_id]",
)
@click.option(
    "--effect",
    type=float,
    metavar="NUMBER",
    help="Least difference that matters, fixed before the experiment; shapes the sequence. "
    "[default: 0.2 standard deviations of the control]",
)
@click.option(
    "--alpha",
    type=float,
    default=0.05,
    show_default=True,
    metavar="NUMBER",
    help="Chance that the sequence is ever wrong.",
)
@click.option(
    "--decimal",
    type=click.Choice(["point", "comma"]),
    help="The decimal mark of numbers in CSV.  [default: what the columns tell]",
)
@click.option(
    "--missing", multiple=True, metavar="MARK", help="Another mark of missing values in CSV."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def compare(file: str, effect: float | None, alpha: float, as_json: bool, **choice: Any) -> None:
    """
    Compare two arms: Welch's t, p, Cohen's d, and the confidence sequence.

    FILE is .csv, .jsonl or .parquet (.gz too); - is JSON Lines on stdin. It has one column of
    results an arm, of any lengths (cells may be empty), or a column of variants and one of values.
    Results are numbers, or true and false. With a column of units, the results of one unit (a user,
    a session) count together as one independent observation.

    \b
    Examples:
      stream-monitor experiment compare results.csv
      stream-monitor experiment compare results.csv --control model_a --arm model_b --effect 0.02
      stream-monitor experiment compare events.jsonl --variant model --value correct --unit user
      stream-monitor experiment compare ergebnisse.csv --decimal comma --json
    """  # noqa: D301
    from stream_monitor.offline.comparison import compare as compared
    from stream_monitor.offline.result_columns import Choice
    from stream_monitor.offline.results import read_results

    if effect is not None and not 0 < effect < math.inf:
        raise InputError(f"--effect {effect:g}: expected a number above 0, such as 0.02")
    if not 0 < alpha < 1:
        raise InputError(f"--alpha {alpha:g}: expected a number between 0 and 1, such as 0.05")
    results = read_results(file, Choice(**choice))
    found = compared(results, effect, alpha)
    if as_json:
        import msgspec

        told = {"file": file, **msgspec.to_builtins(found), "notes": results.notes}
        click.echo(msgspec.json.format(msgspec.json.encode(told), indent=2))
        return
    for line in sentences(found, results.notes):
        click.echo(line)


def sentences(found: Comparison, notes: list[str]) -> list[str]:
    """A comparison for people."""
    from stream_monitor.cli.terminal import readable

    arms = [found.control, found.arm]
    width = max(len(a.name) for a in arms)
    lines = [*map(_arm, arms, ["control", "arm"], [width] * 2), "", *_planned(found), ""]
    lines += [*_sequence(found), *([""] if notes else [])]
    lines += [f"note: {note}" for note in notes]
    if found.units_are_rows:
        lines.append(
            "note: every row counts as independent; if rows belong to users or sessions, name "
            "that column with --unit, because p is far too small otherwise"
        )
    if found.moved_share > 0.01:
        lines.append(
            f"warning: {found.moved_share:.1%} of the rows are of units that were in both arms; "
            "above 1 % the assignment is broken, and no number here can be trusted"
        )
    return [readable(line) for line in lines]


def _arm(arm: ArmNumbers, role: str, width: int) -> str:
    units = "" if arm.units == arm.n else f" of {arm.units:,} units"
    spread = "" if arm.sd is None else f", standard deviation {arm.sd:.4g}"
    return f"{role:<8} {arm.name:<{width}}  n {arm.n:,}{units}, mean {arm.mean:.6g}{spread}"


def _planned(found: Comparison) -> list[str]:
    look = found.one_planned_look
    lines = [
        f"{found.arm.name} - {found.control.name}: {found.difference:+.4g}",
        "",
        "Valid at one planned look. Watched again and again, these numbers are wrong in about half",
        "of all experiments whose arms are equal:",
    ]
    if look.t is None or look.df is None or look.p is None:
        lines.append("  Welch's t is not defined: it needs two units an arm, and some spread.")
    else:
        lines.append(f"  Welch's t {look.t:.4g}, df {look.df:,.1f}, p {look.p:.3g}")
    if look.z is not None and look.p_of_z is not None:
        lines.append(f"  two proportions, pooled: z {look.z:.4g}, p {look.p_of_z:.3g}")
    for name, size in (("d", look.cohens_d), ("h", look.cohens_h)):
        if size is not None:
            lines.append(f"  Cohen's {name} {_interval(size)}, 95 % interval")
    return lines


def _interval(size: Effect) -> str:
    return f"{size.estimate:+.3g} [{size.low:+.3g}, {size.high:+.3g}]"


def _sequence(found: Comparison) -> list[str]:
    look, names = found.every_look, (found.arm.name, found.control.name)
    if look.low is None or look.high is None or look.effect is None:
        return ["No confidence sequence: it needs two units an arm, and some spread."]
    why = (
        "as --effect says"
        if look.effect_from == "--effect"
        else f"{look.effect_from}, because --effect was not given; not taken from the difference"
    )
    lines = [
        f"Valid at every look ({100 * (1 - look.alpha):.6g} % confidence sequence):",
        f"  difference {found.difference:+.4g} [{look.low:+.4g}, {look.high:+.4g}]",
        f"  least effect that matters: {look.effect:.4g} ({why})",
    ]
    if look.waits_for is not None:
        return [*lines, f"  Not to be judged yet. It waits for {look.waits_for}."]
    if look.low > 0 or look.high < 0:
        higher, lower = names if look.low > 0 else names[::-1]
        return [*lines, f"  {higher} has the higher mean, {lower} the lower one."]
    return [*lines, "  It does not say which arm has the higher mean: 0 is in the interval."]
