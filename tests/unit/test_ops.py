"""The files for operators (compose, Prometheus, alerts, Kubernetes) agree with the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from failsoft.models.catalog.graph import DEFAULT_LOCALE
from failsoft.workers import settings
from failsoft.workers.telemetry.metric_table import TABLE

ROOT = Path(__file__).parents[2]
MANIFESTS = ["docker-compose.yml", "ops/prometheus.yml", "ops/alerts.yml", "ops/kubernetes/worker.yaml"]


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_is_valid_yaml(name: str) -> None:
    """Each manifest is valid YAML and holds mappings."""
    documents = list(yaml.safe_load_all((ROOT / name).read_text()))
    assert documents and all(isinstance(d, dict) for d in documents)


def kubernetes() -> tuple[dict[str, Any], dict[str, Any]]:
    """The Service and the StatefulSet of the Kubernetes manifest."""
    service, workers = yaml.safe_load_all((ROOT / "ops/kubernetes/worker.yaml").read_text())
    return service, workers


def test_kubernetes_keeps_ids_and_probes_as_the_contract_says() -> None:
    """Ids are stable, topics precede workers, the manifest checks liveness by /livez only, and allows time to drain."""
    service, workers = kubernetes()
    pod = workers["spec"]["template"]
    [topics], [worker] = pod["spec"]["initContainers"], pod["spec"]["containers"]
    assert workers["kind"] == "StatefulSet"
    assert workers["spec"]["serviceName"] == service["metadata"]["name"]
    assert service["spec"]["selector"] == workers["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
    assert topics["args"] == ["topics", "apply"]
    assert worker["args"][0] == "worker"
    ids = {e["name"]: e.get("valueFrom") for e in worker["env"]}
    assert ids["FAILSOFT_WORKER_ID"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    assert worker["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert worker["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert pod["spec"]["terminationGracePeriodSeconds"] > 20


def test_a_read_only_root_has_the_one_folder_that_a_worker_writes_to() -> None:
    """Both containers have a read-only root file system, and /tmp in memory."""
    pod = kubernetes()[1]["spec"]["template"]["spec"]
    [volume] = pod["volumes"]
    assert "emptyDir" in volume
    for container in (*pod["initContainers"], *pod["containers"]):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["volumeMounts"] == [{"name": volume["name"], "mountPath": "/tmp"}]


def test_kafkas_topics_are_on_the_volume() -> None:
    """Kafka's topics are on the volume; otherwise they would be lost with the container."""
    kafka = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["kafka"]
    assert kafka["volumes"] == [f"kafka:{kafka['environment']['KAFKA_LOG_DIRS']}"]


def test_alerts_name_metrics_that_exist() -> None:
    """Each alert uses only metrics that exist; otherwise it would never fire."""
    known = {d.name for d in TABLE}
    rules = yaml.safe_load((ROOT / "ops/alerts.yml").read_text())["groups"][0]["rules"]
    named = {name for rule in rules for name in re.findall(r"failsoft_[a-z_]+", rule["expr"])}
    assert named
    assert named <= known


def test_low_confidence_has_an_alert_of_its_own() -> None:
    """low_confidence has an alert of its own, as the contract requires: it counts against no breaker."""
    rules = yaml.safe_load((ROOT / "ops/alerts.yml").read_text())["groups"][0]["rules"]
    assert [rule["alert"] for rule in rules if 'reason="low_confidence"' in rule["expr"]] == ["FailsoftLowConfidence"]


def test_compose_starts_commands_that_exist_in_order() -> None:
    """The worker starts after the topics are applied, and these after the broker answers."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert set(services) == {"kafka", "topics", "worker", "prometheus"}
    assert services["topics"]["command"] == ["topics", "apply"]
    assert services["topics"]["depends_on"] == {"kafka": {"condition": "service_healthy"}}
    assert services["worker"]["command"][0] == "worker"
    assert services["worker"]["depends_on"] == {"topics": {"condition": "service_completed_successfully"}}


def test_the_port_of_the_probes_is_one_everywhere() -> None:
    """Compose, Prometheus, Kubernetes and the image use the same port of a worker."""
    worker = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["worker"]
    port = worker["command"][worker["command"].index("--metrics-port") + 1]
    scrape = yaml.safe_load((ROOT / "ops/prometheus.yml").read_text())["scrape_configs"][0]
    service, workers = kubernetes()
    container = workers["spec"]["template"]["spec"]["containers"][0]
    assert service["spec"]["ports"][0]["port"] == int(port)
    assert scrape["dns_sd_configs"][0]["port"] == int(port)
    assert container["ports"][0]["containerPort"] == int(port)
    assert f"EXPOSE {port}" in (ROOT / "Dockerfile").read_text()


def test_the_image_has_the_locale_of_text_models() -> None:
    """ONNX Runtime wants it where a model names none, and slim images lack it."""
    assert f"--charmap=UTF-8 {DEFAULT_LOCALE}" in (ROOT / "Dockerfile").read_text()


def test_the_pipeline_of_the_manifests_is_accepted() -> None:
    """The pipeline file of compose and Kubernetes is valid with the environment that they set."""
    environment = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["worker"]["environment"]
    pipeline = settings.load(
        ROOT / "ops/pipeline.toml", {k: v for k, v in environment.items() if k != "FAILSOFT_PIPELINE"}
    )
    assert pipeline.kafka.bootstrap_servers == "kafka:9093"
    assert (Path(pipeline.models.repository) / pipeline.model / "card.toml").is_file()
