"""
Certificates: those that we show and those that we trust.

Rule of the file: TLS must be 1.2 or later, the name in a certificate is checked, and nobody is ever
asked for a password on a terminal. If a file cannot be used, the error names its key.
"""

from __future__ import annotations

import ssl

from stream_monitor.errors import ConfigError
from stream_monitor.frozen import Secret
from stream_monitor.settings import HttpSettings, Security


def client_context(security: Security) -> ssl.SSLContext:
    """
    TLS context for connections to brokers.

    Raises
    ------
    ConfigError
        A file cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=security.ca_file)
    except (OSError, ssl.SSLError) as e:
        raise ConfigError(
            [
                (
                    f"kafka.security.ca_file: {security.ca_file}: "
                    f"{_why(e, 'is not a certificate in PEM')}"
                )
            ]
        ) from None
    if security.cert_file:
        _show(
            context, "kafka.security", security.cert_file, security.key_file, security.key_password
        )
    return context


def server_context(http: HttpSettings) -> ssl.SSLContext | None:
    """
    TLS context of the metrics endpoint; None without a certificate.

    Raises
    ------
    ConfigError
        A file cannot be used.
    """
    if not http.cert_file:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    _show(context, "worker.metrics", http.cert_file, http.key_file, None)
    return context


def reader_context(http: HttpSettings) -> ssl.SSLContext:
    """
    TLS context to read a worker's `/metrics`. It also trusts the worker's own certificate, which
    may be self-signed.
    """
    context = ssl.create_default_context()
    if http.cert_file:
        try:
            context.load_verify_locations(http.cert_file)
        except (OSError, ssl.SSLError) as e:
            raise ConfigError(
                [
                    (
                        f"worker.metrics.cert_file: {http.cert_file}: "
                        f"{_why(e, 'is not a certificate in PEM')}"
                    )
                ]
            ) from None
    return context


def _show(
    context: ssl.SSLContext,
    section: str,
    cert_file: str,
    key_file: str | None,
    password: Secret | None,
) -> None:
    asked = False

    def answer() -> str:
        """
        Answer a question for a password. Otherwise OpenSSL would ask on the terminal, and a service
        would wait for ever.
        """
        nonlocal asked
        asked = True
        return password.reveal() if password else ""

    try:
        context.load_cert_chain(cert_file, key_file, answer)
    except (OSError, ssl.SSLError) as e:
        if asked:
            why = (
                "the key has a password, and key_password does not match it"
                if section == "kafka.security"
                else "the key has a password; use a key without one"
            )
        else:
            why = _why(e, "do not belong together, or are not a certificate and key in PEM")
        files = (
            f"{cert_file}, {key_file}"
            if key_file
            else f"{cert_file} (and its key, unless key_file names another file)"
        )
        raise ConfigError([f"{section}.cert_file and key_file: {files}: {why}"]) from None


def _why(e: Exception, otherwise: str) -> str:
    return (
        f"cannot be read: {e.strerror}"
        if isinstance(e, OSError) and not isinstance(e, ssl.SSLError)
        else otherwise
    )
