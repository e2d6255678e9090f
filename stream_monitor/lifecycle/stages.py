"""
The steps that a project has: those of the configuration, otherwise the stages of its `dvc.yaml`.

Rule of the file: a project without a step that trains is refused. Stages run in the order of what
they need, not in that of the file, because each is a step of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from posixpath import join, normpath
from typing import Any

import msgspec

from stream_monitor.errors import InputError
from stream_monitor.lifecycle_settings import OWN_STEPS, ModelLoop, Step
from stream_monitor.times import DAY_MS

DVC = (sys.executable, "-m", "dvc")
REPRO = ("repro", "--single-item", "--pull")
"""A work tree has no files that DVC keeps; `--pull` gets those that a stage needs."""
MADE = ("outs", "metrics", "plots")


def planned(name: str, loop: ModelLoop) -> ModelLoop:
    """
    The configuration of a model with its steps.

    Parameters
    ----------
    name : str
        The model, for the message of an error.
    loop : ModelLoop

    Raises
    ------
    InputError
        The `dvc.yaml` cannot be read, or nothing trains.
    """
    if loop.steps:
        return loop
    stages = stages_of(Path(loop.repository))
    if not stages:
        key = f"lifecycle.models.{name}"
        path = Path(loop.repository, "dvc.yaml")
        what = "has no stages" if path.exists() else "is not there"
        raise InputError(
            f"{key}: no step trains, because `steps` is not set and {path} {what}; "
            f"set {key}.steps, or write a dvc.yaml with the stages of the training"
        )
    return msgspec.structs.replace(loop, steps=stages)


def stages_of(repository: Path) -> tuple[Step, ...]:
    """
    The stages of a `dvc.yaml`, each as a step; empty without one.

    Raises
    ------
    InputError
        It cannot be read, a stage has the name of a step of ours, or stages need each other.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    path = repository / "dvc.yaml"
    if not path.exists():
        return ()
    try:
        told = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError) as e:
        raise InputError(f"{path}: cannot be read: {' '.join(str(e).split())}") from None
    stages = told.get("stages") if isinstance(told, dict) else None
    if not isinstance(stages, dict):
        return ()
    for name in OWN_STEPS:
        if name in stages:
            own = ", ".join(OWN_STEPS)
            raise InputError(
                f"{path}: {name} is a step of stream-monitor's own ({own}); rename the stage"
            )
    try:
        names = in_order(stages)
    except CycleError as e:
        raise InputError(f"{path}: stages need each other: {' -> '.join(e.args[1])}") from None
    return tuple(Step(name=name, command=(*DVC, *REPRO, name), timeout_ms=DAY_MS) for name in names)


def in_order(stages: Mapping[str, Any]) -> list[str]:
    """
    Names of stages, each after those whose files it needs; otherwise as they stand.

    Raises
    ------
    CycleError
        Two need each other.

    Examples
    --------
    >>> train = {"cmd": "python train.py", "outs": ["model.json"]}
    >>> in_order({"evaluate": {"cmd": "…", "deps": ["model.json"]}, "train": train, "other": {}})
    ['train', 'evaluate', 'other']
    """
    makers = {path: name for name, stage in stages.items() for path in _paths(stage, MADE)}
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for name, stage in stages.items():
        needed = {makers[path] for path in _paths(stage, ("deps",)) if path in makers}
        sorter.add(name, *(needed - {name}))
    sorter.prepare()
    place, found = {name: i for i, name in enumerate(stages)}, []
    ready: list[str] = []
    while sorter.is_active():
        ready = sorted([*ready, *sorter.get_ready()], key=place.__getitem__)
        found.append(ready.pop(0))
        sorter.done(found[-1])
    return found


def _paths(stage: Any, keys: tuple[str, ...]) -> Iterator[str]:
    """Paths of a stage; one of `foreach` or `matrix` has them below `do`, or as they are."""
    if not isinstance(stage, dict):
        return
    own = stage.get("do", stage)
    for key in keys:
        told = own.get(key) if isinstance(own, dict) else None
        for each in told if isinstance(told, list) else ():
            path = next(iter(each), "") if isinstance(each, dict) else each
            yield normpath(join(str(own.get("wdir", ".")), str(path)))
