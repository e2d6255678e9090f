"""
What has a thread or a lock begins again in the child of a fork.

Rule of the file: a fork copies locks as they are and no threads. An object that is registered here
has `after_fork` called in each child, before anything else of it runs.
"""

from __future__ import annotations

import itertools
import os
import weakref
from typing import Protocol


class Forked(Protocol):
    def after_fork(self) -> None: ...


def register(thing: Forked) -> None:
    """
    Call `thing.after_fork()` in each child, in the order of registration.

    What another one uses is registered first. A thing that nobody has any more is forgotten.
    """
    _ALL[next(_ORDER)] = thing


_ORDER = itertools.count()
_ALL: weakref.WeakValueDictionary[int, Forked] = weakref.WeakValueDictionary()


def _after_fork() -> None:
    for thing in list(_ALL.values()):
        thing.after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_after_fork)
