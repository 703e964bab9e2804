"""A user's losses: one that goes well, one that a test holds in the middle, and some that go wrong in the second epoch.

All of them tell the test of each batch.
"""

import os
import resource
import signal

import torch
import torch.nn.functional as F
from watching import hold, n_processes, note

from naskd.knowledge import KNOWLEDGE, KnowledgeCard
from naskd.knowledge.base import KnowledgeLoss, KnowledgeOutput

BATCHES = 2
"""Of an epoch."""
HELD_AT = 2 * BATCHES
"""The first batch of the third epoch."""


class Calm(KnowledgeLoss):
    """The squared difference of the logits."""

    def __init__(self, term, student, teacher, given):
        super().__init__(term, student, teacher, given)
        self.name = f"{term.kind}-{student.stages[-1].channels}"
        self.batch = 0

    def summarise(self, teacher):
        return {"logits": teacher.logits.detach()}

    def student_tensors(self, student):
        return (student.logits,)

    def forward(self, student, teacher, lesson):
        term = F.mse_loss(student.logits, teacher["logits"])
        if not term.is_meta:  # when it is counted
            note(self.name, self.batch)
            term = self.act(term)
            self.batch += 1
        return KnowledgeOutput(term)

    def act(self, term):
        return term


class Held(Calm):
    """Waits for the test in a process that has trained it for two epochs."""

    def act(self, term):
        if self.batch == HELD_AT:
            hold(self.name)
        return term


class TurnsNan(Calm):
    def act(self, term):
        return term * float("nan") if self.batch >= BATCHES else term


class Raises(Calm):
    def act(self, term):
        if self.batch >= BATCHES:
            raise RuntimeError("the user's own mistake")
        return term


class EatsMemory(Calm):
    """Takes ever more memory, in a process that may take no more than 256 MiB more than it has."""

    def act(self, term):
        if self.batch >= BATCHES:
            soft, hard = resource.getrlimit(resource.RLIMIT_AS)
            with open("/proc/self/statm") as sizes:
                now = int(sizes.read().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (now + 2**28, hard))
            try:
                eaten = []
                while True:
                    eaten.append(torch.zeros(2**23))
            finally:
                resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        return term


class KillsItsWorker(Calm):
    """After an epoch, and in every later process at once: a retry that gets further would not count."""

    def act(self, term):
        if self.batch >= BATCHES or n_processes(self.name) > 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return term


for name, kind in {
    "calm": Calm,
    "held": Held,
    "turns_nan": TurnsNan,
    "raises": Raises,
    "eats_memory": EatsMemory,
    "kills_its_worker": KillsItsWorker,
}.items():
    KNOWLEDGE.register(
        KnowledgeCard(
            name, "response", "", "", "", kind, taps=("logits",), paper_weight=1.0, paper_setting=""
        )
    )
