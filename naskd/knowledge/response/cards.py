"""What a student can learn from answers: the teacher's, or the labels'."""

from naskd.knowledge.card import STANDARDIZE, KnowledgeCard
from naskd.spec.option import Option

CARDS = (
    KnowledgeCard(
        name="logits",
        family="response",
        title="Knowledge distillation (KD)",
        paper="Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network. 2015, arXiv 1503.02531",
        equation="T^2 (1/B) sum_b KL(softmax(z_t / T) || softmax(z_s / T))",
        implementation="naskd.knowledge.response.logits:LogitsLoss",
        taps=("logits",),
        paper_weight=0.9,
        paper_setting="CIFAR-100, T = 4, batch 64, beside ce_weight = 0.1",
        uses_temperature=True,
        options={"standardize": STANDARDIZE},
    ),
    KnowledgeCard(
        name="logit_mse",
        family="response",
        title="Logit matching",
        paper="Ba, Caruana: Do Deep Nets Really Need to be Deep? NeurIPS 2014, arXiv 1312.6184",
        equation="mean_bk (z_s - z_t)^2",
        implementation="naskd.knowledge.response.logit_mse:LogitMseLoss",
        taps=("logits",),
        paper_weight=0.1,
        paper_setting=(
            "CIFAR-100, batch 128, beside ce_weight = 1 (no constant in the paper, which has no labels)"
        ),
        options={"standardize": STANDARDIZE},
    ),
    KnowledgeCard(
        name="conditional",
        family="response",
        title="Conditional teacher-student learning",
        paper="Meng, Li, Zhao, Gong: Conditional Teacher-Student Learning. ICASSP 2019, arXiv 1904.12399",
        equation=(
            "T^2 (1/B) sum_b c_b KL(softmax(z_t / T) || softmax(z_s / T)), c_b = 1 where argmax z_t = y, "
            "else 0; the cross-entropy with the label has weight 1 - c_b"
        ),
        implementation="naskd.knowledge.response.conditional:ConditionalLoss",
        taps=("logits",),
        paper_weight=1.0,
        paper_setting="speech, T = 1: the teacher or the label, never both",
        needs_labels=True,
        uses_temperature=True,
        options={"standardize": STANDARDIZE},
    ),
    KnowledgeCard(
        name="label_smoothing",
        family="response",
        title="Label smoothing",
        paper=(
            "Szegedy, Vanhoucke, Ioffe, Shlens, Wojna: Rethinking the Inception Architecture. CVPR 2016, "
            "arXiv 1512.00567"
        ),
        equation=(
            "-(epsilon / K) (1/B) sum_bk log softmax(z_s)_k; the cross-entropy with the label has weight "
            "1 - epsilon"
        ),
        implementation="naskd.knowledge.response.label_smoothing:LabelSmoothingLoss",
        taps=("logits",),
        paper_weight=1.0,
        paper_setting="ImageNet, epsilon = 0.1; a weight other than 1 is no longer smoothing",
        needs_teacher=False,
        options={"epsilon": Option(0.1, "share of the label that is spread over all K classes", 0.0, 1.0)},
    ),
    KnowledgeCard(
        name="tf_kd",
        family="response",
        title="Teacher-free distillation with a virtual teacher (Tf-KD reg)",
        paper=(
            "Yuan, Tay, Li, Wang, Feng: Revisiting Knowledge Distillation via Label Smoothing "
            "Regularization. CVPR 2020, arXiv 1909.11723"
        ),
        equation=(
            "T^2 (1/B) sum_b KL(softmax(log(u) / T) || softmax(z_s / T)), u_y = correct, u_k = (1 - "
            "correct) / (K - 1) elsewhere"
        ),
        implementation="naskd.knowledge.response.tf_kd:TfKdLoss",
        taps=("logits",),
        paper_weight=0.1,
        paper_setting="CIFAR-100, T = 20, correct = 0.99, beside ce_weight = 0.9; tuned for each network",
        needs_teacher=False,
        needs_labels=True,
        uses_temperature=True,
        options={
            "correct": Option(0.99, "probability that the virtual teacher gives to the label", 0.5, 0.9999)
        },
    ),
    KnowledgeCard(
        name="dkd",
        family="response",
        title="Decoupled knowledge distillation (DKD)",
        paper="Zhao, Cui, Song, Qiu, Liang: Decoupled Knowledge Distillation. CVPR 2022, arXiv 2203.08679",
        equation=(
            "T^2 (1/B) sum_b [alpha KL(b_t || b_s) + beta KL(q_t || q_s)], p = softmax(z / T), b = (p_y, "
            "1 - p_y), q_k = p_k / (1 - p_y) for k other than y"
        ),
        implementation="naskd.knowledge.response.dkd:DkdLoss",
        taps=("logits",),
        paper_weight=1.0,
        paper_setting="CIFAR-100, T = 4, batch 64, alpha 1, beta 8 (2 to 8 by pair), beside ce_weight = 1",
        needs_labels=True,
        uses_temperature=True,
        options={
            "alpha": Option(1.0, "weight of the target class against all others", low=0.0),
            "beta": Option(8.0, "weight of what is said about the other classes", low=0.0),
            "standardize": STANDARDIZE,
        },
    ),
    KnowledgeCard(
        name="nkd",
        family="response",
        title="Normalised knowledge distillation (NKD)",
        paper=(
            "Yang, Zeng, Li, Zhang, Yuan, Li: From Knowledge Distillation to Self-Knowledge Distillation. "
            "ICCV 2023, arXiv 2303.13005"
        ),
        equation=(
            "(1/B) sum_b [-p_t(y) log p_s(y) - gamma T^2 sum_(k other than y) q_t(k) log q_s(k)], p = "
            "softmax(z), q_k = softmax(z / T)_k / (1 - softmax(z / T)_y)"
        ),
        implementation="naskd.knowledge.response.nkd:NkdLoss",
        taps=("logits",),
        paper_weight=1.0,
        paper_setting="ImageNet, T = 1, gamma 1.5, beside ce_weight = 1",
        needs_labels=True,
        uses_temperature=True,
        options={
            "gamma": Option(1.5, "weight of what is said about the other classes", low=0.0),
            "standardize": STANDARDIZE,
        },
    ),
    KnowledgeCard(
        name="dist",
        family="response",
        title="DIST",
        paper=(
            "Huang, You, Wang, Qian, Xu: Knowledge Distillation from A Stronger Teacher. NeurIPS 2022, "
            "arXiv 2205.10536"
        ),
        equation=(
            "beta T^2 (1 - mean_b r(p_s[b, :], p_t[b, :])) + gamma T^2 (1 - mean_k r(p_s[:, k], p_t[:, "
            "k])), p = softmax(z / T), r the Pearson correlation (0 where a side is constant)"
        ),
        implementation="naskd.knowledge.response.dist:DistLoss",
        taps=("logits",),
        paper_weight=2.0,
        paper_setting="ImageNet, T = 1, batch 256, beta = gamma = 1, beside ce_weight = 1",
        min_batch=2,
        uses_temperature=True,
        options={
            "beta": Option(1.0, "weight of the correlation between classes, within a sample", low=0.0),
            "gamma": Option(1.0, "weight of the correlation between samples, within a class", low=0.0),
            "standardize": STANDARDIZE,
        },
    ),
    KnowledgeCard(
        name="wsld",
        family="response",
        title="Weighted soft labels (WSLD)",
        paper=(
            "Zhou, Song, Chen, Zhou, Wang, Yuan, Zhang: Rethinking Soft Labels for Knowledge "
            "Distillation. ICLR 2021, arXiv 2102.00650"
        ),
        equation=(
            "T^2 (1/B) sum_b w_b KL(softmax(z_t / T) || softmax(z_s / T)), w_b = 1 - exp(-CE(z_s, y) / "
            "(CE(z_t, y) + 1e-7)), not differentiated, CE at T = 1"
        ),
        implementation="naskd.knowledge.response.wsld:WsldLoss",
        taps=("logits",),
        paper_weight=2.5,
        paper_setting="ImageNet, T = 2, beside ce_weight = 1",
        needs_labels=True,
        uses_temperature=True,
        options={"standardize": STANDARDIZE},
    ),
    KnowledgeCard(
        name="mlkd",
        family="response",
        title="Multi-level logit distillation (MLKD)",
        paper="Jin, Wang, Lin: Multi-level Logit Distillation. CVPR 2023",
        equation=(
            "sum over T in {2, 3, 4, 5, 6} of [T^2 (1/B) sum_b KL(p_t || p_s) + (1/B) |P_s P_s^T - P_t "
            "P_t^T|_F^2 + (1/K) |P_s^T P_s - P_t^T P_t|_F^2], p = softmax(z / T), P the (B, K) matrix of "
            "all p"
        ),
        implementation="naskd.knowledge.response.mlkd:MlkdLoss",
        taps=("logits",),
        paper_weight=1.0,
        paper_setting="CIFAR-100, batch 64, two views of each image, beside ce_weight = 1",
        options={"standardize": STANDARDIZE},
    ),
    KnowledgeCard(
        name="ensemble",
        family="response",
        title="Ensemble of teachers",
        paper="You, Xu, Xu, Tao: Learning from Multiple Teacher Networks. KDD 2017",
        equation=(
            "T^2 (1/B) sum_b KL(p_e || softmax(z_s / T)), p_e = (1/M) sum_m softmax(z_m / T) over all teachers m; "
            "or softmax((1/M) sum_m z_m / T); or of one teacher, drawn for each image; or with weights that are learned"
        ),
        implementation="naskd.knowledge.response.ensemble:EnsembleLoss",
        taps=("logits",),
        paper_weight=0.9,
        paper_setting="as logits, which an ensemble of one is",
        several_teachers=True,
        uses_temperature=True,
        options={
            "mean": Option(
                "probabilities",
                "what all teachers together say: the mean of their probabilities or of their logits, one of them "
                "drawn for each image, or the mean with weights that are trained",
                choices=("probabilities", "logits", "drawn", "learned"),
            )
        },
    ),
    KnowledgeCard(
        name="ca_mkd",
        family="response",
        title="Confidence-aware multi-teacher distillation (CA-MKD)",
        paper=(
            "Zhang, Chen, Wang: Confidence-Aware Multi-Teacher Knowledge Distillation. ICASSP 2022, arXiv 2201.00007"
        ),
        equation=(
            "T^2 (1/B) sum_b sum_m w_mb KL(softmax(z_m / T) || softmax(z_s / T)), w_mb = (1 - exp(CE_mb) / sum_n "
            "exp(CE_nb)) / (M - 1), CE of a teacher's answer with the label, at T = 1"
        ),
        implementation="naskd.knowledge.response.ca_mkd:CaMkdLoss",
        taps=("logits",),
        paper_weight=1.0,
        paper_setting="the authors' code: CIFAR-100, T = 4, batch 64, beside ce_weight = 1 and a loss on features; "
        "there the sum over teachers is divided by their number",
        several_teachers=True,
        needs_labels=True,
        uses_temperature=True,
    ),
    KnowledgeCard(
        name="dgkd",
        family="response",
        title="Densely guided distillation by a teacher and all assistants (DGKD)",
        paper=(
            "Son, Na, Choi, Hwang: Densely Guided Knowledge Distillation using Multiple Teacher Assistants. ICCV 2021, "
            "arXiv 2009.08825"
        ),
        equation=(
            "sum_m h_m T^2 (1/B) sum_b KL(softmax(z_m / T) || softmax(z_s / T)) over all networks m, h_m = 0 where m "
            "is left out of a step, else 1"
        ),
        implementation="naskd.knowledge.response.dgkd:DgkdLoss",
        taps=("logits",),
        paper_weight=0.9,
        paper_setting="as logits for each network; the paper balances labels and answers by one factor, and the "
        "authors' code hears no labels and takes means over classes",
        several_teachers=True,
        uses_temperature=True,
        options={"drop": Option(0.0, "probability that a network is left out of a step", 0.0, 0.9)},
    ),
)
