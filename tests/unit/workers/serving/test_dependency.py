"""The breaker of a dependency: counted at home, reported to the fleet, obedient to its row."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from failsoft.models.breaker.fleet import fold
from failsoft.models.breaker.rules import BreakerState
from failsoft.schemas.fleet.breaker import Action, BreakerRow, Command, ReportKind
from failsoft.schemas.model_version import SCHEMA_REGISTRY, is_model_name
from failsoft.workers.fleet.owner import Owner
from failsoft.workers.operations.breaker_view import check_version, listed, named_model
from failsoft.workers.schema_sections import SchemaRegistry
from failsoft.workers.serving.dependency import DependencyBreaker, dependencies
from failsoft.workers.serving.registry import ServingRegistry
from failsoft.workers.telemetry.metrics import Metrics

SECTION = SchemaRegistry(url="http://127.0.0.1:8081", open_for="5s", max_open="20s")
POLICY = dependencies(SECTION)[SCHEMA_REGISTRY]
KEY = "dependency:schema_registry@0"


class _Guarded:
    """A registry of breakers with the breaker of a dependency, and a clock that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0
        self.collector = CollectorRegistry()
        self.registry = ServingRegistry(
            "w", Metrics(self.collector), lambda: self.now, lambda: 1000 + self.now, lambda: 0.5
        )
        self.registry.knows_fleet = True
        self.breaker = DependencyBreaker(self.registry, SCHEMA_REGISTRY, POLICY)

    def call(self, failed: bool) -> bool:
        """Whether a call was admitted, which then ended so."""
        generation = self.breaker.admit()
        if generation is not None:
            self.breaker.report(generation, failed)
        return generation is not None

    def shown(self, state: BreakerState) -> float | None:
        labels = {"model": SCHEMA_REGISTRY.model, "version": "0", "state": str(state)}
        return self.collector.get_sample_value("failsoft_breaker_state", labels)


def test_three_failures_open_it_and_one_probe_closes_it() -> None:
    """Look-ups are few, so few count. It waits for open_for, then twice as long."""
    guarded = _Guarded()
    assert [guarded.call(failed=True) for _ in range(4)] == [True, True, True, False]
    assert guarded.breaker.is_open and guarded.shown(BreakerState.OPEN) == 1
    guarded.now += 6.1
    assert [guarded.call(failed=True) for _ in range(2)] == [True, False]
    guarded.now += 6.1
    assert not guarded.call(failed=False)
    guarded.now += 6.0
    assert guarded.call(failed=False) and not guarded.breaker.is_open
    assert guarded.shown(BreakerState.CLOSED) == 1


def test_failures_under_half_do_not_open_it() -> None:
    """A look-up that fails now and then is tried again."""
    guarded = _Guarded()
    for failed in (False, False, True) * 2:
        assert guarded.call(failed)
    assert not guarded.breaker.is_open


def test_a_call_that_is_given_back_does_not_count() -> None:
    """A probe that a worker's end cancelled is free for the next one."""
    guarded = _Guarded()
    for _ in range(3):
        guarded.call(failed=True)
    guarded.now += 6.1
    generation = guarded.breaker.admit()
    assert generation is not None and guarded.breaker.admit() is None
    guarded.breaker.release(generation)
    assert guarded.call(failed=False) and not guarded.breaker.is_open


def test_the_fleet_learns_of_it_and_its_row_is_obeyed() -> None:
    """Reports have the key that no model can have. A row forced open refuses calls; one disabled admits all."""
    guarded = _Guarded()
    guarded.call(failed=True)
    report = next(iter(guarded.registry.reports()))
    assert (report.key, report.kind, report.counts.failures) == (KEY, ReportKind.WINDOW, 1)
    assert not is_model_name(SCHEMA_REGISTRY.model)
    guarded.registry.absorb(BreakerRow(KEY, "forced_open", 1, 5))
    assert guarded.breaker.is_open and guarded.breaker.admit() is None
    guarded.registry.absorb(BreakerRow(KEY, "disabled", 2, 6))
    assert not guarded.breaker.is_open and all(guarded.call(failed=True) for _ in range(9))


async def _prove(model: str, version: int) -> str | None:
    return None


def test_the_owner_folds_its_reports_and_orders() -> None:
    """It has a policy as models have, and no rollback: it is no model of the pipeline."""
    owner = Owner({SCHEMA_REGISTRY.model: POLICY}, {}, lambda: 1.0, lambda: 0.5, _prove, lambda m, c: None)
    guarded = _Guarded()
    guarded.call(failed=True)
    report = next(iter(guarded.registry.reports()))
    assert owner.messages(report.to_bytes(), set()) == [report]
    order = Command(SCHEMA_REGISTRY.model, Action.FORCE_OPEN, "ann", "it moves", 1_000)
    (command,) = owner.messages(order.to_bytes(), {KEY, "m@1"})
    assert isinstance(command, Command) and command.target == KEY
    row = fold(None, command, POLICY, 1_000, 0.5).row
    assert row is not None and row.state == "forced_open"
    assert owner.model(KEY) is None


def test_operators_name_it_as_it_is_listed() -> None:
    """`failsoft breakers` lists it before any report, and takes orders for it, with and without @0."""
    policies = {"m": POLICY, SCHEMA_REGISTRY.model: POLICY}
    assert [each["breaker"] for each in listed({}, policies, 0)] == [SCHEMA_REGISTRY.model, "m"]
    row = BreakerRow(KEY, "open", 3, 5, 6, reason="3 of 3 calls failed")
    told = listed({KEY: row}, policies, 10)[0]
    assert (told["breaker"], told["state"], told["failure_rate_opens"]) == (KEY, "open", 0.5)
    for target in (KEY, SCHEMA_REGISTRY.model):
        assert named_model(target, policies) == SCHEMA_REGISTRY.model
        check_version(target, SCHEMA_REGISTRY.model, {KEY})


def test_a_pipeline_without_a_registry_has_no_dependency() -> None:
    """Nothing is listed that nobody uses."""
    assert dependencies(SchemaRegistry()) == {}
