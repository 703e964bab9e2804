"""A user's losses that never end from the second epoch on. A file of a study's ``modules``: it imports no test."""

import ctypes
import os
import signal
import time

import torch.nn.functional as F

from naskd.knowledge import KNOWLEDGE, KnowledgeCard
from naskd.knowledge.base import KnowledgeLoss, KnowledgeOutput
from naskd.spec import timeouts

if "HANGING_STUCK_SECONDS" in os.environ:
    timeouts.STUCK_SECONDS = float(os.environ["HANGING_STUCK_SECONDS"])

FIRST_BATCHES = 4
"""Of the first epoch."""


class Calm(KnowledgeLoss):
    """The squared difference of the logits."""

    batch = 0

    def summarise(self, teacher):
        return {"logits": teacher.logits.detach()}

    def student_tensors(self, student):
        return (student.logits,)

    def forward(self, student, teacher, lesson):
        term = F.mse_loss(student.logits, teacher["logits"])
        if not term.is_meta:  # when it is counted
            self.batch += 1
            if self.batch > FIRST_BATCHES:
                self.act()
        return KnowledgeOutput(term)

    def act(self):
        pass


class Sleeps(Calm):
    def act(self):
        while True:
            time.sleep(3600)


class Computes(Calm):
    """In C, which hears no signal, as a kernel that waits for a device."""

    def act(self):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        ctypes.CDLL(None).sleep(3600)


class HoldsTheLock(Calm):
    """In C, and no other thread of Python runs meanwhile."""

    def act(self):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        ctypes.PyDLL(None).sleep(3600)


for name, kind in {
    "calm": Calm,
    "sleeps": Sleeps,
    "computes": Computes,
    "holds_the_lock": HoldsTheLock,
}.items():
    KNOWLEDGE.register(
        KnowledgeCard(
            name, "response", "", "", "", kind, taps=("logits",), paper_weight=1.0, paper_setting=""
        )
    )
