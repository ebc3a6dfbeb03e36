"""A large model read tensor by tensor: each goes into its layer, quantised and on the card, before the next is read, so that
the whole of it never lies in the machine's memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import init_empty_weights
from diffusers.models.modeling_utils import no_init_weights
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from lorakit.bases import quantised
from lorakit.bases.quantised import QuantisedLinear
from lorakit.errors import LorakitError

NOT_WEIGHTS = (".scale_weight", ".weight_scale", ".scale_input", ".input_scale", "scaled_fp8", ".comfy_quant")
READ_AT_ONCE = 1 << 30  # bytes after which a file is opened anew: what was read of a mapped file stays in memory until then

Tensors = Iterator[tuple[str, Tensor, "Tensor | None"]]  # key, values, and the scale of those in fp8, where the file has one


@contextmanager
def without_memory() -> Iterator[None]:
    """What is made in here has shapes and no values. Nothing is drawn at random either: on the meta device that takes longer than
    all the rest."""
    with no_init_weights(), torch.device("meta"):
        yield


def build(make: Callable[[], nn.Module], precision: str | None, dtype: torch.dtype) -> nn.Module:
    """A model without weights, its linear layers as they will be held; buffers that no file has are real."""
    with no_init_weights(), init_empty_weights(include_buffers=False):
        model = make()
    return quantised.replace_layers(model, precision, dtype) if precision else model


def fill(
    model: nn.Module,
    tensors: Tensors,
    dtype: torch.dtype,
    device: str,
    where: str,
    exact: tuple[str, ...] = (),
    at_home: Sequence[nn.Module] = (),
) -> nn.Module:
    """Give every layer of a model without weights its tensors, as they come: in `dtype` (fp32 for those that have a name of
    `exact` in their path), quantised where the layer is, on the device but for the blocks `at_home`, which wait in the machine's
    memory. Raises `LorakitError` for what is missing or of another shape, naming `where` and the tensor."""
    waiting = tuple(f"{name}." for name, module in model.named_modules() if any(module is block for block in at_home))
    layers = {f"{name}.weight": layer for name, layer in model.named_modules() if isinstance(layer, QuantisedLinear)}
    places = model.state_dict(keep_vars=True)
    filled: set[str] = set()
    for key, tensor, scale in tensors:
        if key in layers:
            _check_shape(key, tensor, (layers[key].out_features, layers[key].in_features), where)
            layers[key].fill(tensor.to(device), scale)
            if key.startswith(waiting):
                for name, held in layers[key]._buffers.items():
                    layers[key]._buffers[name] = held if held is None else held.cpu()
        elif key in places:
            _check_shape(key, tensor, tuple(places[key].shape), where)
            dense = tensor if scale is None else scaled(tensor, scale, torch.float32)
            kept = torch.float32 if any(part in key.split(".") for part in exact) else dtype
            _put(model, key, dense.to("cpu" if key.startswith(waiting) else device, kept if tensor.is_floating_point() else tensor.dtype))
        filled.add(key)
    wanted = layers.keys() | {key for key, tensor in places.items() if tensor.is_meta and not key.endswith((".packed", ".scale"))}
    if missing := sorted(wanted - filled):
        raise LorakitError(f"{where} lacks {len(missing)} weights, the first {missing[0]}; give another copy of it")
    for buffer_owner in model.modules():  # those that are computed, not read
        for name, buffer in buffer_owner._buffers.items():
            if buffer is not None and not buffer.is_meta:
                buffer_owner._buffers[name] = buffer.to(device)
    return model


def scaled(tensor: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """The values of fp8 with a scale for all of them or for each row."""
    by_row = scale.reshape(-1, *[1] * (tensor.dim() - 1)) if scale.numel() > 1 else scale.reshape(())
    return (tensor.float() * by_row.float()).to(dtype)


def _check_shape(key: str, tensor: Tensor, wanted: tuple[int, ...], where: str) -> None:
    if tuple(tensor.shape) != wanted:
        raise LorakitError(f"{where}: {key} is {tuple(tensor.shape)}, in this base it is {wanted}; these weights are another base's")


def _put(model: nn.Module, key: str, tensor: Tensor) -> None:
    path, _, name = key.rpartition(".")
    owner = model.get_submodule(path)
    if name in owner._parameters:
        owner._parameters[name] = nn.Parameter(tensor, requires_grad=False)
    else:
        owner._buffers[name] = tensor


def read_folder(folder: Path) -> Tensors:
    """Every tensor of a part of a diffusers or transformers folder, in one .safetensors or several with an index."""
    indices = sorted(folder.glob("*.safetensors.index.json"))
    try:
        names = sorted(set(json.loads(indices[0].read_text(encoding="utf-8"))["weight_map"].values())) if indices else []
    except (OSError, ValueError, KeyError):
        raise LorakitError(f"{indices[0]}: cannot be read as the list of weight files; give another copy of it") from None
    paths = [folder / Path(name).name for name in names] or sorted(p for p in folder.glob("*.safetensors") if "." not in p.stem)
    if not paths:
        raise LorakitError(f"{folder}: no .safetensors in it; give a folder with safe weights")
    if absent := [path.name for path in paths if not path.is_file()]:
        raise LorakitError(f"{folder}: lacks {', '.join(absent)}; give the whole folder")
    for path in paths:
        yield from read_file(path)


def read_file(path: Path, prefix: str = "") -> Tensors:
    """The tensors of a .safetensors file in its order, their keys without `prefix`. ComfyUI's scaled fp8 has beside
    `<layer>.weight` a number `<layer>.scale_weight`."""
    try:
        with safe_open(path, "pt") as file:
            keys = [key for key in file.offset_keys() if key.startswith(prefix) and not key.endswith(NOT_WEIGHTS)]
            scales = {scaled_key(key): file.get_tensor(key) for key in file.keys() if key.startswith(prefix) and scaled_key(key)}
        done = 0
        while done < len(keys):
            read = 0
            with safe_open(path, "pt") as file:
                while done < len(keys) and read < READ_AT_ONCE:
                    tensor = file.get_tensor(keys[done])
                    yield keys[done].removeprefix(prefix), tensor, scales.get(keys[done])
                    read += tensor.nbytes
                    done += 1
    except (OSError, SafetensorError) as error:
        raise LorakitError(f"{path}: cannot be read as .safetensors ({error})") from None


class LazyFile(Mapping):
    """Tensors of a .safetensors file by their key without `prefix`, read when they are asked for; `scales` are those of fp8
    weights. They come in the file's order, and had best be asked for in it."""

    def __init__(self, path: Path, prefix: str):
        self.path, self.prefix = path, prefix
        with safe_open(path, "pt") as file:
            keys = [key.removeprefix(prefix) for key in file.offset_keys() if key.startswith(prefix)]
            self.scales = {of: file.get_tensor(prefix + key) for key in keys if (of := scaled_key(key))}
        self._keys = dict.fromkeys(key for key in keys if not key.endswith(NOT_WEIGHTS))
        self._file, self._read, self._last = None, 0, ("", None)

    def __getitem__(self, key: str) -> Tensor:
        if key not in self._keys:
            raise KeyError(key)
        if self._last[0] != key:  # of a fused tensor all parts are taken one after another
            if self._file is None or self._read > READ_AT_ONCE:
                self._file, self._read = safe_open(self.path, "pt"), 0
            self._last = key, self._file.get_tensor(self.prefix + key)
            self._read += self._last[1].nbytes
        return self._last[1]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def scaled_key(key: str) -> str | None:
    """The weight that a scale of ComfyUI's fp8 files is of; None for what is no such scale."""
    path, _, name = key.rpartition(".")
    return f"{path}.weight" if name in ("scale_weight", "weight_scale") else None
