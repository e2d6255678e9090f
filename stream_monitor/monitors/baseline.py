"""
Baseline profiles: what the input looked like when the model was built, or in its first rows.

Rule of the file: a profile is immutable. Its id is the hash of its content, so two profiles with
the same content are the same baseline.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from itertools import pairwise
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_monitor.errors import UNREADABLE, StateError
from stream_monitor.stats.binning import edges_of

SCHEMA = 2
FENCE = 1.5
EDGES_LIMIT = 80
"""Edges of a numeric feature that a profile may have; those that are made here have fewer."""
COUNT_MAX = 1 << 53
"""Rows of a count: sums of them are floats."""
VALUE_MAX = 1e150
"""Mean and standard deviation take larger values as this: their squares would overflow."""
TAILS = 2
ANY_MODEL = "/"
"""
Key of the baseline of every model whose settings say `source: file` and which has none of its own.
"""


def baseline_key(model: str, version: str) -> str:
    """
    The key of a profile: `MODEL/VERSION`, with `/` and `%` in the name of the model written as
    `%2F` and `%25`.

    Examples
    --------
    >>> baseline_key("fraud", "3"), baseline_key("a/b", "c"), baseline_key("a", "b/c")
    ('fraud/3', 'a%2Fb/c', 'a/b/c')
    """
    return f"{model.replace('%', '%25').replace('/', '%2F')}/{version}"


class FeatureProfile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    One feature of a baseline.

    `counts` are on the bins between `edges` (a bin holds its lower edge), of which the first lies
    below and the last above all values. A value with much weight has a bin of its own, whose upper
    edge is the next number. `outliers` lie outside the Tukey fences at 1.5 IQR. `wrong_type` and
    `out_of_range` count values that are none of this feature's type.
    """

    type: Literal["numeric", "category"]
    count: int
    missing: int = 0
    wrong_type: int = 0
    out_of_range: int = 0
    mean: float = 0.0
    sd: float = 0.0
    min: float = 0.0
    max: float = 0.0
    q1: float = 0.0
    median: float = 0.0
    q3: float = 0.0
    outliers: int = 0
    whole: bool = False
    """All values are whole numbers."""
    edges: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()
    tail_means: tuple[float, ...] = ()
    """Means of the values in the first and in the last bin that is not empty."""
    categories: dict[str, int] = {}

    @property
    def rows(self) -> int:
        """Rows that it is of."""
        return self.count + self.missing + self.wrong_type + self.out_of_range


class Profile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    The baseline of one model version; an empty `version` is for all versions of the model.

    `performance` has metrics by name, and `labels`, how many rows they are of.
    """

    schema: int = SCHEMA
    model: str = ""
    version: str = ""
    rows: int = 0
    created_from: str = ""
    features: dict[str, FeatureProfile] = {}
    outputs: dict[str, FeatureProfile] = {}
    """Score and prediction, as `__score__` and `__prediction__`."""
    performance: dict[str, float] = {}


def numeric_profile(
    values: NDArray[np.float64], missing: int, wrong_type: int = 0, out_of_range: int = 0
) -> FeatureProfile:
    """
    Profile of a numeric feature.

    Parameters
    ----------
    values : (n,) float64, finite
    missing, wrong_type, out_of_range : int, rows
        Of the rows without a number.

    Returns
    -------
    FeatureProfile
        On the bins of `edges_of`. O(n log n).

    Examples
    --------
    >>> p = numeric_profile(np.array([0.0, 0.0, 7.0]), 3)
    >>> p.count, p.missing, p.median, p.counts
    (3, 3, 0.0, (0, 2, 0, 1, 0))
    """
    if not len(values):
        return FeatureProfile(
            type="numeric",
            count=0,
            missing=missing,
            wrong_type=wrong_type,
            out_of_range=out_of_range,
            counts=(0,),
        )
    cut = np.clip(values, -VALUE_MAX, VALUE_MAX) + 0.0  # -0 is 0
    q1, median, q3 = (float(q) for q in np.quantile(cut, (0.25, 0.5, 0.75)))
    low, high = float(cut.min()), float(cut.max())
    edges = edges_of(cut)
    place = np.searchsorted(edges, values, side="right")
    counts = np.bincount(place, minlength=len(edges) + 1)
    least, greatest = fences_of(q1, q3, low, high, FENCE)
    mean = min(max(float(cut.mean()), low), high)
    return FeatureProfile(
        type="numeric",
        count=len(values),
        missing=missing,
        wrong_type=wrong_type,
        out_of_range=out_of_range,
        mean=mean,
        sd=float(np.sqrt(np.mean((cut - mean) ** 2))) if low < high else 0.0,
        min=low,
        max=high,
        q1=q1,
        median=median,
        q3=q3,
        outliers=int(((cut < least) | (cut > greatest)).sum()),
        whole=bool((cut == np.floor(cut)).all()),
        edges=tuple(edges.tolist()),
        counts=tuple(counts.tolist()),
        tail_means=tuple(float(cut[place == end].mean()) for end in (place.min(), place.max())),
    )


def fences_of(q1: float, q3: float, low: float, high: float, fence: float) -> tuple[float, float]:
    """
    Tukey's fences; if both quartiles are one value, the least and the greatest value.

    >>> fences_of(1.0, 3.0, 0.0, 9.0, 1.5), fences_of(0.0, 0.0, 0.0, 9.0, 1.5)
    ((-2.0, 6.0), (0.0, 9.0))
    """
    reach = fence * (q3 - q1)
    return (q1 - reach, q3 + reach) if reach > 0 else (low, high)


def category_profile(
    counts: dict[str, int], missing: int, wrong_type: int = 0, out_of_range: int = 0
) -> FeatureProfile:
    """
    Profile of a categorical feature.

    Examples
    --------
    >>> category_profile({"b": 1, "a": 2}, 0).categories
    {'a': 2, 'b': 1}
    """
    ranked = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    return FeatureProfile(
        type="category",
        count=sum(counts.values()),
        missing=missing,
        wrong_type=wrong_type,
        out_of_range=out_of_range,
        categories=ranked,
    )


def encode_profile(profile: Profile) -> bytes:
    """
    JSON of a profile. Features and categories keep their order: sums that a snapshot has stored by
    position belong to it.

    Examples
    --------
    >>> list(
    ...     decode_profile(
    ...         encode_profile(
    ...             Profile(
    ...                 features={"b": category_profile({"x": 1}, 0), "a": category_profile({}, 2)}
    ...             )
    ...         )
    ...     ).features
    ... )
    ['b', 'a']
    """
    return msgspec.json.encode(profile)


_PROFILE = msgspec.json.Decoder(Profile)  # made here, because restores run in threads


def decode_profile(data: bytes) -> Profile:
    """
    Read a profile from its JSON.

    Raises
    ------
    StateError
        It is not a profile, or has another schema, or nothing can be compared with it.
    """
    try:
        profile = _PROFILE.decode(data)
    except UNREADABLE as e:
        message = f"not a baseline profile: {e}"
        raise StateError(message) from None
    if profile.schema != SCHEMA:
        message = (
            f"a baseline profile of schema {profile.schema}; this version reads {SCHEMA}: build "
            "it again with `stream-monitor baseline build`"
        )
        raise StateError(message)
    for name, feature in (*profile.features.items(), *profile.outputs.items()):
        fault = _fault(feature)
        if fault:
            message = f"not a baseline profile: {name}: {fault}"
            raise StateError(message)
    return profile


def _fault(feature: FeatureProfile) -> str:
    """Why a feature of a profile is useless as a baseline; empty if it is not."""
    edges, counts = feature.edges, feature.counts
    if len(edges) > EDGES_LIMIT or any(low >= high for low, high in pairwise(edges)):
        return f"edges must ascend, and be at most {EDGES_LIMIT}"
    if len(counts) != (len(edges) + 1 if feature.type == "numeric" else 0):
        return "counts must be one more than edges"
    if feature.type == "numeric" and (
        sum(counts) != feature.count
        or (feature.count and (not edges or len(feature.tail_means) != TAILS))
    ):
        return "counts must add up to count, and a count needs edges and two tail_means"
    if feature.type == "category" and sum(feature.categories.values()) != feature.count:
        return "categories must add up to count"
    if (
        feature.sd < 0
        or not feature.q1 <= feature.median <= feature.q3
        or not feature.min <= feature.max
    ):
        return "sd must not be negative, and q1, median and q3, and min and max, must ascend"
    every = (
        feature.count,
        feature.missing,
        feature.wrong_type,
        feature.out_of_range,
        feature.outliers,
        *counts,
        *feature.categories.values(),
    )
    if not 0 <= min(every) <= max(every) <= COUNT_MAX:
        return f"a count is negative, or above {COUNT_MAX}"
    return ""


def within(profile: Profile, most: int, first: Collection[str]) -> tuple[Profile, list[str]]:
    """
    A profile with at most so many features, those named `first` before others; and the features
    that were left out.

    >>> a, b = category_profile({"x": 1}, 0), category_profile({}, 2)
    >>> kept, left = within(Profile(features={"a": a, "b": b}), 1, {"b"})
    >>> list(kept.features), left
    (['b'], ['a'])
    """
    ranked = sorted(profile.features, key=lambda name: name not in first)
    left = ranked[most:]
    if not left:
        return profile, []
    gone = set(left)
    kept = {name: f for name, f in profile.features.items() if name not in gone}
    return msgspec.structs.replace(profile, features=kept), left


def profile_id(profile: Profile) -> str:
    """
    Name of a profile: blake2b-128 (hex) of its canonical JSON, which has sorted keys and no blanks;
    the order of features does not matter.

    >>> a, b = category_profile({"x": 1}, 0), category_profile({}, 2)
    >>> (
    ...     profile_id(Profile(features={"a": a, "b": b}))
    ...     == profile_id(Profile(features={"b": b, "a": a})),
    ...     len(profile_id(Profile())),
    ... )
    (True, 32)
    """
    return hashlib.blake2b(msgspec.json.encode(profile, order="sorted"), digest_size=16).hexdigest()
