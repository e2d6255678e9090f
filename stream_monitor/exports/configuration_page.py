"""
`docs/configuration.md`, generated from the rules of `monitor.yaml` and the defaults of the
settings.

Rule of the file: a page that is written by hand is wrong after the next change. So `python -m
stream_monitor.exports.configuration_page > docs/configuration.md` writes it, and a test compares
the two.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

import msgspec

from stream_monitor.config import PREFIX, forms, ranges, rules
from stream_monitor.config.checker import Key, keys_of
from stream_monitor.config.forms import OFF
from stream_monitor.config.rule import Rule
from stream_monitor.config.rules import RULES, TOP
from stream_monitor.config.shorthand import duration_text
from stream_monitor.detectors.base import METHODS
from stream_monitor.frozen import Frozen, Secret
from stream_monitor.lifecycle_settings import DeployCommand, ModelLoop, Step
from stream_monitor.settings import CustomMetric, Fairness, Feature, Segment, Threshold

INTRODUCTION = f"""\
# Configuration

<!-- Generated: python -m stream_monitor.exports.configuration_page > docs/configuration.md -->

You need not configure anything. Without a file, every model that sends events is monitored, and its baseline is learnt from its first rows. Write into `monitor.yaml` what you know about your models:

    stream-monitor config init                            # a commented file to start from
    stream-monitor config check                           # all errors, each with its line and a suggestion; exit code 2
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

[examples/monitor.yaml](../examples/monitor.yaml) is a longer example.

## Where settings come from
1. The file: `--config FILE`, otherwise `./monitor.yaml` if it exists. Missing keys have the defaults below.
2. Environment variables override the file. Their name is `{PREFIX}` and the path, joined by two underscores, in capitals or not. The value is YAML: `{PREFIX}DEFAULTS__WINDOWS='[last_500, 1h]'`. An empty variable counts as not set (for a text it means the empty text). A longer path overrides a shorter one.
3. A variable whose name ends in `_FILE` names a file that contains the value, for secrets: `{PREFIX}KAFKA__SECURITY__PASSWORD_FILE=/run/secrets/kafka`. Secrets are never in `monitor.yaml`, and are never shown.

`NAME` in a variable is a name of your own (a model, a feature). It matches a name in the file in any case. A new name in capitals becomes lower case.

All errors are reported at once, before any connection is made:

    monitor.yaml:3: defaults.windws: unknown key; did you mean 'windows'?
    monitor.yaml:5: models.fraud.thresholds.accuracy.min: a number is expected (got '80%'); did you mean '0.8'?

## How to read the tables
- A duration is written as `50ms`, `2s`, `10m`, `24h` or `30d`. `off` switches a feature off if its values include `off`.
- A section under `models.NAME` overrides the section under `defaults`, mapping by mapping. Lists and single values are replaced as a whole. An empty key (null) has its default.
- A changed configuration takes effect when a worker starts: [what continues and what restarts](#what-a-change-does).

## What a change does
Monitoring continues where it was, and new limits apply from then on. Only a part of the state that was counted in another way restarts empty.
The worker's log names each such part with its keys; `doctor` and `anew` in the summary of a partition repeat it. A monitor that was switched off is tried again. The order of keys does not matter, nor does the order of a list if it means nothing.

| key | what restarts when it changes |
|---|---|
| `task`, `positive_class` | performance, its segments, and the detectors on errors; nothing if the new value is the one that was already found |
| `windows` | the trend, if the smallest `last_N` changes; a longer window grows from the rows that are kept |
| `baseline.source`, `baseline.path` | the baseline of the features, if it is another one |
| `baseline.rows` | learnt baselines, and the usual level of performance |
| `features.NAME.type`, `limits.features`, `limits.categories` | the learnt baseline, if another one would be learnt now |
| `features.NAME.min`, `max`, `categories` | the statistics of this feature |
| `anomalies.fence`, `reference`, `trailing_rows` | the statistics of numeric features, and the patterns of earlier days |
| `segments` | segments whose `cut` changes |
| `metrics.custom.NAME` | the metric, if its type, field, labels or buckets change |
| `drift.errors`, `score`, `prediction`, `features` | detectors whose parameters change, except `threshold` and `min_instances` of Page-Hinkley; an open episode continues |
| `labels.max_delay` | nothing: waiting predictions get the new delay, and expired ones stay expired |
| `limits.models`, `limits.versions` | nothing: models and versions that have a place keep it |
| `limits.segments` | values of a segment, and series of a custom metric, beyond the new limit |
"""  # noqa: E501

STRUCTS: dict[type[Frozen], str] = {
    ModelLoop: "The loop of a model: [lifecycle.md](lifecycle.md).",
    Step: "An item of `steps`.",
    DeployCommand: "An item of `deploy.commands`.",
    Feature: "One entry per feature that you know something about, by its name.",
    Segment: (
        "An item of `segments`: a name; `FEATURE: [18, 65]`, which splits a number into ranges; or "
        "the full form below."
    ),
    Threshold: (
        f"By metric: {', '.join(f'`{m}`' for m in ranges.CLASSIFICATION)} of a classification; "
        f"{', '.join(f'`{m}`' for m in ranges.REGRESSION)} of a regression. `estimated_` ones are "
        "of predictions without labels ([monitors.md](monitors.md#accuracy-without-labels))."
    ),
    CustomMetric: "One entry per metric, by its name.",
    Fairness: "By name of a segment; binary models only.",
}
ANCHORS = {
    Feature: "defaultsfeaturesname",
    Fairness: "defaultsfairnessname",
    CustomMetric: "defaultsmetricscustomname",
    ModelLoop: "lifecyclemodelsname",
}
"""Where the structs of a mapping have their table."""
ITEMS = (Segment, Step, DeployCommand)
"""Structs that are items of a list."""
FORM_VALUES = {
    "brokers": "`HOST:PORT`, several with commas or as a list",
    "prefix": "letters, digits, `.`, `_`, `-`; at most 200",
    "name": "text",
    "budget": "`N/DURATION`",
    "step": "small letters, digits, `-`, `_`",
    "class": "text, number or boolean",
    "categories": "list of text, numbers or booleans",
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
    """One table of the page: the path of its keys, their struct, and a sentence about it."""

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
    """The section of a struct, and those of the structs in it."""
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
            # items of a list have no variable
            variable = "" if kind in ITEMS else f"`{PREFIX}{'__'.join((*path, name)).upper()}`"
            yield (
                f"| `{name}` | {_values(key, rule)} | {_default(field)} | {_cell(rule.text)} | "
                f"{variable} |"
            )
        else:
            yield (
                f"| `{name}` | [below](#{''.join((*path, name)).lower()}) | | "
                f"{_cell(rule.text)} | |"
            )
    yield ""
    for section in inner:
        yield from _sections(*section)


def _below(path: tuple[str, ...], hint: Any, rule: Rule) -> Section | None:
    """The section of a key that contains other keys."""
    if isinstance(hint, type) and issubclass(hint, Frozen):
        return Section(path, hint, rule.text)
    arguments = [a for a in get_args(hint) if isinstance(a, type) and issubclass(a, Frozen)]
    if not arguments:
        return None
    name = (
        ()
        if get_origin(hint) is not dict
        else ("METRIC",)
        if arguments[0] is Threshold
        else ("NAME",)
    )
    return Section((*path, *name), arguments[0], STRUCTS.get(arguments[0], rule.text))


def _values(key: Key, rule: Rule) -> str:
    """The values that a key may have, in words."""
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
        return f"by name, [below](#{ANCHORS[arguments[1]]})"
    if origin is tuple and arguments[0] in ITEMS:
        return "list, below"
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
        "Write detectors under `drift.errors`, `drift.score`, `drift.prediction` and "
        "`drift.features`, with the parameters that differ from the defaults: "
        "`features: {adwin: {delta: 0.0001}, kswin: {}}`. `page_hinkley: off` removes an "
        "inherited detector.\n"
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
