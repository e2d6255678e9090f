"""
The state of a model version in a snapshot, and what of it goes on under the configuration of now.

Rule of the file: every part is stored by name. It goes on where the settings that define it are
what they were (`definitions`); else it begins anew, as a new version would, and that is told.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from stream_monitor.join.rows import packed_pairs, unpacked_pairs
from stream_monitor.monitors.baseline import Profile, decode_profile, profile_id
from stream_monitor.monitors.containment import Containment
from stream_monitor.monitors.definitions import Changes
from stream_monitor.monitors.inputs_state import restore, state_of
from stream_monitor.monitors.patterns import Patterns
from stream_monitor.monitors.performance_state import load_performance, performance_state
from stream_monitor.monitors.rows import packed_rows, unpacked_rows
from stream_monitor.monitors.volume import Volume
from stream_monitor.settings import OTHER

if TYPE_CHECKING:
    from stream_monitor.monitors.version import Version

ANEW = frozenset({"features", "outputs", "performance", "drift", "custom", "segments", "patterns"})
"""Monitors whose state may be half of a row's when they failed: tried again, they begin anew."""


def version_state(version: Version) -> dict[str, Any]:
    """Plain values for the snapshot; the inbox is part of it."""
    return {
        "baseline": version.baseline_id,
        "watermark_ms": version.watermark_ms,
        "changed": version.changed,
        "compared": [version.moved, version.compared_ms],
        "features": state_of(version.features),
        "outputs": state_of(version.outputs),
        "performance": performance_state(version.performance),
        "volume": version.volume.state(),
        "signals": {name: s.state() for name, s in version.signals.items()},
        "contained": version.contained.state(),
        "history": version.history.told,
        "patterns": version.patterns.state(),
        "custom": None if version.custom is None else version.custom.state(),
        "segments": {"given": version.codes_given}
        if version.segments is None
        else version.segments.state(),
        "rows": [packed_rows(r) for r in version._rows],
        "pairs": [packed_pairs(p) for p, _ in version._pairs],
        "failed": version._failed.tobytes(),
        "first_errors": version.signals.first_errors.tobytes(),
        "error_scale": version.signals.error_scale,
    }


def load(
    version: Version, state: Mapping[str, Any], texts: list[str], changes: Changes, *, changed: bool
) -> None:
    """
    Go on from the state of a snapshot.

    Parameters
    ----------
    version : Version
        As it is made.
    state : mapping
        Of `version_state`.
    texts : list of str
        The dictionary of outcomes of the shard.
    changes : Changes
        Of the definitions; gets told what begins anew.
    changed : bool
        The configuration is another one: what was off is tried again, and what is there is judged
        by its rules, also where no row comes any more.
    """
    version.watermark_ms, version.changed = state["watermark_ms"], state["changed"] or changed
    version.moved, version.compared_ms = state["compared"]
    version.contained = Containment.from_state(state["contained"], again=changed)
    lost = ANEW & (state["contained"]["off"].keys() - version.contained.off.keys())
    for monitor in sorted(lost):
        changes.begins_anew(f"monitor {monitor}", ["it was off"])
    version.volume = Volume.from_state(state["volume"])
    version.history.told = {int(width): list(told) for width, told in state["history"].items()}
    gone = _features(version, state, changes, lost)
    gone |= _outputs(version, state, changes, lost)
    if not _performance(version, state, texts, changes, lost):
        gone.add("__error__")
    if "drift" not in lost:
        _signals(version, state["signals"], changes, gone)
    if version.custom is not None and state["custom"] is not None and "custom" not in lost:
        version.custom.load(state["custom"], changes)
    version._rows = [unpacked_rows(r) for r in state["rows"]]
    version._pairs = [(unpacked_pairs(p), texts) for p in state["pairs"]]
    version._failed = np.frombuffer(state["failed"], np.int64)
    version._waiting = sum(len(r.times_ms) for r in version._rows) + sum(
        len(p.row) for p, _ in version._pairs
    )
    version.features.go_on()
    if changed and version.segments is not None:
        version.segments.look_again()


# ---- parts


def _features(
    version: Version, state: Mapping[str, Any], changes: Changes, lost: Collection[str]
) -> set[str]:
    """
    The baseline, and the features against it; the subjects whose values are in other units now.
    """
    inputs, saved = version.features, state["features"]
    before = None if saved["profile"] is None else decode_profile(saved["profile"])
    keys = _of_baseline(changes, before)
    if before is None:
        if not keys:
            # what was published since is not for rows that wait already
            version.baseline_id, inputs.profile = (
                "",
                None,
            )
    elif not keys or version.baseline_id == profile_id(before):
        inputs.use(before)
        version.baseline_id = state["baseline"]
    else:
        changes.begins_anew("baseline of the features", keys)
    same = before is None or inputs.profile is before
    fences = changes.keys("fences")
    if same and "features" not in lost:
        counted = set(inputs.layout.numeric) if fences and inputs.profile is not None else set()
        for name in changes.names("feature"):
            if before is not None and name in before.features:
                counted.add(name)
                changes.begins_anew(f"feature {name}", changes.keys("feature", name))
        if fences and before is not None:
            changes.begins_anew("numeric features", fences)
        restore(inputs, saved, counted, fences_anew=bool(fences))
    version.patterns = Patterns.from_state(state["patterns"])
    if fences or not same or "patterns" in lost:
        version.patterns.begin_anew()
    return set() if same or before is None else set(before.features)


def _of_baseline(changes: Changes, profile: Profile | None) -> list[str]:
    """Keys by which a baseline that was learnt is not what would be learnt now."""
    keys = changes.keys("baseline")
    if profile is None:
        return [key for key in keys if key in ("baseline.source", "baseline.path")]
    return [key for key in keys if not _still_so(key, changes, profile)]


def _still_so(key: str, changes: Changes, profile: Profile) -> bool:
    """Whether what was learnt is what the key asks for now."""
    before, now = (
        definitions["baseline"][""].get(key) for definitions in (changes.before, changes.now)
    )
    if key == "limits.features":
        return len(profile.features) < min(before or 0, now or 0)
    if key == "limits.categories":
        return all(
            len(f.categories) <= min(before or 0, now or 0) and OTHER not in f.categories
            for f in profile.features.values()
        )
    if key.startswith("features."):
        feature = profile.features.get(key.removeprefix("features.").removesuffix(".type"))
        if feature is None or now in (None, "auto"):
            return feature is not None and before in (None, "auto")
        learnt = (
            "text"
            if feature.type == "category" and feature.categories.keys() <= {OTHER}
            else feature.type
        )
        return bool(learnt == now)
    return False


def _outputs(
    version: Version, state: Mapping[str, Any], changes: Changes, lost: Collection[str]
) -> set[str]:
    """
    Score and prediction against their baseline; the subjects whose values are in other units now.
    """
    inputs, saved, fences = version.outputs, state["outputs"], changes.keys("fences")
    before = None if saved["profile"] is None else decode_profile(saved["profile"])
    keys = [
        key
        for key in changes.keys("outputs")
        if before is not None
        and not (key.startswith("limits") and _still_so_outputs(key, changes, before))
    ]
    if before is not None and keys:
        changes.begins_anew("baseline of score and prediction", keys)
        return set(before.features)
    if before is not None:
        inputs.use(before)
    if "outputs" not in lost:
        restore(
            inputs,
            saved,
            set(inputs.layout.numeric) if fences and before is not None else set(),
            fences_anew=bool(fences),
        )
    return set()


def _still_so_outputs(key: str, changes: Changes, profile: Profile) -> bool:
    limits = [definitions["outputs"][""][key] for definitions in (changes.before, changes.now)]
    return all(
        len(f.categories) <= min(limits) and OTHER not in f.categories
        for f in profile.features.values()
    )


def _performance(
    version: Version,
    state: Mapping[str, Any],
    texts: list[str],
    changes: Changes,
    lost: Collection[str],
) -> bool:
    """
    Windows of labelled rows, of all and of slices, and what standardises the errors of a
    regression; whether they go on.
    """
    goes_on = load_performance(
        version.performance, state["performance"], texts, changes, anew="performance" in lost
    )
    if goes_on:
        version.signals.first_errors = np.frombuffer(state["first_errors"], np.float64)
        version.signals.error_scale = tuple(state["error_scale"]) if state["error_scale"] else None
    if version.segments is None:
        version.codes_given = state["segments"].get("given") or len(state["segments"]["members"])
    else:
        performance = version.performance
        version.segments.load(
            state["segments"],
            performance.restored,
            changes,
            windows=goes_on and "segments" not in lost,
        )
    return goes_on


def _signals(version: Version, saved: Mapping[str, Any], changes: Changes, gone: set[str]) -> None:
    """Detectors of each subject, but for those whose values are in other units now."""
    told: dict[str, list[str]] = {}
    for subject, state in saved.items():
        if subject not in gone:
            told |= version.signals[subject].load(state, changes)
    for detector, keys in told.items():
        changes.begins_anew(f"detector {detector}", keys)
