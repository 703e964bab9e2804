"""Knowledge losses: what a student can be taught. One file per method; its card is registered here.

The cards are torch-free, so that a search space or a study check can turn away what cannot work without
importing torch. A user's own file does the same: ``KNOWLEDGE.register(KnowledgeCard(...,
implementation=TheirLoss))``.
"""

from naskd.config import DistillationSpec
from naskd.knowledge.card import STANDARDIZE, KnowledgeCard, Option
from naskd.registry import Registry

KNOWLEDGE: Registry[KnowledgeCard] = Registry("knowledge loss")

KNOWLEDGE.register(
    KnowledgeCard(
        name="logits",
        family="response",
        title="Knowledge distillation (KD)",
        paper="Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network. 2015, arXiv 1503.02531",
        equation="T^2 (1/B) sum_b KL(softmax(z_t / T) || softmax(z_s / T))",
        implementation="naskd.knowledge.logits:LogitsLoss",
        taps=("logits",),
        paper_weight=0.9,
        paper_setting="CIFAR-100, T = 4, batch 64, beside ce_weight = 0.1",
        uses_temperature=True,
        options={"standardize": STANDARDIZE},
    )
)
KNOWLEDGE.register(
    KnowledgeCard(
        name="hint",
        family="feature",
        title="FitNets hints",
        paper="Romero et al.: FitNets: Hints for Thin Deep Nets. ICLR 2015, arXiv 1412.6550",
        equation="sum_pairs mean (r(F_s) - F_t)^2, r a learned 1x1 convolution, on the smaller grid",
        implementation="naskd.knowledge.hint:HintLoss",
        taps=("stages",),
        paper_weight=100.0,
        paper_setting="CIFAR-100, batch 64, the middle stage, beside ce_weight = 1",
        min_stages=1,
        uses_pairs=True,
        learned_pairs=True,
    )
)
KNOWLEDGE.register(
    KnowledgeCard(
        name="attention",
        family="feature",
        title="Attention transfer (AT)",
        paper="Zagoruyko, Komodakis: Paying More Attention to Attention. ICLR 2017, arXiv 1612.03928",
        equation="sum_pairs mean (N(mean_c F_s^2) - N(mean_c F_t^2))^2, N(x) = x / |x|, on the smaller grid",
        implementation="naskd.knowledge.attention:AttentionLoss",
        taps=("stages",),
        paper_weight=1000.0,
        paper_setting="CIFAR-100, batch 64, all three stages: 32x32, 16x16, 8x8; the term falls as 1 / (H W)",
        min_stages=1,
        uses_pairs=True,
        learned_pairs=True,
    )
)
KNOWLEDGE.register(
    KnowledgeCard(
        name="rkd",
        family="relation",
        title="Relational knowledge distillation (RKD), distance and angle",
        paper="Park, Kim, Lu, Cho: Relational Knowledge Distillation. CVPR 2019, arXiv 1904.05068",
        equation="w_d mean_ij h(d_s / mu_s, d_t / mu_t) + w_a mean_ijk h(cos_s, cos_t), h the Huber loss",
        implementation="naskd.knowledge.rkd:RkdLoss",
        taps=("pooled",),
        paper_weight=1.0,
        paper_setting="CIFAR-100, batch 64, with distance_weight 25, angle_weight 50",
        min_batch=3,
        options={
            "distance_weight": Option(25.0, "weight of the distances between samples", low=0.0),
            "angle_weight": Option(50.0, "weight of the angles between triplets of samples", low=0.0),
        },
    )
)


def needs_teacher(distillation: DistillationSpec) -> bool:
    """Whether a way of teaching asks for a trained network, or is content with the labels."""
    return any(KNOWLEDGE[term.kind].needs_teacher for term in distillation.terms)


__all__ = ["KNOWLEDGE", "KnowledgeCard", "Option", "needs_teacher"]
