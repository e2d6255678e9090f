"""
The manners of the repository, as tests: what is not checked here is not a rule.

An exception is written beside its rule with its reason, and goes when the reason does.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from stream_monitor.schema import topics

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "stream_monitor"
MODULES = sorted(PACKAGE.rglob("*.py"))
SOURCES = [
    *MODULES,
    *sorted(
        p
        for folder in ("tests", "scripts", "bench", "examples")
        for p in (ROOT / folder).rglob("*.py")
    ),
]
TREES = {path: ast.parse(path.read_text()) for path in SOURCES}

MODULE_LINES_MAX, FUNCTION_LINES_MAX, DEPTH_MAX = 400, 60, 2
WITHOUT_RULE = ("__main__.py", "__init__.py")
"""Besides the commands of `cli`, which are their `--help`."""
NOT_IMPORTED = {
    "stream_monitor.__main__": "`python -m stream_monitor`",
    "stream_monitor.metrics.page": "makes docs/metrics.md; tests/unit/test_metrics_page.py holds that to it",  # noqa: E501
    "stream_monitor.exports.topics_page": "makes docs/topics.md",
    "stream_monitor.exports.configuration_page": "makes docs/configuration.md",
}
DOCSTRINGS_TO_MEND = {"stream_monitor/monitors/segments.py: codes: cells"}
"""Two parameters on one line."""
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "shelve", "marshal", "joblib", "cloudpickle"}
UNSAFE_CALLS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "os.system",
    "np.load",
    "numpy.load",
}
BANNED_WORDS = {"util", "utils", "helper", "helpers", "common", "manager", "managers", "misc"}
CONTRACT_TOPICS = (
    "predictions",
    "labels",
    "observations",
    "alerts",
    "dead-letters",
    "anomalies",
    "history",
    "snapshots",
    "baselines",
    "lifecycle",
)
ARRAYS = re.compile(r"\b(Float|Int|Bool|NDArray|Cells)\b")
SHAPE = re.compile(r"\([\w +\-*]+,[\w ,+\-*]*\)")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def definitions(path: Path) -> Iterator[Function | ast.ClassDef]:
    return (n for n in ast.walk(TREES[path]) if isinstance(n, Function | ast.ClassDef))


def functions(path: Path) -> Iterator[Function]:
    return (n for n in definitions(path) if isinstance(n, Function))


def public_functions(path: Path) -> Iterator[tuple[str, Function]]:
    """Functions of a module and methods of its classes that others may call."""
    for node in TREES[path].body:
        for inner in (
            node.body
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
            else [node]
        ):
            if isinstance(inner, Function) and not inner.name.startswith("_"):
                yield (
                    f"{node.name}.{inner.name}" if isinstance(node, ast.ClassDef) else inner.name,
                    inner,
                )


def parameters(function: Function) -> list[ast.arg]:
    a = function.args
    return [
        x
        for x in [*a.posonlyargs, *a.args, a.vararg, *a.kwonlyargs, a.kwarg]
        if x is not None and x.arg not in ("self", "cls")
    ]


def section(doc: str, name: str) -> list[str]:
    """Lines of a section of a numpydoc docstring."""
    lines = doc.splitlines()
    starts = [i for i in range(len(lines) - 1) if re.fullmatch(r"-{3,}", lines[i + 1].strip())]
    for i in starts:
        if lines[i].strip() == name:
            return lines[i + 2 : next((s for s in starts if s > i), len(lines))]
    return []


# ---- size and names


def test_no_module_is_too_long() -> None:
    """One that outgrows the limit becomes two, or a folder."""
    lines = {p.relative_to(PACKAGE).as_posix(): len(p.read_text().splitlines()) for p in MODULES}
    assert {name: n for name, n in lines.items() if n > MODULE_LINES_MAX} == {}


def test_no_function_is_too_long() -> None:
    """Without its docstring."""
    long = []
    for path in SOURCES:
        for function in functions(path):
            doc = function.body[0] if ast.get_docstring(function, clean=False) is not None else None
            lines = (
                (function.end_lineno or 0)
                - function.lineno
                + 1
                - ((doc.end_lineno or 0) - doc.lineno + 1 if doc else 0)
            )
            if lines > FUNCTION_LINES_MAX:
                long.append(f"{named(path)}: {function.name} has {lines}")
    assert long == []


def test_names_say_something() -> None:
    """A module, folder or class of `helpers` says nothing of what it is of."""
    names = [
        (path, name)
        for path in SOURCES
        for name in (
            path.stem,
            path.parent.name,
            *(d.name for d in definitions(path) if isinstance(d, ast.ClassDef)),
        )
    ]
    assert [
        f"{named(path)}: {name}"
        for path, name in names
        if {w.lower() for w in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)} & BANNED_WORDS
    ] == []


def test_inheritance_is_shallow() -> None:
    bases = {
        d.name: [b.id for b in d.bases if isinstance(b, ast.Name)]
        for path in MODULES
        for d in definitions(path)
        if isinstance(d, ast.ClassDef)
    }

    def depth(name: str) -> int:
        return 1 + max(
            (depth(base) for base in bases[name] if base in bases and base != name), default=0
        )

    assert {name: d for name in bases if (d := depth(name)) > DEPTH_MAX + 1} == {}


# ---- docstrings


def test_every_module_begins_with_its_rule() -> None:
    """A line `Rule of the file: …` in its docstring."""
    wanted = [
        p
        for p in MODULES
        if not p.relative_to(PACKAGE).as_posix().startswith("cli/") and p.name not in WITHOUT_RULE
    ]
    assert [
        named(p)
        for p in wanted
        if not re.search(
            r"^Rule of the (file|package)\b", ast.get_docstring(TREES[p]) or "", re.MULTILINE
        )
    ] == []


def test_parameters_of_docstrings_are_those_of_the_code() -> None:
    wrong = []
    for path in MODULES:
        for node in definitions(path):
            lines = section(ast.get_docstring(node) or "", "Parameters")
            function = (
                next(
                    (m for m in node.body if isinstance(m, Function) and m.name == "__init__"), None
                )
                if isinstance(node, ast.ClassDef)
                else node
            )
            if not lines or function is None:
                continue
            told = {
                name.strip().lstrip("*")
                for line in lines
                if line.strip() and not line.startswith(" ")
                for name in line.partition(" : ")[0].split(",")
            }
            if told != (taken := {p.arg for p in parameters(function)}):
                wrong.append(f"{named(path)}: {node.name}: {', '.join(sorted(told ^ taken))}")
    assert set(wrong) - DOCSTRINGS_TO_MEND == set()


def test_arrays_have_their_shape_in_the_docstring() -> None:
    """As in `(n,) float64, ms`, or in an example, in the packages that compute."""
    wrong = []
    for path in MODULES:
        for name, function in (
            public_functions(path) if path.parent.name in ("stats", "windows", "detectors") else ()
        ):
            doc = ast.get_docstring(function) or ""
            if (
                any(
                    p.annotation and ARRAYS.search(ast.unparse(p.annotation))
                    for p in parameters(function)
                )
                and not SHAPE.search(doc)
                and ">>>" not in doc
            ):
                wrong.append(f"{named(path)}: {name}")
    assert wrong == []


def test_every_statistic_has_an_example_that_runs() -> None:
    found = [
        (p, name, f)
        for p in MODULES
        if p.parent.name == "stats"
        for name, f in public_functions(p)
        if "." not in name
    ]
    assert len(found) > 10
    assert [
        f"{named(p)}: {name}" for p, name, f in found if ">>>" not in (ast.get_docstring(f) or "")
    ] == []


# ---- what is not done here


def faults(node: ast.AST) -> Iterator[str]:
    """What would run or unpickle what was read."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = [a.name for a in node.names] + (
            [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        )
        yield from {n.partition(".")[0] for n in names} & UNSAFE_MODULES
    if isinstance(node, ast.Call):
        if (called := ast.unparse(node.func)) in UNSAFE_CALLS:
            yield called
        yield from (
            f"{k.arg}=True"
            for k in node.keywords
            if k.arg in ("shell", "allow_pickle") and getattr(k.value, "value", None) is True
        )


def test_nothing_runs_what_it_reads() -> None:
    paths = [*MODULES, *sorted((ROOT / "scripts").rglob("*.py"))]
    assert [
        f"{named(p)}:{getattr(node, 'lineno', 0)}: {fault}"
        for p in paths
        for node in ast.walk(TREES[p])
        for fault in faults(node)
    ] == []


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
    return found


def test_no_module_is_dead() -> None:
    """
    Each is imported by another one of the package.

    Commands are imported by name, from the table of `cli`.
    """
    everywhere = set().union(*(imported(p) for p in MODULES))
    names = {
        ".".join(p.relative_to(ROOT).with_suffix("").parts)
        for p in MODULES
        if p.name != "__init__.py" and p.parent.name != "cli"
    }
    assert names - everywhere == set(NOT_IMPORTED)


# ---- the repository


def tracked() -> list[Path]:
    """Files of the repository: what git knows, or everything where there is no git (a release)."""
    found = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if found.returncode:
        return [
            p
            for p in ROOT.rglob("*")
            if p.is_file() and not any(part.startswith(".") for part in p.relative_to(ROOT).parts)
        ]
    return [ROOT / name for name in found.stdout.split("\0") if name and (ROOT / name).exists()]


def test_no_file_tells_of_the_machine_it_was_written_on() -> None:
    traces = re.compile(
        "|".join(
            ["/" + folder + r"/\w" for folder in ("home", "root", "work", "Users")]
            + [r"[A-Z]:\\+Users"]
        )
    )
    texts = [p for p in tracked() if p.suffix not in (".png", ".svg", ".gz", ".parquet")]
    found = [
        f"{named(p)}:{i}: {line.strip()[:80]}"
        for p in texts
        for i, line in enumerate(p.read_text("utf-8").splitlines(), 1)
        if traces.search(line)
    ]
    assert found == []
    assert [named(p) for p in tracked() if p.is_symlink()] == []


def test_what_needs_a_real_kafka_is_where_it_is_run() -> None:
    """`scripts/test` runs one folder for it."""
    marked = [named(path) for path in SOURCES if "pytest.mark." + "kafka" in path.read_text()]
    assert marked
    assert [path for path in marked if not path.startswith("tests/kafka/")] == []


def test_no_file_is_large() -> None:
    assert [named(p) for p in tracked() if p.stat().st_size > 300_000] == []


def test_topics_are_those_of_the_contract() -> None:
    assert set(topics()) == set(CONTRACT_TOPICS)
    assert sorted(p.stem for p in (ROOT / "topics").glob("*.yaml")) == sorted(CONTRACT_TOPICS)
    for name, topic in topics().items():
        assert topic.name == name
        assert topic.partitions >= 1
