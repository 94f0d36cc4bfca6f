"""Owns a subprocess with limits, in which a model file is loaded and run: for a vetting, and for whoever writes a card.

A model is foreign code with weights. Loading it may use up the memory (157 bytes of constants unfold to 770 MB), never
end, or crash natively. The subprocess ends with its parent, inherits neither environment nor open files, and is stopped
beyond its limits of memory, processor time and wall time.
"""

from __future__ import annotations

import math
import os
import resource
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from failsoft.models.runtime.memory import out_of_memory, over_memory
from failsoft.models.runtime.parent_death import ender

# These variables may name the folder of the interpreter's own libraries; without them it would not start.
_KEPT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
# One thread is enough for numpy's linear algebra here, and the memory of each further thread counts against the limit.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_LATE = 5
"""Seconds after the wall limit at which the subprocess ends itself, in case its parent has not ended it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What such a process may use. All limits are enforced on Linux; elsewhere the memory limit is not.

    Attributes:
        memory: bytes beyond what Python and ONNX Runtime take.
        times: this many times the size of model.onnx is added to ``memory``.
        cpu: seconds of processor time, the start of the subprocess included.
        wall: seconds of wall time, the start of the subprocess included.
    """

    # A worker should need at most 300 MB in all, so a model that needs more than 512 MB is a mistake or needs a larger
    # limit.
    memory: int = 512_000_000
    # Reading, parsing, optimising and packing each hold a copy of the weights for some time.
    times: int = 6
    # A network of 500 MB loads in about 5 s; start and imports take 1 s.
    cpu: float = 30.0
    # Twice ``cpu``, because workers that answer events may share the cores.
    wall: float = 60.0

    def of(self, model: Path) -> int:
        """Bytes that the process of this file may take beyond what Python and ONNX Runtime take."""
        return self.memory + self.times * model.stat().st_size


@dataclass(frozen=True, slots=True)
class BoundedRun:
    """What is left of such a process, which has ended.

    Attributes:
        out: what it wrote to stdout.
        err: what it wrote to stderr, and what ONNX Runtime did.
        code: its exit code, negative for a signal.
        late: it was stopped at the limit of wall time.
    """

    out: bytes
    err: str
    code: int
    late: bool


def run(module: str, arguments: Sequence[str], limits: Limits) -> BoundedRun:
    """Runs ``-m module`` with ``arguments`` and three more, which are for ``confine``; blocks for at most
    ``limits.wall`` seconds. Raises OSError if the process cannot be started.
    """
    process = subprocess.Popen(
        [
            sys.executable,
            "-P",
            "-m",
            module,
            *arguments,
            str(limits.cpu),
            str(limits.wall),
            str(os.getpid()),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        cwd="/",
        start_new_session=True,  # the parent handles a terminal's Ctrl-C
    )
    late = False
    try:
        out, err = process.communicate(timeout=limits.wall)
    except subprocess.TimeoutExpired:
        late = True
        process.kill()
        out, err = process.communicate()
    finally:
        if process.poll() is None:  # an exception, such as KeyboardInterrupt, ended the wait
            process.kill()
            process.wait()
    return BoundedRun(out, err.decode(errors="replace"), process.returncode, late)


def confine(cpu: str, wall: str, parent: str) -> int:
    """In the subprocess: sets its limits of time. Returns the file to write to; what a model prints is dropped."""
    out = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    ender(int(parent))()  # works on Linux only; elsewhere the time limits end this process
    signal.alarm(math.ceil(float(wall)) + _LATE)
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_CPU, math.ceil(float(cpu)))
    return out


def bound_memory(memory: int) -> None:
    """Limits memory by RLIMIT_DATA, to what is in use now plus ``memory`` bytes.

    On Linux RLIMIT_DATA counts allocated memory, not reserved memory or files mapped as code, so the limit applies to
    what the model allocates. Other systems count differently, so there only the time limits apply.
    """
    if sys.platform.startswith("linux"):
        status = Path("/proc/self/status").read_text()
        taken = int(status.partition("VmData:")[2].split()[0]) * 1024
        _lower(resource.RLIMIT_DATA, taken + memory)


def _lower(resource_id: int, limit: int) -> None:
    """Lowers a limit of this process; never raises it above its hard limit."""
    hard = resource.getrlimit(resource_id)[1]
    resource.setrlimit(resource_id, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def environment() -> dict[str, str]:
    """Only the variables that the subprocess needs to start: Kafka's passwords are in the environment."""
    # The standard library and installed packages come first: a user's random.py must not take their place.
    installed_in = [Path(path).resolve() for path in dict.fromkeys(sysconfig.get_paths().values())]
    folders = [Path(each).resolve() for each in sys.path]
    folders.sort(key=lambda folder: not any(folder.is_relative_to(place) for place in installed_in))
    path = os.pathsep.join(map(str, folders))
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {**kept, **_ONE_THREAD, "PYTHONPATH": path, "PYTHONUTF8": "1"}


def why_ended(ended: BoundedRun, limits: Limits, memory: int) -> str:
    """Why a subprocess did not finish; ``memory`` is its limit in bytes."""
    code = ended.code
    if ended.late:
        return f"not done within {limits.wall:g} s, and was stopped: an endless loop, or a limit that is too low"
    if code == -signal.SIGXCPU:
        return f"took more than {limits.cpu:g} s of processor time, and was stopped"
    if out_of_memory(ended.err):
        return over_memory(mb(memory))
    if code == -signal.SIGKILL:
        return "was killed from outside: most likely the machine has no memory left"
    if code < 0:
        return f"crashed natively ({signal.Signals(-code).name})"
    last = (ended.err.strip().splitlines() or ["no message"])[-1]
    return f"the process ended with {code}: {last}"


def mb(size: int) -> str:
    """Bytes in words."""
    return f"{size / 1e6:.0f} MB"
