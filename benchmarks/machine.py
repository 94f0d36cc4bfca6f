"""Describes the machine of a run: its processor, its load, and the versions that matter."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from failsoft.topics.embedded.jars import KAFKA

_PACKAGES = ("failsoft", "aiokafka", "faust-streaming", "onnxruntime", "orjson", "numpy", "uvloop")
_PEERS = ("confluent-kafka", "faststream", "quixstreams")


def describe() -> str:
    """Two lines of text. The load shows how much else the machine was doing."""
    load = " ".join(f"{x:.1f}" for x in os.getloadavg())
    versions = ", ".join(f"{name} {found}" for name in (*_PACKAGES, *_PEERS) if (found := _version(name)))
    return (
        f"{_processor()}, {os.cpu_count()} cores, load {load}; {platform.system()} {platform.release()}\n"
        f"Python {platform.python_version()}, Apache Kafka {KAFKA} on the same cores, {versions}"
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
