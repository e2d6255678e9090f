"""
Predictions and labels out of files, in the order of their time: the input of `replay`, `produce`
and `baseline build`.

Rule of the package: what a file says becomes an event and nothing is judged here; a row that cannot
be used travels on as it is and is rejected by the decoder of events.
"""

from stream_monitor.inputs.events import EventStream, open_events
from stream_monitor.inputs.merge import Event
from stream_monitor.inputs.options import InputOptions

__all__ = ["Event", "EventStream", "InputOptions", "open_events"]
