"""Which files may import a foreign package, where not every file may."""

from __future__ import annotations

from tests.house_rules import COMPUTED

ONLY = {
    "faust": {"workers/process/composition.py", "workers/fleet/faust_app.py"},
    "mode": {
        "workers/process/composition.py",
        "workers/fleet/sync.py",
        "workers/lanes/assignment.py",
        "workers/schema_registry/kept_schemas.py",
        "workers/serving/version_switch.py",
    },
    "onnxruntime": {"models/runtime/session.py", "models/vetting/gate.py"},
    "orjson": {"schemas/wire.py"},
    "aiohttp": {"workers/schema_registry/client.py"},
    "aiokafka.admin": {"topics/admin.py"},
    "aiokafka": {
        "topics/admin.py",
        *(f"topics/connection/{name}.py" for name in ("diagnosis", "oauth")),  # connect as clients do, give tokens
        "workers/kafka/connections.py",
        "workers/kafka/clients.py",  # creates the clients of the lanes
        "workers/lanes/lane.py",
        "workers/lanes/committer.py",
        "workers/lanes/inbox.py",
        "workers/lanes/scored_batch.py",
        "workers/lanes/start_offsets.py",
        "workers/lanes/assignment.py",
        "workers/lanes/keeper.py",
        "workers/lanes/lane_start.py",
        "workers/lanes/openings.py",
        "workers/lanes/redriven.py",
        "workers/lanes/rebalance_listener.py",
        "workers/lanes/trouble.py",
        "workers/fleet/sync.py",  # sends reports independently of Faust
        "workers/lanes/restore.py",
        "workers/schema_registry/kept_schemas.py",  # reads and writes the topic of schemas
        "workers/kafka/access.py",  # asks what the client may do
        "workers/kafka/access_protocol.py",  # defines requests that aiokafka lacks
        "workers/kafka/group_client.py",
        "workers/kafka/group_coordinator.py",  # ends where aiokafka's joins again
        "workers/kafka/group_offsets.py",
        "workers/kafka/lane_assignor.py",  # an assignor for aiokafka's group coordinator
        "workers/kafka/lane_coordinator.py",  # notices what aiokafka's does not
        "workers/kafka/membership.py",  # uses aiokafka's group coordinator
        "workers/kafka/clock_probe.py",  # writes the records that measure the broker's clock
        "workers/kafka/broker_bounds.py",  # asks a broker for its settings
        "workers/kafka/codecs.py",  # frames snappy as Java does, with aiokafka's function
        "workers/kafka/chunk.py",
        "workers/kafka/fetch_by_id.py",
        "workers/kafka/fetch_position.py",
        "workers/kafka/fetch_protocol.py",
        "workers/kafka/fetch_records.py",  # decodes what aiokafka cannot
        "workers/kafka/fetcher.py",
        "workers/kafka/letter_search.py",
        "workers/kafka/lenient_batch.py",  # decodes what aiokafka cannot
        "workers/kafka/list_offsets.py",
        *("workers/kafka/log_tail.py", "workers/kafka/log_view.py", "workers/kafka/operator_clients.py"),
        *("workers/lanes/survey.py", "workers/operations/offsets.py"),
        "workers/kafka/offset_fetch.py",  # handles errors that aiokafka ignores
        "workers/kafka/partition_errors.py",
        "workers/kafka/produce_batches.py",  # fills aiokafka's batches
        "workers/kafka/protocol.py",  # defines requests that aiokafka lacks
        "workers/kafka/request_loop.py",  # sends them on aiokafka's connections
        "workers/kafka/record_batch.py",  # unpacks record batches with aiokafka's C code
        "workers/kafka/requests.py",
        "workers/kafka/sealed_batches.py",
        "workers/kafka/stable_offsets.py",
        "workers/kafka/topic_ids.py",
        "workers/kafka/topic_states.py",
        "workers/kafka/topic_settings.py",  # sends a request that the admin client lacks
        "workers/kafka/transactional_producer.py",
        "workers/kafka/unreadable.py",
        "workers/operations/left_behind.py",
        "workers/operations/replay.py",
        "workers/operations/publish.py",
        "workers/kafka/topic_reader.py",
        "workers/fleet/rollouts.py",  # catches its errors so that a start goes on
        "workers/demo/watch.py",  # reads the demo's answers as a user would
    },
    COMPUTED: {"workers/serving/rules.py"},  # imports the user's rules by name
}
