"""
What stream-monitor brings with it: licences, known vulnerabilities, and a bill of materials (SBOM).

Rule of the file: it looks at what is installed here, from stream-monitor down: what a worker runs
with, not the tools of its developers. One request goes out, to the advisory service, with names and
versions; when it is not answered that is said, and is no success.

Examples: python scripts/audit.py
          python scripts/audit.py --offline --sbom sbom.json
"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.error
import urllib.request
import uuid
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = "model-stream-monitor"
OSV = "https://api.osv.dev/v1/querybatch"
TIMEOUT_S = 30
FOUND, UNKNOWN = 1, 2
"""Exit codes: something is wrong; the advisory service did not answer."""

PERMISSIVE = frozenset(
    {
        "Apache-2.0",
        "MIT",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "0BSD",
        "ISC",
        "Zlib",
        "CC0-1.0",
        "PSF-2.0",
        "Python-2.0",
        "Unlicense",
        "BSD",
        "ZPL-2.1",
    }
)
"""
Licences that let anybody use, change and sell: SPDX names, and `BSD` where a package does not say
which.
"""
SAID = {
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: MIT License": "MIT",
    "License :: OSI Approved :: BSD License": "BSD",
    "License :: OSI Approved :: ISC License (ISCL)": "ISC",
    "License :: OSI Approved :: Python Software Foundation License": "PSF-2.0",
    "License :: Repoze Public License": "BSD",  # BSD-derived, says its author
}
"""What packages of an older make say, as SPDX has it."""


class Package(NamedTuple):
    """One distribution, and what it needs here."""

    name: str
    version: str
    licence: str
    needs: tuple[str, ...]

    @property
    def purl(self) -> str:
        return f"pkg:pypi/{self.name}@{self.version}"


def installed(extras: frozenset[str] = frozenset()) -> list[Package]:
    """What stream-monitor needs, itself first, by the markers of this Python and platform."""
    needs: dict[str, set[str]] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [(ROOT, extras)]
    while waiting:
        name, wanted = waiting.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        below = needs.setdefault(name, set())
        for requirement in map(Requirement, metadata.distribution(name).requires or ()):
            if requirement.marker is None or any(
                requirement.marker.evaluate({"extra": extra}) for extra in wanted or {""}
            ):
                child = canonicalize_name(requirement.name)
                if child != name:
                    below.add(child)
                waiting.append((child, frozenset(requirement.extras)))
    return [
        Package(
            name,
            metadata.version(name),
            licence_of(metadata.metadata(name)),
            tuple(sorted(needs[name])),
        )
        for name in sorted(needs, key=lambda name: (name != ROOT, name))
    ]


def licence_of(about: Any) -> str:
    """Its licence as an SPDX expression, as far as it says; else what it says."""
    if expression := about.get("License-Expression"):
        return str(expression)
    classified = [
        SAID.get(classifier, classifier)
        for classifier in about.get_all("Classifier", [])
        if classifier.startswith("License ::")
    ]
    return (
        " AND ".join(classified) or (about.get("License") or "unknown").strip().splitlines()[0][:80]
    )


def permitted(expression: str) -> bool:
    """
    Whether a licence lets anybody use it, by one of its alternatives.

    >>> (
    ...     permitted("Apache-2.0 OR GPL-3.0-only"),
    ...     permitted("MIT AND BSD-3-Clause"),
    ...     permitted("MIT AND GPL-2.0-or-later"),
    ...     permitted("BUSL-1.1"),
    ... )
    (True, True, False, False)
    """
    return any(
        all(one.strip() in PERMISSIVE for one in each.strip("() ").split(" AND "))
        for each in expression.split(" OR ")
    )


def advisories(packages: list[Package], url: str) -> dict[str, list[str]]:
    """
    Ids of the advisories on each package that has some.

    Raises OSError when the service does not answer.
    """
    queries = [
        {"package": {"ecosystem": "PyPI", "name": package.name}, "version": package.version}
        for package in packages
    ]
    request = urllib.request.Request(
        url, json.dumps({"queries": queries}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        results = json.load(response)["results"]
    if len(results) != len(packages):
        raise OSError(f"{len(results)} answers to {len(packages)} questions")
    return {
        package.name: sorted(each["id"] for each in result["vulns"])
        for package, result in zip(packages, results, strict=True)
        if result.get("vulns")
    }


def bill(packages: list[Package]) -> dict[str, Any]:
    """The bill of materials in the form of CycloneDX 1.6. The same packages make the same bill."""

    def component(package: Package) -> dict[str, Any]:
        spdx = package.licence != "BSD" and permitted(package.licence)
        licences = (
            [{"expression": package.licence}] if spdx else [{"license": {"name": package.licence}}]
        )
        kind = "application" if package.name == ROOT else "library"
        return {
            "type": kind,
            "bom-ref": package.purl,
            "name": package.name,
            "version": package.version,
            "purl": package.purl,
            "licenses": licences,
        }

    purls = {package.name: package.purl for package in packages}
    number = uuid.uuid5(uuid.NAMESPACE_URL, " ".join(sorted(purls.values())))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{number}",
        "version": 1,
        "metadata": {"component": component(packages[0])},
        "components": [component(package) for package in packages[1:]],
        "dependencies": [
            {"ref": package.purl, "dependsOn": [purls[name] for name in package.needs]}
            for package in packages
        ],
    }


def asked(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Licences, known vulnerabilities and bill of materials of what stream-monitor "
        "installs."
    )
    parser.add_argument(
        "--offline", action="store_true", help="ask no advisory service: licences only"
    )
    parser.add_argument(
        "--sbom",
        metavar="FILE",
        help="write the bill of materials (CycloneDX 1.6, JSON); - is stdout",
    )
    parser.add_argument(
        "--extra",
        action="append",
        default=[],
        help="with this extra of stream-monitor, such as parquet; may be repeated",
    )
    parser.add_argument(
        "--service",
        metavar="URL",
        default=OSV,
        help="a service that answers as OSV's querybatch (default: %(default)s)",
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    given = asked(arguments)
    packages = installed(frozenset(given.extra))
    if given.sbom:
        text = json.dumps(bill(packages), indent=2) + "\n"
        sys.stdout.write(text) if given.sbom == "-" else Path(given.sbom).write_text(text)
    refused = [package for package in packages if not permitted(package.licence)]
    for package in refused:
        print(
            f"licence: {package.name} {package.version}: {package.licence}: not known to be "
            "permissive; look at it, then add it to PERMISSIVE or drop the package",
            file=sys.stderr,
        )
    found: dict[str, list[str]] = {}
    if not given.offline:
        try:
            found = advisories(packages[1:], given.service)
        except (OSError, ValueError, KeyError) as e:
            print(
                f"advisories: {given.service} gave no answer ({e}): nothing is known about "
                "vulnerabilities; --offline looks at licences alone",
                file=sys.stderr,
            )
            return UNKNOWN
    versions = {package.name: package.version for package in packages}
    for name, ids in found.items():
        print(
            f"vulnerable: {name} {versions[name]}: "
            f"{', '.join(f'https://osv.dev/{each}' for each in ids)}",
            file=sys.stderr,
        )
    looked = "licences" if given.offline else "licences and advisories"
    print(
        f"{len(packages)} packages: {looked} looked at, {len(refused) + len(found)} to act on",
        file=sys.stderr,
    )
    return FOUND if refused or found else 0


if __name__ == "__main__":
    sys.exit(main())
