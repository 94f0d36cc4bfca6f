"""Clusters and hosts that are not as one would set them up: tombstones, outgrown limits, missing topics, a read-only
root file system.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from failsoft.topics.embedded.broker import free_port
from failsoft.topics.layout import HEADROOM
from tests.integration.pipeline import ROOT, Event, Pipeline, events, running
from tests.kafka import Broker, read_all, wait_for

FOLDERS = ("/tmp", "/var/tmp", "/dev/shm", "/run")
"""Where a process may write besides the root file system, if they are file systems of their own."""


def metrics(port: int) -> Mapping[str, float]:
    """A worker's series, by name with labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        lines = [line for line in response.read().decode().splitlines() if not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def committed(kafka: Broker, group: str) -> Mapping[tuple[str, int], int]:
    """A group's committed offsets, as tools that measure lag see them."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    asked = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])
    found: Sequence[TopicPartition] = asked[group].result(30).topic_partitions or []
    return {(tp.topic, tp.partition): tp.offset for tp in found}


def test_tombstones_may_be_ignored_and_lag_is_told(kafka: Broker, name: str, tmp_path: Path) -> None:
    """Ignored tombstones are counted, their offsets are committed, and nothing is written for them.

    Every partition that the worker reads has a committed offset from the start, also of rungs that nothing was written
    to. When all is answered, the lag is 0.
    """
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name, partitions=2)
    pipeline.file.write_text(pipeline.file.read_text().replace("[input]", '[input]\ntombstones = "ignore"'))
    with running(pipeline) as settlement:
        port = free_port()
        pipeline.start("w0", "--metrics-port", str(port)).wait_ready()
        topics = [f"{name}.events", f"{name}.replay", f"{name}.retry.1s", f"{name}.retry.2s"]
        starts = {(topic, p): 0 for topic in topics for p in range(2)}
        wait_for(lambda: committed(kafka, name) == starts, 30, "the committed starts")
        tombstones: list[Event] = [(b"k%d" % i, None, [], i % 2) for i in range(10)]
        pipeline.publish([*events(20), *tombstones, *events(20, start=20)])
        settlement.wait_answered(40)
        ignored = f'failsoft_events_total{{outcome="ignored",topic="{name}.events"}}'
        lag = f'failsoft_input_lag{{topic="{name}.events"}}'

        def settled() -> bool:
            found = metrics(port)
            return (found.get(ignored), found.get(lag)) == (10, 0)

        wait_for(settled, 30, "ten ignored tombstones, and no lag")
        assert read_all(kafka.bootstrap, f"{name}.dead") == []
        ends = {(t, p): o for (t, p), o in committed(kafka, name).items() if t == f"{name}.events"}
        assert sum(ends.values()) == 50


def test_a_limit_that_an_input_has_outgrown_is_raised(kafka: Broker, name: str, tmp_path: Path) -> None:
    """``topics show`` fails and names the command, which raises the limits and says so; nothing else is changed."""
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name, partitions=1)
    with running(pipeline):
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap})

        def settings(topic: str) -> dict[str, str]:
            resource = ConfigResource(ResourceType.TOPIC, topic)
            return {k: e.value for k, e in admin.describe_configs([resource])[resource].result(30).items()}

        raised = ConfigEntry("max.message.bytes", "3000000", incremental_operation=AlterConfigOpType.SET)
        kept = ConfigEntry("retention.ms", "86400001", incremental_operation=AlterConfigOpType.SET)
        for topic, entry in ((f"{name}.events", raised), (f"{name}.dead", kept)):
            resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
            admin.incremental_alter_configs([resource])[resource].result(30)
        wait_for(lambda: settings(f"{name}.events")["max.message.bytes"] == "3000000", 30, "the raised limit")
        shown = pipeline.run("topics", "show")
        assert shown.returncode == 1 and b"raise it with: failsoft topics apply" in shown.stdout
        applied = pipeline.run("topics", "apply", "--json")
        assert applied.returncode == 0, applied.stderr
        wanted = str(3_000_000 + HEADROOM)
        assert f"{name}.scored: max.message.bytes was 1114124 and is {wanted}".encode() in applied.stderr
        results = {row["name"]: row["result"] for row in map(json.loads, applied.stdout.splitlines())}
        own = [f"{name}.{t}" for t in ("scored", "dead", "replay", "retry.1s", "retry.2s")]
        assert [topic for topic, result in results.items() if result == "changed"] == sorted(
            own, key=list(results).index
        )
        assert settings(f"{name}.dead")["retention.ms"] == "86400001"
        assert {settings(topic)["max.message.bytes"] for topic in own} == {wanted}
        assert pipeline.run("topics", "show").returncode == 0


def test_missing_topics_under_a_supervisor_are_said_once(kafka: Broker, name: str, tmp_path: Path) -> None:
    """No worker is started that would say the same again. Exit code 4; for a single worker it is 1, with a line for
    each topic.
    """
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name)
    done = pipeline.run("worker", "--processes", "2")
    assert done.returncode == 4 and b"starts 2 workers" not in done.stderr
    assert done.stderr.count(b"failsoft topics apply") == 1
    for topic in ("events", "scored", "retry.1s", "outcomes"):
        assert f"{name}.{topic}".encode() in done.stderr


# --- a read-only root file system -------------------------------------------------------------------------------------


def read_only(*writable: str) -> list[str]:
    """A command prefix that makes every file system read-only but new ones in memory on ``writable``."""
    steps = ["mount --make-rprivate /"]
    for folder in FOLDERS:
        steps.append(
            f"if [ -d {folder} ]; then mount --bind {folder} {folder} && mount -o remount,ro,bind {folder}; fi"
        )
    steps += [f"mount -t tmpfs none {folder}" for folder in writable]
    steps += ["mount -o remount,ro,bind /", 'exec "$@"']
    return ["unshare", "-m", "sh", "-ec", "\n".join(steps), "sh"]


@pytest.fixture(scope="module")
def unshare() -> None:
    """Skips where a process may not have mounts of its own: that needs root, and a system that lets it."""
    try:
        done = subprocess.run(
            [*read_only("/dev/shm"), "sh", "-c", "! touch /tmp/x /x"], capture_output=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("there is no unshare")
    if done.returncode:
        pytest.skip(f"no mounts of one's own: {done.stderr.decode().strip()}")


@pytest.mark.usefixtures("unshare")
def test_a_read_only_root_is_a_sentence_and_shared_memory_is_enough(kafka: Broker, name: str, tmp_path: Path) -> None:
    """Without any folder to write to, a worker says what to mount. The shared memory of a container is all it needs."""
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name, partitions=1)
    with running(pipeline) as settlement:
        command = [sys.executable, "-m", "failsoft.workers.cli", "worker", "--pipeline", str(pipeline.file)]
        done = subprocess.run([*read_only(), *command], cwd=ROOT, capture_output=True, timeout=60, check=False)
        assert done.returncode == 2 and b"Traceback" not in done.stderr
        assert b"mount a writable folder on /tmp (in Kubernetes an emptyDir), or name one in TMPDIR" in done.stderr
        pipeline.publish(events(10))
        pipeline.spawn("w0", [*read_only("/dev/shm"), *command]).wait_ready()
        settlement.wait_answered(10)
        verdict = settlement.verdict()
        assert not verdict.broken, verdict
