"""
Turns `monitor.yaml` and the environment into `Settings`.

Rule of the package: all errors are reported at once, with file, line, value and a suggestion,
before any connection is made. A secret is never shown.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from stream_monitor.config import lifecycle_relations
from stream_monitor.config.checker import Checker
from stream_monitor.config.environment import PREFIX, overlay
from stream_monitor.config.relations import check_custom, check_http, check_kafka
from stream_monitor.config.rules import SECRETS, SHOWN
from stream_monitor.config.tree import TEXT_MAX_BYTES, Node, read
from stream_monitor.errors import ConfigError
from stream_monitor.settings import ModelSettings, Settings

DEFAULT_FILE = "monitor.yaml"


def load(path: str | None, environ: Mapping[str, str]) -> Settings:
    """
    Settings from a file and from the environment, which overrides the file.

    Parameters
    ----------
    path : str or None
        None: `./monitor.yaml` if it exists, otherwise the defaults.
    environ : mapping
        `STREAM_MONITOR_KAFKA__BOOTSTRAP_SERVERS=…` sets `kafka.bootstrap_servers`; values are YAML;
        `…_FILE` reads the value from a file.

    Raises
    ------
    ConfigError
        With every problem.
    """
    file = Path(path) if path is not None else Path(DEFAULT_FILE)
    if path is None and not file.is_file():
        return parse("", DEFAULT_FILE, environ)
    try:
        with file.open("rb") as stream:
            text = stream.read(TEXT_MAX_BYTES + 1).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError([f"{file}: is not UTF-8"]) from None
    except OSError as e:
        raise ConfigError([f"{file}: cannot be read: {e.strerror or e}"]) from None
    return parse(text, str(file), environ)


def parse(
    text: str, name: str = DEFAULT_FILE, environ: Mapping[str, str] | None = None
) -> Settings:
    """
    Settings from the text of a file and from the environment, which overrides the file.

    Parameters
    ----------
    text : str
    name : str
        Name of the file, for messages; paths in it are relative to its folder.
    environ : mapping, optional

    Raises
    ------
    ConfigError
        With every problem.

    Examples
    --------
    >>> parse("kafka: {bootstrap_servers: 'kafka:9092'}").kafka.bootstrap_servers
    'kafka:9092'
    >>> parse(
    ...     "worker: {metrics: {port: 9108}}", environ={"STREAM_MONITOR_WORKER__METRICS__PORT": "0"}
    ... ).worker.metrics.port
    0
    """
    problems: list[str] = []
    root = read(text, name, problems) or Node({}, name, ())
    if isinstance(root.value, dict):
        _refuse_secrets(root, problems)
        overlay(root, environ or {}, problems)
    checker = Checker(problems)
    settings = checker.settings(root)
    if not problems:
        check_kafka(settings.kafka, root.find("kafka"), checker.problems.add)
        check_http(settings.worker.metrics, root.find("worker", "metrics"), checker.problems.add)
        check_custom(settings.core, root, checker.problems.add)
        lifecycle_relations.check_lifecycle(settings, root, checker.problems.add)
    if problems:
        raise ConfigError(sorted(problems, key=lambda problem: _line(problem, name)))
    return _located(settings, Path(name).parent)


def _refuse_secrets(root: Node, problems: list[str]) -> None:
    """
    Report secrets in the file, which many people read and repositories keep. Their nodes are
    removed, so that each is reported once.
    """
    for section in SHOWN:
        below = root.find(*section).value if root.has(*section) else None
        if not isinstance(below, dict):
            continue
        for key in [key for key in below if key.removesuffix("_file") in SECRETS]:
            node = below.pop(key)
            if node.value is not None:
                variable = "__".join(
                    (PREFIX + section[0], *section[1:], key.removesuffix("_file"))
                ).upper()
                problems.append(
                    f"{node.where}: {'.'.join(node.path)}: a secret does not stand in this "
                    f"file: set {variable}_FILE to the path of a file that holds it, or "
                    f"{variable} to it"
                )


def _line(problem: str, name: str) -> float:
    """Order of problems: those of the file by its lines, then those of variables."""
    found = re.match(r":(\d+):", problem.removeprefix(name)) if problem.startswith(name) else None
    return int(found[1]) if found else math.inf


def _located(settings: Settings, folder: Path) -> Settings:
    """Make paths relative to the folder of the file."""

    def located(model: ModelSettings) -> ModelSettings:
        if not model.baseline.path:
            return model
        return msgspec.structs.replace(
            model,
            baseline=msgspec.structs.replace(
                model.baseline, path=str(folder / model.baseline.path)
            ),
        )

    core = settings.core
    core = msgspec.structs.replace(
        core,
        defaults=located(core.defaults),
        models={name: located(model) for name, model in core.models.items()},
    )
    return lifecycle_relations.located(msgspec.structs.replace(settings, core=core), folder)


__all__ = ["DEFAULT_FILE", "PREFIX", "load", "parse"]
