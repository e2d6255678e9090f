"""
Reads predictions and labels from files, in the order of their time: the input of `replay`,
`produce` and `baseline build`.

Rule of the package: the content of a file becomes events, and nothing is judged here. A row that
cannot be used is passed on unchanged, and the decoder of events rejects it.
"""

from stream_monitor.inputs.events import EventStream, open_events
from stream_monitor.inputs.merge import Event
from stream_monitor.inputs.options import InputOptions

__all__ = ["Event", "EventStream", "InputOptions", "open_events"]
