"""The breakers of dependencies, such as a schema registry, which the fleet knows as it knows those of models."""

from __future__ import annotations

from failsoft.models.breaker.policy import dependency_policy
from failsoft.models.breaker.rules import BreakerPolicy, BreakerState
from failsoft.schemas.config.duration import seconds
from failsoft.schemas.fleet.counts import Counts
from failsoft.schemas.model_version import SCHEMA_REGISTRY, ModelVersion
from failsoft.workers.schema_sections import SchemaRegistry
from failsoft.workers.serving.registry import ServingRegistry

_PASSING = (BreakerState.CLOSED, BreakerState.DISABLED)


def dependencies(registry: SchemaRegistry) -> dict[ModelVersion, BreakerPolicy]:
    """The breaker policy of each dependency of a pipeline, by its key. ``registry``: its ``[schema_registry]``."""
    if registry.url is None:
        return {}
    return {SCHEMA_REGISTRY: dependency_policy(seconds(registry.open_for), seconds(registry.max_open))}


class DependencyBreaker:
    """Admits and counts single calls to the dependency ``on``. Used by one event loop.

    Creating it makes ``registry`` report the calls to the fleet, and obey the fleet's row.
    """

    def __init__(self, registry: ServingRegistry, on: ModelVersion, policy: BreakerPolicy) -> None:
        self._registry, self._key = registry, str(on)
        registry.depend(on, policy)

    @property
    def is_open(self) -> bool:
        """Are calls refused, but for probes? True while it is open, half-open or forced open."""
        return self._registry.breakers[self._key].state not in _PASSING

    def admit(self) -> int | None:
        """The generation to report one call under, or None if the call may not be made.

        An admitted call must end in ``report`` or ``release``.
        """
        admission = self._registry.admit(self._key, 1)
        return admission.generation if admission.granted else None

    def report(self, generation: int, failed: bool) -> None:
        """The result of an admitted call."""
        self._registry.report(self._key, generation, Counts(1, int(failed)))

    def release(self, generation: int) -> None:
        """An admitted call was not made to its end."""
        self._registry.release(self._key, generation, 1)
