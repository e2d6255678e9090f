"""
The annotated tag of a version: its name, and the text of its message.

Rule of the file: pure, text in and text out. The name is that of GTO, `NAME@vMAJOR.MINOR.PATCH`,
so that `gto show` and `dvc get --rev` read it. A message by others is read as far as it goes.

A version number is compared as numbers:

>>> sorted(["v0.10.0", "v0.9.0"], key=number_of)
['v0.9.0', 'v0.10.0']
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

import msgspec

from stream_monitor.errors import UNREADABLE, InputError
from stream_monitor.lifecycle_settings import ARTIFACT, ARTIFACT_MAX

Number = tuple[int, int, int]
Part = Literal["major", "minor", "patch"]
FIRST: Number = (1, 0, 0)
VERSION = re.compile(r"v(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})")
HASH = re.compile(r"[a-z0-9]+:[0-9a-f]{16,128}(?:\.dir)?")
RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")
LIKE_A_FIELD = re.compile(r"rows=|range=|\./")


class Content(NamedTuple):
    """A file, or a directory, by its hash."""

    path: str
    hash: str
    """`md5:…` of DVC, `git:…` of a blob."""
    rows: int | None = None
    range: tuple[str, str] | None = None
    """Time of its first and its last row, RFC 3339."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """What the message of a tag says."""

    subject: str
    run: str | None = None
    data: tuple[Content, ...] = ()
    model: tuple[Content, ...] = ()
    metrics: dict[str, float] = {}
    reference: str = ""
    """Id of the baseline profile."""
    reason: str = ""


class Tag(msgspec.Struct, frozen=True, kw_only=True):
    """A version, as git has it."""

    artifact: str
    version: str
    revision: str
    """The commit."""
    message: Message
    by: str = ""
    at: str = ""
    """RFC 3339."""

    @property
    def name(self) -> str:
        """Name of the tag."""
        return f"{self.artifact}@{self.version}"


def artifact_of(model: str, configured: str | None = None) -> str:
    """
    The name before the @ in tags of a model.

    Raises
    ------
    InputError
        GTO or git would not take it.

    Examples
    --------
    >>> artifact_of("churn"), artifact_of("Churn, v2", "churn")
    ('churn', 'churn')
    >>> artifact_of("churn.v2")
    Traceback (most recent call last):
    stream_monitor.errors.InputError: 'churn.v2' cannot be the name of a tag: expected letters, \
digits, `-`, `_` and `/`, with a letter or digit at both ends; say in the configuration how tags \
are called: lifecycle: {models: {'churn.v2': {repository: ., artifact: 'churn-v2'}}}
    """
    name = configured or model
    if not ARTIFACT.fullmatch(name) or "//" in name or len(name) > ARTIFACT_MAX:
        fit = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:ARTIFACT_MAX] or "model"
        raise InputError(
            f"{name!r} cannot be the name of a tag: expected letters, digits, `-`, `_` and `/`, "
            "with a letter or digit at both ends; say in the configuration how tags are called: "
            f"lifecycle: {{models: {{{model!r}: {{repository: ., artifact: {fit!r}}}}}}}"
        )
    return name


def shown(value: float) -> str:
    """
    A metric for people: four digits, and prices and counts without an exponent.

    >>> shown(0.83333), shown(48_838.99), shown(3.2e-7), shown(-12_345.6)
    ('0.8333', '48,839', '3.2e-07', '-12,346')
    """
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e12 else f"{value:.4g}"


def number_of(version: str) -> Number:
    """
    The number of a version.

    >>> number_of("v1.10.0")
    (1, 10, 0)

    Raises
    ------
    InputError
        It is none.
    """
    found = VERSION.fullmatch(version)
    if found is None:
        raise InputError(f"{version!r} is not a version such as v1.2.0")
    major, minor, patch = map(int, found.groups())
    return major, minor, patch


def in_order(versions: Iterable[str]) -> list[str]:
    """
    Versions by their numbers; what is no number comes last.

    >>> in_order({"v1.10.0", "v1.9.0", "old"})
    ['v1.9.0', 'v1.10.0', 'old']
    """
    return sorted(versions, key=lambda v: (0, number_of(v), v) if VERSION.fullmatch(v) else (1, v))


def following(versions: list[str], part: Part) -> str:
    """
    The version after the highest of some.

    >>> (
    ...     following(["v1.9.0", "v1.10.3"], "minor"),
    ...     following(["v1.9.0"], "major"),
    ...     following([], "patch"),
    ... )
    ('v1.11.0', 'v2.0.0', 'v1.0.0')
    """
    if not versions:
        major, minor, patch = FIRST
    else:
        major, minor, patch = max(map(number_of, versions))
        major, minor, patch = {
            "major": (major + 1, 0, 0),
            "minor": (major, minor + 1, 0),
            "patch": (major, minor, patch + 1),
        }[part]
    return f"v{major}.{minor}.{patch}"


def split(name: str) -> tuple[str, str] | None:
    """
    Artifact and version of the name of a tag; None if it is another tag.

    >>> split("churn@v1.2.0"), split("churn#prod#1"), split("churn@v1.2.0!"), split("v1.2.0")
    (('churn', 'v1.2.0'), None, None, None)
    """
    artifact, at, version = name.partition("@")
    if not at or not ARTIFACT.fullmatch(artifact) or not VERSION.fullmatch(version):
        return None
    return artifact, version


def written(message: Message) -> str:
    r"""
    The text of a message.

    Raises
    ------
    InputError
        A path or a hash cannot stand in it.

    Examples
    --------
    >>> said = Message(
    ...     subject="churn v1.2.0: accuracy 0.91",
    ...     run="9f31c2",
    ...     data=(Content("data/train.parquet", "md5:" + "ab" * 16, 5_000),),
    ...     metrics={"accuracy": 0.91},
    ... )
    >>> print(written(said))
    churn v1.2.0: accuracy 0.91
    <BLANKLINE>
    Run: 9f31c2
    Data: md5:abababababababababababababababab rows=5000 data/train.parquet
    Metrics: {"accuracy":0.91}
    <BLANKLINE>
    >>> read(written(said)) == said
    True
    """
    metrics = msgspec.json.encode(message.metrics, order="sorted").decode()
    lines = [
        ("Run", message.run or ""),
        *(("Data", _content(c)) for c in message.data),
        *(("Model", _content(c)) for c in message.model),
        ("Metrics", metrics if message.metrics else ""),
        ("Reference", message.reference),
        ("Reason", one_line(message.reason)),
    ]
    told = "".join(f"{key}: {value}\n" for key, value in lines if value)
    return f"{one_line(message.subject)}\n\n{told}"


def read(text: str) -> Message:
    """
    A message, as far as it can be understood; a tag by `git tag` or `gto` has only a subject.

    >>> read("Registering artifact churn version v1.0.0").subject
    'Registering artifact churn version v1.0.0'
    """
    subject, _, rest = text.partition("\n")
    fields: dict[str, list[str]] = {}
    for line in rest.splitlines():
        key, colon, value = line.partition(": ")
        if colon:
            fields.setdefault(key, []).append(value.strip())
    one = {key: values[0] for key, values in fields.items()}
    run = one.get("Run", "")
    return Message(
        subject=subject.strip(),
        run=run if RUN.fullmatch(run) else None,
        data=tuple(filter(None, map(_read_content, fields.get("Data", [])))),
        model=tuple(filter(None, map(_read_content, fields.get("Model", [])))),
        metrics=_read_metrics(one.get("Metrics", "")),
        reference=one.get("Reference", ""),
        reason=one.get("Reason", ""),
    )


def one_line(text: str) -> str:
    r"""
    Text without line ends and control characters.

    >>> one_line("lower bound +0.031\n after 212 labels\x1b")
    'lower bound +0.031 after 212 labels'
    """
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def finite(metrics: Mapping[str, object]) -> dict[str, float]:
    """
    Numbers of nested objects, by dotted names; what is no finite number is left out.

    >>> finite({"accuracy": 0.9, "test": {"f1": 1}, "ok": True, "auc": float("nan"), "by": "ana"})
    {'accuracy': 0.9, 'test.f1': 1.0}
    """
    found: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{inner}": v for inner, v in finite(value).items()}
        elif isinstance(value, int | float) and not isinstance(value, bool):
            try:
                number = float(value)
            except OverflowError:
                continue
            if math.isfinite(number):
                found[one_line(str(name))] = number
    return found


def _content(content: Content) -> str:
    if not content.path.isprintable() or content.path != content.path.strip():
        raise InputError(f"{content.path!r} cannot stand in a tag; give the file another name")
    if not HASH.fullmatch(content.hash):
        raise InputError(f"{content.path}: {content.hash!r} is not a hash such as md5:…")
    rows = "" if content.rows is None else f"rows={content.rows} "
    times = "" if content.range is None else f"range={content.range[0]}/{content.range[1]} "
    path = f"./{content.path}" if LIKE_A_FIELD.match(content.path) else content.path
    return f"{content.hash} {rows}{times}{path}"


_CONTENT = re.compile(
    rf"({HASH.pattern}) (?:rows=(\d{{1,15}}) )?(?:range=([0-9TZ:.+-]+)/([0-9TZ:.+-]+) )?(.+)"
)


def _read_content(line: str) -> Content | None:
    found = _CONTENT.fullmatch(line)
    if found is None:
        return None
    known, rows, first, last, path = found.groups()
    path = path.removeprefix("./")
    return Content(path, known, int(rows) if rows else None, (first, last) if first else None)


def _read_metrics(text: str) -> dict[str, float]:
    try:
        return finite(msgspec.json.decode(text or "{}", type=dict[str, object]))
    except UNREADABLE:
        return {}
