"""
Baseline profiles that the configuration names: `baseline: {source: file, path: …}`.

Rule of the file: every file is read and checked before any connection is made. EVALUATE gets bytes
by "model/version" and does not know where they came from.
"""

from __future__ import annotations

from pathlib import Path

from stream_monitor.errors import ConfigError, InputError, StateError
from stream_monitor.monitors.baseline import (
    ANY_MODEL,
    Profile,
    baseline_key,
    decode_profile,
    encode_profile,
)
from stream_monitor.settings import CoreSettings


def read_profile(path: str) -> Profile:
    """
    The profile in a file that `baseline build` wrote.

    Raises
    ------
    InputError
        The file cannot be read, or is not a profile.
    """
    try:
        return decode_profile(Path(path).read_bytes())
    except OSError as e:
        raise InputError(
            f"{path}: cannot be read: {e.strerror or e}; `stream-monitor baseline build` makes one"
        ) from None
    except StateError as e:
        raise InputError(f"{path}: {e}") from None


def file_profiles(core: CoreSettings) -> dict[str, bytes]:
    """
    Profiles of the files that the configuration names.

    Returns
    -------
    dict of "model/" to bytes
        The profile of `defaults` is under `ANY_MODEL`.

    Raises
    ------
    ConfigError
        Lists every file that cannot be used, under the first key that names it.
    """
    places = [
        ("defaults", ANY_MODEL, core.defaults),
        *((f"models.{name}", baseline_key(name, ""), model) for name, model in core.models.items()),
    ]
    named = [
        (place, key, model.baseline.path)
        for place, key, model in places
        if model.baseline.source == "file" and model.baseline.path
    ]
    found: dict[str, bytes | None] = {}
    problems = []
    for place, _, path in named:
        if path not in found:
            try:
                found[path] = encode_profile(read_profile(path))
            except InputError as e:
                found[path] = None
                problems.append(f"{place}.baseline.path: {e}")
    if problems:
        raise ConfigError(problems)
    return {key: profile for _, key, path in named if (profile := found[path]) is not None}
