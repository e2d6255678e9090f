"""
A broker that demands TLS, certificates and logins, each on a listener of its own, and the files and
variables of a client that satisfies it.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import trustme
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography.hazmat.primitives import serialization

SECRETS = (
    "hush-plain-4711",
    "hush-scram-4712",
    "hush-key-4713",
    "hush-wrong-4714",
    "hush-token-4715",
)
PLAIN, SCRAM, KEY, WRONG, TOKEN = SECRETS
USER, LIMITED = "monitor", "limited"
LONG_AGO = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
ANY_OF_THEM: Any = None
"""A filter that fits every name; the types of the client do not know it."""
LISTENERS = {
    "TLS": "SSL",
    "MUTUAL": "SSL",
    "PASSWORD": "SASL_SSL",
    "CHALLENGE": "SASL_SSL",
    "CLEAR": "SASL_PLAINTEXT",
    "EXPIRED": "SSL",
    "MISNAMED": "SSL",
}
SCRAM_LOGIN = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
MECHANISMS = {256: ScramMechanism.SCRAM_SHA_256, 512: ScramMechanism.SCRAM_SHA_512}


class Client(NamedTuple):
    """Part of a configuration, and the secrets that belong to it."""

    address: str
    security: dict[str, str]
    secrets: dict[str, str]

    def environ(self) -> dict[str, str]:
        return {
            f"STREAM_MONITOR_KAFKA__SECURITY__{key.upper()}": value
            for key, value in self.secrets.items()
        }

    def but(
        self,
        address: str | None = None,
        secrets: dict[str, str] | None = None,
        **security: str | None,
    ) -> Client:
        """The same, with something else; None takes a key away."""
        merged = {
            key: value for key, value in {**self.security, **security}.items() if value is not None
        }
        return Client(address or self.address, merged, self.secrets if secrets is None else secrets)


def key_of(issued: trustme.LeafCert, password: str | None = None) -> bytes:
    """Its key as PKCS 8, the only form that Kafka reads from PEM."""
    key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    hidden = (
        serialization.BestAvailableEncryption(password.encode())
        if password
        else serialization.NoEncryption()
    )
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden)


class DemandingBroker:
    """
    See `LISTENERS`; the plain one is for the administrator.

    Everybody but LIMITED may do everything.
    """

    def __init__(self, module: Any, folder: Path) -> None:
        self.folder = folder
        self.authority, self.stranger = trustme.CA(), trustme.CA()
        self.authority.cert_pem.write_to_path(folder / "ca.pem")
        self._store("broker", self.authority.issue_cert("127.0.0.1"))
        self._store(
            "expired",
            self.authority.issue_cert(
                "127.0.0.1", not_before=LONG_AGO, not_after=LONG_AGO + dt.timedelta(days=1)
            ),
        )
        self._store("misnamed", self.authority.issue_cert("kafka.example"))
        self._shown("client", self.authority.issue_cert("client.example", common_name="client"))
        self._shown("stranger", self.stranger.issue_cert("client.example", common_name="client"))
        self._shown(
            "late",
            self.authority.issue_cert(
                "client.example",
                common_name="client",
                not_before=LONG_AGO,
                not_after=LONG_AGO + dt.timedelta(days=1),
            ),
        )
        self.server = module.KafkaServer(LISTENERS, self._properties()).start()
        self.admin = AdminClient({"bootstrap.servers": self.server.bootstrap})
        for bits in MECHANISMS:
            self.set_password(USER, SCRAM, bits)
            self.set_password(LIMITED, SCRAM, bits)

    def _store(self, name: str, issued: trustme.LeafCert) -> None:
        """Key and certificates in one file, as the broker wants them."""
        (self.folder / f"{name}.pem").write_bytes(
            key_of(issued) + b"".join(part.bytes() for part in issued.cert_chain_pems)
        )

    def _shown(self, name: str, issued: trustme.LeafCert) -> None:
        (self.folder / f"{name}.crt").write_bytes(
            b"".join(part.bytes() for part in issued.cert_chain_pems)
        )
        (self.folder / f"{name}.key").write_bytes(key_of(issued, KEY))

    def _properties(self) -> dict[str, str]:
        def name(listener: str, key: str) -> str:
            return f"listener.name.{listener.lower()}.{key}"

        stores = {
            listener: "broker"
            for listener, protocol in LISTENERS.items()
            if protocol.endswith("SSL")
        } | {"EXPIRED": "expired", "MISNAMED": "misnamed"}
        found = {
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": f"User:ANONYMOUS;User:CN=client;User:{USER}",
            "ssl.principal.mapping.rules": "RULE:^.*(CN=[^,]*).*$/$1/",
            name("MUTUAL", "ssl.client.auth"): "required",
            name("PASSWORD", "sasl.enabled.mechanisms"): "PLAIN",
            name("PASSWORD", "plain.sasl.jaas.config"): (
                "org.apache.kafka.common.security.plain.PlainLoginModule required "
                f'user_{USER}="{PLAIN}";'
            ),
        }
        for listener in ("CHALLENGE", "CLEAR"):
            found[name(listener, "sasl.enabled.mechanisms")] = "SCRAM-SHA-256,SCRAM-SHA-512"
            found |= {
                name(listener, f"scram-sha-{bits}.sasl.jaas.config"): SCRAM_LOGIN
                for bits in MECHANISMS
            }
        for listener, store in stores.items():
            found |= {
                name(listener, f"ssl.{kind}.type"): "PEM" for kind in ("keystore", "truststore")
            }
            found |= {
                name(listener, "ssl.keystore.location"): str(self.folder / f"{store}.pem"),
                name(listener, "ssl.truststore.location"): str(self.folder / "ca.pem"),
            }
        return found

    def set_password(self, user: str, password: str, bits: int = 512) -> None:
        self._done(
            self.admin.alter_user_scram_credentials(
                [
                    UserScramCredentialUpsertion(
                        user, ScramCredentialInfo(MECHANISMS[bits], 4_096), password.encode()
                    )
                ]
            )
        )

    def allow(self, kind: ResourceType, name: str, *operations: AclOperation) -> None:
        """Give something to LIMITED, by prefix."""
        where = (kind, name, ResourcePatternType.PREFIXED, f"User:{LIMITED}", "*")
        self._done(
            self.admin.create_acls(
                [AclBinding(*where, operation, AclPermissionType.ALLOW) for operation in operations]
            )
        )
        self._until(
            lambda: (
                set(operations)
                <= {acl.operation for acl in self._allowed(kind) if acl.name == name}
            )
        )

    def forbid(self, kind: ResourceType) -> None:
        """Take everything of a kind from LIMITED."""
        self._done(self.admin.delete_acls([self._all(kind)]))
        self._until(lambda: not self._allowed(kind))

    @staticmethod
    def _all(kind: ResourceType) -> AclBindingFilter:
        return AclBindingFilter(
            kind,
            ANY_OF_THEM,
            ResourcePatternType.ANY,
            f"User:{LIMITED}",
            ANY_OF_THEM,
            AclOperation.ANY,
            AclPermissionType.ANY,
        )

    def _allowed(self, kind: ResourceType) -> list[AclBinding]:
        return self.admin.describe_acls(self._all(kind)).result(30)

    @staticmethod
    def _until(condition: Callable[[], bool]) -> None:
        """The controller has it at once, the broker a moment later."""
        for _ in range(100):
            if condition():
                return
            time.sleep(0.1)
        raise RuntimeError("the broker has not taken over its access rules within 10 s")

    def _done(self, futures: dict[Any, Any]) -> None:
        for future in futures.values():
            future.result(30)

    def clients(self) -> dict[str, Client]:
        """One that satisfies each listener."""
        ca = {"ca_file": str(self.folder / "ca.pem")}
        shown = {
            "cert_file": str(self.folder / "client.crt"),
            "key_file": str(self.folder / "client.key"),
        }
        login = {"protocol": "SASL_SSL", **ca, "username": USER}
        at = self.server.addresses
        return {
            "tls": Client(at["TLS"], {"protocol": "SSL", **ca}, {}),
            "mutual": Client(
                at["MUTUAL"], {"protocol": "SSL", **ca, **shown}, {"key_password": KEY}
            ),
            "plain": Client(
                at["PASSWORD"], {**login, "sasl_mechanism": "PLAIN"}, {"password": PLAIN}
            ),
            "scram256": Client(
                at["CHALLENGE"], {**login, "sasl_mechanism": "SCRAM-SHA-256"}, {"password": SCRAM}
            ),
            "scram512": Client(
                at["CHALLENGE"], {**login, "sasl_mechanism": "SCRAM-SHA-512"}, {"password": SCRAM}
            ),
            "clear": Client(
                at["CLEAR"],
                {"protocol": "SASL_PLAINTEXT", "sasl_mechanism": "SCRAM-SHA-512", "username": USER},
                {"password": SCRAM},
            ),
        }
