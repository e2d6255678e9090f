"""
What is installed with stream-monitor is permissively licensed, and the commands that audit it do
what they say.
"""

from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

SCRIPT = Path(__file__).parents[2] / "scripts" / "audit.py"
spec = importlib.util.spec_from_file_location("audit", SCRIPT)
assert spec is not None
assert spec.loader is not None
audit = importlib.util.module_from_spec(spec)
spec.loader.exec_module(audit)


@pytest.mark.parametrize("extras", [frozenset(), frozenset({"parquet"})])
def test_licences_are_permissive(extras: frozenset[str]) -> None:
    packages = audit.installed(extras)
    assert {p.name: p.licence for p in packages if not audit.permitted(p.licence)} == {}


def test_what_is_looked_at_is_what_a_worker_runs_with() -> None:
    names = {p.name for p in audit.installed()}
    assert {
        "model-stream-monitor",
        "faust-streaming",
        "aiokafka",
        "river",
        "numpy",
        "mode-streaming",
        "cramjam",
    } <= names
    assert not {"pytest", "ruff", "scikit-learn", "confluent-kafka", "trustme", "pyarrow"} & names
    assert "pyarrow" in {p.name for p in audit.installed(frozenset({"parquet"}))}


@pytest.mark.parametrize(
    ("expression", "fine"),
    [
        ("MIT", True),
        ("Apache-2.0 AND MIT", True),
        ("MIT OR GPL-3.0-only", True),
        ("GPL-3.0-or-later", False),
        ("MIT AND LGPL-2.1-only", False),
        ("AGPL-3.0-only OR BUSL-1.1", False),
        ("License :: OSI Approved :: GNU General Public License v3 (GPLv3)", False),
        ("unknown", False),
        ("", False),
    ],
)
def test_permitted(expression: str, fine: bool) -> None:
    assert audit.permitted(expression) is fine


def test_the_bill_of_materials_is_cyclonedx(tmp_path: Path) -> None:
    assert audit.main(["--offline", "--sbom", str(tmp_path / "sbom.json")]) == 0
    text = (tmp_path / "sbom.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    made = json.loads(text)
    assert made["metadata"]["component"]["name"] == "model-stream-monitor"
    refs = {made["metadata"]["component"]["bom-ref"], *(c["bom-ref"] for c in made["components"])}
    assert len(refs) == len(audit.installed())
    assert {ref for d in made["dependencies"] for ref in [d["ref"], *d["dependsOn"]]} == refs
    assert audit.bill(audit.installed()) == made


@pytest.fixture
def service() -> Iterator[Any]:
    """Answers as OSV, with an advisory on click."""
    asked: list[Any] = []

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.extend(
                json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
            )
            body = json.dumps(
                {
                    "results": [
                        {"vulns": [{"id": "PYSEC-1"}]} if q["package"]["name"] == server.bad else {}
                        for q in asked
                    ]
                }
            ).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server: Any = HTTPServer(("127.0.0.1", 0), Answers)
    server.asked, server.bad = asked, ""
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(5)


def test_an_advisory_is_told_with_its_address(
    service: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"http://127.0.0.1:{service.server_port}"
    assert audit.main(["--service", address]) == 0
    assert {q["package"]["name"] for q in service.asked} == {p.name for p in audit.installed()} - {
        "model-stream-monitor"
    }
    service.asked.clear()
    service.bad = "click"
    assert audit.main(["--service", address]) == audit.FOUND
    assert "vulnerable: click 8." in (told := capsys.readouterr().err)
    assert "https://osv.dev/PYSEC-1" in told


def test_no_answer_is_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.main(["--service", "http://127.0.0.1:1"]) == audit.UNKNOWN
    assert "gave no answer" in capsys.readouterr().err
    assert audit.main(["--service", "http://127.0.0.1:1", "--offline"]) == 0


def test_a_licence_that_is_not_permissive_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit, "PERMISSIVE", audit.PERMISSIVE - {"PSF-2.0"})
    assert audit.main(["--offline"]) == audit.FOUND
    assert "licence: typing-extensions" in capsys.readouterr().err
