"""
Reference profiles: what the input looked like when the model was built, or in its first rows.

Rule of the file: a profile is immutable and is named by the hash of what it says; two with the same content are the same reference.
"""

from __future__ import annotations

import hashlib
from itertools import pairwise
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_monitor.errors import StateError

BINS = 20
SCHEMA = 1
FENCE = 1.5
VALUE_MAX = 1e150
"""Mean and standard deviation take larger values as this: their squares would overflow."""
ANY_MODEL = "/"
"""Key of the reference of every model whose settings say `source: file` and which has none of its own."""


def baseline_key(model: str, version: str) -> str:
    """
    The key of a profile: `MODEL/VERSION`, with `/` and `%` in the name of the model written as `%2F` and `%25`.

    Examples
    --------
    >>> baseline_key("fraud", "3"), baseline_key("a/b", "c"), baseline_key("a", "b/c")
    ('fraud/3', 'a%2Fb/c', 'a/b/c')
    """
    return f"{model.replace('%', '%25').replace('/', '%2F')}/{version}"


class FeatureProfile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One feature of a reference. `counts` are on the bins between `quantiles` (a bin holds its lower edge); `outliers` lie outside the Tukey fences at 1.5 IQR."""

    type: Literal["numeric", "category"]
    count: int
    missing: int = 0
    mean: float = 0.0
    sd: float = 0.0
    min: float = 0.0
    max: float = 0.0
    q1: float = 0.0
    median: float = 0.0
    q3: float = 0.0
    outliers: int = 0
    quantiles: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()
    categories: dict[str, int] = {}


class Profile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The reference of one model version; an empty `version` is for all versions of the model. `performance` has metrics by name, and `labels`, how many rows they are of."""

    schema: int = SCHEMA
    model: str = ""
    version: str = ""
    rows: int = 0
    created_from: str = ""
    features: dict[str, FeatureProfile] = {}
    outputs: dict[str, FeatureProfile] = {}
    """Score and prediction, as `__score__` and `__prediction__`."""
    performance: dict[str, float] = {}


def numeric_profile(values: NDArray[np.float64], missing: int) -> FeatureProfile:
    """
    Profile of a numeric feature.

    Parameters
    ----------
    values : (n,) float64, finite, n > 0
    missing : int, rows

    Returns
    -------
    FeatureProfile
        Inner edges are the 5 %, 10 %, … 95 % quantiles without repeats, so that edges strictly increase where values are tied. O(n log n).

    Examples
    --------
    >>> p = numeric_profile(np.arange(100.0), 3)
    >>> p.count, p.missing, p.median, len(p.counts), sum(p.counts)
    (100, 3, 49.5, 20, 100)
    """
    q1, median, q3 = (float(q) for q in np.quantile(values, (0.25, 0.5, 0.75)))
    low, high = float(values.min()), float(values.max())
    edges = np.unique(np.quantile(values, np.arange(1, BINS) / BINS))
    edges = edges[edges > low]
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    fence = FENCE * (q3 - q1)
    cut = np.clip(values, -VALUE_MAX, VALUE_MAX)
    mean = float(cut.mean())
    return FeatureProfile(
        type="numeric",
        count=len(values),
        missing=missing,
        mean=mean,
        sd=float(np.sqrt(np.mean((cut - mean) ** 2))) if low < high else 0.0,
        min=low,
        max=high,
        q1=q1,
        median=median,
        q3=q3,
        outliers=int(((values < q1 - fence) | (values > q3 + fence)).sum()),
        quantiles=tuple(edges.tolist()),
        counts=tuple(counts.tolist()),
    )


def category_profile(counts: dict[str, int], missing: int) -> FeatureProfile:
    """
    Profile of a categorical feature.

    Examples
    --------
    >>> category_profile({"b": 1, "a": 2}, 0).categories
    {'a': 2, 'b': 1}
    """
    ranked = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    return FeatureProfile(type="category", count=sum(counts.values()), missing=missing, categories=ranked)


def encode_profile(profile: Profile) -> bytes:
    """
    JSON of a profile. Features and categories keep their order: sums that a snapshot has stored by position belong to it.

    Examples
    --------
    >>> list(decode_profile(encode_profile(Profile(features={"b": category_profile({"x": 1}, 0), "a": category_profile({}, 2)}))).features)
    ['b', 'a']
    """
    return msgspec.json.encode(profile)


def decode_profile(data: bytes) -> Profile:
    """
    The profile of its JSON.

    Raises
    ------
    StateError
        It is no profile, of another schema, or one that cannot be compared with.
    """
    try:
        profile = msgspec.json.decode(data, type=Profile)
    except msgspec.MsgspecError as e:
        message = f"not a reference profile: {e}"
        raise StateError(message) from None
    if profile.schema != SCHEMA:
        message = f"a reference profile of schema {profile.schema}; this version reads {SCHEMA}: build it again with `stream-monitor baseline build`"
        raise StateError(message)
    for name, feature in (*profile.features.items(), *profile.outputs.items()):
        fault = _fault(feature)
        if fault:
            message = f"not a reference profile: {name}: {fault}"
            raise StateError(message)
    return profile


def _fault(feature: FeatureProfile) -> str:
    """What makes a feature of a profile useless as a reference; empty when nothing does."""
    edges = feature.quantiles
    if len(edges) >= BINS or any(low >= high for low, high in pairwise(edges)):
        return f"quantiles must ascend, and be at most {BINS - 1}"
    if len(feature.counts) != (len(edges) + 1 if feature.type == "numeric" else 0):
        return "counts must be one more than quantiles"
    if feature.sd < 0 or not feature.q1 <= feature.median <= feature.q3:
        return "sd must not be negative, and q1, median and q3 must ascend"
    if min(feature.count, feature.missing, feature.outliers, *feature.counts, *feature.categories.values()) < 0:
        return "a count is negative"
    return ""


def profile_id(profile: Profile) -> str:
    """
    Name of a profile: blake2b-128 (hex) of its canonical JSON, which has sorted keys and no blanks; the order of features does not matter.

    >>> a, b = category_profile({"x": 1}, 0), category_profile({}, 2)
    >>> profile_id(Profile(features={"a": a, "b": b})) == profile_id(Profile(features={"b": b, "a": a})), len(profile_id(Profile()))
    (True, 32)
    """
    return hashlib.blake2b(msgspec.json.encode(profile, order="sorted"), digest_size=16).hexdigest()
