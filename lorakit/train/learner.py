"""What learns, put together: the base with its adapter, the optimizer, the running mean. It is made anew with other settings
where the card's memory was not enough, and goes on with the same numbers."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lorakit.bases.load import load_family
from lorakit.console import warn
from lorakit.errors import LorakitError
from lorakit.project import Project
from lorakit.train import crew, from_lora, lora, master_weights
from lorakit.train import optimizer as optim
from lorakit.train.average import Average
from lorakit.train.batches import Batch, BatchSampler
from lorakit.train.clock import OF_A_STEP, Clock, card_flops, counted
from lorakit.train.loss import BatchLoss, Drawn
from lorakit.train.metrics import Step
from lorakit.train.regularisation import Interleaved
from lorakit.train.training_adapter import add_training_adapter, path_of

MOST_SHAPES = 64  # for which a block is compiled: its widths in a U-Net x buckets


@dataclass(frozen=True)
class Kept:
    """All that a training goes on from after `step` steps: what a checkpoint has."""

    step: int
    adapter: dict[str, Tensor]
    state: dict[str, Any]


class Learner:
    """A base with an adapter, and what changes it. `step` counts the steps that are behind."""

    def __init__(self, project: Project, by_photo: bool = True):
        """`by_photo`: see `BatchLoss`."""
        settings = project.settings.train
        self.settings, self.step = settings, 0
        self.family = family = load_family(project)
        family.release_encoders()
        if family.CHANNELS_LAST and family.device.startswith("cuda"):  # how the convolutions of newer cards want their numbers to lie
            family.denoiser.to(memory_format=torch.channels_last)
        if settings.training_adapter:
            add_training_adapter(family, path_of(settings.training_adapter))
        self.parameters = lora.add_lora(family, settings)
        self._start = from_lora.put_in(family, settings)
        self.optimizer = optim.make_optimizer(family.denoiser, settings, [family.encoder(name) for name in family.learning_encoders])
        self.masters = master_weights.of_adapter(family, settings)
        self.scaler = torch.amp.GradScaler(family.device.split(":")[0], enabled=family.dtype == torch.float16)
        if settings.checkpoints_gradients:
            family.denoiser.enable_gradient_checkpointing()
        family.swap_blocks(settings.swap_blocks)
        family.denoiser.train()
        self.batch_loss = BatchLoss(project, family, by_photo)
        if family.dtype != torch.float32:
            lora.leave_inputs(family)
        self.average = Average(self.parameters, self.optimizer, settings.ema)
        self._compiled = compile_blocks(family.repeated_blocks()) if settings.compile else []
        self._is_updating = False
        self.is_drawn_ahead = family.device.startswith("cuda")  # a CPU has nothing to spare while it computes
        self._drawing, self._coming = ThreadPoolExecutor(1, "draw"), {}
        self._sum = crew.GradientSum(self.parameters, settings.gradient_accumulation) if crew.size() > 1 else None
        self._rate_of_card, self._flops = card_flops(family.device), {}

    def start_in_words(self) -> str:
        """What of `train.from_lora` was put in. Raises `LorakitError` where the file is gone, and there is no checkpoint to go on from."""
        if self._start is None:
            raise LorakitError(f"train.from_lora: {self.settings.from_lora}: no such file; give the LoRA's .safetensors")
        return self._start

    def learn(self, rate: float, sampler: BatchSampler | Interleaved) -> Step:
        """One optimizer step over `gradient_accumulation` batches. The update is left out, on the device, where the loss or the
        gradient is no number; nothing here waits for the device."""
        optim.set_lr(self.optimizer, rate)
        clock = Clock(self.family.device)
        losses, photos, regularisation, flops = self._gradients(sampler, clock)
        clock.mark("optimizer")
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.max_grad_norm or torch.inf)
        loss = losses.mean()
        self._is_updating = True
        if self.scaler.is_enabled():  # it leaves out an update by itself, and lowers its scale
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            optim.update_where(self.optimizer, self.parameters, loss.isfinite() & norm.isfinite())
        self.average.update()
        self.masters.round()
        self._is_updating = False
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        batches = self.step * self.settings.gradient_accumulation
        clock.mark("end")
        share = flops / self._rate_of_card if self._rate_of_card and flops else None
        return Step(self.step, batches / sampler.per_epoch, rate, photos, regularisation, loss, norm, clock=clock, card_seconds=share)

    def _gradients(self, sampler: BatchSampler | Interleaved, clock: Clock) -> tuple[Tensor, list[str], list[str], float]:
        """(losses [n], photos, regularisation photos, FLOPs of the model here) of a step's batches, whose gradients have been added up,
        also over the processes of a crew."""
        if self._sum is None:
            return self._own_gradients(sampler, clock)
        try:
            losses, *rest = self._own_gradients(sampler, clock)
        except Exception as error:  # the others wait for this one
            self._sum.fail(error)
            raise
        return self._sum.take(losses), *rest

    def _own_gradients(self, sampler: BatchSampler | Interleaved, clock: Clock) -> tuple[Tensor, list[str], list[str], float]:
        try:
            return self._add_gradients(sampler, clock)
        except self._compiler_errors() as error:
            self._give_up_compiling(error)
            return self._add_gradients(sampler, clock)

    def _add_gradients(self, sampler: BatchSampler | Interleaved, clock: Clock) -> tuple[Tensor, list[str], list[str], float]:
        losses, photos, regularisation, flops = [], [], [], 0.0
        count = self.settings.gradient_accumulation
        self._drop_gradients()
        for number in range(self.step * count, (self.step + 1) * count):
            clock.mark("data")
            batch, drawn = self._draw(sampler, number)
            (regularisation if batch[0].get("regularisation") else photos).extend(record["file"] for record in batch)
            if drawn is None:
                losses.append(torch.zeros((), device=self.family.device))
                continue
            clock.mark("forward")
            loss, of_batch = self._forward(drawn)
            flops += OF_A_STEP * of_batch
            clock.mark("backward")
            whole = len(batch) / len(drawn.timesteps)  # 1, unless the batch is shared out
            self.scaler.scale(loss / (count * whole)).backward()
            self.masters.collect_gradients()
            self.family.settle_blocks()
            losses.append(loss.detach() if whole == 1 else loss.detach() / whole)
        return torch.stack(losses), photos, regularisation, flops

    def _draw(self, sampler: BatchSampler | Interleaved, number: int) -> tuple[Batch, Drawn | None]:
        """Batch `number`, and what is drawn for those of its photos that fall to this process; a thread then draws the next one."""
        if not self.is_drawn_ahead:
            batch, rows = self._rows(sampler, number)
            return batch, self.batch_loss.draw(batch, number, rows) if rows else None
        batch, coming = self._coming.pop(number, None) or self._begin(sampler, number)
        ahead = range(number + 1, number + 1 + crew.size())  # of so many one falls to each process, where they go round
        self._coming = {n: self._coming.get(n) or self._begin(sampler, n) for n in ahead}  # after a step back others may have been drawn
        return batch, coming.result() if coming else None

    def _begin(self, sampler: BatchSampler | Interleaved, number: int) -> tuple[Batch, Future[Drawn] | None]:
        batch, rows = self._rows(sampler, number)
        return batch, self._drawing.submit(self.batch_loss.draw, batch, number, rows) if rows else None

    def _rows(self, sampler: BatchSampler | Interleaved, number: int) -> tuple[Batch, range]:
        batch = sampler[number]
        return batch, crew.rows_of(len(batch), number, self.settings)

    def _forward(self, drawn: Drawn) -> tuple[Tensor, float]:
        """(loss, FLOPs): these are counted once for each shape, and only where it is known what the card can do."""
        if not self._rate_of_card or self._compiled:
            return self.batch_loss.loss_of(drawn), 0.0
        if (shape := drawn.latents.shape) in self._flops:
            return self.batch_loss.loss_of(drawn), self._flops[shape]
        loss, self._flops[shape] = counted(lambda: self.batch_loss.loss_of(drawn))
        return loss, self._flops[shape]

    def _drop_gradients(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.masters.drop_gradients()

    @contextmanager
    def given_out(self) -> Iterator[None]:
        """The model holds the weights that this training gives, in fp32: to read them, to validate, to draw pictures."""
        with self.masters.in_the_model(), self.average.averaged_weights():
            yield

    def keep(self) -> Kept:
        """What a checkpoint is written of."""
        state = {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict(), **self.average.state()}
        with self.given_out():
            return Kept(self.step, _to_cpu(lora.read_lora(self.family)), state)

    def rescue(self) -> Kept | None:
        """The same in the machine's memory, of a learner whose card has none left; None where that came in the midst of an update,
        so that some of the weights are those of before and some those of after."""
        if self._is_updating:
            return None
        self._drop_gradients()
        return self.keep_on_cpu()

    def keep_on_cpu(self) -> Kept:
        """What `keep` gives, all of it in the machine's memory."""
        kept = self.keep()
        return Kept(kept.step, kept.adapter, _to_cpu(kept.state))

    def take(self, kept: Kept) -> None:
        """Go on from there. Raises `ValueError` where the adapter is another."""
        with self.masters.in_the_model():
            lora.set_lora(self.family, kept.adapter)
        optim.load_state(self.optimizer, kept.state["optimizer"])
        self.scaler.load_state_dict(kept.state["scaler"])
        self.average.load_state(kept.state)
        self.masters.round()
        self.step = kept.step

    def _compiler_errors(self) -> tuple[type[Exception], ...]:
        if not self._compiled:
            return ()
        from torch._dynamo.exc import TorchDynamoException

        return (TorchDynamoException,)

    def _give_up_compiling(self, error: Exception) -> None:
        why = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        warn(f"train.compile: the blocks of this base could not be compiled ({why[:120]}); the training goes on without")
        for block in self._compiled:
            block._compiled_call_impl = None
        self._compiled = []
        torch.compiler.reset()


def compile_blocks(blocks: list[torch.nn.Module]) -> list[torch.nn.Module]:
    """Compile each of the repeated blocks by itself: they share their code, so one of each kind is compiled for each bucket."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MOST_SHAPES)
    for block in blocks:
        block.compile(dynamic=False)
    return blocks


def _to_cpu(held: Any) -> Any:
    """A copy, of all the tensors in it, in the machine's memory."""
    if isinstance(held, Tensor):
        return held.detach().cpu().clone()
    if isinstance(held, dict):
        return {key: _to_cpu(value) for key, value in held.items()}
    if isinstance(held, (list, tuple)):
        return type(held)(_to_cpu(value) for value in held)
    return held
