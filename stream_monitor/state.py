"""
State in a snapshot: objects to bytes and back, with their types checked.

Rule of the file: the fields of a `msgspec.Struct` are the state, and nothing names them a second
time. There are three forms, and a class has the first one that fits:

- A class without settings is a `Struct` itself (`monitors/silence.py`).
- A class with settings keeps what rows have changed in an attribute `state`, which is a `Struct`
  (`monitors/level.py`). The settings come from the configuration of now.
- A class whose memory has another form than its bytes is `Packed` (`windows/panes.py`): a `Struct`
  is made of it, and it is made again of the `Struct`. Its docstring says why.

A field that the bytes do not have takes its default; without a default they cannot be read. So a
new field needs a default that means what was so before, or another `SNAPSHOT_SCHEMA`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from functools import cache
from typing import Any, ClassVar, Generic, Self, TypeVar, get_args, get_origin

import msgspec
import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
F = TypeVar("F", bound=msgspec.Struct)


class Packed(ABC, Generic[F]):
    """
    An object whose bytes have another form than its memory.

    Attributes
    ----------
    Form : type
        The `Struct` of the bytes.
    """

    Form: ClassVar[type[msgspec.Struct]]

    @abstractmethod
    def packed(self) -> F:
        """The form of the bytes; it may share arrays with this object."""

    @classmethod
    @abstractmethod
    def unpacked(cls, form: F) -> Self:
        """The object again; it may keep the arrays of the form."""


class Array(msgspec.Struct, array_like=True):
    """An array as bytes."""

    dtype: str | tuple[tuple[str, str], ...]
    """As numpy writes it; of an array of records the name and dtype of each field."""
    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def of(cls, array: NDArray[Any]) -> Array:
        """An array as bytes."""
        dtype: Any = array.dtype.str if array.dtype.names is None else array.dtype.descr
        return cls(dtype, array.shape, array.tobytes())

    def array(self) -> NDArray[Any]:
        """The array, which may be written to."""
        dtype = self.dtype if isinstance(self.dtype, str) else list(self.dtype)
        return np.frombuffer(self.data, dtype).reshape(self.shape).copy()


def encode(state: object) -> bytes:
    """State as bytes (msgpack)."""
    return msgspec.msgpack.encode(state, enc_hook=_encoded)


def decode(data: bytes, of: type[T]) -> T:
    """
    State of bytes.

    Raises
    ------
    msgspec.ValidationError
        A part is missing or of another type; the message says which.

    Examples
    --------
    >>> class Sums(msgspec.Struct):
    ...     values: NDArray[np.float64]
    ...     rows: int = 0
    >>> decode(encode(Sums(np.array([0.5, 1.5]), 2)), Sums)
    Sums(values=array([0.5, 1.5]), rows=2)
    >>> decode(encode({"values": 3}), Sums)
    Traceback (most recent call last):
    msgspec.ValidationError: Expected `array`, got `int` - at `$.values`
    """
    return msgspec.msgpack.decode(data, type=of, dec_hook=_decoded)


def plain(state: object) -> Any:
    """State as numbers, strings, bytes, lists and mappings, for what is not typed further up."""
    return msgspec.to_builtins(state, builtin_types=(bytes,), enc_hook=_encoded)


def typed(state: Any, of: type[T]) -> T:
    """
    State of plain values.

    Raises
    ------
    msgspec.ValidationError
        A part is missing or of another type; the message says which.
    """
    return msgspec.convert(state, of, dec_hook=_decoded)


def _encoded(value: Any) -> Any:
    """What msgspec does not know by itself."""
    if isinstance(value, np.ndarray):
        return Array.of(value)
    if isinstance(value, Packed):
        return value.packed()
    raise NotImplementedError(f"no state of a {type(value).__name__} can be stored")


def _decoded(of: Any, value: Any) -> Any:
    """The value of a type that msgspec does not know by itself, of what `_encoded` made of it."""
    kind = _class_of(of)
    if kind is object:
        return value
    try:
        if kind is np.ndarray:
            return _array(typed(value, Array), of)
        if kind is Counter:
            (key,) = get_args(of)
            counts: Any = dict.__class_getitem__((key, int))
            return Counter(typed(value, counts))
        if issubclass(kind, Packed):
            return kind.unpacked(typed(value, kind.Form))
    except msgspec.ValidationError as e:
        raise ValueError(str(e)) from None  # msgspec adds to it where that is
    raise NotImplementedError(f"no state of a {kind.__name__} can be read")


def _array(saved: Array, of: Any) -> NDArray[Any]:
    """A saved array, if it has the dtype of the annotation."""
    array, wanted = saved.array(), _type_of_numbers(of)
    if wanted is not Any and array.dtype.type is not wanted:
        raise ValueError(f"expected an array of {np.dtype(wanted)}, got one of {array.dtype}")
    return array


@cache  # a shard has thousands of arrays, of a few types
def _class_of(of: Any) -> Any:
    return get_origin(of) or of


@cache
def _type_of_numbers(of: Any) -> Any:
    """The type of the numbers of an annotated array; `Any` without one."""
    _, dtype = get_args(of) or (Any, Any)
    (wanted,) = get_args(dtype) or (Any,)
    return wanted
