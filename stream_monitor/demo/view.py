"""
The views of the demo: a live page in a terminal, lines elsewhere, silence for `--json`.

Rule of the file: it shows what it is given and decides nothing.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Self, TextIO

from stream_monitor.demo.readings import Alert
from stream_monitor.demo.simulation import Chapter

if TYPE_CHECKING:
    from stream_monitor.demo.session import State

LINE_EVERY_S = 2.0
DRIFTS_SHOWN = 3
PSI_SHOWN_MIN = 0.01
SIGNALS = {"__error__": "errors", "__score__": "score", "__prediction__": "prediction"}
"""Names of signals that are not features."""
WHAT_IT_IS = (
    "The broker is a small one inside this process: memory only, 127.0.0.1 only, nothing is kept. "
    "For anything else give --broker HOST:PORT. Its speed is no benchmark."
)
NEXT = (
    "Next: `stream-monitor worker` does this for the models on your Kafka, `stream-monitor replay "
    "FILE` for a table of predictions. README.md says what a model server sends."
)
STYLES = {"critical": "bold red", "warning": "yellow", "info": "cyan", "resolved": "green"}


WHERE_IT_WRITES = (
    "Topics and consumer group have a prefix of their own; the topics are removed at the end."
)


def what_it_is(state: State) -> str:
    """What a person must know about the broker."""
    return WHAT_IT_IS if state.embedded else WHERE_IT_WRITES


def alert_line(at_s: float, alert: Alert) -> str:
    """
    One line for an alert.

    Examples
    --------
    >>> fell = Alert("1", "f", "firing", "warning", "performance", "f1", "f1 fell to 0.71.")
    >>> alert_line(12.3, fell)
    '  12.3 s  FIRING    warning   performance: f1 fell to 0.71. [same cause: nobody is told]'
    """
    return f"{at_s:6.1f} s  {alert.status.upper():<8}  {alert.severity:<8}  {sentence(alert)}"


def sentence(alert: Alert) -> str:
    """What an alert says, and whether a person hears of it."""
    told = "" if alert.status == "updated" else " [same cause: nobody is told]"
    if alert.notify:
        told = " [a person is told]"
    elif alert.severity == "info":
        told = ""
    return f"{alert.kind}: {alert.summary}{told}"


def numbers(state: State) -> dict[str, str]:
    """The counts and measurements, as text."""
    readings = state.readings
    far = [drift for drift in readings.drifts if drift.score >= PSI_SHOWN_MIN]
    worst = ", ".join(
        f"{SIGNALS.get(drift.feature, drift.feature)} {drift.score:.2f}"
        for drift in far[:DRIFTS_SHOWN]
    )
    near = f"all below {PSI_SHOWN_MIN}" if readings.drifts else "learning"
    return {
        "predictions": f"{readings.predictions:,}",
        "labels": f"{readings.labels:,}",
        "accuracy": "learning" if readings.accuracy is None else f"{readings.accuracy:.3f}",
        "drift (PSI)": worst or near,
        "detectors": ", ".join(
            sorted({SIGNALS.get(signal, signal) for signal in readings.detected})
        )
        or "quiet",
        "alerts firing": str(readings.firing),
    }


class LineView:
    """Prints lines, for logs and pipes."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._next_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._out.flush()

    def say(self, sentence: str) -> None:
        """Print a remark."""
        print(sentence, file=self._out, flush=True)

    def begin(self, state: State) -> None:
        """Print the addresses of everything."""
        self.say(what_it_is(state))
        self.say(f"broker {state.broker}   metrics {state.metrics_url}")
        self.chapter(0.0, state.chapter)

    def update(self, state: State) -> None:
        """Print the numbers every two seconds."""
        if state.elapsed_s >= self._next_s:
            self._next_s = state.elapsed_s + LINE_EVERY_S
            self.say(
                f"{state.elapsed_s:6.1f} s  "
                + "  ".join(f"{name} {value}" for name, value in numbers(state).items())
            )

    def alert(self, at_s: float, alert: Alert) -> None:
        """Print an alert."""
        self.say(alert_line(at_s, alert))

    def chapter(self, at_s: float, chapter: Chapter) -> None:
        """Print a chapter."""
        self.say(f"{at_s:6.1f} s  STORY     {chapter.sentence}")


class LiveView:
    """
    Prints what happens line by line, above a panel of numbers that is refreshed, for people.

    Lines wrap and stay in the terminal's history.
    """

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(), refresh_per_second=4, transient=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def say(self, sentence: str) -> None:
        """Print a remark."""
        self._live.console.print(sentence, style="dim", markup=False)

    def begin(self, state: State) -> None:
        """Print what is shown here."""
        self.say(what_it_is(state))
        self.chapter(0.0, state.chapter)

    def update(self, state: State) -> None:
        """Redraw the panel."""
        self._live.update(self._panel(state))

    def alert(self, at_s: float, alert: Alert) -> None:
        """Print an alert as an entry."""
        style = STYLES.get("resolved" if alert.status == "resolved" else alert.severity, "")
        self._entry(at_s, alert.status.upper(), f"{alert.severity} {sentence(alert)}", style)

    def chapter(self, at_s: float, chapter: Chapter) -> None:
        """Print a chapter as an entry."""
        self._entry(at_s, "STORY", chapter.sentence, "bold")

    def _entry(self, at_s: float, what: str, sentence: str, style: str) -> None:
        """Time and kind in columns, the sentence wrapped beside them."""
        from rich.table import Table
        from rich.text import Text

        entry = Table.grid(padding=(0, 2, 0, 0))
        entry.add_column(no_wrap=True, justify="right", min_width=len("123.4 s"))
        entry.add_column(no_wrap=True, min_width=len("RESOLVED"))
        entry.add_column(overflow="fold")
        entry.add_row(f"{at_s:.1f} s", what, Text(sentence), style=style)
        self._live.console.print(entry)

    @staticmethod
    def _panel(state: State) -> Any:
        from rich.panel import Panel
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        for name, value in numbers(state).items():
            table.add_row(Text(name, style="dim"), Text(value, style="bold"))
        table.add_row(
            Text("metrics", style="dim"), Text(f"{state.metrics_url}  (open it while this runs)")
        )
        return Panel(
            table,
            title=f"model {state.model}, {state.elapsed_s:.0f} s",
            title_align="left",
            subtitle="Ctrl-C ends the demo",
            subtitle_align="right",
        )


class NoView:
    """Shows nothing until the end, for `--json`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def say(self, sentence: str) -> None:
        """Print a remark to stderr."""
        print(sentence, file=sys.stderr, flush=True)

    def begin(self, state: State) -> None:
        """Print the address of the metrics to stderr."""
        self.say(f"metrics {state.metrics_url}")

    def update(self, state: State) -> None: ...

    def alert(self, at_s: float, alert: Alert) -> None: ...

    def chapter(self, at_s: float, chapter: Chapter) -> None: ...


def summary(state: State) -> dict[str, Any]:
    """The summary of a run, for programs."""
    readings = state.readings
    return {
        "model": state.model,
        "seconds": round(state.elapsed_s, 1),
        "sent": {"predictions": state.sent_predictions, "labels": state.sent_labels},
        "predictions": readings.predictions,
        "labels": readings.labels,
        "accuracy": readings.accuracy,
        "drift": {drift.feature: drift.score for drift in readings.drifts},
        "alerts": [
            {
                "at_s": round(at_s, 1),
                "status": alert.status,
                "severity": alert.severity,
                "kind": alert.kind,
                "subject": alert.subject,
                "summary": alert.summary,
                "incident": alert.incident,
                "notify": alert.notify,
            }
            for at_s, alert in state.alerts
        ],
        "notifications": len(notifications(state)),
        "metrics_url": state.metrics_url,
    }


def notifications(state: State) -> list[Alert]:
    """The alerts that a person was told of; that an incident is over is not counted."""
    return [alert for _, alert in state.alerts if alert.notify and alert.status != "resolved"]


def summary_text(state: State) -> str:
    """The summary of a run, for people."""
    fired = [alert for _, alert in state.alerts if alert.status == "firing"]
    kinds = ", ".join(sorted({alert.kind for alert in fired})) or "none"
    readings = state.readings
    accuracy = "not known" if readings.accuracy is None else f"{readings.accuracy:.3f}"
    counted = f"{readings.predictions:,} predictions and {readings.labels:,} labels counted"
    told = len(notifications(state))
    incidents = len({alert.incident for alert in fired})
    return (
        f"{state.elapsed_s:.0f} s: {counted}, accuracy {accuracy}, {len(fired)} "
        f"alert{'' if len(fired) == 1 else 's'} fired ({kinds}) in {incidents} "
        f"incident{'' if incidents == 1 else 's'}, {told} "
        f"notification{'' if told == 1 else 's'}: one cause is one incident"
    )
