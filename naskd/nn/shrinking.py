"""A network with fewer channels: its stored tensors are cut along their axes, and its layers told their new sizes.

Which channels belong together says :mod:`naskd.nn.channels`.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from naskd.nn.channels import Axis, ChannelPlan, stored_tensors
from naskd.reducing import within
from naskd.spec.design import Cost

Kept = Sequence[Tensor]
"""For each group of channels of a plan the positions that are kept, ascending."""


def sizes_of(plan: ChannelPlan, chosen: Mapping[int, int]) -> list[int]:
    """Channels of each group of a plan in a smaller network.

    They are not read off its tensors: a group may stand beside others in all of them.

    Args:
        plan: Of the whole network.
        chosen: For groups that become smaller, by their position: how many channels are left.
    """
    return [chosen.get(number, group.size) for number, group in enumerate(plan.groups)]


@torch.no_grad()
def cut(name: str, tensor: Tensor, plan: ChannelPlan, sizes: Sequence[int], kept: Kept) -> Tensor:
    """What is left of a stored tensor.

    Args:
        name: Of the tensor.
        tensor: As it is.
        plan: Of the network.
        sizes: Channels of each group in this network.
        kept: Of them.
    """
    axes = plan.axes.get(name)
    if axes is None:
        return tensor
    if name in plan.grouped:
        return _cut_groups(tensor, axes[0], *plan.grouped[name], sizes, kept)
    for number, axis in enumerate(axes):
        if axis is not None and any(len(kept[group]) < sizes[group] for group, _ in axis.parts):
            tensor = tensor.index_select(number, _positions(axis, sizes, kept).to(tensor.device))
    return tensor


def _cut_groups(
    weight: Tensor, made: Axis | None, groups: int, read: Axis, sizes: Sequence[int], kept: Kept
) -> Tensor:
    """Of a grouped convolution ``(out, in / groups, ...)``: of each group as many channels."""
    assert made is not None
    outputs = _positions(made, sizes, kept).reshape(groups, -1)
    inputs = (
        _positions(read, sizes, kept).reshape(groups, -1)
        - weight.shape[1] * torch.arange(groups, device="cpu")[:, None]
    )
    parts = [
        weight.index_select(0, mine.to(weight.device)).index_select(1, theirs.to(weight.device))
        for mine, theirs in zip(outputs, inputs, strict=True)
    ]
    return torch.cat(parts)


def _positions(axis: Axis, sizes: Sequence[int], kept: Kept) -> Tensor:
    found, before = [], 0
    for group, repeat in axis.parts:
        found.append((before + kept[group][:, None] * repeat + torch.arange(repeat, device="cpu")).flatten())
        before += sizes[group] * repeat
    return torch.cat(found)


def first_channels(group: int, n: int, plan: ChannelPlan, sizes: Sequence[int]) -> Tensor:
    """Positions of `n` channels of a group: the first ones, of each of its parts that stay equal as many."""
    return _balanced(torch.arange(sizes[group], 0, -1, device="cpu"), n, plan.groups[group].multiple)


def strongest_channels(importance: Tensor, n: int, multiple: int) -> Tensor:
    """Positions of the `n` most important channels of a group, ascending.

    Args:
        importance: Of each channel.
        n: A multiple of `multiple`.
        multiple: Of so many equal parts of the group as many are kept.
    """
    return _balanced(importance, n, multiple)


def _balanced(importance: Tensor, n: int, parts: int) -> Tensor:
    each = importance.cpu().reshape(parts, -1)
    best = each.topk(n // parts, dim=1).indices.sort(dim=1).values
    return (best + each.shape[1] * torch.arange(parts, device="cpu")[:, None]).flatten()


@torch.no_grad()
def importance(network: nn.Module, plan: ChannelPlan, sizes: Sequence[int]) -> list[Tensor]:
    """Of each channel of each group: L1 norms of all filters that make it, summed.

    Li, Kadav, Durdanovic, Samet, Graf: Pruning filters for efficient ConvNets. ICLR 2017, arXiv 1608.08710.
    Differs: channels that several layers make are ranked by the sum; the paper lets the shortcut decide.
    """
    found = [torch.zeros(size, device="cpu") for size in sizes]
    state = dict(stored_tensors(network))
    for name, made in plan.weights.items():
        axis = plan.axes[name][made]
        if axis is None or name not in state:
            continue
        norms = state[name].detach().abs().transpose(0, made).flatten(1).sum(1).cpu()
        before = 0
        for group, repeat in axis.parts:
            length = sizes[group] * repeat
            found[group] += norms[before : before + length].reshape(-1, repeat).sum(1)
            before += length
    return found


@torch.no_grad()
def shrink(network: nn.Module, plan: ChannelPlan, chosen: Mapping[int, int]) -> None:
    """Leave a network its first channels, in place.

    Weights are scaled so that what a layer makes keeps its variance where the layer reads fewer channels: by the square
    root of the ratio of the two numbers (He, Zhang, Ren, Sun: Delving deep into rectifiers. ICCV 2015, arXiv
    1502.01852, eq. 10). So whatever initialisation the network has is that of the smaller one, too.

    Args:
        network: As it is built, on any device.
        plan: Of it.
        chosen: For groups that become smaller, by their position: how many channels are left.
    """
    sizes = sizes_of(plan, {})
    kept = [
        first_channels(group, chosen[group], plan, sizes)
        if group in chosen
        else torch.arange(size, device="cpu")
        for group, size in enumerate(sizes)
    ]
    made: dict[int, Tensor] = {}
    for name, tensor in stored_tensors(network):
        smaller = cut(name, tensor, plan, sizes, kept)
        if name in plan.weights:
            axis = 1 - plan.weights[name]
            smaller = smaller * math.sqrt(tensor.shape[axis] / smaller.shape[axis])
        if isinstance(tensor, nn.Parameter):
            smaller = nn.Parameter(smaller.detach().clone(), tensor.requires_grad)
        made[id(tensor)] = smaller
    for module in network.modules():
        for own in (module._parameters, module._buffers):
            for name, value in own.items():
                if value is not None:
                    own[name] = made[id(value)]  # type: ignore[assignment]  # each in its own kind
        _tell(module)


def length(axis: Axis, sizes: Sequence[int]) -> int:
    """How long an axis is where groups have so many channels."""
    return sum(sizes[group] * repeat for group, repeat in axis.parts)


def cost_of(plan: ChannelPlan, chosen: Mapping[int, int], left_out: Sequence[str] = ()) -> Cost:
    """What a smaller network costs, in closed form; the same as :func:`naskd.nn.cost.network_cost` of it.

    Args:
        plan: Of the whole network.
        chosen: For groups that become smaller, by their position: how many channels are left.
        left_out: Modules that an identity stands for.
    """
    sizes = sizes_of(plan, chosen)

    def gone(name: str) -> bool:
        return any(within(name, block) for block in left_out)

    whole = sizes_of(plan, {})
    macs = n_params = size_bytes = 0
    for product in plan.products:
        if not gone(product.layer):
            now = math.prod(length(axis, sizes) for axis in product.axes)
            macs += product.macs * now // math.prod(length(axis, whole) for axis in product.axes)
    for name, stored in plan.stored.items():
        if gone(name):
            continue
        shape = list(stored.shape)
        for number, axis in enumerate(plan.axes.get(name, ())):
            if axis is not None:
                shape[number] = length(axis, sizes)
        if name in plan.grouped:
            groups, read = plan.grouped[name]
            shape[1] = length(read, sizes) // groups
        n_params += math.prod(shape) if stored.trained else 0
        size_bytes += math.prod(shape) * stored.n_bytes
    return Cost(macs, n_params, size_bytes)


def _tell(layer: nn.Module) -> None:
    """The sizes of its tensors, where a layer of torch has them as numbers, too."""
    if isinstance(layer, nn.modules.conv._ConvNd):
        groups, (first, second) = layer.groups, layer.weight.shape[:2]
        if layer.transposed:
            layer.in_channels, layer.out_channels = first, second * groups
        elif groups > 1 and groups == layer.in_channels:  # depthwise
            layer.groups = layer.in_channels = first // (layer.out_channels // groups)
            layer.out_channels = first
        else:
            layer.in_channels, layer.out_channels = second * groups, first
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, nn.modules.batchnorm._NormBase):
        known = layer.weight if layer.weight is not None else layer.running_mean
        if known is not None:
            layer.num_features = len(known)
    elif isinstance(layer, nn.GroupNorm) and layer.weight is not None:
        layer.num_channels = len(layer.weight)
    elif isinstance(layer, nn.LayerNorm) and layer.weight is not None:
        layer.normalized_shape = tuple(layer.weight.shape)
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = len(layer.weight)
