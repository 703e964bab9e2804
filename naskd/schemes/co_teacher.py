"""A co-teacher: a wider network of the student's design is trained from scratch beside it, and teaches it meanwhile.

Where no trained teacher is at hand, training one first costs its whole schedule before any student begins. Gou, Yu,
Maybank, Tao (Knowledge distillation: a survey. IJCV 2021, arXiv 2006.05525, section 3.2) call this online distillation.
The scheme is no single paper's: it is one direction of deep mutual learning (Zhang, Xiang, Hospedales, Lu, CVPR 2018,
arXiv 1706.00384), whose authors pair large and small networks too. In each batch the student minimises
``objective + weight T^2 KL(p_c || p_s)`` and the co-teacher ``CE_c + reverse T^2 KL(p_s || p_c)``. Both are asked
before either moves, and whoever teaches is fixed.

Defaults: twice as wide, ``T`` 4 and weight 1, as in Hinton's distillation, and nothing in the reverse direction. None
of them has been tuned.

The co-teacher learns from the labels, and from the student if asked to. Teachers of the study teach the student alone:
they are not needed here, and one that the co-teacher would copy adds nothing that the student could not hear itself. It
waits in an initial stage of a term. All that it costs is booked.
"""

from collections.abc import Iterator
from dataclasses import replace

from naskd.knowledge.comparison import soft_divergence
from naskd.schemes.cohort import widened
from naskd.schemes.distilled import DistilledStudent, StudentScheme
from naskd.schemes.scheme import Asked, Batch, Phase, SchemeInputs, Update, recordable
from naskd.spec.design import ArchitectureSpec


class CoTeacherScheme(StudentScheme):
    """A student, and a larger network that learns beside it.

    Args:
        inputs: Of the scheme.
        larger: Of that network; None for the student's own design, as many times as wide as the option says.
    """

    def __init__(self, inputs: SchemeInputs, larger: ArchitectureSpec | None = None) -> None:
        super().__init__(inputs)
        assert inputs.architecture is not None, "co-teachers are for students"
        self.temperature = float(inputs.option("temperature"))
        self.weight = float(inputs.option("weight"))
        self.reverse = float(inputs.option("reverse"))
        self.taught = DistilledStudent(inputs)
        if larger is None:
            larger = widened(inputs.architecture, float(inputs.option("peer_width")))
        labels = replace(inputs.distillation, terms=(), ce_weight=1.0)
        self.teacher = DistilledStudent(
            replace(inputs, distillation=labels, sources=(), architecture=larger),
            inputs.build_variant(larger),
        )

    def phases(self) -> tuple[Phase, ...]:
        """As offline, with the co-teacher as another player in the last one."""
        taught, teacher = self.taught, self.teacher
        main = taught.phase("main", step=self._step)
        main = replace(
            main,
            trained={**main.trained, "co_teacher": teacher.trained_in("main")},
            repeats=main.repeats and recordable(self._step, (teacher,)),
        )
        return (*(taught.phase(stage) for stage in taught.stages[:-1]), main)

    def _step(self, batch: Batch, asked: Asked) -> Iterator[Update]:
        taught, teacher = self.taught, self.teacher
        taps, said = taught.taps(batch.images), teacher.taps(batch.images)
        loss, terms = taught.learn(batch, asked, taps=taps)
        own, own_terms = teacher.learn(batch, (), taps=said)
        small, large = taught.logits(taps), teacher.logits(said)
        heard = soft_divergence(small, large.detach(), self.temperature).mean()
        back = soft_divergence(large, small.detach(), self.temperature).mean()
        yield Update("student", loss + self.weight * heard, {**terms, "co_teacher": heard.detach()})
        noted = {"co_teacher.ce": own_terms["ce"], "co_teacher.reverse": back.detach()}
        yield Update("co_teacher", own + self.reverse * back, noted)

    def step_macs(self, batch_size: int, phase: Phase) -> tuple[float, float]:
        """With the co-teacher."""
        if phase.name == "initial":
            return self.taught.step_macs(batch_size, "initial")
        trained, asked = self.taught.step_macs(batch_size)
        return trained + self.teacher.step_macs(batch_size)[0], asked
