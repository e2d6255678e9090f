"""
How everybody connects to Kafka.

Rule of the file: consumer, producers and admin get the same options from one place, so that security cannot differ between them. Nothing here is ever logged.
"""

from __future__ import annotations

import ssl
from typing import Any

from stream_monitor.errors import ConfigError
from stream_monitor.settings import KafkaSettings


def client_options(kafka: KafkaSettings) -> dict[str, Any]:
    """
    Options that every aiokafka client is made with.

    Raises
    ------
    ConfigError
        A file of certificates cannot be read.
    """
    security = kafka.security
    options: dict[str, Any] = {"bootstrap_servers": kafka.bootstrap_servers, "security_protocol": security.protocol}
    if security.protocol.startswith("SASL"):
        options |= {"sasl_mechanism": security.sasl_mechanism, "sasl_plain_username": security.username, "sasl_plain_password": security.password}
    if security.protocol.endswith("SSL"):
        try:
            context = ssl.create_default_context(cafile=security.ca_file)
            if security.cert_file:
                context.load_cert_chain(security.cert_file, security.key_file, security.key_password)
        except (OSError, ssl.SSLError) as e:
            raise ConfigError([f"kafka.security: the certificates cannot be used: {e}"]) from None
        options["ssl_context"] = context
    return options
