"""What a student can learn from a teacher's features."""

from naskd.knowledge.card import KnowledgeCard, initial_share
from naskd.spec.option import Option

CARDS = (
    KnowledgeCard(
        name="hint",
        family="feature",
        title="FitNets hints",
        paper="Romero et al.: FitNets: Hints for Thin Deep Nets. ICLR 2015, arXiv 1412.6550",
        equation="sum_pairs mean (r(F_s) - F_t)^2, r a learned 1x1 convolution, on the smaller grid",
        implementation="naskd.knowledge.feature.hint:HintLoss",
        taps=("stages",),
        paper_weight=100.0,
        paper_setting="CIFAR-100, batch 64, the middle stage, beside ce_weight = 1",
        min_stages=1,
        uses_pairs=True,
        learned_pairs=True,
    ),
    KnowledgeCard(
        name="attention",
        family="feature",
        title="Attention transfer (AT)",
        paper="Zagoruyko, Komodakis: Paying More Attention to Attention. ICLR 2017, arXiv 1612.03928",
        equation="sum_pairs mean (N(mean_c F_s^2) - N(mean_c F_t^2))^2, N(x) = x / |x|, on the smaller grid",
        implementation="naskd.knowledge.feature.attention:AttentionLoss",
        taps=("stages",),
        paper_weight=1000.0,
        paper_setting="CIFAR-100, batch 64, all three stages: 32x32, 16x16, 8x8; the term falls as 1 / (H W)",
        min_stages=1,
        uses_pairs=True,
        learned_pairs=True,
    ),
    KnowledgeCard(
        name="nst",
        family="feature",
        title="Neuron selectivity transfer (NST)",
        paper=(
            "Huang, Wang: Like What You Like: Knowledge Distill via Neuron Selectivity Transfer. 2017, "
            "arXiv 1707.01219"
        ),
        equation=(
            "sum_pairs (1/B) sum_b [mean_cd (f_c . f_d)^2 + mean_cd (g_c . g_d)^2 - 2 mean_cd (f_c . "
            "g_d)^2], f_c, g_c the channels of student and teacher on the smaller grid, as vectors of "
            "length 1"
        ),
        implementation="naskd.knowledge.feature.nst:NstLoss",
        taps=("stages",),
        paper_weight=50.0,
        paper_setting="CIFAR-100, batch 64, all stages, beside ce_weight = 1",
        min_stages=1,
        uses_pairs=True,
        learned_pairs=True,
    ),
    KnowledgeCard(
        name="factor",
        family="feature",
        title="Factor transfer (FT)",
        paper=(
            "Kim, Park, Kwak: Paraphrasing Complex Network: Network Compression via Factor Transfer. "
            "NeurIPS 2018, arXiv 1802.04977"
        ),
        equation=(
            "sum_pairs mean |N(vec Tr(F_s)) - N(vec P(F_t))|, N(x) = x / |x| for each sample, factors on "
            "the smaller grid; before: mean (P'(P(F_t)) - F_t)^2 trains the paraphraser P and its inverse "
            "P'"
        ),
        implementation="naskd.knowledge.feature.factor:FactorLoss",
        taps=("stages",),
        paper_weight=1000.0,
        paper_setting=(
            "ImageNet in public code, the last stage, rate 0.5, beside ce_weight = 1; as 1 / sqrt(C H W)"
        ),
        initial_stage="modules",
        options={
            "rate": Option(0.5, "channels of a factor over channels of the teacher's stage", 0.05, 1.0),
            **initial_share(),
        },
        min_stages=1,
        uses_pairs=True,
        learned_pairs=True,
    ),
    KnowledgeCard(
        name="ab",
        family="feature",
        title="Activation boundaries (AB)",
        paper=(
            "Heo, Lee, Yun, Choi: Knowledge Transfer via Distillation of Activation Boundaries Formed by "
            "Hidden Neurons. AAAI 2019, arXiv 1811.03233"
        ),
        equation=(
            "sum_pairs 2^-(P - 1 - i) (3/1000) (1/B) sum [(s + m)^2 where s > -m and t <= 0] + [(s - m)^2 "
            "where s <= m and t > 0], on pre-activations, i the pair from 0 of P, m the margin; alone, "
            "before the labels"
        ),
        implementation="naskd.knowledge.feature.ab:AbLoss",
        taps=("pre_activations",),
        paper_weight=1.0,
        paper_setting="CIFAR-100, batch 64, all stages, margin 1, 30 of 240 epochs",
        initial_stage="term",
        min_stages=1,
        uses_pairs=True,
        options={
            "margin": Option(1.0, "distance from the boundary that is asked for", low=0.0),
            **initial_share(),
        },
    ),
    KnowledgeCard(
        name="ofd",
        family="feature",
        title="Overhaul of feature distillation (OFD)",
        paper=(
            "Heo, Kim, Yun, Park, Kwak, Choi: A Comprehensive Overhaul of Feature Distillation. ICCV "
            "2019, arXiv 1904.01866"
        ),
        equation=(
            "sum_pairs 2^-(P - 1 - i) (1/B) sum (s - t')^2 where s > t' or t' > 0, t' = max(t, m_c), m_c "
            "= E[x | x < 0] of x normal with the mean and deviation of the teacher's BatchNorm, on "
            "pre-activations"
        ),
        implementation="naskd.knowledge.feature.ofd:OfdLoss",
        taps=("pre_activations",),
        paper_weight=0.001,
        paper_setting="CIFAR-100, batch 64, all stages, beside ce_weight = 1; grows as C H W",
        needs_teacher_norms=True,
        min_stages=1,
        uses_pairs=True,
    ),
    KnowledgeCard(
        name="vid",
        family="feature",
        title="Variational information distillation (VID)",
        paper=(
            "Ahn, Hu, Damianou, Lawrence, Dai: Variational Information Distillation for Knowledge "
            "Transfer. CVPR 2019, arXiv 1904.05835"
        ),
        equation=(
            "sum_pairs mean [(mu(F_s) - F_t)^2 / v_c + log v_c] / 2, v_c = softplus(r_c) + 1e-5 learned "
            "for each channel, mu 1x1 convolutions, on the smaller grid"
        ),
        implementation="naskd.knowledge.feature.vid:VidLoss",
        taps=("stages",),
        paper_weight=1.0,
        paper_setting="CIFAR-100, batch 64, all stages, v = 5 at first, beside ce_weight = 1",
        options={"variance": Option(5.0, "v at the start", low=0.001)},
        min_stages=1,
        uses_pairs=True,
        learned_pairs=True,
    ),
    KnowledgeCard(
        name="review",
        family="feature",
        title="Knowledge review (ReviewKD)",
        paper="Chen, Liu, Zhao, Jia: Distilling Knowledge via Knowledge Review. CVPR 2021, arXiv 2104.09044",
        equation=(
            "sum over the student's stages of H(R_i, F_t), R_i the fusion of stages i to the last, H = "
            "sum_l a_l mean (pool_l(R) - pool_l(F_t))^2 / sum_l a_l over l = the whole grid, and of 4x4, 2x2, "
            "1x1 those below it, a = 1, 1/2, 1/4, 1/8 in this order"
        ),
        implementation="naskd.knowledge.feature.review:ReviewLoss",
        taps=("stages",),
        paper_weight=5.0,
        paper_setting=(
            "CIFAR-100, batch 64, all stages, beside ce_weight = 1; 0.6 to 8 by pair, growing over 20 epochs"
        ),
        min_stages=1,
        options={"width": Option(64, "channels of the fusion", 1, 4096)},
    ),
    KnowledgeCard(
        name="semckd",
        family="feature",
        title="Semantic calibration (SemCKD)",
        paper=(
            "Chen, Mei, Zhang, Wang, Wang, Feng, Chen: Cross-Layer Distillation with Semantic "
            "Calibration. AAAI 2021, arXiv 2012.03236"
        ),
        equation=(
            "(1/B) sum_b sum_s sum_t a_bst mean_chw (r_st(F_s) - F_t)^2, a_bs. = softmax over t of "
            "q_s(g_s) . k_t(g_t), g the pooled stage as a vector of length 1, q and k linear with outputs "
            "of length 1"
        ),
        implementation="naskd.knowledge.feature.semckd:SemckdLoss",
        taps=("stages",),
        paper_weight=133.0,
        paper_setting=(
            "CIFAR-100, batch 64, three stages, beside ce_weight = 1 and logits of weight 1: the published 400 times "
            "the mean over the student's stages"
        ),
        min_stages=1,
        options={"features": Option(128, "length of queries and keys", 1, 4096)},
    ),
    KnowledgeCard(
        name="simkd",
        family="feature",
        title="SimKD: the teacher's classifier reused",
        paper=(
            "Chen, Mei, Zhang, Wang, Feng, Chen: Knowledge Distillation with the Reused Teacher "
            "Classifier. CVPR 2022, arXiv 2203.14001"
        ),
        equation=(
            "mean (P(F_s) - F_t)^2 on the last stage, on the smaller grid; the student deployed has the "
            "logits W_t pool(P(F_s)) + b_t"
        ),
        implementation="naskd.knowledge.feature.simkd:SimkdLoss",
        taps=("stages",),
        paper_weight=1.0,
        paper_setting="CIFAR-100, batch 64, factor 2, without labels (ce_weight = 0)",
        needs_teacher_head=True,
        deployed=True,
        min_stages=1,
        options={
            "factor": Option(2, "the projector's inner channels are those of the teacher over this", 1, 16)
        },
    ),
    KnowledgeCard(
        name="srrl",
        family="feature",
        title="Softmax regression representation learning (SRRL)",
        paper=(
            "Yang, Martinez, Bulat, Tzimiropoulos: Knowledge distillation via softmax regression "
            "representation learning. ICLR 2021"
        ),
        equation=(
            "feature mean_bd (r(f_s) - f_t)^2 + regression mean_bk (W_t r(f_s) + b_t - z_t)^2, r linear "
            "on the pooled features, the teacher's classifier fixed"
        ),
        implementation="naskd.knowledge.feature.srrl:SrrlLoss",
        taps=("logits", "pooled"),
        paper_weight=1.0,
        paper_setting="CIFAR-100 and ImageNet, both weights 1, beside ce_weight = 1",
        needs_teacher_head=True,
        options={
            "feature": Option(1.0, "weight of the features", low=0.0),
            "regression": Option(1.0, "weight of what the teacher's classifier makes of them", low=0.0),
        },
    ),
    KnowledgeCard(
        name="mgd",
        family="feature",
        title="Masked generative distillation (MGD)",
        paper="Yang, Li, Shao, Shi, Yuan, Yuan: Masked Generative Distillation. ECCV 2022, arXiv 2205.01529",
        equation=(
            "sum_pairs mean (G(M r(F_s)) - F_t)^2, M random places set to 0 (in training; else all times 1 - "
            "masked), G two 3x3 convolutions with a ReLU between, on the smaller grid"
        ),
        implementation="naskd.knowledge.feature.mgd:MgdLoss",
        taps=("stages",),
        paper_weight=1.76,
        paper_setting="ImageNet, ResNet-18, the last stage: the paper's 7e-5 times its 512 x 7 x 7 summands",
        options={"masked": Option(0.15, "share of places that are hidden", 0.0, 0.95)},
        min_stages=1,
        uses_pairs=True,
        learned_pairs=True,
    ),
)
