"""Learning without Forgetting: Li & Hoiem, ECCV 2016; TPAMI 40(12), 2018, arXiv 1606.09282.

The classes come in tasks, one after the other, and each task is trained on the images of its own classes alone. A
frozen copy of the network as it was at the end of the task before says what it thinks of the new images, and the
network goes on saying it of the classes of before. With ``y_n`` the label, ``y_o`` what the copy says of the old
classes, and both softened by T (eq. 2 to 4; ``lambda_o`` is the option `weight`):
``L = -log p(y_n) + lambda_o * sum_old tasks H(y'_o, p'_o)``, ``y'_i = y_i^(1/T) / sum_j y_j^(1/T)``, which is
``softmax(z / T)``. Defaults are the paper's, T 2 and ``lambda_o`` 1. A weight of 0 is fine-tuning, which forgets; its
copy is asked nevertheless, so that both cost the same and the curve shows what is lost.

Differs: the paper adds a classifier for each task. Here the student has one classifier of all K classes from the
beginning, since that is what is deployed. With ``heads = "multi"`` each task has a softmax of its own over its part of
the logits, which is the paper's. With ``"single"`` there is one softmax over the classes of all tasks so far, as in the
variant ``LwF.MC`` of Rebuffi et al. (CVPR 2017, arXiv 1611.07725), which has a sigmoid for each class. A softmax of all
keeps the ratios among old classes, and not their level against new ones. The paper notes what the old network says of
each image once; here it is asked about the view that the student sees. The label term is the design's whole objective,
so that teachers of the study teach too, about all classes. Each task goes through the design's schedule with a fresh
optimizer and the design's weight decay; the paper's is 0.0005. Weights of classes have the mean 1 over each task's
images. BatchNorm follows the images of each task; the paper's networks have none.

Left out: the warm-up that trains the new classifier first. The paper finds that it matters for fine-tuning and little
for its own method, and here no classifier is new.

What is measured: Chaudhry, Dokania, Ajanthan, Torr: Riemannian walk for incremental learning. ECCV 2018,
arXiv 1801.10112, section 3. Differs: the best accuracy of before is taken since the task was learned.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from naskd.knowledge.precision import widened
from naskd.schemes.distilled import DistilledStudent, StudentScheme
from naskd.schemes.earlier_self import EarlierSelf, asked_online, equal_parts, heard_too
from naskd.schemes.scheme import Asked, Batch, Phase, SchemeInputs, Update
from naskd.spec.errors import InputError
from naskd.spec.seeds import derive_seed

EVALUATIONS = ("", "_seen")
"""How names of measures end: a task's images are told among its own classes, or among those of all tasks so far."""


def split_classes(n_classes: int, tasks: int, order: int) -> list[list[int]]:
    """The classes of each task: parts that differ by 1 at most, each in rising order.

    Args:
        n_classes: K.
        tasks: From 1 to K.
        order: 0 takes the classes as they are numbered; else the seed of their order.
    """
    classes = list(range(n_classes))
    if order:
        classes = np.random.default_rng(derive_seed("tasks", order)).permutation(n_classes).tolist()
    ends = list(accumulate(equal_parts(n_classes, tasks)))
    return [sorted(classes[start:end]) for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def old_tasks_loss(student: Tensor, earlier: Tensor, old: Sequence[Tensor], temperature: float) -> Tensor:
    """``sum_t -(1/B) sum_b sum_(i in t) y'_i log p'_i``: eq. 3 and 4, summed over the old tasks.

    Args:
        student: Logits ``(B, K)``.
        earlier: Logits ``(B, K)`` of the network of before, not differentiated.
        old: The classes of each softmax, ``(K_t,)`` indices.
        temperature: ``T > 0``, of both.
    """
    own, before = widened(student) / temperature, widened(earlier.detach()) / temperature
    each = [
        -(before[:, classes].softmax(dim=1) * own[:, classes].log_softmax(dim=1)).sum(dim=1)
        for classes in old
    ]
    return torch.stack(each).sum(0).mean()


def forgetting(reached: Sequence[Mapping[int, float]]) -> float:
    """``F_k = 1 / (k - 1) sum_(j < k) (max_(j <= l < k) a_lj - a_kj)``, eq. 3 of Chaudhry et al.

    In [-1, 1], below 0 where old tasks have become better; 0 of a first task, which has nothing to forget.

    Args:
        reached: After each task up to the k-th, the accuracies ``a_lj`` by task, from 0. A task without an accuracy has
            no images, and counts nowhere.
    """
    *before, now = reached
    lost = [
        max(row[task] for row in before if task in row) - now[task]
        for task in now
        if any(task in row for row in before)
    ]
    return sum(lost) / len(lost) if lost else 0.0


class LwfScheme(StudentScheme):
    """A student, and a copy of it as it was at the end of the task before.

    Raises:
        InputError: There are fewer classes, epochs or images than the tasks take.
    """

    task_of: Tensor

    def __init__(self, inputs: SchemeInputs) -> None:
        super().__init__(inputs)
        self.taught = DistilledStudent(inputs)
        self.earlier = EarlierSelf(self.taught.deployed)
        self.temperature = float(inputs.option("temperature"))
        self.weight = float(inputs.option("weight"))
        self.single = inputs.option("heads") == "single"
        n_classes, tasks = self.taught.shapes.n_classes, int(inputs.option("tasks"))
        self._check(n_classes, tasks)
        self.classes = split_classes(n_classes, tasks, int(inputs.option("order")))
        self.lengths = equal_parts(self.taught.epochs_of("main"), tasks)
        ends = accumulate(self.lengths, initial=self.taught.initial_epochs)
        self.ends = list(ends)[1:]
        """Epochs of the training after which each task is over."""
        self.measured = tuple(
            name + how
            for name in ("average_accuracy", "forgetting", *(_accuracy(task) for task in range(tasks)))
            for how in EVALUATIONS
        )
        device = next(self.taught.parameters()).device
        of = [next(t for t, group in enumerate(self.classes) if k in group) for k in range(n_classes)]
        self.register_buffer("task_of", torch.tensor(of, device=device), persistent=False)
        for task, classes in enumerate(self.classes):
            self.register_buffer(f"classes_{task}", torch.tensor(classes, device=device), persistent=False)
        self.samples = self._samples(of)

    def _check(self, n_classes: int, tasks: int) -> None:
        most, why = n_classes, f"{n_classes} classes"
        if not self.single and tasks > 1:
            most, why = n_classes // 2, f"{n_classes} classes, of which a task of heads = 'multi' takes two"
        epochs = self.taught.epochs_of("main")
        if epochs < most:
            most, why = epochs, f"{epochs} epochs, of which a task takes one"
        if tasks > most:
            raise InputError(f"scheme 'lwf' has tasks = {tasks}; allowed: from 1 to {most}: there are {why}")

    def _samples(self, of: Sequence[int]) -> list[Tensor | None]:
        """Positions in the training split of each task's images; None of a single task, which has them all."""
        if len(self.classes) == 1:
            return [None]
        labels = self.inputs.labels
        assert labels is not None, "a scheme of tasks needs to know the labels"
        task = labels.new_tensor(of)[labels]
        found = [(task == number).nonzero()[:, 0] for number in range(len(self.classes))]
        least = self.taught.objective.min_batch
        for number, positions in enumerate(found, start=1):
            if len(positions) < least:
                raise InputError(
                    f"scheme 'lwf': task {number} has {len(positions)} training images, classes "
                    f"{', '.join(map(str, self.classes[number - 1]))}; allowed: at least {least}, by fewer tasks or "
                    "another order"
                )
        return list(found)

    # --- training --------------------------------------------------------------------------------------------------

    def phases(self) -> tuple[Phase, ...]:
        """A term's initial stage, if there is one, on the images of the first task, and a phase a task."""
        taught = self.taught
        first = [replace(taught.phase(stage), samples=self.samples[0]) for stage in taught.stages[:-1]]
        return (*first, *map(self._phase, range(len(self.classes))))

    def _phase(self, task: int) -> Phase:
        step = partial(self._step, task)
        if task == 0:
            found = self.taught.phase("main", step=step)
        else:
            found = asked_online(
                self.taught.phase("main", step=step, ask=self._ask, before_epoch=self._begin)
            )
        return replace(found, name=f"task {task + 1}", epochs=self.lengths[task], samples=self.samples[task])

    def _begin(self, epoch: int) -> None:
        if epoch == 0:
            self.earlier.take(self.taught.deployed)

    def _ask(self, batch: Batch) -> Asked:
        return heard_too(self.taught.ask(batch), {"logits": self.earlier(batch.images)})

    def _step(self, task: int, batch: Batch, asked: Asked) -> Iterator[Update]:
        batch = replace(batch, classes=self._told_apart(task))
        if task == 0:
            yield Update("student", *self.taught.learn(batch, asked))
            return
        *asked, said = asked
        taps = self.taught.taps(batch.images)
        loss, terms = self.taught.learn(batch, asked, taps=taps)
        old = old_tasks_loss(self.taught.logits(taps), said["logits"], self._old(task), self.temperature)
        yield Update("student", loss + self.weight * old, {**terms, "old_tasks": old.detach()})

    def _told_apart(self, task: int) -> Tensor | None:
        """Among which classes the label of an image of a task is; None for all."""
        if len(self.classes) == 1:
            return None
        return self.task_of <= task if self.single else self.task_of == task

    def _old(self, task: int) -> list[Tensor]:
        """The classes of each softmax of the copy."""
        groups = [self.get_buffer(f"classes_{before}") for before in range(task)]
        return [torch.cat(groups)] if self.single else groups

    def step_macs(self, batch_size: int, phase: Phase) -> tuple[float, float]:
        """Of the student."""
        return self.taught.step_macs(batch_size, "initial" if phase.name == "initial" else "main")

    def forward_macs(self, batch_size: int, phase: Phase) -> float:
        """The pass of the copy, which is asked from the second task on."""
        return 0.0 if phase.name in ("initial", "task 1") else float(self.cost.unmerged_macs)

    # --- what is measured ------------------------------------------------------------------------------------------

    def measures(
        self, logits: Tensor, labels: Tensor, curve: Sequence[Mapping[str, float]]
    ) -> Mapping[str, float]:
        """Accuracy of each task so far, their mean, and what has been forgotten of the old ones; see `EVALUATIONS`.

        All are fractions. A task whose classes have no validation images is left out.
        """
        present = next(task for task, end in enumerate(self.ends) if len(curve) < end)
        rows = [curve[end - 1] for end in self.ends[:present]]
        found: dict[str, float] = {}
        for how, accuracies in zip(EVALUATIONS, self._accuracies(logits, labels, present), strict=True):
            named = {_accuracy(task) + how: value for task, value in accuracies.items()}
            reached = [
                {task: row[_accuracy(task) + how] for task in range(present) if _accuracy(task) + how in row}
                for row in rows
            ]
            found["forgetting" + how] = forgetting([*reached, accuracies])
            if accuracies:
                found["average_accuracy" + how] = sum(accuracies.values()) / len(accuracies)
            found |= named
        return {name: found[name] for name in self.measured if name in found}

    def _accuracies(self, logits: Tensor, labels: Tensor, present: int) -> list[dict[int, float]]:
        """By task so far: named right among the task's own classes, and among those of all tasks so far."""
        of = self.task_of[labels]
        allowed = (self.task_of == of[:, None], (self.task_of <= present).expand_as(logits))
        said = ~logits.isnan().any(1)  # where it is NaN, no class is named
        right = [said & (logits.masked_fill(~among, -torch.inf).argmax(1) == labels) for among in allowed]
        shown = [of, *(of[each] for each in right)]
        n, *hits = (torch.bincount(tasks, minlength=len(self.classes)).tolist() for tasks in shown)
        return [{t: hit[t] / n[t] for t in range(present + 1) if n[t]} for hit in hits]


def _accuracy(task: int) -> str:
    """Name of a task's accuracy; tasks are counted from 1 there."""
    return f"accuracy_task_{task + 1}"
