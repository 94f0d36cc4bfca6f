"""The project's structural rules: imports, file length, docstrings, and forbidden constructs."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("schemas", "topics", "models", "workers")
MOST_LINES = 400

MAY_IMPORT = {
    "schemas": {"schemas"},
    "topics": {"topics", "schemas"},
    "models": {"models", "schemas"},
    "workers": set(PACKAGES),
}

# Bottom up: a folder may import itself and the folders before it.
FOLDERS = (
    "schemas/config",
    "schemas",
    "schemas/fleet",
    "topics",
    "topics/embedded",
    "models/catalog",
    "models/answers",
    "models/breaker",
    "models/runtime",
    "models/isolation",
    "models/vetting",
    "models/rollout",
    "models/training",
    "workers/scoring",
    "workers/kafka",
    "workers/telemetry",
    "workers/execution",
    "workers/serving",
    "workers/lanes",
    "workers/fleet",
    "workers/process",
    "workers/operations",
    "workers/commands",
    "workers/demo",
)

# The impure files of schemas, topics and models; all others in these packages are pure.
SHELLS = {
    "topics/admin.py",  # calls the cluster
    "topics/embedded/broker.py",  # starts a broker
    "topics/embedded/filelock.py",  # locks a broker's data
    "topics/embedded/jars.py",  # downloads Kafka
    "topics/embedded/probe.py",  # checks whether a broker answers
    "topics/embedded/watcher.py",  # ends the broker with its parent
    "models/runtime/session.py",  # runs ONNX models
    "models/runtime/parent_death.py",  # ends a model's process with its parent
    "models/vetting/gate.py",  # vets versions in a subprocess
    "models/vetting/cache.py",  # stores passed vettings on disk
    "models/isolation/isolated_session.py",  # runs models in processes of their own
    "models/isolation/forkserver.py",  # forks these processes
    "models/isolation/supervisor.py",  # starts and restarts them
    "models/isolation/replica.py",  # one such process
    "models/isolation/transport.py",  # the channel to it
}
PURE_WORKERS = {
    "workers/lanes/batch_size.py",
    "workers/lanes/crash_marks.py",
    "workers/lanes/retry_schedule.py",
}

IMPURE = {"asyncio", "time", "random", "os", "logging", "aiokafka", "faust", "onnxruntime", "prometheus_client"}
IMPURE |= {"threading", "subprocess", "socket", "secrets", "uuid", "structlog"}

ONLY = {
    "faust": {"workers/process/composition.py", "workers/fleet/faust_app.py"},
    "mode": {
        "workers/process/composition.py",
        "workers/fleet/sync.py",
        "workers/lanes/assignment.py",
        "workers/serving/version_switch.py",
    },
    "onnxruntime": {"models/runtime/session.py", "models/vetting/gate.py"},
    "orjson": {"schemas/wire.py"},
    "aiokafka.admin": {"topics/admin.py"},
    "aiokafka": {
        "topics/admin.py",
        "workers/kafka/clients.py",  # creates the clients of the lanes
        "workers/settings.py",  # builds aiokafka's TLS context
        "workers/lanes/lane.py",
        "workers/lanes/transaction.py",  # writes a lane's transaction
        "workers/lanes/assignment.py",
        "workers/fleet/sync.py",  # sends reports independently of Faust
        "workers/lanes/restore.py",
        "workers/kafka/consumer_insides.py",  # reads what aiokafka has no method for
        "workers/kafka/fetch_records.py",  # decodes what aiokafka cannot
        "workers/kafka/offset_fetch.py",  # handles errors that aiokafka ignores
        "workers/kafka/produce_batches.py",  # fills aiokafka's batches
        "workers/operations/replay.py",
        "workers/operations/publish.py",
        "workers/kafka/topic_reader.py",
        "workers/fleet/rollouts.py",  # catches its errors so that a start goes on
        "workers/demo/watch.py",  # reads the demo's answers as a user would
    },
}


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def _files(*folders: str) -> list[str]:
    return sorted(str(p.relative_to(ROOT)) for folder in folders for p in (ROOT / folder).rglob("*.py"))


def _imports(file: str) -> Iterator[str]:
    """The dotted names that ``file`` imports anywhere, including in functions and for type checking."""
    for node in ast.walk(_tree(ROOT / file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


OURS = _files(*PACKAGES)
PURE = [
    f
    for f in OURS
    if f in PURE_WORKERS or f.startswith("workers/scoring/") or (not f.startswith("workers/") and f not in SHELLS)
]


@pytest.mark.parametrize("file", OURS)
def test_layers_import_downwards_only(file: str) -> None:
    """schemas imports no other package; topics and models import schemas, not each other; workers imports all three."""
    layer = file.split("/")[0]
    ours = {name.removeprefix("failsoft.").split(".")[0] for name in _imports(file)} & {
        *PACKAGES,
        "tests",
        "benchmarks",
    }
    assert ours <= MAY_IMPORT[layer], f"{file} imports {ours - MAY_IMPORT[layer]}"


@pytest.mark.parametrize("file", [f for f in OURS if str(Path(f).parent) in FOLDERS])
def test_folders_import_downwards_only(file: str) -> None:
    """A folder imports only itself and the folders below it, in the order of FOLDERS."""
    own = FOLDERS.index(str(Path(file).parent))
    above = {name for name in _imports(file) if _place(name) > own}
    assert not above, f"{file} imports {sorted(above)}, above its own folder"


def _place(name: str) -> int:
    """The index in FOLDERS of a dotted name's folder; -1 if it is in none."""
    parts = name.removeprefix("failsoft.").split(".")
    found = [folder for folder in ("/".join(parts[:2]), parts[0]) if folder in FOLDERS]
    return FOLDERS.index(found[0]) if found and name.startswith("failsoft.") else -1


def test_every_folder_has_its_place() -> None:
    """Each folder is in FOLDERS; otherwise the order would not be checked for it."""
    found = {str(Path(f).parent) for f in OURS if Path(f).name != "__init__.py"}
    assert found <= {*FOLDERS, "workers"}, found - {*FOLDERS, "workers"}


@pytest.mark.parametrize("file", PURE)
def test_a_pure_file_knows_no_world(file: str) -> None:
    """A pure file imports no clock, randomness, process, log, Kafka, model runtime or metrics."""
    assert not {name.split(".")[0] for name in _imports(file)} & IMPURE


@pytest.mark.parametrize("package", ONLY)
def test_a_foreign_package_has_its_border(package: str) -> None:
    """A foreign package is imported only by the files that own the border to it."""
    users = {f for f in OURS if any(n == package or n.startswith(f"{package}.") for n in _imports(f))}
    assert users <= ONLY[package], f"{package} is imported by {sorted(users - ONLY[package])}"


@pytest.mark.parametrize("file", OURS + _files("tests", "benchmarks"))
def test_a_file_is_one_idea_and_says_which(file: str) -> None:
    """Each file's docstring says what it owns; it has at most 400 lines and postponed annotations."""
    tree, lines = _tree(ROOT / file), (ROOT / file).read_text("utf-8").splitlines()
    docstring = ast.get_docstring(tree)
    assert docstring and docstring.splitlines()[0].strip(), f"{file} does not say what it owns"
    assert len(lines) <= MOST_LINES
    imports = any(isinstance(node, (ast.Import, ast.ImportFrom)) for node in tree.body)
    assert not imports or "from __future__ import annotations" in lines, f"{file} lacks the __future__ import"


@pytest.mark.parametrize("file", [f for f in _files("tests") if Path(f).name.startswith("test_")])
def test_each_test_states_its_rule(file: str) -> None:
    """Each test has a docstring with its rule, and no test sleeps."""
    for node in ast.walk(_tree(ROOT / file)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_"):
            assert ast.get_docstring(node), f"{file}: {node.name} states no rule"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "sleep":
            owner = node.func.value
            sleeps = isinstance(owner, ast.Name) and owner.id == "time"
            assert not sleeps, f"{file}:{node.lineno} sleeps: wait for a fact, with a deadline"


@pytest.mark.parametrize("file", OURS)
def test_no_failure_is_swallowed(file: str) -> None:
    """No handler catches every exception only to pass or to log it."""
    for node in ast.walk(_tree(ROOT / file)):
        if isinstance(node, ast.ExceptHandler) and _catches_all(node):
            only = all(isinstance(s, ast.Pass) or _is_log(s) for s in node.body)
            assert not only, f"{file}:{node.lineno} swallows every exception"


def _catches_all(node: ast.ExceptHandler) -> bool:
    return node.type is None or (isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException"))


def _is_log(statement: ast.stmt) -> bool:
    call = statement.value if isinstance(statement, ast.Expr) else None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
        return False
    return isinstance(call.func.value, ast.Name) and call.func.value.id in ("log", "logger", "logging")


@pytest.mark.parametrize("package", ONLY)
def test_a_border_has_no_file_that_needs_none(package: str) -> None:
    """A file that no longer imports a foreign package loses its entry in ONLY."""
    users = {f for f in OURS if any(n == package or n.startswith(f"{package}.") for n in _imports(f))}
    assert not ONLY[package] - users


def test_a_class_name_stands_for_one_class() -> None:
    """A reader who knows what a name means knows it in every folder. Private classes count too."""
    places: dict[str, list[str]] = {}
    for file in OURS:
        for node in ast.walk(_tree(ROOT / file)):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(f"{file}:{node.lineno}")
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
    assert len(places) > 200, "the search finds the classes"


def test_the_rules_see_what_they_should() -> None:
    """The rules cover the files that they are about: a rule over no file checks nothing."""
    assert {"schemas/event.py", "topics/routing.py", "models/breaker/breaker.py", "workers/scoring/score.py"} <= set(
        PURE
    )
    assert "orjson" in set(_imports("schemas/wire.py")) and "aiokafka.admin" in set(_imports("topics/admin.py"))
