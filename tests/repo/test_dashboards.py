"""Dashboards and rules: as generated, about metrics that exist, and with something to show."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import promql_parser
import pytest
import yaml
from click.testing import CliRunner

from stream_monitor.cli.export import RULES_FILE, command, dashboard_files, rules_text
from stream_monitor.metrics import queries
from stream_monitor.metrics.catalogue import CATALOGUE
from stream_monitor.metrics.dashboards import dashboards
from stream_monitor.metrics.rules import rules

FOLDER = Path(__file__).parents[2] / "dashboards"
SUFFIXES = {
    "histogram": ("_bucket", "_sum", "_count"),
    "summary": ("",),
    "counter": ("",),
    "gauge": ("",),
}
SERIES = {
    metric.name + suffix: metric
    for metric in CATALOGUE.values()
    for suffix in SUFFIXES[metric.type]
}
BOARDS = dashboards()
PANELS = [
    (f"{board} {panel['title']}", panel)
    for board, content in BOARDS.items()
    for panel in content["panels"]
    if panel["type"] != "row"
]
TARGETS = [
    (f"{name} {target['refId']}", target["expr"])
    for name, panel in PANELS
    for target in panel["targets"]
]
RULES = [
    (rule.get("alert") or rule["record"], rule["expr"])
    for group in rules()["groups"]
    for rule in group["rules"]
]
RECORDED = {
    rule["record"] for group in rules()["groups"] for rule in group["rules"] if "record" in rule
}


def named(cases):
    return pytest.mark.parametrize(
        "subject", [case for _, case in cases], ids=[name for name, _ in cases]
    )


@pytest.fixture
def promtool():
    if shutil.which("promtool") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("promtool must be on PATH in CI")
        pytest.skip("promtool is not on PATH")

    def run(*arguments):
        return subprocess.run(
            ["promtool", *arguments], capture_output=True, text=True, timeout=60, check=False
        )

    return run


def filled(expression: str) -> str:
    """
    An expression with the variables of Grafana replaced by what they are when everything is chosen.
    """
    return re.sub(
        r"\$\w+", lambda found: "5m" if found[0] == "$__rate_interval" else ".*", expression
    )


def selectors(expression: str) -> list[promql_parser.VectorSelector]:
    """All vector selectors of an expression."""
    found = []

    def visit(node):
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)
        for name in ("expr", "lhs", "rhs", "vector_selector", "vs"):
            if (child := getattr(node, name, None)) is not None and not isinstance(child, str):
                visit(child)
        for child in getattr(node, "args", None) or []:
            visit(child)

    visit(promql_parser.parse(expression))
    return found


@pytest.mark.parametrize("name", BOARDS)
def test_committed_dashboards_are_those_of_the_generator(name):
    assert (FOLDER / name).read_text() == dashboard_files()[name], (
        "run: stream-monitor export dashboards"
    )


def test_committed_rules_are_those_of_the_generator():
    assert (FOLDER / RULES_FILE).read_text() == rules_text(), "run: stream-monitor export rules"
    assert yaml.safe_load(rules_text()) == rules()


def test_nothing_else_is_in_the_folder():
    assert {path.name for path in FOLDER.iterdir()} == {
        *BOARDS,
        RULES_FILE,
        "prometheus.yml",
        "provisioning",
    }  # the latter two are written by hand


@named(TARGETS + RULES)
def test_every_metric_of_an_expression_is_in_the_catalogue_with_its_labels(subject):
    found = selectors(filled(subject))
    assert found
    for each in found:
        if each.name not in RECORDED:
            metric = SERIES[each.name or ""]
            assert {matcher.name for matcher in each.matchers.matchers} <= {
                *metric.labels,
                "job",
                "instance",
            }


@named([(name, expression) for name, expression in TARGETS + RULES if "_total" in expression])
def test_counters_are_only_shown_as_rates(subject):
    """But for the question whether one is new, which asks for it now and for it before."""
    bare = re.sub(r"(rate|increase)\(\w+(\{[^}]*\})?\[[^\]]*\]\)", "", subject)
    now, before = (
        re.findall(r"(\w+_total)\b(?! offset)", bare),
        re.findall(r"(\w+_total) offset", bare),
    )
    assert now == before


@named(PANELS)
def test_panel_is_complete(subject):
    assert subject["title"]
    assert subject["description"].endswith(".")
    assert subject["fieldConfig"]["defaults"]["unit"]
    assert subject["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    references = [target["refId"] for target in subject["targets"]]
    assert references
    assert len(set(references)) == len(references)
    for target in subject["targets"]:
        assert 'job=~"$job"' in target["expr"]
        assert 'instance=~"$instance"' in target["expr"]


@pytest.mark.parametrize("name", BOARDS)
def test_dashboard_is_fit_for_provisioning(name):
    board = BOARDS[name]
    assert (board["schemaVersion"], board["editable"]) == (42, False)
    assert re.fullmatch(r"[a-z-]{1,40}", board["uid"])
    assert "__inputs" not in board
    assert [panel["id"] for panel in board["panels"]] == list(range(1, len(board["panels"]) + 1))
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert {"datasource", "job", "instance"} <= set(variables)
    if name != "loop.json":  # a controller and an archive have no series that names a group
        assert "$group" in variables["instance"]["query"]["query"]
        assert variables["instance"]["allValue"] is None, (
            "all instances are those of the chosen groups"
        )
    assert all(
        variable["refresh"] == 2 for variable in variables.values() if variable["type"] == "query"
    )
    used = set(re.findall(r"\$(\w+)", json.dumps(board["panels"]))) - {"__rate_interval"}
    assert used <= set(variables)
    for variable in variables.values():
        if variable["type"] == "query":
            query = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
            assert query is not None
            inner, label = query.groups()
            (found,) = selectors(filled(inner))
            by_name = [m.value for m in found.matchers.matchers if m.name == "__name__"]
            for name in by_name[0].split("|") if found.name is None else [found.name]:
                assert label in {*SERIES[name].labels, "job", "instance"}


@pytest.mark.parametrize("name", BOARDS)
def test_panels_do_not_overlap(name):
    taken: set[tuple[int, int]] = set()
    for panel in BOARDS[name]["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken
        taken |= cells


def test_alerts_say_what_to_do():
    for group in rules()["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                assert rule["annotations"]["summary"]
                assert rule["annotations"]["description"].endswith(".")
                assert (
                    rule.get("labels", {}).get("severity") in {"warning", "critical"}
                    or rule["alert"] == "ModelIncidentsFiring"
                )


def test_promtool_accepts_the_rules(promtool):
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", str(FOLDER / RULES_FILE))
    assert done.returncode == 0, done.stderr


def every_series(step: float):
    """Series of every metric as promtool reads them, growing by `step` a minute."""
    for name, metric in SERIES.items():
        labels = {label: "0.5" if label == "quantile" else "x" for label in metric.labels} | {
            "job": "j",
            "instance": "i",
        }
        for extra in ({"le": "1.0"}, {"le": "+Inf"}) if name.endswith("_bucket") else ({},):
            text = ",".join(f'{label}="{value}"' for label, value in (labels | extra).items())
            yield {"series": f"{name}{{{text}}}", "values": f"1+{step}x60"}


def test_every_panel_shows_something_when_every_metric_is_there(promtool, tmp_path):
    checks = [
        {
            "expr": f"count({filled(expression)}) > bool 0",
            "eval_time": "30m",
            "exp_samples": [{"labels": "{}", "value": 1}],
        }
        for _, expression in TARGETS
    ]
    tests = {
        "rule_files": [],
        "evaluation_interval": "1m",
        "tests": [
            {"interval": "1m", "input_series": list(every_series(1.0)), "promql_expr_test": checks}
        ],
    }
    (tmp_path / "panels.yml").write_text(json.dumps(tests))
    done = promtool("test", "rules", str(tmp_path / "panels.yml"))
    assert done.returncode == 0, done.stdout + done.stderr


def firing_at(
    promtool, tmp_path, series: dict[str, str], *at: str, step: str = "1m"
) -> list[set[str]]:
    """
    Names of the alerts that fire at each time, written as promtool writes it: those of which it
    complains when none is expected. Rules are looked at in steps.
    """
    names = sorted(
        {rule["alert"] for group in rules()["groups"] for rule in group["rules"] if "alert" in rule}
    )
    test = {
        "interval": "1m",
        "input_series": [{"series": key, "values": values} for key, values in series.items()],
        "alert_rule_test": [
            {"eval_time": time, "alertname": name, "exp_alerts": []}
            for time in at
            for name in names
        ],
    }
    (tmp_path / "alert.yml").write_text(
        json.dumps(
            {"rule_files": [str(FOLDER / RULES_FILE)], "evaluation_interval": step, "tests": [test]}
        )
    )
    done = promtool("test", "rules", str(tmp_path / "alert.yml"))
    found = set(re.findall(r"alertname: (\w+), time: (\w+)", done.stdout + done.stderr))
    assert bool(found) == bool(done.returncode), done.stdout + done.stderr
    assert {when for _, when in found} <= {*at}
    return [{name for name, when in found if when == time} for time in at]


def firing(promtool, tmp_path, series: dict[str, str], at: str) -> set[str]:
    """Names of the alerts that fire at a time."""
    return firing_at(promtool, tmp_path, series, at)[0]


HEALTHY = {
    "stream_monitor_build_info{job='j',instance='i'}": "1x200",
    "stream_monitor_config_info{job='j',instance='i',group='g',hash='a'}": "1x2000",
    "stream_monitor_config_info{job='j',instance='k',group='g',hash='before'}": "1x23 _x177",
    "stream_monitor_config_info{job='j',instance='k',group='g',hash='a'}": "_x23 1x177",
    "stream_monitor_config_info{job='j',instance='l',group='another',hash='b'}": "1x200",
    "model_predictions_total{job='j',instance='l',model='m',version='1'}": "0+600x200",
    "model_prediction_errors_total{job='j',instance='l',model='m',version='1'}": "0x200",
    "stream_monitor_ready{job='j',instance='i'}": "1x200",
    "stream_monitor_log_time_lag_seconds{job='j',instance='i',topic='observations',partition='0'}": "0.2x200",  # noqa: E501
    "stream_monitor_records_total{job='j',instance='i',topic='predictions',outcome='forwarded'}": "0+600x200",  # noqa: E501
    "stream_monitor_dead_letters_total{job='j',instance='i',topic='predictions',reason='invalid_json'}": "0+1x200",  # noqa: E501
    "stream_monitor_predictions_refused_total{job='j',instance='i',model='m'}": "0+6x200",
    "stream_monitor_timestamps_replaced_total{job='j',instance='i'}": "0+1x200",
    "stream_monitor_predictions_evicted_total{job='j',instance='i'}": "0x200",
    "stream_monitor_series_dropped_total{job='j',instance='i'}": "0x200",
    "stream_monitor_scrape_errors_total{job='j',instance='i'}": "0x200",
    "model_predictions_total{job='j',instance='i',model='m',version='1'}": "0+600x200",
    "model_prediction_errors_total{job='j',instance='i',model='m',version='1'}": "0+6x200",
    "model_incidents_firing{job='j',instance='i',model='m',version='1',severity='critical'}": "0x200",  # noqa: E501
    "model_incidents_firing{job='j',instance='i',model='m',version='1',severity='info'}": "1x200",
    # the active controller is killed, and another one takes over
    "stream_monitor_controller_active{job='j',instance='c'}": "1x130 _x70",
    "stream_monitor_controller_active{job='j',instance='d'}": "0x132 1x68",
    "stream_monitor_controller_waiting{job='j',instance='d',model='m',reason='labels'}": "1x200",
    "stream_monitor_retraining_end_timestamp_seconds{job='j',instance='d',model='m',end='done'}": "8900x200",  # noqa: E501
    "stream_monitor_retraining_end_timestamp_seconds{job='j',instance='d',model='m',end='failed'}": "5000x200",  # noqa: E501
    # the archive is restarted elsewhere; a hole that was found two days ago is known
    "stream_monitor_archive_holes{job='a',instance='e'}": "1x100 _x100",
    "stream_monitor_archive_holes{job='a',instance='f'}": "_x105 1x95",
    "stream_monitor_archive_last_hole_timestamp_seconds{job='a',instance='f'}": "-180000x200",
    "stream_monitor_archive_lag_seconds{job='a',instance='f'}": "30000x10 60x190",
}
ILL = {
    "StreamMonitorAbsent": dict.fromkeys(
        ("stream_monitor_build_info{job='j',instance='i'}",), "_x200"
    ),
    "StreamMonitorNotReady": {"stream_monitor_ready{job='j',instance='i'}": "0x200"},
    "StreamMonitorBehind": {
        "stream_monitor_log_time_lag_seconds{job='j',instance='i',topic='observations',partition='0'}": "90x200"  # noqa: E501
    },
    "StreamMonitorClock": {"stream_monitor_clock_offset_seconds{job='j',instance='i'}": "-90x200"},
    "StreamMonitorEventsAhead": {
        "stream_monitor_timestamps_replaced_total{job='j',instance='i'}": "0+30x200"
    },
    "ModelPredictionsRefused": {
        "stream_monitor_predictions_refused_total{job='j',instance='i',model='m'}": "0+70x200"
    },
    "StreamMonitorDeadLetters": {
        "stream_monitor_dead_letters_total{job='j',instance='i',topic='predictions',reason='invalid_json'}": "0+30x200"  # noqa: E501
    },
    "StreamMonitorTwoConfigurations": {
        "stream_monitor_config_info{job='j',instance='other',group='g',hash='b'}": "_x20 1x180"
    },
    "StreamMonitorRecordsLost": {
        "stream_monitor_lost_records{job='j',topic='predictions',partition='0'}": "5x200"
    },
    "StreamMonitorEvicting": {
        "stream_monitor_predictions_evicted_total{job='j',instance='i'}": "0+1x200"
    },
    "StreamMonitorLimitReached": {
        "stream_monitor_limit_hits_total{job='j',instance='i',limit='models'}": "0+1x200"
    },
    "StreamMonitorSeriesDropped": {
        "stream_monitor_series_dropped_total{job='j',instance='i'}": "0+10x200"
    },
    "StreamMonitorScrapeErrors": {
        "stream_monitor_scrape_errors_total{job='j',instance='i'}": "0+10x200"
    },
    "StreamMonitorMonitorFailed": {
        "stream_monitor_monitor_failures_total{job='j',instance='i',monitor='drift'}": "0+1x200"
    },
    "StreamMonitorNoController": {
        "stream_monitor_controller_active{job='j',instance='d'}": "0x132 _x68"
    },
    "StreamMonitorRunFailed": {
        "stream_monitor_retraining_end_timestamp_seconds{job='j',instance='d',model='m',end='failed'}": "8000x200"  # noqa: E501
    },
    "StreamMonitorWaitsForPerson": {
        "stream_monitor_controller_waiting{job='j',instance='d',model='m',reason='approval'}": "1x200"  # noqa: E501
    },
    "StreamMonitorNoArchive": {"stream_monitor_archive_holes{job='a',instance='f'}": "_x200"},
    "StreamMonitorArchiveLate": {
        "stream_monitor_archive_lag_seconds{job='a',instance='f'}": "30000x200"
    },
    "StreamMonitorArchiveHole": {
        "stream_monitor_archive_last_hole_timestamp_seconds{job='a',instance='f'}": "8900x200"
    },
    "ModelIncidentsFiring": {
        "model_incidents_firing{job='j',instance='i',model='m',version='1',severity='critical'}": "1x200"  # noqa: E501
    },
    "ModelPredictionErrors": {
        "model_prediction_errors_total{job='j',instance='i',model='m',version='1'}": "0+60x200"
    },
    "ModelSilent": {
        "model_predictions_total{job='j',instance='i',model='m',version='1'}": "0+600x60 36000x140",
        "model_prediction_errors_total{job='j',instance='i',model='m',version='1'}": "0+6x60 360x140",  # noqa: E501
    },
}


def test_nothing_fires_when_all_is_well(promtool, tmp_path):
    assert firing(promtool, tmp_path, HEALTHY, "2h30m") == set()


def test_every_alert_has_a_case():
    assert set(ILL) == {
        rule["alert"] for group in rules()["groups"] for rule in group["rules"] if "alert" in rule
    }


@pytest.mark.parametrize("name", ILL)
def test_each_fault_fires_its_alert_alone(promtool, tmp_path, name):
    assert firing(promtool, tmp_path, HEALTHY | ILL[name], "2h30m") == {name}


FIRST = {
    "StreamMonitorEvicting": "stream_monitor_predictions_evicted_total{job='j',instance='i'}",
    "StreamMonitorLimitReached": "stream_monitor_limit_hits_total{job='j',instance='i',limit='models'}",  # noqa: E501
    "StreamMonitorSeriesDropped": "stream_monitor_series_dropped_total{job='j',instance='i'}",
    "StreamMonitorScrapeErrors": "stream_monitor_scrape_errors_total{job='j',instance='i'}",
    "StreamMonitorMonitorFailed": "stream_monitor_monitor_failures_total{job='j',instance='i',monitor='drift'}",  # noqa: E501
    "StreamMonitorRecordsLost": "stream_monitor_lost_records{job='j',instance='i',topic='predictions',partition='0'}",  # noqa: E501
    "ModelPredictionsRefused": "stream_monitor_predictions_refused_total{job='j',instance='i',model='another'}",  # noqa: E501
    "ModelIncidentsFiring": "model_incidents_firing{job='j',instance='i',model='n',version='1',severity='critical'}",  # noqa: E501
}


@pytest.mark.parametrize("name", FIRST)
@pytest.mark.parametrize("before", ["_x140", "0x139"])
def test_a_rule_fires_on_the_first_occurrence(promtool, tmp_path, name, before):
    """
    Whether the series was there at 0, or appears with it; and what happened once is over after a
    while, though the counter stays.
    """
    series = {FIRST[name]: f"{before} 1x60"}
    first, later = firing_at(promtool, tmp_path, HEALTHY | series, "2h31m", "2h55m")
    assert first == {name}
    if "_total" in FIRST[name]:
        assert later == set()


def test_a_model_that_was_heard_once_and_fell_silent_is_told(promtool, tmp_path):
    """All of its predictions came between two scrapes: the counter appears with its last value."""
    series = "model_predictions_total{job='j',instance='i',model='n',version='1'}"
    assert firing(promtool, tmp_path, HEALTHY | {series: "_x100 500x100"}, "2h30m") == {
        "ModelSilent"
    }
    days = {k: v for k, v in HEALTHY.items() if "config_info" in k} | {series: "500x2000"}
    (told,) = firing_at(promtool, tmp_path, days, "1d1h", step="10m")
    assert told <= {"StreamMonitorAbsent"}


def test_what_one_group_does_is_not_lost_in_what_another_does(promtool, tmp_path):
    """
    A group whose calls fail and then stop, beside one of ten times the traffic under the same job
    that watches the same model.
    """
    busy = {"model_predictions_total{job='j',instance='l',model='m',version='1'}": "0+6000x200"}
    assert firing(promtool, tmp_path, HEALTHY | busy | ILL["ModelPredictionErrors"], "2h30m") == {
        "ModelPredictionErrors"
    }
    assert firing(promtool, tmp_path, HEALTHY | busy | ILL["ModelSilent"], "2h30m") == {
        "ModelSilent"
    }


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (queries.rate, "model_accuracy"),
        (queries.gauge, "model_predictions_total"),
        (queries.quantile, "model_latency_seconds"),
    ],
)
def test_a_query_that_makes_no_sense_is_refused(make, name):
    with pytest.raises(ValueError, match=f"{name} is a"):
        make(0.5, name) if make is queries.quantile else make(name)


def test_a_query_of_a_metric_that_is_not_there_is_refused():
    with pytest.raises(KeyError):
        queries.gauge("model_akkuracy")


def test_export_writes_what_is_committed(tmp_path):
    for what in ("dashboards", "rules"):
        done = CliRunner().invoke(command, [what, "--output", str(tmp_path / "new")])
        assert done.exit_code == 0, done.output
    committed = [
        *FOLDER.glob("*.json"),
        FOLDER / RULES_FILE,
    ]  # beside them lies what configures Prometheus and Grafana
    assert {path.name: path.read_text() for path in (tmp_path / "new").iterdir()} == {
        path.name: path.read_text() for path in committed
    }


def test_export_prints():
    assert CliRunner().invoke(command, ["rules", "--output", "-"]).output == rules_text()
    assert json.loads(CliRunner().invoke(command, ["dashboards", "--output", "-"]).output) == BOARDS


def test_export_says_why_it_cannot_write(tmp_path):
    (tmp_path / "file").write_text("")
    done = CliRunner().invoke(command, ["rules", "--output", str(tmp_path / "file")])
    assert type(done.exception).__name__ == "InputError"
    assert "cannot write to" in str(done.exception)
