"""
Names of the arrays that everything is made of, and the one question that is asked of all of them.

Rule of the file: no other module is imported, so that any may import it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Bool = NDArray[np.bool_]


def are_numbers(values: Float) -> Bool:
    """
    Which cells, or codes, are numbers and not one of the NaNs that mean something else.

    Parameters
    ----------
    values : (n,) or (columns, n) float64

    Notes
    -----
    NaN is the only value that differs from itself; this is several times as fast as `np.isnan`.

    Examples
    --------
    >>> are_numbers(np.array([1.5, np.nan])).tolist()
    [True, False]
    """
    found: Bool = values == values  # noqa: PLR0124
    return found
