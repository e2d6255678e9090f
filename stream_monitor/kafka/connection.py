"""
The connection to Kafka: its options, and the message if it fails.

Rule of the file: consumer, producers and admin client get the same options from one place, so that
security cannot differ between them. A message never contains a secret. aiokafka raises only that a
connection fails and logs the reason. This module reads that log, and reports the setting to change.
"""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from aiokafka import errors as kafka_errors

from stream_monitor.errors import BrokerAwayError, BrokerError
from stream_monitor.kafka.tls import client_context
from stream_monitor.settings import KafkaSettings, Security

CERTIFICATE_NOT_YET_VALID, CERTIFICATE_EXPIRED = 9, 10
REQUEST_MS = 10_000
"""
The longest wait for an answer, ms.

A broker that hangs, or whose machine is gone, closes no connection. It must not delay requests to
the other brokers, which become leaders after 9 s (`broker.session.timeout.ms`).
"""
OTHER_NAME = frozenset({62, 64})
"""OpenSSL's verification errors for a host name, or an address, that is not in the certificate."""
NO_TLS = frozenset(
    {
        "WRONG_VERSION_NUMBER",
        "RECORD_LAYER_FAILURE",
        "HTTP_REQUEST",
        "UNKNOWN_PROTOCOL",
        "UNEXPECTED_MESSAGE",
    }
)
PASSWORD = (
    "the password (STREAM_MONITOR_KAFKA__SECURITY__PASSWORD, or the file of "  # noqa: S105
    "STREAM_MONITOR_KAFKA__SECURITY__PASSWORD_FILE)"
)


spoken = logging.getLogger("aiokafka")
spoken.propagate = False  # its messages name no setting, and at DEBUG they contain what is sent
spoken.addHandler(logging.NullHandler())
spoken.setLevel(logging.WARNING)


def client_options(kafka: KafkaSettings) -> dict[str, Any]:
    """
    Options for every aiokafka client.

    Raises
    ------
    ConfigError
        A file of certificates cannot be read.
    """
    security = kafka.security
    options: dict[str, Any] = {
        "bootstrap_servers": kafka.bootstrap_servers,
        "security_protocol": security.protocol,
        "request_timeout_ms": REQUEST_MS,
    }
    if security.protocol.startswith("SASL"):
        password = security.password.reveal() if security.password else None
        options |= {
            "sasl_mechanism": security.sasl_mechanism,
            "sasl_plain_username": security.username,
            "sasl_plain_password": password,
        }
    if security.protocol.endswith("SSL"):
        options["ssl_context"] = client_context(security)
    return options


class _Ear(logging.Handler):
    """Collects the errors that aiokafka logs."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.heard: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.heard += errors_of(record)


def errors_of(record: logging.LogRecord) -> list[BaseException]:
    """The exceptions in a log record."""
    return (
        [a for a in record.args if isinstance(a, BaseException)]
        if isinstance(record.args, tuple)
        else []
    )


@contextmanager
def overheard() -> Iterator[list[BaseException]]:
    """Errors that aiokafka logs instead of raising them, such as a wrong password."""
    ear = _Ear()
    spoken.addHandler(ear)
    try:
        yield ear.heard
    finally:
        spoken.removeHandler(ear)


@contextmanager
def connecting(kafka: KafkaSettings) -> Iterator[None]:
    """
    Context for starting a client.

    Raises
    ------
    BrokerError
        For any failure, in one line: the setting, and what to do.
    """
    with overheard() as heard:
        try:
            yield
        except (
            OSError,
            ValueError,
            AssertionError,
            kafka_errors.KafkaError,
        ) as e:
            # aiokafka answers odd bytes of a broker with any of these
            went_away = (
                isinstance(e, kafka_errors.KafkaError) and e.retriable and "bootstrap" not in str(e)
            )
            raise (BrokerAwayError if went_away else BrokerError)(
                refusal(kafka, [*heard, e])
            ) from None


def refusal(kafka: KafkaSettings, errors: Sequence[BaseException]) -> str:
    """
    One line that says why there is no connection, and what to do.

    Parameters
    ----------
    kafka : KafkaSettings
    errors : sequence of exceptions
        The last one was raised; the others were only logged.
    """
    told = [why for error in errors for why in [explained(kafka.security, error)] if why]
    last = errors[-1]
    why = (
        told[0]
        if told
        else (
            f"{str(last) or type(last).__name__}; check kafka.bootstrap_servers and "
            "kafka.security, and that the advertised listeners are reachable from here"
        )
    )
    return f"no connection to Kafka at {kafka.bootstrap_servers} (kafka.bootstrap_servers): {why}"


def explained(
    security: Security, error: BaseException | None, *, worked: bool = False
) -> str | None:
    """
    What an error or its cause means, and what to do; None if unknown. A connection that `worked`
    may close for reasons other than our settings.
    """
    while error is not None:
        why = _tls(security, error) or _login(security, error) or _network(error)
        if why:
            return why
        if isinstance(error, EOFError | ConnectionError) or (
            error.__cause__ is None and error.__context__ is None and " closed" in str(error)
        ):
            return "the broker closed the connection" if worked else _closed(security)
        error = error.__cause__ or error.__context__
    return None


def why_not(error: BaseException) -> str:
    """What a broker refuses, with the permission to grant."""
    subject = f" {error.args[0]}" if error.args else ""
    if isinstance(error, kafka_errors.TopicAuthorizationFailedError):
        return (
            f"not allowed on topic{subject}; grant it to the user of kafka.security "
            "(`stream-monitor doctor` lists what is needed)"
        )
    if isinstance(error, kafka_errors.GroupAuthorizationFailedError):
        return (
            f"not allowed on group{subject}; grant Read and Describe on it to the user of "
            "kafka.security"
        )
    return str(error) or type(error).__name__


def _tls(security: Security, error: BaseException) -> str | None:
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code == CERTIFICATE_EXPIRED:
            return (
                "the broker's certificate has expired; renew it (or correct the clock of this "
                "machine)"
            )
        if error.verify_code == CERTIFICATE_NOT_YET_VALID:
            return "the broker's certificate is not valid yet; correct the clock of this machine"
        if error.verify_code in OTHER_NAME:
            return (
                f"{error.verify_message}; give kafka.bootstrap_servers, and advertised.listeners "
                "of the broker, a name that its certificate has"
            )
        return (
            f"the broker's certificate is not trusted ({error.verify_message}); set "
            "kafka.security.ca_file to the certificate (PEM) of the authority that signed it"
        )
    if not isinstance(error, ssl.SSLError):
        return None
    reason = error.reason or "TLS fails"
    if reason in NO_TLS:
        without = "SASL_PLAINTEXT" if security.protocol == "SASL_SSL" else "PLAINTEXT"
        return (
            "the broker does not speak TLS on this port; set kafka.bootstrap_servers to the port "
            f"where the broker speaks TLS, or kafka.security.protocol to {without}"
        )
    if "ALERT" in reason and ("CERTIFICATE" in reason or "CA" in reason.split("_")):
        if not security.cert_file:
            return (
                "the broker requires a client certificate; set kafka.security.cert_file and "
                "key_file"
            )
        return (
            f"the broker refuses our certificate ({reason.lower().replace('_', ' ')}); set "
            "kafka.security.cert_file and key_file to a certificate that has not expired and is "
            "signed by an authority the broker trusts"
        )
    return (
        f"TLS fails ({reason.lower().replace('_', ' ')}); the broker must speak TLS 1.2 or later, "
        "with ciphers that this machine has"
    )


def _login(security: Security, error: BaseException) -> str | None:
    if isinstance(error, kafka_errors.SaslAuthenticationFailed):
        return (
            f"the broker refuses the login of '{security.username}' by {security.sasl_mechanism}; "
            f"check kafka.security.username, and {PASSWORD}"
        )
    if isinstance(error, kafka_errors.UnsupportedSaslMechanismError):
        return (
            f"the broker does not support {security.sasl_mechanism}; set "
            "kafka.security.sasl_mechanism to a mechanism it supports (sasl.enabled.mechanisms)"
        )
    if isinstance(error, kafka_errors.IllegalSaslStateError):
        return (
            "the broker does not accept a login on this port; set kafka.security.protocol to "
            f"{security.protocol.removeprefix('SASL_')}, or kafka.bootstrap_servers to another "
            "port"
        )
    if isinstance(error, kafka_errors.ClusterAuthorizationFailedError):
        return (
            f"{_user(security)} is not allowed to do that on the cluster; grant it "
            "(docs/security.md has the list)"
        )
    return None


def _user(security: Security) -> str:
    return f"the user '{security.username}'" if security.username else "this client"


def _network(error: BaseException) -> str | None:
    if isinstance(error, socket.gaierror):
        return "the host name cannot be resolved; check kafka.bootstrap_servers"
    if isinstance(error, ConnectionRefusedError):
        return (
            "nothing listens on that address; start the broker, or correct kafka.bootstrap_servers"
        )
    if isinstance(error, TimeoutError):
        return (
            "no response in time; check kafka.bootstrap_servers, kafka.security.protocol (a TLS "
            "port does not answer plain connections), and the network between"
        )
    return None


def _closed(security: Security) -> str:
    """
    What to say if the broker just closes the connection, because it expects another protocol on
    this port.
    """
    if security.protocol == "PLAINTEXT":
        return (
            "the broker closed the connection; when it demands TLS or a login on this port, set "
            "kafka.security.protocol (SSL, SASL_SSL or SASL_PLAINTEXT)"
        )
    if security.protocol == "SASL_PLAINTEXT":
        return (
            "the broker closed the connection; when it demands TLS on this port, set "
            "kafka.security.protocol to SASL_SSL"
        )
    demands = ["a login (kafka.security.protocol: SASL_SSL)"] if security.protocol == "SSL" else []
    demands += (
        []
        if security.cert_file
        else ["a client certificate (kafka.security.cert_file and key_file)"]
    )
    return (
        "the broker closed the connection; see whether it speaks TLS on this port (else set "
        "kafka.bootstrap_servers to one where it "
        f"does){''.join(f', or demands {each}' for each in demands)}"
    )
