"""A short soak, and a check of the soak itself: the verifier finds workers that are broken on purpose."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.kafka import Broker
from tests.system.soak.report import PROMISES
from tests.system.soak.run import soak
from tests.system.soak.schedule import Fault, Kind, Options
from tests.system.stops import ANONYMOUS, BEFORE_COMMIT, BROKEN, UNSTABLE

SHORT = (
    Fault(0.5, Kind.RAISES, 1.0, 0),
    Fault(1.5, Kind.KILL, 0.0, 0),
    Fault(3.0, Kind.NAN, 1.0, 0),
    Fault(3.5, Kind.STOP_IN_COMMIT, 6.5, 1, BEFORE_COMMIT),
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
@pytest.mark.parametrize("flaw", BROKEN)
def test_workers_that_are_broken_on_purpose_are_found_out(tmp_path: Path, flaw: str) -> None:
    """A worker that lacks a guard of the protocol answers events twice, and the verifier names each of them.

    A worker is stopped in a commit, and its successor reads the offsets meanwhile. Without ``require_stable`` these are
    the offsets before the commit that is under way. Without the generation the stopped worker's own offsets are taken
    after the takeover. The test runs the command of the docs and checks its exit code.
    """
    code, output, report = _run(tmp_path, "--break", flaw)
    assert code == 1 and "which went through" in output, output
    assert not report["kept"] and report["verdict"]["doubled"], output
    assert any("times revision 0" in text for text in report["broken"]["doubled"]), output
    assert not [promise for promise in ("lost", "never final", "altered") if report["verdict"][promise]], output


@pytest.mark.long
@pytest.mark.parametrize("flaw", BROKEN)
def test_sound_workers_pass_what_finds_broken_ones_out(tmp_path: Path, flaw: str) -> None:
    """With the same stop, sound workers keep the promise: what the verifier found was the flaw, not the stop."""
    code, output, report = _run(tmp_path, "--not-break", flaw)
    assert code == 0 and report["kept"], output
    # The offsets that were in the transaction count, and those that came after the takeover do not.
    went = {UNSTABLE: "which went through", ANONYMOUS: "which did not go through"}[flaw]
    assert report["faults"][Kind.STOP_IN_COMMIT]["times"] == 1 and went in output, output


def _run(folder: Path, *options: str) -> tuple[int, str, Any]:
    """Run the soak's command. Returns its exit code, its output and its report."""
    found = folder / "report.json"
    command = [sys.executable, "-m", "tests.system.soak", *options, "--json", str(found)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    output = run.stdout + run.stderr
    assert found.exists(), output
    return run.returncode, output, json.loads(found.read_text())
