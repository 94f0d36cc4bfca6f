"""A worker without a version that can serve: what its log and /readyz say."""

from __future__ import annotations

from typing import Any

import structlog

from failsoft.workers.serving.unserved import REMIND_EVERY, NoVersion, Unserved

NONE = NoVersion("m", ("m@2 did not pass its vetting: load", "m@1: it has no model.onnx"))


class Watch:
    """Models of a pipeline, and a clock that the test moves."""

    def __init__(self, *vital: str, quorum: int = 1) -> None:
        self.now = 100.0
        self.unserved = Unserved(vital, quorum, lambda: self.now)

    def lines(self, seconds: float, model: str = "m") -> list[Any]:
        """What is logged during ``seconds``, with a look twice a second."""
        with structlog.testing.capture_logs() as logs:
            for _ in range(int(seconds * 2)):
                self.unserved.remind(model)
                self.now += 0.5
        return list(logs)


def test_a_model_without_a_version_is_logged_at_once_and_every_minute() -> None:
    """Each line names the model, the versions and the reasons; new reasons replace the old, and do not log sooner."""
    watch = Watch("m")
    watch.unserved.lacks(NONE)
    (first,) = watch.lines(REMIND_EVERY)
    assert (first["log_level"], first["model"], first["why"]) == ("warning", "m", list(NONE.reasons))
    assert first["effect"] == "fallbacks answer every event"
    watch.unserved.lacks(NoVersion("m", ("m@3: broken",)))
    assert [line["why"] for line in watch.lines(3 * REMIND_EVERY)] == [["m@3: broken"]] * 3


def test_a_model_that_serves_again_is_not_logged() -> None:
    """Nor is a model that always served."""
    watch = Watch("m")
    assert watch.lines(REMIND_EVERY) == [] and watch.unserved.not_ready() is None
    watch.unserved.lacks(NONE)
    watch.unserved.serves("m")
    assert watch.lines(2 * REMIND_EVERY) == [] and watch.unserved.not_ready() is None


def test_readiness_gives_the_reasons() -> None:
    """Whoever asks /readyz need not search the log."""
    watch = Watch("m")
    watch.unserved.lacks(NONE)
    expected = "no version of m can serve: m@2 did not pass its vetting: load; m@1: it has no model.onnx"
    assert watch.unserved.not_ready() == expected


def test_a_fallback_model_keeps_no_worker_from_being_ready() -> None:
    """It is logged all the same. The primary answers without it."""
    watch = Watch("m")
    watch.unserved.lacks(NoVersion("lite", ("lite@1: broken",)))
    assert watch.unserved.not_ready() is None
    assert [line["effect"] for line in watch.lines(1, "lite")] == ["other models answer without it"]


def test_an_ensemble_is_ready_with_a_quorum_of_members() -> None:
    """With fewer, fallbacks answer every event."""
    watch = Watch("a", "b", "c", quorum=2)
    watch.unserved.lacks(NoVersion("a", ("a@1: broken",)))
    assert watch.unserved.not_ready() is None
    watch.unserved.lacks(NoVersion("c", ("c@1: gone",)))
    assert (watch.unserved.not_ready() or "").count("can serve") == 2
