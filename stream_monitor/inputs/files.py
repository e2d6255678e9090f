"""
Bytes of an input file, counted as they are read.

Rule of the file: every pass opens the file again. The counted bytes are those on disk, so that the
progress is right for compressed files too.
"""

from __future__ import annotations

import gzip
import io
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

from stream_monitor.errors import InputError
from stream_monitor.inputs.options import STDIN

BUFFER_BYTES = 1 << 18
PASSES = 2
"""A file is read once to learn and once for its rows."""
READ_ERRORS = (OSError, EOFError, zlib.error)


class Meter:
    """Progress of reading; `on_progress(read, total)` is called about once per `BUFFER_BYTES`."""

    def __init__(self, on_progress: Callable[[int, int], None] | None = None) -> None:
        self.read_bytes = 0
        self.total_bytes = 0
        self._on_progress = on_progress

    def add(self, size: int) -> None:
        """Count bytes that were read."""
        self.read_bytes += size
        if self._on_progress is not None:
            self._on_progress(self.read_bytes, self.total_bytes)


class _Counted(io.RawIOBase):
    def __init__(self, source: IO[bytes], meter: Meter, *, owned: bool) -> None:
        self._source = source
        self._meter = meter
        self._owned = owned

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        # `read1` returns the available bytes: a live pipe must not wait for a full buffer.
        data = (
            self._source.read1(len(buffer))
            if isinstance(self._source, io.BufferedReader)
            else self._source.read(len(buffer))
        )
        buffer[: len(data)] = data
        self._meter.add(len(data))
        return len(data)

    def close(self) -> None:
        if self._owned and not self.closed:
            self._source.close()
        super().close()


class _Descriptor(io.RawIOBase):
    """
    A file descriptor without a lock.

    A thread that waits in `sys.stdin` holds its lock for ever, and then the interpreter cannot end.
    """

    def __init__(self, number: int) -> None:
        self._number = number

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return os.read(self._number, BUFFER_BYTES if size < 0 else size)


def _live_stdin() -> IO[bytes]:
    try:
        return _Descriptor(sys.stdin.fileno())  # type: ignore[return-value]
    except io.UnsupportedOperation:
        return sys.stdin.buffer


class InputFile:
    """
    A file that can be read several times, or stdin.

    Parameters
    ----------
    path : str
        `-` is stdin. Unless `live`, it is copied to a temporary file on the first `open`.
    meter : Meter
    gzipped : bool
    live : bool
        Whether events of stdin are delivered once, as they arrive.
    """

    def __init__(self, path: str, meter: Meter, *, gzipped: bool, live: bool = False) -> None:
        self.path = path
        self.name = "stdin" if path == STDIN else path
        self.live = live and path == STDIN
        self._meter = meter
        self._gzipped = gzipped
        self._spool: IO[bytes] | None = None
        self._plain: IO[bytes] | None = None
        if path != STDIN:
            try:
                with Path(path).open("rb") as file:
                    file.read(1)
                self.size_bytes = Path(path).stat().st_size
            except OSError as error:
                raise InputError(f"{path}: {error.strerror or error}") from None
        else:
            self.size_bytes = 0

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Read from the beginning."""
        if self.path != STDIN:
            raw = _Counted(Path(self.path).open("rb"), self._meter, owned=True)  # noqa: SIM115, it owns the file
        elif self.live:
            raw = _Counted(_live_stdin(), self._meter, owned=False)
        else:
            raw = _Counted(self._spooled(), self._meter, owned=False)
        stream: Any = io.BufferedReader(raw, BUFFER_BYTES)
        if self._gzipped:
            stream = gzip.GzipFile(fileobj=stream)
        try:
            yield stream
        except READ_ERRORS as error:
            raise InputError(f"{self.name}: cannot be read to its end: {error}") from None
        finally:
            stream.close()
            raw.close()

    def seekable(self) -> str | IO[bytes]:
        """
        For formats that are not read in order: the path, or a temporary file with the uncompressed
        bytes.
        """
        if not self._gzipped:
            return self.path
        if self._plain is None:
            self._plain = tempfile.TemporaryFile()  # noqa: SIM115, closed in close()
            with self.open() as stream:
                shutil.copyfileobj(stream, self._plain, BUFFER_BYTES)
        self._plain.seek(0)
        return self._plain

    def count(self, size: int) -> None:
        """Count bytes that were read by other means."""
        self._meter.add(size)

    def close(self) -> None:
        """Remove temporary copies."""
        for file in (self._spool, self._plain):
            if file is not None:
                file.close()
        self._spool = self._plain = None

    def _spooled(self) -> IO[bytes]:
        if self._spool is None:
            self._spool = tempfile.TemporaryFile()  # noqa: SIM115, closed in close()
            shutil.copyfileobj(sys.stdin.buffer, self._spool, BUFFER_BYTES)
            self.size_bytes = self._spool.tell()
            self._meter.total_bytes += PASSES * self.size_bytes
        self._spool.seek(0)
        return self._spool
