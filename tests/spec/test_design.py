import json
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from itertools import permutations

import pytest

from naskd.spec.datasets import DataSpec
from naskd.spec.design import (
    ArchitectureSpec,
    AssistantSpec,
    DistillationSpec,
    KnowledgeTerm,
    StageSpec,
    TrainingSpec,
    TrialConfig,
    content_id,
)
from naskd.spec.teachers import TeacherSpec

ARCHITECTURE = ArchitectureSpec(stages=(StageSpec("basic", depth=2, width=16),))
PLAIN = TrialConfig(ARCHITECTURE)
FULL = TrialConfig(
    ArchitectureSpec(
        stages=(
            StageSpec("basic", 1, 8, kernel=5),
            StageSpec("inverted_residual", 2, 12, expansion=2.5, stride=2, squeeze_excitation=True),
        ),
        stem_width=4,
        stem_kernel=5,
        stem_stride=2,
    ),
    DistillationSpec(
        terms=(
            KnowledgeTerm("logits", 0.5, "balanced", temperature=2.0),
            KnowledgeTerm(
                "rkd", pairs="all", options=(("angle_weight", 20.0), ("flag", True), ("name", "x"))
            ),
            KnowledgeTerm("hint", 0.0, source=1),
        ),
        ce_weight=0.25,
        teachers=("teacher", "other"),
        assistants=(AssistantSpec(ARCHITECTURE, TrainingSpec(epochs=3)),),
    ),
    TrainingSpec(7, 32, "sgd", 0.1, 0.0, 0.5, "cosine", "flip_translate"),
)


@pytest.mark.parametrize("config", [PLAIN, FULL], ids=["plain", "full"])
def test_a_design_survives_json(config: TrialConfig) -> None:
    again = TrialConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert again.config_id == config.config_id
    assert hash(again) == hash(config)


def test_names_of_designs_never_change() -> None:
    """They are in the books of old runs, and seeds follow from them."""
    assert PLAIN.config_id == "726c3659a1ac"
    assert FULL.config_id == "72d3f7b8c204"


def test_a_field_at_its_default_does_not_count() -> None:
    """So that a field added later, at a default that means "as before", does not rename old designs."""
    assert PLAIN.config_id == content_id(
        {"architecture": {"stages": [{"block": "basic", "depth": 2, "width": 16}]}}
    )
    spelled = TrialConfig(
        ArchitectureSpec((StageSpec("basic", 2, 16, 3, 1.0, 1, False),), 16, 3, 1),
        DistillationSpec((), 1.0, "offline", ("teacher",), ()),
        TrainingSpec(20, 64, "adamw", 3e-3, 1e-2, 0.9, "one_cycle", "translate"),
    )
    assert spelled.config_id == PLAIN.config_id


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("activation", "silu"),
        ("downsampling", "max_pooling"),
        ("stem", "patches"),
        ("stem_activation", "gelu"),
        ("resolution", 16),
    ],
)
def test_choices_of_later_versions_are_written_where_they_say_something(place: str, value: object) -> None:
    def design(**changed: object) -> TrialConfig:
        of_stage = {name: x for name, x in changed.items() if name in ("activation", "downsampling")}
        others = {name: x for name, x in changed.items() if name not in of_stage}
        return TrialConfig(ArchitectureSpec((StageSpec("basic", 2, 16, stride=2, **of_stage),), **others))

    plain, other = design(), design(**{place: value})
    assert f'"{place}"' not in json.dumps(plain.to_dict())
    assert f'"{place}"' in json.dumps(other.to_dict())
    assert TrialConfig.from_dict(other.to_dict()) == other
    assert other.config_id != plain.config_id
    with pytest.raises(ValueError, match=place):
        design(**{place: "nothing"})


def test_every_field_counts() -> None:
    def leaves(value, path=()):
        if isinstance(value, dict):
            items = value.items()
        elif isinstance(value, list) and path[-1] != "options":
            items = enumerate(value)
        else:
            yield path, value
            return
        for key, child in items:
            yield from leaves(child, (*path, key))

    others = {
        "block": "bottleneck",
        "kernel": 7,
        "stride": 2,
        "stem_kernel": 7,
        "stem_stride": 1,
        "scheme": "mutual",
        "weighting": "balanced",
        "pairs": "first",
        "source": 1,
        "momentum": 0.25,
        "optimizer": "adamw",
        "schedule": "one_cycle",
        "augmentation": "none",
        "mixing": "mixup",
        "options": [["angle_weight", 1.0]],
    }

    def changed(value, key):
        if key in others and others[key] != value:
            return others[key]
        if isinstance(value, str):
            return {"adamw": "sgd", "one_cycle": "cosine", "balanced": "paper"}.get(value, value + "x")
        return not value if isinstance(value, bool) else value + (-1 if key in ("source", "stride") else 1)

    seen = {FULL.config_id}
    data = FULL.to_dict()
    paths = list(leaves(data))
    assert len(paths) > 50
    for path, value in paths:
        if path[-1] == "source" and "assistants" in path:
            continue  # an assistant has one teacher
        other = json.loads(json.dumps(data))
        place = other
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = changed(value, path[-1])
        config_id = TrialConfig.from_dict(other).config_id
        assert config_id not in seen, path
        seen.add(config_id)


def test_numbers_have_one_spelling() -> None:
    one = TrialConfig(ARCHITECTURE, DistillationSpec((KnowledgeTerm("logits", weight=2, temperature=3),)))
    other = TrialConfig(
        ARCHITECTURE, DistillationSpec((KnowledgeTerm("logits", weight=2.0, temperature=3.0),))
    )
    assert one == other
    assert one.config_id == other.config_id


def test_an_id_is_the_same_in_another_process() -> None:
    code = (
        "import sys; from naskd.spec.design import TrialConfig; import json;"
        "print(TrialConfig.from_dict(json.load(sys.stdin)).config_id)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(FULL.to_dict()),
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "12345"},
    )
    assert found.stdout.strip() == FULL.config_id


def test_a_design_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        FULL.training.epochs = 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StageSpec("basic", 0, 8), "greater than or equal to 1"),
        (lambda: StageSpec("basic", 1, 0), "greater than or equal to 1"),
        (lambda: StageSpec("basic", 1, 8, kernel=4), "kernel must be odd, got 4; use 3 or 5"),
        (lambda: StageSpec("basic", 1, 8, kernel=17), "less than or equal to 15"),
        (lambda: StageSpec("basic", 1, 8, expansion=0.0), "greater than 0"),
        (lambda: StageSpec("basic", 1, 8, stride=3), "1 or 2"),
        (lambda: ArchitectureSpec(stages=()), "needs stages, at least one"),
        (lambda: ArchitectureSpec(ARCHITECTURE.stages, stem_kernel=2), "1, 3, 5 or 7"),
        (lambda: KnowledgeTerm("logits", weight=-1.0), "greater than or equal to 0"),
        (lambda: KnowledgeTerm("logits", weight=float("inf")), "finite"),
        (lambda: KnowledgeTerm("logits", weight=float("nan")), "finite"),
        (lambda: KnowledgeTerm("logits", temperature=0.0), "greater than 0"),
        (lambda: KnowledgeTerm("logits", pairs="second"), "'last', 'middle', 'first', 'all' or 'learned'"),
        (lambda: TrainingSpec(epochs=0), "greater than or equal to 1"),
        (lambda: TrainingSpec(batch_size=1), "greater than or equal to 2"),
        (lambda: TrainingSpec(learning_rate=float("inf")), "finite"),
        (lambda: TrainingSpec(momentum=1.0), "less than 1"),
        (lambda: TrainingSpec(optimizer="adam"), "'adamw' or 'sgd'"),
        (lambda: DistillationSpec(teachers=()), "at least 1 item"),
        (lambda: DistillationSpec(ce_weight=0.0), "nothing would be learned"),
        (lambda: DistillationSpec((KnowledgeTerm("logits", weight=0.0),), ce_weight=0.0), "nothing would be learned"),
        (lambda: DistillationSpec((KnowledgeTerm("logits", source=1),)), r"terms\[0\].source is 1.*allowed: 0 to 0"),
        (lambda: AssistantSpec(ARCHITECTURE, ce_weight=0.0, terms=()), "nothing would be learned"),
        (lambda: AssistantSpec(ARCHITECTURE, terms=(KnowledgeTerm("logits", source=1),)), "source is 1"),
        (lambda: DataSpec("cifar10"), "needs root"),
        (lambda: DataSpec("digits", test_root="x"), r"test_root is for kind = 'image_folder', .*'webdataset' only"),
        (lambda: DataSpec("image_folder", root="x", download=True), "for kind = 'cifar10' or 'torchvision' only"),
        (lambda: DataSpec("digits", val_fraction=1.0), "less than 1"),
        (lambda: DataSpec("digits", resolution=4), "greater than or equal to 8"),
        (lambda: TeacherSpec(), "exactly one of architecture, builder, torchvision and source, got none"),
        (lambda: TeacherSpec(torchvision="resnet18", builder="a.py:b"), "got builder, torchvision"),
        (lambda: TeacherSpec(builder="a.py:b"), "needs a checkpoint"),
        (lambda: TeacherSpec(architecture=ARCHITECTURE, checkpoint="a.pt"), "do not apply"),
        (lambda: TeacherSpec(builder="a.py:b", checkpoint="a.pt", weights="X"), "give torchvision"),
        (lambda: TeacherSpec(torchvision="resnet18", mean=(0.5,)), "mean and std go together"),
        (lambda: TeacherSpec(torchvision="resnet18", sha256="0" * 64), "hash of checkpoint, which is missing"),
        (lambda: TeacherSpec(builder="a.py:b", checkpoint="a.pt", sha256="12"), "should match pattern"),
    ],
)  # fmt: skip
def test_an_impossible_value_is_refused_where_it_is_written(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["training"].update(epoch=3), "epoch"),
        (lambda d: d["training"].update(epochs="many"), "epochs"),
        (lambda d: d["architecture"]["stages"][0].pop("width"), "width"),
        (lambda d: d.update(compression={}), "compression"),
    ],
)
def test_json_that_is_no_design_is_refused_by_the_name_of_the_key(change, message) -> None:
    data = FULL.to_dict()
    change(data)
    with pytest.raises(ValueError, match=message):
        TrialConfig.from_dict(data)


class TestCanonical:
    terms = (
        KnowledgeTerm("logits", temperature=2.0),
        KnowledgeTerm("logits", temperature=4.0),
        KnowledgeTerm("hint", 0.5, pairs="all"),
        KnowledgeTerm("hint", 0.5, pairs="all", options=(("a", 1),)),
        KnowledgeTerm("logits", temperature=4.0, weight=3.0),
    )

    def test_the_order_of_terms_does_not_count(self) -> None:
        found = {
            TrialConfig(ARCHITECTURE, DistillationSpec(order).canonical()).config_id
            for order in permutations(self.terms)
        }
        assert len(found) == 1

    def test_nor_that_of_an_assistants(self) -> None:
        found = {
            DistillationSpec(self.terms, assistants=(AssistantSpec(ARCHITECTURE, terms=order),)).canonical()
            for order in permutations(self.terms)
        }
        assert len(found) == 1

    def test_terms_of_no_weight_go_and_the_rest_stays(self) -> None:
        spec = DistillationSpec(
            (replace(self.terms[0], weight=0.0), self.terms[2]),
            ce_weight=0.5,
            assistants=FULL.distillation.assistants,
        )
        canonical = spec.canonical()
        assert canonical.terms == (self.terms[2],)
        assert canonical.ce_weight == 0.5
        assert canonical.assistants == FULL.distillation.assistants
        assert canonical.canonical() == canonical

    def test_without_knowledge_nothing_of_teaching_is_left(self) -> None:
        """The scale of the only loss is lost on AdamW; a design without knowledge is trained with weight 1."""
        spec = DistillationSpec(
            (KnowledgeTerm("logits", 0.0),),
            ce_weight=0.5,
            assistants=FULL.distillation.assistants,
        )
        assert spec.canonical() == DistillationSpec()


def test_a_teacher_that_brings_its_weights_is_not_trained_here() -> None:
    assert TeacherSpec(architecture=ARCHITECTURE).trained_here
    assert TeacherSpec(torchvision="resnet18", weights="IMAGENET1K_V1").trained_here
    assert not TeacherSpec(torchvision="resnet18", checkpoint="a.pt").trained_here
