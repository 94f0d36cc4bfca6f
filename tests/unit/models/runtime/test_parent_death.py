"""A process ends with its parent, however the parent ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

PARENT = """
import os, signal, time
from failsoft.models.runtime.parent_death import ender
end_with_parent = ender(os.getpid(), signal.SIGTERM)
if os.fork() == 0:
    signal.signal(signal.SIGTERM, lambda *_: (print("asked to end", flush=True), os._exit(0)))
    end_with_parent()
    print("bound", flush=True)
    time.sleep(60)
    os._exit(0)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux sends the signal")
def test_the_child_gets_the_signal_when_its_parent_is_killed() -> None:
    """kill -9 of the parent sends the child the signal that it asked for."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None and parent.stdout.readline() == "bound\n"
    parent.send_signal(signal.SIGKILL)
    parent.wait(60)
    assert parent.stdout.read() == "asked to end\n"
    parent.stdout.close()


def test_a_child_whose_parent_is_gone_already_ends() -> None:
    """If the parent ended before the child asked for the signal, the child exits at once."""
    code = f"from failsoft.models.runtime.parent_death import ender; ender({os.getpid()} + 1)(); print('lives')"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
