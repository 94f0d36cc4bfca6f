"""The supervisor's pure decisions: how long it sleeps, and how it describes a death from exit code and stderr."""

from __future__ import annotations

import signal

import pytest

from failsoft.models.isolation.replica import TICK, Death
from failsoft.models.isolation.supervisor import death_of, idle_for


def test_with_all_processes_up_it_sleeps_until_a_message_comes() -> None:
    """Without a missing process and without a load it sleeps without a limit."""
    assert idle_for(now=100.0, due=50.0, load_until=None, missing=False) is None
    assert idle_for(now=100.0, due=150.0, load_until=None, missing=False) is None


def test_a_missing_process_is_started_when_it_is_due() -> None:
    """It sleeps for the rest of the back-off."""
    assert idle_for(now=100.0, due=107.5, load_until=None, missing=True) == 7.5


@pytest.mark.parametrize("due", [100.0, 40.0])
def test_an_overdue_process_is_started_at_once(due: float) -> None:
    """The sleep is never negative: poll takes a negative time as no limit."""
    assert idle_for(now=100.0, due=due, load_until=None, missing=True) == 0.0


@pytest.mark.parametrize("missing", [True, False])
def test_a_load_under_way_is_checked_just_after_its_limit(missing: bool) -> None:
    """During a load the back-off does not count: no fork is possible before the model is loaded."""
    assert idle_for(now=100.0, due=0.0, load_until=120.0, missing=missing) == 20.0 + TICK
    assert idle_for(now=130.0, due=200.0, load_until=120.0, missing=missing) == TICK


def test_a_signal_is_named() -> None:
    """The message names the signal or exit code, and the last line of stderr, cut to 200 characters."""
    assert death_of(-signal.SIGFPE, "", None) == Death("crashed", "its process died (signal SIGFPE)")
    assert death_of(70, "Traceback\nKeyError: 'x'", None) == Death(
        "crashed", "its process died (exit code 70: KeyError: 'x')"
    )
    assert death_of(1, "e" * 999, None).message == f"its process died (exit code 1: {'e' * 200})"


def test_sigkill_is_attributed_to_the_kernel() -> None:
    """Apart from the kernel only the forkserver kills a replica, and then the reason is known."""
    death = death_of(-signal.SIGKILL, "", None)
    assert death == Death("crashed", "its process died (signal SIGKILL, as the kernel sends when memory runs out)")


def test_running_out_of_memory_names_the_limit_if_there_is_one() -> None:
    """Without a limit the same text on stderr is reported as a crash."""
    stderr = "MemoryError"
    limited = Death("memory", "its process was over its memory limit of 192MB (exit code 70)")
    assert death_of(70, stderr, 192_000_000) == limited
    assert death_of(70, stderr, None) == Death("crashed", "its process died (exit code 70: MemoryError)")
