"""The rules of the house (DESIGN.md): what may import what, and what every file and test has."""

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

# Bottom up: a folder imports itself and what stands before it.
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

# Of these packages everything else is pure.
SHELLS = {
    "topics/admin.py",  # talks to the cluster
    "topics/embedded/broker.py",  # starts a broker,
    "topics/embedded/filelock.py",  # whose data only one may use,
    "topics/embedded/jars.py",  # fetches it,
    "topics/embedded/probe.py",  # asks it whether it is there,
    "topics/embedded/watcher.py",  # and ends with its parent
    "models/runtime/session.py",  # runs ONNX models,
    "models/runtime/parent_death.py",  # ends their processes with the parent,
    "models/vetting/gate.py",  # tries them in a subprocess,
    "models/vetting/cache.py",  # remembers on disk which passed,
    "models/isolation/isolated_session.py",  # runs them in processes of their own,
    "models/isolation/forkserver.py",  # which are these,
    "models/isolation/supervisor.py",  # started and started again by that,
    "models/isolation/replica.py",  # each of which is one of these,
    "models/isolation/transport.py",  # and reached by this
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
        "workers/kafka/clients.py",  # makes the clients that lanes are given
        "workers/settings.py",  # the TLS context, in aiokafka's own words
        "workers/lanes/lane.py",
        "workers/lanes/transaction.py",  # writes what a lane has decided
        "workers/lanes/assignment.py",
        "workers/fleet/sync.py",  # sends reports, whatever Faust is doing
        "workers/lanes/restore.py",
        "workers/kafka/consumer_insides.py",  # asks what it has no call for
        "workers/kafka/fetch_records.py",  # reads what aiokafka cannot
        "workers/kafka/offset_fetch.py",  # hears what aiokafka does not
        "workers/kafka/produce_batches.py",  # fills its batches
        "workers/operations/replay.py",
        "workers/operations/publish.py",
        "workers/kafka/topic_reader.py",
        "workers/fleet/rollouts.py",  # a start that goes on without it
        "workers/demo/watch.py",  # reads the demo's answers, as a user would
    },
}


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def _files(*folders: str) -> list[str]:
    return sorted(str(p.relative_to(ROOT)) for folder in folders for p in (ROOT / folder).rglob("*.py"))


def _imports(file: str) -> Iterator[str]:
    """Dotted names that ``file`` imports anywhere in it, in functions and for type checking too."""
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
    """schemas imports nothing of ours, topics and models import schemas and never each other, workers all three."""
    layer = file.split("/")[0]
    ours = {name.removeprefix("failsoft.").split(".")[0] for name in _imports(file)} & {
        *PACKAGES,
        "tests",
        "benchmarks",
    }
    assert ours <= MAY_IMPORT[layer], f"{file} imports {ours - MAY_IMPORT[layer]}"


@pytest.mark.parametrize("file", [f for f in OURS if str(Path(f).parent) in FOLDERS])
def test_folders_import_downwards_only(file: str) -> None:
    """A folder imports itself and the folders below it, in the order of FOLDERS."""
    own = FOLDERS.index(str(Path(file).parent))
    above = {name for name in _imports(file) if _place(name) > own}
    assert not above, f"{file} imports {sorted(above)}, above its own folder"


def _place(name: str) -> int:
    """Where the folder of a dotted name stands in FOLDERS; -1 for what is in none."""
    parts = name.removeprefix("failsoft.").split(".")
    found = [folder for folder in ("/".join(parts[:2]), parts[0]) if folder in FOLDERS]
    return FOLDERS.index(found[0]) if found and name.startswith("failsoft.") else -1


def test_every_folder_has_its_place() -> None:
    """A new folder is put into FOLDERS, or the rule of order would not hold it."""
    found = {str(Path(f).parent) for f in OURS if Path(f).name != "__init__.py"}
    assert found <= {*FOLDERS, "workers"}, found - {*FOLDERS, "workers"}


@pytest.mark.parametrize("file", PURE)
def test_a_pure_file_knows_no_world(file: str) -> None:
    """No clock, chance, process, log, Kafka, model runtime or metrics: they are passed in, or are the shells'."""
    assert not {name.split(".")[0] for name in _imports(file)} & IMPURE


@pytest.mark.parametrize("package", ONLY)
def test_a_foreign_package_has_its_border(package: str) -> None:
    """Each is imported in the few files that own the border to it."""
    users = {f for f in OURS if any(n == package or n.startswith(f"{package}.") for n in _imports(f))}
    assert users <= ONLY[package], f"{package} is imported by {sorted(users - ONLY[package])}"


@pytest.mark.parametrize("file", OURS + _files("tests", "benchmarks"))
def test_a_file_is_one_idea_and_says_which(file: str) -> None:
    """A first line that says what it owns, at most 400 lines, and annotations that are not evaluated."""
    tree, lines = _tree(ROOT / file), (ROOT / file).read_text("utf-8").splitlines()
    said = ast.get_docstring(tree)
    assert said and said.splitlines()[0].strip(), f"{file} does not say what it owns"
    assert len(lines) <= MOST_LINES
    imports = any(isinstance(node, (ast.Import, ast.ImportFrom)) for node in tree.body)
    assert not imports or "from __future__ import annotations" in lines, f"{file} lacks the __future__ import"


@pytest.mark.parametrize("file", [f for f in _files("tests") if Path(f).name.startswith("test_")])
def test_each_test_states_its_rule(file: str) -> None:
    """Its docstring is the rule that it holds; a test asserts something and does not sleep."""
    for node in ast.walk(_tree(ROOT / file)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_"):
            assert ast.get_docstring(node), f"{file}: {node.name} states no rule"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "sleep":
            owner = node.func.value
            sleeps = isinstance(owner, ast.Name) and owner.id == "time"
            assert not sleeps, f"{file}:{node.lineno} sleeps: wait for a fact, with a deadline"


@pytest.mark.parametrize("file", OURS)
def test_no_failure_is_swallowed(file: str) -> None:
    """Nothing catches every exception only to pass or to log it."""
    for node in ast.walk(_tree(ROOT / file)):
        if isinstance(node, ast.ExceptHandler) and _catches_all(node):
            only = all(isinstance(s, ast.Pass) or _is_log(s) for s in node.body)
            assert not only, f"{file}:{node.lineno} swallows whatever happens"


def _catches_all(node: ast.ExceptHandler) -> bool:
    return node.type is None or (isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException"))


def _is_log(statement: ast.stmt) -> bool:
    call = statement.value if isinstance(statement, ast.Expr) else None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
        return False
    return isinstance(call.func.value, ast.Name) and call.func.value.id in ("log", "logger", "logging")


@pytest.mark.parametrize("package", ONLY)
def test_a_border_has_no_file_that_needs_none(package: str) -> None:
    """A file that stopped importing it loses the right to, or the rule slowly allows everything."""
    users = {f for f in OURS if any(n == package or n.startswith(f"{package}.") for n in _imports(f))}
    assert not ONLY[package] - users


def test_the_rules_see_what_they_should() -> None:
    """The files that the rules are about are there: a rule over no file holds nothing."""
    assert {"schemas/event.py", "topics/routing.py", "models/breaker/breaker.py", "workers/scoring/score.py"} <= set(
        PURE
    )
    assert "orjson" in set(_imports("schemas/wire.py")) and "aiokafka.admin" in set(_imports("topics/admin.py"))
