"""The cards of ensembles: their keys, how they fit the members' cards, and how mistakes are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from failsoft.models.catalog.card import ModelCard, load_card
from failsoft.models.catalog.repository import Repository
from failsoft.models.catalog.sections import Combine
from failsoft.schemas.config.refusal import Refused
from failsoft.workers import settings
from failsoft.workers.commands.worker import warn_without_model
from failsoft.workers.operations import breakers
from failsoft.workers.serving.pipeline import load_cards, make_plan
from failsoft.workers.settings import Settings

CARD = """\
[model]
kind = "ensemble"
[output]
kind = "binary"
min_confidence = 0.6
[ensemble]
combine = "weighted_mean"
quorum = 2
[[ensemble.members]]
model = "text"
weight = 2.0
[[ensemble.members]]
model = "image"
[[ensemble.members]]
model = "table"
[fallback]
chain = ["model:table", "static"]
static = { score = 0.5, label = 0 }
"""
MEMBER = '[output]\nkind = "binary"\n[[features]]\nname = "{name}"\ntype = "float"\n'
NAMES = ("text", "image", "table")
PIPELINE = 'name = "p"\nmodel = "all"\n[input]\ntopics = ["p.events"]\n[models]\nrepository = "models"\n'


def load(folder: Path, text: str) -> ModelCard:
    path = folder / "all" / "card.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return load_card(path)


def pipeline(folder: Path, card: str = CARD, **members: str) -> Settings:
    """A pipeline with the ensemble "all". A member's card has one feature, named like it, unless ``members`` has it."""
    (folder / "pipeline.toml").write_text(PIPELINE)
    load(folder / "models", card)
    for name, text in ({name: MEMBER.format(name=name) for name in NAMES} | members).items():
        (folder / "models" / name).mkdir()
        (folder / "models" / name / "card.toml").write_text(text)
    return settings.load(folder / "pipeline.toml", {})


def cards(given: Settings) -> dict[str, ModelCard]:
    return load_cards(given, Repository(Path(given.models.repository)))


def test_the_card_of_an_ensemble(tmp_path: Path) -> None:
    """Members keep their order and weights; there are no features, and the output has the usual defaults."""
    card = load(tmp_path, CARD)
    assert card.ensemble is not None and card.name == "all" and card.specs == ()
    assert (card.ensemble.combine, card.ensemble.quorum) == (Combine.WEIGHTED_MEAN, 2)
    assert [(m.model, m.weight) for m in card.ensemble.members] == [("text", 2.0), ("image", 1.0), ("table", 1.0)]
    assert (card.output.threshold, card.output.min_confidence) == (0.5, 0.6)


def test_the_card_of_the_docs_is_valid(tmp_path: Path) -> None:
    """The example in docs/ensembles.md can be copied."""
    page = (Path(__file__).resolve().parents[4] / "docs" / "ensembles.md").read_text("utf-8")
    card = load(tmp_path, page.split("```toml\n")[1].split("```")[0])
    assert card.ensemble is not None and len(card.ensemble.members) == 3


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            '"ensemble"',
            '"ensembel"',
            "model.kind: 'ensembel' is none of 'model', 'ensemble' (did you mean 'ensemble'?)",
        ),
        ('"weighted_mean"', '"wheighted_mean"', "ensemble.combine: 'wheighted_mean' is none of"),
        ('"weighted_mean"', '"wheighted_mean"', "(did you mean 'weighted_mean'?)"),
        ('"weighted_mean"', '"mean"', "members: 'text' has a weight, but combine = \"mean\" uses none"),
        ("quorum = 2", "quorum = 0", "ensemble: quorum: 0, but there are 3 members: it may be 1 to 3"),
        ("quorum = 2", "quorum = 4", "ensemble: quorum: 4, but there are 3 members"),
        ("quorum = 2", "quorum = 2.0", "ensemble.quorum"),
        ("quorum = 2", "", "ensemble.quorum: missing"),
        ("quorum", "quorom", "ensemble.quorom: no such key (did you mean 'quorum'?)"),
        ('model = "image"', 'model = "text"', "members: 'text' is listed twice"),
        ('model = "image"', 'model = "all"', "ensemble.members: 'all' cannot be a member of itself"),
        ('model = "image"', 'model = ""', "ensemble.members[1].model"),
        ("weight = 2.0", "weight = 0.0", "ensemble.members[0].weight"),
        ("weight = 2.0", "weight = inf", "ensemble.members[0].weight"),
        ("weight =", "wait =", "ensemble.members[0].wait: no such key (did you mean 'weight'?)"),
        ('[[ensemble.members]]\nmodel = "image"\n[[ensemble.members]]\nmodel = "table"', "", "at least two"),
        (
            "[fallback]",
            '[[features]]\nname = "x"\ntype = "float"\n[fallback]',
            "features: an ensemble has none of its own",
        ),
        ("[fallback]", "[breaker]\nprobes = 2\n[fallback]", "breaker: an ensemble has none of its own"),
        ("[fallback]", "[rollback]\n[fallback]", "rollback: an ensemble has none of its own"),
        ('kind = "ensemble"', 'kind = "ensemble"\ndeadline = "1s"', "model.deadline: an ensemble is not run itself"),
        ('kind = "ensemble"', "", 'ensemble: only a card with kind = "ensemble"'),
        ("min_confidence = 0.6", 'output = "y"', "output.output: an ensemble has no ONNX outputs"),
        ("min_confidence = 0.6", "range = [0.2, 1.0]", "output.range: an ensemble's answer lies within"),
        ('"model:table"', '"model:all"', "cannot be its own fallback"),
    ],
)
def test_a_mistake_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    """The refusal names the key and what would be right."""
    assert old in CARD
    with pytest.raises(Refused) as refused:
        load(tmp_path, CARD.replace(old, new, 1))
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("output", "combine", "message"),
    [
        ('kind = "regression"', "vote", "ensemble.combine: regression outputs cannot vote"),
        ('kind = "anomaly"', "vote", "output.threshold: missing"),
        ('kind = "multiclass"', "mean", "output.labels: missing"),
        ('kind = "multilabel"', "mean", "output.labels: missing"),
        ('kind = "binary"\npositive = "fraud"', "mean", "output.labels: missing"),
        ('kind = "binary"\ncarry = ["std"]', "mean", "output.carry: an ensemble has no ONNX outputs"),
        ('kind = "binary"\nactivation = "sigmoid"', "mean", "output.activation: an ensemble has no ONNX outputs"),
        ('kind = "anomaly"\nanomalous = "low"', "maximum", '"maximum" takes the highest score'),
    ],
)
def test_each_output_kind_has_its_requirements(tmp_path: Path, output: str, combine: str, message: str) -> None:
    """Regression outputs cannot vote; a vote of anomalies needs a threshold. Columns need labels, in each member's card
    what is its own, and the maximum a high side.
    """
    text = CARD.replace('kind = "binary"\nmin_confidence = 0.6', output).replace("weighted_mean", combine)
    with pytest.raises(Refused) as refused:
        load(tmp_path, text.replace("weight = 2.0\n", ""))
    assert message in str(refused.value)


def test_an_ensemble_without_its_section(tmp_path: Path) -> None:
    """The refusal names the keys that the section needs."""
    with pytest.raises(Refused, match=r"ensemble: missing.*combine, quorum, and \[\[ensemble.members\]\]"):
        load(tmp_path, '[model]\nkind = "ensemble"\n[output]\nkind = "binary"\n')


def test_a_pipeline_loads_the_cards_of_the_members(tmp_path: Path) -> None:
    """The features of all members together are the features of an event."""
    given = pipeline(tmp_path)
    found = cards(given)
    assert set(found) == {"all", *NAMES}
    plan = make_plan(given, found, Repository(Path(given.models.repository)))
    assert (plan.asked, plan.quorum) == (NAMES, 2) and [spec.name for spec in plan.specs] == [*NAMES]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (MEMBER.replace("binary", "anomaly"), "'image': its output is anomaly, but this ensemble's is binary"),
        (CARD.replace("image", "other"), "'image' is an ensemble itself, but members must be models"),
        (MEMBER + 'impute = "last_known"\n', 'impute = "last_known" is not supported yet'),
    ],
)
def test_a_member_that_does_not_fit_is_refused(tmp_path: Path, image: str, message: str) -> None:
    """A member's output must have the ensemble's kind, and a member must be a model."""
    with pytest.raises(Refused) as refused:
        cards(pipeline(tmp_path, image=image))
    assert message in str(refused.value)


def test_members_have_the_ensembles_classes_in_its_order(tmp_path: Path) -> None:
    """Columns are combined by position, so a different order of classes is refused."""
    classes = 'kind = "multiclass"\nclasses = ["a", "b"]'
    text = CARD.replace('kind = "binary"\nmin_confidence = 0.6', classes).replace("label = 0", 'label = "a"')
    member = MEMBER.replace('kind = "binary"', classes)
    members = dict.fromkeys(NAMES, member) | {"image": member.replace('"a", "b"', '"b", "a"')}
    with pytest.raises(Refused, match=r"'image' has \['b', 'a'\], but this ensemble has the labels \['a', 'b'\]"):
        cards(pipeline(tmp_path, text, **members))


@pytest.mark.parametrize(
    ("output", "other", "message"),
    [
        ('labels = ["no", "yes"]\npositive = "yes"', 'labels = ["yes", "no"]\npositive = "yes"', None),
        ("labels = [1, 0]", "", None),
        ('labels = ["no", "yes"]\npositive = "yes"', 'labels = ["no", "yes"]\npositive = "no"', "has positive = 'no'"),
        ('labels = ["no", "yes"]\npositive = "yes"', "", "'image' names no labels, but this ensemble has the labels"),
        ("positive = 1", "positive = 0", "'image' has positive = 0, but this card has positive = 1"),
    ],
)
def test_members_scores_are_for_the_same_label(tmp_path: Path, output: str, other: str, message: str | None) -> None:
    """A binary score is the probability of one label, whatever the columns' order: it must be the ensemble's."""
    text = CARD.replace('kind = "binary"', f'kind = "binary"\n{output}').replace(", label = 0", "")
    member, image = (MEMBER.replace('kind = "binary"', f'kind = "binary"\n{each}') for each in (output, other))
    given = pipeline(tmp_path, text, **{name: member.format(name=name) for name in NAMES} | {"image": image})
    if message is None:
        assert set(cards(given)) == {"all", *NAMES}
        return
    with pytest.raises(Refused) as refused:
        cards(given)
    assert message in str(refused.value)


def test_a_vote_of_anomalies_needs_every_members_threshold(tmp_path: Path) -> None:
    """A member without a threshold has no label to vote with."""
    text = CARD.replace('kind = "binary"\nmin_confidence = 0.6', 'kind = "anomaly"\nthreshold = 1.0')
    member = MEMBER.replace('kind = "binary"', 'kind = "anomaly"\nthreshold = 2.0')
    members = dict.fromkeys(NAMES, member) | {"table": member.replace("threshold = 2.0\n", "")}
    with pytest.raises(Refused, match=r"ensemble.members: 'table' has no threshold"):
        cards(pipeline(tmp_path, text.replace("weighted_mean", "vote"), **members))


def test_an_unknown_member_is_refused(tmp_path: Path) -> None:
    """The refusal has the nearest spelling."""
    with pytest.raises(Refused, match=r"all/card.toml: ensemble.members: no model 'imgae'.*did you mean 'image'"):
        cards(pipeline(tmp_path, CARD.replace('"image"', '"imgae"')))


def test_an_ensemble_is_no_fallback(tmp_path: Path) -> None:
    """An ensemble as a link of a fallback chain is refused; its members may be links."""
    primary = MEMBER.format(name="x") + '[fallback]\nchain = ["model:all", "static"]\nstatic = { score = 0.5 }\n'
    given = pipeline(tmp_path, one=primary)
    with pytest.raises(Refused, match=r"fallback.chain: 'model:all': an ensemble answers only as a pipeline's primary"):
        cards(given.model_copy(update={"model": "one"}))


def test_the_breakers_are_those_of_the_members(tmp_path: Path) -> None:
    """`failsoft breakers` lists the members' breakers, since an ensemble has none of its own."""
    given = pipeline(tmp_path)
    for name, version in (("text", 2), ("table", 1)):
        folder = tmp_path / "models" / name / str(version)
        folder.mkdir()
        (folder / "model.onnx").write_bytes(b"not loaded here")
    known = breakers.known(given)
    assert set(known.policies) == {*NAMES} and known.keys == {"text@2", "table@1"}
    registry = given.schema_registry.model_copy(update={"url": "http://127.0.0.1:8081"})
    known = breakers.known(given.model_copy(update={"schema_registry": registry}))
    assert set(known.policies) == {*NAMES, "dependency:schema_registry"}
    assert known.keys == {"text@2", "table@1", "dependency:schema_registry@0"}


def test_a_worker_warns_about_members_without_a_version(tmp_path: Path) -> None:
    """The warning names the member, not the ensemble, which has no version by design."""
    given = pipeline(tmp_path)
    for name in ("text", "image"):
        (tmp_path / "models" / name / "1").mkdir()
        (tmp_path / "models" / name / "1" / "model.onnx").write_bytes(b"not loaded here")
    warnings: list[str] = []
    warn_without_model(given, warnings.append)
    assert len(warnings) == 1 and "table has no complete version, so all answers without it" in warnings[0]
