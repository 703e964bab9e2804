"""The losses once more, in float64 and plain loops, from the equations of the papers and not from our code.

Slow on purpose: every index of an equation is a loop, so that each line can be held against the paper.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def softmax(z: Array) -> Array:
    """Softmax of one vector."""
    e = np.exp(z - z.max())
    return e / e.sum()


def logits(student: Array, teacher: Array, temperature: float) -> float:
    """Hinton et al., 1503.02531: T^2 (1/B) sum_b KL(softmax(z_t/T) || softmax(z_s/T))."""
    total = 0.0
    for z_s, z_t in zip(student, teacher, strict=True):
        p_s, p_t = softmax(z_s / temperature), softmax(z_t / temperature)
        for k in range(len(z_s)):
            total += p_t[k] * (np.log(p_t[k]) - np.log(p_s[k]))
    return temperature**2 * total / len(student)


def pool(image: Array, height: int, width: int) -> Array:
    """Adaptive average pooling of one (H, W) image: rows floor(i H / h) to ceil((i + 1) H / h) - 1."""
    pooled = np.zeros((height, width))
    full_height, full_width = image.shape
    for i in range(height):
        for j in range(width):
            rows = range(i * full_height // height, -(-(i + 1) * full_height // height))
            columns = range(j * full_width // width, -(-(j + 1) * full_width // width))
            cell = [image[r, c] for r in rows for c in columns]
            pooled[i, j] = sum(cell) / len(cell)
    return pooled


def hint(student: Array, teacher: Array, weight: Array, bias: Array) -> float:
    """Romero et al., 1412.6550, eq. 3 as a mean: mean (W F_s + b - F_t)^2, on the smaller grid."""
    height = min(student.shape[2], teacher.shape[2])
    width = min(student.shape[3], teacher.shape[3])
    errors = []
    for f_s, f_t in zip(student, teacher, strict=True):
        pooled_student = [pool(channel, height, width) for channel in f_s]
        for out in range(len(f_t)):
            target = pool(f_t[out], height, width)
            for i in range(height):
                for j in range(width):
                    mapped = bias[out]
                    for channel in range(len(f_s)):
                        mapped += weight[out, channel] * pooled_student[channel][i, j]
                    errors.append((mapped - target[i, j]) ** 2)
    return sum(errors) / len(errors)


def attention(student: Array, teacher: Array) -> float:
    """Zagoruyko & Komodakis, 1612.03928, eq. 2, squared and averaged; maps pooled to the smaller grid."""
    height = min(student.shape[2], teacher.shape[2])
    width = min(student.shape[3], teacher.shape[3])

    def unit_map(features: Array) -> Array:
        summed = np.zeros(features.shape[1:])
        for channel in features:
            summed += channel**2
        q = pool(summed / len(features), height, width).reshape(-1)
        return q / np.sqrt(sum(v**2 for v in q))

    errors = []
    for f_s, f_t in zip(student, teacher, strict=True):
        q_s, q_t = unit_map(f_s), unit_map(f_t)
        errors += [(q_s[i] - q_t[i]) ** 2 for i in range(height * width)]
    return sum(errors) / len(errors)


def huber(x: float, y: float) -> float:
    """Park et al., eq. 6, with delta = 1."""
    gap = abs(x - y)
    return 0.5 * gap**2 if gap <= 1 else gap - 0.5


def rkd_distance(student: Array, teacher: Array) -> float:
    """Park et al., 1904.05068, eqs. 4, 5 and 7, averaged over all B^2 pairs."""

    def potentials(f: Array) -> Array:
        n = len(f)
        d = np.array(
            [
                [np.sqrt(sum((a - b) ** 2 for a, b in zip(f[i], f[j], strict=True))) for j in range(n)]
                for i in range(n)
            ]
        )
        distinct = [d[i, j] for i in range(n) for j in range(n) if i != j]
        return d / (sum(distinct) / len(distinct))

    psi_s, psi_t = potentials(student), potentials(teacher)
    n = len(student)
    return sum(huber(psi_s[i, j], psi_t[i, j]) for i in range(n) for j in range(n)) / n**2


def rkd_angle(student: Array, teacher: Array) -> float:
    """Park et al., eqs. 8 and 9: the angle at j of the triplet (i, j, k), averaged over all B^3 triplets.

    A triplet whose vertex coincides with another of its points has no angle and counts as equal.
    """

    def cosine(f: Array, i: int, j: int, k: int) -> float:
        a, b = f[i] - f[j], f[k] - f[j]
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        return dot / (np.sqrt(sum(x * x for x in a)) * np.sqrt(sum(y * y for y in b)))

    n = len(student)
    total = 0.0
    for i in range(n):
        for j in range(n):
            for k in range(n):
                if i != j and k != j:
                    total += huber(cosine(student, i, j, k), cosine(teacher, i, j, k))
    return total / n**3


def kl(p: Array, q: Array) -> float:
    """Kullback-Leibler divergence of two vectors; 0 log 0 = 0."""
    return sum(p[k] * (np.log(p[k]) - np.log(q[k])) for k in range(len(p)) if p[k] > 0)


def standardized(z: Array) -> Array:
    """Sun et al., 2403.01427: (z - mean) / std of one sample, std over K - 1."""
    mean = sum(z) / len(z)
    return (z - mean) / np.sqrt(sum((v - mean) ** 2 for v in z) / (len(z) - 1))


def logit_mse(student: Array, teacher: Array) -> float:
    """Ba & Caruana, 1312.6184: mean squared difference of logits."""
    errors = [(s - t) ** 2 for a, b in zip(student, teacher, strict=True) for s, t in zip(a, b, strict=True)]
    return sum(errors) / len(errors)


def conditional(student: Array, teacher: Array, labels: Array, temperature: float) -> float:
    """Meng et al., 1904.12399: the teacher's answer where it is right, nothing (the label) elsewhere."""
    total = 0.0
    for z_s, z_t, y in zip(student, teacher, labels, strict=True):
        if z_t.argmax() == y:
            total += temperature**2 * kl(softmax(z_t / temperature), softmax(z_s / temperature))
    return total / len(student)


def label_smoothing(student: Array, epsilon: float) -> float:
    """Szegedy et al., 1512.00567: epsilon times the cross-entropy with the uniform distribution."""
    total = 0.0
    for z in student:
        p = softmax(z)
        total -= epsilon * sum(np.log(p[k]) / len(p) for k in range(len(p)))
    return total / len(student)


def tf_kd(student: Array, labels: Array, temperature: float, correct: float) -> float:
    """Yuan et al., 1909.11723: the virtual teacher u, softened as u^(1/T) / sum u^(1/T)."""
    total = 0.0
    for z, y in zip(student, labels, strict=True):
        n = len(z)
        u = np.array([correct if k == y else (1 - correct) / (n - 1) for k in range(n)])
        soft = u ** (1 / temperature) / sum(u ** (1 / temperature))
        total += temperature**2 * kl(soft, softmax(z / temperature))
    return total / len(student)


def dkd(
    student: Array, teacher: Array, labels: Array, temperature: float, alpha: float, beta: float
) -> float:
    """Zhao et al., 2203.08679, eq. 7."""
    total = 0.0
    for z_s, z_t, y in zip(student, teacher, labels, strict=True):
        p_s, p_t = softmax(z_s / temperature), softmax(z_t / temperature)
        binary = [np.array([p[y], 1 - p[y]]) for p in (p_t, p_s)]
        others = [np.array([p[k] / (1 - p[y]) for k in range(len(p)) if k != y]) for p in (p_t, p_s)]
        total += temperature**2 * (alpha * kl(*binary) + beta * kl(*others))
    return total / len(student)


def nkd(student: Array, teacher: Array, labels: Array, temperature: float, gamma: float) -> float:
    """Yang et al., 2303.13005, eq. 8: the label's part at T = 1, the others' normalised at T."""
    total = 0.0
    for z_s, z_t, y in zip(student, teacher, labels, strict=True):
        total -= softmax(z_t)[y] * np.log(softmax(z_s)[y])
        p_s, p_t = softmax(z_s / temperature), softmax(z_t / temperature)
        for k in range(len(z_s)):
            if k != y:
                q_t, q_s = p_t[k] / (1 - p_t[y]), p_s[k] / (1 - p_s[y])
                total -= gamma * temperature**2 * q_t * np.log(q_s)
    return total / len(student)


def pearson(a: Array, b: Array) -> float:
    """Correlation of two vectors."""
    x, y = a - sum(a) / len(a), b - sum(b) / len(b)
    return sum(x * y) / np.sqrt(sum(x * x) * sum(y * y))


def dist(student: Array, teacher: Array, temperature: float, beta: float, gamma: float) -> float:
    """Huang et al., 2205.10536, eqs. 8 to 10."""
    p_s = np.array([softmax(z / temperature) for z in student])
    p_t = np.array([softmax(z / temperature) for z in teacher])
    batch, classes = p_s.shape
    between = sum(pearson(p_s[b], p_t[b]) for b in range(batch)) / batch
    within = sum(pearson(p_s[:, k], p_t[:, k]) for k in range(classes)) / classes
    return temperature**2 * (beta * (1 - between) + gamma * (1 - within))


def wsld_weights(student: Array, teacher: Array, labels: Array) -> Array:
    """Zhou et al., 2102.00650: 1 - exp(-CE_s / CE_t), of each sample."""
    return np.array(
        [
            1 - np.exp(np.log(softmax(z_s)[y]) / (-np.log(softmax(z_t)[y]) + 1e-7))
            for z_s, z_t, y in zip(student, teacher, labels, strict=True)
        ]
    )


def wsld(student: Array, teacher: Array, weights: Array, temperature: float) -> float:
    """The weighted divergence; the weights are given, since they are not differentiated."""
    total = 0.0
    for z_s, z_t, w in zip(student, teacher, weights, strict=True):
        total += w * temperature**2 * kl(softmax(z_t / temperature), softmax(z_s / temperature))
    return total / len(student)


def mlkd(student: Array, teacher: Array) -> float:
    """Jin et al., CVPR 2023: instance, batch and class level at five temperatures."""
    total = 0.0
    batch, classes = student.shape
    for temperature in (2, 3, 4, 5, 6):
        p_s = np.array([softmax(z / temperature) for z in student])
        p_t = np.array([softmax(z / temperature) for z in teacher])
        total += sum(temperature**2 * kl(p_t[b], p_s[b]) for b in range(batch)) / batch
        for i in range(batch):
            for j in range(batch):
                total += (sum(p_s[i] * p_s[j]) - sum(p_t[i] * p_t[j])) ** 2 / batch
        for k in range(classes):
            for m in range(classes):
                total += (sum(p_s[:, k] * p_s[:, m]) - sum(p_t[:, k] * p_t[:, m])) ** 2 / classes
    return total


def pooled_map(features: Array, height: int, width: int) -> Array:
    """(C, H, W) to (C, height, width)."""
    return np.array([pool(channel, height, width) for channel in features])


def smaller(a: Array, b: Array) -> tuple[int, int]:
    """The smaller grid of two batches of maps."""
    return min(a.shape[2], b.shape[2]), min(a.shape[3], b.shape[3])


def unit(x: Array) -> Array:
    """A vector divided by its length."""
    return x / np.sqrt(sum(v * v for v in x))


def nst(student: Array, teacher: Array) -> float:
    """Huang & Wang, 1707.01219, eq. 7 with the polynomial kernel (d = 2, c = 0)."""
    grid = smaller(student, teacher)
    total = 0.0
    for f_s, f_t in zip(student, teacher, strict=True):
        own = [unit(c.reshape(-1)) for c in pooled_map(f_s, *grid)]
        other = [unit(c.reshape(-1)) for c in pooled_map(f_t, *grid)]

        def mean_kernel(a: list[Array], b: list[Array]) -> float:
            return sum(sum(x * y) ** 2 for x in a for y in b) / (len(a) * len(b))

        total += mean_kernel(own, own) + mean_kernel(other, other) - 2 * mean_kernel(own, other)
    return total / len(student)


def factor(student: Array, teacher: Array) -> float:
    """Kim et al., 1802.04977, eq. 4 with p = 1, as a mean: factors of unit length, compared element by element."""
    grid = smaller(student, teacher)
    errors: list[float] = []
    for f_s, f_t in zip(student, teacher, strict=True):
        a, b = (unit(pooled_map(f, *grid).reshape(-1)) for f in (f_s, f_t))
        errors += [abs(a[i] - b[i]) for i in range(len(a))]
    return sum(errors) / len(errors)


def ab(student: Array, teacher: Array, margin: float) -> float:
    """Heo et al., 1811.03233, eq. 5, summed and divided by the batch."""
    total = 0.0
    for s, t in zip(student.reshape(-1), teacher.reshape(-1), strict=True):
        if t > 0 and s <= margin:
            total += (s - margin) ** 2
        if t <= 0 and s > -margin:
            total += (s + margin) ** 2
    return total / len(student)


def negative_mean(shift: float, scale: float, steps: int = 400_000) -> float:
    """E[x | x < 0] of a normal variable, by the trapezoidal rule over 12 deviations below 0 or below the mean."""
    deviation = abs(scale)
    high = min(0.0, shift + 12 * deviation)
    x = np.linspace(min(shift, high) - 12 * deviation, high, steps)
    density = np.exp(-0.5 * ((x - shift) / deviation) ** 2 + 0.5 * ((high - shift) / deviation) ** 2)
    return float(np.trapezoid(x * density, x) / np.trapezoid(density, x))


def ofd(student: Array, teacher: Array, margin: Array) -> float:
    """Heo et al., 1904.01866, eqs. 1 and 4: the margin ReLU and the partial L2 distance."""
    total = 0.0
    for f_s, f_t in zip(student, teacher, strict=True):
        for channel in range(len(f_s)):
            for s, t in zip(f_s[channel].reshape(-1), f_t[channel].reshape(-1), strict=True):
                target = max(t, margin[channel])
                if not (s <= target <= 0):
                    total += (s - target) ** 2
    return total / len(student)


def vid(student: Array, teacher: Array, variance: Array) -> float:
    """Ahn et al., 1904.05835, eq. 5 without its constant, as a mean over all elements."""
    grid = smaller(student, teacher)
    values = []
    for f_s, f_t in zip(student, teacher, strict=True):
        own, other = pooled_map(f_s, *grid), pooled_map(f_t, *grid)
        for c in range(len(own)):
            for a, b in zip(own[c].reshape(-1), other[c].reshape(-1), strict=True):
                values.append(0.5 * ((a - b) ** 2 / variance[c] + np.log(variance[c])))
    return sum(values) / len(values)


def hcl(student: Array, teacher: Array) -> float:
    """Chen et al., 2104.09044, section 3.3: the whole grid and those of 4, 2 and 1, with weights 1, 1/2, 1/4, 1/8."""
    height, width = student.shape[2:]
    levels = [(height, width)] + [(n, n) for n in (4, 2, 1) if n < min(height, width)]
    weights = [0.5**i for i in range(len(levels))]
    total = 0.0
    for level, weight in zip(levels, weights, strict=True):
        a = np.array([pooled_map(f, *level) for f in student]).reshape(-1)
        b = np.array([pooled_map(f, *level) for f in teacher]).reshape(-1)
        total += weight * sum((a - b) ** 2) / len(a)
    return total / sum(weights)


def semckd(errors: Array, association: Array) -> float:
    """Chen et al., 2012.03236, eq. 7: errors of each pair, weighted for each sample."""
    total = 0.0
    for b in range(len(errors)):
        for s in range(errors.shape[1]):
            for t in range(errors.shape[2]):
                total += association[b, s, t] * errors[b, s, t]
    return total / len(errors)


def association(queries: Array, keys: Array) -> Array:
    """Softmax over the teacher's stages of query times key."""
    return np.array(
        [
            [softmax(np.array([sum(q * k) for k in ks])) for q in qs]
            for qs, ks in zip(queries, keys, strict=True)
        ]
    )


def srrl(
    student: Array,
    teacher: Array,
    teacher_logits: Array,
    weight: Array,
    bias: Array,
    feature: float,
    regression: float,
) -> float:
    """Yang et al., ICLR 2021: both terms as means."""
    features = [(a - b) ** 2 for a, b in zip(student.reshape(-1), teacher.reshape(-1), strict=True)]
    answers = []
    for f, z in zip(student, teacher_logits, strict=True):
        for k in range(len(weight)):
            answers.append((sum(weight[k] * f) + bias[k] - z[k]) ** 2)
    return feature * sum(features) / len(features) + regression * sum(answers) / len(answers)


def pkt(student: Array, teacher: Array) -> float:
    """Passalis & Tefas, 1803.10837, eqs. 5 to 8, averaged over all B^2 pairs."""

    def conditional_probabilities(f: Array) -> Array:
        n = len(f)
        k = np.array([[(sum(unit(f[i]) * unit(f[j])) + 1) / 2 for j in range(n)] for i in range(n)])
        return np.array([row / sum(row) for row in k])

    p_s, p_t = conditional_probabilities(student), conditional_probabilities(teacher)
    n = len(student)
    return (
        sum(p_t[i, j] * np.log((p_t[i, j] + 1e-7) / (p_s[i, j] + 1e-7)) for i in range(n) for j in range(n))
        / n**2
    )


def sp(student: Array, teacher: Array) -> float:
    """Tung & Mori, 1907.09682, eqs. 1 to 4: rows of unit L2 length."""

    def similarities(f: Array) -> Array:
        flat = f.reshape(len(f), -1)
        gram = np.array([[sum(a * b) for b in flat] for a in flat])
        return np.array([unit(row) for row in gram])

    g_s, g_t = similarities(student), similarities(teacher)
    n = len(student)
    return sum((g_s[i, j] - g_t[i, j]) ** 2 for i in range(n) for j in range(n)) / n**2


def cc(student: Array, teacher: Array, gamma: float, order: int) -> float:
    """Peng et al., 1904.01802, eqs. 6 and 8: the Gaussian kernel by its Taylor series, on unit vectors."""

    def kernel(f: Array) -> Array:
        n = len(f)
        found = np.zeros((n, n))
        for i in range(n):
            for j in range(n):
                cosine, factorial = sum(unit(f[i]) * unit(f[j])), 1.0
                for p in range(order + 1):
                    factorial *= max(p, 1)
                    found[i, j] += np.exp(-2 * gamma) * (2 * gamma) ** p / factorial * cosine**p
        return found

    k_s, k_t = kernel(student), kernel(teacher)
    n = len(student)
    return sum((k_s[i, j] - k_t[i, j]) ** 2 for i in range(n) for j in range(n)) / n**2


def channel_gram(features: Array) -> Array:
    """Cosines between channels, (B, C, H, W) to (B, C, C)."""
    return np.array(
        [[[sum(unit(c.reshape(-1)) * unit(d.reshape(-1))) for d in f] for c in f] for f in features]
    )


def ickd(student: Array, teacher: Array) -> float:
    """Liu et al., ICCV 2021, eqs. 2 and 3: student maps against the teacher's channel correlations."""
    own = channel_gram(student)
    channels = own.shape[1]
    return sum(((own[b] - teacher[b]) ** 2).sum() / channels**2 for b in range(len(own))) / len(own)


def irg(
    student_logits: Array,
    teacher_logits: Array,
    student_vectors: list[Array],
    teacher_vectors: list[Array],
    vertex: float,
    edge: float,
    transformation: float,
) -> float:
    """Liu et al., CVPR 2019: vertices, edges and their transformation."""

    def edges(f: Array) -> Array:
        d = np.array([[sum((a - b) ** 2) for b in f] for a in f])
        return d / d.max()

    own, other = [edges(f) for f in student_vectors], [edges(f) for f in teacher_vectors]
    total = vertex * logit_mse(student_logits, teacher_logits)
    total += edge * sum(((a - b) ** 2).mean() for a, b in zip(own, other, strict=True)) / len(own)
    changes = [(((own[i + 1] - own[i]) - (other[i + 1] - other[i])) ** 2).mean() for i in range(len(own) - 1)]
    return total + (transformation * sum(changes) / len(changes) if changes else 0.0)


def flow_divergence(student: Array, teacher: Array) -> float:
    """Passalis et al., 2005.00727: Jeffreys divergence of conditional probabilities of two kernels, mean over pairs."""
    total, n = 0.0, len(student)
    for kernel in (
        lambda a, b: (sum(a * b) + 1) / 2,
        lambda a, b: 1 / (1 + np.sqrt(sum((a - b) ** 2))),
    ):
        found = []
        for f in (student, teacher):
            x = [unit(v) for v in f]
            k = np.array([[kernel(x[i], x[j]) for j in range(n)] for i in range(n)])
            found.append(np.array([row / sum(row) for row in k]))
        p_s, p_t = found
        for i in range(n):
            for j in range(n):
                logs = np.log(p_t[i, j] + 1e-7) - np.log(p_s[i, j] + 1e-7)
                total += (p_t[i, j] - p_s[i, j]) * logs / n**2
    return total


def fsp_matrix(a: Array, b: Array) -> Array:
    """Yim et al., CVPR 2017, eq. 1: mean over places of the products of channels of two layers."""
    height, width = smaller(a, b)
    found = np.zeros((len(a), a.shape[1], b.shape[1]))
    for i in range(len(a)):
        lower, upper = pooled_map(a[i], height, width), pooled_map(b[i], height, width)
        for c in range(len(lower)):
            for d in range(len(upper)):
                found[i, c, d] = sum(
                    lower[c, h, w] * upper[d, h, w] for h in range(height) for w in range(width)
                ) / (height * width)
    return found


def singular_vectors(features: Array, k: int) -> Array:
    """Lee et al., ECCV 2018: sigma_i / |sigma| v_i of each sample's (H W, C) matrix, (B, C, k), up to sign."""
    found = []
    for f in features:
        matrix = f.reshape(len(f), -1).T
        _, sigma, rows = np.linalg.svd(matrix)
        kept = sigma[:k] / np.sqrt(sum(sigma[:k] ** 2))
        found.append(np.array([kept[i] * rows[i] for i in range(k)]).T)
    return np.array(found)


def svd(student: list[Array], teacher: list[Array]) -> float:
    """Lee et al., eqs. 4 to 6: radial basis functions between vectors of consecutive layers, summed."""
    total = 0.0
    for layer in range(len(student) - 1):
        for b in range(len(student[0])):
            for i in range(student[0].shape[2]):
                for p in range(student[layer].shape[1]):
                    for q in range(student[layer + 1].shape[1]):
                        r_s, r_t = (
                            np.exp(-((x[layer][b, p, i] - x[layer + 1][b, q, i]) ** 2) / 8)
                            for x in (student, teacher)
                        )
                        total += (r_s - r_t) ** 2 / len(student[0])
    return total


def mhgd(student: Array, teacher: Array) -> float:
    """Lee & Song, 1907.02226, eq. 6: divergence of attention, averaged over heads and samples."""
    heads, batch, _ = student.shape
    total = 0.0
    for h in range(heads):
        for b in range(batch):
            total += kl(softmax(teacher[h, b]), softmax(student[h, b]))
    return total / (heads * batch)


def crd(
    anchor: Array, positive: Array, others: Array, is_negative: Array, n_samples: int, tau: float
) -> float:
    """Tian et al., 1910.10699, eqs. 17 to 19: h = e^a / (e^a + N / M)."""
    total = 0.0
    for i in range(len(anchor)):
        n = max(1, int(is_negative[i].sum()))

        def h(a: float, n: int = n) -> float:
            return np.exp(a / tau) / (np.exp(a / tau) + n / n_samples)

        total -= np.log(h(sum(anchor[i] * positive[i])))
        for j in range(len(others)):
            if is_negative[i, j]:
                total -= np.log(1 - h(sum(anchor[i] * others[j])))
    return total / len(anchor)


def teacher_graph(
    student_logits: Array,
    teacher_logits: Array,
    student_pooled: Array,
    teacher_pooled: list[Array],
    temperature: float,
    representation: float,
) -> float:
    """After Zhang & Peng, 1804.10069: teachers count as much as the others agree with them."""
    n_teachers, batch = len(teacher_logits), len(student_logits)

    def divergence(target: Array, other: Array) -> float:
        return temperature**2 * kl(softmax(target / temperature), softmax(other / temperature))

    total = 0.0
    for b in range(batch):
        apart = np.array(
            [
                sum(
                    divergence(teacher_logits[n][b], teacher_logits[m][b])
                    for n in range(n_teachers)
                    if n != m
                )
                / (n_teachers - 1)
                for m in range(n_teachers)
            ]
        )
        weights = softmax(-apart)
        for m in range(n_teachers):
            total += weights[m] * divergence(teacher_logits[m][b], student_logits[b]) / batch

    def cosines(f: Array) -> Array:
        return np.array([[sum(unit(a) * unit(b)) for b in f] for a in f])

    own, graphs = cosines(student_pooled), [cosines(f) for f in teacher_pooled]

    def distance(a: Array, b: Array) -> float:
        return ((a - b) ** 2).sum() / batch**2

    apart = np.array(
        [
            sum(distance(graphs[n], graphs[m]) for n in range(n_teachers) if n != m) / (n_teachers - 1)
            for m in range(n_teachers)
        ]
    )
    weights = softmax(-apart)
    return total + representation * sum(weights[m] * distance(own, graphs[m]) for m in range(n_teachers))


def cross_entropy(z: Array, label: int) -> float:
    """Of one vector of logits."""
    return float(-np.log(softmax(z)[label]))


def ensemble(student: Array, teachers: Array, temperature: float, mean: str) -> float:
    """You et al., KDD 2017: what all teachers say together, by their probabilities or their logits."""
    total, (n_teachers, batch, n_classes) = 0.0, teachers.shape
    for b in range(batch):
        target = np.zeros(n_classes)
        for m in range(n_teachers):
            said = softmax(teachers[m][b] / temperature) if mean == "probabilities" else teachers[m][b]
            for k in range(n_classes):
                target[k] += said[k] / n_teachers
        if mean == "logits":
            target = softmax(target / temperature)
        total += kl(target, softmax(student[b] / temperature))
    return temperature**2 * total / batch


def learned_ensemble(student: Array, teachers: Array, temperature: float, scores: Array) -> float:
    """Divergences from the teachers by softmax(scores), and the divergence of these from equal weights."""
    weights, batch = softmax(scores), len(student)
    total = 0.0
    for m, weight in enumerate(weights):
        total += weight * np.log(weight * len(weights))
        for b in range(batch):
            said = softmax(teachers[m][b] / temperature)
            total += weight * kl(said, softmax(student[b] / temperature)) / batch
    return temperature**2 * total


def dgkd(student: Array, teachers: Array, temperature: float, heard: Array) -> float:
    """Son et al., 2009.08825: divergences from all networks that are heard in a step, added."""
    total = 0.0
    for m in range(len(teachers)):
        for b in range(len(student)):
            said = softmax(teachers[m][b] / temperature)
            total += heard[m] * temperature**2 * kl(said, softmax(student[b] / temperature)) / len(student)
    return total


def ca_mkd(student: Array, teachers: Array, labels: Array, temperature: float) -> float:
    """Zhang et al., 2201.00007, eqs. 1 to 3: teachers weighed by their cross-entropy with the label."""
    total, n_teachers = 0.0, len(teachers)
    for b in range(len(student)):
        wrong = [np.exp(cross_entropy(teachers[m][b], labels[b])) for m in range(n_teachers)]
        for m in range(n_teachers):
            weight = (1 - wrong[m] / sum(wrong)) / (n_teachers - 1)
            said = softmax(teachers[m][b] / temperature)
            total += weight * kl(said, softmax(student[b] / temperature))
    return temperature**2 * total / len(student)


def gradient(function: Callable[[Array], float], at: Array, step: float = 1e-3) -> Array:
    """Central differences of sixth order, error O(step^6)."""
    found = np.zeros_like(at)
    for index in np.ndindex(*at.shape):
        for offset, factor in ((1, 3 / 4), (2, -3 / 20), (3, 1 / 60)):
            for sign in (1, -1):
                moved = at.copy()
                moved[index] += sign * offset * step
                found[index] += sign * factor * function(moved) / step
    return found
