"""
Baseline profiles that come through the log, and what a version does when it gets another one.

Rule of the file: pure; a profile counts from the place of its last part in the log on. It is for
one version (or, without one, for all versions of a model that are new from there on), and comes
before any that was read when the worker started. A running version whose reference changes begins
with its features again: sums, drift, hours and detectors belong to one reference. What depends on
no reference goes on. The same profile again changes nothing.
"""

from __future__ import annotations

import binascii
import zlib
from collections import ChainMap
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Literal, TypedDict

import msgspec

from stream_monitor.arrays import Float
from stream_monitor.errors import UNREADABLE, InputError, StateError
from stream_monitor.events.lifecycle import PART_CHARS, PARTS_MAX
from stream_monitor.monitors.baseline import (
    Profile,
    baseline_key,
    decode_profile,
    encode_profile,
    profile_id,
)
from stream_monitor.monitors.inputs import COUNTERS, Inputs
from stream_monitor.monitors.late import Late
from stream_monitor.monitors.level import Level
from stream_monitor.monitors.segment_quality import SegmentQuality
from stream_monitor.verdicts import Verdict

if TYPE_CHECKING:
    from stream_monitor.alerts.lifecycle import Alerts
    from stream_monitor.monitors.version import Version

PROFILE_BYTES_MAX = 4 << 20
"""Of a profile in the log, as JSON."""
KEPT_BYTES_MAX, INCOMPLETE_MAX = 8 << 20, 16
"""Of all profiles that are kept, compressed, with keys; and those of which parts are missing."""
OF_REFERENCE = frozenset({"data_drift", "data_quality", "anomaly"})
"""Kinds of alerts that compare features with the reference."""


class _Event(msgspec.Struct):
    """The fields of the event that are read."""

    type: Literal["reference"]
    model: str
    reference: str
    part: int
    parts: int
    content: str
    version: str = ""


class Incomplete(msgspec.Struct):
    """A profile of which parts are missing."""

    reference: str
    parts: list[str] = []


class References(msgspec.Struct):
    """
    Profiles that came through the log.

    Notes
    -----
    A version keeps its profile in its own state. Those here are for versions that are yet to come,
    or come back; the oldest go when all together have more than KEPT_BYTES_MAX.

    Examples
    --------
    >>> from stream_monitor.monitors.baseline import encode_profile
    >>> profile = encode_profile(Profile(rows=7))
    >>> references, (text,) = References(), list(events_of("m", "v1", profile))
    >>> event = msgspec.json.encode({"type": "reference", "model": "m", "version": "v1", **text})
    >>> (found,), left = references.take([(0, event.decode()), (1, "{}")])
    >>> found, left, references.of("m", "v1") == profile, references.of("m", "v2")
    (('m', 'v1'), [(1, '{}')], True, None)
    """

    kept: dict[str, bytes] = {}
    """By key of the topic `baselines`: compressed JSON, the oldest first."""
    incomplete: dict[str, Incomplete] = {}

    def take(
        self, events: list[tuple[int, str]]
    ) -> tuple[list[tuple[str, str]], list[tuple[int, str]]]:
        """
        Read the parts of profiles.

        Parameters
        ----------
        events : list of (place in the record, JSON)

        Returns
        -------
        complete : list of (model, version)
            Whose profile is complete now.
        others : list
            The events that are none of these.
        """
        complete, others = [], []
        for place, text in events:
            try:
                part = msgspec.json.decode(text, type=_Event)
            except UNREADABLE:
                others.append((place, text))
            else:
                if self._take(part):
                    complete.append((part.model, part.version))
        return complete, others

    def _take(self, part: _Event) -> bool:
        """Take a part; whether it was the last one of a profile that can be used."""
        key = baseline_key(part.model, part.version)
        if part.part == 1:
            self.incomplete.pop(key, None)
            self.incomplete[key] = Incomplete(part.reference)
        found = self.incomplete.get(key)
        if found is None or found.reference != part.reference or len(found.parts) != part.part - 1:
            return False  # it comes twice, or one before it is missing
        found.parts.append(part.content)
        if part.part < part.parts:
            while len(self.incomplete) > INCOMPLETE_MAX:
                del self.incomplete[next(iter(self.incomplete))]
            return False
        del self.incomplete[key]
        content = _content("".join(found.parts), part.reference)
        if content is None:
            return False
        self.kept.pop(key, None)
        self.kept[key] = content
        while sum(len(k) + len(v) for k, v in self.kept.items()) > KEPT_BYTES_MAX:
            del self.kept[next(iter(self.kept))]
        return True

    def of(self, model: str, version: str) -> bytes | None:
        """The profile of exactly this version (or, if it is empty, of the model), as JSON."""
        content = self.kept.get(baseline_key(model, version))
        return None if content is None else zlib.decompress(content)

    def over(self, baselines: Mapping[str, bytes], model: str, version: str) -> Mapping[str, bytes]:
        """What was read at the start, and before it what came through the log for a version."""
        came = {
            baseline_key(model, name): profile
            for name in ("", version)
            if (profile := self.of(model, name)) is not None
        }
        return ChainMap(came, dict(baselines)) if came else baselines


def _content(text: str, reference: str) -> bytes | None:
    """The profile of these parts, compressed; None: it is none, or not the one it says it is."""
    try:
        content = binascii.a2b_base64(text)
        inflating = zlib.decompressobj()
        profile = inflating.decompress(content, PROFILE_BYTES_MAX)
        if not inflating.eof or profile_id(decode_profile(profile)) != reference:
            return None
    except (binascii.Error, ValueError, zlib.error, StateError):
        return None
    return content


class Part(TypedDict):
    """The fields of an event that are about the part of a profile."""

    reference: str
    part: int
    parts: int
    content: str


def events_of(model: str, version: str, profile: bytes) -> Iterator[Part]:
    """
    The fields of the events that bring a profile to the workers, part by part.

    Raises
    ------
    InputError
        It is too big.
    StateError
        It is not a profile.
    """
    known = decode_profile(profile)
    reference, profile = profile_id(known), encode_profile(known)
    text = binascii.b2a_base64(zlib.compress(profile, 9), newline=False).decode()
    parts = -(-len(text) // PART_CHARS)
    if len(profile) > PROFILE_BYTES_MAX or parts > PARTS_MAX:
        raise InputError(
            f"the baseline profile of {model} {version or '(all versions)'} has {len(profile):,} "
            f"bytes, and workers take at most {PROFILE_BYTES_MAX:,} ({PARTS_MAX * PART_CHARS:,} "
            "compressed): build it with fewer features or categories"
        )
    for i in range(parts):
        content = text[i * PART_CHARS : (i + 1) * PART_CHARS]
        yield Part(reference=reference, part=i + 1, parts=parts, content=content)


# ---- a version gets another reference


def switched(version: Version, profile: bytes, alerts: Alerts, log_ms: int) -> list[Verdict]:
    """
    Let a version that runs be judged by another reference from here on; the verdicts that end what
    fired by the one before. The same reference changes nothing. The inbox must be empty.

    If that raises, the monitor of features is off, as for any other of its faults.
    """
    verdicts: list[Verdict] = []

    def work() -> None:
        if switch(version, decode_profile(profile)):
            verdicts.extend(ended(alerts, version, log_ms))

    version.contained.run("features", work)
    return verdicts


def switch(version: Version, profile: Profile) -> bool:
    """
    Let a version that runs be judged by another reference from here on; whether it is another one.

    Rows that wait for a baseline are judged by this one. The inbox must be empty.
    """
    reference, inputs = profile_id(profile), version.features
    if reference == version.baseline_id:
        return False
    counters = _counters(inputs)
    for name in {*profile.features, *(inputs.profile.features if inputs.profile else ())}:
        version.signals.pop(name, None)
        version.signals.fired.discard(name)
        inputs.unknown_at.pop(name, None)
    inputs.drift.forget()  # its bins are those of the reference before
    inputs.extends, inputs.late = False, Late(version.settings.baseline.rows)
    inputs.give(profile)
    for name, (at, _) in inputs.layout.columns().items():
        inputs.totals[[at + k for k in COUNTERS]] = counters.get(name, 0.0)
    inputs.totals[-1] = counters.get("", 0.0)
    version.baseline_id, version.changed = reference, True
    version.patterns.begin_anew()
    if version.segments is not None:
        version.segments.quality = SegmentQuality()
    if profile.performance:
        version.performance.built = dict(profile.performance)
        version.performance.level = Level(version.settings.baseline.rows)
    inputs.go_on()
    return True


def _counters(inputs: Inputs) -> dict[str, Float | float]:
    """What means the same under any baseline, by feature; under an empty name the rows."""
    if inputs.profile is None:
        return {}
    columns = inputs.layout.columns()
    found: dict[str, Float | float] = {
        name: inputs.totals[[at + k for k in COUNTERS]] for name, (at, _) in columns.items()
    }
    return {**found, "": float(inputs.totals[-1])}


def ended(alerts: Alerts, version: Version, log_ms: int) -> list[Verdict]:
    """Verdicts that end what fires, or waits to fire, for a version by its reference before."""
    why = (
        f"another baseline ({version.baseline_id[:12]}) counts for this version from now on; "
        "what differs from that one is found again"
    )
    outputs = version.outputs.profile
    others = outputs.features.keys() if outputs is not None else ()
    of_rules = {(name, rule) for name, rule, _ in version.features.value_rules.names}
    return [
        Verdict.end(key, log_ms, f"{key.title}: {why}")
        for key, episode in alerts.episodes.items()
        if (key.model, key.version) == (version.model, version.name)
        and key.kind in OF_REFERENCE
        and key.subject not in others
        and (key.subject, key.detector) not in of_rules
        and (told := episode.waiting or episode.told) is not None
        and told.baseline_id
    ]
