"""
The loop: versions, retraining and deployment, as a fold over the topic `lifecycle`.

Rule of the package: what happened is an event; a decision is a pure function of the events; an
action can be done again. `events` has the events, `fold` what they add up to, `decisions` what is
to be done next; `controller` does it.
"""
