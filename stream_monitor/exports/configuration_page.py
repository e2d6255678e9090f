"""
`docs/configuration.md`, generated from the rules of `monitor.yaml` and the defaults of the
settings.

Rule of the file: a page that is written by hand is wrong after the next change. `python -m
stream_monitor.exports.configuration_page > docs/configuration.md` writes it anew, and a test holds
the two equal.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

import msgspec

from stream_monitor.config import PREFIX, forms, ranges, rules
from stream_monitor.config.checker import Key, keys_of
from stream_monitor.config.forms import OFF
from stream_monitor.config.rules import RULES, TOP, Rule
from stream_monitor.config.shorthand import duration_text
from stream_monitor.detectors.base import METHODS
from stream_monitor.settings import CustomMetric, Feature, Frozen, Secret, Segment, Threshold

INTRODUCTION = f"""\
# Configuration

<!-- Generated: python -m stream_monitor.exports.configuration_page > docs/configuration.md -->

Nothing has to be configured: without a file every model that is seen is monitored, and its baseline is learnt from its first rows. What is known of models goes into `monitor.yaml`:

    stream-monitor config init                            # a commented file to begin with
    stream-monitor config check                           # everything that is wrong, with line and suggestion; exit 2
    stream-monitor config schema > monitor.schema.json    # JSON Schema, for editors

```yaml
kafka: {{bootstrap_servers: "kafka-1:9092,kafka-2:9092"}}
defaults:
  windows: [last_1000, 1h, 24h]
  drift: {{thresholds: {{psi: 0.25}}}}
models:
  fraud:
    task: binary
    thresholds: {{accuracy: {{min: 0.9, severity: critical}}}}
  eta:
    task: regression
    thresholds: {{mae: 4.5}}
```

A longer one is [examples/monitor.yaml](../examples/monitor.yaml).

## Where settings come from
1. `--config FILE`, else `./monitor.yaml` if it is there, else the defaults below.
2. Environment variables over it: `{PREFIX}` and the path joined by two underscores, in capitals or not. The value is YAML: `{PREFIX}DEFAULTS__WINDOWS='[last_500, 1h]'`. An empty one is as good as not set (but makes a text empty), and a deeper path wins over a shallower one.
3. A name that ends in `_FILE` reads the value from a file, for secrets: `{PREFIX}KAFKA__SECURITY__PASSWORD_FILE=/run/secrets/kafka`. A secret does not stand in the file at all, and is never shown.

`NAME` in a variable is a name of your own (a model, a feature). It is matched with the names of the file in any case; a new one that is all capitals becomes lower case.

Everything that is wrong is told at once, before any connection is made:

    monitor.yaml:3: defaults.windws: unknown key; did you mean 'windows'?
    monitor.yaml:5: models.fraud.thresholds.accuracy.min: a number is expected (got '80%'); did you mean '0.8'?

## How to read the tables
- A duration is `50ms`, `2s`, `10m`, `24h` or `30d`. `off` switches off what may be off.
- A section under `models.NAME` is laid over that under `defaults`, mapping by mapping; lists and single values are replaced whole. A key that is empty (null) has its default.
- A changed configuration counts when a worker starts: [what goes on and what begins anew](#what-a-change-does).

## What a change does
Everything goes on where it was, and new limits count from then on, but for what was counted in another way: that begins anew.
The worker's log names each part with its keys, `doctor` and `anew` in the summary of a shard repeat it. A monitor that was
off is tried again. The order of keys, and of lists whose order means nothing, changes nothing.

| key | what begins anew when it changes |
|---|---|
| `task`, `positive_class` | performance with its slices and the detectors on errors; nothing if it says what was found out already |
| `windows` | the trend, when the smallest `last_N` changes; a longer window grows from the rows that are kept |
| `baseline.source`, `baseline.path` | the baseline of the features, when it is another one |
| `baseline.rows` | baselines that were learnt, and the level of performance |
| `features.NAME.type`, `limits.features`, `limits.categories` | the baseline that was learnt, when it is not what would be learnt now |
| `features.NAME.min`, `max`, `categories` | the statistics of this feature |
| `anomalies.fence`, `reference`, `trailing_rows` | the statistics of numeric features, and the hours of earlier days |
| `segments` | slices whose `cut` changes |
| `metrics.custom.NAME` | the metric, when its type, field, labels or buckets change |
| `drift.errors`, `score`, `prediction`, `features` | detectors whose parameters change, but for `threshold` and `min_instances` of Page-Hinkley; an open episode goes on |
| `labels.max_delay` | nothing: what waits gets the new delay, and what has expired stays so |
| `limits.models`, `limits.versions` | nothing: who has a place keeps it |
| `limits.segments` | values of a slice, and series of a custom metric, beyond the new limit |
"""  # noqa: E501

STRUCTS: dict[type[Frozen], str] = {
    Feature: "One for each feature that something is known of, by its name.",
    Segment: (
        "An item of `segments`: a name; `FEATURE: [18, 65]`, which cuts a number into ranges; or "
        "in full."
    ),
    Threshold: (
        f"By metric: {', '.join(f'`{m}`' for m in ranges.CLASSIFICATION)} of a classification; "
        f"{', '.join(f'`{m}`' for m in ranges.REGRESSION)} of a regression."
    ),
    CustomMetric: "One for each metric, by its name.",
}
FORM_VALUES = {
    "brokers": "`HOST:PORT`, several with commas or as a list",
    "prefix": "letters, digits, `.`, `_`, `-`; at most 200",
    "name": "text",
    "class": "text, number or switch",
    "categories": "list of text, numbers or switches",
    "window": "a window",
    "windows": (
        f"list of `last_N` (N ≤ {forms.LAST_N_MAX:,}) and durations up to 31d; 1 to "
        f"{forms.WINDOWS_MAX}"
    ),
    "segments": "list, [below](#defaultssegments)",
    "thresholds": "by metric, [below](#defaultsthresholdsmetric)",
    "distances": f"by distance ({', '.join(f'`{d}`' for d in ranges.DISTANCES)}), a number above 0",
    "methods": "by method, [below](#detectors); `off`",
    "field": "`prediction`, `score`, `latency_ms` or `features.NAME`",
}


class Section(NamedTuple):
    """One table: where its keys are, and what they are of."""

    path: tuple[str, ...]
    kind: type[Frozen]
    text: str


def page() -> str:
    """The whole page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield INTRODUCTION
    for key, hint in TOP.items():
        kind = hint if isinstance(hint, type) and issubclass(hint, Frozen) else None
        if kind is not None:
            yield from _sections((key,), kind, rules.TOP_TEXTS[key])
        else:
            yield f"## {key}\n"
            keys = (
                f" The keys are those of `defaults`; variables begin with `{PREFIX}MODELS__NAME__`."
                if key == "models"
                else ""
            )
            yield f"{rules.TOP_TEXTS[key]}{keys}\n"
    yield from _detectors()


def _sections(path: tuple[str, ...], kind: type[Frozen], text: str) -> Iterator[str]:
    """A struct and the structs in it."""
    yield f"{'#' * min(len(path) + 1, 3)} {'.'.join(path)}\n"
    yield f"{text}\n"
    inner: list[Section] = []
    yield "| key | values | default | meaning | variable |"
    yield "|---|---|---|---|---|"
    for name, key in keys_of(kind).items():
        field, hint, _ = key
        rule = RULES[kind][name]
        below = _below((*path, name), hint, rule)
        if below is not None:
            inner.append(below)
        if below is None or below.kind in STRUCTS or rule.form:
            # items of a list have none
            variable = "" if kind is Segment else f"`{PREFIX}{'__'.join((*path, name)).upper()}`"
            yield (
                f"| `{name}` | {_values(key, rule)} | {_default(field)} | {_cell(rule.text)} | "
                f"{variable} |"
            )
        else:
            yield (
                f"| `{name}` | [below](#{''.join((*path, name)).replace('.', '')}) | | "
                f"{_cell(rule.text)} | |"
            )
    yield ""
    for section in inner:
        yield from _sections(*section)


def _below(path: tuple[str, ...], hint: Any, rule: Rule) -> Section | None:
    """The section of a key that holds other keys."""
    if isinstance(hint, type) and issubclass(hint, Frozen):
        return Section(path, hint, rule.text)
    arguments = [a for a in get_args(hint) if isinstance(a, type) and issubclass(a, Frozen)]
    if not arguments:
        return None
    name = (
        () if get_origin(hint) is tuple else ("METRIC",) if arguments[0] is Threshold else ("NAME",)
    )
    return Section((*path, *name), arguments[0], STRUCTS[arguments[0]])


def _values(key: Key, rule: Rule) -> str:
    """The values of a key, in words."""
    _, hint, is_duration = key
    optional = type(None) in get_args(hint)
    if is_duration:
        return f"duration{_bounds(rule, duration_text)}{', `off`' if optional else ''}"
    if rule.form:
        return FORM_VALUES[rule.form]
    origin: Any = get_origin(hint)
    arguments = get_args(hint)
    if origin in (Union, types.UnionType):
        inner = next(a for a in arguments if a is not type(None))
        text = _values((key[0], inner, False), rule)
        return (
            text
            if inner in (str, Secret) or get_origin(inner) is Literal
            else f"{text}{', `off`' if OFF in rule.text else ''}"
        )
    if origin is Literal:
        return " ".join(f"`{a}`" for a in arguments)
    if origin is dict:
        return f"by name, [below](#{_anchor(rule)})"
    if origin is tuple:
        return f"list of {'numbers' if arguments[0] is float else 'text'}"
    words = {
        bool: "`true` `false`",
        int: "whole number",
        float: "number",
        str: "text",
        Secret: "secret, not in the file",
    }
    return f"{words[hint]}{_bounds(rule, lambda v: f'{v:,.12g}')}"


def _anchor(rule: Rule) -> str:
    return "defaultsmetricscustomname" if "model_custom" in rule.text else "defaultsfeaturesname"


def _bounds(rule: Rule, shown: Any) -> str:
    low = (
        f" above {shown(rule.above)}"
        if rule.above is not None
        else f" ≥ {shown(rule.low)}"
        if rule.low is not None
        else ""
    )
    high = f"{',' if low else ''} ≤ {shown(rule.high)}" if rule.high is not None else ""
    return low + high


def _default(field: msgspec.structs.FieldInfo) -> str:
    """The default as it would be written in the file."""
    value = (
        field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
    )
    if value is msgspec.NODEFAULT:
        return "required"
    if value is None:
        return f"`{OFF}`" if field.name.endswith("_ms") else ""
    if field.name.endswith("_ms"):
        return f"`{duration_text(value)}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return '`""`' if value == "" else f"`{_flow(value)}`"


def _flow(value: Any) -> str:
    """
    A value in YAML's flow style.

    >>> (
    ...     _flow({"adwin": {"delta": 0.002}, "page_hinkley": {}}),
    ...     _flow(("last_1000", "1h")),
    ...     _flow(5000),
    ... )
    ('{adwin: {delta: 0.002}, page_hinkley: {}}', '[last_1000, 1h]', '5000')
    """
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_flow(v)}" for k, v in value.items()) + "}"
    return (
        "[" + ", ".join(map(_flow, value)) + "]"
        if isinstance(value, tuple)
        else f"{value:.12g}"
        if isinstance(value, float)
        else str(value)
    )


def _detectors() -> Iterator[str]:
    yield "## Detectors\n"
    yield (
        "Under `drift.errors`, `drift.score`, `drift.prediction` and `drift.features`, each with "
        "the parameters that differ: `features: {adwin: {delta: 0.0001}, kswin: {}}`; "
        "`page_hinkley: off` takes an inherited one away.\n"
    )
    yield "| method | for | parameter | default | values |"
    yield "|---|---|---|---|---|"
    for name, method in METHODS.items():
        for i, (parameter, default) in enumerate(method.parameters.items()):
            low, high = ranges.bounds(name, parameter)
            signal = "errors of a classification" if method.binary else "numbers"
            head = (f"`{name}`", signal) if i == 0 else ("", "")
            yield (
                f"| {head[0]} | {head[1]} | `{parameter}` | `{default:g}` | "
                f"{'whole number' if ranges.whole(name, parameter) else 'number'}, {low:,.12g} to "
                f"{high:,.12g} |"
            )


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(page(), end="")
