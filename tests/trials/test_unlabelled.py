"""Training with images that only a teacher speaks of: what each teaches and costs, and who is turned away."""

import copy
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from by_loops import cross_entropy, divergence, mean, softened
from small_studies import ALL_TERMS, STUDENT, design, make, open_context, study
from torch import Tensor

from naskd.data.load import load_search_data
from naskd.knowledge import KNOWLEDGE
from naskd.knowledge.base import Lesson, Mixed
from naskd.knowledge.partly_labelled_bank import PartlyLabelledBank, gathered, joined, places_in
from naskd.schemes import SCHEMES
from naskd.schemes.scheme import UNLABELLED, Asked, Batch
from naskd.spec.datasets import DataSpec
from naskd.spec.design import Cost, DistillationSpec, KnowledgeTerm, TrialConfig
from naskd.spec.errors import InputError, UnknownNameError
from naskd.store.artifacts import ArtifactStore
from naskd.store.columns import in_use
from naskd.store.eight_bits import EightBits
from naskd.study.admission import problems, settle
from naskd.study.sampling.features import describe
from naskd.teachings import NEED_LABELS, suggest_teaching
from naskd.testing.schemes import equal, through_a_file
from naskd.trials.context import StudyContext
from naskd.trials.measures import Measured, Outlook, most_train_macs
from naskd.trials.run import TrialRun, start_run

N, POOL, EPOCHS = 120, 300, 3
LOGITS = KnowledgeTerm("logits")
SPEC = study(data=DataSpec("digits", max_train=N, unlabelled="pool"))


@pytest.fixture(scope="module")
def data():
    found = load_search_data(replace(SPEC.data, unlabelled=None), Path())
    pool = torch.randint(
        0, 256, (POOL, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    return replace(found, unlabelled=pool, unlabelled_hash="pool")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, data) -> Path:
    found = tmp_path_factory.mktemp("unlabelled")
    assert [result.status for result in make(opened(found, data))] == ["complete"]
    return found


def opened(folder: Path, data: Any, cache: str = "", **changes: Any) -> StudyContext:
    """A new context, with a cold bank unless there is a cache; `changes` are of the study's data."""
    place, spec = folder / cache if cache else None, replace(SPEC, data=replace(SPEC.data, **changes))
    return open_context(spec, ArtifactStore(folder / "artifacts"), place, data=data)


@pytest.fixture(scope="module")
def context(folder, data) -> StudyContext:
    return opened(folder, data)


def config(unlabelled: int, *terms: KnowledgeTerm, scheme: str = "offline", **training: Any) -> TrialConfig:
    found = design(*(terms or (LOGITS,)), **training)
    return replace(found, distillation=replace(found.distillation, unlabelled=unlabelled, scheme=scheme))


def start(context: StudyContext, given: TrialConfig, seed: int = 7) -> TrialRun:
    return start_run(given, context, seed)[0]


def lessons(run: TrialRun, epoch: int = 0) -> list[tuple[Batch, Asked]]:
    """All batches of an epoch of the main phase."""
    return list(run.loop._feeding[run.loop.phases[-1].name].lessons(epoch))


def teacher_of(context: StudyContext) -> Any:
    return context.sources.online(context.prerequisites.teacher()).network


# --- what an image teaches -----------------------------------------------------------------------------------------


def lesson(labels: Tensor, mixed: Mixed | None = None, partly: bool = True) -> Lesson:
    return Lesson(labels, torch.arange(len(labels)), mixed=mixed, partly_labelled=partly)


@pytest.mark.parametrize("weighed", [False, True])
def test_labels_teach_on_labelled_images_alone(weighed: bool) -> None:
    logits = torch.randn(7, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([2, UNLABELLED, 0, UNLABELLED, UNLABELLED, 3, UNLABELLED])
    weights = torch.rand(7, dtype=torch.float64) if weighed else None
    each = [
        cross_entropy(row, label) * (float(weights[i]) if weights is not None else 1.0)
        for i, (row, label) in enumerate(zip(logits.tolist(), labels.tolist(), strict=True))
        if label != UNLABELLED
    ]
    found = lesson(labels).label_loss(logits, weights)
    found.backward()
    assert found.item() == pytest.approx(mean(each), rel=1e-12)
    assert (logits.grad[labels == UNLABELLED] == 0).all()
    assert (logits.grad[labels != UNLABELLED] != 0).any(dim=1).all()


def test_a_batch_without_labels_teaches_nothing_of_them() -> None:
    logits = torch.randn(3, 4, requires_grad=True)
    found = lesson(torch.full((3,), UNLABELLED)).label_loss(logits)
    found.backward()
    assert found.item() == 0
    assert (logits.grad == 0).all()


def test_labels_of_mixed_images_count_by_their_shares() -> None:
    """Each label is an image's own once and a partner's once: the mean is over the labels."""
    logits = torch.randn(5, 3, dtype=torch.float64)
    labels, share = torch.tensor([1, UNLABELLED, UNLABELLED, 2, 0]), 0.3
    mixed = Mixed(labels.roll(1), torch.tensor(share, dtype=torch.float64))
    total = sum(
        part * cross_entropy(row, label)
        for i, row in enumerate(logits.tolist())
        for part, label in ((share, int(labels[i])), (1 - share, int(labels[i - 1])))
        if label != UNLABELLED
    )
    assert lesson(labels, mixed).label_loss(logits).item() == pytest.approx(total / 3, rel=1e-12)


@pytest.mark.parametrize("mixing", ["none", "mixup", "cutmix"])
def test_terms_teach_on_all_images_by_hand(mixing: str, context: StudyContext) -> None:
    run = start(context, config(3, mixing=mixing))
    scheme, teacher = run.scheme.train(), teacher_of(context)
    for batch, asked in lessons(run)[:3]:
        taps = scheme.taught.taps(batch.images)
        loss, terms = scheme.taught.learn(batch, asked, taps=taps)
        own = taps.logits.double().tolist()
        with torch.no_grad():
            said = teacher(batch.images).double().tolist()
        rows = zip(said, own, strict=True)
        apart = mean([16 * divergence(softened(t, 4.0), softened(s, 4.0)) for t, s in rows])
        labels = batch.labels.tolist()
        shares = (
            (1.0, 0.0) if batch.mixed is None else (float(batch.mixed.share), 1 - float(batch.mixed.share))
        )
        parts = [
            part * cross_entropy(row, label)
            for i, row in enumerate(own)
            for part, label in zip(shares, (labels[i], labels[i - 1]), strict=True)
            if label != UNLABELLED
        ]
        ce = sum(parts) / sum(label != UNLABELLED for label in labels)
        assert 0 < sum(label != UNLABELLED for label in labels) < len(labels)
        assert terms["logits"].item() == pytest.approx(apart, rel=2e-3)  # half precision of the bank
        assert terms["ce"].item() == pytest.approx(ce, rel=1e-5)
        assert loss.item() == pytest.approx(
            ce + run.scheme.taught.objective.weights[0].item() * apart, rel=2e-3
        )


def test_an_epoch_has_all_labelled_images_and_the_next_of_the_others(context: StudyContext, data) -> None:
    run = start(context, config(2))
    train = data.train.labels
    seen: Counter[bytes] = Counter()
    for epoch in range(EPOCHS):
        batches = [batch for batch, _ in lessons(run, epoch)]
        assert [len(batch.index) for batch in batches] == [32] * 11 + [8]
        index = torch.cat([batch.index for batch in batches])
        labels = torch.cat([batch.labels for batch in batches])
        assert sorted(index.tolist()) == list(range(3 * N))
        assert torch.equal(labels[index < N], train[index[index < N]])
        assert (labels[index >= N] == UNLABELLED).all()
        assert all(batch.partly_labelled and batch.known for batch in batches)
        plain = start(context, config(0, augmentation="none"))
        assert not any(batch.partly_labelled for batch, _ in lessons(plain, epoch))
    shown = start(context, config(2, augmentation="none"))
    for epoch in range(2):
        for batch, _ in lessons(shown, epoch):
            for image in batch.images[batch.labels == UNLABELLED]:
                seen[(image * 255).round().to(torch.uint8).numpy().tobytes()] += 1
    # Four blocks of 120: three hold the 300 images, and the first 60 again; the fourth is the first again.
    assert set(seen) == {image.numpy().tobytes() for image in data.unlabelled}
    assert sorted(seen.values()) == [1] * 180 + [2] * 60 + [3] * 60


# --- what is remembered --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cache", ["", "cache"])
def test_what_is_remembered_is_what_the_teacher_says_of_each_position(cache: str, folder, data) -> None:
    context = opened(folder, data, cache and f"{cache} of positions")
    run = start(context, config(3, LOGITS, KnowledgeTerm("hint", pairs="all")))
    teacher = teacher_of(context)
    for epoch in (0, 2, 1):
        for batch, (logits, maps) in lessons(run, epoch):
            with torch.no_grad():
                taps = teacher.taps(batch.images)
            torch.testing.assert_close(logits["logits"], taps.logits, rtol=2e-3, atol=2e-3)
            assert len(maps) == 2
            for number, stage in enumerate(taps.stages):
                torch.testing.assert_close(maps[f"stage_{number}"], stage.tensor, rtol=2e-3, atol=2e-3)


def test_few_and_many_share_what_is_remembered(folder, data) -> None:
    context = opened(folder, data, "shared")
    spent = {}
    for unlabelled in (1, 3, 2, 0):
        run = start(context, config(unlabelled))
        run.advance(EPOCHS)
        assert run.asked_images == EPOCHS * N * (1 + unlabelled)
        spent[unlabelled] = run.forward_images
    # Blocks of 120 of 300 images: 1 needs the first 3, 3 needs 9 of which 3 are there, the others find all.
    assert spent == {1: N * (EPOCHS + 3), 3: N * 6, 2: 0, 0: 0}
    again = start(opened(folder, data, "shared"), config(3))
    again.advance(EPOCHS)
    assert again.forward_images == 0
    assert len(again.bank_bytes()) == 2
    other = start(opened(folder, replace(data, unlabelled_hash="others"), "shared"), config(1))
    other.advance(1)
    assert other.forward_images == N, "the labelled images' are found, those of other images are not"


def test_studies_that_show_few_and_many_views_share_no_block_of_which_they_show_others(folder, data) -> None:
    """The row of unlabelled images ends within a block, which begins it again with their next views."""
    said = {}
    for order in ((2, 5), (5, 2)):
        for views in order:
            there = start(opened(folder, data, cache=f"views {order[0]} first", views=views), config(3))
            for _, asked in lessons(there, epoch=0) + lessons(there, epoch=1):
                said.setdefault((order, views), []).append(asked[0])
    for views in (2, 5):
        for one, other in zip(said[(2, 5), views], said[(5, 2), views], strict=True):
            assert all(torch.equal(one[name], other[name]) for name in one)


def test_joined_columns_are_gathered_as_one_by_one() -> None:
    """On a GPU they are joined; here they stay where they are."""
    maps = [torch.randn(N, 3, 4, 4) for _ in range(3)]
    kinds = {
        "plain": [torch.randn(N, 5).half(), torch.randn(N, 5), torch.randn(N, 5).half()],
        "maps": [m.contiguous(memory_format=torch.channels_last) for m in maps],
        "packed": [EightBits.of(m) for m in maps],
    }
    for index in (torch.randperm(3 * N)[:50], torch.arange(N, N + 5)):
        for columns in kinds.values():
            found = gathered(columns, index, places_in(index, N, 3))
            assert torch.equal(found, in_use(joined(columns), index))


def test_a_device_that_nobody_waits_for_finds_the_same(folder, data) -> None:
    """There the columns of an epoch are joined, and a row is found by its number alone."""
    here, there = (start(opened(folder, data), config(2, LOGITS, KnowledgeTerm("rkd"))) for _ in range(2))
    (bank,) = there._sources
    assert isinstance(bank, PartlyLabelledBank)
    for epoch in (0, 1):
        expected = lessons(here, epoch)
        bank.source.device = torch.device("meta")  # any but a CPU
        assert equal([list(said) for _, said in lessons(there, epoch)], [list(said) for _, said in expected])
        bank.source.device = torch.device("cpu")


class Copies:
    """As on a GPU: what was copied once is not copied again."""

    def __init__(self) -> None:
        self.held: dict[Any, Any] = {}

    def of(self, columns: Mapping[Any, Any]) -> dict[Any, Any]:
        return {key: self.held.setdefault(key, column) for key, column in columns.items()}


class Remembered:
    """A bank of ten samples of which one number is known."""

    n_samples = 10

    def __init__(self, value: float, copies: Copies) -> None:
        self.value, self.copies, self.key = value, copies, object()
        self.source = SimpleNamespace(device=torch.device("meta"))  # any but a CPU

    def names_of(self, loss: Any) -> list[str]:
        return ["logits"]

    def filled(self, epoch: int, losses: Any) -> dict[str, Tensor]:
        return {"logits": torch.full((10, 1), self.value)}


def test_copies_on_a_device_are_of_the_bank_that_was_asked() -> None:
    """A training's bank goes with it, and the next one may lie where it lay. Two of the same columns share copies."""
    copies = Copies()
    for value in range(20):
        banks = (Remembered(value, copies), Remembered(-value, copies))
        for _ in range(2):
            bank = PartlyLabelledBank(*banks, unlabelled=1)
            (said,) = bank.summaries(torch.empty(2, 1, 8, 8), torch.tensor([3, 13]), 0, [object()])
            assert said["logits"].flatten().tolist() == [value, -value]
            del bank
        del banks
        assert len(copies.held) == value + 1


# --- bits and books ------------------------------------------------------------------------------------------------


def test_without_them_the_bits_are_those_of_a_study_that_has_none(
    folder, data, context: StudyContext
) -> None:
    plain = replace(data, unlabelled=None, unlabelled_hash="")
    without = opened(folder, plain, unlabelled=None)
    runs = [start(each, config(0)) for each in (context, without)]
    for run in runs:
        run.advance(EPOCHS)
    assert equal(runs[0].state_dict()["loop"], runs[1].state_dict()["loop"])
    assert runs[0].train_macs == runs[1].train_macs
    other = start(context, config(1))
    other.advance(EPOCHS)
    assert not equal(runs[0].scheme.state_dict(), other.scheme.state_dict())


def test_a_training_goes_on_with_the_same_bits(folder, data, context: StudyContext) -> None:
    given = config(2, *ALL_TERMS)
    straight, stopped = start(context, given), start(context, given)
    straight.advance(EPOCHS)
    stopped.advance(1)
    resumed = start(opened(folder, data), given)
    resumed.load_state_dict(through_a_file(copy.deepcopy(stopped.state_dict())))
    assert resumed.advance(EPOCHS) == straight.curve[-1]
    assert equal(resumed.state_dict()["loop"], straight.state_dict()["loop"])
    assert resumed.train_macs == straight.train_macs


def test_the_books_are_exact(folder, data) -> None:
    context = opened(folder, data)
    teacher = context.sources.online(context.prerequisites.teacher()).macs
    for unlabelled in (0, 1, 3):
        run = start(context, config(unlabelled))
        macs, each = run.cost.macs, N * (1 + unlabelled)
        run.advance(EPOCHS)
        assert run.train_macs == EPOCHS * (each * (3 * macs + teacher) + len(data.val) * macs)
        price = context.designs.training_macs(config(unlabelled))
        assert price.own == EPOCHS * (each * 3 * macs + len(data.val) * macs)
        assert sum(price.shared.values()) == EPOCHS * each * teacher
        mixed = context.designs.training_macs(config(unlabelled, mixing="mixup"))
        assert mixed.own == price.own + EPOCHS * each * teacher
    few, many = (context.designs.training_macs(config(unlabelled)).shared for unlabelled in (1, 3))
    assert few.items() < many.items(), "what few need is a part of what many need"


def test_a_teacher_that_is_named_twice_is_paid_for_once(folder, data) -> None:
    """Its two terms hear one memory of it."""
    once, twice = (start(opened(folder, data), given) for given in (named(1), named(2)))
    for run in (once, twice):
        run.advance(1)
    assert once.forward_images == twice.forward_images == 2 * N
    assert once.spent_macs == twice.spent_macs


def named(times: int) -> TrialConfig:
    """Taught by its one teacher, under as many names of sources."""
    terms = tuple(replace(LOGITS, source=i) for i in range(times))
    given = config(1)
    return replace(
        given, distillation=replace(given.distillation, terms=terms, teachers=("teacher",) * times)
    )


def test_a_price_ends_where_the_views_of_the_images_end(folder, data) -> None:
    few = opened(folder, data, views=1)
    teacher = few.sources.online(few.prerequisites.teacher()).macs
    shared = few.designs.training_macs(config(7, batch_size=32)).shared
    # One view of the labelled images, and the three blocks of the others.
    assert sum(shared.values()) == (1 + 3) * N * teacher
    run = start(few, config(7))
    run.advance(EPOCHS)
    assert run.forward_images == (1 + 3) * N


def test_the_reference_of_costs_knows_of_the_largest_number() -> None:
    cost = Cost(1000, 10, 40)
    designs = [Measured(config(r), cost, 1, 8, 10) for r in (0, 3, 1)]
    assert most_train_macs(Outlook(designs, 10, N, 2)) == 4 * most_train_macs(Outlook(designs[:1], 10, N, 2))


# --- who may have them ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", [card.name for card in SCHEMES if card.unlabelled])
def test_schemes_whose_card_says_so_train_with_them(scheme: str, context: StudyContext) -> None:
    """No loss takes an unlabelled image for one of a class: cross-entropy is what it is on labelled images alone."""
    given = config(1, scheme=scheme, epochs=2, batch_size=64)
    run = start(context, given)
    run.advance(2)
    assert run.asked_images == 2 * N * 2
    assert all(0 < row["ce"] < 3 for row in run.curve)
    assert not problems(measured(settle(given, SPEC)), SPEC)


def measured(given: TrialConfig) -> Measured:
    return Measured(given, Cost(1000, 100, 400), 1, 8, 10)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (config(1, scheme="cs_kd"), "scheme 'cs_kd' needs a label of each image"),
        (config(1, scheme="kdcl"), "scheme 'kdcl' needs a label of each image"),
        (config(1, KnowledgeTerm("dkd")), "knowledge 'dkd' needs labels"),
        (config(1, KnowledgeTerm("nkd"), LOGITS), "knowledge 'nkd' needs labels"),
        (config(1, KnowledgeTerm("crd")), "knowledge 'crd' needs labels"),
        (config(1, KnowledgeTerm("tf_kd"), LOGITS), "knowledge 'tf_kd' needs labels"),
        (config(7, batch_size=15), "unlabelled = 7 needs batches of at least 16"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_taught_so_is_turned_away(given: TrialConfig, why: str) -> None:
    (found,) = problems(measured(settle(given, SPEC)), SPEC)
    assert why in found
    without = replace(given, distillation=replace(given.distillation, unlabelled=0))
    assert problems(measured(settle(without, SPEC)), SPEC) == []


def test_where_nobody_is_asked_they_mean_nothing() -> None:
    """So that equal trainings have one name, and designs of earlier versions keep theirs."""
    labels = TrialConfig(STUDENT, DistillationSpec(unlabelled=3))
    asks_nobody = config(3, KnowledgeTerm("label_smoothing"))
    for given in (labels, asks_nobody):
        settled = settle(given, SPEC)
        assert settled.distillation.unlabelled == 0
        without = replace(given, distillation=replace(given.distillation, unlabelled=0))
        assert settled.config_id == settle(without, SPEC).config_id
    asks = settle(config(3), SPEC)
    assert asks.distillation.unlabelled == 3
    assert asks.config_id != settle(config(0), SPEC).config_id
    assert TrialConfig.from_dict(asks.to_dict()) == asks
    assert "unlabelled" not in config(0).to_dict()["distillation"]
    nowhere = replace(SPEC, data=replace(SPEC.data, unlabelled=None))
    assert settle(config(3), nowhere) == settle(config(0), nowhere)


def test_a_study_without_a_teacher_has_nobody_to_speak_of_them() -> None:
    with pytest.raises(ValueError, match="a teacher alone speaks of"):
        replace(SPEC, teacher=None)
    alone = replace(SPEC, teacher=None, data=replace(SPEC.data, unlabelled=None))
    for given in (config(3), TrialConfig(STUDENT, DistillationSpec(unlabelled=3))):
        with pytest.raises(UnknownNameError, match="study file has no"):
            settle(given, alone)


def test_a_training_in_a_study_without_them_says_so(folder, data) -> None:
    plain = opened(folder, replace(data, unlabelled=None, unlabelled_hash=""))
    with pytest.raises(InputError, match=r"has no data\.unlabelled"):
        start(plain, config(1))


class Fixed:
    """A trial that takes what it is told, and the first choice of what it is not."""

    def __init__(self, **values: Any) -> None:
        self.values, self.asked = values, list[str]()

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        self.asked.append(name)
        return self.values.get(name, choices[0])

    def suggest_float(self, name: str, low: float, high: float, **_: Any) -> float:
        return low

    def suggest_int(self, name: str, low: int, high: int, **_: Any) -> int:
        return low


def test_a_space_searches_how_many_there_are() -> None:
    trial = Fixed(**{"kd.unlabelled": 3, "kd.response": "dkd"})
    found = suggest_teaching(trial, "more-images-1", unlabelled=(0, 1, 3, 7))
    assert found.unlabelled == 3
    assert [term.kind for term in found.terms] == ["logits"], "dkd needs labels"
    responses = {card.name for card in KNOWLEDGE if card.family == "response"}
    assert {name for name in responses if KNOWLEDGE[name].needs_labels} == NEED_LABELS
    without = Fixed(**{"kd.response": "dkd"})
    assert [t.kind for t in suggest_teaching(without, "more-images-1").terms] == ["dkd"]
    assert "kd.unlabelled" not in without.asked


def test_models_of_designs_see_how_many_there_are() -> None:
    shown = [describe(config(r), {}).get("images for each labelled one", 0.0) for r in (0, 1, 3)]
    assert shown == [0.0, pytest.approx(0.69315, rel=1e-4), pytest.approx(1.38629, rel=1e-4)]
