"""How many processes suit this machine: its cores, by affinity and by the container's limit, less one."""

from __future__ import annotations

import os
from pathlib import Path

CPU_MAX = Path("/sys/fs/cgroup/cpu.max")
"""The limit of a container (cgroup v2): microseconds of CPU in a period, or "max", and the period."""


def limited(cores: int, cpu_max: str) -> int:
    """The cores that ``cpu_max`` allows, of ``cores``: at least 1. Text that is no limit allows all of them."""
    quota, _, period = cpu_max.strip().partition(" ")
    if not (quota.isdigit() and period.isdigit() and int(period)):
        return cores
    return max(1, min(cores, int(quota) // int(period)))


def auto_processes() -> int:
    """One process a core, less one core for the kernel, the model's threads and other programs; at least one."""
    try:
        limit = CPU_MAX.read_text("utf-8")
    except OSError:
        limit = ""
    return max(1, limited(len(os.sched_getaffinity(0)), limit) - 1)
