"""A training adapter: a LoRA that takes back the distillation of a few-step base. Its change is added to what the base's layers compute
while training, so that training need not undo that; samples and the LoRA file are without it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from lorakit.bases.families.base import Family
from lorakit.errors import LorakitError
from lorakit.lora_file import formats
from lorakit.lora_file.formats import LoraLayer


class _Added:
    """What is added to the output of one linear layer. Not to its weight: that would be rounded anew, twice for every sample."""

    def __init__(self, change: LoraLayer, family: Family):
        scale = change.alpha / change.rank
        self.down, self.up = (tensor.to(family.device, family.dtype) for tensor in (change.down, change.up.float() * scale))
        self.is_on = True

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if not self.is_on:
            return output
        linear = nn.functional.linear
        return output + linear(linear(inputs[0].to(self.down.dtype), self.down), self.up).to(output.dtype)


def add_training_adapter(family: Family, path: Path) -> None:
    """Put it into a base that is about to be trained; before the LoRA. Raises `LorakitError` for a file that is none of this base."""
    modules = dict(family.denoiser.named_modules())
    found = read(path, family.NAME)
    for name, change in found.items():
        layer = modules.get(name.removeprefix(f"{family.FOLDER}."))
        if not isinstance(layer, nn.Linear) or (layer.out_features, layer.in_features) != (change.up.shape[0], change.down.shape[1]):
            raise LorakitError(f"train.training_adapter: {path.name} changes {name}, which this base has not, or of another size")
    adapter = {name.removeprefix(f"{family.FOLDER}."): _Added(change, family) for name, change in found.items()}
    for name, added in adapter.items():
        modules[name].register_forward_hook(added)
    family.training_adapter = tuple(adapter.values())


def read(path: Path, family: str) -> Mapping[str, LoraLayer]:
    """{'transformer.layers.0.attention.to_q': its change} of a file. Raises `LorakitError` where it cannot be read as a plain LoRA."""
    if not path.is_file():
        raise LorakitError(f"train.training_adapter: no file {path}; give the .safetensors of the adapter that undoes the distillation")
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
        found = formats.read(load_file(path), family, header)
    except (OSError, SafetensorError) as error:
        raise LorakitError(f"train.training_adapter: {path}: cannot be read as .safetensors ({error})") from None
    odd = next((name for name, change in found.items() if not isinstance(change, LoraLayer) or change.magnitude is not None), None)
    if odd:
        raise LorakitError(f"train.training_adapter: {path.name}: {odd} has more than a plain LoRA, which is not added to a base")
    return found


def path_of(given: str) -> Path:
    return Path(given).expanduser()


@contextmanager
def as_it_is_used(family: Family) -> Iterator[None]:
    """The base without it, as everybody has it who uses the LoRA."""
    for added in family.training_adapter:
        added.is_on = False
    try:
        yield
    finally:
        for added in family.training_adapter:
            added.is_on = True
