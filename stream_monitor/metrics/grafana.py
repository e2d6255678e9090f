"""
Dashboards as Grafana reads them: JSON of panels, variables and annotations.

Rule of the file: dashboards are for provisioning: one datasource variable, stable uids, no inputs,
not editable in place. This module does not know the content of a panel.
"""

from __future__ import annotations

from typing import Any

from stream_monitor.metrics.panels import Panel, Row

SCHEMA_VERSION = 42
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS = 24


def dashboard(
    name: str,
    variables: list[dict[str, Any]],
    rows: tuple[Row, ...],
    annotations: list[dict[str, Any]],
) -> dict[str, Any]:
    """A whole dashboard, as in its file."""
    return {
        "uid": f"stream-monitor-{name}",
        "title": f"stream-monitor / {name}",
        "tags": ["stream-monitor"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": annotations},
        "links": [
            {
                "title": "stream-monitor",
                "type": "dashboards",
                "tags": ["stream-monitor"],
                "asDropdown": False,
                "keepTime": True,
                "includeVars": False,
            }
        ],
        "templating": {
            "list": [
                {
                    "name": "datasource",
                    "label": "Data source",
                    "type": "datasource",
                    "query": "prometheus",
                    "refresh": 1,
                    "hide": 0,
                },
                *variables,
            ]
        },
        "panels": _laid_out(rows),
    }


def _laid_out(rows: tuple[Row, ...]) -> list[dict[str, Any]]:
    """
    Positions of panels from left to right; a row begins below the tallest panel of the row before.
    """
    panels: list[dict[str, Any]] = []
    top = 0
    for title, content in rows:
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": title,
                "collapsed": False,
                "panels": [],
                "gridPos": {"h": 1, "w": COLUMNS, "x": 0, "y": top},
            }
        )
        top, left, tallest = top + 1, 0, 0
        for panel in content:
            if left + panel.width > COLUMNS:
                top, left, tallest = top + tallest, 0, 0
            panels.append(
                _panel(
                    len(panels) + 1,
                    panel,
                    {"h": panel.height, "w": panel.width, "x": left, "y": top},
                )
            )
            left, tallest = left + panel.width, max(tallest, panel.height)
        top += tallest
    return panels


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    bounds = {
        name: value
        for name, value in (("min", panel.minimum), ("max", panel.maximum))
        if value is not None
    }
    table = panel.type == "table"
    shapes: dict[str, dict[str, Any]] = {
        "timeseries": {
            "legend": {
                "displayMode": "table",
                "placement": "bottom",
                "showLegend": True,
                "calcs": ["lastNotNull"],
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "stat": {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "value",
            "graphMode": "area",
            "textMode": "auto",
        },
        "table": {"showHeader": True},
    }
    shape: dict[str, Any] = {
        "id": number,
        "type": panel.type,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, **bounds}, "overrides": []},
        "options": shapes[panel.type],
        "targets": [
            {
                "refId": chr(ord("A") + nth),
                "datasource": DATASOURCE,
                "expr": expression,
                "legendFormat": legend,
                "instant": table,
                "range": not table,
                "format": "table" if table else "time_series",
            }
            for nth, (expression, legend) in enumerate(panel.targets)
        ],
    }
    if table:
        shape["transformations"] = [
            {
                "id": "organize",
                "options": {"excludeByName": {"Time": True}, "renameByName": {"Value": "firing"}},
            }
        ]
    return shape


def variable(name: str, query: str) -> dict[str, Any]:
    """A choice at the top of a dashboard: several values of a label, or all."""
    return {
        "name": name,
        "label": name.capitalize(),
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
        "hide": 0,
    }


def annotation(name: str, expression: str, title: str, text: str) -> dict[str, Any]:
    """A mark on every graph for as long as the expression has series."""
    return {
        "name": name,
        "datasource": DATASOURCE,
        "enable": True,
        "hide": False,
        "iconColor": "red",
        "expr": expression,
        "titleFormat": title,
        "textFormat": text,
        "step": "60s",
    }
