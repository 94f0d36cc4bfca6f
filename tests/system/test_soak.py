"""A short soak, and a check of the soak itself: the verifier finds a lane protocol that is broken on purpose."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kafka import Broker
from tests.system.soak.report import PROMISES
from tests.system.soak.run import soak
from tests.system.soak.schedule import Fault, Kind, Options
from tests.system.soak.worker import BROKEN

SHORT = (
    Fault(0.5, Kind.RAISES, 1.0, 0),
    Fault(1.5, Kind.KILL, 0.0, 0),
    Fault(3.0, Kind.NAN, 1.0, 0),
    Fault(3.5, Kind.STOP_AT_COMMIT, 6.5, 1),
)
DELAYS = ("1s", "2s")


def test_a_short_soak_keeps_the_promise(kafka: Broker, name: str, tmp_path: Path) -> None:
    """A short soak with two workers makes each of its faults and settles every event once.

    The faults are a kill, a worker stopped before a commit, and a model that raises and gives NaN.
    """
    options = Options(events=2_400, minutes=0.2, workers=2, partitions=4, brokers=1)
    report = soak(options, SHORT, tmp_path, kafka, name, delays=DELAYS)
    assert report.kept, report.render()
    assert report.as_json()["verdict"] == dict.fromkeys(PROMISES, 0)
    assert report.events >= options.events and report.kills == 1
    assert sorted(done.kind for done in report.faults) == sorted(fault.kind for fault in SHORT)
    assert not [done for done in report.faults if "met by no" in done.note]
    assert report.fates["primary"] > 0 and report.fates["corrected"] > 0, report.render()


@pytest.mark.long
def test_offsets_read_before_fencing_are_found_out(tmp_path: Path) -> None:
    """With offsets read before fencing, a batch is answered twice, and the verifier names each of its events.

    A stopped worker commits after its successor has read the offsets, and is fenced only then. The test runs the
    command of the docs and checks its exit code.
    """
    found = tmp_path / "report.json"
    command = [sys.executable, "-m", "tests.system.soak", "--break", BROKEN, "--json", str(found)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert run.returncode == 1 and "went through" in run.stderr, run.stdout + run.stderr
    report = json.loads(found.read_text())
    assert not report["kept"] and report["verdict"]["doubled"], run.stdout
    assert any("times revision 0" in text for text in report["broken"]["doubled"]), run.stdout
    assert not [promise for promise in ("lost", "never final", "altered") if report["verdict"][promise]], run.stdout
