"""
The input of a handler of the embedded broker, its output, and the broker's address.

Rule of the file: plain values; the broker fills in its address when it listens.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from msgspec import Struct

NODE = 0
"""Id of the only broker."""
Answer = tuple[Any, ...]


class Call(NamedTuple):
    """A request, its version, and its sender."""

    request: Any
    version: int
    client: str


class Address(Struct):
    """Where the broker listens; empty before it does."""

    host: str = ""
    port: int = 0
