"""
`monitor.yaml` and the environment to `Settings`.

Rule of the file: everything that is wrong is told at once, with file, line, value and a suggestion, before any connection is made.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import msgspec

from stream_monitor.detectors.base import METHODS
from stream_monitor.errors import ConfigError
from stream_monitor.settings import CoreSettings, Drift, Frozen, ModelSettings, Segment, Settings, Threshold

PREFIX = "STREAM_MONITOR_"
UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
LESS_IS_BETTER = frozenset({"log_loss", "brier_score", "calibration_error", "mae", "rmse", "bias"})
MORE_IS_BETTER = frozenset({"accuracy", "precision", "recall", "f1", "roc_auc", "r2"})
DRIFT_SCORES = ("psi", "js", "ks", "wasserstein", "chi2")
SECRETS = frozenset({"password", "key_password"})
CORE_KEYS = ("defaults", "models", "limits", "privacy")
LATER_KEYS = ("alerts",)
"""Sections of the contract that no command reads yet; they are let through."""


def load(path: str | None, environ: Mapping[str, str]) -> Settings:
    """
    Settings of a file and of the environment, which wins.

    Parameters
    ----------
    path : str or None
        None: `./monitor.yaml` if it is there, else defaults.
    environ : mapping
        `STREAM_MONITOR_KAFKA__BOOTSTRAP_SERVERS=…` sets `kafka.bootstrap_servers`; values are YAML; `…_FILE` reads the value from a file.

    Raises
    ------
    ConfigError
        With every problem.
    """
    file = Path(path) if path else Path("monitor.yaml")
    text = ""
    if path or file.is_file():
        try:
            text = file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as e:
            raise ConfigError([f"{file}: cannot be read: {e}"]) from None
    return parse(text, str(file), environ)


def parse(text: str, name: str = "monitor.yaml", environ: Mapping[str, str] | None = None) -> Settings:
    """
    Settings of the text of a file.

    Examples
    --------
    >>> parse("kafka: {bootstrap_servers: 'kafka:9092'}").kafka.bootstrap_servers
    'kafka:9092'
    """
    reader = _Reader(name)
    tree = reader.tree(text)
    reader.environment(tree, environ or {})
    settings = reader.settings(tree)
    if reader.problems:
        raise ConfigError(reader.problems)
    return settings


class _Reader:
    """Collects problems while it turns the tree into structs."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.problems: list[str] = []
        self.lines: dict[tuple[str, ...], int] = {}
        self.sources: dict[tuple[str, ...], str] = {}

    def tree(self, text: str) -> dict[str, Any]:
        from ruamel.yaml import YAML
        from ruamel.yaml.error import MarkedYAMLError, YAMLError

        try:
            loaded = YAML(typ="rt", pure=True).load(text) if text.strip() else {}
        except MarkedYAMLError as e:
            line = e.problem_mark.line + 1 if e.problem_mark else 1
            raise ConfigError([f"{self.name}:{line}: not valid YAML: {e.problem}"]) from None
        except YAMLError as e:
            raise ConfigError([f"{self.name}: not valid YAML: {e}"]) from None
        if loaded is None:
            return {}
        if not isinstance(loaded, dict):
            raise ConfigError([f"{self.name}:1: a mapping is expected (kafka: …, worker: …), not {loaded!r:.60}"])
        return dict(self._plain(loaded, ()))

    def _plain(self, node: Any, path: tuple[str, ...]) -> Any:
        if isinstance(node, dict):
            marks = getattr(getattr(node, "lc", None), "data", None) or {}
            out = {}
            for key, value in node.items():
                here = (*path, str(key))
                if key in marks:
                    self.lines[here] = marks[key][0] + 1
                out[str(key)] = self._plain(value, here)
            return out
        if isinstance(node, list):
            return [self._plain(v, (*path, str(i))) for i, v in enumerate(node)]
        return node

    def environment(self, tree: dict[str, Any], environ: Mapping[str, str]) -> None:
        from ruamel.yaml import YAML

        for variable in sorted(environ):
            if not variable.startswith(PREFIX):
                continue
            path = tuple(part.lower() for part in variable.removeprefix(PREFIX).split("__"))
            value = environ[variable]
            if path[-1].endswith("_file") and path[-1] not in ("ca_file", "cert_file", "key_file"):
                path = (*path[:-1], path[-1].removesuffix("_file"))
                try:
                    value = Path(value).read_text("utf-8").rstrip("\n")
                except OSError as e:
                    self.problems.append(f"{variable}: the file cannot be read: {e.strerror}")
                    continue
            parsed = value if path[-1] in SECRETS else YAML(typ="safe", pure=True).load(value)
            node = tree
            for part in path[:-1]:
                node = node.setdefault(part, {})
                if not isinstance(node, dict):
                    break
            else:
                node[path[-1]] = parsed
                self.sources[path] = variable

    def problem(self, path: tuple[str, ...], what: str) -> None:
        """Note a problem where it is."""
        source = next((self.sources[path[:i]] for i in range(len(path), 0, -1) if path[:i] in self.sources), None)
        line = next((self.lines[path[:i]] for i in range(len(path), 0, -1) if path[:i] in self.lines), None)
        where = source or (f"{self.name}:{line}" if line else self.name)
        self.problems.append(f"{where}: {'.'.join(path)}: {what}")

    def settings(self, tree: dict[str, Any]) -> Settings:
        """The whole tree."""
        top = {k: v for k, v in tree.items() if k not in LATER_KEYS}
        core = {k: top.pop(k) for k in CORE_KEYS if k in top}
        known = ["kafka", "worker", *CORE_KEYS, *LATER_KEYS]
        for key in [k for k in top if k not in known]:
            self.problem((key,), self._unknown(key, known))
            del top[key]
        settings: Settings = self._struct(Settings, {**top, "core": {}}, ())
        models = core.pop("models", None) or {}
        defaults = core.get("defaults") or {}
        made: CoreSettings = self._struct(CoreSettings, core, ())
        merged = {}
        if not isinstance(models, dict):
            self.problem(("models",), "a mapping of model names is expected")
            models = {}
        for name, own in models.items():
            merged[name] = self._struct(ModelSettings, _merge(defaults, own or {}), ("models", name))
        return msgspec.structs.replace(settings, core=msgspec.structs.replace(made, models=merged))

    @staticmethod
    def _unknown(key: str, known: typing.Iterable[str]) -> str:
        close = difflib.get_close_matches(key, list(known), 1, 0.5)
        return f"unknown key; did you mean `{close[0]}`?" if close else f"unknown key; known are {', '.join(sorted(known))}"

    def _struct(self, kind: type[Frozen], value: Any, path: tuple[str, ...]) -> Any:
        if not isinstance(value, dict):
            self.problem(path, f"a mapping is expected, not {value!r:.60}")
            return kind()
        hints = typing.get_type_hints(kind)
        fields = {}
        for field in msgspec.structs.fields(kind):
            duration = field.name.endswith("_ms")
            fields[field.encode_name.removesuffix("_ms") if duration else field.encode_name] = field
        out = {}
        for key, item in value.items():
            here = (*path, key)
            if key not in fields:
                self.problem(here, self._unknown(key, fields))
                continue
            field = fields[key]
            made = self._duration(item, hints[field.name], here) if field.name.endswith("_ms") else self._value(hints[field.name], item, here)
            if made is not _BAD:
                out[field.name] = made
        try:
            return kind(**out)
        except TypeError as e:
            self.problem(path, str(e).replace("required argument", "required key"))
            return kind() if kind is not Segment else Segment(name="?")

    def _duration(self, value: Any, hint: Any, path: tuple[str, ...]) -> Any:
        if (value is None or value is False or value == "off") and type(None) in get_args(hint):
            return None
        if isinstance(value, str):
            for unit in ("ms", "s", "m", "h", "d"):
                number = value.removesuffix(unit)
                if value.endswith(unit) and number.isdigit():
                    return int(number) * UNITS_MS[unit]
        hint_text = f"; did you mean `{value}s`?" if isinstance(value, int) and not isinstance(value, bool) else ""
        self.problem(path, f"a duration such as 50ms, 2s, 10m, 24h or 30d is expected, not {value!r:.60}{hint_text}")
        return _BAD

    def _value(self, hint: Any, value: Any, path: tuple[str, ...]) -> Any:
        special = self._special(hint, value, path)
        if special is not None:
            return special
        origin, arguments = get_origin(hint), get_args(hint)
        if origin in (Union, types.UnionType):
            if value is None and type(None) in arguments:
                return None
            return self._value(next(a for a in arguments if a is not type(None)), value, path)
        if origin is Literal:
            if value in arguments:
                return value
            close = difflib.get_close_matches(str(value), [str(a) for a in arguments], 1, 0.5)
            self.problem(path, f"must be one of {', '.join(map(str, arguments))}, not {value!r:.60}" + (f"; did you mean `{close[0]}`?" if close else ""))
            return _BAD
        if isinstance(hint, type) and issubclass(hint, Frozen):
            return self._struct(hint, value, path)
        if origin is dict:
            if not isinstance(value, dict):
                self.problem(path, f"a mapping is expected, not {value!r:.60}")
                return _BAD
            made = {k: self._value(arguments[1], v, (*path, k)) for k, v in value.items()}
            return {k: v for k, v in made.items() if v is not _BAD}
        if origin is tuple:
            if not isinstance(value, list):
                self.problem(path, f"a list is expected, not {value!r:.60}")
                return _BAD
            return tuple(v for i, item in enumerate(value) if (v := self._value(arguments[0], item, (*path, str(i)))) is not _BAD)
        return self._scalar(hint, value, path)

    def _special(self, hint: Any, value: Any, path: tuple[str, ...]) -> Any:
        """Shorthands of the contract."""
        if hint is Threshold and isinstance(value, (int, float)) and not isinstance(value, bool):
            return Threshold(max=float(value)) if path[-1] in LESS_IS_BETTER else Threshold(min=float(value))
        if hint is Segment:
            if isinstance(value, str):
                return Segment(name=value)
            if isinstance(value, dict) and len(value) == 1 and isinstance(next(iter(value.values())), list):
                name, cut = next(iter(value.items()))
                return Segment(name=name, cut=tuple(float(c) for c in cut))
        if path[-1:] == ("windows",) or (len(path) > 1 and path[-2] == "windows"):
            self._window(value, path)
        if len(path) > 2 and path[-3] == "drift" and path[-2] in ("errors", "score", "prediction", "features"):
            self._method(value, path)
        if len(path) > 1 and path[-2] == "thresholds":
            known = DRIFT_SCORES if len(path) > 2 and path[-3] == "drift" else sorted(LESS_IS_BETTER | MORE_IS_BETTER)
            if path[-1] not in known:
                self.problem(path, self._unknown(path[-1], known))
        return None

    def _window(self, value: Any, path: tuple[str, ...]) -> None:
        if not isinstance(value, str):
            return
        last = value.removeprefix("last_")
        good = (last.isdigit() and 1 <= int(last) <= 1_000_000) if value.startswith("last_") else any(value.endswith(u) and value.removesuffix(u).isdigit() for u in UNITS_MS)
        if not good:
            self.problem(path, f"a window is `last_N` (N from 1 to 1,000,000) or a duration such as 1h, not {value!r:.60}")

    def _method(self, value: Any, path: tuple[str, ...]) -> None:
        if path[-1] not in METHODS:
            self.problem(path, self._unknown(path[-1], METHODS))
        elif isinstance(value, dict):
            for key in value:
                if key not in METHODS[path[-1]].parameters:
                    self.problem((*path, key), self._unknown(key, METHODS[path[-1]].parameters))

    def _scalar(self, hint: Any, value: Any, path: tuple[str, ...]) -> Any:
        good = {
            bool: isinstance(value, bool),
            int: isinstance(value, int) and not isinstance(value, bool),
            float: isinstance(value, (int, float)) and not isinstance(value, bool),
            str: isinstance(value, (str, int, float)) and not isinstance(value, bool),
        }.get(hint, False)
        if good:
            return hint(value)
        shown = "a value that is not shown" if path[-1] in SECRETS else f"{value!r:.60}"
        self.problem(path, f"{ {bool: 'true or false', int: 'a whole number', float: 'a number', str: 'a text'}.get(hint, str(hint)) } is expected, not {shown}")
        return _BAD


_BAD = object()


def _merge(base: Any, own: Any) -> Any:
    """Own values over the defaults, mapping by mapping."""
    if isinstance(base, dict) and isinstance(own, dict):
        return {**base, **{k: _merge(base.get(k), v) for k, v in own.items()}}
    return own


__all__ = ["Drift", "load", "parse"]
