"""
The description of the input of a command: files, mapping, defaults.

Rule of the file: every error that shows without reading a file is refused here, with what to do
instead.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Literal, NamedTuple

from msgspec import Struct

from stream_monitor.errors import InputError
from stream_monitor.times import UNITS_MS

Format = Literal["csv", "jsonl", "parquet"]
STDIN = "-"
SUFFIXES = (".csv", ".jsonl", ".parquet")
FORMATS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
LABEL_FIELDS = ("event_id", "label", "timestamp", "model", "version", "prediction", "score")
PREDICTION_FIELDS = (
    "event_id",
    "model",
    "version",
    "timestamp",
    "prediction",
    "score",
    "features",
    "status",
    "latency_ms",
    "segments",
    "variant",
    "unit",
    "embedding",
)
PARENTS = ("features", "score", "segments")
"""Fields with inner fields, which a column names with a dot."""

DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")

Role = Literal["table", "predictions", "labels"]
FIELDS: dict[Role, frozenset[str]] = {
    "table": frozenset((*PREDICTION_FIELDS, "label")),
    "predictions": frozenset(PREDICTION_FIELDS),
    "labels": frozenset(LABEL_FIELDS),
}


class InputOptions(Struct, frozen=True, kw_only=True):
    """
    The input of `replay`, `produce` and `baseline build`.

    Either `table` (one plain table, `-` is JSON Lines on stdin), or `predictions` and/or `labels`.
    `maps` are `FIELD=COLUMN` or `FIELD=:VALUE` as written on the command line.
    """

    table: str | None = None
    predictions: str | None = None
    labels: str | None = None
    maps: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    interval_ms: int = 1_000
    label_delay_ms: int = 0
    model: str | None = None
    """Model of the rows of a table that do not name one; by default the stem of the file."""
    first_row: int = 1
    """Number of the first row of a table, if it continues another table."""
    timezone: str = "UTC"
    """Zone of times that do not name one."""
    day_first: bool | None = None
    """Order of dates such as 3/4/2025; None if the column decides."""
    decimal: Literal["point", "comma"] | None = None
    """Decimal mark of numbers in CSV; None if the columns decide."""
    missing: tuple[str, ...] = ()
    """Additional marks of missing values in CSV, in every column."""
    types: dict[str, str] = {}
    """Configured types of features."""
    fill_prediction: bool = False
    """
    Whether rows without prediction and score get the prediction 0, because only their features are
    needed.
    """
    live: bool = False
    """
    Whether stdin is read line by line as it arrives, in its own order. Otherwise it is first copied
    to a temporary file, so that it can be sorted.
    """


def parse_duration_ms(text: str) -> int:
    """
    Milliseconds of `50ms`, `1.5s`, `10m`, `24h`, `30d`.

    Raises
    ------
    InputError
        The text is not a duration.

    Examples
    --------
    >>> parse_duration_ms("1.5s"), parse_duration_ms("0s"), parse_duration_ms("2h")
    (1500, 0, 7200000)
    """
    found = DURATION.fullmatch(text.strip())
    if found is None:
        raise InputError(f"{text!r} is not a duration; write it like 250ms, 1s, 10m, 24h or 30d")
    return round(float(found[1]) * UNITS_MS[found[2]])


class Mapping(NamedTuple):
    """One `--map`; either `column` or `value` is given."""

    field: str
    column: str | None
    value: str | None

    def __str__(self) -> str:
        return (
            "--map "
            f"{self.field}={self.column if self.column is not None else ':' + (self.value or '')}"
        )


def did_you_mean(word: str, known: list[str]) -> str:
    """` Did you mean …?`, or an empty text."""
    close = get_close_matches(word, known, n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def is_field(field: str, role: Role) -> bool:
    """Whether an event of this role has this field; a dot goes one level down."""
    parent, dot, name = field.partition(".")
    return (
        field in FIELDS[role]
        if not dot
        else bool(name) and parent in PARENTS and parent in FIELDS[role]
    )


def parse_maps(maps: tuple[str, ...]) -> list[Mapping]:
    """
    Parse the `--map` options.

    Raises
    ------
    InputError
        `=` is missing, a field is unknown, or a field is there twice.

    Examples
    --------
    >>> parse_maps(("prediction=pred", "model=:churn"))
    [Mapping(field='prediction', column='pred', value=None), Mapping(field='model', column=None, value='churn')]
    """  # noqa: E501
    parsed: dict[str, Mapping] = {}
    for text in maps:
        field, equals, column = text.partition("=")
        if not equals or not field or not column:
            raise InputError(f"--map {text}: write FIELD=COLUMN, or FIELD=:VALUE for a constant")
        if not is_field(field, "table"):
            known = [*PREDICTION_FIELDS, "label", "features.NAME", "score.CLASS", "segments.NAME"]
            raise InputError(
                f"--map {text}: an event has no field {field!r}.{did_you_mean(field, known)} "
                f"The fields: {', '.join(known)}"
            )
        if field in parsed:
            raise InputError(f"--map {text}: {field!r} is mapped twice, first by {parsed[field]}")
        parsed[field] = (
            Mapping(field, None, column[1:])
            if column.startswith(":")
            else Mapping(field, column, None)
        )
    return list(parsed.values())


def parse_path(path: str) -> tuple[str, Format, bool]:
    """
    Stem, format and compression of a file, by its name.

    Raises
    ------
    InputError
        The suffix is not known.

    Examples
    --------
    >>> parse_path("data/churn.csv.gz")
    ('churn', 'csv', True)
    >>> parse_path("-")
    ('stdin', 'jsonl', False)
    """
    if path == STDIN:
        return "stdin", "jsonl", False
    name = path.replace("\\", "/").rpartition("/")[2]
    gzipped = name.endswith(".gz")
    plain = name.removesuffix(".gz")
    for suffix, kind in FORMATS.items():
        if plain.lower().endswith(suffix):
            return plain[: -len(suffix)], kind, gzipped
    raise InputError(
        f"{path}: cannot tell what it is; name it with one of {', '.join(SUFFIXES)} (and .gz "
        "when compressed), or give '-' for JSON Lines on stdin"
    )


def parse_files(options: InputOptions) -> list[tuple[Role, str]]:
    """
    The files with their roles, predictions before labels.

    Raises
    ------
    InputError
        There is no file, there are too many, or stdin is there twice.
    """
    if options.table is not None and (
        options.predictions is not None or options.labels is not None
    ):
        raise InputError(
            f"{options.table}: give one plain table alone, or --predictions and --labels, not both"
        )
    pairs: list[tuple[Role, str | None]] = [
        ("table", options.table),
        ("predictions", options.predictions),
        ("labels", options.labels),
    ]
    files = [(role, path) for role, path in pairs if path is not None]
    if not files:
        raise InputError(
            "no input: give FILE (a plain table), or --predictions FILE and --labels FILE"
        )
    if [path for _, path in files].count(STDIN) > 1:
        raise InputError("only one input can come from stdin")
    if options.interval_ms < 0 or options.label_delay_ms < 0:
        raise InputError("--interval and --label-delay cannot be negative")
    return files
