"""
`monitor.yaml`, and the file of `replay --inject`, as JSON Schema (draft 2020-12), for editors and
for checks before a deployment.

Rule of the file: types and defaults come from `settings`, bounds and texts from `rules`. The schema
accepts everything that the checker accepts in a file that is read as YAML 1.2. Only the checker
knows the relations between keys (`relations`) and the limits of durations.
"""

from __future__ import annotations

import types
from typing import Any, Literal, Union, get_args, get_origin

import msgspec

from stream_monitor.config import forms, ranges, rules
from stream_monitor.config.checker import Key, keys_of
from stream_monitor.config.forms import FORMS, OFF
from stream_monitor.config.injection_settings import Injection
from stream_monitor.config.rule import Rule
from stream_monitor.config.rules import RULES, TOP
from stream_monitor.config.shorthand import duration_text
from stream_monitor.detectors.base import METHODS
from stream_monitor.frozen import Frozen, Secret
from stream_monitor.settings import Segment, Threshold

Schema = dict[str, Any]
DRAFT = "https://json-schema.org/draft/2020-12/schema"
SWITCHED_OFF: Schema = {"enum": [OFF, False]}
NUMBER_OR_TEXT = ["string", "number"]


def json_schema() -> Schema:
    """The schema of the whole file."""
    found: dict[str, Schema] = {}
    top = {
        key: {**_value(hint, Rule(""), found), "description": rules.TOP_TEXTS[key]}
        for key, hint in TOP.items()
    }
    return {
        "$schema": DRAFT,
        "title": "stream-monitor: monitor.yaml",
        "type": ["object", "null"],
        "properties": top,
        "additionalProperties": False,
        "$defs": found,
    }


def injection_schema() -> Schema:
    """The schema of the file of `replay --inject`."""
    found: dict[str, Schema] = {}
    return {
        "$schema": DRAFT,
        "title": "stream-monitor: drifts for replay --inject",
        **_struct(Injection, found),
        "$defs": found,
    }


def _struct(kind: type[Frozen], found: dict[str, Schema]) -> Schema:
    """A reference to the schema of a struct, which is made at its first use."""
    name = kind.__name__
    if name not in found:
        found[name] = {}
        keys = keys_of(kind)
        properties = {key: _key(spec, RULES[kind][key], found) for key, spec in keys.items()}
        required = [key for key, (field, _, _) in keys.items() if field.required]
        found[name] = {
            "type": ["object", "null"],
            "properties": properties,
            "additionalProperties": False,
            **({"required": required} if required else {}),
        }
    return {"$ref": f"#/$defs/{name}"}


def _key(key: Key, rule: Rule, found: dict[str, Schema]) -> Schema:
    field, hint, is_duration = key
    made = _duration(hint) if is_duration else _value(hint, rule, found)
    default = (
        {}
        if field.default is msgspec.NODEFAULT
        else default_of(field.default, is_duration=is_duration)
    )
    return {**_nullable(made), "description": rule.text, **default}


def default_of(value: Any, *, is_duration: bool) -> Schema:
    """The default as it would be written in the file; empty for a section."""
    if isinstance(value, Frozen):
        return {}
    if is_duration:
        return {"default": OFF if value is None else duration_text(value)}
    return {"default": list(value) if isinstance(value, tuple) else value}


def _nullable(schema: Schema) -> Schema:
    """Allow null, which means the default."""
    if "enum" in schema:
        return {**schema, "enum": [*schema["enum"], None]}
    if "type" in schema:
        kinds = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
        return {**schema, "type": list(dict.fromkeys([*kinds, "null"]))}
    return schema if "$ref" in schema else {"anyOf": [*schema["anyOf"], {"type": "null"}]}


def _duration(hint: Any) -> Schema:
    text = {"type": "string", "pattern": forms.DURATION}
    return {"anyOf": [text, SWITCHED_OFF]} if type(None) in get_args(hint) else text


def _value(hint: Any, rule: Rule, found: dict[str, Schema]) -> Schema:
    if rule.form in _FORMS:
        return _FORMS[rule.form](found)
    origin: Any = get_origin(hint)
    arguments = get_args(hint)
    if Secret in arguments:
        return {"type": "null"}  # must not be in a file
    if origin in (Union, types.UnionType):
        inner = _value(next(a for a in arguments if a is not type(None)), rule, found)
        return (
            inner
            if str in arguments or get_origin(arguments[0]) is Literal
            else {"anyOf": [inner, {"const": OFF}]}
        )
    if origin is Literal:
        return {"enum": list(arguments)}
    if isinstance(hint, type) and issubclass(hint, Frozen):
        return _struct(hint, found)
    if origin is dict:
        inner = {} if arguments[1] is Any else _value(arguments[1], Rule(""), found)
        return {"type": ["object", "null"], "additionalProperties": inner or True}
    if origin is tuple:
        return {"type": "array", "items": _value(arguments[0], Rule(""), found)}
    if hint is bool:
        return {"type": "boolean"}
    if hint is str:
        return {
            "type": NUMBER_OR_TEXT,
            **({"pattern": FORMS[rule.form].pattern} if rule.form in FORMS else {}),
        }
    bounds = {"minimum": rule.low, "maximum": rule.high, "exclusiveMinimum": rule.above}
    return {
        "type": "integer" if hint is int else "number",
        **{name: bound for name, bound in bounds.items() if bound is not None},
    }


# ---- ways of writing, by `Rule.form`


def _brokers(_: dict[str, Schema]) -> Schema:
    text = {"type": "string", "pattern": FORMS["brokers"].pattern}
    return {"anyOf": [text, {"type": "array", "items": text, "minItems": 1}]}


def _class(_: dict[str, Schema]) -> Schema:
    return {"type": [*NUMBER_OR_TEXT, "boolean"]}


def _categories(found: dict[str, Schema]) -> Schema:
    return {"type": "array", "items": _class(found)}


def _window(_: dict[str, Schema]) -> Schema:
    return {"type": "string", "pattern": FORMS["window"].pattern}


def _windows(found: dict[str, Schema]) -> Schema:
    return {
        "type": "array",
        "items": _window(found),
        "minItems": 1,
        "maxItems": forms.WINDOWS_MAX,
        "uniqueItems": True,
    }


def _segments(found: dict[str, Schema]) -> Schema:
    cuts = {"type": "array", "items": {"type": "number"}}
    ranges = {"type": "object", "additionalProperties": cuts}
    one_range = {
        **ranges,
        "minProperties": 1,
        "maxProperties": 1,
        "propertyNames": {"not": {"const": "name"}},
    }
    return {
        "anyOf": [
            ranges,
            {
                "type": "array",
                "items": {"anyOf": [{"type": NUMBER_OR_TEXT}, one_range, _struct(Segment, found)]},
            },
        ]
    }


def _thresholds(found: dict[str, Schema]) -> Schema:
    one = {
        "anyOf": [{"type": "number"}, {**_struct(Threshold, found), "type": "object"}, SWITCHED_OFF]
    }
    return _switchable(
        {
            "type": "object",
            "properties": dict.fromkeys(ranges.METRICS, one),
            "additionalProperties": False,
        }
    )


def _distances(_: dict[str, Schema]) -> Schema:
    one = {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, SWITCHED_OFF]}
    return _switchable(
        {
            "type": "object",
            "properties": dict.fromkeys(ranges.DISTANCES, one),
            "additionalProperties": False,
        }
    )


def _methods(_: dict[str, Schema]) -> Schema:
    methods: dict[str, Schema] = {}
    for name, method in METHODS.items():
        parameters = {p: _parameter(name, p) for p in method.parameters}
        methods[name] = {
            "anyOf": [
                {
                    "type": ["object", "null"],
                    "properties": parameters,
                    "additionalProperties": False,
                },
                SWITCHED_OFF,
            ]
        }
    return _switchable({"type": "object", "properties": methods, "additionalProperties": False})


def _parameter(method: str, parameter: str) -> Schema:
    low, high = ranges.bounds(method, parameter)
    kinds: Any = "integer" if ranges.whole(method, parameter) else "number"
    return {
        "type": [kinds, "boolean"] if (low, high) == (0, 1) else kinds,
        "minimum": low,
        "maximum": high,
        "default": METHODS[method].parameters[parameter],
    }


def _switchable(mapping: Schema) -> Schema:
    return {"anyOf": [mapping, SWITCHED_OFF]}


_FORMS = {
    "brokers": _brokers,
    "class": _class,
    "categories": _categories,
    "window": _window,
    "windows": _windows,
    "segments": _segments,
    "thresholds": _thresholds,
    "distances": _distances,
    "methods": _methods,
}
