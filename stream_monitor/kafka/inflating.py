"""
Limits the size of a decompressed batch.

Rule of the file: no decoder of aiokafka may produce more than `INFLATED_BYTES_MAX`. A megabyte of
zstd may contain 32 GB of zeros, which would end the worker before it could report the reason.
Codecs that cannot exceed the limit are decoded as before.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import cramjam
import numpy as np
from aiokafka.record.default_records import DefaultRecordBatch

INFLATED_BYTES_MAX = 128 << 20
"""
Limit of a decompressed batch in bytes. It is above the greatest `worker.max_record_bytes`, and
above what a batch of events can have.
"""
RECORDS_MAX = 1_000_000
"""Limit of the number of records in a batch. Empty records need more memory than their bytes."""
RATIO_MAX = {"gzip": 1_032, "lz4": 255, "zstd": 32_768}
"""Greatest ratio of decompressed to compressed bytes. Snappy stays below 22."""
USUAL_RATIO = 16
"""
Ratio that is tried first. Memory for the greatest size would cost more than decoding a small batch.
"""
GZIP = 31
"""`wbits` of zlib for gzip."""


class InflatedError(Exception):
    """A batch would become too large."""


TOO_LARGE = f"the batch inflates to more than {INFLATED_BYTES_MAX >> 20} MiB"


def demand_few(records: int) -> None:
    """Refuse a batch with more records than `RECORDS_MAX`."""
    if records > RECORDS_MAX:
        raise InflatedError(f"the batch has more than {RECORDS_MAX:,} records")


def _gunzip(payload: Any) -> bytes:
    out, rest = b"", bytes(payload)
    while rest:
        member = zlib.decompressobj(GZIP)
        out += member.decompress(rest, INFLATED_BYTES_MAX - len(out) + 1)
        if len(out) > INFLATED_BYTES_MAX:
            raise InflatedError(TOO_LARGE)
        if not member.eof:
            raise ValueError("the gzip stream ends too early")
        rest = member.unused_data
    return out


def _into(decompress: Callable[[Any, Any], int]) -> Callable[[Any], bytes]:
    def decode(payload: Any) -> bytes:
        for room in (min(USUAL_RATIO * len(payload), INFLATED_BYTES_MAX), INFLATED_BYTES_MAX):
            # address space only: pages are allocated when they are written
            out = np.empty(room, np.uint8)
            try:
                return out[: decompress(payload, out)].tobytes()
            except cramjam.DecompressionError as e:
                if "whole buffer" not in str(e):
                    raise
        raise InflatedError(TOO_LARGE)

    return decode


BOUNDED: dict[str, Callable[[Any], bytes]] = {
    "gzip": _gunzip,
    "lz4": _into(cramjam.lz4.decompress_into),
    "zstd": _into(cramjam.zstd.decompress_into),
}


def bound() -> None:
    """
    Install the limited decoders in aiokafka's module of record batches. A second call changes
    nothing.
    """
    module: ModuleType = sys.modules[DefaultRecordBatch.__module__]
    for codec, ratio in RATIO_MAX.items():
        name = f"{codec}_decode"
        decode = getattr(module, name)
        if not hasattr(decode, "bounded"):
            setattr(module, name, _bounded(decode, BOUNDED[codec], ratio))


def _bounded(
    plain: Callable[[Any], bytes], careful: Callable[[Any], bytes], ratio: int
) -> Callable[[Any], bytes]:
    def decode(payload: Any) -> bytes:
        return plain(payload) if len(payload) * ratio <= INFLATED_BYTES_MAX else careful(payload)

    decode.bounded = True  # type: ignore[attr-defined]
    return decode
