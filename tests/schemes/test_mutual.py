import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from by_loops import divergence
from online_schemes import search, softmax, start
from small_studies import ALL_TERMS, STUDENT, by_scheme, design, small_context
from torch import Tensor, nn

from naskd.networks import FamilyCard
from naskd.nn.norm import Norm
from naskd.nn.quantized import Quantizer
from naskd.schemes.cohort import statistics_kept, widened
from naskd.schemes.mutual import MutualScheme, mutual_loss
from naskd.schemes.scheme import Batch, Phase
from naskd.spec.design import ArchitectureSpec, KnowledgeTerm
from naskd.spec.errors import InputError
from naskd.study.admission import problems
from naskd.testing.schemes import batches, update_by_hand
from naskd.training.loop import NonFiniteError
from naskd.trials.context import StudyContext
from naskd.trials.run import start_run


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    return small_context(tmp_path_factory.mktemp("mutual"), teacher=None)


@pytest.fixture(scope="module")
def with_teacher(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    return small_context(tmp_path_factory.mktemp("mutual"))


def begun(context: StudyContext, **options: float) -> tuple[MutualScheme, Phase, Batch]:
    scheme = start(context, "mutual", **options).scheme
    assert isinstance(scheme, MutualScheme)
    (phase,) = scheme.phases()
    return scheme.train(), phase, next(batches(context, phase))


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("peers", [2, 3, 4])
def test_the_loss_by_the_definition(peers: int, temperature: float) -> None:
    drawn = np.random.default_rng(peers).normal(0, 3, (peers, 5, 7))
    own, *others = torch.from_numpy(drawn)
    total = 0.0
    for image in range(5):
        for other in range(1, peers):
            said, mine = softmax(drawn[other, image], temperature), softmax(drawn[0, image], temperature)
            total += temperature**2 * divergence(said, mine) / (peers - 1) / 5
    assert mutual_loss(own, others, temperature).item() == pytest.approx(total, rel=1e-9)


def test_the_others_are_fixed() -> None:
    own, other = (torch.randn(4, 3, requires_grad=True) for _ in range(2))
    mutual_loss(own, [other], 2.0).backward()
    assert other.grad is None
    expected = 2.0 * ((own / 2).softmax(1) - (other / 2).softmax(1)) / 4
    torch.testing.assert_close(own.grad, expected.detach())


def test_who_agrees_with_all_has_nothing_to_learn() -> None:
    logits = torch.randn(4, 3, requires_grad=True)
    loss = mutual_loss(logits, [logits + 1.0, logits - 2.0])
    assert loss.item() == pytest.approx(0.0, abs=1e-6)


def test_the_loss_does_not_depend_on_the_order_of_the_others() -> None:
    own, *others = torch.randn(4, 5, 3)
    torch.testing.assert_close(mutual_loss(own, others), mutual_loss(own, others[::-1]))


def test_the_first_move_is_cross_entropy_and_divergence(context) -> None:
    scheme, phase, batch = begun(context, weight=0.5, temperature=2.0)
    own, other = (peer.taps(batch.images).logits for peer in scheme.cohort.students)
    first = next(phase.step(batch, phase.ask(batch)))
    expected = nn.functional.cross_entropy(own, batch.labels) + 0.5 * mutual_loss(own, [other], 2.0)
    assert first.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert set(first.terms) == {"ce", "mutual"}


def test_who_has_moved_says_anew_what_it_thinks(context) -> None:
    """Algorithm 1: of three peers, the last one hears what the others think after their moves."""
    scheme, phase, batch = begun(context, peers=3)
    students = scheme.cohort.students
    before = [student.taps(batch.images).logits.detach() for student in students]
    for place, update in enumerate(phase.step(batch, phase.ask(batch))):
        said = [peer.taps(batch.images).logits.detach() for peer in students]
        fresh = mutual_loss(before[place], said[:place] + said[place + 1 :])
        key = f"peer{place}.mutual" if place else "mutual"
        assert update.terms[key].item() == pytest.approx(fresh.item(), rel=1e-4)
        if place:
            stale = mutual_loss(before[place], before[:place] + before[place + 1 :])
            assert update.terms[key].item() != pytest.approx(stale.item(), rel=1e-4)
        update_by_hand(scheme, phase, update)
    assert place == 2


def test_two_peers_are_exchanged_with_the_order_of_moves(context) -> None:
    """Nothing but the order tells them apart: the first move of one is the first move of the other."""
    scheme, phase, batch = begun(context)
    one, other = scheme.cohort.students
    first = next(phase.step(batch, phase.ask(batch)))
    kept = copy.deepcopy(one.network.state_dict())
    one.network.load_state_dict(other.network.state_dict())
    other.network.load_state_dict(kept)
    second = next(phase.step(batch, phase.ask(batch)))
    own, heard = (peer.taps(batch.images).logits for peer in (one, other))
    assert second.terms["mutual"].item() == pytest.approx(mutual_loss(own, [heard]).item(), rel=1e-5)
    assert second.loss.item() != first.loss.item()


def test_what_is_said_anew_counts_no_batch_twice(context) -> None:
    scheme, phase, batch = begun(context)
    seen_once = copy.deepcopy(scheme.cohort)
    for student in seen_once.students:
        student.taps(batch.images)
    for update in phase.step(batch, phase.ask(batch)):
        update_by_hand(scheme, phase, update)
    expected = dict(seen_once.named_buffers())
    found = {name: value for name, value in scheme.cohort.named_buffers() if "running" in name}
    assert found
    assert all(torch.equal(value, expected[name]) for name, value in found.items())
    norms = [m for m in scheme.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(norm.track_running_stats and norm.momentum == 0.1 for norm in norms)


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, Norm])
def test_statistics_are_kept_and_those_of_the_batch_are_used(kind: type[nn.BatchNorm2d]) -> None:
    norm, images = kind(3), torch.randn(8, 3, 4, 4) + 5
    before = copy.deepcopy(norm.state_dict())
    with statistics_kept(norm):
        found = norm(images)
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())
    torch.testing.assert_close(found, copy.deepcopy(norm)(images))


def test_ranges_of_rounded_maps_are_kept_too() -> None:
    """A batch that is shown once more, or that nothing is learned from, does not count for them."""
    rounding, images = Quantizer(), torch.randn(8, 3)
    with statistics_kept(rounding):
        assert torch.equal(rounding(images), images), "nothing is known yet"
    rounding(images)
    before = copy.deepcopy(rounding.state_dict())
    with statistics_kept(rounding):
        found = rounding(10 * images)
    assert all(torch.equal(value, before[name]) for name, value in rounding.state_dict().items())
    assert found.abs().max() <= images.abs().max() * 1.01
    rounding(10 * images)
    assert not torch.equal(rounding.bounds, before["bounds"])


def test_without_weight_each_learns_alone(context) -> None:
    alone = start(context, "mutual", weight=0.0)
    plain = start_run(design(), context, seed=2)[0]
    assert [alone.advance(e)["ce"] for e in (1, 2)] == [plain.advance(e)["ce"] for e in (1, 2)]
    heard = start(context, "mutual", weight=1.0)
    heard.advance(1)
    assert heard.advance(2)["ce"] != plain.curve[1]["ce"]


def test_all_peers_and_what_they_say_anew_are_booked(context) -> None:
    """Three forward passes for each of three peers, and two passes that nothing is learned from."""
    run = start(context, "mutual", peers=3)
    run.advance(1)
    macs, n_val = context.designs.design_cost(design()).macs, len(context.resources.data.val)
    assert run.train_macs == run.spent_macs == 120 * (3 * 3 + 2) * macs + n_val * macs
    assert run.cost == context.designs.design_cost(design())


def test_a_peer_may_be_wider(context) -> None:
    assert [s.width for s in widened(STUDENT, 2.0).stages] == [2 * s.width for s in STUDENT.stages]
    assert widened(STUDENT, 2.0).stem_width == 2 * STUDENT.stem_width
    assert [s.width for s in widened(STUDENT, 0.125).stages] == [1, 1]
    assert widened(STUDENT, 1.0) is STUDENT
    run = start(context, "mutual", peer_width=2.0)
    one, other = run.scheme.cohort.students
    assert other.cost == context.designs.design_cost(
        design().__class__(widened(STUDENT, 2.0), design().distillation, design().training)
    )
    assert run.cost == one.cost != other.cost
    run.advance(1)


def test_what_has_no_stages_cannot_be_widened() -> None:
    with pytest.raises(InputError, match="a 'tokens' has no stages to widen, and one of 2 times"):
        FamilyCard("tokens", "", "", "").widened(ArchitectureSpec(family="tokens"), 2.0)


def test_peers_differ_from_the_beginning(context) -> None:
    one, other = start(context, "mutual").scheme.cohort.students
    assert not torch.equal(one.network.head.weight, other.network.head.weight)


def test_a_teacher_teaches_all_and_is_asked_once(with_teacher) -> None:
    run = start(with_teacher, "mutual", *ALL_TERMS, peers=2)
    alone, _ = start_run(design(*ALL_TERMS), with_teacher, seed=2)
    metrics = run.advance(1)
    alone.advance(1)
    for term in ALL_TERMS:
        assert {term.kind, f"peer1.{term.kind}"} <= set(metrics)
    assert run.asked_images == alone.asked_images
    phase = run.scheme.phases()[-1]
    assert run.scheme.step_macs(32, phase)[1] == alone.scheme.step_macs(32, alone.scheme.phases()[-1])[1]


def test_each_hears_what_the_teacher_says_to_it_alone(with_teacher) -> None:
    """What is asked for all together is what each would have asked for."""
    scheme = start(with_teacher, "mutual", *ALL_TERMS, peers=3, peer_width=2.0).scheme
    (phase,) = scheme.phases()
    batch = next(batches(with_teacher, phase))
    asked = phase.ask(batch)
    for place, student in enumerate(scheme.cohort.students):
        for mine, own in zip(scheme.cohort.said(asked, place), student.ask(batch), strict=True):
            assert mine.keys() == own.keys()
            assert all(torch.equal(mine[name], own[name]) for name in own)


@pytest.mark.parametrize("kind", ["hint", "factor", "ab", "simkd"])
def test_terms_with_stages_of_their_own(kind, with_teacher) -> None:
    run = start(with_teacher, "mutual", KnowledgeTerm(kind))
    run.advance(run.total_epochs)
    assert len(run.curve) == run.total_epochs == 3
    assert any(name.startswith(f"peer1.{kind}") for name in {**run.curve[0], **run.curve[-1]})


def test_a_peer_that_diverges_ends_the_training(context) -> None:
    run = start(context, "mutual")
    other = run.scheme.cohort.students[1].network
    with torch.no_grad():
        other.head.weight.fill_(float("inf"))
    with pytest.raises(NonFiniteError, match="peer1"):
        run.advance(1)


def test_a_checkpoint_keeps_all_peers(context) -> None:
    run, again = (start(context, "mutual", peers=3) for _ in range(2))
    run.advance(1)
    again.load_state_dict(copy.deepcopy(run.state_dict()))
    state: dict[str, Tensor] = again.scheme.state_dict()
    assert any(name.startswith("cohort.members.2") for name in state)
    assert again.advance(2) == run.advance(2)


def test_an_option_out_of_range_is_turned_away(context) -> None:
    (found,) = problems(context.designs.measured(by_scheme("mutual", peers=5)), context.resources.spec)
    assert "option 'peers' of scheme 'mutual' is 5" in found


def test_a_search_chooses_it(tmp_path: Path) -> None:
    trials = search(tmp_path, "mutual").trials()
    found = {trial["config"]["distillation"]["scheme"] for trial in trials if trial["state"] == "COMPLETE"}
    assert found == {"offline", "mutual"}
