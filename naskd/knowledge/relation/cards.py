"""What a student can learn from relations between samples, channels or stages."""

from naskd.knowledge.card import KnowledgeCard, initial_share
from naskd.spec.option import Option

CARDS = (
    KnowledgeCard(
        name="rkd",
        family="relation",
        title="Relational knowledge distillation (RKD), distance and angle",
        paper="Park, Kim, Lu, Cho: Relational Knowledge Distillation. CVPR 2019, arXiv 1904.05068",
        equation="w_d mean_ij h(d_s / mu_s, d_t / mu_t) + w_a mean_ijk h(cos_s, cos_t), h the Huber loss",
        implementation="naskd.knowledge.relation.rkd:RkdLoss",
        taps=("pooled",),
        paper_weight=1.0,
        paper_setting="CIFAR-100, batch 64, with distance_weight 25, angle_weight 50",
        min_batch=3,
        options={
            "distance_weight": Option(25.0, "weight of the distances between samples", low=0.0),
            "angle_weight": Option(50.0, "weight of the angles between triplets of samples", low=0.0),
        },
    ),
    KnowledgeCard(
        name="pkt",
        family="relation",
        title="Probabilistic knowledge transfer (PKT)",
        paper=(
            "Passalis, Tefas: Learning Deep Representations with Probabilistic Knowledge Transfer. ECCV "
            "2018, arXiv 1803.10837"
        ),
        equation=(
            "mean_ij P_t log((P_t + 1e-7) / (P_s + 1e-7)), P_ij = k_ij / sum_l k_il, k_ij = (cos(f_i, "
            "f_j) + 1) / 2, on pooled features"
        ),
        implementation="naskd.knowledge.relation.pkt:PktLoss",
        taps=("pooled",),
        paper_weight=30000.0,
        paper_setting="CIFAR-100, batch 64, beside ce_weight = 1; the term falls as 1 / B",
        min_batch=2,
    ),
    KnowledgeCard(
        name="sp",
        family="relation",
        title="Similarity-preserving distillation (SP)",
        paper="Tung, Mori: Similarity-Preserving Knowledge Distillation. ICCV 2019, arXiv 1907.09682",
        equation=(
            "sum_pairs (1/B^2) |N(A_s A_s^T) - N(A_t A_t^T)|_F^2, A the stage as (B, C H W), N each row "
            "to length 1"
        ),
        implementation="naskd.knowledge.relation.sp:SpLoss",
        taps=("stages",),
        paper_weight=3000.0,
        paper_setting="CIFAR-100, batch 64, the last stage, beside ce_weight = 1",
        min_batch=2,
        min_stages=1,
        uses_pairs=True,
        learned_pairs=True,
    ),
    KnowledgeCard(
        name="cc",
        family="relation",
        title="Correlation congruence (CC)",
        paper=(
            "Peng, Jin, Liu, Zhou, Wu, Liu, Li, Zhang: Correlation Congruence for Knowledge Distillation. "
            "ICCV 2019, arXiv 1904.01802"
        ),
        equation=(
            "mean_ij (K(f_s)_ij - K(f_t)_ij)^2, K_ij = exp(-2 gamma) sum_(p = 0 to order) (2 gamma)^p / "
            "p! (N(f_i) . N(f_j))^p, on pooled features"
        ),
        implementation="naskd.knowledge.relation.cc:CcLoss",
        taps=("pooled",),
        paper_weight=100.0,
        paper_setting="CIFAR-100 in public code, gamma 0.4, order 2, beside ce_weight = 1",
        min_batch=2,
        options={
            "gamma": Option(0.4, "of the Gaussian kernel", 0.001, 10.0),
            "order": Option(2, "of its Taylor series", 1, 8),
        },
    ),
    KnowledgeCard(
        name="ickd",
        family="relation",
        title="Inter-channel correlation (ICKD)",
        paper=(
            "Liu, Huang, Lin, Xie, Wang, Chang, Liang: Exploring Inter-Channel Correlation for "
            "Diversity-preserved Knowledge Distillation. ICCV 2021, arXiv 2202.03680"
        ),
        equation=(
            "sum_pairs (1/B) sum_b |G_s - G_t|_F^2 / C^2, G_cd = N(F_c) . N(F_d) of channels as vectors "
            "of length 1, r(F_s) in place of F_s with r a 1x1 convolution to the teacher's C"
        ),
        implementation="naskd.knowledge.relation.ickd:IckdLoss",
        taps=("stages",),
        paper_weight=2.5,
        paper_setting=(
            "CIFAR-100, batch 64, the last stage, rows of G brought to length 1 and 1 / C, beside ce_weight = 1"
        ),
        min_stages=1,
        uses_pairs=True,
        learned_pairs=True,
    ),
    KnowledgeCard(
        name="irg",
        family="relation",
        title="Instance relationship graph (IRG)",
        paper=(
            "Liu, Cao, Li, Yuan, Hu, Li, Duan: Knowledge Distillation via Instance Relationship Graph. "
            "CVPR 2019"
        ),
        equation=(
            "vertex mean_bk (z_s - z_t)^2 + edge mean_l mean_ij (E_s^l - E_t^l)^2 + transformation mean_l "
            "mean_ij ((E_s^(l+1) - E_s^l) - (E_t^(l+1) - E_t^l))^2, E^l_ij = |g_i - g_j|^2 / max_ij |g_i "
            "- g_j|^2 of the pooled stage l"
        ),
        implementation="naskd.knowledge.relation.irg:IrgLoss",
        taps=("logits", "stages"),
        paper_weight=1.0,
        paper_setting="CIFAR-100 in public code: vertex 0.1, edge 5, transformation 5, beside ce_weight = 1",
        min_batch=2,
        min_stages=1,
        options={
            "vertex": Option(0.1, "weight of the logits", low=0.0),
            "edge": Option(5.0, "weight of the distances between samples", low=0.0),
            "transformation": Option(5.0, "weight of how these change from stage to stage", low=0.0),
        },
    ),
    KnowledgeCard(
        name="information_flow",
        family="relation",
        title="Information flow (critical learning periods)",
        paper=(
            "Passalis, Tzelepi, Tefas: Heterogeneous Knowledge Distillation using Information Flow "
            "Modeling. CVPR 2020, arXiv 2005.00727"
        ),
        equation=(
            "D(pooled) + w sum_l D(stage l, pooled over space), w = start exp(-fall progress), D = sum "
            "over kernels of mean_ij (P_t - P_s) (log(P_t + 1e-7) - log(P_s + 1e-7)), P rows to sum 1 of "
            "(cos + 1) / 2 and of 1 / (1 + |x_i - x_j|), x of length 1"
        ),
        implementation="naskd.knowledge.relation.information_flow:InformationFlowLoss",
        taps=("stages", "pooled"),
        paper_weight=30000.0,
        paper_setting="as pkt; start 100 and 0.7 an epoch over 50 epochs (fall 17.8) on CIFAR-10",
        min_batch=2,
        min_stages=1,
        uses_progress=True,
        options={
            "start": Option(100.0, "weight of the stages at the start", low=0.0),
            "fall": Option(17.8, "it falls by this power of e in the course of the training", low=0.0),
        },
    ),
    KnowledgeCard(
        name="fsp",
        family="relation",
        title="Flow of the solution procedure (FSP)",
        paper="Yim, Joo, Bae, Kim: A Gift from Knowledge Distillation. CVPR 2017",
        equation=(
            "sum_l (1/B) sum_b mean_cd (G_s - G_t)^2, G_cd = mean_hw F^l_c F^(l+1)_d on the smaller of "
            "the two grids; r(F_s) in place of F_s with r a 1x1 convolution to the teacher's channels; "
            "alone, before the labels"
        ),
        implementation="naskd.knowledge.relation.fsp:FspLoss",
        taps=("stages",),
        paper_weight=50.0,
        paper_setting="CIFAR-100, batch 64, 30 of 240 epochs",
        initial_stage="term",
        min_stages=2,
        options=initial_share(),
    ),
    KnowledgeCard(
        name="svd",
        family="relation",
        title="Singular value distillation (KD-SVD)",
        paper=(
            "Lee, Kim, Song: Self-supervised Knowledge Distillation Using Singular Value Decomposition. "
            "ECCV 2018"
        ),
        equation=(
            "sum_l (1/B) sum_b sum_pqi (R_s - R_t)^2, R_pqi = exp(-(x^l_pi - x^(l+1)_qi)^2 / 8), x^l_i = "
            "sigma_i / |sigma| v_i for the first k right singular vectors of the stage as (H W, C), the "
            "student's with the sign of the teacher's, after a 1x1 convolution to the teacher's channels"
        ),
        implementation="naskd.knowledge.relation.svd:SvdLoss",
        taps=("stages",),
        paper_weight=1.0,
        paper_setting="CIFAR-100, batch 64, k = 1, the gradient clipped to that of the labels (use balanced)",
        min_stages=2,
        waits=True,
        options={"k": Option(1, "singular vectors that are compared", 1, 8)},
    ),
    KnowledgeCard(
        name="mhgd",
        family="relation",
        title="Multi-head graph distillation (MHGD)",
        paper=(
            "Lee, Song: Graph-based Knowledge Distillation by Multi-head Attention Network. BMVC 2019, "
            "arXiv 1907.02226"
        ),
        equation=(
            "sum_l (1 / (H B)) sum_hb KL(A_t[h, b, :] || A_s[h, b, :]), A = softmax over the batch of "
            "tanh(q_h(x^l) . k_h(x^(l+1)) / 4), x^l the first right singular vector of the stage, "
            "standardized by the teacher's; before: sum_l mean_b (1 - cos(e_b, x_b^(l+1))) trains q, k and "
            "the estimator e_b on the teacher, e_b = linear over h of sum_(c other than b) A[h, b, c] "
            "value_h(x_c^(l+1)), those A to sum 1"
        ),
        implementation="naskd.knowledge.relation.mhgd:MhgdLoss",
        taps=("stages",),
        paper_weight=1.0,
        paper_setting="CIFAR-100, batch 128, 8 heads; its gradient as in svd (use balanced)",
        initial_stage="modules",
        min_batch=2,
        min_stages=2,
        waits=True,
        options={"heads": Option(8, "attention heads", 1, 64), **initial_share()},
    ),
    KnowledgeCard(
        name="crd",
        family="relation",
        title="Contrastive representation distillation (CRD)",
        paper="Tian, Krishnan, Isola: Contrastive Representation Distillation. ICLR 2020, arXiv 1910.10699",
        equation=(
            "-(1/B) sum_i [log h(u_i, v_i) + sum_j log(1 - h(u_i, w_j))] and the same with u and v "
            "exchanged, log(h / (1 - h)) = u . v / tau - log(N / M), u = N(linear f_s), v = N(linear "
            "f_t), w_j the v of N samples of other classes, remembered or in the batch, M training samples"
        ),
        implementation="naskd.knowledge.relation.crd:CrdLoss",
        taps=("pooled",),
        paper_weight=0.8,
        paper_setting="CIFAR-100, batch 64, 16,384 negatives, beside ce_weight = 1",
        needs_labels=True,
        needs_index=True,
        options={
            "features": Option(128, "length of the embeddings", 2, 4096),
            "negatives": Option(16384, "remembered samples that each is compared with, at most", 1, 1000000),
            "tau": Option(0.07, "temperature of the comparison", 0.01, 1.0),
            "momentum": Option(0.5, "share of a memory that stays when its sample comes again", 0.0, 0.999),
        },
    ),
    KnowledgeCard(
        name="teacher_graph",
        family="relation",
        title="Graph distillation from several teachers",
        paper=(
            "Zhang, Peng: Better and Faster: Knowledge Transfer from Multiple Self-supervised Learning "
            "Tasks via Graph Distillation for Video Classification. IJCAI 2018, arXiv 1804.10069"
        ),
        equation=(
            "(1/B) sum_b sum_m w_bm T^2 KL(p_m || p_s) + representation sum_m v_m (1/B^2) |S_s - "
            "S_m|_F^2, w_b = softmax over m of minus the mean over other teachers n of T^2 KL(p_n || "
            "p_m), v = softmax over m of minus the mean over n of (1/B^2) |S_n - S_m|_F^2, S = cosines "
            "between pooled features"
        ),
        implementation="naskd.knowledge.relation.teacher_graph:TeacherGraphLoss",
        taps=("logits", "pooled"),
        paper_weight=1.0,
        paper_setting="none published for images: both graphs with weight 1, T = 4",
        several_teachers=True,
        uses_temperature=True,
        options={
            "representation": Option(1.0, "weight of the graph of features beside that of logits", low=0.0)
        },
    ),
)
