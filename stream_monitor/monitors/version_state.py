"""
The state of a model version in a snapshot, and which parts go on under the present configuration.

Rule of the file: every part is stored by name. It goes on if the settings that define it
(`definitions`) have not changed. Otherwise it restarts, as in a new version, and the log says so.
So what is stored (`VersionForm`) is not the object that works (`Version`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import msgspec

from stream_monitor.arrays import Float, Int
from stream_monitor.join.rows import Pairs
from stream_monitor.monitors import inputs_state, performance_state
from stream_monitor.monitors.baseline import Profile, decode_profile
from stream_monitor.monitors.checked import CheckedState
from stream_monitor.monitors.containment import Containment
from stream_monitor.monitors.custom import Metric
from stream_monitor.monitors.definitions import Changes
from stream_monitor.monitors.drift import SignalForm
from stream_monitor.monitors.errors import ErrorsState
from stream_monitor.monitors.estimate import EstimateState
from stream_monitor.monitors.history import History
from stream_monitor.monitors.inputs_state import InputsForm, restore
from stream_monitor.monitors.one_signal import OneSignalForm
from stream_monitor.monitors.patterns import Patterns
from stream_monitor.monitors.performance_state import PerformanceForm, load_performance
from stream_monitor.monitors.rows import Rows
from stream_monitor.monitors.segment_outputs import SegmentOutputs
from stream_monitor.monitors.segment_quality import SegmentQuality
from stream_monitor.monitors.segments import SegmentsForm
from stream_monitor.monitors.slowness import SlownessForm
from stream_monitor.monitors.volume import Volume
from stream_monitor.settings import OTHER

if TYPE_CHECKING:
    from stream_monitor.monitors.version import Version

ANEW = frozenset(
    {"features", "outputs", "performance", "estimate", "drift", "custom", "segments", "patterns"}
)
"""
Monitors that restart when they are tried again. When they failed, a row may have been half counted.
"""


class VersionForm(msgspec.Struct):
    """A model version in a snapshot; the inbox is part of it."""

    baseline_id: str
    watermark_ms: int
    changed: bool
    moved: bool
    compared_ms: int
    features: InputsForm
    outputs: InputsForm
    performance: PerformanceForm
    estimate: EstimateState
    volume: Volume
    signals: dict[str, SignalForm]
    first_errors: Float
    error_scale: tuple[float, float] | None
    errors: ErrorsState
    calibration: OneSignalForm
    slowness: SlownessForm
    contained: Containment
    history: History
    patterns: Patterns
    custom: dict[str, Metric] | None
    segments: SegmentsForm | None
    codes_given: int
    rows: list[Rows]
    pairs: list[Pairs]
    failed: Int


def form_of(version: Version) -> VersionForm:
    """A version in a snapshot."""
    version.contained.run("estimate", version.estimate.flush)
    return VersionForm(
        baseline_id=version.baseline_id,
        watermark_ms=version.watermark_ms,
        changed=version.changed,
        moved=version.moved,
        compared_ms=version.compared_ms,
        features=inputs_state.form_of(version.features),
        outputs=inputs_state.form_of(version.outputs),
        performance=performance_state.form_of(version.performance),
        estimate=version.estimate.state,
        volume=version.volume,
        signals={subject: signal.form() for subject, signal in version.signals.items()},
        first_errors=version.signals.first_errors,
        error_scale=version.signals.error_scale,
        errors=version.errors.state(),
        calibration=version.calibration.state(),
        slowness=version.slowness.state(),
        contained=version.contained,
        history=version.history,
        patterns=version.patterns,
        custom=None if version.custom is None else version.custom.state,
        segments=None if version.segments is None else version.segments.form(),
        codes_given=version.codes_given,
        rows=version._rows,
        pairs=[pairs for pairs, _ in version._pairs],
        failed=version._failed,
    )


def load(
    version: Version, form: VersionForm, texts: list[str], changes: Changes, *, changed: bool
) -> None:
    """
    Go on from the state of a snapshot.

    Parameters
    ----------
    version : Version
        A new version.
    form : VersionForm
    texts : list of str
        The dictionary of outcomes of the shard.
    changes : Changes
        What differs between the definitions of the snapshot and those of now. Parts that restart
        are noted in it.
    changed : bool
        Whether the configuration changed since the snapshot. Then monitors that are off are tried
        again, and the state is judged by the new rules even if no further row comes.
    """
    version.watermark_ms, version.changed = form.watermark_ms, form.changed or changed
    version.moved, version.compared_ms = form.moved, form.compared_ms
    off = set(form.contained.off)
    version.contained = form.contained
    version.contained.go_on(again=changed)
    lost = ANEW & (off - version.contained.off.keys())
    for monitor in sorted(lost):
        changes.begins_anew(f"monitor {monitor}", ["it was off"])
    version.volume, version.history = form.volume, form.history
    gone_features = _features(version, form, changes, lost)
    gone_outputs = _outputs(version, form, changes, lost)
    gone = gone_features | gone_outputs
    goes_on, numbers = _performance(version, form, texts, changes, lost)
    if not goes_on:
        gone.add("__error__")
    if "__error__" not in gone and "estimate" not in lost:
        _estimate(version, form.estimate, changes)
    if version.segments is not None:
        if gone_features or "features" in lost:
            version.segments.quality = SegmentQuality()
        version.segments.quality.forget(set(changes.names("feature")))
        if gone_outputs or "outputs" in lost:
            version.segments.outputs = SegmentOutputs()
    if "drift" not in lost and "__error__" not in gone:
        version.errors.load(form.errors)
        version.calibration.load(form.calibration)
    for group in version.drifts:
        if group.sliced is not None:
            group.sliced.move(numbers)
    if "drift" not in lost:
        version.slowness.load(form.slowness)
        _signals(version, form.signals, changes, gone)
    if version.custom is not None and form.custom is not None and "custom" not in lost:
        version.custom.load(form.custom, changes)
    version._rows, version._failed = form.rows, form.failed
    version._pairs = [(pairs, texts) for pairs in form.pairs]
    version._waiting = sum(len(r.times_ms) for r in version._rows) + sum(
        len(p.row) for p, _ in version._pairs
    )
    version.features.go_on()
    if changed and version.segments is not None:
        version.segments.look_again()


# ---- parts


def _features(
    version: Version, form: VersionForm, changes: Changes, lost: Collection[str]
) -> set[str]:
    """
    The baseline, and the features against it; the subjects whose values are in other units now.
    """
    inputs, saved = version.features, form.features
    before = None if saved.profile is None else decode_profile(saved.profile)
    keys = _of_baseline(changes, before)
    if before is None:
        if not keys:
            # what was published since is not for rows that wait already
            version.baseline_id, inputs.profile = (
                "",
                None,
            )
    elif not keys or (
        version.baseline_id == form.baseline_id
        and inputs.profile is not None
        and inputs.profile.features.keys() == before.features.keys()
    ):
        inputs.use(before)
        version.baseline_id = form.baseline_id
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
    version.patterns = form.patterns
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
    """Whether the learnt value agrees with the setting."""
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
    version: Version, form: VersionForm, changes: Changes, lost: Collection[str]
) -> set[str]:
    """
    Score and prediction against their baseline; the subjects whose values are in other units now.
    """
    inputs, saved, fences = version.outputs, form.outputs, changes.keys("fences")
    before = None if saved.profile is None else decode_profile(saved.profile)
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
    form: VersionForm,
    texts: list[str],
    changes: Changes,
    lost: Collection[str],
) -> tuple[bool, dict[int, int]]:
    """
    Windows of labelled rows, of all and of slices, and what standardises the errors of a
    regression; whether they go on, and the numbers of slices by those in the snapshot.
    """
    numbers: dict[int, int] = {}
    goes_on = load_performance(
        version.performance, form.performance, texts, changes, anew="performance" in lost
    )
    if goes_on:
        version.signals.first_errors = form.first_errors
        version.signals.error_scale = form.error_scale
    codes_given = form.codes_given if form.segments is None else len(form.segments.members)
    if version.segments is None:
        version.codes_given = codes_given
    elif form.segments is None:
        version.segments.go_on_without(codes_given)
    else:
        restored = version.performance.restored
        rows = "segments" not in lost
        windows = goes_on and rows
        numbers = version.segments.load(
            form.segments, restored, changes, windows=windows, rows=rows
        )
    return goes_on, numbers


def _estimate(version: Version, form: EstimateState, changes: Changes) -> None:
    """What is learnt of scores; it is of rows that are mature by the present limit."""
    if keys := changes.keys("maturity"):
        changes.begins_anew("estimate of accuracy", keys)
        form.checked, form.waits, form.taken_ms, form.since_ms = CheckedState(), False, 0, 0
        form.waiting = EstimateState(form.checked).waiting
    version.estimate.load(form)


def _signals(
    version: Version, saved: Mapping[str, SignalForm], changes: Changes, gone: set[str]
) -> None:
    """Detectors of each subject, but for those whose values are in other units now."""
    told: dict[str, list[str]] = {}
    for subject, signal in saved.items():
        if subject not in gone:
            told |= version.signals[subject].load(signal, changes)
    for detector, keys in told.items():
        changes.begins_anew(f"detector {detector}", keys)
