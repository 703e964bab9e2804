"""A layer of a transformer on a map of tokens, and what it costs in closed form.

Vaswani et al.: Attention Is All You Need. NeurIPS 2017, arXiv 1706.03762, eq. 1 and section 3.2.2. Normalised before
attention and MLP, as Dosovitskiy et al.: An Image is Worth 16x16 Words. ICLR 2021, arXiv 2010.11929, eq. 2 and 3.
Differs: queries, keys and values have no bias. That of keys would change nothing, since it adds the same to all scores
of a query. There is no dropout.
"""

import torch
from torch import Tensor, nn

from naskd.networks.layers import EPSILON, linear_cost, norm_cost, strided, total
from naskd.spec.design import Cost


class SelfAttention(nn.Module):
    """Multi-head attention among the tokens of a map, ``(B, H, W, D)`` to the same.

    Args:
        features: ``D``.
        heads: Divides `features`.
        apart: Tokens attend to those whose row and column differ from theirs by multiples of it. 1: all to all.
    """

    def __init__(self, features: int, heads: int, apart: int = 1) -> None:
        super().__init__()
        self.heads, self.apart = heads, apart
        self.queries_keys_values = nn.Linear(features, 3 * features, bias=False)
        self.project = nn.Linear(features, features)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        projected, apart = self.queries_keys_values(x), self.apart
        n_rows, n_columns = min(apart, x.shape[1]), min(apart, x.shape[2])
        rows = [
            interleaved(
                [self._attended(projected[:, i::apart, j::apart]) for j in range(n_columns)],
                x.shape[2],
                dim=2,
            )
            for i in range(n_rows)
        ]
        found: Tensor = self.project(interleaved(rows, x.shape[1], dim=1))
        return found

    def _attended(self, projected: Tensor) -> Tensor:
        """Of queries, keys and values ``(B, h, w, 3 D)`` that attend to each other: ``(B, h, w, D)``."""
        batch, height, width, _ = projected.shape
        split = projected.reshape(batch, height * width, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        queries, keys, values = split.unbind(0)
        # As products of matrices, which every counter sees; fused kernels are hidden from some.
        scores = queries @ keys.transpose(-2, -1) * queries.shape[-1] ** -0.5
        attended = scores.softmax(-1) @ values
        tokens: Tensor = attended.transpose(1, 2).reshape(batch, height, width, -1)
        return tokens

    @classmethod
    def cost(cls, features: int, height: int, width: int, apart: int = 1) -> Cost:
        """Closed form; of any number of heads."""
        rows = [_every(height, i, apart) for i in range(apart)]
        columns = [_every(width, j, apart) for j in range(apart)]
        pairs = sum((row * column) ** 2 for row in rows for column in columns)
        linear = [
            linear_cost(features, 3 * features, height * width, bias=False),
            linear_cost(features, features, height * width),
        ]
        return total([*linear, Cost(2 * pairs * features, 0, 0)])


def _every(side: int, first: int, apart: int) -> int:
    """How many of `side` places there are from `first` on, every `apart`-th."""
    return strided(side - first, apart) if side > first else 0


def interleaved(parts: list[Tensor], size: int, dim: int) -> Tensor:
    """Tensors of which the ``k``-th has every ``len(parts)``-th slice from ``k`` on, put together.

    Args:
        parts: Those from the second on may be one slice shorter than the first.
        size: Of the whole along `dim`.
        dim: Along which they were taken apart, at least 1 and not the last.
    """
    if len(parts) == 1:
        return parts[0]
    longest = parts[0].shape[dim]
    filled = [
        part if part.shape[dim] == longest else torch.cat([part, part.narrow(dim, 0, 1)], dim)
        for part in parts
    ]
    return torch.stack(filled, dim + 1).flatten(dim, dim + 1).narrow(dim, 0, size)


class TransformerLayer(nn.Module):
    """Attention and an MLP, each after LayerNorm and added to what it reads; ``(B, H, W, D)`` to the same.

    Args:
        features: ``D``.
        heads: Divides `features`.
        hidden: Features inside the MLP.
        function: Activation of the MLP.
        apart: See :class:`SelfAttention`.
    """

    def __init__(self, features: int, heads: int, hidden: int, function: nn.Module, apart: int = 1) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(features, EPSILON)
        self.attention = SelfAttention(features, heads, apart)
        self.mlp_norm = nn.LayerNorm(features, EPSILON)
        self.mlp = nn.Sequential(nn.Linear(features, hidden), function, nn.Linear(hidden, features))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = x + self.attention(self.attention_norm(x))
        added: Tensor = x + self.mlp(self.mlp_norm(x))
        return added

    @classmethod
    def cost(cls, features: int, hidden: int, height: int, width: int, apart: int = 1) -> Cost:
        """Closed form."""
        places = height * width
        return total(
            (
                norm_cost(features),
                SelfAttention.cost(features, height, width, apart),
                norm_cost(features),
                linear_cost(features, hidden, places),
                linear_cost(hidden, features, places),
            )
        )


def position_embedding(height: int, width: int, features: int, like: Tensor) -> Tensor:
    """Fixed sines and cosines of rows and columns, ``(height, width, features)``.

    Vaswani et al., section 3.5, for each side with half of the features, as in Beyer, Zhai, Kolesnikov: Better plain
    ViT baselines for ImageNet-1k. 2022, arXiv 2205.01580. So a network takes maps of any size and has no weights for
    places.

    Args:
        height: Of the grid.
        width: Of the grid.
        features: A multiple of 4.
        like: Whose device and type it has.
    """
    quarter = features // 4
    speeds = 10_000.0 ** (-torch.arange(quarter, device=like.device, dtype=torch.float32) / quarter)

    def waves(n: int) -> Tensor:
        angles = torch.arange(n, device=like.device, dtype=torch.float32)[:, None] * speeds
        return torch.cat([angles.sin(), angles.cos()], 1)

    rows = waves(height)[:, None].expand(height, width, -1)
    columns = waves(width)[None].expand(height, width, -1)
    return torch.cat([rows, columns], 2).to(like.dtype)


def plain_heads(features: int) -> int:
    """Heads of attention where a design does not say: 4, or 2 or 1 where that does not divide `features`."""
    return next(heads for heads in (4, 2, 1) if features % heads == 0)
