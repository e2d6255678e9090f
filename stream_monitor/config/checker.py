"""
A tree of nodes to `Settings`.

Rule of the file: it never stops at the first fault. Each problem says where, which key, what is
wrong, what was given (unless secret) and what may have been meant.
"""

from __future__ import annotations

import difflib
import math
import re
import sys
import types
from collections.abc import Callable, Iterable
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from stream_monitor.config import forms, ranges, rules, shorthand
from stream_monitor.config.forms import FORMS, OFF, UNITS_MS
from stream_monitor.config.rules import RULES, TOP, Rule
from stream_monitor.config.tree import Node, merge
from stream_monitor.detectors.base import METHODS
from stream_monitor.settings import (
    CoreSettings,
    Frozen,
    ModelSettings,
    Secret,
    Segment,
    Settings,
    Threshold,
)

BAD: Any = object()
"""Stands for a value that cannot be used; its problem is noted."""
NUMBER_MAX = sys.float_info.max
Key = tuple[msgspec.structs.FieldInfo, Any, bool]


def keys_of(kind: type[Frozen]) -> dict[str, Key]:
    """Keys of `monitor.yaml` of a struct: its field, type, and whether it is a duration."""
    hints = get_type_hints(kind)
    return {
        f.encode_name.removesuffix("_ms"): (f, hints[f.name], f.name.endswith("_ms"))
        for f in msgspec.structs.fields(kind)
    }


def close_to(word: str, known: Iterable[str]) -> str | None:
    """The known word that was most likely meant."""
    by_lower = {k.lower(): k for k in known}
    found = difflib.get_close_matches(word.lower().replace("-", "_"), by_lower, 1, 0.55)
    return by_lower[found[0]] if found else None


def shown(node: Node) -> str:
    """What was given, for a message."""
    last = node.path[-1] if node.path else ""
    if (
        last in rules.SECRETS
        or (node.path[:2] in rules.SHOWN and last not in rules.SHOWN[node.path[:2]])
        or ("bootstrap_servers" in node.path and "@" in node.text)
    ):
        return "a value that is not shown"
    if isinstance(node.value, dict | list):
        return "a mapping" if isinstance(node.value, dict) else "a list"
    if isinstance(node.value, str):
        return repr(node.value if len(node.value) <= 60 else node.value[:57] + "...")
    return "nothing" if node.value is None else node.text[:60]


def named(path: tuple[str, ...]) -> str:
    """
    A path for a message. Where a secret may stand, of a key only what looks like one:
    `password:hush` is a key to YAML.

    >>> named(("kafka", "security", "password:hush")), named(("models", "a:b"))
    ('kafka.security.password…', 'models.a:b')
    """
    if path[:2] in rules.SHOWN:
        path = path[:2] + tuple(
            word if word == key else f"{word}…"
            for key in path[2:]
            for word in re.findall(r"^[A-Za-z_]*", key)
        )
    return ".".join(path) or "the file"


class Checker:
    """Collects problems while it turns nodes into structs."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems

    def problem(self, node: Node, what: str, meant: str | None = None, *, got: bool = True) -> Any:
        """Note a problem; it is told once, however often the node is looked at."""
        given = f" (got {shown(node)})" if got else ""
        hint = f"; did you mean '{meant}'?" if meant else ""
        line = f"{node.where}: {named(node.path)}: {what}{given}{hint}"
        if line not in self.problems:
            self.problems.append(line)
        return BAD

    # ---- the file

    def settings(self, root: Node) -> Settings:
        """The whole tree."""
        if not isinstance(root.value, dict):
            self.problem(root, "a mapping is expected, such as `kafka: {…}`")
            return Settings()
        top = {key: node for key, node in root.value.items() if self._known(key, node, TOP)}
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
            self.problem(node, "a mapping is expected: names of models, each with its settings")
            return {}
        models = {}
        for name, own in node.value.items():
            if not 1 <= len(name) <= 128:
                self.problem(own, "the name of a model has 1 to 128 characters", got=False)
            elif own.value is not None and not isinstance(own.value, dict):
                self.problem(own, "a mapping is expected")
            else:
                base = (
                    defaults if defaults is not None and isinstance(defaults.value, dict) else None
                )
                models[name] = self.model(
                    merge(base, shorthand.expanded(own)) if own.value is not None else base or own
                )
        return models

    def model(self, node: Node) -> ModelSettings:
        """Settings of one model, or those of all."""
        if node.value is None:
            return ModelSettings()
        before = len(self.problems)
        made = self.struct(ModelSettings, node)
        if made is BAD:
            return ModelSettings()
        if len(self.problems) == before:
            from stream_monitor.config.relations import check_model

            made = check_model(made, node, self.problem)
        checked: ModelSettings = made
        return checked

    # ---- values by type

    def _known(self, key: str, node: Node, known: Iterable[str]) -> bool:
        if key in known:
            return True
        meant = close_to(key, known)
        self.problem(
            node,
            "unknown key" if meant else f"unknown key; known are {', '.join(sorted(known))}",
            meant,
            got=False,
        )
        return False

    def struct(self, kind: type[Frozen], node: Node) -> Any:
        """A mapping to its struct; keys that are left out, or null, have their defaults."""
        keys = keys_of(kind)
        if not isinstance(node.value, dict):
            sketch = ", ".join(f"{key}: …" for key in list(keys)[:2])
            return self.problem(node, f"a mapping is expected, such as {{{sketch}}}")
        out, bad = {}, False
        for key, item in node.value.items():
            if not self._known(key, item, keys):
                continue
            field, hint, duration = keys[key]
            optional = type(None) in get_args(hint)
            if item.value is None and not optional:
                continue
            rule = RULES.get(kind, {}).get(key, Rule(""))
            value = (
                self.duration(item, rule, field.default, optional=optional)
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
            self.problem(node, f"{key} is missing", got=False)
        return (
            BAD
            if missing or (bad and any(f.required for f, _, _ in keys.values()))
            else kind(**out)
        )

    def duration(self, node: Node, rule: Rule, default: Any, *, optional: bool = False) -> Any:
        """Milliseconds of `50ms 2s 10m 24h 30d`."""
        if optional and (node.value is None or node.value is False or node.value == OFF):
            return None
        found = (
            re.fullmatch(r"([0-9]{1,9})(ms|s|m|h|d)", str(node.value))
            if isinstance(node.value, str)
            else None
        )
        if found is None:
            also = " (or off)" if optional else ""
            return self.problem(
                node,
                f"{FORMS['duration'].expected}{also} is expected",
                shorthand.duration_meant(
                    node, "ms" if isinstance(default, int) and default < 1_000 else "s"
                ),
            )
        ms = int(found[1]) * UNITS_MS[found[2]]
        return ms if self._within(node, ms, rule, shorthand.duration_text) else BAD

    def value(self, hint: Any, node: Node, rule: Rule) -> Any:
        """A node to the value of a type."""
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
            return self.problem(
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
        return self.scalar(hint, node, rule)

    def mapping(self, node: Node, make: Callable[[Node], Any]) -> Any:
        """A mapping with names of the user's own."""
        if not isinstance(node.value, dict):
            return self.problem(node, "a mapping is expected")
        made = {key: make(item) for key, item in node.value.items()}
        return BAD if any(v is BAD for v in made.values()) else made

    def sequence(self, node: Node, make: Callable[[Node], Any]) -> Any:
        """A list."""
        if not isinstance(node.value, list):
            return self.problem(
                node,
                "a list is expected",
                f"[{node.text}]"
                if node.text and shown(node) != "a value that is not shown"
                else None,
            )
        made = tuple(make(item) for item in node.value)
        return BAD if any(v is BAD for v in made) else made

    def scalar(self, hint: Any, node: Node, rule: Rule) -> Any:
        """A number, text or switch."""
        value = node.value
        if hint is bool:
            return (
                value
                if isinstance(value, bool)
                else self.problem(
                    node,
                    "true or false is expected",
                    {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(
                        node.text.lower()
                    ),
                )
            )
        if hint is str:
            return self._text(node, rule)
        if hint is Secret:
            return self._secret(node)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not abs(value) <= NUMBER_MAX
            or (hint is int and value != math.floor(value))
        ):
            return self.problem(
                node,
                "a whole number is expected" if hint is int else "a number is expected",
                shorthand.number_meant(node),
            )
        made = hint(value)
        return made if self._within(node, made, rule, str) else BAD

    def _text(self, node: Node, rule: Rule) -> Any:
        value = node.value
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            return self.problem(
                node,
                "a text is expected; put it in quotes"
                if isinstance(value, bool)
                else "a text is expected",
            )
        text = node.text  # as written: 0123 stays 0123
        form = FORMS.get(rule.form)
        if form is not None and not re.fullmatch(form.pattern, text):
            return self.problem(node, f"{form.expected} is expected")
        return text

    def _secret(self, node: Node) -> Any:
        text = self._text(node, Rule(""))
        if text is BAD:
            return BAD
        if (
            not text.isprintable()
        ):  # bytes that are no UTF-8 too: an error of encoding would tell the text
            return self.problem(node, "has characters that cannot be typed (a line break within?)")
        return Secret(text)

    def _within(self, node: Node, value: float, rule: Rule, show: Callable[[Any], str]) -> bool:
        if rule.low is not None and value < rule.low:
            self.problem(node, f"must be at least {show(rule.low)}")
        elif rule.above is not None and value <= rule.above:
            self.problem(node, f"must be more than {show(rule.above)}")
        elif rule.high is not None and value > rule.high:
            self.problem(node, f"must be at most {show(rule.high)}")
        else:
            return True
        return False

    # ---- ways of writing, by `Rule.form`

    def form_brokers(self, node: Node) -> Any:
        """HOST:PORT, several with commas or as a list."""
        if isinstance(node.value, list):
            made = self.sequence(node, lambda item: self._text(item, Rule("", form="brokers")))
            return (
                BAD
                if made is BAD
                else ",".join(made)
                if made
                else self.problem(node, "at least one broker is needed", got=False)
            )
        text = node.value if isinstance(node.value, str) else node.text
        if "://" in text:
            return self.problem(
                node,
                f"{FORMS['brokers'].expected} is expected, without a scheme",
                text.split("://", 1)[1].rpartition("@")[2],
            )
        return self._text(node, Rule("", form="brokers"))

    def form_class(self, node: Node) -> Any:
        """Text of a class: true is 1, 1.0 is 1."""
        return None if node.value is None else self._named(node, {True: "1", False: "0"})

    def form_categories(self, node: Node) -> Any:
        """Texts of categories: true is `true`, 1.0 is `1`."""
        return (
            None
            if node.value is None
            else self.sequence(node, lambda item: self._named(item, {True: "true", False: "false"}))
        )

    def _named(self, node: Node, switches: dict[bool, str]) -> Any:
        value = node.value
        if isinstance(value, bool):
            return switches[value]
        if isinstance(value, int | float):
            return (
                repr(int(value))
                if math.isfinite(value) and value == int(value)
                else repr(float(value))
            )
        return (
            value
            if isinstance(value, str)
            else self.problem(node, "a text, a number, true or false is expected")
        )

    def form_windows(self, node: Node) -> Any:
        """A list of windows."""
        made = self.sequence(node, self.form_window)
        if made is BAD:
            return BAD
        if not 1 <= len(made) <= forms.WINDOWS_MAX:
            return self.problem(node, f"1 to {forms.WINDOWS_MAX} windows are expected", got=False)
        twice = sorted({w for w in made if made.count(w) > 1})
        return self.problem(node, f"given twice: {', '.join(twice)}", got=False) if twice else made

    def form_window(self, node: Node) -> Any:
        """`last_N` or a duration."""
        if node.value is None and node.path[-1] == "window":
            return None
        text = str(node.value) if isinstance(node.value, str) else ""
        last = re.fullmatch(r"last_([0-9]{1,9})", text)
        duration = re.fullmatch(r"([0-9]{1,9})(ms|s|m|h|d)", text)
        if last and 1 <= int(last[1]) <= forms.LAST_N_MAX:
            return f"last_{int(last[1])}"
        if duration and 1 <= int(duration[1]) * UNITS_MS[duration[2]] <= forms.WINDOW_MS_MAX:
            return text
        return self.problem(
            node, f"a window is {FORMS['window'].expected}", shorthand.window_meant(node)
        )

    def form_segments(self, node: Node) -> Any:
        """Names, or `FEATURE: [cut, points]`."""
        if isinstance(node.value, dict):
            items = [Node({key: item}, item.where, node.path) for key, item in node.value.items()]
            node = Node(list(items), node.where, node.path)
        return self.sequence(node, self._segment)

    def _segment(self, node: Node) -> Any:
        if isinstance(node.value, dict):
            if len(node.value) == 1 and "name" not in node.value:
                name, cut = next(iter(node.value.items()))
                points = self.sequence(cut, lambda item: self.scalar(float, item, Rule("")))
                return BAD if points is BAD else Segment(name=name, cut=points)
            return self.struct(Segment, node)
        text = self._text(node, Rule("", form="name"))
        return BAD if text is BAD else Segment(name=text)

    def form_thresholds(self, node: Node) -> Any:
        """By metric; a bare number was expanded before."""

        def threshold(item: Node) -> Any:
            if not self._known(item.path[-1], item, ranges.METRICS):
                return BAD
            if isinstance(item.value, dict):
                return self.struct(Threshold, item)
            return self.problem(
                item,
                "a number or a mapping such as {min: 0.8, severity: critical} is expected",
                shorthand.number_meant(item),
            )

        return self._without_off(node, threshold)

    def form_distances(self, node: Node) -> Any:
        """By distance, a number above 0."""

        def limit(item: Node) -> Any:
            return (
                self.scalar(float, item, Rule("", above=0))
                if self._known(item.path[-1], item, ranges.DISTANCES)
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
        if not self._known(name, node, METHODS):
            return BAD
        known = METHODS[name]
        if known.binary and signal != "errors":
            return self.problem(
                node, f"{name} takes 0 and 1 only: use it under drift.errors", got=False
            )
        if node.value is None:
            return {}
        if not isinstance(node.value, dict):
            return self.problem(
                node,
                f"a mapping of parameters is expected ({', '.join(known.parameters)}), or off",
                f"{{{next(iter(known.parameters))}: {node.text}}}" if node.text else None,
            )
        made = {}
        for key, item in node.value.items():
            if not self._known(key, item, known.parameters):
                made[key] = BAD
                continue
            low, high = ranges.bounds(name, key)
            if isinstance(item.value, bool) and (low, high) == (0, 1):
                item = Node(int(item.value), item.where, item.path, item.text)
            made[key] = self.scalar(
                int if ranges.whole(name, key) else float, item, Rule("", low=low, high=high)
            )
        return BAD if any(v is BAD for v in made.values()) else made
