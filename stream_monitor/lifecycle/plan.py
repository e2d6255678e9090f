"""
The steps of a run.

Rule of the file: the plan is made once, when a run is accepted, and stands in its event.
"""

from __future__ import annotations

from stream_monitor.lifecycle.model import COLLECT, DECIDE, REGISTER
from stream_monitor.lifecycle_settings import ModelLoop


def steps_of(loop: ModelLoop) -> tuple[str, ...]:
    """
    Names of the steps of a run, in order.

    >>> from stream_monitor.lifecycle_settings import Step
    >>> steps_of(ModelLoop(repository=".", steps=(Step(name="train", command=("true",)),)))
    ('collect', 'train', 'decide', 'register')
    """
    collect = (COLLECT,) if loop.collect is not None else ()
    return (*collect, *(step.name for step in loop.steps), DECIDE, REGISTER)
