"""Linear probing, then fine-tuning: what learns when, and what the terms know of the time."""

from dataclasses import replace

import pytest
import torch
from small_studies import design, small_context

from naskd.nn.deployed import linear_head
from naskd.spec.design import KnowledgeTerm, TrialConfig
from naskd.trials.context import StudyContext
from naskd.trials.run import TrialRun, start_run


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    return small_context(tmp_path_factory.mktemp("head_first"))


def head_first(*terms: KnowledgeTerm, epochs: int, share: float) -> TrialConfig:
    config = design(*terms, epochs=epochs)
    how = replace(config.distillation, scheme="head_first", scheme_options=(("share", share),))
    return replace(config, distillation=how)


def start(context: StudyContext, config: TrialConfig) -> TrialRun:
    return start_run(config, context, seed=4)[0]


def test_the_classifier_learns_alone_and_then_everything_does(context: StudyContext) -> None:
    run = start(context, head_first(KnowledgeTerm("logits"), epochs=3, share=0.3))
    network = run.scheme.taught.network
    head = linear_head(network)
    moved = []
    for _ in range(2):
        before = {name: value.clone() for name, value in network.state_dict().items()}
        run.loop.run_epoch()
        moved.append({name for name, value in network.state_dict().items() if not value.equal(before[name])})
    own = {name for name, value in network.named_parameters() if any(value is p for p in head.parameters())}
    assert moved[0] == own, "averages of BatchNorm neither"
    assert moved[1] > own


@pytest.mark.parametrize(("epochs", "share"), [(4, 0.5), (5, 0.3), (2, 0.9)])
def test_terms_begin_when_they_teach(context: StudyContext, epochs: int, share: float) -> None:
    """A term that is loud at first, such as ``information_flow``, is as loud as it is under ``offline``."""
    run = start(context, head_first(KnowledgeTerm("information_flow"), epochs=epochs, share=share))
    seen: list[float] = []
    objective = run.scheme.taught.objective
    objective.register_forward_pre_hook(lambda _, given: seen.append(given[2].progress))
    while run.loop.epoch < run.loop.total_epochs:
        run.loop.run_epoch()
    taught = epochs - run.scheme.head_epochs
    assert list(dict.fromkeys(seen)) == [epoch / taught for epoch in range(taught)]


def test_a_remembered_teacher_answers_each_batch_with_its_own_images(context: StudyContext) -> None:
    """What is asked keeps the epoch of the whole training, of which the views are."""
    config = head_first(KnowledgeTerm("logits"), epochs=4, share=0.5)
    run = start(context, config)
    asked = []
    scheme = run.scheme
    ask = scheme.taught.objective.summaries

    def noted(images: torch.Tensor, index: torch.Tensor, epoch: int, *rest: object) -> object:
        asked.append(epoch)
        return ask(images, index, epoch, *rest)

    scheme.taught.objective.summaries = noted
    while run.loop.epoch < run.loop.total_epochs:
        run.loop.run_epoch()
    assert set(asked) == {2, 3}
