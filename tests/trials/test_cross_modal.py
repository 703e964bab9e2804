"""Students of a second modality: what each network sees, what teaches without labels, and who is turned away."""

import copy
import math
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_studies import ALL_TERMS, STUDENT, TRAINING, design, make, open_context, study
from torch import Tensor

from naskd.data.images import ImageSet, SearchData
from naskd.data.load import load_search_data
from naskd.executors.packing import pack, unpack
from naskd.knowledge.base import Lesson, Mixed
from naskd.networks.probe import probe_image
from naskd.networks.student import Student
from naskd.nn.cost import network_cost
from naskd.schemes import SCHEMES
from naskd.schemes.scheme import UNLABELLED
from naskd.spec.datasets import DataSpec
from naskd.spec.design import AssistantSpec, Cost, DistillationSpec, KnowledgeTerm, TrialConfig
from naskd.spec.errors import InputError
from naskd.spec.modalities import ModalitySpec
from naskd.store.artifacts import ArtifactStore
from naskd.study.admission import problems, settle
from naskd.testing.schemes import equal, through_a_file
from naskd.trials.context import StudyContext
from naskd.trials.jobs import Decision, Job
from naskd.trials.measures import Measured
from naskd.trials.run import TrialRun, start_run
from naskd.trials.steps import run_job

EPOCHS = 2
LOGITS = KnowledgeTerm("logits")
ASSISTANT = AssistantSpec(replace(STUDENT, stem_width=5), replace(TRAINING, epochs=1))
PLAIN = study(data=DataSpec("digits", max_train=60, resolution=16), epochs=EPOCHS)


def spec_of(name: str = "edges", labels: bool = False, **execution: Any) -> Any:
    data = replace(PLAIN.data, modality=ModalitySpec(name, labels=labels))
    return replace(PLAIN, data=data, execution=replace(PLAIN.execution, **execution))


LABELLED = spec_of(labels=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the teacher, which is that of a study without a second modality."""
    found = tmp_path_factory.mktemp("cross")
    context = open_context(PLAIN, ArtifactStore(found / "artifacts"))
    assert [result.status for result in make(context)] == ["complete"]
    return found


def opened(folder: Path, spec: Any, cache: str = "", data: SearchData | None = None) -> StudyContext:
    """A new context of a study, with a cold bank unless there is a cache."""
    place = folder / cache if cache else None
    return open_context(spec, ArtifactStore(folder / "artifacts"), place, data=data)


@pytest.fixture(scope="module")
def data() -> SearchData:
    return load_search_data(spec_of().data, Path())


def started(context: StudyContext, config: TrialConfig, seed: int = 7) -> TrialRun:
    given = settle(config, context.resources.spec)
    for recipe in context.designs.recipes(given):
        if recipe.artifact_id not in context.resources.store:
            job = Job(recipe.artifact_id, "artifact", given, recipe.seed, 0, requires=recipe.requires)
            result = run_job(job, context, lambda epoch, metrics: Decision.CONTINUE)
            assert result.status == "complete", result
    return start_run(given, context, seed)[0]


def taught(*terms: KnowledgeTerm, scheme: str = "offline", **training: Any) -> TrialConfig:
    found = design(*(terms or (LOGITS,)), epochs=EPOCHS, **training)
    return replace(found, distillation=replace(found.distillation, scheme=scheme))


def with_assistant(**changes: Any) -> TrialConfig:
    chain = (replace(ASSISTANT, **changes),)
    return TrialConfig(
        STUDENT, DistillationSpec((LOGITS,), assistants=chain), replace(TRAINING, epochs=EPOCHS)
    )


# --- what each network sees --------------------------------------------------------------------------------------


LOW, HIGH = 100, 150
"""Pixels of the second modality are at most LOW, those of the first at least HIGH, but for what comes from outside."""


def watermarked(data: SearchData) -> SearchData:
    """The same with images that tell their modality by every pixel; both have one channel."""

    def marked(part: ImageSet, low: int, high: int) -> ImageSet:
        pixels = part.images.double() / 255 * (high - low) + low
        return replace(part, images=pixels.round().to(torch.uint8))

    first = data.for_teachers
    bright = replace(first, train=marked(first.train, HIGH, 255), val=marked(first.val, HIGH, 255))
    dark = {"train": marked(data.train, 1, LOW), "val": marked(data.val, 1, LOW)}
    return replace(data, **dark, first=bright)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """Which modalities networks have seen, by the width of their stem: that of a teacher is 6, an assistant's 5."""
    found: dict[str, set[str]] = defaultdict(set)
    as_before = Student.normalised
    who = {5: "assistant", 6: "teacher"}

    def noting(self: Student, images: Tensor) -> Tensor:
        if images.is_meta or not images.any():
            return as_before(self, images)
        # Stored networks are probed with a made-up image, which is of no modality.
        if not torch.equal(images, probe_image(tuple(images.shape[1:])).expand_as(images)):
            shown = images[images > 0] * 255
            kinds = (
                {"second"} if shown.max() < LOW + 1 else {"first"} if shown.min() > HIGH - 1 else {"mixed"}
            )
            found[who.get(self.spec.stem_width, "student")] |= kinds
        return as_before(self, images)

    monkeypatch.setattr(Student, "normalised", noting)
    return found


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the teacher of watermarked images is kept: the first test sees its training too."""
    return tmp_path_factory.mktemp("marked")


ONLINE = {"bank_bytes": 0}


@pytest.mark.parametrize(
    ("config", "execution"),
    [
        (taught(*ALL_TERMS, augmentation="flip_translate"), {}),
        (taught(*ALL_TERMS), ONLINE),
        (with_assistant(), {}),
        (taught(scheme="adversarial"), ONLINE),
        (taught(scheme="blockwise"), ONLINE),
        (taught(scheme="reskd"), {}),
    ],
    ids=["bank", "online", "assistant", "adversarial", "blockwise", "reskd"],
)
def test_no_network_sees_the_other_modality(
    execution: dict[str, Any], config: TrialConfig, data: SearchData, seen: dict[str, set[str]], marked: Path
) -> None:
    context = opened(marked, spec_of(**execution), data=watermarked(data))
    assert [result.reason for result in make(context)] == [""]
    given = settle(config, context.resources.spec)
    started(context, given)
    job = Job("0", "trial", given, 7, EPOCHS)
    result = run_job(job, context, lambda epoch, metrics: Decision.CONTINUE)
    assert result.status == "complete", result
    assert result.teacher_agreement is not None
    others = {"assistant": {"second"}} if given.distillation.assistants else {}
    assert seen == {"student": {"second"}, "teacher": {"first"}, **others}


def test_agreement_is_with_what_the_teacher_says_of_the_first_modality(
    data: SearchData, seen: dict[str, set[str]], marked: Path
) -> None:
    both = watermarked(data)
    context = opened(marked, spec_of(), data=both)
    make(context)
    run, compared = start_run(settle(taught(), spec_of()), context, 7)
    assert compared is not None
    seen.clear()
    found = run.agreement(compared)
    assert seen == {"student": {"second"}, "teacher": {"first"}}
    teacher = context.sources.online(compared).network
    with torch.no_grad():
        said = teacher(both.for_teachers.val.images.float() / 255).argmax(1)
        own = run.scheme.deployed.eval()(both.val.images.float() / 255).argmax(1)
    assert found == pytest.approx(float((said == own).double().mean()), abs=1e-12)


def test_the_teacher_is_that_of_a_study_without_a_second_modality(folder: Path, data: SearchData) -> None:
    ids = {
        opened(folder, spec).prerequisites.teacher().artifact_id
        for spec in (PLAIN, spec_of(), spec_of("low_resolution"), LABELLED)
    }
    assert len(ids) == 1
    assistants = [
        opened(folder, spec).prerequisites.of(settle(with_assistant(), spec)).made[1].artifact_id
        for spec in (PLAIN, spec_of(), spec_of("low_resolution"), LABELLED)
    ]
    assert len(set(assistants)) == 4


# --- what is remembered ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["edges", "low_resolution"])
def test_a_bank_and_the_teacher_itself_say_the_same(name: str, folder: Path) -> None:
    terms = tuple(replace(term, weighting="paper") for term in ALL_TERMS)
    curves = []
    for given in (spec_of(name), spec_of(name, bank_bytes=0)):
        run = started(opened(folder, given), taught(*terms))
        run.advance(EPOCHS)
        curves.append(run.curve)
    for banked, online in zip(*curves, strict=True):
        for term in ("attention", "hint", "logits", "rkd"):
            assert banked[term] == pytest.approx(online[term], rel=5e-3), term


def test_what_a_teacher_said_is_heard_by_students_of_both_modalities(folder: Path) -> None:
    spent = []
    for given in (PLAIN, spec_of(), LABELLED):
        run = started(opened(folder, given, "shared"), taught())
        run.advance(EPOCHS)
        spent.append(run.forward_images)
    assert spent == [60 * EPOCHS, 0, 0]
    small = started(opened(folder, spec_of("low_resolution"), "shared"), taught())
    small.advance(EPOCHS)
    assert small.forward_images == 60 * EPOCHS, "a pixel of smaller images is two of the teacher's"


def test_what_an_assistant_said_of_another_modality_is_not_taken_up(folder: Path) -> None:
    names = set()
    for given in (PLAIN, spec_of(), spec_of("low_resolution")):
        run = started(opened(folder, given, "assistants"), with_assistant())
        run.advance(1)
        names |= set(run.bank_bytes())
    assert len(names) == 3


def test_images_without_a_position_are_not_shown_to_a_teacher(folder: Path, data: SearchData) -> None:
    run = started(opened(folder, spec_of(), data=data), taught())
    images = data.train.images[:4].float() / 255
    with pytest.raises(InputError, match="asked about images that are not of the training split"):
        run._sources[0].summaries(images, None, 0, run.scheme.taught.objective.losses)
    with pytest.raises(InputError, match="asked about images that are not of the training split"):
        run._sources[0].taps(images)


# --- labels ------------------------------------------------------------------------------------------------------


def relabelled(data: SearchData) -> SearchData:
    """Other labels of the images that students see; teachers have those of before."""
    return replace(data, train=replace(data.train, labels=data.train.labels.roll(7)))


@pytest.mark.parametrize("scheme", [card.name for card in SCHEMES if not card.needs_labels])
def test_schemes_whose_card_says_so_are_let_pass_without_labels(scheme: str) -> None:
    assert problems(measured(settle(taught(scheme=scheme), spec_of())), spec_of()) == []


def test_without_labels_no_bit_depends_on_them(folder: Path, data: SearchData) -> None:
    config = taught(LOGITS, KnowledgeTerm("hint", weighting="balanced"))
    runs = [started(opened(folder, spec_of(), data=each), config) for each in (data, relabelled(data))]
    for run in runs:
        run.advance(EPOCHS)
    assert equal(runs[0].scheme.state_dict(), runs[1].scheme.state_dict())
    assert runs[0].curve[0]["ce"] == 0


def test_labels_teach_where_they_are_known(folder: Path, data: SearchData) -> None:
    known = replace(data, labels_teach=True)
    runs = [started(opened(folder, LABELLED, data=each), taught()) for each in (known, relabelled(known))]
    for run in runs:
        run.advance(1)
    assert runs[0].curve[0]["ce"] > 0
    assert not equal(runs[0].scheme.state_dict(), runs[1].scheme.state_dict())


def test_balanced_terms_are_as_loud_without_labels_as_with(folder: Path, data: SearchData) -> None:
    """Step 0: a student that knows nothing is as far from a made-up class as from the right one."""
    weights = []
    for given, each in ((spec_of(), data), (LABELLED, replace(data, labels_teach=True))):
        run = started(opened(folder, given, data=each), taught(*ALL_TERMS, batch_size=60))
        run.loop.run_epoch()
        weights.append(run.scheme.taught.objective.weights.tolist())
    assert weights[0] == pytest.approx(weights[1], rel=0.1)
    assert all(abs(weight - 1) > 0.01 for weight in weights[0]), "none of them was left as it is"


def test_made_up_classes_are_for_batches_without_any_label() -> None:
    logits = torch.randn(6, 4, dtype=torch.float64)
    nobody = torch.full((6,), UNLABELLED)
    some = torch.tensor([2, UNLABELLED, 0, UNLABELLED, 1, 3])

    def lesson(labels: Tensor, partly: bool = True) -> Lesson:
        return Lesson(labels, torch.arange(6), partly_labelled=partly)

    made_up = Lesson(torch.tensor([0, 1, 2, 3, 0, 1]), torch.arange(6)).label_loss(logits)
    assert torch.equal(lesson(nobody).reference_loss(logits), made_up)
    assert torch.equal(lesson(some).reference_loss(logits), lesson(some).label_loss(logits))
    assert lesson(nobody).label_loss(logits) == 0


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_made_up_classes_of_mixed_images_add_up_to_whole_labels(share: float) -> None:
    """Logits that say nothing are log K from any label, whatever the shares of two labels are."""
    nobody = torch.full((6,), UNLABELLED)
    some = torch.tensor([2, UNLABELLED, 0, UNLABELLED, 1, 3])
    for labels in (nobody, some):
        mixed = Mixed(labels.roll(1, 0), torch.tensor(share, dtype=torch.float64))
        lesson = Lesson(labels, torch.arange(6), mixed=mixed, partly_labelled=True)
        found = lesson.reference_loss(torch.zeros(6, 4, dtype=torch.float64))
        torch.testing.assert_close(float(found), math.log(4))


def test_a_design_of_a_study_without_labels_weighs_them_by_nothing() -> None:
    chain = with_assistant()
    settled = settle(chain, spec_of())
    assert (settled.distillation.ce_weight, settled.distillation.assistants[0].ce_weight) == (0.0, 0.0)
    assert settle(chain, LABELLED) == settle(chain, PLAIN)
    zero = replace(chain, distillation=replace(chain.distillation, ce_weight=0.5))
    assert settle(zero, spec_of()).config_id == settled.config_id


# --- bits and books ----------------------------------------------------------------------------------------------


def test_a_training_goes_on_with_the_same_bits(folder: Path) -> None:
    config = taught(*ALL_TERMS)
    straight, stopped = (started(opened(folder, spec_of()), config) for _ in range(2))
    straight.advance(EPOCHS)
    stopped.advance(1)
    resumed = started(opened(folder, spec_of()), config)
    resumed.load_state_dict(through_a_file(copy.deepcopy(stopped.state_dict())))
    assert resumed.advance(EPOCHS) == straight.curve[-1]
    assert equal(resumed.state_dict()["loop"], straight.state_dict()["loop"])


def test_a_student_costs_what_its_own_images_cost(folder: Path) -> None:
    plain, small = (opened(folder, spec) for spec in (PLAIN, spec_of("low_resolution")))
    cost = small.designs.design_cost(taught())
    run = started(small, taught())
    assert run.cost == cost == network_cost(run.scheme.deployed, 1, 8)
    assert 3.5 * cost.macs < plain.designs.design_cost(taught()).macs
    (teacher,) = small.prerequisites.teachers()
    assert small.sources.online(teacher).macs == plain.sources.online(teacher).macs
    price = small.designs.training_macs(settle(taught(), spec_of("low_resolution")))
    run.advance(EPOCHS)
    assert run.train_macs == price.own + sum(price.shared.values())


def test_both_modalities_travel_to_workers(folder: Path, data: SearchData) -> None:
    (folder / "space.py").write_text("def joint(trial): ...\n")
    spec = replace(spec_of("low_resolution"), base=folder)
    context = opened(folder, spec)
    packed, arrays = pack(context)
    there = unpack(packed, arrays, context.resources.store, None, folder / "there").resources.data
    here = context.resources.data
    assert there.first is not None
    assert here.first is not None
    for own, other in ((there, here), (there.first, here.first)):
        assert torch.equal(own.train.images, other.train.images)
        assert torch.equal(own.val.images, other.val.images)
        assert (own.mean, own.modality_hash, own.labels_teach) == (
            other.mean,
            other.modality_hash,
            other.labels_teach,
        )


# --- who is turned away ------------------------------------------------------------------------------------------


def measured(config: TrialConfig) -> Measured:
    return Measured(config, Cost(1000, 100, 400), 1, 16, 10)


def own_teaching(scheme: str) -> TrialConfig:
    return TrialConfig(STUDENT, DistillationSpec(scheme=scheme), replace(TRAINING, epochs=EPOCHS))


@pytest.mark.parametrize(
    ("config", "spec", "why"),
    [
        (design(), spec_of(), "the design asks no teacher: nothing teaches"),
        (taught(replace(LOGITS, weight=0.0)), spec_of(), "nothing teaches"),
        (taught(KnowledgeTerm("label_smoothing")), spec_of(), "nothing teaches"),
        (
            taught(KnowledgeTerm("dkd")),
            spec_of(),
            "knowledge 'dkd' needs labels, and data.modality.labels is false",
        ),
        (taught(mixing="mixup"), spec_of(), "training.mixing = 'mixup' makes images of two"),
        (taught(mixing="cutmix"), LABELLED, "training.mixing = 'cutmix' makes images of two"),
        (with_assistant(training=replace(TRAINING, mixing="mixup")), LABELLED, "'mixup' makes images of two"),
        (taught(start="teacher"), LABELLED, "a student of another modality does not start from a teacher"),
        *(
            (own_teaching(name), LABELLED, "makes images for teacher and student alike")
            for name in ("dafl", "zskt")
        ),
        *(
            (
                taught(scheme=name),
                spec_of(),
                f"scheme {name!r} needs labels for its student or for a network beside it",
            )
            for name in ("kdcl", "cs_kd", "co_teacher", "one", "okddip")
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_taught_so_is_turned_away(config: TrialConfig, spec: Any, why: str) -> None:
    found = problems(measured(settle(config, spec)), spec)
    assert any(why in problem for problem in found), found
    assert not any(why in problem for problem in problems(measured(settle(config, PLAIN)), PLAIN))


@pytest.mark.parametrize("config", [design(), design(mixing="mixup"), taught(KnowledgeTerm("dkd"))])
def test_with_labels_what_asks_no_teacher_about_them_is_trained(config: TrialConfig, folder: Path) -> None:
    assert problems(measured(settle(config, LABELLED)), LABELLED) == []
    started(opened(folder, LABELLED), replace(config, training=replace(config.training, epochs=1))).advance(1)


def test_mixed_images_are_refused_by_whoever_would_be_asked(folder: Path) -> None:
    with pytest.raises(InputError, match="makes images of two"):
        started(opened(folder, spec_of()), taught(mixing="mixup"))


def test_a_study_without_labels_needs_a_teacher() -> None:
    with pytest.raises(ValueError, match="leaves the teacher alone to teach"):
        replace(spec_of(), teacher=None)
    assert replace(LABELLED, teacher=None).teacher is None
    with pytest.raises(ValueError, match="unlabelled and modality do not go together"):
        replace(LABELLED.data, unlabelled="pool")


def test_a_study_without_a_second_modality_is_what_it_was() -> None:
    assert "modality" not in PLAIN.identity()["data"]
    found = spec_of("low_resolution").identity()["data"]["modality"]
    assert found == {"name": "low_resolution", "labels": False}
    three = ModalitySpec("low_resolution", options=(("factor", 3),))
    assert (
        replace(PLAIN, data=replace(PLAIN.data, modality=three)).identity()["data"]["modality"]["factor"] == 3
    )
    paired = [ModalitySpec("paired", root=root) for root in ("here", "there")]
    assert len({str(replace(PLAIN, data=replace(PLAIN.data, modality=m)).identity()) for m in paired}) == 1
