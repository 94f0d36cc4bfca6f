"""Composition root: builds the app of one worker process from the settings, with the lanes as its service.

``failsoft worker`` and ``faust -A failsoft.workers.app worker`` start the same app. The control plane (Faust's tables
and agents) is a second app inside this one (``workers.fleet``), so that its failure does not end the worker. Events
pass through neither app (docs/decisions/0001-two-planes.md).
"""

from __future__ import annotations

import asyncio
import os
import platform
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path

import faust
import numpy as np
import structlog
from faust.app import BootStrategy
from mode import ServiceT
from prometheus_client import CollectorRegistry, ProcessCollector

from failsoft.models.answers.last_known import LastKnown
from failsoft.models.breaker.policy import policy
from failsoft.models.catalog.repository import Repository
from failsoft.models.rollout.rollout import RollbackPolicy
from failsoft.schemas.fleet.breaker import Alert
from failsoft.schemas.fleet.rollout import Change, Trigger
from failsoft.schemas.model_version import ModelVersion
from failsoft.topics.connection.causes import Obstacle
from failsoft.topics.growth import uneven
from failsoft.topics.layout import Topology
from failsoft.workers.execution.runner import Runner
from failsoft.workers.execution.shared_calls import SharedCalls
from failsoft.workers.fleet.control_plane import ControlPlane
from failsoft.workers.fleet.owner import Owner
from failsoft.workers.fleet.sync import Sync
from failsoft.workers.kafka import fetch_records, offset_fetch
from failsoft.workers.kafka.broker_clock import BrokerClock
from failsoft.workers.kafka.clients import Clients
from failsoft.workers.kafka.clock_probe import ClockProbe
from failsoft.workers.kafka.connections import ConnectionWatch
from failsoft.workers.lanes import restore
from failsoft.workers.lanes.assignment import Lanes
from failsoft.workers.lanes.deps import Deps, NoSchemas
from failsoft.workers.process import observation, permission
from failsoft.workers.process.catalog import Catalog
from failsoft.workers.process.ending import die, missing_rights
from failsoft.workers.process.schemas import WorkerSchemas, worker_schemas
from failsoft.workers.scoring.plan import Plan
from failsoft.workers.serving import loader
from failsoft.workers.serving.dependency import dependencies
from failsoft.workers.serving.pipeline import load_cards, make_plan
from failsoft.workers.serving.registry import ServingRegistry
from failsoft.workers.serving.unserved import Unserved
from failsoft.workers.serving.version_switch import Versions
from failsoft.workers.settings import Settings
from failsoft.workers.telemetry.http import Web
from failsoft.workers.telemetry.logs import FailureLog
from failsoft.workers.telemetry.metrics import Metrics
from failsoft.workers.telemetry.report import Reporter

log = structlog.get_logger("failsoft.app")

MODEL_THREADS = 16
"""Maximum model runs at once: one a lane, for as many lanes as a process usually has. An idle thread costs nothing, but
rows that wait for a thread until their deadline time out. As many further threads may be lost."""


LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Options:
    """The options of one worker process.

    Attributes:
        worker_id: the worker's id, unique in the fleet.
        metrics_port: the port of the HTTP server; 0 takes a free one.
        metrics_host: the address that the HTTP server binds to.
        wrap: wraps each loaded model session; the demo injects faults with it.
        on_fatal: called with the error instead of ``die`` when the worker cannot continue.
        answer_schema: the registry's id of the schema of answers; None: they are JSON.
    """

    worker_id: str
    metrics_port: int = 0
    metrics_host: str = LOOPBACK
    wrap: loader.Wrap = field(default=lambda session: session)
    on_fatal: Callable[[BaseException], None] | None = None
    answer_schema: int | None = None


class _WorkerBoot(BootStrategy):  # type: ignore[misc]
    """Starts the lanes and the control plane side by side, so that scoring never waits for a table. Schemas come first:
    while the registry is down, only the topic of schemas has them.
    """

    enable_web = False

    def server(self) -> Iterable[ServiceT]:
        first = [] if self.app.schemas is None else [self.app.schemas.kept]
        return [*first, self.app.lanes, self.app.sync, self.app.versions]


class App(faust.App):  # type: ignore[misc]
    """The Faust app of a worker: owns the lanes and the HTTP server, and stops both in order.

    Attributes:
        schemas: the schemas of events; None for a pipeline without a registry.
        lanes: the data plane.
        sync: the sync with the fleet's tables.
        versions: the loaded model versions.
        unserved: the models without a version that can serve.
        runner: runs model calls.
        probes: the HTTP server for metrics, liveness and readiness.
        failures: the rate-limited log of failed answers.
        probes_host: the address that ``probes`` binds to.
        probes_address: the URL of ``probes``, set at the start.
    """

    BootStrategy = _WorkerBoot
    schemas: WorkerSchemas | None
    lanes: Lanes
    sync: Sync
    versions: Versions
    unserved: Unserved
    runner: Runner
    probes: Web
    failures: FailureLog
    probes_host: str
    probes_address: str

    def alert(self, alert: Alert) -> None:
        """Sends an alert of this worker, once the sync is there."""
        self.sync.alert(alert)

    async def on_first_start(self) -> None:
        """Starts the HTTP server first, so that health checks work during the rest of the start."""
        self.probes_address = f"http://{self.probes_host}:{self.probes.start()}"
        log.info("worker starts", id=self.conf.broker_client_id, http=self.probes_address)

    async def on_started(self) -> None:
        """Faust would wait for tables here. This app has none, so it is up as soon as its services are."""
        if self.on_startup_finished:
            await self.on_startup_finished()

    def not_ready(self) -> str | None:
        """Why this worker is not ready, or None if it is."""
        return self.lanes.not_ready() or self.sync.not_ready() or self.unserved.not_ready()

    async def on_stop(self) -> None:
        """Stops switching versions first, or a model loaded during shutdown leaks. The lanes then drain before Faust
        stops its own consumer, tables and producer.
        """
        await self.versions.stop()
        await self.lanes.drain()
        if self.schemas is not None:
            await self.schemas.readers.close()
        self.failures.flush()
        await asyncio.to_thread(self.versions.unload_all)
        await super().on_stop()
        self.probes.stop()


async def measured_clock(pipeline: Settings, worker_id: str) -> ClockProbe:
    """The broker's clock, measured if a broker answers soon."""
    probe = ClockProbe(BrokerClock(time.time, time.monotonic), pipeline.names.outcomes)
    await probe.start(Clients(pipeline, worker_id).reporter)
    return probe


def build(
    pipeline: Settings, options: Options, topology: Topology, active: Mapping[str, int], probe: ClockProbe
) -> App:
    """Builds the app of one worker process. Raises Refused for a card that cannot be used.

    topology: the verified topology. active: the fleet's active version of each model, where it is known. probe: the
    broker's clock.
    """
    clock = probe.clock
    for topic in topology.strays:
        log.warning(
            "a retry topic is not in the pipeline file: failsoft topics show says what waits on it", topic=topic
        )
    for line in uneven(topology.topics, topology.existing):
        log.warning("some lanes cannot run", why=line)
    # Faust reads its topics with aiokafka's consumer.
    offset_fetch.install()
    fetch_records.install()
    app = _app(pipeline, options)
    # 1. Metrics.
    collectors = CollectorRegistry()
    ProcessCollector(registry=collectors)
    metrics = Metrics(collectors)
    metrics.read("failsoft_clock_skew_seconds", lambda: [({}, skew)] if (skew := clock.skew()) is not None else [])
    count_failure = partial(_count_connection_failure, metrics)
    ConnectionWatch(pipeline.connection(), count_failure).install()
    metrics.inform("failsoft_build_info", version=version("failsoft"), python=platform.python_version())
    # 2. Cards and the scoring plan.
    repository = Repository(Path(pipeline.models.repository))
    cards = load_cards(pipeline, repository)
    plan = make_plan(pipeline, cards, repository)
    catalog = Catalog(repository, cards, loader.limits(pipeline), options.wrap, partial(_count_restart, metrics))
    # 3. Serving: the registry, the runner and the loaded versions.
    registry = ServingRegistry(options.worker_id, metrics, time.monotonic, clock.earliest, random.random)
    app.runner = Runner({}, MODEL_THREADS, metrics, time.monotonic, on_unfit=lambda error: app.lanes.fatal(error))
    ensemble = cards[plan.primary].ensemble
    vital, quorum = ((plan.primary,), 1) if ensemble is None else (ensemble.names, ensemble.quorum)
    app.unserved = Unserved(vital, quorum, time.monotonic)
    app.versions = _versions(options.worker_id, catalog, active, app, registry, metrics, clock)
    # 4. The data plane.
    clients = Clients(pipeline, options.worker_id)
    app.failures = FailureLog(structlog.get_logger("failsoft.answers"))
    app.schemas = worker_schemas(pipeline, plan.wanted, registry, clients, metrics)
    deps = _lane_deps(options, pipeline, plan, registry, app, clients, metrics, clock)

    def observe(lanes: Lanes) -> None:
        observation.observe(metrics, pipeline, clock, lanes)
        unread, now = deps.reporter.unread, time.monotonic()
        observation.tell_unread(app.alert, metrics, unread, options.worker_id, clock, lanes.lanes, now)

    app.lanes = Lanes(
        topics=[*pipeline.input.topics, pipeline.names.replay, *plan.rungs],
        outputs=[pipeline.names.scored, pipeline.names.dead, pipeline.names.replay, *plan.rungs],
        clients=clients,
        deps=deps,
        on_fatal=options.on_fatal or (lambda error: _die(app, error, pipeline)),
        observe=observe,
        on_trouble=partial(observation.on_trouble, app.alert, pipeline, options.worker_id, clock),
    )
    metrics.read("failsoft_lane_stopped", lambda: observation.stopped(app.lanes))
    # 5. The control plane.
    owner = _owner(pipeline, catalog, metrics, clock)
    app.sync = Sync(
        make_plane=lambda: ControlPlane(
            pipeline.names,
            pipeline.connection(),
            options.worker_id,
            owner,
            lambda: set(registry.breakers),
            clients.timeouts,
        ),
        make_producer=clients.reporter,
        outcomes=pipeline.names.outcomes,
        alerts=pipeline.names.alerts,
        registry=registry,
        versions=app.versions,
        metrics=metrics,
        lacks=lambda: permission.plane_lacks(pipeline),
        probe=probe,
    )
    # 6. The HTTP server.
    app.probes_host = options.metrics_host
    app.probes = Web(collectors, app.lanes.not_live, app.not_ready, options.metrics_host, options.metrics_port)
    return app


def _app(pipeline: Settings, options: Options) -> App:
    """The Faust app before ``build`` adds the services that it starts and stops."""
    return App(
        pipeline.names.group + ".worker",
        broker=f"kafka://{pipeline.kafka.bootstrap_servers.replace(',', ';')}",
        autodiscover=False,
        web_enabled=False,
        worker_redirect_stdouts=False,
        broker_client_id=options.worker_id,
        datadir=os.devnull,
    )


def _versions(
    worker: str,
    catalog: Catalog,
    active: Mapping[str, int],
    app: App,
    registry: ServingRegistry,
    metrics: Metrics,
    clock: BrokerClock,
) -> Versions:
    """The service that holds this worker's versions; loads the first version of each model. Raises Refused."""
    return Versions(
        worker,
        catalog.versioned,
        [catalog.first(model, active.get(model)) for model in catalog.versioned],
        catalog.open_version,
        app.runner,
        registry,
        app.unserved,
        metrics,
        time.monotonic,
        clock.earliest,
    )


def _lane_deps(
    options: Options,
    pipeline: Settings,
    plan: Plan,
    registry: ServingRegistry,
    app: App,
    clients: Clients,
    metrics: Metrics,
    clock: BrokerClock,
) -> Deps:
    """The dependencies of every lane."""
    section = plan.cards[plan.primary].fallback
    tell = partial(observation.on_malformed, app.alert, options.worker_id, clock)

    async def make_known(lane: int) -> LastKnown | None:
        if not plan.remembers or section is None:
            return None
        scored, age = pipeline.names.scored, section.last_known_max_age
        return await restore.restore(clients.reader, clients.log_end, scored, lane, age, clock.earliest)

    return Deps(
        names=pipeline.names,
        plan=plan,
        registry=registry,
        calls=SharedCalls(app.runner, time.monotonic),
        reporter=Reporter(metrics, app.failures, plan.primary, clock.earliest, time.monotonic, tell),
        make_known=make_known,
        make_letters=clients.letter_search,
        on_result=app.versions.on_result,
        exactly_once=pipeline.guarantee == "exactly_once",
        wall=clock.earliest,
        latest=clock.latest,
        clock=time.monotonic,
        draws=np.random.default_rng().random,
        timeouts=clients.timeouts,
        schemas=NoSchemas() if app.schemas is None else app.schemas.readers,
        answer_schema=options.answer_schema,
    )


def _owner(pipeline: Settings, catalog: Catalog, metrics: Metrics, clock: BrokerClock) -> Owner:
    """The dependencies of the owner, for when this worker becomes it."""
    cards = catalog.versioned
    guarded = {each.model: of for each, of in dependencies(pipeline.schema_registry).items()}
    for model in cards:
        for trigger in (Trigger.OPERATOR, Trigger.AUTOMATIC):
            # Create the counter at 0: Prometheus sees no increase in a counter that first appears at 1.
            metrics.add("failsoft_rollbacks_total", 0, model=model, trigger=trigger)

    def changed(model: str, change: Change) -> None:
        log_at = log.info if change.trigger is Trigger.FIRST else log.warning
        log_at("a model moves to another version", model=model, **asdict(change))
        if change.trigger in (Trigger.OPERATOR, Trigger.AUTOMATIC):
            metrics.add("failsoft_rollbacks_total", 1, model=model, trigger=change.trigger)

    return Owner(
        policies={model: policy(card) for model, card in cards.items()} | guarded,
        rollbacks={
            model: RollbackPolicy(card.rollback.after_failed_probes, card.rollback.hold)
            for model, card in cards.items()
        },
        wall=clock.earliest,
        draw=random.random,
        prove=catalog.prove,
        changed=changed,
    )


def _count_restart(metrics: Metrics, key: str, why: str) -> None:
    """Counts an ended process of an isolated model; called on any thread."""
    named = ModelVersion.of_key(key)
    metrics.add("failsoft_model_restarts_total", model=named.model, version=str(named.version), why=why)


def _count_connection_failure(metrics: Metrics, cause: Obstacle) -> None:
    """Counts a connection to a broker that could not be set up; called on any thread."""
    metrics.add("failsoft_kafka_connection_failures_total", 1, cause=cause)


def _die(app: App, error: BaseException, pipeline: Settings) -> None:
    app.dying = die(app.lanes.leave, error, partial(missing_rights, pipeline))
