"""Teachers are tried before they teach: what cannot be meant is refused, what may be meant is said with its numbers."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_studies import TEACHER, make, open_context, study
from torch import nn
from torch.nn import functional as F

from naskd.data.images import ImageSet, SearchData
from naskd.networks.foreign import ForeignNetwork, Preprocessing
from naskd.networks.teachers import Teacher
from naskd.spec.chance import at_least
from naskd.spec.design import ArchitectureSpec, StageSpec
from naskd.spec.errors import InputError
from naskd.spec.teachers import TeacherSpec
from naskd.store.artifacts import ArtifactStore
from naskd.training.compute import Compute
from naskd.trials.answers import better_order, kind_of_outputs
from naskd.trials.teacher_trial import TeacherTrial, examine, log_trials, try_teachers

CLASSES = ("blue", "green", "red")
CPU = Compute(torch.device("cpu"))
BROUGHT = TeacherSpec(builder="mine.py:build", checkpoint="mine.pt")
HERE = TeacherSpec(architecture=ArchitectureSpec((StageSpec("basic", 1, 4),)))


def colours(n: int = 60) -> SearchData:
    """Images of 8x8 pixels whose class is their brightest channel, sorted by class."""
    labels = torch.arange(n) * 3 // n
    images = torch.randint(90, 150, (n, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    images[torch.arange(n), labels] += 25
    part = ImageSet(images.to(torch.uint8), labels)
    return SearchData(part, part, CLASSES, (0.5,) * 3, (0.1,) * 3, "data", "split")


class Colours(nn.Module):
    """Right for images that were normalised with mean 0.5 and std 0.1; nearly blind for others."""

    def __init__(self) -> None:
        super().__init__()
        self.look = nn.Conv2d(3, 3, 1)
        self.head = nn.Linear(3, 3)
        with torch.no_grad():
            self.look.weight.copy_(torch.eye(3)[:, :, None, None])
            self.look.bias.fill_(5.0)
            self.head.weight.copy_(10 * torch.eye(3))
            self.head.bias.zero_()

    def features(self, images):
        return F.relu(self.look(images)).clamp(max=10).mean((2, 3))

    def forward(self, images):
        return self.head(self.features(images))


def trial(
    network: nn.Module, spec: TeacherSpec = BROUGHT, order=None, mean=(0.5,), std=(0.1,)
) -> TeacherTrial:
    foreign = ForeignNetwork(network, Preprocessing(None, 3, mean, std), (3, 8, 8), order)
    return examine(Teacher(foreign), spec, colours(), CPU)


def wrapped(answer) -> nn.Module:
    """Colours whose answer is ``answer(network, images)``."""

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Colours()

        def forward(self, images):
            return answer(self.net, images)

    return Wrapped()


def test_a_good_teacher_is_measured_and_nothing_else_is_said():
    found = trial(Colours())
    assert found.measured == "accuracy 1.000 on 60 validation images, 0.333 by chance"
    assert found.refusals == found.warnings == ()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused_with_their_place(value):
    network = Colours()
    with torch.no_grad():
        network.head.weight[1, 2] = value
    for spec in (BROUGHT, HERE):
        (refusal,) = trial(network, spec).refusals
        assert "NaN or infinity for 60 of 60 validation images" in refusal
        assert "head.weight" in refusal


def test_a_teacher_that_says_the_same_of_everything_is_refused():
    network = Colours()
    nn.init.zeros_(network.head.weight)
    assert "the same of all 60 validation images" in trial(network).refusals[0]
    found = trial(network, HERE)  # of a training on a tiny budget
    assert found.refusals == ()
    assert "the same of all 60 validation images" in found.warnings[0]


@pytest.mark.parametrize("order", [(1, 2, 0), (1, 0, 2)])
def test_a_wrong_order_of_classes_is_refused_with_the_right_one(order):
    network = Colours()
    raw = [CLASSES[i] for i in order]
    with torch.no_grad():
        network.head.weight.copy_(network.head.weight[list(order)])
    (refusal, *_) = trial(network).refusals
    listed = ", ".join(f'"{name}"' for name in raw)
    assert f"1.000 with classes = [{listed}]" in refusal
    assert "0.333" in refusal or "0.000" in refusal
    right = [raw.index(name) for name in CLASSES]
    assert trial(network, order=right).refusals == ()
    # The same where other classes are given, wrongly.
    (refusal, *_) = trial(
        Colours(), replace(BROUGHT, classes=("red", "blue", "green")), order=(1, 2, 0)
    ).refusals
    assert '1.000 with classes = ["blue", "green", "red"]' in refusal


def test_a_network_that_knows_nothing_shows_no_order():
    generator = torch.Generator().manual_seed(0)
    for n in (6, 40, 400):
        for k in (2, 5, 50):
            assert better_order(torch.randn(n, k, generator=generator), torch.arange(n) % k) is None


def guess(net, x):
    """An answer that has nothing to do with the class."""
    return 0.01 * net(x) + 3 * F.one_hot((x.double().sum((1, 2, 3)) * 9973).long() % 3, 3)


def test_chance_is_said_with_its_numbers():
    for spec in (BROUGHT, HERE):
        found = trial(wrapped(guess), spec)
        assert found.refusals == ()
        assert any("by chance: no better than guessing" in warning for warning in found.warnings)
        assert sum("accuracy 0." in line for line in found.lines) == 1


def test_a_better_normalisation_is_said_with_its_numbers():
    refusals = trial(Colours(), mean=(0.0,), std=(1 / 255,)).refusals
    assert "the same of all 60" in refusals[0]  # all that it sees is white
    assert refusals[1].startswith(
        "it would have accuracy 1.000 instead of 0.333 with mean = [0.0, 0.0, 0.0] and std = "
    )
    # A network that finds its way is left alone, whatever others would do.
    assert trial(Colours(), mean=(0.5,), std=(0.12,)).warnings == ()


def test_a_teacher_of_less_than_was_asked_is_refused():
    spec = replace(BROUGHT, min_accuracy=0.9)
    assert trial(Colours(), spec).refusals == ()
    assert "min_accuracy is 0.9" in trial(wrapped(guess), spec).refusals[0]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda net, x: net(x).softmax(1), "probabilities, not logits (from"),
        (lambda net, x: ((net(x) - 60) / 10).sigmoid(), "scores in [0, 1], not logits"),
        (lambda net, x: net(x).log_softmax(1), "log-probabilities, not logits"),
        (lambda net, x: net.head(F.dropout(net.features(x), 0.5)), "differently a second time: by up to"),
        (lambda net, x: F.batch_norm(net(x), None, None, training=True) if len(x) > 1 else net(x),
         "an image alone otherwise than among 32: by up to"),
    ],
)  # fmt: skip
def test_what_may_be_meant_is_said(answer, words):
    found = trial(wrapped(answer))
    assert found.refusals == ()
    assert words in "\n".join(found.warnings)


def test_logits_are_taken_for_logits():
    assert kind_of_outputs(torch.tensor([[0.2, 0.9], [1.5, -0.1]])) == ""


def test_a_network_that_cannot_answer_one_image_is_refused():
    with pytest.raises(InputError, match=r"of a single image it returns .*; wanted logits \(B, K\)"):
        trial(wrapped(lambda net, x: net(x) if len(x) > 1 else net(x).expand(2, -1)))


def test_random_numbers_of_the_process_are_left_alone():
    network = wrapped(lambda net, x: F.dropout(net(x), 0.5))
    teacher = Teacher(ForeignNetwork(network, Preprocessing(None, 3, (0.5,), (0.1,)), (3, 8, 8)))
    before = torch.get_rng_state()
    examine(teacher, BROUGHT, colours(), CPU)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_binomial_tail_is_right():
    assert at_least(0, 5, 0.3) == 1
    assert at_least(2, 2, 0.5) == pytest.approx(0.25)
    assert at_least(3, 4, 0.2) == pytest.approx(4 * 0.2**3 * 0.8 + 0.2**4)


# --- of a study ---------------------------------------------------------------------------------------------------

BUILDER = """
from pathlib import Path
import torch
from torch import nn

def build():
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10)
    )

def scaled():
    network = build()
    scale = float((Path(__file__).parent / "scale.txt").read_text())
    network.register_forward_hook(lambda module, images, logits: logits * scale)
    return network

def noisy():
    network = build()
    network.register_forward_hook(lambda module, images, logits: logits + torch.randn_like(logits))
    return network

def leave():
    raise SystemExit(0)

def raising():
    raise ValueError()

def a_class():
    return nn.Linear

class Leaving(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = build()

    def forward(self, x):
        raise SystemExit(0)

def leaving():
    return Leaving()

class Dict(nn.Sequential):
    def forward(self, x):
        return {"logits": super().forward(x)}

def dictionary():
    return Dict(*build())
"""


def brought(folder: Path, function: str = "build", **settings: object) -> TeacherSpec:
    (folder / "mine.py").write_text(BUILDER)
    scope: dict[str, object] = {}
    exec(BUILDER, scope)
    torch.manual_seed(0)
    torch.save(
        {"model_ema": scope["build"]().state_dict(), "model": scope["build"]().state_dict()},
        folder / "mine.pt",
    )
    return TeacherSpec(builder=f"mine.py:{function}", checkpoint="mine.pt", **settings)


def context_of(folder: Path, **changes: object):
    return open_context(study(base=folder, **changes), ArtifactStore(folder / "artifacts"))


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("leave", "builder 'mine.py:leave' failed: SystemExit"),
        ("raising", "builder 'mine.py:raising' failed: ValueError: no message"),
        ("a_class", "returns the class Linear, not a network"),
        ("leaving", "the network fails on images (2, 1, 8, 8): SystemExit"),
        ("dictionary", "returns dict; wanted logits, a tensor (B, K); return its 'logits'"),
    ],
)
def test_what_a_builder_does_wrong_is_one_line(function, words, tmp_path):
    (found,) = try_teachers(context_of(tmp_path, teacher=brought(tmp_path, function)))
    assert not found.built
    (problem,) = found.problems
    assert words in problem
    assert problem.startswith("teacher: ")


def test_each_teacher_is_tried_and_all_problems_are_said_at_once(tmp_path, caplog):
    unknown = TeacherSpec(name="odd", architecture=ArchitectureSpec((StageSpec("bassic", 1, 4),)))
    huge = TeacherSpec(name="huge", architecture=ArchitectureSpec((StageSpec("basic", 1000, 65536),) * 9))
    context = context_of(tmp_path, teacher=brought(tmp_path), teachers=(unknown, huge))
    trials = try_teachers(context)
    log_trials(trials)
    lines = [problem for trial in trials for problem in trial.problems]
    assert len(lines) == 2
    assert lines[0].startswith("teacher 'odd': ")
    assert "'bassic'" in lines[0]
    assert "basic" in lines[0].replace("'bassic'", "")
    assert lines[1].startswith("teacher 'huge': architecture: its weights take")
    (record,) = caplog.records
    assert "teacher: accuracy 0.1" in record.getMessage() or "teacher: accuracy 0.0" in record.getMessage()
    assert "'model_ema' is taken" in record.getMessage()


def test_what_was_said_is_kept_with_the_teacher_and_said_again(tmp_path):
    context = context_of(tmp_path, teacher=brought(tmp_path))
    (before,) = try_teachers(context)
    (result,) = make(context)
    assert result.status == "complete"
    assert result.warnings == before.warnings
    assert any("'model_ema' is taken" in warning for warning in result.warnings)
    (again,) = try_teachers(context)
    assert again.warnings == before.warnings
    assert again.measured == f"accuracy {result.metrics['val_accuracy']:.3f} on the validation images"


def test_a_stored_teacher_is_asked_for_what_this_study_wants_of_it(tmp_path):
    """It is the same teacher, stored by a study that wanted less."""
    spec = brought(tmp_path)
    (result,) = make(context_of(tmp_path, teacher=spec))
    reached = result.metrics["val_accuracy"]
    enough, more = (replace(spec, min_accuracy=least) for least in (reached, 0.99))
    assert not try_teachers(context_of(tmp_path, teacher=enough))[0].refusals
    assert "min_accuracy is 0.99" in try_teachers(context_of(tmp_path, teacher=more))[0].refusals[0]


def test_a_stored_teacher_that_answers_otherwise_is_refused_before_it_teaches(tmp_path):
    """Its weights and its code are what they were; a file that its code reads is not."""
    (tmp_path / "scale.txt").write_text("1")
    spec = brought(tmp_path, "scaled")
    (result,) = make(context_of(tmp_path, teacher=spec))
    assert result.status == "complete"
    assert not try_teachers(context_of(tmp_path, teacher=spec))[0].refusals
    (tmp_path / "scale.txt").write_text("1.1")
    (found,) = try_teachers(context_of(tmp_path, teacher=spec))
    assert "answers otherwise than when it was stored" in found.refusals[0]


def test_a_teacher_of_random_answers_is_not_held_to_them(tmp_path):
    spec = brought(tmp_path, "noisy")
    context = context_of(tmp_path, teacher=spec)
    make(context)
    assert not try_teachers(context_of(tmp_path, teacher=spec))[0].refusals


def test_another_state_of_the_file_is_another_teacher(tmp_path):
    spec = brought(tmp_path)
    ids = [
        context_of(tmp_path, teacher=replace(spec, **changes)).prerequisites.teacher().artifact_id
        for changes in (
            {},
            {"state": "model"},
            {"state": "model_ema"},
            {"min_accuracy": 0.1},
            {"license": "mit"},
        )
    ]
    assert len(set(ids)) == 3
    assert ids[4] == ids[3] == ids[0]  # what is asked of it, or allowed, is not what it is


def test_a_teacher_that_is_trained_here_is_only_built(tmp_path):
    context = context_of(tmp_path, teacher=TeacherSpec(architecture=TEACHER))
    assert try_teachers(context) == [TeacherTrial("teacher")]
    assert not context.designs.has_artifact(context.prerequisites.teacher().artifact_id)
