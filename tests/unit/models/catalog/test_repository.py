"""The model repository: which versions are complete, and what is refused before it can be served."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, external_data_helper, helper, numpy_helper

from failsoft.models.catalog.repository import Repository, UnknownModel
from failsoft.models.catalog.statistics import Statistic
from failsoft.schemas.config.refusal import Refused

CARD = '[output]\nkind = "binary"\n[[features]]\nname = "x"\ntype = "float"\n'


def version(root: Path, model: str, number: int, content: bytes = b"model", about: str | None = None) -> Path:
    folder = root / model / str(number)
    folder.mkdir(parents=True)
    (folder.parent / "card.toml").write_text(CARD)
    (folder / "model.onnx").write_bytes(content)
    if about is not None:
        (folder / "version.toml").write_text(about)
    return folder


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_models_and_versions(tmp_path: Path) -> None:
    """Models are the folders with a card; versions are the numbered folders with a model.onnx, newest first."""
    for number in (1, 2, 10):
        version(tmp_path, "risk", number)
    for other in ("03", "0", "latest", "11"):
        (tmp_path / "risk" / other).mkdir()
    (tmp_path / "risk" / "03" / "model.onnx").write_bytes(b"model")
    (tmp_path / "no-card").mkdir()
    repository = Repository(tmp_path)
    assert repository.models() == ["risk"]
    assert repository.versions("risk") == [10, 2, 1]
    assert repository.card("risk").name == "risk"


def test_a_half_copied_version_is_never_served(tmp_path: Path) -> None:
    """A version whose file does not match its checksum is left out until it is complete."""
    version(tmp_path, "risk", 1)
    whole = b"the whole of the model"
    folder = version(tmp_path, "risk", 2, whole[:9], f'sha256 = "{digest(whole)}"')
    repository = Repository(tmp_path)
    assert repository.versions("risk") == [1]
    with pytest.raises(UnknownModel, match=r"risk@2: model\.onnx does not match version\.toml's sha256.*versions: 1"):
        repository.artifact("risk", 2)
    (folder / "model.onnx").write_bytes(whole)
    assert repository.versions("risk") == [2, 1]
    assert repository.artifact("risk", 2).sha256 == digest(whole)


def test_a_half_written_version_toml(tmp_path: Path) -> None:
    """An incomplete version.toml hides only its version; one with an unknown key is refused."""
    version(tmp_path, "risk", 1)
    folder = version(tmp_path, "risk", 2, about='sha256 = "12')
    assert Repository(tmp_path).versions("risk") == [1]
    (folder / "version.toml").write_text('sha265 = "12"')
    with pytest.raises(Refused, match="did you mean 'sha256'"):
        Repository(tmp_path).versions("risk")


def test_an_artifact(tmp_path: Path) -> None:
    """An artifact has the contents of version.toml; without that file its checksum is computed."""
    about = f'sha256 = "{digest(b"2")}"\ntrained_at = 2026-01-02T03:04:05Z\n'
    about += "[metrics]\nauc = 0.9\n[statistics.x]\nmean = 1.5\n"
    version(tmp_path, "risk", 1)
    folder = version(tmp_path, "risk", 2, b"2", about)
    artifact = Repository(tmp_path).artifact("risk", 2)
    assert (artifact.key, artifact.path, artifact.metrics) == ("risk@2", folder / "model.onnx", {"auc": 0.9})
    assert artifact.trained_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert artifact.statistics["x"] == Statistic(mean=1.5)
    bare = Repository(tmp_path).artifact("risk", 1)
    assert (bare.sha256, bare.trained_at, bare.metrics) == (digest(b"model"), None, {})


def test_unknown_models_and_versions(tmp_path: Path) -> None:
    """The error has the nearest spelling and lists what exists; a path is not accepted as a name."""
    version(tmp_path, "repayment", 1)
    repository = Repository(tmp_path)
    with pytest.raises(UnknownModel, match=r"no model 'repaymnt'.*did you mean 'repayment'.*available: repayment"):
        repository.card("repaymnt")
    with pytest.raises(UnknownModel, match="no model"):
        repository.versions("../" + tmp_path.name + "/repayment")
    with pytest.raises(UnknownModel, match=r"repayment@7: it has no model\.onnx; complete versions: 1"):
        repository.artifact("repayment", 7)
    with pytest.raises(Refused, match="is not a folder"):
        Repository(tmp_path / "nowhere").models()


def test_a_missing_statistic_is_refused(tmp_path: Path) -> None:
    """The refusal names both places where the statistic may stand, until one of them has it."""
    folder = version(tmp_path, "risk", 1)
    card = tmp_path / "risk" / "card.toml"
    card.write_text(CARD + 'impute = "median"\n')
    with pytest.raises(
        Refused, match=r"card\.toml.*'x' is imputed by its median.*\[statistics\.x\] median in .*version\.toml"
    ):
        Repository(tmp_path).artifact("risk", 1)
    (folder / "version.toml").write_text("[statistics.x]\nmedian = 3.0")
    assert Repository(tmp_path).artifact("risk", 1).statistics["x"].median == 3.0
    card.write_text(CARD + 'impute = "median"\nmedian = 4.0\n')
    assert Repository(tmp_path).artifact("risk", 1).statistics["x"].median == 4.0


def test_a_statistic_of_the_wrong_type(tmp_path: Path) -> None:
    """A statistic that the feature does not accept is refused."""
    version(tmp_path, "risk", 1, about='[statistics.x]\nmode = "red"')
    (tmp_path / "risk" / "card.toml").write_text(CARD + 'impute = "mode"\n')
    with pytest.raises(Refused, match="its mode is 'red', which is not a float"):
        Repository(tmp_path).artifact("risk", 1)


def test_a_card_with_another_name_is_refused(tmp_path: Path) -> None:
    """A card's name must be that of its folder, which everything else uses."""
    version(tmp_path, "risk", 1)
    (tmp_path / "risk" / "card.toml").write_text('[model]\nname = "other"\n' + CARD)
    with pytest.raises(Refused, match=r"model\.name: 'other'"):
        Repository(tmp_path).card("risk")


@pytest.mark.parametrize(
    ("kept", "location", "message"),
    [
        (None, "", ""),
        ("w.bin", "w.bin", "save_as_external_data=False"),
        ("other.bin", "w.bin", "'w.bin' is not in .*/risk/1"),
        ("w.bin", "../w.bin", "'../w.bin' is outside the model's own folder: export again"),
        ("w.bin", "w" * 5000, "'w{80}' is not in"),
        ("w.bin", "w\0", r"'w\\x00' is not in"),
    ],
)
def test_a_version_is_a_single_file(tmp_path: Path, kept: str | None, location: str, message: str) -> None:
    """Weights in other files are refused with advice; metadata of similar bytes are accepted."""
    weights = numpy_helper.from_array(np.zeros((1, 64), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 64])],
        [weights],
    )
    model = helper.make_model(graph)
    helper.set_model_props(model, {"location": "Lisbon"})
    folder = version(tmp_path, "risk", 1)
    if kept is not None:
        (folder / kept).write_bytes(weights.raw_data)
        external_data_helper.set_external_data(model.graph.initializer[0], location)
        model.graph.initializer[0].ClearField("raw_data")
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    if kept is not None:
        with pytest.raises(Refused, match=message):
            Repository(tmp_path).artifact("risk", 1)
    else:
        assert Repository(tmp_path).artifact("risk", 1).version == 1


@pytest.mark.parametrize("name", ["m@2", "a b", "ä", "-m", "m" * 201])
def test_a_name_that_a_command_would_misread_is_refused(tmp_path: Path, name: str) -> None:
    """``m@2`` as a model's name is also version 2 of the model ``m``: an order would move the wrong one."""
    (tmp_path / name).mkdir()
    (tmp_path / name / "card.toml").write_text(CARD)
    with pytest.raises(Refused, match=r"model.name: .* cannot be a model's name"):
        Repository(tmp_path).card(name)
