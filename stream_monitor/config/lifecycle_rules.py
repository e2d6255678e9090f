"""
The meaning of each key of `archive` and `lifecycle`, as `rules.py` has it for the rest.

Rule of the file: texts and bounds only. Relations between keys are in `relations.py`.
"""

from __future__ import annotations

from stream_monitor import lifecycle_settings as s
from stream_monitor.config.rule import Rule
from stream_monitor.times import DAY_MS, HOUR_MS

WORDS = "The program and its arguments, as a list; there is no shell."
ENVIRONMENT = "Names of environment variables that the command gets beside PATH, HOME and ours."

RULES: dict[type, dict[str, Rule]] = {
    s.Archive: {
        "path": Rule("Folder of the files, relative to this file; without it nothing is kept."),
        "keep": Rule("How long a day is kept; `off`: for ever.", low=DAY_MS),
        "drop": Rule("Features that are never written."),
        "flush_interval": Rule(
            "Rows are on the disk after so long at most; each time makes new files.",
            low=100,
            high=6 * HOUR_MS,
        ),
        "port": Rule(
            "Port of the archive's metrics and health; 0 is a free one. Host, TLS and token are "
            "those of `worker.metrics`.",
            low=0,
            high=65_535,
        ),
    },
    s.Lifecycle: {
        "work": Rule("Folder for the work trees, logs and results of runs, relative to this file."),
        "port": Rule(
            "Port of the controller's metrics and health; 0 is a free one. Host, TLS and token "
            "are those of `worker.metrics`.",
            low=0,
            high=65_535,
        ),
        "models": Rule("By name of the model: its repository, and how it is retrained."),
    },
    s.ModelLoop: {
        "repository": Rule(
            "A clone with git, and with DVC if it has `.dvc`; relative to this file."
        ),
        "remote": Rule("Remote of git to which versions are pushed.", form="name"),
        "base": Rule("Branch from which a run starts.", form="name"),
        "artifact": Rule(
            "Name before the @ of tags; needed if the model's name has other characters than "
            "letters, digits, `-`, `_` and `/`.",
            form="name",
        ),
        "branch": Rule(
            "Branch on which the commit of each new version is put as well; nothing is forced.",
            form="name",
        ),
        "verify_tags": Rule(
            "Versions get signed tags, and only one whose tag `git verify-tag` accepts is deployed."
        ),
        "triggers": Rule("What starts a retraining by itself; nothing by default."),
        "limits": Rule("Protection against retraining without end."),
        "collect": Rule("Which events become training data; null: the project has its own."),
        "steps": Rule(
            "Commands of a run, in order. With a `dvc.yaml` and without this key: its stages."
        ),
        "decide": Rule("When the challenger is better than the champion."),
        "deploy": Rule("How a new version gets traffic."),
        "keep_runs": Rule("Runs whose logs and results are kept.", low=1, high=1_000),
    },
    s.Triggers: {
        "alerts": Rule("Alerts that start a run; {} for the defaults."),
        "schedule": Rule(
            "Times of a crontab in UTC: minute, hour, day, month, weekday.", form="name"
        ),
        "new_labels": Rule("Start a run after so many new labels.", low=1),
    },
    s.AlertTrigger: {
        "kinds": Rule("Kinds of alerts."),
        "severity": Rule("Least severity."),
        "for": Rule("How long the alert must fire.", low=0, high=30 * DAY_MS),
    },
    s.RunLimits: {
        "cooldown": Rule(
            "No run by itself for so long after the last one, failed ones too; four times as "
            "long after a rollback.",
            low=0,
            high=365 * DAY_MS,
        ),
        "max_a_week": Rule("Runs by themselves in seven days.", low=1, high=1_000),
        "min_new_labels": Rule(
            "Labels since the data of the champion, without which no run starts by itself.", low=0
        ),
        "approval": Rule("What waits for a person: each run, or each promotion."),
        "two_people": Rule("The person who started a run cannot approve it."),
    },
    s.Collect: {
        "range": Rule("How far back rows are taken.", low=60_000, high=3_650 * DAY_MS),
        "since_alert": Rule(
            "A run that an alert started collects only rows since the alert began."
        ),
        "output": Rule("Parquet file in the work tree; a manifest lies beside it.", form="name"),
    },
    s.Step: {
        "name": Rule("Name of the step, in events and logs.", form="step"),
        "command": Rule(WORDS),
        "timeout": Rule("The step and all its processes end after it.", low=1_000, high=7 * DAY_MS),
        "retries": Rule("How often a step that failed is started again.", low=0, high=100),
        "environment": Rule(ENVIRONMENT),
    },
    s.Decide: {
        "metric": Rule(
            "Metric by which they are compared: `accuracy`, `error_rate`, `brier`, "
            "`absolute_error`, `squared_error`, `precision`, `recall`, `f1`, `roc_auc`, "
            "`log_loss`, `rmse` or `r2`.",
            form="name",
        ),
        "rule": Rule(
            "`better`: the lower bound of the difference is above 0; `not worse`: above minus "
            "`margin`, against the champion and the anchor."
        ),
        "margin": Rule("The largest loss that does not matter.", low=0),
        "alpha": Rule("Chance to call an equal challenger better.", above=0, high=0.5),
        "min_rows": Rule("Labelled rows without which a person decides.", low=2),
        "segments": Rule("Columns by whose values the challenger must do no harm."),
        "segment_margin": Rule("The largest loss of a segment that does not matter.", low=0),
        "unit": Rule(
            "Column whose rows belong together, such as the user; without it `unit`, if a file "
            "has it.",
            form="name",
        ),
        "positive_class": Rule(
            "The positive class; without it known by its name, such as 1 or yes.", form="name"
        ),
        "latency_ratio": Rule(
            "The 95th percentile of `latency_ms` may grow by this factor.", above=0
        ),
        "size_ratio": Rule("The model's files may grow by this factor.", above=0),
        "champion": Rule(
            "File of the champion's predictions on the held-out rows, in the work tree.",
            form="name",
        ),
        "challenger": Rule("The same of the challenger.", form="name"),
        "anchor": Rule(
            "The same of the anchor, the last version that was proved better or approved by a "
            "person; the rule `not worse` needs it.",
            form="name",
        ),
    },
    s.Deploy: {
        "stages": Rule("Percent of the traffic, ascending; 0 is shadow, the last is 100."),
        "metric": Rule("Metric of the experiment that judges the rollout.", form="name"),
        "effect": Rule("Smallest difference that matters.", above=0),
        "goal": Rule("What promotes: better, or not worse than by `effect`."),
        "unit": Rule("What is randomised; `event`: every call.", form="name"),
        "maturity": Rule("Age at which calls are judged.", low=0, high=90 * DAY_MS),
        "settle": Rule(
            "Nothing is counted for so long after a change of weights.", low=0, high=DAY_MS
        ),
        "min_labels": Rule("Labelled calls of the new version before the next stage.", low=0),
        "min_time": Rule("Least time of a stage.", low=0, high=90 * DAY_MS),
        "deadline": Rule("A stage that is not over then asks a person.", low=1_000),
        "on_deadline": Rule("What happens at the deadline."),
        "watch": Rule("Time after the promotion in which an alert brings the champion back."),
        "commands": Rule("Commands at each change of weights, in order."),
    },
    s.DeployCommand: {
        "name": Rule("Name of the command, in events and logs.", form="step"),
        "command": Rule(WORDS),
        "rollback": Rule("Takes it back, if a later command fails; in reverse order."),
        "timeout": Rule("It ends after so long.", low=1_000, high=DAY_MS),
        "environment": Rule(ENVIRONMENT),
    },
}
