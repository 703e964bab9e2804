"""Who answers a training that is timed: as a full bank would, and the first time apart."""

import math

import torch
from small_studies import design, given, small_context

from naskd.knowledge import KNOWLEDGE
from naskd.knowledge.base import LossInputs
from naskd.spec.design import KnowledgeTerm


def loss_for(source):
    shapes = (source.shapes,) * 2
    term = KnowledgeTerm("logits")
    return KNOWLEDGE.load("logits")(term, *shapes, LossInputs(source.parts, 10, shapes))


def asked(context, n: int = 8):
    """A source, a loss, and how often the network was run after each of three questions, the last another one."""
    source = context.sources.rehearsed(context.prerequisites.teacher(), design().training)
    loss, images = loss_for(source), torch.rand(n, *context.resources.data.train.images.shape[1:])
    runs, said = [], []
    for index in (torch.arange(n), torch.arange(n), torch.arange(n, 2 * n)):
        said.append(source.summaries(images, index, 0, [loss])[0])
        runs.append(source.forward_images)
    return source, said, runs


def test_what_is_asked_again_is_remembered_and_the_first_time_is_timed(tmp_path) -> None:
    source, said, runs = asked(small_context(tmp_path))
    assert runs == [16, 16, 32]  # twice each: the first time something is found and chosen
    assert 0 < source.seconds_per_image < 1
    assert torch.equal(said[0]["logits"], said[1]["logits"])


def test_what_a_search_would_not_remember_is_asked_at_every_step(tmp_path) -> None:
    import dataclasses

    context = small_context(tmp_path)
    spec = context.resources.spec
    forgetful = dataclasses.replace(spec.execution, bank_bytes=0)
    source, _, runs = asked(given(context, spec=dataclasses.replace(spec, execution=forgetful)))
    assert runs == [8, 16, 24]
    assert math.isinf(source.seconds_per_image)
