"""
Takes the rows of a person out of the archive.

Rule of the file: a file is replaced whole or not at all, and keeps what it tells of itself, so that
an archiver that runs meanwhile is not confused. Event ids and units are known by their hash only.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from xxhash import xxh3_64_intdigest

from stream_monitor.events.cells import unit_cell
from stream_monitor.training.folder import Folder, save, told_by
from stream_monitor.training.merging import alone


class Forgotten(NamedTuple):
    """What was taken out, or would be."""

    predictions: int
    labels: int
    files: int


def forget(
    folder: Folder, units: Collection[str], event_ids: Collection[str], *, dry_run: bool = False
) -> Forgotten:
    """
    Take out predictions of these units or with these ids, and their labels.

    Parameters
    ----------
    folder : Folder
    units, event_ids : collection of str
        As events have them.
    dry_run : bool
        Only count.

    Notes
    -----
    It reads every file once. What was collected before, and what Kafka and DVC still have, is not
    touched.
    """
    import pyarrow as pa

    ids = {xxh3_64_intdigest(event_id.encode()) for event_id in event_ids}
    of_units = pa.array([unit_cell(unit) for unit in units], pa.float64())
    rows, files = {"prediction": 0, "label": 0}, 0
    with alone(folder):
        for kind in rows:
            for path in sorted(folder.path.glob(f"kind={kind}/model=*/day=*/*.parquet")):
                gone, found = _without(path, ids, of_units, dry_run=dry_run)
                rows[kind] += gone
                files += gone > 0
                ids |= found  # labels come after their predictions, and know no unit
    return Forgotten(rows["prediction"], rows["label"], files)


def _without(path: Path, ids: set[int], units: Any, *, dry_run: bool) -> tuple[int, set[int]]:
    """Write a file again without some rows; returns how many, and their ids."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.ParquetFile(path).read()
    gone = pc.is_in(table["id"], pa.array(sorted(ids), pa.uint64()))
    if len(units) and "unit" in table.column_names and table["unit"].type == pa.float64():
        gone = pc.or_(gone, pc.is_in(table["unit"], units))
    count = pc.sum(gone).as_py() or 0
    if not count:
        return 0, set()
    found = set(table["id"].filter(gone).to_pylist())
    if not dry_run:
        told = told_by(path)
        part = path.with_name(f".{path.name}.forget.tmp")
        save(part, table.filter(pc.invert(gone)), told)
        part.replace(path)
    return count, found
