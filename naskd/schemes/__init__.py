"""Schemes: which networks train together and who supervises whom. One file per scheme, registered here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from naskd.knowledge import KNOWLEDGE, needs_teacher
from naskd.schemes import prerequisites as needs
from naskd.schemes.prerequisites import Prerequisites
from naskd.spec.design import DistillationSpec, KnowledgeTerm
from naskd.spec.option import Option, OptionValue, canonical_options, option_problems
from naskd.spec.registry import Registry, imported
from naskd.spec.study import StudySpec

NO_TEACHER = "the design asks for knowledge, but the study file has no [teacher]"


@dataclass(frozen=True)
class SchemeCard:
    """The torch-free description of a scheme.

    Args:
        name: Name in search spaces.
        title: The field's name.
        paper: Authors, title, venue, year, arXiv number.
        implementation: ``"module:Class"`` of the :class:`~naskd.schemes.scheme.Scheme`, or the class.
        supervisor: Who answers a design's knowledge terms: ``teacher`` (teachers of the study, or assistants below
            them), ``trajectory`` (states of a teacher's own training, which must happen here), ``peers`` (networks that
            train together), ``self`` (the student, earlier or elsewhere in itself), ``none``.
        needs_teacher: Without a term that asks a teacher it is offline training.
        own_teaching: It asks the first of a design's teachers by a formula of its own. So it needs a teacher without
            any knowledge term, and takes none; nor does it take assistants or states of the teacher.
        min_stages: Fewest stages of the student.
        families: Network families of its students, where it reads their design; empty for all.
        unlabelled: Whether its students may be shown images beside the labelled ones of which only a teacher speaks:
            each of its losses is defined there, and none takes them for labelled.
        may_refuse: It may refuse a design for more than its losses, as one of too few epochs, and is built to see that
            before a trial.
        needs_labels: Some network that it trains would learn nothing without the labels, or a loss of its own is not
            defined without. False: each hears the teachers of the study, directly or through another.
        leaves_more: More or less leaves than the design's student, so that the scheme itself says what it costs.
        through_teacher: It runs layers of the teacher in its own steps, a cost that does not grow with the student.
        options: Further settings.
        apart: ``"module:Class"`` of the :class:`~naskd.schemes.apart.PeerScheme`, or the class, where peers may train
            apart. The scheme then has the options ``peers`` and ``peers_in``. "" where all train together.
        requires: ``"module:function"``, or a function, from a design's distillation and the study to its
            :class:`~naskd.schemes.prerequisites.Prerequisites`; "" for what follows from `supervisor`.
    """

    name: str
    title: str
    paper: str
    implementation: str | type[Any]
    supervisor: Literal["teacher", "trajectory", "peers", "self", "none"] = "teacher"
    needs_teacher: bool = False
    own_teaching: bool = False
    min_stages: int = 0
    families: tuple[str, ...] = ()
    unlabelled: bool = False
    may_refuse: bool = False
    needs_labels: bool = True
    leaves_more: bool = False
    through_teacher: bool = False
    options: Mapping[str, Option] = field(default_factory=dict)
    apart: str | type[Any] = ""
    requires: str | Callable[[DistillationSpec, StudySpec], Prerequisites] = ""

    def option(self, distillation: DistillationSpec, name: str) -> OptionValue:
        """The value of option `name` in a design, or its default."""
        value: OptionValue = dict(distillation.scheme_options).get(name, self.options[name].default)
        return value

    def trainings(self, distillation: DistillationSpec) -> int:
        """Trainings that one of a design consists of: 1, or as many as there are peers that train apart."""
        if not self.apart or self.option(distillation, "peers_in") != IN_TRIALS:
            return 1
        return int(self.option(distillation, "peers"))

    def scheme(self, place: int | None = None) -> Any:
        """Import what trains a design (this imports torch).

        Args:
            place: Of a peer that trains apart; None: what trains all of it.
        """
        return imported(self.implementation if place is None else self.apart)

    def trained_as(self, distillation: DistillationSpec) -> DistillationSpec:
        """The training of a design, whichever of its networks leaves: equal of all designs that it gives."""
        leaving = {name for name, option in self.options.items() if option.leaves}
        kept = tuple(pair for pair in distillation.scheme_options if pair[0] not in leaving)
        return replace(distillation, scheme_options=kept)

    @property
    def has_siblings(self) -> bool:
        """Whether one training may give several designs."""
        return any(option.leaves for option in self.options.values())

    def asks_teachers(self, distillation: DistillationSpec) -> bool:
        """Whether a design listens to teachers of the study."""
        asks = self.supervisor in ("teacher", "trajectory") and needs_teacher(distillation)
        return self.own_teaching or asks

    def prerequisites(self, distillation: DistillationSpec, study: StudySpec) -> Prerequisites:
        """What must exist before a design can be trained, and whom its student hears."""
        if self.requires:
            found: Prerequisites = imported(self.requires)(distillation, study)
            return found
        if self.own_teaching:
            return needs.first_teacher(distillation)
        if self.supervisor == "trajectory":
            return needs.trajectory(distillation, study, int(self.option(distillation, "anchors")))
        of = needs.teachers if self.supervisor == "teacher" else needs.nothing
        return of(distillation, study)

    def canonical(self, distillation: DistillationSpec) -> DistillationSpec:
        """The same training written in one way."""
        if self.needs_teacher and not needs_teacher(distillation):
            distillation = replace(distillation, scheme="offline", scheme_options=())
            return SCHEMES["offline"].canonical(distillation)
        options = canonical_options(self.options, distillation.scheme_options)
        written = replace(distillation, scheme_options=options)
        if self.own_teaching:
            return replace(_heard_only(written, asks=False), teachers=distillation.teachers[:1])
        return _heard_only(written, self.asks_teachers(distillation))

    def problems(
        self, distillation: DistillationSpec, *, n_stages: int, study: StudySpec | None = None
    ) -> list[str]:
        """Why a design cannot be trained by this scheme; empty when it can.

        Args:
            distillation: Of the design.
            n_stages: Of its student.
            study: What its teachers are; None where that is not asked.
        """
        found = option_problems(self.options, distillation.scheme_options, f"scheme {self.name!r}")
        if n_stages < self.min_stages:
            found.append(
                f"scheme {self.name!r} needs students of at least {self.min_stages} stages, got {n_stages}"
            )
        if self.supervisor == "trajectory" and distillation.assistants:
            found.append(f"scheme {self.name!r} follows the teacher's own training and takes no assistant")
        if self.supervisor == "trajectory" and distillation.teacher_state < 1:
            found.append(
                f"scheme {self.name!r} follows the teacher's own training and takes no single state of it"
            )
        if self.supervisor == "trajectory":
            several = [t.kind for t in distillation.terms if KNOWLEDGE[t.kind].several_teachers]
            if several or len(distillation.teachers) > 1:
                what = f"no knowledge of several, such as {several[0]!r}" if several else "no other"
                found.append(f"scheme {self.name!r} follows one teacher's own training and takes {what}")
        if distillation.unlabelled and not self.unlabelled:
            why = (
                "shows its student made images alone" if self.own_teaching else "needs a label of each image"
            )
            found.append(
                f"scheme {self.name!r} {why}, and distillation.unlabelled = {distillation.unlabelled} shows it "
                "images without"
            )
        if study is not None and study.data.modality is not None:
            if self.own_teaching:
                found.append(
                    f"scheme {self.name!r} makes images for teacher and student alike, and with data.modality they see "
                    "different ones"
                )
            elif self.needs_labels and not study.data.modality.labels:
                found.append(
                    f"scheme {self.name!r} needs labels for its student or for a network beside it, and "
                    "data.modality.labels is false"
                )
        if self.own_teaching and distillation.terms:
            kinds = ", ".join(dict.fromkeys(repr(term.kind) for term in distillation.terms))
            found.append(
                f"scheme {self.name!r} teaches by a formula of its own and takes no knowledge terms, got {kinds}"
            )
        return found + (self._teacher_problems(distillation, study) if study is not None else [])

    def _teacher_problems(self, distillation: DistillationSpec, study: StudySpec) -> list[str]:
        if not (self.asks_teachers(distillation) or self.needs_teacher):
            return []
        teacher = study.teacher_specs().get(distillation.teachers[0])
        if self.supervisor == "trajectory" and teacher is not None and not teacher.trained_here:
            return [f"scheme {self.name!r} needs a teacher that naskd trains, from an architecture"]
        return []


def _heard_only(distillation: DistillationSpec, asks: bool) -> DistillationSpec:
    """Without the names of teachers that nobody hears; terms that ask nobody point to the first name."""
    terms, names = distillation.terms, distillation.teachers
    if not asks:
        return replace(
            distillation,
            teachers=("teacher",),
            terms=tuple(replace(term, source=0) for term in terms),
            assistants=(),
            teacher_state=1.0,
            unlabelled=0,
        )
    asking = [term for term in terms if KNOWLEDGE[term.kind].needs_teacher]
    if any(KNOWLEDGE[term.kind].several_teachers for term in asking):
        heard = list(range(len(names)))
    else:
        heard = sorted({term.source for term in asking})
    place = {source: position for position, source in enumerate(heard)}

    def moved(term: KnowledgeTerm) -> KnowledgeTerm:
        return replace(term, source=place[term.source] if term in asking else 0)

    return replace(
        distillation,
        teachers=tuple(names[source] for source in heard),
        terms=tuple(moved(term) for term in terms),
        # Its state and the chain of assistants are the first teacher's.
        assistants=distillation.assistants if 0 in heard else (),
        teacher_state=distillation.teacher_state if 0 in heard else 1.0,
    )


SCHEMES: Registry[SchemeCard] = Registry("scheme")

RAMP = 80 / 300
"""Share of a training in which the weight of what networks say to each other grows: epochs of ONE and OKDDip."""

IN_TRIALS = "trials"
"""Value of the option ``peers_in`` of a design whose peers train apart."""

PEERS_IN = Option(
    "one_training",
    "where peers train: one_training, or each in a training of its own on any worker: trials",
    choices=("one_training", IN_TRIALS),
)

PEER_WIDTH = Option(1.0, "channels of a peer that stays behind, as a multiple of the student's", 0.125, 8.0)

DISCRIMINATOR_RATE = Option(2e-4, "peak learning rate of discriminators, by AdamW", above=0.0, free=True)

SCHEMES.register(
    SchemeCard(
        name="offline",
        title="offline distillation from frozen teachers, or plain training",
        paper="Hinton, Vinyals, Dean: Distilling the knowledge in a neural network. NIPS workshop 2014, "
        "arXiv 1503.02531",
        implementation="naskd.schemes.offline:OfflineScheme",
        needs_labels=False,
        unlabelled=True,
    )
)

SCHEMES.register(
    SchemeCard(
        name="rco",
        title="Route-constrained optimization: the teacher's own trajectory teaches",
        paper="Jin, Peng, Wu, Liu, Liu, Liang, Yan, Hu: Knowledge distillation via route constrained optimization. "
        "ICCV 2019, arXiv 1904.09149",
        implementation="naskd.schemes.rco:RcoScheme",
        needs_labels=False,
        unlabelled=True,
        supervisor="trajectory",
        needs_teacher=True,
        options={
            "anchors": Option(
                4, "states of the teacher, its last one included, at equal epoch intervals", 2, 16
            )
        },
    )
)
SCHEMES.register(
    SchemeCard(
        name="parameter_sharing",
        title="Rocket launching: a deeper booster learns on the student's lower layers",
        paper="Zhou, Fan, Cui, Bian, Zhu, Gai: Rocket launching: a universal and efficient framework for training "
        "well-performing light net. AAAI 2018, arXiv 1708.04106",
        implementation="naskd.schemes.parameter_sharing:ParameterSharingScheme",
        unlabelled=True,
        min_stages=2,
        families=("cnn",),
        options={
            "hint": Option(
                0.03, "weight of the squared distance between the two networks' logits", low=0.0, free=True
            ),
            "depth": Option(3, "blocks of a booster's own stage for each block of the student's", 1, 16),
        },
    )
)
SCHEMES.register(
    SchemeCard(
        name="adversarial",
        title="Adversarial distillation: a discriminator tells teacher from student, who learns to fool it",
        paper="Xu, Hsu, Huang: Training shallow and thin networks for acceleration via knowledge distillation with "
        "conditional adversarial networks. ICLR 2018 workshop, arXiv 1709.00513; Belagiannis, Farshad, Galasso: "
        "Adversarial network compression. ECCV 2018 workshops, arXiv 1803.10750",
        implementation="naskd.schemes.adversarial:AdversarialScheme",
        needs_labels=False,
        unlabelled=True,
        needs_teacher=True,
        options={
            "on": Option(
                "logits",
                "what the discriminator is shown: logits, or what the classifier reads",
                choices=("logits", "features"),
            ),
            "weight": Option(0.1, "of fooling the discriminator", low=0.0, free=True),
            "classes": Option(
                1.0, "weight of naming classes, against telling teacher from student", low=0.0, free=True
            ),
            "discriminator_rate": DISCRIMINATOR_RATE,
        },
    )
)
SCHEMES.register(
    SchemeCard(
        name="mutual",
        title="Deep mutual learning (DML): peers teach each other, in turn",
        paper="Zhang, Xiang, Hospedales, Lu: Deep mutual learning. CVPR 2018, arXiv 1706.00384",
        implementation="naskd.schemes.mutual:MutualScheme",
        needs_labels=False,
        unlabelled=True,
        options={
            "peers": Option(2, "networks that learn together, the one that leaves included", 2, 4),
            "temperature": Option(1.0, "softmax temperature of what peers say", above=0.0, free=True),
            "weight": Option(1.0, "of the mean divergence from the other peers", low=0.0, free=True),
            "peer_width": PEER_WIDTH,
        },
    )
)
SCHEMES.register(
    SchemeCard(
        name="kdcl",
        title="KDCL: peers learn from one ensemble of all of them",
        paper="Guo, Wang, Wu, Yu, Liang, Hu, Luo: Online knowledge distillation via collaborative learning. CVPR 2020",
        implementation="naskd.schemes.kdcl:KdclScheme",
        options={
            "peers": Option(2, "networks that learn together, the one that leaves included", 2, 4),
            "ensemble": Option(
                "minlogit",
                "what teaches the peers: the best of them, their best convex combination, the smallest logits "
                "beside the label's, or a combination by errors so far",
                choices=("naive", "linear", "minlogit", "general"),
                free=True,
            ),
            "temperature": Option(2.0, "softmax temperature of peers and ensemble", above=0.0, free=True),
            "weight": Option(1.0, "of the divergence from the ensemble", low=0.0, free=True),
            "peer_width": PEER_WIDTH,
        },
    )
)
SCHEMES.register(
    SchemeCard(
        name="one",
        title="ONE: branches on the student's lower stages learn from their gated ensemble",
        paper="Lan, Zhu, Gong: Knowledge distillation by on-the-fly native ensemble. NeurIPS 2018, arXiv 1806.04606",
        implementation="naskd.schemes.one:OneScheme",
        unlabelled=True,
        min_stages=2,
        families=("cnn",),
        options={
            "branches": Option(3, "last stages with a classifier, the student's included", 2, 8),
            "temperature": Option(3.0, "softmax temperature of branches and ensemble", above=0.0, free=True),
            "weight": Option(1.0, "of the divergence from the ensemble", low=0.0, free=True),
            "ramp": Option(
                RAMP, "share of the training in which that weight grows; 0 for none", 0.0, 1.0, free=True
            ),
        },
    )
)
SCHEMES.register(
    SchemeCard(
        name="okddip",
        title="OKDDip: peers learn from mixtures of their own, and a leader from their mean",
        paper="Chen, Mei, Wang, Feng, Chen: Online knowledge distillation with diverse peers. AAAI 2020, "
        "arXiv 1912.00350",
        implementation="naskd.schemes.okddip:OkddipScheme",
        unlabelled=True,
        options={
            "peers": Option(3, "auxiliary networks, which stay behind", 2, 4),
            "temperature": Option(3.0, "softmax temperature of peers and leader", above=0.0, free=True),
            "weight": Option(
                1.0, "of the divergence from the mixtures and from the mean", low=0.0, free=True
            ),
            "ramp": Option(
                RAMP, "share of the training in which that weight grows; 0 for none", 0.0, 1.0, free=True
            ),
            "peer_width": PEER_WIDTH,
        },
    )
)
SCHEMES.register(
    SchemeCard(
        name="ffl",
        title="FFL: networks and a classifier of their fused maps teach each other",
        paper="Kim, Hyun, Chung, Kwak: Feature fusion for online mutual knowledge distillation. ICPR 2020, "
        "arXiv 1904.09058",
        implementation="naskd.schemes.ffl:FflScheme",
        unlabelled=True,
        min_stages=1,
        options={
            "peers": Option(2, "networks whose maps are fused, the one that leaves included", 2, 4),
            "temperature": Option(
                3.0, "softmax temperature of networks and fused classifier", above=0.0, free=True
            ),
            "weight": Option(1.0, "of the divergences between them", low=0.0, free=True),
            "ramp": Option(
                RAMP, "share of the training in which that weight grows; 0 for none", 0.0, 1.0, free=True
            ),
            "peer_width": PEER_WIDTH,
        },
    )
)
SCHEMES.register(
    SchemeCard(
        name="co_teacher",
        title="Co-teacher: a wider network is trained beside the student, and teaches it meanwhile",
        paper="After Zhang, Xiang, Hospedales, Lu: Deep mutual learning. CVPR 2018, arXiv 1706.00384; the larger "
        "network teaches, and need not learn",
        implementation="naskd.schemes.co_teacher:CoTeacherScheme",
        unlabelled=True,
        options={
            "temperature": Option(4.0, "softmax temperature of what either says", above=0.0, free=True),
            "weight": Option(1.0, "of the student's divergence from the co-teacher", low=0.0, free=True),
            "reverse": Option(
                0.0, "weight of the co-teacher's divergence from the student", low=0.0, free=True
            ),
            "peer_width": Option(
                2.0, "channels of the co-teacher, as a multiple of the student's", 0.125, 8.0
            ),
        },
    )
)
SCHEMES.register(
    SchemeCard(
        name="codistillation",
        title="Codistillation: networks learn from stale copies of each other",
        paper="Anil, Pereyra, Passos, Ormandi, Dahl, Hinton: Large scale distributed neural network training through "
        "online distillation. ICLR 2018, arXiv 1804.03235",
        implementation="naskd.schemes.codistillation:CodistillationScheme",
        apart="naskd.schemes.codistillation:CodistillationPeer",
        needs_labels=False,
        unlabelled=True,
        may_refuse=True,
        options={
            "peers": Option(2, "networks that learn together, the one that leaves included", 2, 4),
            "peers_in": PEERS_IN,
            "exchange": Option(1, "epochs after which copies are refreshed", 1, 1000, free=True),
            "lag": Option(
                0,
                "exchanges by which copies are older than the last; 1 hardly has peers wait for each other",
                0,
                16,
                free=True,
            ),
            "burn_in": Option(0.2, "share of the training in which nobody listens", 0.0, 0.9, free=True),
            "temperature": Option(1.0, "softmax temperature of what copies predict", above=0.0, free=True),
            "weight": Option(1.0, "of the divergence from the mean of the copies", low=0.0, free=True),
        },
    )
)
SCHEMES.register(
    SchemeCard(
        name="online_afd",
        title="Online AFD: each network learns to have its last maps taken for another's by a discriminator",
        paper="Chung, Park, Kim, Kwak: Feature-map-level online adversarial knowledge distillation. ICML 2020, "
        "arXiv 2002.01775",
        implementation="naskd.schemes.online_afd:OnlineAfdScheme",
        unlabelled=True,
        min_stages=1,
        options={
            "peers": Option(2, "networks that learn together, the one that leaves included", 2, 4),
            "temperature": Option(3.0, "softmax temperature of what networks say", above=0.0, free=True),
            "weight": Option(1.0, "of the divergence from the network before it", low=0.0, free=True),
            "adversarial": Option(0.1, "weight of fooling the discriminator", low=0.0, free=True),
            "discriminator_rate": DISCRIMINATOR_RATE,
            "peer_width": PEER_WIDTH,
        },
    )
)
SCHEMES.register(
    SchemeCard(
        name="cheap_convolution",
        title="Cheap convolutions: the design with standard convolutions is trained beside it, and both teach",
        paper="Xie, Lin, Zhang, Luo: Training convolutional neural networks with cheap convolutions and online "
        "distillation. 2019, arXiv 1909.13063",
        implementation="naskd.schemes.cheap_convolution:CheapConvolutionScheme",
        unlabelled=True,
        options={
            "temperature": Option(4.0, "softmax temperature of what either says", above=0.0, free=True),
            "weight": Option(1.0, "of the student's divergence from the other network", low=0.0, free=True),
            "reverse": Option(
                1.0, "weight of the other network's divergence from the student", low=0.0, free=True
            ),
        },
    )
)

SCHEMES.register(
    SchemeCard(
        name="born_again",
        title="Born-again networks: each generation is taught by the one before it, of the same design",
        paper="Furlanello, Lipton, Tschannen, Itti, Anandkumar: Born-again neural networks. ICML 2018, "
        "arXiv 1805.04770",
        implementation="naskd.schemes.born_again:BornAgainScheme",
        needs_labels=False,
        unlabelled=True,
        options={
            "generations": Option(2, "networks that are trained in turn, in equal parts of the epochs", 2, 4)
        },
    )
)

SCHEMES.register(
    SchemeCard(
        name="tf_kd_self",
        title="Tf-KD_self: a copy of the student is trained first and teaches it",
        paper="Yuan, Tay, Li, Wang, Feng: Revisiting knowledge distillation via label smoothing regularization. "
        "CVPR 2020, arXiv 1909.11723",
        implementation="naskd.schemes.tf_kd_self:TfKdSelfScheme",
        needs_labels=False,
        unlabelled=True,
        options={
            "alpha": Option(
                0.95, "share of what the copy says, against the design's objective", 0.0, 1.0, free=True
            ),
            "temperature": Option(6.0, "softens what both say", above=0.0, free=True),
            "share": Option(0.5, "share of the epochs in which the copy is trained", 0.05, 0.95),
        },
    )
)
SCHEMES.register(
    SchemeCard(
        name="snapshot",
        title="Snapshot distillation: the student at the end of a learning-rate cycle teaches the next cycle",
        paper="Yang, Xie, Su, Yuille: Snapshot distillation: teacher-student optimization in one generation. "
        "CVPR 2019, arXiv 1812.00123",
        implementation="naskd.schemes.snapshot:SnapshotScheme",
        needs_labels=False,
        unlabelled=True,
        options={
            "generations": Option(2, "cycles of the learning rate, in equal parts of the epochs", 2, 16),
            "temperature": Option(2.0, "softens what the snapshot says", above=0.0, free=True),
            "weight": Option(1.0, "of the divergence from the snapshot", low=0.0, free=True),
        },
    )
)
SCHEMES.register(
    SchemeCard(
        name="self_kd",
        title="PS-KD: what the student said at the end of the last epoch softens the labels, more with every epoch",
        paper="Kim, Ji, Yoon, Hwang: Self-knowledge distillation with progressive refinement of targets. ICCV 2021, "
        "arXiv 2006.12000",
        implementation="naskd.schemes.self_kd:SelfKdScheme",
        needs_labels=False,
        unlabelled=True,
        options={
            "alpha": Option(0.8, "share of the earlier predictions in the last epoch", 0.0, 1.0, free=True)
        },
    )
)
SCHEMES.register(
    SchemeCard(
        name="compression_order",
        title="Distil, shrink and quantize in any order: each begins after a share of the training",
        paper="Gou, Yu, Maybank, Tao: Knowledge distillation: a survey. IJCV 2021, arXiv 2006.05525, section 8",
        implementation="naskd.schemes.compression_order:CompressionOrderScheme",
        may_refuse=True,
        options={
            "width": Option(2.0, "channels before it shrinks, as a multiple of the student's", 1.0, 4.0),
            "shrink": Option(0.0, "share of the epochs after which it has the student's channels", 0.0, 0.9),
            "quantize": Option(0.0, "share of the epochs after which stages below 32 bits round", 0.0, 0.9),
            "distil": Option(0.0, "share of the epochs after which teachers are heard", 0.0, 0.9),
        },
    )
)
SCHEMES.register(
    SchemeCard(
        name="head_first",
        title="Linear probing, then fine-tuning: the classifier learns first, the whole network afterwards",
        paper="Kumar, Raghunathan, Jones, Ma, Liang: Fine-tuning can distort pretrained features and underperform "
        "out-of-distribution. ICLR 2022, arXiv 2202.10054",
        implementation="naskd.schemes.head_first:HeadFirstScheme",
        may_refuse=True,
        options={
            "share": Option(
                0.3, "of the epochs in which the classifier alone is trained", above=0.0, high=0.9
            ),
        },
    )
)
SCHEMES.register(
    SchemeCard(
        name="lwf",
        title="Learning without Forgetting: classes come in tasks, and the network of before speaks of the new images",
        paper="Li, Hoiem: Learning without forgetting. ECCV 2016; TPAMI 2018, arXiv 1606.09282",
        implementation="naskd.schemes.lwf:LwfScheme",
        may_refuse=True,
        options={
            "tasks": Option(2, "parts of the classes, learned in turn; 1 for all at once", 1, 10**4),
            "order": Option(
                0, "of the classes: 0 as they are numbered, else the seed of their order", 0, 10**6
            ),
            "weight": Option(
                1.0, "of what the network of before says; 0 is fine-tuning, which forgets", low=0.0, free=True
            ),
            "temperature": Option(2.0, "softens what it says, and the student", above=0.0, free=True),
            "heads": Option(
                "multi",
                "a softmax for each task, or a single one for all tasks so far",
                choices=("multi", "single"),
                free=True,
            ),
        },
    )
)
SCHEMES.register(
    SchemeCard(
        name="cs_kd",
        title="CS-KD: what the student says of an image agrees with what it says of others of the class",
        paper="Yun, Park, Lee, Shin: Regularizing class-wise predictions via self-knowledge distillation. CVPR 2020, "
        "arXiv 2003.13964",
        implementation="naskd.schemes.cs_kd:CsKdScheme",
        options={
            "temperature": Option(4.0, "softens what is said of both", above=0.0, free=True),
            "weight": Option(1.0, "of the divergence within a class", low=0.0, free=True),
        },
    )
)
SCHEMES.register(
    SchemeCard(
        name="byot",
        title="Be your own teacher: the network teaches exits after its earlier stages",
        paper="Zhang, Song, Gao, Chen, Bao, Ma: Be your own teacher: improve the performance of convolutional neural "
        "networks via self distillation. ICCV 2019, arXiv 1905.08094",
        implementation="naskd.schemes.byot:ByotScheme",
        needs_labels=False,
        unlabelled=True,
        min_stages=2,
        leaves_more=True,
        options={
            "exit": Option(
                0, "stage whose exit leaves in place of the network; 0 for the network", 0, 100, leaves=True
            ),
            "alpha": Option(0.3, "share of what the network says, against the labels", 0.0, 1.0, free=True),
            "temperature": Option(3.0, "softens what network and exits say", above=0.0, free=True),
            "hint": Option(0.03, "weight of the squared distance of an exit's features", low=0.0, free=True),
            "exits": Option(1.0, "weight of all exits against the design's objective", low=0.0, free=True),
        },
    )
)

RESIDUAL = {
    "width": Option(
        0.5, "channels of a network beside the student, as a multiple of the student's", 0.125, 1.0
    ),
    "share": Option(0.5, "share of the epochs in which what is left is learned", 0.05, 0.95),
}
SCHEMES.register(
    SchemeCard(
        name="reskd",
        title="ResKD: smaller networks learn the gap between the logits of teacher and student, and leave with it",
        paper="Li, Li, Omar, Wu, Li: ResKD: residual-guided knowledge distillation. TIP 2021, arXiv 2006.04719",
        implementation="naskd.schemes.reskd:ReskdScheme",
        needs_labels=False,
        needs_teacher=True,
        leaves_more=True,
        options={
            "residuals": Option(1, "networks that leave beside the student", 1, 3),
            "temperature": Option(4.0, "softens what the teacher and the sum say", above=0.0, free=True),
            **RESIDUAL,
        },
    )
)
SCHEMES.register(
    SchemeCard(
        name="residual_kd",
        title="Residual knowledge distillation: an assistant learns the error of the student's features, and leaves "
        "with it",
        paper="Gao, Shen, Li, Loy: Residual knowledge distillation. 2020, arXiv 2002.09168",
        implementation="naskd.schemes.residual_kd:ResidualKdScheme",
        needs_labels=False,
        needs_teacher=True,
        families=("cnn",),
        leaves_more=True,
        options={
            "hint": Option(
                1.0,
                "balanced weight of a hint on the last stage, where the design has none",
                low=0.0,
                free=True,
            ),
            **RESIDUAL,
        },
    )
)
SCHEMES.register(
    SchemeCard(
        name="blockwise",
        title="Blockwise distillation (DNA): stages learn apart, each from what the teacher sees before and after it",
        paper="Li, Peng, Yuan, Wang, Liang, Lin, Chang: Blockwisely supervised neural architecture search with "
        "knowledge distillation. CVPR 2020, arXiv 1911.13053",
        implementation="naskd.schemes.blockwise:BlockwiseScheme",
        needs_labels=False,
        needs_teacher=True,
        min_stages=2,
        families=("cnn",),
        options={"share": Option(0.5, "share of the epochs in which stages learn apart", 0.05, 0.95)},
    )
)
SCHEMES.register(
    SchemeCard(
        name="progressive_blockwise",
        title="Progressive blockwise distillation: stages take the places of the teacher's, one after the other",
        paper="Wang, Zhao, Li, Tan: Progressive blockwise knowledge distillation for neural network acceleration. "
        "IJCAI 2018",
        implementation="naskd.schemes.progressive_blockwise:ProgressiveBlockwiseScheme",
        needs_labels=False,
        needs_teacher=True,
        families=("cnn",),
        may_refuse=True,
        through_teacher=True,
        options={
            "share": Option(0.5, "share of the epochs in which stages are replaced", 0.05, 0.95),
            "local": Option(
                1.0, "weight of a stage's squared distance from the teacher's map", low=0.0, free=True
            ),
            "receptive_field": Option(
                "same",
                "of each stage: the teacher's, or any, as where one block stands for many",
                choices=("same", "any"),
                free=True,
            ),
        },
    )
)


STEPS = Option(0, "batches an epoch; 0 for as many as the training split has", 0, 10**6)


def _against_a_generator(rate: float, latent: int) -> dict[str, Option]:
    """Options of schemes in which a generator makes the images."""
    return {
        "steps": STEPS,
        "generator_rate": Option(rate, "largest learning rate of the generator", above=0.0, free=True),
        "latent": Option(latent, "numbers that the generator makes an image of", 1, 10**4),
        "width": Option(64, "channels of the generator's last maps; its first have twice as many", 1, 1024),
    }


SCHEMES.register(
    SchemeCard(
        name="dafl",
        title="DAFL: a generator makes images that the teacher is sure of, and the student learns from these alone",
        paper="Chen, Wang, Xu, Yang, Liu, Shi, Xu, Xu, Tian: Data-free learning of student networks. ICCV 2019, "
        "arXiv 1904.01186",
        implementation="naskd.schemes.dafl:DaflScheme",
        own_teaching=True,
        options={
            **_against_a_generator(rate=0.02, latent=100),
            "activation": Option(0.1, "weight of the teacher's mean activation", low=0.0, free=True),
            "balance": Option(
                5.0, "weight of the entropy of what the teacher sees in a batch", low=0.0, free=True
            ),
            "temperature": Option(1.0, "softens what teacher and student say", above=0.0, free=True),
        },
    )
)
SCHEMES.register(
    SchemeCard(
        name="dfad",
        title="DFAD: a generator looks for images on which student and teacher differ, and the student for none",
        paper="Fang, Song, Shen, Wang, Chen, Song: Data-free adversarial distillation. 2019, arXiv 1912.11006",
        implementation="naskd.schemes.dfad:DfadScheme",
        own_teaching=True,
        options={
            **_against_a_generator(rate=1e-3, latent=256),
            "moves": Option(5, "updates of the student for each of the generator", 1, 100),
        },
    )
)
SCHEMES.register(
    SchemeCard(
        name="zskt",
        title="ZSKT: a generator against a student that also imitates where the teacher looks",
        paper="Micaelli, Storkey: Zero-shot knowledge transfer via adversarial belief matching. NeurIPS 2019, "
        "arXiv 1905.09768",
        implementation="naskd.schemes.zskt:ZsktScheme",
        own_teaching=True,
        options={
            **_against_a_generator(rate=2e-3, latent=100),
            "moves": Option(10, "updates of the student for each of the generator", 1, 100),
            "attention": Option(250.0, "weight of the difference of attention maps", low=0.0, free=True),
        },
    )
)
SCHEMES.register(
    SchemeCard(
        name="deep_inversion",
        title="DeepInversion: images are made to fit what the teacher's BatchNorms remember, and teach the student",
        paper="Yin, Molchanov, Alvarez, Li, Mallya, Hoiem, Jha, Kautz: Dreaming to distill: data-free knowledge "
        "transfer via DeepInversion. CVPR 2020, arXiv 1912.08795",
        implementation="naskd.schemes.deep_inversion:DeepInversionScheme",
        own_teaching=True,
        options={
            "steps": STEPS,
            "batches": Option(8, "batches of images that are made", 1, 1000),
            "share": Option(0.5, "share of the epochs in which they are made", 0.01, 0.99),
            "image_rate": Option(0.1, "largest learning rate of the images", above=0.0, free=True),
            "statistics": Option(1.0, "weight of the distance of BatchNorm statistics", low=0.0, free=True),
            "variation": Option(
                2.5e-5, "weight of the difference of neighbouring pixels", low=0.0, free=True
            ),
            "length": Option(3e-8, "weight of the images' length", low=0.0, free=True),
            "temperature": Option(3.0, "softens what teacher and student say", above=0.0, free=True),
        },
    )
)

__all__ = ["SCHEMES", "SchemeCard"]
