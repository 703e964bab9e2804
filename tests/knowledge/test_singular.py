import pytest
import torch
from torch import Tensor

from naskd.knowledge import KNOWLEDGE
from naskd.knowledge.base import KnowledgeLoss
from naskd.knowledge.relation.singular import KEPT, aligned, leading, signed, singular_vectors
from naskd.spec.design import KnowledgeTerm
from naskd.testing.taps import STUDENTS, TEACHERS, random_taps

GRIDS = {"more places than channels": (3, 4, 3, 3), "more channels than places": (3, 7, 2, 2)}


def maps(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_singular_values(*values: float, channels: int = 5, places: int = 6, seed: int = 0) -> Tensor:
    """One map (1, C, 1, places) whose singular values these are."""
    u = torch.linalg.qr(maps(channels, channels, seed=seed)).Q[:, : len(values)]
    v = torch.linalg.qr(maps(places, places, seed=seed + 1)).Q[:, : len(values)]
    return (u * torch.tensor(values, dtype=torch.float64) @ v.mT)[None, :, None]


def outer(x: Tensor) -> Tensor:
    """``x_i x_i^T`` for each i, which does not know the sign, (B, C, C, k)."""
    return x[:, :, None] * x[:, None]


def by_decomposition(features: Tensor, k: int) -> Tensor:
    _, sigma, v = torch.linalg.svd(features.flatten(2).mT, full_matrices=False)
    return (v.mT * sigma[:, None])[..., :k] / torch.linalg.vector_norm(sigma[:, :k], dim=1)[:, None, None]


def slope(function: object, features: Tensor, k: int) -> Tensor:
    x = features.clone().requires_grad_()
    vectors = function(x, k)
    weight = maps(*outer(vectors).shape, seed=9).to(x.dtype)
    (gradient,) = torch.autograd.grad((weight * outer(vectors)).sum(), x)
    return gradient


def test_one_direction_by_hand() -> None:
    """Channels (3, 4) times places (1, 2, 2): the first vector is (3, 4) / 5, and there is no second one."""
    x = torch.tensor([3.0, 4.0])[:, None] * torch.tensor([1.0, 2.0, 2.0])
    found = signed(singular_vectors(x.view(1, 2, 1, 3), 3))
    torch.testing.assert_close(found, torch.tensor([[[0.6, 0, 0], [0.8, 0, 0]]]), rtol=0, atol=1e-6)


def test_lengths_are_shares_of_the_first_k_singular_values() -> None:
    x = with_singular_values(4.0, 3.0, 1.0)
    lengths = torch.linalg.vector_norm(singular_vectors(x, 2), dim=1)
    torch.testing.assert_close(lengths, torch.tensor([[0.8, 0.6]], dtype=torch.float64))


@pytest.mark.parametrize("size", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("k", [1, 3])
def test_equals_the_decomposition_in_value_and_gradient(size: tuple[int, ...], k: int) -> None:
    x = maps(*size)
    torch.testing.assert_close(outer(singular_vectors(x, k)), outer(by_decomposition(x, k)))
    found, expected = slope(singular_vectors, x, k), slope(by_decomposition, x, k)
    assert (found - expected).abs().max() < 1e-6 * expected.abs().max()


@pytest.mark.parametrize("size", GRIDS.values(), ids=GRIDS)
def test_gradient_is_that_of_finite_differences(size: tuple[int, ...]) -> None:
    x = maps(*size)[:2].requires_grad_()
    assert torch.autograd.gradcheck(lambda x: outer(singular_vectors(x, 2)), x)


@pytest.mark.parametrize("size", GRIDS.values(), ids=GRIDS)
def test_float32_is_as_good_as_its_input(size: tuple[int, ...]) -> None:
    x = maps(*size).float()
    found = singular_vectors(x, 2)
    assert found.dtype == torch.float32
    torch.testing.assert_close(
        outer(found).double(), outer(singular_vectors(x.double(), 2)), rtol=0, atol=1e-6
    )
    assert (slope(singular_vectors, x, 2) - slope(singular_vectors, x.double(), 2)).abs().max() < 1e-5


@pytest.mark.parametrize("size", GRIDS.values(), ids=GRIDS)
def test_neither_scale_nor_order_of_the_places_matters(size: tuple[int, ...]) -> None:
    x = maps(*size)
    expected = outer(singular_vectors(x, 3))
    order = torch.randperm(size[2] * size[3], generator=torch.Generator().manual_seed(0))
    moved = x.flatten(2)[..., order].view(x.shape)
    for changed in (moved, 1e5 * x, 1e-9 * x, -x):
        torch.testing.assert_close(outer(singular_vectors(changed, 3)), expected)


DEGENERATE = {
    "zero": torch.zeros(1, 5, 2, 3),
    "all channels equal": maps(1, 1, 2, 3).repeat(1, 5, 1, 1),
    "three dead channels": maps(1, 5, 2, 3) * torch.tensor([1.0, 0, 1, 0, 0]).view(5, 1, 1),
    "constant": torch.ones(1, 5, 2, 3),
    "equal singular values": with_singular_values(2.0, 2.0, 2.0, 1.0),
    "all equal": with_singular_values(1.0, 1.0, 1.0, 1.0, 1.0),
    "one place of seven": maps(1, 7, 1, 1),
    "three dead channels, more than places": maps(1, 7, 2, 2)
    * torch.tensor([0.0, 0, 0, 1, 1, 1, 1]).view(7, 1, 1),
    "equal places": maps(1, 7, 1, 1).repeat(1, 1, 2, 2),
}


@pytest.mark.parametrize("case", DEGENERATE)
@pytest.mark.parametrize("k", [1, 2, 8])
def test_degenerate_spectra_have_finite_and_moderate_gradients(case: str, k: int) -> None:
    """Two dead channels make all gradients of a plain decomposition NaN."""
    found = singular_vectors(DEGENERATE[case].double(), k)
    assert found.shape[2] == k
    assert found.isfinite().all()
    gradient = slope(singular_vectors, DEGENERATE[case].double(), k)
    assert gradient.isfinite().all()
    assert gradient.abs().max() < 1e3


@pytest.mark.parametrize("gap", [0.0, 1e-9, 1e-6, 1e-4, 1e-3])
def test_nearly_equal_singular_values_do_not_explode(gap: float) -> None:
    """The true gradient grows as one over the gap."""
    x = with_singular_values(1.0 + gap, 1.0, 0.3)
    assert slope(singular_vectors, x, 1).abs().max() < 1e4
    if gap == 1e-6:
        assert slope(by_decomposition, x, 1).abs().max() > 1e5


def test_zero_maps_have_zero_vectors_and_no_gradient() -> None:
    for x in (torch.zeros(2, 3, 4, 4), torch.zeros(2, 30, 2, 2)):
        assert singular_vectors(x, 3).abs().max() == 0
        assert slope(singular_vectors, x, 3).abs().max() == 0


@pytest.mark.parametrize("size", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_a_sample_that_is_not_finite_is_said_and_spoils_no_other(
    size: tuple[int, ...], broken: float
) -> None:
    """The training ends with the name of the loss, and not with an error of the decomposition."""
    features = maps(*size)
    expected = singular_vectors(features, 2)
    features[1, 0, 0, 0] = broken
    found = singular_vectors(features, 2)
    assert found[1].isnan().all()
    torch.testing.assert_close(outer(found[[0, 2]]), outer(expected[[0, 2]]))


def test_vectors_of_a_longer_list_are_those_of_a_shorter_one() -> None:
    x = maps(4, 6, 3, 3)
    for k in (1, 2, 5):
        torch.testing.assert_close(
            outer(leading(singular_vectors(x, KEPT), k)), outer(singular_vectors(x, k))
        )


def test_sign_is_a_rule_and_the_students_follows_the_teachers() -> None:
    vectors = torch.tensor([[[0.6, -0.1], [-0.8, 0.0]], [[0.0, 0.3], [0.0, 0.2]]])
    expected = torch.tensor([[[-0.6, 0.1], [0.8, 0.0]], [[0.0, 0.3], [0.0, 0.2]]])
    torch.testing.assert_close(signed(vectors), expected)
    torch.testing.assert_close(signed(-vectors), expected)
    student = torch.tensor([[[-1.0, 0.0], [0.0, 1.0]], [[1.0, -1.0], [0.0, 0.0]]])
    # dot products 0.6, 0.0 and 0.0, -0.3
    teacher = torch.tensor([[[-0.6, 0.1], [0.8, 0.0]], [[0.0, 0.3], [0.0, 0.2]]])
    found = aligned(student, teacher)
    torch.testing.assert_close(found[..., 0], student[..., 0])
    torch.testing.assert_close(found[..., 1], torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    torch.testing.assert_close(aligned(-student, teacher)[0, :, 0], student[0, :, 0])


def test_all_losses_and_settings_keep_the_same_of_a_teacher() -> None:
    assert KNOWLEDGE["svd"].options["k"].high == KEPT
    teacher = random_taps(TEACHERS["three stages"], 4)
    found = []
    for term in (
        KnowledgeTerm("svd"),
        KnowledgeTerm("svd", options=(("k", KEPT),)),
        KnowledgeTerm("mhgd", options=(("heads", 2),)),
    ):
        loss = KNOWLEDGE.load(term.kind)(term, STUDENTS["three stages"], TEACHERS["three stages"])
        assert isinstance(loss, KnowledgeLoss)
        found.append(loss.summarise(teacher))
    assert {name: tuple(x.shape) for name, x in found[0].items()} == {
        "singular_0": (4, 8, KEPT),
        "singular_1": (4, 12, KEPT),
        "singular_2": (4, 16, KEPT),
    }
    for other in found[1:]:
        assert all(torch.equal(x, other[name]) for name, x in found[0].items())
    for x in found[0].values():
        assert (x.gather(1, x.abs().argmax(dim=1, keepdim=True)) >= 0).all()
