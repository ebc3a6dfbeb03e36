"""Blocks of a frozen base that wait in the machine's memory and are on the card only while they work. Fetched one ahead, in
the order of the blocks forwards and against it backwards; nothing is copied back, since nothing of them changes."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass
class _Block:
    """A block's frozen tensors at home, in pinned memory where there is a card, and on the card while it works."""

    home: dict[tuple[nn.Module, str], Tensor]
    fetched: dict[tuple[nn.Module, str], Tensor] = field(default_factory=dict)
    ready: torch.cuda.Event | None = None


class BlockSwap:
    """Swaps the `count` last of `blocks`, modules that are called in this order, each under gradient checkpointing (without
    it autograd would keep what was fetched). Adapters inside of a block, which learn, stay where they are.

    Forwards a block is fetched before it is called and dropped after; in the backward pass it is fetched when its
    recomputation begins and dropped when that of another does: autograd takes the latest block first, and is through with it
    then. (A backward hook of the block would come too early where its input needs no gradient.) Gradients are those of the unswapped model, bit for bit."""

    def __init__(self, blocks: list[nn.Module], count: int, device: torch.device | str):
        self.device = torch.device(device)
        self.modules = blocks[-count:] if count else []
        self._stream = torch.cuda.Stream() if self.device.type == "cuda" else None
        self._blocks = [_Block(self._homes_of(module)) for module in self.modules]
        self._hooks = []
        for number, module in enumerate(self.modules):
            self._drop(number)
            self._hooks += [
                module.register_forward_pre_hook(lambda *_, n=number: self._before(n)),
                module.register_forward_hook(lambda *_, n=number: None if _in_backward() else self._drop(n)),
            ]

    def settle(self) -> None:
        """Drop the block that a backward pass has ended with."""
        for number in range(len(self._blocks)):
            self._drop(number)

    def remove(self) -> None:
        """Bring every block to the card for good."""
        for hook in self._hooks:
            hook.remove()
        for number in range(len(self._blocks)):
            self._fetch(number)

    def _homes_of(self, module: nn.Module) -> dict[tuple[nn.Module, str], Tensor]:
        homes = {}
        for part in module.modules():
            held = [(name, p) for name, p in part._parameters.items() if p is not None and not p.requires_grad]
            for name, tensor in (*held, *((name, b) for name, b in part._buffers.items() if b is not None)):
                home = tensor.detach().cpu()
                homes[part, name] = home.pin_memory() if self._stream and not home.is_pinned() else home
        return homes

    def _before(self, number: int) -> None:
        if _in_backward():
            for other, block in enumerate(self._blocks):
                if other != number and block.fetched:
                    self._drop(other)
        self._fetch(number)
        following = number - 1 if _in_backward() else number + 1
        if 0 <= following < len(self._blocks):
            self._start(following)

    def _start(self, number: int) -> None:
        """Begin to copy a block to the card, beside what the card computes."""
        block = self._blocks[number]
        if block.fetched:
            return
        if self._stream is None:
            block.fetched = {key: home.to(self.device) for key, home in block.home.items()}
            return
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            block.fetched = {key: home.to(self.device, non_blocking=True) for key, home in block.home.items()}
        block.ready = self._stream.record_event()

    def _fetch(self, number: int) -> None:
        self._start(number)
        block = self._blocks[number]
        if block.ready is not None:
            torch.cuda.current_stream().wait_event(block.ready)
            for tensor in block.fetched.values():  # made on the side stream, used on this one
                tensor.record_stream(torch.cuda.current_stream())
            block.ready = None
        for (part, name), tensor in block.fetched.items():
            _put(part, name, tensor)

    def _drop(self, number: int) -> None:
        block = self._blocks[number]
        for (part, name), home in block.home.items():
            _put(part, name, self._absent(home))
        block.fetched, block.ready = {}, None

    def _absent(self, home: Tensor) -> Tensor:
        """What stands for a tensor that is away: on the card nothing, elsewhere the tensor at home."""
        return torch.empty(0, dtype=home.dtype, device=self.device) if self._stream else home


def repeated_blocks(denoiser: nn.Module, names: tuple[str, ...]) -> list[nn.Module]:
    """The blocks of a U-Net's or a transformer's attention in the order in which they are called: those of the lists whose names end
    in the first of `names` (a family's BLOCKS), then those of the next."""
    lists = [(n, m) for n, m in denoiser.named_modules() if isinstance(m, nn.ModuleList) and n.endswith(names)]
    order = {"down_blocks": 0, "mid_block": 1, "up_blocks": 2}  # a U-Net makes its middle last
    lists.sort(key=lambda named: (next(n for n, end in enumerate(names) if named[0].endswith(end)), order.get(named[0].split(".")[0], 0)))
    return [block for _, blocks in lists for block in blocks]


def last_blocks(denoiser: nn.Module, names: tuple[str, ...], count: int) -> list[nn.Module]:
    """The last `count` of these, which are the ones that wait."""
    return repeated_blocks(denoiser, names)[-count:] if count else []


def _put(part: nn.Module, name: str, tensor: Tensor) -> None:
    if name in part._parameters:
        part._parameters[name].data = tensor
    else:
        part._buffers[name] = tensor


def _in_backward() -> bool:
    """Whether autograd is at work in this thread, as it is when checkpointing computes a block again."""
    return torch._C._current_graph_task_id() != -1
