"""Taggers whose weights are .safetensors of one of timm's architectures: WD's own form, and JTP with its gated head."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lorakit.caption.tagger_files import HALF, Sight, TaggerFiles
from lorakit.errors import LorakitError

if TYPE_CHECKING:
    import numpy as np

WHITE, GRAY = (255, 255, 255), (128, 128, 128)


def open_timm(files: TaggerFiles, device: str) -> tuple[Sight, Callable[[np.ndarray], np.ndarray]]:
    """(how a picture goes in, pixels [n, 3, h, w] -> probabilities [n, tags]). Raises `LorakitError` for an architecture that timm does not
    know or weights that are not whole."""
    import timm
    import torch
    from safetensors.torch import load_file

    name = architecture_of(files)
    tensors = load_file(files.model)
    is_gated = "head.linear.weight" in tensors
    model: Any = timm.create_model(name, pretrained=False, num_classes=len(files.tags))
    if is_gated:
        model.head = _gated(tensors["head.linear.weight"].shape)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        line = " ".join(str(error).split())
        raise LorakitError(f"{files.model}: not whole, or not of {name} with {len(files.tags)} tags ({line[:160]})") from None
    model.to(device).eval()
    config = model.pretrained_cfg
    side = int(files.preprocess.get("side", config["input_size"][-1]))
    norm = (files.preprocess.get("mean", HALF[0]), files.preprocess.get("std", HALF[1]))
    is_wd = files.list_name.endswith(".csv") and not (files.model.parent / "preprocess.json").is_file()  # trained on OpenCV's order
    sight = Sight(side, True, bgr=is_wd, norm=norm, pad=WHITE if files.list_name.endswith(".csv") else GRAY)

    @torch.inference_mode()
    def predict(pixels: np.ndarray) -> np.ndarray:
        numbers = model(torch.from_numpy(pixels).to(device)).float()
        return (numbers if is_gated else numbers.sigmoid()).cpu().numpy()

    return sight, predict


def architecture_of(files: TaggerFiles) -> str:
    """As config.json says it, or the file's own name: JTP_PILOT2-e3-vit_so400m_patch14_siglip_384.safetensors."""
    import timm

    config = files.model.parent / "config.json"
    try:
        said = json.loads(config.read_text(encoding="utf-8")).get("architecture", "") if config.is_file() else ""
    except (ValueError, AttributeError):
        said = ""
    known = timm.list_models()
    found = said if said in known else max((name for name in known if name in files.model.stem), key=len, default="")
    if not found:
        raise LorakitError(
            f"{files.model}: timm knows no architecture {said or 'that its name tells'}; take the model.onnx of the same tagger (many authors have one beside)"
        )
    return found


def _gated(shape: Any) -> Any:
    """JTP's head: half of its numbers say what there is, the other half whether to say it."""
    import torch

    class Gated(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(shape[1], shape[0])

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            there, gate = self.linear(features).sigmoid().chunk(2, dim=-1)
            return there * gate

    return Gated()
