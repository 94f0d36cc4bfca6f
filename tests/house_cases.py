"""Edits that break a house rule, and edits that only look like it: the rule, a file, and the lines added to it."""

from __future__ import annotations

CALLS, PLAN, RETRY = "workers/scoring/calls.py", "workers/scoring/plan.py", "workers/lanes/retry_schedule.py"
LANE, EXCLUSIVE, TEST = "workers/lanes/lane.py", "workers/lanes/exclusive.py", "tests/unit/test_cli.py"

MODULES = (
    *("asyncio", "concurrent.futures", "ctypes", "faust", "fcntl", "http.client", "importlib", "logging", "mmap"),
    *("multiprocessing", "os", "pathlib", "prometheus_client", "random", "select", "shutil", "signal", "socket"),
    *("subprocess", "sys", "tempfile", "threading", "time", "urllib.request", "uuid"),
)

Case = tuple[str, str, str]

ILLEGAL: list[Case] = [
    ("layer", "schemas/event.py", "from failsoft.topics import names"),
    ("layer", "models/breaker/breaker.py", "import workers.settings"),
    ("layer", LANE, "from tests import kit"),
    ("prefix", LANE, "from workers import settings"),
    ("folder", "workers/telemetry/logs.py", "from failsoft.workers.cli import main"),
    ("folder", "workers/serving/loader.py", "def f():\n    from failsoft.workers import app"),
    ("folder", "workers/settings.py", "import failsoft.workers.kafka.clients"),
    ("folder", "workers/identity.py", "from failsoft.workers.settings import Settings"),
    ("folder", LANE, "import importlib\nimportlib.import_module('failsoft.workers.cli')"),
    ("folder", "workers/demo/run.py", "from failsoft.workers import cli"),
    ("folder", "workers/__init__.py", "from failsoft.workers.settings import Settings"),
    ("pure", CALLS, "from failsoft.workers.settings import Settings"),
    ("pure", CALLS, "from failsoft.workers import cli"),
    ("pure", CALLS, "import failsoft.workers.identity as who"),
    ("pure", CALLS, "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from failsoft.topics import admin"),
    ("pure", PLAN, "from failsoft.models.catalog.card import load_card"),
    ("pure", PLAN, "from failsoft.models.catalog import card\ncard.load_card(None)"),
    ("pure", "models/catalog/card.py", "def f(path):\n    return load_card(path)"),
    ("pure", "models/catalog/card.py", "def f():\n    return Path.cwd()"),
    ("pure", "models/rollout/rollout.py", "from failsoft.models.isolation.supervisor import ReplicaSupervisor"),
    ("pure", RETRY, "from failsoft.workers.lanes import lane"),
    ("pure", "topics/routing.py", "from failsoft.topics.embedded.broker import Embedded"),
    ("pure", "workers/__init__.py", "import os"),
    *[("pure", PLAN, f"import {module}") for module in MODULES],
    ("pure", PLAN, "from concurrent import futures"),
    ("pure", PLAN, "from importlib.metadata import version"),
    ("pure", PLAN, "from rich.console import Console"),
    ("pure", PLAN, "import datetime\ndatetime.datetime.now()"),
    ("pure", PLAN, "from datetime import datetime as dt\ndt.now(None)"),
    ("pure", PLAN, "from datetime import datetime\nclock = datetime.utcnow"),
    ("pure", PLAN, "from datetime import date\ndate.today()"),
    ("pure", PLAN, "__import__('time').time()"),
    ("pure", PLAN, "open('file')"),
    ("pure", PLAN, "def f(path):\n    return path.read_text()"),
    ("pure", PLAN, "def f(path):\n    path.write_text('')"),
    ("pure", PLAN, "import numpy as np\nnp.random.default_rng()"),
    ("pure", PLAN, "from numpy.random import default_rng"),
    ("border", EXCLUSIVE, "import aiokafka.admin"),
    ("border", EXCLUSIVE, "import importlib\nimportlib.import_module('aiokafka.errors')"),
    ("border", EXCLUSIVE, "from importlib import import_module as m\nm(name='orjson')"),
    ("border", EXCLUSIVE, "__import__('faust')"),
    ("border", EXCLUSIVE, "import importlib\nimportlib.import_module('aio' + 'kafka')"),
    ("swallow", LANE, "try: ...\nexcept Exception: pass"),
    ("swallow", LANE, "try: ...\nexcept: pass"),
    ("swallow", LANE, "try: ...\nexcept (Exception, OSError): pass"),
    ("swallow", LANE, "try: ...\nexcept (OSError, BaseException): ..."),
    ("swallow", LANE, "for _ in (): \n    try: ...\n    except Exception: continue"),
    ("swallow", LANE, "def f():\n    try: ...\n    except Exception: return None"),
    ("swallow", LANE, "try: ...\nexcept Exception as e: self._log.warning('x', error=e)"),
    ("swallow", LANE, "import contextlib\nwith contextlib.suppress(Exception): ..."),
    ("swallow", LANE, "from contextlib import suppress as s\nwith s(OSError, Exception): ..."),
    ("sleep", TEST, "import time\ntime.sleep(1)"),
    ("sleep", TEST, "from time import sleep\nsleep(1)"),
    ("sleep", TEST, "import time as t\nt.sleep(1)"),
]

LEGAL: list[Case] = [
    ("folder", "workers/cli.py", "from failsoft.workers.demo import run"),
    ("folder", "workers/telemetry/logs.py", "from failsoft.workers.settings import Settings"),
    ("pure", PLAN, "from datetime import UTC, datetime\ndatetime.fromtimestamp(0, UTC)"),
    ("pure", PLAN, "class A:\n    def open(self): ...\n    def f(self): self.open(); self.now()"),
    ("pure", PLAN, "from rich import table"),
    ("swallow", LANE, "try: ...\nexcept (OSError, ValueError): pass"),
    ("swallow", LANE, "try: ...\nexcept Exception: raise"),
    ("sleep", TEST, "import asyncio\nasyncio.sleep(0)"),
]
