import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from naskd.data.batches import epoch_batches, epoch_order, steps_per_epoch


@settings(deadline=None, max_examples=200)
@given(
    n=st.integers(1, 300),
    batch_size=st.integers(1, 320),
    min_batch=st.integers(1, 8),
    seed=st.integers(0, 2**63 - 1),
    epoch=st.integers(0, 10**6),
)
def test_batches_cover_all_but_a_short_tail(n, batch_size, min_batch, seed, epoch):
    if n < min_batch or batch_size < min_batch:
        with pytest.raises(ValueError, match=str(min_batch)):
            epoch_batches(n, batch_size, seed=seed, epoch=epoch, min_batch=min_batch)
        return
    batches = epoch_batches(n, batch_size, seed=seed, epoch=epoch, min_batch=min_batch)
    sizes = [len(batch) for batch in batches]
    assert len(batches) == steps_per_epoch(n, batch_size, min_batch) >= 1
    assert all(min_batch <= size <= batch_size for size in sizes)
    assert all(size == batch_size for size in sizes[:-1])
    seen = torch.cat(batches).tolist()
    assert len(set(seen)) == len(seen)
    assert set(seen) <= set(range(n))
    assert n - len(seen) < min_batch
    tail = n % batch_size
    assert n - len(seen) == (tail if tail < min_batch else 0)


def test_default_never_gives_a_batch_of_one():
    assert [len(b) for b in epoch_batches(9, 4, seed=0, epoch=0)] == [4, 4]
    assert [len(b) for b in epoch_batches(10, 4, seed=0, epoch=0)] == [4, 4, 2]
    assert [len(b) for b in epoch_batches(3, 64, seed=0, epoch=0)] == [3]


def test_order_is_a_function_of_seed_and_epoch():
    order = epoch_order(100, 5, 3)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    assert torch.equal(epoch_order(100, 5, 3), order)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(epoch_order(100, 5, 4), order)
    assert not torch.equal(epoch_order(100, 6, 3), order)
    assert order.dtype == torch.int64


def test_who_is_left_out_changes():
    left_out = {
        (set(range(5)) - set(torch.cat(epoch_batches(5, 2, seed=0, epoch=epoch)).tolist())).pop()
        for epoch in range(60)
    }
    assert left_out == set(range(5))


@pytest.mark.parametrize(
    ("n", "batch_size", "message"), [(1, 8, "1 training samples"), (8, 1, "batch_size must be at least 2")]
)
def test_impossible_sizes(n, batch_size, message):
    with pytest.raises(ValueError, match=message):
        epoch_batches(n, batch_size, seed=0, epoch=0)


def test_min_batch_below_one():
    with pytest.raises(ValueError, match="min_batch must be at least 1"):
        steps_per_epoch(8, 4, 0)
