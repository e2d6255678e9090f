"""
Turns a tree of nodes into `Settings`.

Rule of the file: it never stops at the first error. A part that cannot be used becomes `BAD`, and
the rest of its section is still checked.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from stream_monitor.config import forms, ranges, scalars, shorthand
from stream_monitor.config.forms import FORMS, OFF
from stream_monitor.config.problems import BAD, Problems, close_to, shown
from stream_monitor.config.rule import Rule
from stream_monitor.config.rules import RULES, TOP
from stream_monitor.config.tree import Node, merge
from stream_monitor.detectors.base import EVIDENCE, METHODS
from stream_monitor.frozen import Frozen
from stream_monitor.settings import CoreSettings, ModelSettings, Segment, Settings, Threshold

COUNTED_ONLY = ("calibration", "latency")
"""Signals that have only the detector on counts."""
Key = tuple[msgspec.structs.FieldInfo, Any, bool]


def keys_of(kind: type[Frozen]) -> dict[str, Key]:
    """Keys of a struct in `monitor.yaml`: field, type, and whether the value is a duration."""
    hints = get_type_hints(kind)
    return {
        f.encode_name.removesuffix("_ms"): (f, hints[f.name], f.name.endswith("_ms"))
        for f in msgspec.structs.fields(kind)
    }


class Checker:
    """Collects problems while it turns nodes into structs."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = Problems(problems)

    # ---- the file

    def settings(self, root: Node) -> Settings:
        """Settings of the whole tree."""
        if not isinstance(root.value, dict):
            self.problems.add(root, "a mapping is expected, such as `kafka: {…}`")
            return Settings()
        top = {
            key: node for key, node in root.value.items() if self.problems.is_known(key, node, TOP)
        }
        made = {
            key: self.value(TOP[key], node, Rule(""))
            for key, node in top.items()
            if key not in ("defaults", "models") and node.value is not None
        }
        defaults = shorthand.expanded(top["defaults"]) if "defaults" in top else None
        core = {
            key: made.pop(key) for key in ("limits", "privacy") if made.get(key, BAD) is not BAD
        }
        if defaults is not None and defaults.value is not None:
            core["defaults"] = self.model(defaults)
        core["models"] = self._models(top.get("models"), defaults)
        return Settings(
            core=CoreSettings(**core),
            **{key: value for key, value in made.items() if value is not BAD},
        )

    def _models(self, node: Node | None, defaults: Node | None) -> dict[str, ModelSettings]:
        if node is None or node.value is None:
            return {}
        if not isinstance(node.value, dict):
            self.problems.add(
                node, "a mapping is expected: names of models, each with its settings"
            )
            return {}
        models = {}
        for name, own in node.value.items():
            if not 1 <= len(name) <= 128:
                self.problems.add(own, "the name of a model has 1 to 128 characters", got=False)
            elif own.value is not None and not isinstance(own.value, dict):
                self.problems.add(own, "a mapping is expected")
            else:
                base = (
                    defaults if defaults is not None and isinstance(defaults.value, dict) else None
                )
                models[name] = self.model(
                    merge(base, shorthand.expanded(own)) if own.value is not None else base or own
                )
        return models

    def model(self, node: Node) -> ModelSettings:
        """Settings of one model, or the defaults for all models."""
        if node.value is None:
            return ModelSettings()
        before = len(self.problems.lines)
        made = self.struct(ModelSettings, node)
        if made is BAD:
            return ModelSettings()
        if len(self.problems.lines) == before:
            from stream_monitor.config.relations import check_model

            made = check_model(made, node, self.problems.add)
        checked: ModelSettings = made
        return checked

    # ---- values by type

    def struct(self, kind: type[Frozen], node: Node) -> Any:
        """Turn a mapping into its struct; keys that are missing or null have their defaults."""
        keys = keys_of(kind)
        if not isinstance(node.value, dict):
            sketch = ", ".join(f"{key}: …" for key in list(keys)[:2])
            return self.problems.add(node, f"a mapping is expected, such as {{{sketch}}}")
        out, bad = {}, False
        for key, item in node.value.items():
            if not self.problems.is_known(key, item, keys):
                continue
            field, hint, duration = keys[key]
            optional = type(None) in get_args(hint)
            if item.value is None and not optional:
                continue
            rule = RULES.get(kind, {}).get(key, Rule(""))
            value = (
                scalars.duration(self.problems, item, rule, field.default, optional=optional)
                if duration
                else self.value(hint, item, rule)
            )
            if value is BAD:
                bad = True
            else:
                out[field.name] = value
        missing = [
            key
            for key, (field, _, _) in keys.items()
            if field.required and field.name not in out and key not in node.value
        ]
        for key in missing:
            self.problems.add(node, f"{key} is missing", got=False)
        return (
            BAD
            if missing or (bad and any(f.required for f, _, _ in keys.values()))
            else kind(**out)
        )

    def value(self, hint: Any, node: Node, rule: Rule) -> Any:
        """Turn a node into a value of a type."""
        special: Callable[[Node], Any] | None = (
            getattr(self, f"form_{rule.form}", None) if rule.form else None
        )
        if special is not None:
            return special(node)
        origin, arguments = get_origin(hint), get_args(hint)
        if origin in (Union, types.UnionType):
            if node.value is None or (node.value == OFF and str not in arguments):
                return None
            return self.value(next(a for a in arguments if a is not type(None)), node, rule)
        if origin is Literal:
            if node.value in arguments and not isinstance(node.value, bool):
                return node.value
            return self.problems.add(
                node,
                f"must be one of {', '.join(map(str, arguments))}",
                close_to(str(node.value), map(str, arguments)),
            )
        if isinstance(hint, type) and issubclass(hint, Frozen):
            return self.struct(hint, node)
        if origin is dict:
            return self.mapping(node, lambda item: self.value(arguments[1], item, Rule("")))
        if origin is tuple:
            return self.sequence(node, lambda item: self.value(arguments[0], item, Rule("")))
        return scalars.scalar(self.problems, hint, node, rule)

    def mapping(self, node: Node, make: Callable[[Node], Any]) -> Any:
        """Turn a mapping whose keys are names of the user's own into a dict."""
        if not isinstance(node.value, dict):
            return self.problems.add(node, "a mapping is expected")
        made = {key: make(item) for key, item in node.value.items()}
        return BAD if any(v is BAD for v in made.values()) else made

    def sequence(self, node: Node, make: Callable[[Node], Any]) -> Any:
        """Turn a list into a tuple."""
        if not isinstance(node.value, list):
            return self.problems.add(
                node,
                "a list is expected",
                f"[{node.text}]"
                if node.text and shown(node) != "a value that is not shown"
                else None,
            )
        made = tuple(make(item) for item in node.value)
        return BAD if any(v is BAD for v in made) else made

    # ---- ways of writing, by `Rule.form`

    def form_brokers(self, node: Node) -> Any:
        """HOST:PORT, several with commas or as a list."""
        if isinstance(node.value, list):
            made = self.sequence(
                node, lambda item: scalars.text_of(self.problems, item, Rule("", form="brokers"))
            )
            return (
                BAD
                if made is BAD
                else ",".join(made)
                if made
                else self.problems.add(node, "at least one broker is needed", got=False)
            )
        text = node.value if isinstance(node.value, str) else node.text
        if "://" in text:
            return self.problems.add(
                node,
                f"{FORMS['brokers'].expected} is expected, without a scheme",
                text.split("://", 1)[1].rpartition("@")[2],
            )
        return scalars.text_of(self.problems, node, Rule("", form="brokers"))

    def form_class(self, node: Node) -> Any:
        """Text of a class: true becomes 1, 1.0 becomes 1."""
        return (
            None
            if node.value is None
            else scalars.category(self.problems, node, {True: "1", False: "0"})
        )

    def form_categories(self, node: Node) -> Any:
        """Texts of categories: true becomes `true`, 1.0 becomes `1`."""
        return (
            None
            if node.value is None
            else self.sequence(
                node,
                lambda item: scalars.category(self.problems, item, {True: "true", False: "false"}),
            )
        )

    def form_window(self, node: Node) -> Any:
        """A window: `last_N` or a duration."""
        return scalars.window(self.problems, node)

    def form_windows(self, node: Node) -> Any:
        """A list of windows."""
        made = self.sequence(node, self.form_window)
        if made is BAD:
            return BAD
        if not 1 <= len(made) <= forms.WINDOWS_MAX:
            return self.problems.add(
                node, f"1 to {forms.WINDOWS_MAX} windows are expected", got=False
            )
        twice = sorted({w for w in made if made.count(w) > 1})
        return (
            self.problems.add(node, f"given twice: {', '.join(twice)}", got=False)
            if twice
            else made
        )

    def form_segments(self, node: Node) -> Any:
        """Segments: names, or `FEATURE: [cut, points]`."""
        if isinstance(node.value, dict):
            items = [Node({key: item}, item.where, node.path) for key, item in node.value.items()]
            node = Node(list(items), node.where, node.path)
        return self.sequence(node, self._segment)

    def _segment(self, node: Node) -> Any:
        if isinstance(node.value, dict):
            if len(node.value) == 1 and "name" not in node.value:
                name, cut = next(iter(node.value.items()))
                points = self.sequence(
                    cut, lambda item: scalars.scalar(self.problems, float, item, Rule(""))
                )
                return BAD if points is BAD else Segment(name=name, cut=points)
            return self.struct(Segment, node)
        text = scalars.text_of(self.problems, node, Rule("", form="name"))
        return BAD if text is BAD else Segment(name=text)

    def form_thresholds(self, node: Node) -> Any:
        """Thresholds by metric; a bare number was expanded before."""

        def threshold(item: Node) -> Any:
            if not self.problems.is_known(item.path[-1], item, ranges.METRICS):
                return BAD
            if isinstance(item.value, dict):
                return self.struct(Threshold, item)
            return self.problems.add(
                item,
                "a number or a mapping such as {min: 0.8, severity: critical} is expected",
                shorthand.number_meant(item),
            )

        return self._without_off(node, threshold)

    def form_distances(self, node: Node) -> Any:
        """Limits by distance, each a number above 0."""

        def limit(item: Node) -> Any:
            return (
                scalars.scalar(self.problems, float, item, Rule("", above=0))
                if self.problems.is_known(item.path[-1], item, ranges.DISTANCES)
                else BAD
            )

        return self._without_off(node, limit)

    def form_methods(self, node: Node) -> Any:
        """Detectors by name, each with its parameters."""
        return self._without_off(node, lambda item: self._method(item, node.path[-1]))

    def _without_off(self, node: Node, make: Callable[[Node], Any]) -> Any:
        if node.value == OFF or node.value is False:
            return {}
        if isinstance(node.value, dict):
            node = Node(
                {
                    key: item
                    for key, item in node.value.items()
                    if item.value != OFF and item.value is not False
                },
                node.where,
                node.path,
            )
        return self.mapping(node, make)

    def _method(self, node: Node, signal: str) -> Any:
        name = node.path[-1]
        if not self.problems.is_known(name, node, METHODS):
            return BAD
        known = METHODS[name]
        if signal in COUNTED_ONLY and name != EVIDENCE:
            return self.problems.add(node, f"{signal} has the detector {EVIDENCE} only", got=False)
        if known.binary and signal != "errors":
            return self.problems.add(
                node, f"{name} takes 0 and 1 only: use it under drift.errors", got=False
            )
        if node.value is None:
            return {}
        if not isinstance(node.value, dict):
            return self.problems.add(
                node,
                f"a mapping of parameters is expected ({', '.join(known.parameters)}), or off",
                f"{{{next(iter(known.parameters))}: {node.text}}}" if node.text else None,
            )
        made = {}
        for key, item in node.value.items():
            if not self.problems.is_known(key, item, known.parameters):
                made[key] = BAD
                continue
            low, high = ranges.bounds(name, key)
            if isinstance(item.value, bool) and (low, high) == (0, 1):
                item = Node(int(item.value), item.where, item.path, item.text)
            made[key] = scalars.scalar(
                self.problems,
                int if ranges.whole(name, key) else float,
                item,
                Rule("", low=low, high=high),
            )
        return BAD if any(v is BAD for v in made.values()) else made
