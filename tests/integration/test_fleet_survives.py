"""The fleet breaker outlives its workers, and workers go on without their control plane."""

from __future__ import annotations

from pathlib import Path

from confluent_kafka.admin import AdminClient

from tests.integration import fleet
from tests.integration.pipeline import Pipeline, events, running
from tests.kafka import Broker, wait_for

HELD = ("open", "half_open")


def test_an_open_breaker_stays_open_until_its_time(kafka: Broker, name: str, tmp_path: Path) -> None:
    """After every worker is killed and replaced, the breaker stays open until the time in its row; then it closes."""
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name, minimum_calls=20, open_for="15s", max_open="15s")
    with running(pipeline) as settlement:
        workers = [pipeline.start(f"w{i}", switched=True) for i in range(2)]
        fleet.wait_fleet(workers)
        pipeline.switch.touch()
        pipeline.publish(events(400))
        wait_for(lambda: [r for r in fleet.rows(pipeline) if r["state"] == "open"], 60, "the fleet's breaker open")
        opened = fleet.rows(pipeline)[-1]
        for worker in workers:
            worker.kill()
        pipeline.switch.unlink()
        workers = [pipeline.start(f"w{i}", switched=True) for i in range(2, 4)]
        fleet.wait_fleet(workers)
        settlement.wait_final(400)
        later = [r for r in fleet.rows(pipeline) if r["generation"] > opened["generation"]]
        assert later[0]["state"] == "half_open" and later[0]["since_ms"] >= opened["until_ms"]
        assert later[-1]["state"] == "closed"
        moves = [fleet.lines(w, "breaker moved") for w in workers]
        # A worker that starts after the breaker has closed reports no transition.
        assert any(moves) and all(m[0].said["to"] in HELD for m in moves if m), "the breaker open in new workers"
        verdict = settlement.verdict()
    assert not verdict.broken, str(verdict)
    assert "confirmed" not in str(verdict.counts), verdict.counts


def test_an_order_outlives_the_fleet(kafka: Broker, name: str, tmp_path: Path) -> None:
    """A breaker forced open by command stays so, with who and why, after all workers are replaced, until a reset."""
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name, minimum_calls=20)
    with running(pipeline) as settlement:
        worker = pipeline.start("w0", switched=True)
        fleet.wait_fleet([worker])
        ordered = pipeline.run("breakers", "open", "test", "--why", "bad features since noon", "--who", "ann")
        assert ordered.returncode == 0, ordered.stderr.decode()
        wait_for(lambda: fleet.state(worker) == "forced_open", 40, "the order obeyed")
        pipeline.publish(events(100))
        settlement.wait_answered(100)
        worker.kill()
        worker = pipeline.start("w1", switched=True)
        fleet.wait_fleet([worker])
        wait_for(lambda: fleet.state(worker) == "forced_open", 40, "the order in the new worker")
        listed = pipeline.run("breakers").stdout.decode()
        assert "forced_open" in listed and "ann" in listed and "bad features since noon" in listed, listed
        assert pipeline.run("breakers", "reset", "test", "--why", "mended", "--who", "ann").returncode == 0
        settlement.wait_final(100)
        assert fleet.state(worker) == "closed"
        assert not [r for r in settlement.reader.records[settlement.scored] if _primary_first(r)]
        verdict = settlement.verdict()
    assert not verdict.broken, str(verdict)


def _primary_first(record: object) -> bool:
    return record.header("failsoft-revision") == "0" and record.header("failsoft-source") == "primary"  # type: ignore[attr-defined]


def test_without_a_control_plane_workers_go_by_their_own(kafka: Broker, name: str, tmp_path: Path) -> None:
    """Without the topic of reports, events are scored and each worker uses its own local breaker.

    When the topic is back, the workers obey the fleet breaker again.
    """
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name, minimum_calls=20)
    with running(pipeline) as settlement:
        worker = pipeline.start("w0", switched=True)
        fleet.wait_fleet([worker])
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap, "log_level": 2})
        outcomes = f"{name}.outcomes"
        admin.delete_topics([outcomes])[outcomes].result(timeout=20)
        wait_for(lambda: outcomes not in admin.list_topics(timeout=30).topics, 60, "the topic to be gone")
        pipeline.publish(events(200))
        settlement.wait_answered(200)
        pipeline.switch.touch()
        pipeline.publish(events(400, start=200))
        settlement.wait_answered(600)
        wait_for(lambda: fleet.state(worker) in HELD, 60, "the worker's own breaker open")
        pipeline.switch.unlink()
        settlement.wait_final(600)
        assert fleet.state(worker) == "closed"
        wait_for(lambda: fleet.gauge(worker, "failsoft_control_plane_up") == 0, 60, "the control plane reported down")
        done = pipeline.run("topics", "apply")
        assert done.returncode == 0, done.stderr.decode()
        ordered = pipeline.run("breakers", "disable", "test", "--why", "is anybody there?", "--wait", "60", timeout=120)
        assert ordered.returncode == 0, ordered.stderr.decode()
        wait_for(lambda: fleet.state(worker) == "disabled", 40, "the order obeyed")
        verdict = settlement.verdict()
    assert not verdict.broken, str(verdict)
