"""Swapped blocks: gradients are those of the unswapped model to the last bit, though what is away holds nothing."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from lorakit.bases import quantised
from lorakit.bases.block_swap import BlockSwap


class Block(nn.Module):
    """A frozen part and an adapter that learns, as peft puts it in."""

    def __init__(self, width: int):
        super().__init__()
        self.norm, self.layers = nn.LayerNorm(width), nn.ModuleList([nn.Linear(width, width), nn.Conv1d(width, width, 1)])
        self.requires_grad_(False)
        self.adapter = nn.Linear(width, width, bias=False)

    def forward(self, x):
        x = self.norm(x)
        return x + torch.tanh(self.layers[0](x) + self.adapter(x)) + self.layers[1](x.mT).mT


class Stack(nn.Module):
    def __init__(self, count: int = 5, width: int = 64):
        super().__init__()
        self.blocks = nn.ModuleList(Block(width) for _ in range(count))

    def forward(self, x):
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False)
        return x


class Strict(BlockSwap):
    """What is away holds NaN, as an empty tensor on the card would be an error; counts what is on the card at once."""

    most = 0

    def _absent(self, home):
        return torch.full_like(home, float("nan")) if home.is_floating_point() else torch.zeros_like(home)

    def _fetch(self, number):
        super()._fetch(number)
        self.most = max(self.most, sum(bool(block.fetched) for block in self._blocks))


def gradients(model, x):
    model.zero_grad()
    model(x).square().mean().backward()
    return [p.grad.clone() for p in model.parameters() if p.requires_grad]


@pytest.fixture
def stack():
    torch.manual_seed(0)
    return Stack()


@pytest.mark.parametrize("count", [1, 3, 5])
@pytest.mark.parametrize("precision", [None, "fp8"])
@pytest.mark.parametrize("needs_gradient", [True, False])
def test_gradients_are_the_same_to_the_last_bit(stack, count, precision, needs_gradient):
    if precision:
        adapters = [block.adapter for block in stack.blocks]
        quantised.replace_layers(stack, precision, torch.float32)
        for block, adapter in zip(stack.blocks, adapters, strict=True):
            block.adapter = adapter
    x = torch.randn(2, 7, 64, requires_grad=needs_gradient)
    swapped = copy.deepcopy(stack)
    swap = Strict(list(swapped.blocks), count, "cpu")
    for _ in range(2):  # a second step finds everything in its place again
        for ours, theirs in zip(gradients(swapped, x), gradients(stack, x), strict=True):
            assert torch.equal(ours, theirs)
        swap.settle()
    assert swap.most <= 2


def test_a_first_block_whose_input_needs_no_gradient_is_dropped_after_the_step(stack):
    swap = Strict(list(stack.blocks), 5, "cpu")
    gradients(stack, torch.randn(2, 7, 64))
    swap.settle()
    assert stack.blocks[0].layers[0].weight.isnan().all() and stack.blocks[4].layers[0].weight.isnan().all()


def test_without_gradients_and_after_the_end(stack):
    x, plain = torch.randn(2, 7, 64), copy.deepcopy(stack)
    swap = Strict(list(stack.blocks), 4, "cpu")
    with torch.no_grad():
        assert torch.equal(stack(x), plain(x))
    swap.remove()
    assert torch.equal(stack.blocks[4].layers[0].weight, plain.blocks[4].layers[0].weight)
    assert not stack.blocks[1]._forward_hooks and torch.equal(stack(x), plain(x))
