"""The contract of a knowledge loss."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naskd.knowledge import KNOWLEDGE
from naskd.knowledge.card import KnowledgeCard
from naskd.knowledge.precision import widened
from naskd.nn.taps import TappedNetwork, Taps, TapShapes
from naskd.spec.design import KnowledgeTerm
from naskd.spec.errors import InputError, undefined
from naskd.spec.places import at

Summary = Mapping[str, Tensor]
"""What a loss keeps of the teacher for a batch: tensors by name, each with the batch first.

The name says what the tensor is (``logits``, ``pooled``, ``stage_2``, ``attention_2``) and nothing else does:
under one name every loss, student and setting keeps the same values, so that a bank stores them once. Which
names are kept may depend on the student.
"""


@dataclass(frozen=True)
class TeacherParts:
    """Weights of a teacher that some losses read; copied, never trained by them.

    Args:
        head: Weight ``(K, D)`` and bias ``(K,)`` of the classifier that turns the pooled features into the logits;
            None where the network ends otherwise.
        norms: For each stage, shift (beta) and scale (gamma) ``(C,)`` of the BatchNorm before its pre-activation; None
            where it is not known.
        head_reads_mean: Whether what the classifier reads is the mean of the last stage; False where something comes
            between, such as a normalisation, even where both have the same length.
    """

    head: tuple[Tensor, Tensor] | None = None
    norms: tuple[tuple[Tensor, Tensor] | None, ...] = ()
    head_reads_mean: bool = True


NO_PARTS = TeacherParts()


@dataclass(frozen=True)
class LossInputs:
    """What a loss may be built from beyond the shapes of the taps; its card says what it needs.

    Args:
        parts: Of the teacher.
        n_samples: Of the training split, 0 where that is not known.
        teachers: Shapes of all teachers, for a loss of several; the first is the one that the term names.
    """

    parts: TeacherParts = NO_PARTS
    n_samples: int = 0
    teachers: tuple[TapShapes, ...] = ()


NOTHING_MORE = LossInputs()


@dataclass(frozen=True)
class Mixed:
    """The other labels of images that are made of two.

    Args:
        labels: ``(B,)`` class indices of the partners.
        share: Scalar in [0, 1], of an image's own label.
    """

    labels: Tensor
    share: Tensor


@dataclass(frozen=True)
class Lesson:
    """What a loss may read of a batch beyond the taps.

    Args:
        labels: ``(B,)`` class indices; negative where nobody says what is on an image: cross-entropy is 0 there.
        index: ``(B,)`` positions of the samples in the training split.
        progress: Share of the student's training that is done, in [0, 1); the same within an epoch.
        mixed: Where images are made of two. A loss whose card says that it needs labels or index is not trained then.
        partly_labelled: Whether there are unlabelled images, among others or alone, so that labels teach on the others
            at most. Such a loss is not trained then either.
        classes: ``(K,)`` booleans: the classes among which a label is told from others, its own always with them; None
            for all. The others have no gradient of cross-entropy.
        class_weights: ``(K,)`` factors of an image's cross-entropy by its class, of mean 1 over the training split;
            None where all count the same.
    """

    labels: Tensor
    index: Tensor
    progress: float = 0.0
    mixed: Mixed | None = None
    partly_labelled: bool = False
    classes: Tensor | None = None
    class_weights: Tensor | None = None

    def label_loss(self, logits: Tensor, weights: Tensor | None = None) -> Tensor:
        """Mean cross-entropy of logits ``(B, K)`` over the labelled images; 0 where there is none among others.

        Of mixed images too this is the mean over the labels: each image is a partner once, so that the shares of a
        label add up to 1.

        Args:
            logits: Of the batch.
            weights: ``(B,)`` factors of each image's.
        """
        each = self.cross_entropy(logits)
        if weights is not None:
            each = each * weights
        return self._mean(each)

    def reference_loss(self, logits: Tensor) -> Tensor:
        """What ``balanced`` terms are weighed against: :meth:`label_loss`, of made-up classes where no image has one.

        A student that knows nothing yet is as far from one class as from another, so that the gradient is as large.
        """
        if not self.partly_labelled:
            return self.label_loss(logits)
        made_up = torch.arange(len(self.labels), device=self.labels.device) % logits.shape[1]
        some = (self.labels >= 0).any()
        labels, mixed = torch.where(some, self.labels, made_up), self.mixed
        if mixed is not None:
            # A partner is the image before, see :mod:`naskd.data.mixing`.
            mixed = replace(mixed, labels=torch.where(some, mixed.labels, made_up.roll(1, 0)))
        return replace(self, labels=labels, mixed=mixed).label_loss(logits)

    def even_loss(self, logits: Tensor) -> Tensor:
        """As :meth:`label_loss`, with labels that call all classes equally likely: for who smooths labels.

        Images without a label have none to be smoothed. An image counts as its label does, and a label is spread over
        the classes among which it is told apart.

        Args:
            logits: Of the batch, ``(B, K)``.
        """
        logs = F.log_softmax(self._told_apart(widened(logits)), dim=1)
        if self.classes is None:
            each = -logs.mean(dim=1)
        else:
            each = -torch.where(self.classes, logs, 0.0).sum(dim=1) / self.classes.sum()
        return self._mean(self._of_labels(lambda labels: each * (labels >= 0)))

    def cross_entropy(self, logits: Tensor) -> Tensor:
        """``(B,)`` of logits ``(B, K)``, weighted by class; of a mixed image, that with each label by its share."""
        logits = self._told_apart(logits)
        return self._of_labels(lambda labels: F.cross_entropy(logits, labels, reduction="none"))

    def _told_apart(self, logits: Tensor) -> Tensor:
        return logits if self.classes is None else logits.masked_fill(~self.classes, -torch.inf)

    def _of_labels(self, loss: Callable[[Tensor], Tensor]) -> Tensor:
        own = self._weighted(loss(self.labels), self.labels)
        if self.mixed is None:
            return own
        other = self._weighted(loss(self.mixed.labels), self.mixed.labels)
        return torch.lerp(other, own, self.mixed.share.to(own.dtype))

    def _mean(self, each: Tensor) -> Tensor:
        """Over the labels: ``(B,)``, 0 where there is none, to a scalar."""
        if not self.partly_labelled:
            return each.mean()
        return each.sum() / (self.labels >= 0).sum().clamp(min=1)

    def _weighted(self, each: Tensor, labels: Tensor) -> Tensor:
        if self.class_weights is None:
            return each
        # Where there is no label, the loss is 0.
        return each * self.class_weights[labels.clamp(min=0)].to(each.dtype)


@dataclass(frozen=True)
class KnowledgeOutput:
    """One term of the loss.

    Args:
        term: Scalar, unweighted.
        label_weights: ``(B,)`` factors of each sample's cross-entropy with the label, or None where the loss
            leaves the labels alone (conditional distillation does not).
    """

    term: Tensor
    label_weights: Tensor | None = None

    def __post_init__(self) -> None:
        require_scalar(self.term, "the term of a KnowledgeOutput")


def require_scalar(value: object, what: str) -> None:
    """Refuse what nothing can be learned from: called where it is made, so that the line at fault is in the traceback.

    Raises:
        TypeError: It is no tensor, or one of several numbers.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{what} is {type(value).__name__}; wanted a tensor of one number")
    if value.ndim:
        raise TypeError(f"{what} has the shape {tuple(value.shape)}; wanted one number, such as its mean()")


class KnowledgeLoss(nn.Module):
    """A thin class over a pure function.

    A loss sees the student's taps and a *summary* of the teacher's, never the teacher: what :meth:`summarise`
    returns is all that a knowledge bank has to store. It builds its adapters from shapes alone; they are
    trained with the student, and never counted in its cost unless the card says ``deployed``.

    A loss computes in float32 at least, under autocast too; its value does not depend on the order of the
    batch; and it never waits for the device (no ``item``, no branch on a value). In evaluation mode it is a pure
    function: memories are read and not written, and what is drawn at random in training is fixed or left out.

    Args:
        term: The searched settings; ``term.kind`` names the card.
        student: Shapes of its taps.
        teacher: Shapes of its taps. A loss that needs no teacher ignores it.
        given: What else the card asks for.

    Raises:
        ValueError: The kind is not registered, an option is unknown or out of range, the two networks
            cannot be matched, or the teacher lacks what the card needs.
    """

    card: KnowledgeCard
    draws: bool = False
    """Whether it hears one of several teachers about each image, drawn evenly, instead of all of them. Then the names
    in its summary are those of one teacher."""

    def __init__(
        self, term: KnowledgeTerm, student: TapShapes, teacher: TapShapes, given: LossInputs = NOTHING_MORE
    ) -> None:
        super().__init__()
        self.card = KNOWLEDGE[term.kind]
        self.settings = term
        stages = [len(student.stages)] + [len(teacher.stages)] * self.card.needs_teacher
        problems = self.card.problems(term, n_stages=min(stages))
        if self.card.needs_teacher_head and given.parts.head is None:
            problems.append(
                f"knowledge {term.kind!r} needs a teacher whose logits are a linear function of its pooled features"
            )
        if self.card.needs_index and given.n_samples < 1:
            problems.append(f"knowledge {term.kind!r} needs to know the number of training samples")
        problems += self.card.few_teachers(len(given.teachers))
        if problems:
            raise InputError("; ".join(problems))

    def summarise(self, teacher: Taps) -> Summary:
        """What the loss needs of the teacher, one row a sample, detached; see :data:`Summary`.

        Empty for a loss that needs no teacher.
        """
        raise undefined(self, "summarise")

    def student_tensors(self, student: Taps) -> tuple[Tensor, ...]:
        """The student's tensors that the loss reads, and that its gradient reaches.

        Here ``balanced`` compares the gradient of the loss with cross-entropy's.
        """
        raise undefined(self, "student_tensors")

    def forward(self, student: Taps, teacher: Summary, lesson: Lesson) -> KnowledgeOutput:
        """The loss of a batch.

        Args:
            student: The student's taps.
            teacher: What :meth:`summarise` returned for the same images. For a loss of several teachers, the names
                are ``<i>/<name>``, with i the position in ``given.teachers``.
            lesson: Labels and index of the batch.

        Returns:
            Finite, with finite gradients, for every ``B >= 1``; below ``card.min_batch`` the term is 0.
        """
        raise undefined(self, "forward")

    # --- how it is called -------------------------------------------------------------------------------------

    def term_of(self, student: Taps, teacher: Summary, lesson: Lesson) -> KnowledgeOutput:
        """What :meth:`forward` returns, if it is an output.

        Raises:
            InputError: It is none.
        """
        found = self(student, teacher, lesson)
        if not isinstance(found, KnowledgeOutput):
            raise _returned(self, "forward", type(found).__name__, "a KnowledgeOutput")
        return found

    def usual_term(self, drawn: Tensor, student: Taps, teacher: Summary, lesson: Lesson) -> Tensor:
        """What ``balanced`` measures on the first batch: the term as it is on average.

        For a loss of which a step may leave out parts; of the others it is `drawn`, what :meth:`forward` found.
        """
        return drawn

    def read_of(self, student: Taps) -> tuple[Tensor, ...]:
        """What :meth:`student_tensors` returns, if it is tensors.

        Raises:
            InputError: It is none.
        """
        found = self.student_tensors(student)
        if not isinstance(found, tuple | list) or not all(isinstance(tensor, Tensor) for tensor in found):
            raise _returned(self, "student_tensors", type(found).__name__, "a tuple of tensors")
        return tuple(found)

    def renew(self, parts: TeacherParts) -> None:
        """Take over what the loss copied of a teacher's weights, from a teacher that has learned since.

        For a loss whose card says that it needs the teacher's head or norms; the others copy nothing.
        """

    # --- of a loss with an initial stage -----------------------------------------------------------------------

    def initial_term(self, teacher: Summary, lesson: Lesson) -> Tensor:
        """What the loss's own modules minimise in the initial stage, a scalar; for ``initial_stage = "modules"``."""
        raise undefined(self, "initial_term")

    def initial_modules(self) -> Sequence[nn.Module]:
        """Parts of the loss that are trained in its initial stage, and frozen afterwards."""
        return [self] if self.card.initial_stage == "term" else []

    def main_modules(self) -> Sequence[nn.Module]:
        """Parts of the loss that are trained beside the student."""
        return [] if self.card.initial_stage == "term" else [self]

    # --- of a loss whose adapter stays in the student ----------------------------------------------------------

    def deployed_taps(self, student: Taps) -> Taps:
        """The student's taps with the logits that the deployed network has."""
        return student

    def deploy(self, student: nn.Module) -> nn.Module:
        """The network that leaves: `student`, shared and not copied, with what stays of the loss.

        Args:
            student: Its classifier has been removed.
        """
        assert isinstance(student, TappedNetwork)
        return student


def summary_of(loss: KnowledgeLoss, teacher: Taps) -> Summary:
    """What a loss keeps of a teacher, if it is a summary.

    Raises:
        InputError: It is none.
    """
    found = loss.summarise(teacher)
    if not isinstance(found, Mapping) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise _returned(loss, "summarise", type(found).__name__, "tensors by name")
    n_rows = len(teacher.logits)
    for name, tensor in found.items():
        if not tensor.ndim or len(tensor) != n_rows:
            what = f"{name!r} of shape {tuple(tensor.shape)}"
            raise _returned(loss, "summarise", what, f"one row for each of the {n_rows} samples")
    return found


def _returned(loss: KnowledgeLoss, method: str, what: str, wanted: str) -> InputError:
    place = at(getattr(type(loss), method))
    return InputError(f"knowledge {loss.settings.kind!r}: {method} returned {what}; wanted {wanted}{place}")
