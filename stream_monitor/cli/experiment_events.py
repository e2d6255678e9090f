"""
The events that start, change and stop an experiment, checked against what is there already.

Rule of the file: what cannot work is refused before it is written, with the key, its value and the
way out. What may be meant is a note.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from stream_monitor.cli.experiment_board import ExperimentBoard, Known
from stream_monitor.client.allocation import reassign
from stream_monitor.errors import InputError
from stream_monitor.experiments.definition import (
    CHANGED,
    PHASES_MAX,
    STARTED,
    STOPPED,
    Arm,
    Definition,
    Started,
    check_maturity,
    definition_of,
    shares_of,
)
from stream_monitor.experiments.judgement import FINAL, risk_of_phase
from stream_monitor.experiments.measures import OF_CALLS, OF_LABELS, Outcome, with_fields
from stream_monitor.experiments.registry import OF_MODEL_MAX
from stream_monitor.experiments.telling import SCHEMA
from stream_monitor.inputs.options import did_you_mean
from stream_monitor.settings import CoreSettings

KEYS: dict[str, list[str]] = {
    "": [*Started.__struct_fields__, "schema", "type", "by", "because"],
    "primary": list(Outcome.__struct_fields__),
    "guards": list(Outcome.__struct_fields__),
    "arms": list(Arm.__struct_fields__),
}


class Made(NamedTuple):
    """An event that may be written, and what its author should know."""

    event: dict[str, Any]
    notes: list[str]


def started(
    given: Mapping[str, Any], board: ExperimentBoard, core: CoreSettings, at: str, by: str | None
) -> Made:
    """
    The `experiment_started` event of what was asked for.

    Parameters
    ----------
    given : mapping
        Keys of the event; `ranges`, `weights`, `at` and `by` are filled in.
    board : ExperimentBoard
    core : CoreSettings
    at : str
        The time now, RFC 3339.
    by : str, optional
        Who does it.

    Raises
    ------
    InputError
        It cannot work.
    """
    _check_keys(given)
    given = with_fields(given, core.of(str(given.get("model"))).metrics.custom)
    definition = definition_of(given)
    check_maturity(definition, core.of(definition.model).labels.max_delay_ms)
    _check_others(definition, board)
    names = [arm.name for arm in definition.arms]
    weights = {n: w / 100 for n, w in zip(names, definition.weights, strict=True)}
    event = {
        "schema": SCHEMA,
        "type": STARTED,
        "model": definition.model,
        "at": at,
        **({"by": by} if by else {}),
        **{k: v for k, v in given.items() if k not in {"schema", "type", "model"}},
        "arms": [msgspec.to_builtins(a) for a in definition.arms],
        "weights": weights,
        "ranges": reassign([], weights, control=names[0]),
    }
    for arm in event["arms"]:
        if arm["version"] is None:
            del arm["version"]
    notes = _notes(definition, board)
    judged = [o.metric for o in (*definition.outcomes, *definition.races)]
    if "violations" in judged and not core.of(definition.model).features:
        notes.append(
            f"{definition.model} has no rules under `features` in monitor.yaml, so violations are "
            "only lists, objects and numbers that are not finite or beyond 2^53"
        )
    return Made(event, notes)


def changed(
    known: Known,
    weights: Mapping[str, float],
    at: str,
    by: str | None,
    *,
    despite_rollback: bool = False,
) -> Made:
    """
    The `experiment_changed` event with new weights; as few units as can be change their arm.

    Parameters
    ----------
    known : Known
    weights : mapping
        Percent by arm.
    at : str
        The time now, RFC 3339.
    by : str, optional
        Who does it.
    despite_rollback : bool
        Whether an arm may get traffic that was taken from it by its rollback.

    Raises
    ------
    InputError
        It cannot work.
    """
    name, names = known.definition.name, known.names
    if not known.is_running:
        state = "was refused by the worker" if known.stopped is None else "is stopped"
        raise InputError(f"experiment {name!r} {state}; start another one with another name")
    for arm in weights:
        if arm not in names:
            raise InputError(
                f"--weights {arm}: {name} has the arms {', '.join(names)}."
                f"{did_you_mean(arm, names)}"
            )
    slots = shares_of(weights, names)
    despite = [n for n, w in zip(names, slots, strict=True) if w and n in known.rolled_back]
    if despite and not despite_rollback:
        raise InputError(
            f"--weights {despite[0]}: it was rolled back, so {names[0]} has its traffic. Give it "
            "the weight 0, or say --despite-rollback"
        )
    if slots == known.weights == known.declared:
        raise InputError(f"--weights: they are the weights of {name} already; nothing was written")
    if known.phase >= PHASES_MAX:
        raise InputError(f"{name} has {PHASES_MAX} phases already; start another experiment")
    ordered = {n: w / 100 for n, w in zip(names, slots, strict=True)}
    event = {
        "schema": SCHEMA,
        "type": CHANGED,
        "model": known.definition.model,
        "at": at,
        **({"by": by} if by else {}),
        "experiment": name,
        "phase": known.phase + 1,
        "weights": ordered,
        "ranges": reassign(known.router.ranges, ordered, control=names[0]),
        **({"despite_rollback": despite} if despite else {}),
    }
    return Made(event, _notes_of_phase(known) if slots != known.weights else [])


def stopped(known: Known, keep: str | None, at: str, by: str | None) -> Made:
    """
    The `experiment_stopped` event.

    Raises
    ------
    InputError
        It is stopped already, or `keep` is none of its arms.
    """
    name, names = known.definition.name, known.names
    if known.stopped is not None:
        raise InputError(f"experiment {name!r} was stopped at {known.stopped.get('at')}")
    if keep is not None and keep not in names:
        raise InputError(
            f"--keep {keep}: {name} has the arms {', '.join(names)}.{did_you_mean(keep, names)}"
        )
    return Made(stop_event(known.definition.model, name, keep, at, by), [])


def stop_event(model: str, name: str, keep: str | None, at: str, by: str | None) -> dict[str, Any]:
    """The `experiment_stopped` event, unchecked: also of an experiment that the worker refused."""
    return {
        "schema": SCHEMA,
        "type": STOPPED,
        "model": model,
        "at": at,
        **({"by": by} if by else {}),
        "experiment": name,
        **({"keep": keep} if keep is not None else {}),
    }


def _check_keys(given: Mapping[str, Any]) -> None:
    for where, known in KEYS.items():
        parts = [given] if not where else given.get(where, [])
        for part in parts if isinstance(parts, list | tuple) else [parts]:
            for key in part if isinstance(part, Mapping) else ():
                if key not in known and (where or key != "ranges"):
                    path = f"{where}.{key}" if where else key
                    raise InputError(f"`{path}` is no key of an experiment.{_meant(key, known)}")
    if "ranges" in given:
        raise InputError("`ranges` is computed from `weights`; leave it out")


def _meant(word: str, known: list[str]) -> str:
    return did_you_mean(word, known) or f" Known are {', '.join(known)}."


def _check_others(definition: Definition, board: ExperimentBoard) -> None:
    model, name = definition.model, definition.name
    same = board.experiments.get((model, name))
    if same is not None:
        state = "was refused by the worker" if same.refused else "was stopped"
        state = "is running" if same.is_running else state
        raise InputError(
            f"experiment {name!r} of {model} {state}: the name salts the split, so the same units "
            "would get the same arms; give another name. Another primary, effect, alpha or unit "
            "is another experiment"
        )
    running = board.running(model)
    if len(running) >= OF_MODEL_MAX:
        names = ", ".join(e.definition.name for e in running)
        raise InputError(
            f"{model} has {len(running)} running experiments ({names}), and no model may have "
            "more; stop one with `stream-monitor experiment stop NAME`"
        )


def _notes(definition: Definition, board: ExperimentBoard) -> list[str]:
    out = []
    labelled = [o.metric for o in definition.outcomes if o.needs_label]
    if labelled and not definition.maturity_ms:
        out.append(
            f"maturity is 0, and {', '.join(labelled)} needs labels: an arm whose labels come "
            "sooner looks different; set it to the time in which 98 % of the labels come"
        )
    features = [
        o.metric
        for o in definition.outcomes
        if o.metric not in OF_LABELS | OF_CALLS
        and not o.metric.startswith(("features.", "custom."))
    ]
    if features:
        out.append(
            f"{', '.join(features)} is no metric by itself, so it is read as a feature of the "
            f"event: features.{features[0]}"
        )
    if definition.unit == "event":
        out.append(
            "every call is a unit of its own: right only if calls of one user are independent, "
            "otherwise the experiment is far too sure"
        )
    others = [e.definition.name for e in board.running(definition.model)]
    if others:
        out.append(
            f"{', '.join(others)} of the same model is running too: the splits are independent, "
            "but each experiment sees the effects of the other"
        )
    return out


def _notes_of_phase(known: Known) -> list[str]:
    d, phase = known.definition, known.phase + 1
    risk = risk_of_phase(d.steps, phase)
    out = []
    if d.steps and not risk:
        out.append(
            f"the experiment named {d.steps} steps, and this is phase {phase}: no part of alpha "
            "is left, so nothing will be promoted in it; failed calls are still watched"
        )
    elif not d.steps:
        out.append(
            f"no `steps` were named at the start, so phase {phase} has only {100 * risk:.2g} % of "
            f"alpha ({d.alpha * risk:.2g}): it needs far more units than phase 1; name the steps "
            "at the start next time"
        )
    out += [
        f"the verdict on {arm} is {v.verdict}, and stays: no other one will be told"
        for arm in known.names
        if (v := known.newest(arm)) is not None and v.verdict in FINAL
    ]
    return out
