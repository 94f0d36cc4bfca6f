"""A locked-down Kafka for tests: SASL, and access control lists by Kafka's StandardAuthorizer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from failsoft.topics.embedded.broker import HOST, free_port
from failsoft.topics.rights import Operation, Resource, Right
from tests.kafka import EmbeddedBroker, wait_for

USER, PASSWORD = "fsw", "fsw-secret"
PASSWORD_VARIABLE = "FAILSOFT_KAFKA__SASL_PASSWORD"

_KINDS = {
    Resource.TOPIC: ResourceType.TOPIC,
    Resource.GROUP: ResourceType.GROUP,
    Resource.TRANSACTIONAL_ID: ResourceType.TRANSACTIONAL_ID,
}
_OPERATIONS = {
    Operation.READ: AclOperation.READ,
    Operation.WRITE: AclOperation.WRITE,
    Operation.CREATE: AclOperation.CREATE,
    Operation.DESCRIBE: AclOperation.DESCRIBE,
    Operation.DESCRIBE_CONFIGS: AclOperation.DESCRIBE_CONFIGS,
}


class LockedBroker:
    """A broker on which ``USER`` may do only what is granted. Clients without SASL (``bootstrap``) may do everything.

    Attributes:
        bootstrap: the address for the administrator, without SASL.
        locked: the address for ``USER``, with SASL PLAIN.
        admin: the administrator's client.
    """

    def __init__(self) -> None:
        port, locked, controller = free_port(), free_port(), free_port()
        addresses = f"PLAINTEXT://{HOST}:{port},LOCKED://{HOST}:{locked}"
        login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
        self.broker = EmbeddedBroker(
            port=port,
            settings={
                "listeners": f"{addresses},CONTROLLER://{HOST}:{controller}",
                "advertised.listeners": f"{addresses},CONTROLLER://{HOST}:{controller}",
                "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,LOCKED:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
                "controller.quorum.bootstrap.servers": f"{HOST}:{controller}",
                "inter.broker.listener.name": "PLAINTEXT",
                "listener.name.locked.sasl.enabled.mechanisms": "PLAIN",
                "listener.name.locked.plain.sasl.jaas.config": f'{login} user_{USER}="{PASSWORD}";',
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "super.users": "User:ANONYMOUS",
            },
        )
        self.broker.start()
        self.bootstrap, self.locked = f"{HOST}:{port}", f"{HOST}:{locked}"
        self.admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 2})

    def stop(self) -> None:
        self.broker.stop()

    def grant(self, *rights: Right) -> None:
        """Allow all of ``rights``; returns when the broker knows them."""
        for done in self.admin.create_acls([_binding(right) for right in rights]).values():
            done.result(timeout=30)
        self._wait(rights, there=True)

    def revoke(self, *rights: Right) -> None:
        """Take ``rights`` away."""
        for done in self.admin.delete_acls([_filter(right) for right in rights]).values():
            done.result(timeout=30)
        self._wait(rights, there=False)

    @contextmanager
    def granted(self, rights: Iterable[Right]) -> Iterator[None]:
        """Exactly these rights, for a while."""
        rights = list(rights)
        self.grant(*rights)
        try:
            yield
        finally:
            self.revoke(*rights)

    @contextmanager
    def without(self, right: Right) -> Iterator[None]:
        """All that is granted but ``right``, for a while."""
        self.revoke(right)
        try:
            yield
        finally:
            self.grant(right)

    def _wait(self, rights: Iterable[Right], there: bool) -> None:
        wanted = {_key(_binding(right)) for right in rights}

        def settled() -> bool:
            try:
                known = {_key(each) for each in self.admin.describe_acls(_EVERY).result(timeout=30)}
            except KafkaException:
                return False
            return wanted <= known if there else not wanted & known

        wait_for(settled, 30, "the access control lists to be known")


def _binding(right: Right) -> AclBinding:
    pattern = ResourcePatternType.PREFIXED if right.prefixed else ResourcePatternType.LITERAL
    operation = _OPERATIONS[right.operation]
    kind = _KINDS[right.resource]
    return AclBinding(kind, right.name, pattern, f"User:{USER}", "*", operation, AclPermissionType.ALLOW)


def _filter(right: Right) -> AclBindingFilter:
    b = _binding(right)
    return AclBindingFilter(
        b.restype, b.name, b.resource_pattern_type, b.principal, b.host, b.operation, b.permission_type
    )


def _key(b: AclBinding) -> tuple[object, ...]:
    return b.restype, b.name, b.resource_pattern_type, b.principal, b.operation


_EVERY = AclBindingFilter(
    ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY
)
