"""The files for operators agree with the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from workers import settings
from workers.metrics import TABLE

ROOT = Path(__file__).parents[2]
MANIFESTS = ["docker-compose.yml", "ops/prometheus.yml", "ops/alerts.yml", "ops/kubernetes/worker.yaml"]


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_is_valid_yaml(name: str) -> None:
    """Each file parses, and holds a mapping."""
    assert isinstance(yaml.safe_load((ROOT / name).read_text()), dict)


def test_alerts_name_metrics_that_exist() -> None:
    """An alert on a metric that nobody writes would never fire."""
    known = {d.name for d in TABLE}
    rules = yaml.safe_load((ROOT / "ops/alerts.yml").read_text())["groups"][0]["rules"]
    named = {name for rule in rules for name in re.findall(r"failsoft_[a-z_]+", rule["expr"])}
    assert named
    assert named <= known


def test_compose_starts_commands_that_exist_in_order() -> None:
    """The worker waits for the topology, and the topology for a broker that answers."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert set(services) == {"kafka", "topics", "worker", "prometheus"}
    assert services["topics"]["command"] == ["topics", "apply"]
    assert services["topics"]["depends_on"] == {"kafka": {"condition": "service_healthy"}}
    assert services["worker"]["command"][0] == "worker"
    assert services["worker"]["depends_on"] == {"topics": {"condition": "service_completed_successfully"}}


def test_the_port_of_the_probes_is_one_everywhere() -> None:
    """Compose, Prometheus, Kubernetes and the image agree on where a worker listens."""
    worker = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["worker"]
    port = worker["command"][worker["command"].index("--metrics-port") + 1]
    scrape = yaml.safe_load((ROOT / "ops/prometheus.yml").read_text())["scrape_configs"][0]
    container = yaml.safe_load((ROOT / "ops/kubernetes/worker.yaml").read_text())["spec"]["template"]["spec"]["containers"][0]
    assert scrape["dns_sd_configs"][0]["port"] == int(port)
    assert container["ports"][0]["containerPort"] == int(port)
    assert f"EXPOSE {port}" in (ROOT / "Dockerfile").read_text()


def test_the_pipeline_of_the_manifests_is_accepted() -> None:
    """The pipeline file that compose and Kubernetes point to is a valid one, with the environment that they set."""
    environment = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["worker"]["environment"]
    pipeline = settings.load(
        ROOT / "ops/pipeline.toml", {k: v for k, v in environment.items() if k != "FAILSOFT_PIPELINE"}
    )
    assert pipeline.kafka.bootstrap_servers == "kafka:9093"
    assert (Path(pipeline.models.repository) / pipeline.model / "card.toml").is_file()
