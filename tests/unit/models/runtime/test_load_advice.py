"""What a model that does not load is refused with: the cause and the mend, not the place in ONNX Runtime's source."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import external_data_helper, helper

from failsoft.models.runtime.load_advice import LONGEST_MESSAGE, first_line
from failsoft.models.runtime.session import Unloadable
from tests.onnx_models import Port, a_card, load, node, onnx_model, same

CARD = a_card({"kind": "regression"}, x="float")
PORTS: tuple[list[Port], list[Port]] = [("x", "float", ["n", 1])], [("y", "float", ["n", 1])]


def of_ir(version: int) -> onnx.ModelProto:
    model = same(1)
    model.ir_version = version
    return model


def of_opset(version: int) -> onnx.ModelProto:
    model = same(1)
    model.opset_import[0].version = version
    return model


def of_locale(name: str) -> onnx.ModelProto:
    lower = node("StringNormalizer", ["x"], ["y"], case_change_action="LOWER", locale=name)
    return onnx_model([("x", "string", ["n"])], [("y", "string", ["n"])], lower)


def of_domain(domain: str, op: str) -> onnx.ModelProto:
    model = onnx_model(*PORTS, node(op, ["x"], ["y"], domain=domain))
    model.opset_import.append(helper.make_opsetid(domain, 1))
    return model


def elsewhere(location: str) -> onnx.ModelProto:
    model = onnx_model(*PORTS, node("Mul", ["x", "w"], ["y"]), constants={"w": [1.0]})
    external_data_helper.set_external_data(model.graph.initializer[0], location)
    model.graph.initializer[0].ClearField("raw_data")
    return model


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (of_ir(99), ["IR version 99", "knows up to 1", "set ir_version = 1"]),
        (of_opset(99), ["opset 99 of ai.onnx", "lower target_opset"]),
        (of_locale("xx_YY.UTF-8"), ["the locale xx_YY.UTF-8", 'locale "C"', "localedef -i xx_YY -f UTF-8 xx_YY.UTF-8"]),
        (of_domain("com.bank", "Score"), ["does not have its operator com.bank:Score"]),
        (of_domain("ai.onnx.contrib", "Tokenize"), ["onnxruntime-extensions"]),
        (elsewhere("w.bin"), ["stores weights in other files ('w.bin')", "save_as_external_data=False"]),
        (elsewhere("../w.bin"), ["'../w.bin' is outside the model's own folder"]),
    ],
)
def test_a_load_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: onnx.ModelProto, said: list[str]
) -> None:
    """The message is complete, and does not depend on the folder that the worker runs in."""
    messages = []
    for folder in (tmp_path, tmp_path.parent):
        monkeypatch.chdir(folder)
        with pytest.raises(Unloadable) as refused:
            load(tmp_path, model, CARD)
        messages.append(str(refused.value))
    assert messages[0] == messages[1] and "onnxruntime_src" not in messages[0]
    assert [words for words in said if words not in messages[0]] == []


def test_a_message_begins_with_what_happened() -> None:
    """ONNX Runtime's own code and the place in its source take most of the characters that are kept."""
    place = "/onnxruntime_src/onnxruntime/core/graph/model.cc:256 onnxruntime::Model::Model(onnx::ModelProto&&, int) "
    assert first_line(RuntimeError(f"[ONNXRuntimeError] : 1 : FAIL : {place}It is wrong.\nmore")) == "It is wrong."
    assert first_line(RuntimeError("")) == "no message"
    assert len(first_line(RuntimeError("x" * 1000))) == LONGEST_MESSAGE
