import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from naskd.data.splits import draw_stratified, make_split

PARTS = ("train", "val", "test")


def split(labels, **changes):
    arguments = {"val_fraction": 0.2, "test_fraction": 0.2, "max_train": None, "seed": 0} | changes
    return make_split(np.asarray(labels, np.int64), **arguments)


@settings(deadline=None, max_examples=60)
@given(
    counts=st.lists(st.integers(3, 40), min_size=2, max_size=8),
    val=st.floats(0.05, 0.9),
    test=st.one_of(st.none(), st.floats(0.05, 0.9)),
    seed=st.integers(0, 2**63 - 1),
)
def test_parts_are_disjoint_cover_everything_and_hold_every_class(counts, val, test, seed):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    try:
        parts = split(labels, val_fraction=val, test_fraction=test, seed=seed)
    except ValueError:
        # A large test part may leave one image of a small class, and then no split exists.
        assert test is not None
        assert min(counts) - round(test * min(counts)) <= 2
        return
    together = np.concatenate([parts.train, parts.val, parts.test])
    assert sorted(together) == list(range(len(labels)))
    for name in PARTS:
        index = getattr(parts, name)
        if name == "test" and test is None:
            assert len(index) == 0
            continue
        assert (np.diff(index) > 0).all()
        assert set(labels[index]) == set(labels)


@settings(deadline=None, max_examples=60)
@given(counts=st.lists(st.integers(20, 300), min_size=2, max_size=6), fraction=st.floats(0.1, 0.9))
def test_each_class_is_cut_in_proportion(counts, fraction):
    labels = np.repeat(np.arange(len(counts)), counts)
    val = split(labels, val_fraction=fraction, test_fraction=None).val
    assert len(val) == round(fraction * len(labels))
    exact = len(val) * np.asarray(counts) / len(labels)
    assert (np.abs(np.bincount(labels[val]) - exact) <= 1).all()


def test_seeds():
    labels = np.repeat(np.arange(4), 25)
    first, again, other = split(labels, seed=1), split(labels, seed=1), split(labels, seed=2)
    for name in PARTS:
        assert np.array_equal(getattr(first, name), getattr(again, name))
        assert not np.array_equal(getattr(first, name), getattr(other, name))


def test_a_draw_is_the_same_for_ever():
    """Written down once: a change would put sealed images into the training of later runs."""
    assert draw_stratified(np.repeat(np.arange(2), 10), 6, 12345).tolist() == [0, 1, 7, 10, 13, 19]


def test_test_part_does_not_depend_on_later_settings():
    labels = np.repeat(np.arange(4), 25)
    expected = split(labels).test
    assert np.array_equal(split(labels, val_fraction=0.5).test, expected)
    assert np.array_equal(split(labels, max_train=10).test, expected)
    assert np.array_equal(split(labels, max_train=10).val, split(labels).val)


def test_every_image_can_end_in_every_part():
    labels = np.repeat(np.arange(2), 6)
    seen = {name: set() for name in PARTS}
    for seed in range(100):
        for name in PARTS:
            seen[name] |= set(getattr(split(labels, seed=seed), name).tolist())
    assert all(members == set(range(12)) for members in seen.values())


def test_max_train_is_exact_stratified_and_a_part_of_the_training_split():
    labels = np.repeat(np.arange(3), [60, 30, 10])
    whole, few = split(labels).train, split(labels, max_train=20).train
    assert len(few) == 20
    assert set(few) < set(whole)
    assert np.bincount(labels[few]).tolist() == [12, 6, 2]
    assert len(split(labels, max_train=10**6).train) == len(whole)


def test_a_rare_class_stays_in_every_part():
    labels = np.repeat(np.arange(2), [1000, 3])
    parts = split(labels, max_train=5)
    assert all(1 in labels[getattr(parts, name)] for name in PARTS)


def test_a_class_too_small_is_named():
    with pytest.raises(ValueError, match=r"class 'rare' has too few images.*val_fraction"):
        split([0] * 9 + [1] * 2, class_names=("common", "rare"))


@pytest.mark.parametrize("label", [1, 2], ids=["within", "the last"])
def test_a_class_without_images_is_named(label):
    labels = [label_of for label_of in [0, 1, 2] * 9 if label_of != label]
    with pytest.raises(ValueError, match=f"class '{'abc'[label]}' has no images"):
        split(labels, class_names=tuple("abc"))


def test_max_train_below_the_number_of_classes():
    with pytest.raises(ValueError, match="max_train is 2; at least 3"):
        split(np.repeat(np.arange(3), 20), max_train=2)


@pytest.mark.parametrize("n_drawn", [1, 21])
def test_draw_out_of_range(n_drawn):
    with pytest.raises(ValueError, match="allowed: 2 to 20"):
        draw_stratified(np.repeat(np.arange(2), 10), n_drawn, 0)
