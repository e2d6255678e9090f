"""`rejudge` on a log that a worker wrote in transactions: it finds again what was told."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from typing import Any

import pytest

from tests.kafka.site import Site, read_all, value

pytestmark = pytest.mark.kafka
ROWS = 1_200


def rejudge(*arguments: str) -> Any:
    command = [sys.executable, "-m", "stream_monitor", "rejudge", "--json", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_the_fold_of_the_present_configuration_tells_again_what_the_worker_told(site: Site):
    rng = random.Random(1)
    rows = [
        json.dumps(
            {
                "event_id": str(i),
                "model": "m",
                "prediction": 1,
                "features": {"x": None if i >= ROWS / 2 else rng.gauss(0, 1)},
            }
        ).encode()
        for i in range(ROWS)
    ]
    site.start()
    site.ready()
    site.send(rows[: ROWS // 2])
    site.wait("the first half", lambda: site.predictions() == ROWS / 2)
    site.send(rows[ROWS // 2 :])
    topic = site.prefix + "alerts"
    site.wait("an alert", lambda: read_all(site.bootstrap, topic))
    assert site.stop() == 0
    told = [json.loads(value(message)) for message in read_all(site.bootstrap, topic)]
    ends = [len(read_all(site.bootstrap, site.prefix + t)) for t in ("observations", "snapshots")]
    again = site.folder / "again.jsonl"

    report = rejudge("--since", "1h", "--config", str(site.file), "--alerts", str(again))

    assert [json.loads(line) for line in again.read_text().splitlines()] == told
    assert {a["in"] for a in report["alarms"]} == {"both"}
    assert ("m", "x") in {(a["model"], a["subject"]) for a in report["alarms"]}
    assert report["rows"] == ROWS
    tolerant = site.folder / "tolerant.yaml"
    present = site.file.read_text()
    new = present.replace("defaults: {", "defaults: {quality: {missing_ratio: off}, ")
    tolerant.write_text(new)
    other = rejudge("--since", "1h", "--config", str(tolerant), "--model", "m", "--were", "told")
    assert "data_quality" in {a["kind"] for a in other["alarms"] if a["in"] == "only was"}
    assert "data_quality" not in {a["kind"] for a in other["alarms"] if a["in"] != "only was"}
    assert ends == [
        len(read_all(site.bootstrap, site.prefix + t)) for t in ("observations", "snapshots")
    ]
