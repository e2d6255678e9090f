"""
Our worker and its peers on the same events of the same real Kafka, one after the other: `python
bench/compare.py [--rounds N] [--events N] [--work W ...] [--peers P ...]`.

Works: `predictions` (decode, count, latency histogram, statistics and detectors of ten features and
the score), `pairs` (labels joined, rolling accuracy, confusion, detectors on the errors), `both`
(the two together). Our worker always does everything: in `pairs` a peer does less. Every run has a
group of its own. What each peer does and does not do is said at the top of its file in
`bench/peers`. `--install` makes `.bench-venv` with what the Python peers need; the one in Java is
built by Maven when it is first used.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import measure
import workload

PEERS = Path(__file__).resolve().parent / "peers"
ENVIRONMENT = measure.ROOT / ".bench-venv"
ALERTS = "peer-alerts"
OURS = "stream-monitor"


class Peer(NamedTuple):
    """How to run a peer: `why_not` says what it lacks here, None when it can run."""

    title: str
    command: Callable[[], list[str]]
    why_not: Callable[[], str | None]


def peer_python() -> str:
    """The interpreter of the Python peers: that of `.bench-venv`, else our own."""
    found = ENVIRONMENT / "bin" / "python"
    return str(found) if found.exists() else sys.executable


def python_peer(title: str, file: str, *modules: str) -> Peer:
    """A peer in Python and the modules it needs."""

    def why_not() -> str | None:
        done = subprocess.run(
            [peer_python(), "-c", f"import {', '.join((*modules, 'river', 'prometheus_client'))}"],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return (
            None
            if done.returncode == 0
            else (
                f"{done.stderr.strip().splitlines()[-1]}; `python bench/compare.py --install` "
                "brings it"
            )
        )

    return Peer(title, lambda: [peer_python(), str(PEERS / file)], why_not)


def jvm_peer(title: str) -> Peer:
    """The peer in Java, built when it is first needed or was changed."""
    folder = PEERS / "jvm"
    jar = folder / "target" / "kafka-streams-moa-1.jar"

    def why_not() -> str | None:
        lacking = [name for name in ("java", "mvn") if shutil.which(name) is None]
        if lacking:
            return f"{', '.join(lacking)} not found"
        sources = [folder / "pom.xml", *folder.glob("src/**/*.java")]
        if not jar.exists() or jar.stat().st_mtime < max(s.stat().st_mtime for s in sources):
            done = subprocess.run(
                ["mvn", "-q", "-B", "-f", str(folder / "pom.xml"), "package"],
                capture_output=True,
                text=True,
                timeout=600,
                check=False,
            )
            if done.returncode:
                return f"Maven could not build it: {(done.stdout + done.stderr)[-500:]}"
        return None

    return Peer(
        title,
        lambda: [
            "java",
            "-Xmx1g",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
            "-cp",
            f"{jar}:{jar.parent / 'lib'}/*",
            "peer.Main",
        ],
        why_not,
    )


ALL = {
    "columnar": python_peer(
        "by hand: confluent-kafka, msgspec, numpy",
        "columnar.py",
        "confluent_kafka",
        "msgspec",
        "numpy",
    ),
    "jvm": jvm_peer("Kafka Streams + MOA (Java)"),
    "confluent": python_peer(
        "by hand: confluent-kafka, orjson, River", "confluent_river.py", "confluent_kafka", "orjson"
    ),
    "bytewax": python_peer(
        "Bytewax + River", "bytewax_river.py", "bytewax", "confluent_kafka", "orjson"
    ),
    "quix": python_peer("Quix Streams + River", "quix_river.py", "quixstreams"),
    "faust": python_peer("Faust + River, one event at a time", "faust_river.py", "faust"),
}


class Run(NamedTuple):
    """One subject in one round."""

    round: int
    work: str
    subject: str
    found: measure.Measurement


def install(
    environment: Path = ENVIRONMENT, group: str = "bench", python: str = sys.executable
) -> None:
    """Make an environment with a dependency group of pyproject.toml."""
    subprocess.run([python, "-m", "venv", str(environment)], check=True)
    pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "--upgrade", "pip>=25.1"], check=True)  # the first that knows groups
    subprocess.run([*pip, "--group", group], check=True, cwd=measure.ROOT)


def once(
    subject: str, work: str, bootstrap: str, prefix: str, a: argparse.Namespace
) -> measure.Measurement:
    """Run one subject from nothing to the last event."""
    workload.forget_state(bootstrap, prefix, workload.INPUTS)
    workload.create_topics(bootstrap, [prefix + ALERTS])
    with measure.workplace() as (own, _):
        if subject == OURS:
            command = measure.worker_command(own, bootstrap, prefix)
        else:
            topics = {
                "predictions": prefix + "predictions",
                "labels": prefix + "labels",
                "alerts": prefix + ALERTS,
            }
            given = {
                "bootstrap": bootstrap,
                **topics,
                "work": work,
                "group": measure.fresh(f"{prefix}{subject}"),
                "folder": str(own),
            }
            command = [
                *ALL[subject].command(),
                *(word for name, value in given.items() for word in (f"--{name}", value)),
            ]
        with measure.running(command, own) as running:
            return measure.drained(
                running, measure.COUNTERS[work], a.events, warmup_s=a.warmup, limit_s=a.seconds
            )


def table(runs: list[Run]) -> str:
    """
    Markdown: events (pairs) a CPU-second as minimum, median, maximum of the rounds; the part of
    ours of it, median of the ratios round by round; peak memory; cores used; what waited.

    A run that waited for more than a tenth of its time, or did not count, is no rate: it is told,
    and left out.
    """
    lines = [
        (
            "| work | subject | a CPU-second: min / **median** / max | ours / it: min / "
            "**median** / max | peak MB | cores | measured s | waited % | |"
        )
    ]
    lines += ["|---|---|---|---|---|---|---|---|---|"]
    for work in dict.fromkeys(r.work for r in runs):
        ours = {
            r.round: r.found.per_cpu_s
            for r in runs
            if r.work == work and r.subject == OURS and r.found.is_rate
        }
        for subject in dict.fromkeys(r.subject for r in runs if r.work == work):
            mine = [r for r in runs if (r.work, r.subject) == (work, subject)]
            rates = [r.found.per_cpu_s for r in mine if r.found.is_rate]
            ratios = [
                ours[r.round] / r.found.per_cpu_s
                for r in mine
                if r.round in ours and r.found.is_rate
            ]
            cores = statistics.median(r.found.cpu_s / r.found.wall_s for r in mine)
            lasted_s, waited = (
                statistics.median(r.found.wall_s for r in mine),
                statistics.median(r.found.waited for r in mine),
            )
            notes = [] if all(r.found.complete for r in mine) else ["cut at the time limit"]
            notes += (
                []
                if len(rates) == len(mine)
                else [f"{len(mine) - len(rates)} of {len(mine)} rounds waited and are left out"]
            )
            title = OURS if subject == OURS else ALL[subject].title
            peak = max(r.found.rss_mb for r in mine)
            shown = (
                f"{_spread(rates, ',.0f')} | {_spread(ratios, '.2f')} | {peak:.0f} | {cores:.2f} "
                f"| {lasted_s:.0f} | {100 * waited:.0f}"
            )
            lines.append(f"| {work} | {title} | {shown} | {'; '.join(notes)} |")
    return "\n".join(lines)


def _spread(values: list[float], style: str) -> str:
    """Minimum, median and maximum."""
    if not values:
        return ""
    return (
        f"{min(values):{style}} / **{statistics.median(values):{style}}** / {max(values):{style}}"
    )


def compare(a: argparse.Namespace) -> tuple[list[Run], list[str]]:
    """
    Rounds in which every subject has a turn; another one begins each round.

    The runs, and what failed.
    """
    subjects = [OURS]
    for name in a.peers:
        why = ALL[name].why_not()
        if why is None:
            subjects.append(name)
        else:
            print(f"{name} is skipped: {why}", file=sys.stderr)
    runs: list[Run] = []
    failed: list[str] = []
    with measure.broker(a.bootstrap) as bootstrap, measure.workplace() as (_, prefix):
        topics = {
            work: f"{prefix}{'labelled' if work != 'predictions' else 'plain'}." for work in a.work
        }  # our worker reads labels where there are any
        for each in dict.fromkeys(topics.values()):
            size = workload.produce(bootstrap, each, a.events, labels=each.endswith("labelled."))
            print(f"{a.events:,} predictions of {size} bytes in {each}predictions", file=sys.stderr)
        for number in range(a.rounds):
            for work in a.work:
                turn = number % len(subjects)
                for subject in subjects[turn:] + subjects[:turn]:
                    try:
                        found = once(subject, work, bootstrap, topics[work], a)
                    except RuntimeError as e:  # the other subjects still have their turn
                        print(f"{subject} failed at {work}: {e}", file=sys.stderr, flush=True)
                        failed.append(f"{subject} at {work}")
                        continue
                    runs.append(Run(number, work, subject, found))
                    print(
                        json.dumps(
                            {
                                "round": number,
                                "work": work,
                                "subject": subject,
                                "per_cpu_s": round(found.per_cpu_s),
                                **found._asdict(),
                            }
                        ),
                        file=sys.stderr,
                        flush=True,
                    )
        workload.forget_state(bootstrap, prefix, ())
    return sorted(
        runs, key=lambda r: (a.work.index(r.work), subjects.index(r.subject), r.round)
    ), failed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--events",
        type=int,
        default=1_200_000,
        help="some ten million make a minute of a fast subject",
    )
    parser.add_argument(
        "--work", nargs="+", choices=tuple(measure.COUNTERS), default=["predictions", "pairs"]
    )
    parser.add_argument("--peers", nargs="*", choices=tuple(ALL), default=list(ALL))
    parser.add_argument(
        "--warmup",
        type=float,
        default=10,
        metavar="S",
        help="a slow subject is measured from so many seconds after its first event (a fast one "
        "from a fifth of the events)",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=60,
        metavar="S",
        help="a slow subject is measured for so long",
    )
    parser.add_argument("--bootstrap", metavar="HOST:PORT", help="a broker that runs already")
    parser.add_argument("--install", action="store_true", help="make .bench-venv and stop")
    a = parser.parse_args()
    if a.install:
        install()
        return
    runs, failed = compare(a)
    print(table(runs))
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
