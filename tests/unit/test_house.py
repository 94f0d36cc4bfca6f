"""The project's structural rules: imports, file length, docstrings, and forbidden constructs."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import house_rules as rules
from tests.house_borders import ONLY
from tests.house_cases import ILLEGAL, LEGAL
from tests.house_rules import PACKAGES

ROOT = Path(__file__).resolve().parents[2]
MOST_LINES = 400

MAY_IMPORT = {
    "schemas": {"schemas"},
    "topics": {"topics", "schemas"},
    "models": {"models", "schemas"},
    "workers": set(PACKAGES),
}

# Bottom up: a folder may import itself and the entries before it. A file with an entry of its own has that rank.
FOLDERS = (
    "schemas/config",
    "schemas/features",
    "schemas/formats",
    "schemas",
    "schemas/fleet",
    "topics/connection",
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
    "workers/identity.py",
    "workers/client_timeouts.py",
    "workers/pipeline_sections.py",
    "workers/schema_sections.py",
    "workers/connection.py",
    "workers/settings.py",
    "workers/scoring",
    "workers/kafka",
    "workers/telemetry",
    "workers/execution",
    "workers/serving",
    "workers/schema_registry",
    "workers/lanes",
    "workers/fleet",
    "workers/process",
    "workers/operations",
    "workers/commands",
    "workers/demo",
    "workers/app.py",
    "workers/cli.py",
)

# The impure files of schemas, topics and models; all others in these packages are pure. After a colon: one function of
# a file that is otherwise pure.
SHELLS = {
    "topics/admin.py",  # calls the cluster
    *(f"topics/connection/{name}.py" for name in ("diagnosis", "oauth", "tls")),  # connect, get tokens, read PEM files
    "topics/embedded/broker.py",  # starts a broker
    "topics/embedded/cluster_id.py",  # reads a broker's data directory
    "topics/embedded/filelock.py",  # locks a broker's data
    "topics/embedded/jars.py",  # downloads Kafka
    "topics/embedded/probe.py",  # checks whether a broker answers
    "topics/embedded/watcher.py",  # ends the broker with its parent
    "models/catalog/card.py:load_card",  # reads card.toml
    "models/catalog/repository.py",  # reads versions and their checksums from disk
    "models/runtime/session.py",  # runs ONNX models
    "models/runtime/parent_death.py",  # ends a model's process with its parent
    "models/vetting/bounded_process.py",  # runs a model file in a subprocess with limits
    "models/vetting/gate.py",  # vets versions in such a subprocess
    "models/vetting/checks.py",  # runs sessions
    "models/vetting/observation.py",  # runs a model without a card in such a subprocess
    "models/vetting/golden.py",  # reads golden vectors from disk
    "models/vetting/sample.py",  # makes rows of golden vectors
    "models/vetting/rows.py",  # runs sessions
    "models/vetting/missing_values.py",  # runs sessions
    "models/vetting/cache.py",  # stores passed vettings on disk
    "models/isolation/isolated_session.py",  # runs models in processes of their own
    "models/isolation/pool.py",  # waits for these processes, and kills one that hangs
    "models/isolation/forkserver.py",  # forks these processes
    "models/isolation/supervisor.py",  # starts and restarts them
    "models/isolation/replica.py",  # one such process
    "models/isolation/transport.py",  # the channel to it
    "models/training/car_loans.py",  # trains the demo's models and writes them to disk
    "models/training/claims.py",  # writes the models and cards of an example to disk
    "models/training/mistaken.py",  # writes the demo's bad version to disk
}
# The pure files of workers, besides workers/scoring.
PURE_WORKERS = {
    "workers/client_timeouts.py",
    "workers/pipeline_sections.py",
    "workers/schema_sections.py",
    "workers/execution/bisect.py",
    "workers/fleet/owner.py",
    "workers/kafka/broker_clock.py",
    "workers/kafka/member.py",
    "workers/kafka/record_batch_sizes.py",
    "workers/kafka/request_errors.py",
    "workers/kafka/fetch_session.py",
    "workers/kafka/fetch_marks.py",
    "workers/execution/batch_size.py",
    "workers/execution/run_size.py",
    "workers/lanes/crash_marks.py",
    *("workers/lanes/lane_positions.py", "workers/lanes/standing.py", "workers/operations/offset_view.py"),
    "workers/lanes/inbox_bounds.py",
    "workers/lanes/offset_note.py",
    "workers/lanes/run_calls.py",
    "workers/lanes/stage.py",
    "workers/lanes/retry_schedule.py",
    *(f"workers/telemetry/{name}.py" for name in ("malformed_share", "metric_table", "unread")),
    "workers/schema_registry/answers.py",
    "workers/process/restart_policy.py",
    "workers/operations/breaker_view.py",
    *("workers/operations/card_features.py", "workers/operations/card_output.py", "workers/operations/own_choice.py"),
    "workers/operations/dead_letters.py",
    "workers/operations/csv_cells.py",
    "workers/operations/event_files.py",
    "workers/operations/rate.py",
    "workers/operations/scaffold.py",
    *(f"workers/operations/{name}_tree.py" for name in ("schema", "avro", "json_schema", "protobuf")),
    *(
        f"workers/operations/{name}.py"
        for name in ("schema_card", "schema_rows", "avro_scalars", "avro_writer", "protobuf_writer")
    ),
    "workers/operations/version_view.py",
    "workers/demo/breaker_history.py",
    "workers/demo/rules.py",
    "workers/demo/summary.py",
    "workers/demo/table.py",
    "workers/demo/tally.py",
    "workers/demo/version_history.py",
}


@functools.cache
def _tree(file: str) -> ast.Module:
    return ast.parse((ROOT / file).read_text("utf-8"), file)


def _files(*folders: str) -> list[str]:
    return sorted(str(p.relative_to(ROOT)) for folder in folders for p in (ROOT / folder).rglob("*.py"))


OURS = _files(*PACKAGES)
FILES = frozenset(OURS)
TESTS = [f for f in _files("tests") if Path(f).name.startswith("test_")]


def _pure(file: str) -> bool:
    if file.startswith("workers/"):
        return file in PURE_WORKERS or file.startswith("workers/scoring/") or file.endswith("/__init__.py")
    return file not in SHELLS


PURE = [f for f in OURS if _pure(f)]


# --- the rules: each names what is wrong with a file ------------------------------------------------------------------


def _wrong_layer(file: str, tree: ast.Module) -> set[str]:
    names = {name.removeprefix("failsoft.").split(".")[0] for name in rules.imports(tree)}
    return (names & {*PACKAGES, "tests", "benchmarks", "docs"}) - MAY_IMPORT[file.split("/")[0]]


def _wrong_folder(file: str, tree: ast.Module) -> set[str]:
    return {used for used, _ in rules.uses_of_ours(tree, FILES) if _rank(used) > _rank(file)}


def _rank(file: str) -> int:
    """The index in FOLDERS of a file or of its folder; -1 if neither is there."""
    found = [place for place in (file, str(Path(file).parent)) if place in FOLDERS]
    return FOLDERS.index(found[0]) if found else -1


def _wrong_prefix(_: str, tree: ast.Module) -> set[str]:
    return {name for name in rules.imports(tree) if name.split(".")[0] in PACKAGES}


def _shell_parts(file: str) -> set[str]:
    return {entry.partition(":")[2] for entry in SHELLS if entry.startswith(f"{file}:")}


def _impure(file: str, tree: ast.Module) -> set[str]:
    """What a file knows of the world; for a pure file also the shells of ours that it uses."""
    parts = _shell_parts(file)
    rest = rules.without(tree, parts) if parts else tree
    used = rules.uses_of_ours(rest, FILES)
    shells = {f"{other}:{name}" for other, name in used if not _pure(other) or f"{other}:{name}" in SHELLS}
    called = {node.id for node in ast.walk(rest) if isinstance(node, ast.Name)} & parts
    return rules.impurities(rest) | shells | called


def _wrong_border(file: str, tree: ast.Module) -> set[str]:
    return {p for p in ONLY if file not in ONLY[p] and any(rules.within(n, {p}) for n in rules.imports(tree))}


def _swallowed(_: str, tree: ast.Module) -> set[int]:
    return set(rules.swallows(tree))


def _sleeping(_: str, tree: ast.Module) -> set[int]:
    return set(rules.sleeps(tree))


# --- the tree obeys them ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", OURS)
def test_layers_import_downwards_only(file: str) -> None:
    """schemas imports no other package; topics and models import schemas, not each other; workers imports all three."""
    assert not _wrong_layer(file, _tree(file))


@pytest.mark.parametrize("file", OURS)
def test_folders_import_downwards_only(file: str) -> None:
    """A folder imports only itself and the folders below it, in the order of FOLDERS."""
    assert not _wrong_folder(file, _tree(file))


@pytest.mark.parametrize("file", OURS)
def test_our_packages_have_one_name(file: str) -> None:
    """A file imports ours as failsoft.*; by another name Python would load a second copy."""
    assert not _wrong_prefix(file, _tree(file))


def test_every_file_has_its_place() -> None:
    """Each file or its folder is in FOLDERS; otherwise the order would not be checked for it."""
    assert not [f for f in OURS if _rank(f) < 0 and Path(f).name != "__init__.py"]
    assert not [place for place in FOLDERS if not (ROOT / place).exists()]


@pytest.mark.parametrize("file", PURE)
def test_a_pure_file_knows_no_world(file: str) -> None:
    """A pure file imports no clock, randomness, disk, process, log, Kafka, model runtime or metrics, and no shell."""
    assert not _impure(file, _tree(file))


def test_a_file_that_is_pure_is_listed_as_pure() -> None:
    """Nothing keeps an unlisted file pure. A shell is impure itself, or uses one that is."""
    assert not _listed_needlessly(SHELLS)
    needless = {"models/rollout/health.py", "models/catalog/card.py:mismatches"}
    assert _listed_needlessly(SHELLS | needless) == needless
    assert {entry.partition(":")[0] for entry in SHELLS} | PURE_WORKERS <= FILES, "an entry without a file"


def _listed_needlessly(shells: set[str]) -> set[str]:
    """Those of ``shells`` and of the impure files of workers that are in fact pure."""
    files = {f for f in OURS if f in shells or not _pure(f)}
    impure = {f for f in files if rules.impurities(_tree(f))}
    used = {f: rules.uses_of_ours(_tree(f), FILES) for f in files}
    while more := {f for f in files if any(u in impure or f"{u}:{n}" in shells for u, n in used[f])} - impure:
        impure |= more
    for entry in (entry for entry in shells if ":" in entry):
        file, _, function = entry.partition(":")
        others = {other.partition(":")[2] for other in shells if other.startswith(f"{file}:")} - {function}
        impure |= {entry} if rules.impurities(rules.without(_tree(file), others)) else set()
    return {*files, *shells} - impure


@pytest.mark.parametrize("file", OURS)
def test_a_file_that_says_it_is_pure_is_held_to_it(file: str) -> None:
    """A docstring that says "pure" is checked."""
    said = (ast.get_docstring(_tree(file)) or "").partition("\n\n")[0]
    assert not re.search(r"\bpure\b", said, re.IGNORECASE) or file in PURE


@pytest.mark.parametrize("file", OURS)
def test_a_foreign_package_has_its_border(file: str) -> None:
    """A foreign package is imported only by the files that own the border to it."""
    assert not _wrong_border(file, _tree(file))


@pytest.mark.parametrize("package", ONLY)
def test_a_border_has_no_file_that_needs_none(package: str) -> None:
    """A file that no longer imports a foreign package loses its entry in ONLY."""
    users = {f for f in OURS if any(rules.within(name, {package}) for name in rules.imports(_tree(f)))}
    assert not ONLY[package] - users


@pytest.mark.parametrize("file", OURS + _files("tests", "benchmarks"))
def test_a_file_is_one_idea_and_says_which(file: str) -> None:
    """Each file's docstring says what it owns; it has at most 400 lines and postponed annotations."""
    tree, lines = _tree(file), (ROOT / file).read_text("utf-8").splitlines()
    docstring = ast.get_docstring(tree)
    assert docstring and docstring.splitlines()[0].strip(), f"{file} does not say what it owns"
    assert len(lines) <= MOST_LINES
    imports = any(isinstance(node, (ast.Import, ast.ImportFrom)) for node in tree.body)
    assert not imports or "from __future__ import annotations" in lines, f"{file} lacks the __future__ import"


@pytest.mark.parametrize("file", TESTS)
def test_each_test_states_its_rule(file: str) -> None:
    """Each test has a docstring with its rule, and no test sleeps: it waits for a fact, with a deadline."""
    for node in ast.walk(_tree(file)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_"):
            assert ast.get_docstring(node), f"{file}: {node.name} states no rule"
    assert not _sleeping(file, _tree(file))


@pytest.mark.parametrize("file", OURS)
def test_no_failure_is_swallowed(file: str) -> None:
    """No handler catches every exception only to drop or to log it, and nothing suppresses every exception."""
    assert not _swallowed(file, _tree(file))


def test_a_class_name_stands_for_one_class() -> None:
    """A reader who knows what a name means knows it in every folder. Private classes count too."""
    places: dict[str, list[str]] = {}
    for file in OURS:
        for node in ast.walk(_tree(file)):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(f"{file}:{node.lineno}")
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
    assert len(places) > 200, "the search finds the classes"


# --- the rules see what they should -----------------------------------------------------------------------------------

RULES: dict[str, Callable[[str, ast.Module], set[Any]]] = {
    "layer": _wrong_layer,
    "folder": _wrong_folder,
    "prefix": _wrong_prefix,
    "pure": _impure,
    "border": _wrong_border,
    "swallow": _swallowed,
    "sleep": _sleeping,
}


@pytest.mark.parametrize(("rule", "file", "added"), ILLEGAL)
def test_an_illegal_edit_fails(rule: str, file: str, added: str) -> None:
    """A line that breaks a rule is found when it is added to a file."""
    assert rule != "pure" or file in PURE
    source = (ROOT / file).read_text("utf-8")
    before = RULES[rule](file, ast.parse(source))
    assert RULES[rule](file, ast.parse(f"{source}\n{added}\n")) - before


@pytest.mark.parametrize(("rule", "file", "added"), LEGAL)
def test_a_legal_edit_passes(rule: str, file: str, added: str) -> None:
    """A line that only looks as if it broke a rule passes."""
    assert not RULES[rule](file, ast.parse((ROOT / file).read_text("utf-8") + f"\n{added}\n"))


def test_each_rule_has_illegal_edits() -> None:
    """A rule without one could check nothing."""
    assert {rule for rule, _, _ in ILLEGAL} == set(RULES)


def test_the_rules_cover_the_files_that_they_are_about() -> None:
    """A rule over no file checks nothing."""
    core = {
        "schemas/event.py",
        "schemas/decoding.py",
        "topics/routing.py",
        "models/breaker/breaker.py",
        "workers/scoring/score.py",
    }
    assert core <= set(PURE) and len(TESTS) > 100
