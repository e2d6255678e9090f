"""
Training data: each prediction with its newest label, in one Parquet file.

Rule of the file: the same range of the same rows gives the same bytes, so that the hash of a file
says what it holds. What is missing stands in the manifest beside it.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from stream_monitor import __version__
from stream_monitor.errors import InputError, StreamMonitorError
from stream_monitor.times import rfc3339
from stream_monitor.training.folder import Hole, replace
from stream_monitor.training.query import as_one, joined, quoted, rows_of
from stream_monitor.training.sources import Found, Source

EXTRA = "collect needs the extra `lifecycle`: pip install 'model-stream-monitor[lifecycle]'"
MEMORY = "1GB"
"""Of DuckDB; beyond it rows go to a temporary folder beside the output."""
THREADS = 2
BLOCK_BYTES = 1 << 20
FAMILIES = ["prediction", "score", "latency_ms", "segments", "variant", "unit", "features", "label"]
"""The order of the columns."""


class Manifest(msgspec.Struct, frozen=True):
    """What a file of training data is made of. Times are RFC 3339."""

    model: str
    source: str
    """`archive` or `kafka`."""
    since: str | None
    until: str | None
    as_of: str | None
    """Nothing that came later counts; None: everything that was there."""
    rows: int
    """Rows of the file."""
    predictions: int
    """Predictions in the range, each counted once."""
    labelled: int
    """How many of them have a label."""
    versions: dict[str, int]
    """Rows by version of the model."""
    columns: dict[str, str]
    empty: list[str]
    """Columns of the source that have no value in the range; they are not in the file."""
    holes: list[Hole]
    """What the source no longer has and might belong to the range."""
    archived_until: str | None
    """Up to where the archive had everything; None from Kafka."""
    file: str
    bytes: int
    hash: str
    """`md5:` and the MD5 of the file, which is also that of DVC."""
    written_by: dict[str, str]


def manifest_path(output: Path) -> Path:
    """
    Where the manifest of a file is.

    >>> manifest_path(Path("data/x.parquet")).as_posix()
    'data/x.manifest.json'
    """
    return output.with_suffix(".manifest.json")


def collect(
    source: Source,
    model: str,
    since_ms: int | None,
    until_ms: int | None,
    output: Path,
    *,
    as_of_ms: int | None = None,
    unlabelled: bool = False,
) -> Manifest:
    """
    Write predictions with their labels to `output`, and a manifest beside it.

    Parameters
    ----------
    source : Source
        `ArchiveSource` or `KafkaSource`.
    model : str
    since_ms, until_ms : int, ms
        Event times of predictions, from `since_ms` on and before `until_ms`. None: no limit.
    output : Path
        A Parquet file; its folder is made.
    as_of_ms : int, ms, optional
        Only what came before counts, labels too. Given a time that the archive has passed, the
        bytes stay the same for ever.
    unlabelled : bool
        Whether predictions without a label are in the file.

    Raises
    ------
    InputError
        There is nothing of the model, or DuckDB is missing.
    BrokerError
        Kafka cannot be read.
    StreamMonitorError
        A file cannot be read, or the disk is full.

    Notes
    -----
    docs/performance.md has the time for a million predictions and labels. Call it in a thread if
    an event loop runs.
    """
    try:
        import duckdb
    except ImportError:
        raise InputError(EXTRA) from None
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".collect-", dir=output.parent) as folder:
        work = Path(folder)
        data = work / "data.parquet"
        limits = {
            "since": -(2**62) if since_ms is None else since_ms,
            "until": 2**62 if until_ms is None else until_ms,
            "as_of": 2**62 if as_of_ms is None else as_of_ms,
        }
        for again in (True, False):
            found = source.find(model, work)
            try:
                with duckdb.connect(config=_options(work)) as base:
                    counts = _write(base, found, limits, data, unlabelled=unlabelled)
                break
            except (FileNotFoundError, duckdb.Error) as e:
                if not again:
                    raise StreamMonitorError(f"{output}: cannot be written: {e}") from None
                # files of the archive were merged meanwhile: list them again
        manifest = Manifest(
            model=model,
            source=source.name,
            since=_text(since_ms),
            until=_text(until_ms),
            as_of=_text(as_of_ms),
            **counts,
            holes=[h for h in found.holes if _concerns(h, limits)],
            archived_until=_text(found.reached_ms),
            file=output.name,
            bytes=data.stat().st_size,
            hash=f"md5:{_md5(data)}",
            written_by={"stream-monitor": __version__, "duckdb": duckdb.__version__},
        )
        data.chmod(0o600)
        data.replace(output)
    encoded = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    replace(manifest_path(output), encoded + b"\n")
    return manifest


def _options(work: Path) -> dict[str, Any]:
    return {
        "memory_limit": MEMORY,
        "threads": THREADS,
        "temp_directory": str(work / "spilled"),
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }


def _write(
    base: Any, found: Found, limits: dict[str, int], data: Path, *, unlabelled: bool
) -> dict[str, Any]:
    """Write the rows, and count them."""
    predictions = rows_of("p", found.predictions)
    labels = rows_of("l", found.labels, ["label"])
    values = {**limits, **predictions.parameters, **labels.parameters}
    base.execute(f"CREATE TEMP TABLE collected AS {joined(predictions, labels)}", values)
    kinds = _filled(base, {**predictions.columns, **labels.columns})
    columns = ["event_id", "version", "timestamp"]
    columns += [as_one(c, kinds[c]) for c in sorted(kinds, key=_place) if kinds[c] or c == "label"]
    base.execute(f"CREATE TEMP VIEW made AS SELECT {', '.join(columns)} FROM collected")  # noqa: S608
    total, labelled = base.execute("SELECT count(*), count(label) FROM made").fetchone()
    chosen = "" if unlabelled else "WHERE label IS NOT NULL"
    target = str(data).replace("'", "''")
    base.execute(
        f"COPY (SELECT * FROM made {chosen} ORDER BY timestamp, event_id, version) "  # noqa: S608
        f"TO '{target}' (FORMAT parquet, COMPRESSION zstd)"
    )
    versions = base.execute(
        f"SELECT version, count(*) FROM made {chosen} GROUP BY 1 ORDER BY 1"  # noqa: S608
    ).fetchall()
    described = base.execute("DESCRIBE made").fetchall()
    return {
        "rows": total if unlabelled else labelled,
        "predictions": total,
        "labelled": labelled,
        "versions": dict(versions),
        "columns": {name: kind for name, kind, *_ in described},
        "empty": sorted(c for c, k in kinds.items() if not k and c != "label"),
    }


def _place(column: str) -> tuple[int, str]:
    """Where a column is in the file, whatever the order in which it was found."""
    family = column.partition(".")[0]
    return FAMILIES.index(family), column


def _filled(base: Any, columns: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The kinds of values that each column has in the rows that were collected."""
    asked = [(c, k) for c, kinds in columns.items() for k in kinds]
    counts = ", ".join(f"count({quoted(f'{k}:{c}')})" for c, k in asked)
    found = base.execute(f"SELECT {counts} FROM collected").fetchone()  # noqa: S608
    there = {pair for pair, n in zip(asked, found, strict=True) if n}
    return {c: [k for k in kinds if (c, k) in there] for c, kinds in columns.items()}


def _concerns(hole: Hole, limits: dict[str, int]) -> bool:
    """
    Whether rows of the range may have been in a hole. Labels come at any time after their
    predictions, so only a hole that ended before the range is harmless.
    """
    ended = hole.before_ms is not None and hole.before_ms <= limits["since"]
    return not ended and (hole.after_ms is None or hole.after_ms < limits["as_of"])


def _text(time_ms: int | None) -> str | None:
    return None if time_ms is None else rfc3339(time_ms)


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
