"""What a scheme holds of a student, apart from any scheme."""

from dataclasses import replace

import pytest
import torch
from small_studies import ALL_TERMS, design, small_context

from naskd.knowledge import KNOWLEDGE
from naskd.schemes import SCHEMES
from naskd.schemes.distilled import DistilledStudent
from naskd.schemes.scheme import Batch, PhaseData
from naskd.spec.compat import DISTILLED_STUDENT
from naskd.spec.design import KnowledgeTerm
from naskd.spec.errors import InputError
from naskd.trials.context import StudyContext
from naskd.trials.run import TrialRun, start_run

OURS = [name for name in SCHEMES.names() if getattr(SCHEMES.load(name), "earlier_names", None)]


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    return small_context(tmp_path_factory.mktemp("context"))


def start(context: StudyContext, *terms: KnowledgeTerm, scheme: str = "offline", seed: int = 1) -> TrialRun:
    config = design(*terms)
    config = replace(config, distillation=replace(config.distillation, scheme=scheme))
    return start_run(config, context, seed)[0]


def taught(run: TrialRun) -> DistilledStudent:
    assert isinstance(run.scheme.taught, DistilledStudent)
    return run.scheme.taught


@pytest.mark.parametrize("scheme", OURS)
def test_states_of_schemes_that_were_the_student_themselves_are_read(scheme, context) -> None:
    run, other = (start(context, *ALL_TERMS, scheme=scheme, seed=seed) for seed in (1, 2))
    run.advance(1)
    wanted = run.scheme.state_dict()
    old = {}
    for key, value in wanted.items():
        new_names = {new: before for before, new in DISTILLED_STUDENT.items()}
        name = next((n for n in new_names if key.startswith(n)), "")
        old[new_names[name] + key.removeprefix(name) if name else key] = value
    assert {"student.head.weight", "_deployed.head.weight", "objective.weights"} <= old.keys()
    other.scheme.load_state_dict(old)
    found = other.scheme.state_dict()
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        assert torch.equal(found[key], value) if isinstance(value, torch.Tensor) else found[key] == value
    other.scheme.load_state_dict(wanted)


def test_taps_that_somebody_has_are_not_computed_again(context) -> None:
    student = taught(start(context, *ALL_TERMS)).eval()
    index = torch.arange(32)
    images, view = context.images.views("none").batch(index, 0)
    batch = Batch(images, context.resources.data.train.labels[:32], index, view, 0)
    asked = student.ask(batch)
    student.objective.calibrated = {"main"}
    loss, terms = student.learn(batch, asked)
    given, _ = student.learn(batch, asked, taps=student.taps(images))
    assert torch.equal(loss, given)
    assert set(terms) == {"ce", *(term.kind for term in ALL_TERMS)}
    other = student.taps(images.flip(3))
    assert not torch.equal(student.learn(batch, asked, taps=other)[0], loss)


def test_others_may_answer_in_place_of_those_that_losses_were_built_for(context) -> None:
    run = start(context, KnowledgeTerm("logits"))
    student = taught(run)
    images = torch.rand(8, 1, 8, 8)
    batch = Batch.made(images, 0)
    source = context.sources.online(context.prerequisites.teacher())
    (own,) = student.ask(batch)
    (same,) = student.ask(batch, sources=[source])
    assert torch.equal(own["logits"], same["logits"])
    with pytest.raises(ValueError, match="zip"):
        student.ask(batch, sources=[source, source])


def test_a_term_is_balanced_on_images_that_a_scheme_has_made(context) -> None:
    """They have no labels: classes are made up, and it does not just keep its plain weight."""
    student = taught(start(context, KnowledgeTerm("hint", 0.7, "balanced")))
    batch = Batch.made(torch.rand(8, 1, 8, 8), 0)
    student.learn(batch, student.ask(batch))
    assert student.objective.weights[0] != pytest.approx(0.7)


def test_images_of_a_phase_that_a_term_cannot_be_taught_with_are_refused(context) -> None:
    images = torch.zeros(40, 1, 8, 8, dtype=torch.uint8)
    some, labels = torch.full((40,), -100), torch.zeros(40, dtype=torch.long)
    some[:20] = 0
    needs_labels = next(c.name for c in KNOWLEDGE if c.needs_labels and not c.needs_index)
    for given in (None, some):
        with pytest.raises(InputError, match="needs labels, and is shown images without"):
            taught(start(context, KnowledgeTerm(needs_labels))).phase("main", data=PhaseData(images, given))
    taught(start(context, KnowledgeTerm(needs_labels))).phase("main", data=PhaseData(images, labels))
    with pytest.raises(InputError, match="'crd' knows the training images alone"):
        taught(start(context, KnowledgeTerm("crd"))).phase("main", data=PhaseData(images, labels))
    assert (
        taught(start(context, KnowledgeTerm("logits"))).phase("main", data=PhaseData(images)).data is not None
    )
