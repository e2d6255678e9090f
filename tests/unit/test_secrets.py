"""Secrets: where they are taken from, and that they are shown nowhere."""

from __future__ import annotations

import copy
import json
import logging
import os
import pickle
import subprocess
import sys
import traceback

import msgspec
import pytest

from stream_monitor.config import parse
from stream_monitor.errors import ConfigError
from stream_monitor.frozen import Secret
from stream_monitor.settings import Settings

HUSH = "hush-4711"
LOGIN = "kafka: {security: {protocol: SASL_SSL, sasl_mechanism: PLAIN, username: u}}"
PASSWORD, KEY_PASSWORD, TOKEN = (
    "STREAM_MONITOR_KAFKA__SECURITY__PASSWORD",
    "STREAM_MONITOR_KAFKA__SECURITY__KEY_PASSWORD",
    "STREAM_MONITOR_WORKER__METRICS__TOKEN",
)


def settings() -> Settings:
    return parse(LOGIN, environ={PASSWORD: HUSH, KEY_PASSWORD: HUSH, TOKEN: HUSH})


def test_settings_show_no_secret_however_they_are_printed():
    made = settings()
    assert made.kafka.security.password == made.worker.metrics.token == Secret(HUSH)
    assert made.kafka.security.password is not None
    assert made.kafka.security.password.reveal() == HUSH
    for text in (
        repr(made),
        str(made),
        f"{made.kafka.security}",
        f"{made.kafka.security.password}",
        str(msgspec.structs.asdict(made.kafka.security)),
    ):
        assert HUSH not in text
    assert repr(made.kafka.security).count("***") == 2


@pytest.mark.parametrize(
    "write", [msgspec.json.encode, msgspec.msgpack.encode, pickle.dumps, copy.deepcopy, json.dumps]
)
def test_settings_with_a_secret_cannot_be_written(write):
    with pytest.raises(TypeError) as told:
        write(settings())
    assert HUSH not in str(told.value)


def test_the_hash_of_the_configuration_does_not_know_the_secret():
    assert settings().core.hash == parse("").core.hash


def test_a_crash_shows_no_secret():
    made = settings()
    try:
        made.kafka.security.password.nonsense(made)  # type: ignore[union-attr] # that is the point
    except AttributeError as error:
        shown = "".join(
            traceback.TracebackException.from_exception(error, capture_locals=True).format()
        )
    assert "made = " in shown
    assert HUSH not in shown


def test_from_a_file(tmp_path):
    (tmp_path / "password").write_text(f"{HUSH}\n")
    assert parse(
        LOGIN, environ={f"{PASSWORD}_FILE": str(tmp_path / "password")}
    ).kafka.security.password == Secret(HUSH)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            (
                "kafka: {security: {protocol: SASL_SSL, sasl_mechanism: PLAIN, username: u, "
                "password: hush-4711}}"
            ),
            f"kafka.security.password: a secret does not stand in this file: set {PASSWORD}_FILE",
        ),
        ("kafka: {security: {password_file: /run/hush-4711}}", f"set {PASSWORD}_FILE"),
        (
            "kafka: {security: {protocol: SSL, cert_file: c, key_password: hush-4711}}",
            f"set {KEY_PASSWORD}_FILE",
        ),
        (
            "worker: {metrics: {token: hush-4711}}",
            f"worker.metrics.token: a secret does not stand in this file: set {TOKEN}_FILE",
        ),
        (
            "kafka: {security: {protocol: SSL, password:hush-4711}}",
            "kafka.security.password…: unknown key",
        ),
        ("kafka: {security: {protocol: SSL, passwort: hush-4711}}", "did you mean 'password'?"),
        ("kafka: {security: hush-4711}", "a mapping is expected"),
        ("kafka: {security: [hush-4711]}", "a mapping is expected"),
        ("kafka: {security: {password: *hush-4711}}", "not valid YAML: found undefined alias"),
        ("kafka: {security: {password: !hush-4711 x}}", "tags"),
        ("kafka: {security: {password: hush-4711}", "not valid YAML"),
        ("worker: {metrics: {tokken: hush-4711}}", "did you mean 'token'?"),
        ("worker: {metrics: hush-4711}", "a mapping is expected"),
        (
            "kafka: {bootstrap_servers: 'kafka://u:hush-4711@b:9092'}",
            "without a scheme (got a value that is not shown); did you mean 'b:9092'?",
        ),
        ("kafka: {bootstrap_servers: ['u:hush-4711@b:9092']}", "HOST:PORT"),
    ],
)
def test_a_secret_in_the_file_is_refused_and_not_repeated(text, told):
    with pytest.raises(ConfigError) as refused:
        parse(text)
    assert told in str(refused.value)
    assert HUSH not in str(refused.value)


@pytest.mark.parametrize(
    "environ",
    [
        {PASSWORD: HUSH},  # no protocol that takes it
        {PASSWORD: f"{HUSH}\n{HUSH}"},
        {PASSWORD: f"{HUSH}\udc80"},
        {f"{PASSWORD}S": HUSH},
        {"STREAM_MONITOR_KAFKA__SECURITY": f"{{password: {HUSH}, passwort: {HUSH}}}"},
        {"STREAM_MONITOR_KAFKA__SECURITY": f"{{password: *{HUSH}}}"},
        {TOKEN: f"{HUSH} {HUSH}"},
        {TOKEN: f"{HUSH}é"},
        {"STREAM_MONITOR_WORKER__METRICS": f"{{token: {HUSH}, port: x}}"},
    ],
)
def test_a_variable_that_is_wrong_does_not_repeat_its_value(environ):
    with pytest.raises(ConfigError) as refused:
        parse("", environ=environ)
    assert HUSH not in str(refused.value)


def test_an_empty_file_of_a_secret_protects_nothing_and_is_refused(tmp_path):
    (tmp_path / "token").write_text("\n")
    with pytest.raises(ConfigError, match="METRICS__TOKEN_FILE: the file is empty"):
        parse("", environ={f"{TOKEN}_FILE": str(tmp_path / "token")})


@pytest.mark.parametrize(
    ("arguments", "text", "code"),
    [
        (["config", "check"], "", 0),
        (["config", "check"], "nonsense: 1", 2),
        (["config", "check", "--json"], "nonsense: 1", 2),
        (["worker", "--config"], "worker: {metrics: {port: 0}}", 1),
        (
            ["worker", "--config"],
            "worker: {metrics: {port: 0, cert_file: /nowhere, key_file: /nowhere}}",
            2,
        ),
        (["worker", "--config"], "worker: {metrics: {host: 192.0.2.1}}", 1),
        (["doctor", "--config"], "worker: {metrics: {port: 0}}", 1),
        (["alerts", "--config"], "", 1),
        (["produce", "--simulate", "--seconds", "1", "--config"], "", 1),
        (["worker", "--help"], "", 0),
    ],
)
def test_no_command_prints_a_secret(tmp_path, arguments, text, code):
    file = tmp_path / "monitor.yaml"
    file.write_text(text)
    login = {"PROTOCOL": "SASL_PLAINTEXT", "SASL_MECHANISM": "SCRAM-SHA-512", "USERNAME": "u"}
    environ = (
        os.environ
        | {f"STREAM_MONITOR_KAFKA__SECURITY__{key}": value for key, value in login.items()}
        | {PASSWORD: HUSH, TOKEN: HUSH}
    )
    environ |= {"STREAM_MONITOR_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    given = [] if "--help" in arguments else [str(file)]
    done = subprocess.run(
        [sys.executable, "-m", "stream_monitor", *arguments, *given],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environ,
        cwd=tmp_path,
    )
    assert done.returncode == code, done.stderr
    said = done.stdout + done.stderr
    assert said
    assert HUSH not in said
    assert "Traceback" not in said
    assert code != 1 or arguments[0] == "doctor" or done.stderr.count("\n") == 1


def test_clients_log_nothing_of_what_they_send():
    from stream_monitor.kafka import connection

    assert connection.spoken is logging.getLogger("aiokafka")
    assert not connection.spoken.propagate
    assert not logging.getLogger("aiokafka.conn").isEnabledFor(logging.DEBUG)
