"""A base in one `.safetensors`, as model sites give it: read offline and part by part, with configurations written here from
what the family and the file's shapes say, and CLIP's vocabulary from open_clip. What it lacks comes from a diffusers folder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_open_clip_checkpoint,
)
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import CLIPTextConfig, MistralConfig, PretrainedConfig, Qwen3Config, T5EncoderModel

from lorakit import files
from lorakit.bases import families, original_layout, quantised, streaming
from lorakit.bases.block_swap import last_blocks
from lorakit.bases.purposes import purpose
from lorakit.bases.single_file_configs import AUTOENCODER, Layout, language_model_sizes
from lorakit.bases.tiny_random import clip_tokenizer
from lorakit.errors import LorakitError
from lorakit.weights import Source

DENOISER = "model.diffusion_model."
OWN = "net."  # before the transformer's keys in files of Cosmos
VAE = ("first_stage_model.", "vae.")
OPEN_CLIP = ("cond_stage_model.model.", "conditioner.embedders.1.model.")  # laid out as open_clip does
QUANTISED = (".absmax", ".quant_map", "bitsandbytes", ".weight_scale_2", ".qweight", ".wscales")
FP8 = ("F8_E4M3", "F8_E5M2")
REFINER = 1280  # the width of the texts that SDXL's refiner reads
ARCHITECTURE = "modelspec.architecture"  # of a header
FLOATS = ("F64", "F32", "F16", "BF16", *FP8)


@dataclass(frozen=True)
class SingleFile:
    """What lies in a file: the architecture, and under which prefix each part (by diffusers' sub-folder) is."""

    path: Path
    layout: Layout
    prefixes: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    is_fp8: bool = False  # whether the denoiser's weights are, with scales (ComfyUI's "scaled") or without
    prediction: str | None = None  # what the file says that its denoiser predicts: epsilon or v_prediction
    zero_snr: bool = False  # whether it says that it was trained on a schedule that ends in pure noise
    beside: Mapping[str, SingleFile] = field(default_factory=dict)  # parts that lie in files of their own

    def schedule(self) -> dict[str, Any]:
        """What the file says of itself, as a scheduler's configuration has it."""
        found = {} if self.prediction is None else {"prediction_type": self.prediction}
        return found | ({"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"} if self.zero_snr else {})

    def has(self, part: str) -> bool:
        """Tokenizers and schedulers are not in the file but known, all but T5's vocabulary and what its layout names."""
        if part.startswith("tokenizer"):
            encoder = part.replace("tokenizer", "text_encoder")
            return not any("t5xxl" in start for start in self.layout.begins(encoder)) and part not in self.layout.unknown_tokenizers
        return self.layout.has_schedule if part == "scheduler" else part in self.prefixes or part in self.beside

    def of(self, part: str) -> SingleFile:
        """The file that a part is in."""
        return self.beside.get(part, self)

    def read(self, part: str, keep_prefix: bool = False) -> dict[str, Tensor]:
        prefix = self.prefixes[part]
        with safe_open(self.path, "pt") as file:
            inside = [key for key in self.shapes if key.startswith(prefix)]
            scales = {of: file.get_tensor(key) for key in inside if (of := streaming.scaled_key(key))}
            found = {}
            for key in inside:
                if not key.endswith(streaming.NOT_WEIGHTS):
                    tensor = file.get_tensor(key)
                    found[key] = streaming.scaled(tensor, scales[key], torch.bfloat16) if key in scales else tensor
        return found if keep_prefix else {key.removeprefix(prefix): tensor for key, tensor in found.items()}


def open_source(source: Source, family: str) -> SingleFile:
    """The file of a base's denoiser, with those that lie beside it. Raises `LorakitError` as `open_file` does."""
    return open_file(Path(source.location), family, [Path(file) for file in source.files])


def open_file(path: Path, family: str, beside: Iterable[Path] = ()) -> SingleFile:
    """Raises `LorakitError` naming why a file cannot be trained on as `family`: damaged, quantised, of another base, or
    without its U-Net or transformer; or why one of those beside it is of no use."""
    shapes, kinds, header = _read(path)
    own, layout = find_layout(shapes)
    if layout is None:
        raise LorakitError(f"{path}: {_no_base(shapes)}; give a full checkpoint, or a diffusers folder")
    if own != family:
        raise LorakitError(f"{path}: is {layout.title}, which this base is not; choose --base {layout.usual}, or weights of this one")
    if other := _other_title(layout, shapes):
        raise LorakitError(f"{path}: is {other}, whose blocks are called as those of {layout.title}; lorakit does not know it")
    if what := purpose(header.get(ARCHITECTURE, "")):
        raise LorakitError(f"{path}: is {what}, as it says of itself ({ARCHITECTURE} = {header[ARCHITECTURE]}); give the plain base")
    cls = families.load(own)
    folder = cls.FOLDER
    begins = {folder: (DENOISER, OWN, ""), "vae": VAE, **{name: layout.begins(name) for name in layout.encoders}}
    prefixes = {part: prefix for part, some in begins.items() if (prefix := _first(some, shapes, layout)) is not None}
    if "vae" in prefixes and not any(key.startswith(f"{prefixes['vae']}encoder.") for key in shapes):
        del prefixes["vae"]  # a decoder alone encodes no picture: another VAE is taken
    if folder not in prefixes:
        raise LorakitError(f"{path}: has no {folder} in it; give a full checkpoint, or a diffusers folder")
    first, channels = layout.inputs
    reads = shapes.get(prefixes[folder] + first, (0, channels))[1]
    if reads != channels:
        raise LorakitError(f"{path}: reads {reads} channels in place of {channels}, for inpainting or control; give the plain base")
    is_flow = not hasattr(cls.PROCESS.SCHEDULER, "get_velocity")
    is_fp8 = any(kinds[key] in FP8 for key in shapes if key.startswith(prefixes[folder]))
    file = SingleFile(path, layout, prefixes, shapes, is_fp8, *((None, False) if is_flow else _says(path, shapes, header)))
    return replace(file, beside=_beside(cls, file, beside))


def _beside(cls: type[families.Family], file: SingleFile, paths: Iterable[Path]) -> dict[str, SingleFile]:
    """{part: the file that has it}. A part of its own file goes before the one in `file`."""
    found: dict[str, SingleFile] = {}
    for path in paths:
        shapes, _, _ = _read(path)
        part = _part_of(cls, shapes)
        if part is None:
            raise LorakitError(f"{path}: is no VAE and no text encoder of {file.layout.title}; take it out, or give the right one")
        if part[0] in found:
            raise LorakitError(f"{path}: is the {part[0]}, as {found[part[0]].path.name} is; give one of them")
        found[part[0]] = SingleFile(path, file.layout, dict([part]), shapes)
        wanted = cls.text_width(denoiser_config(cls, file)) if part[0] in cls.large_encoders() else None
        words = encoder_config(cls, found[part[0]], part[0]).hidden_size if wanted else None
        if words != wanted:
            raise LorakitError(
                f"{path}: its states are {words} wide, and {file.path.name} reads texts of {wanted}; give the text encoder of this base"
            )
    return found


def _part_of(cls: type[families.Family], shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, str] | None:
    """(part, how its keys begin) of a file that has one part alone; None where it is none of this family's."""
    for prefix in (*VAE, ""):
        if all(any(key.startswith(f"{prefix}{side}coder.conv") for key in shapes) for side in ("en", "de")):
            return "vae", prefix
    if "encoder.block.0.layer.0.SelfAttention.q.weight" in shapes:
        return next(((name, "") for name in cls.t5_encoders()), None)
    if width := shapes.get("text_model.encoder.layers.0.mlp.fc1.weight"):
        return next(((name, "") for name in cls.clip_encoders() if cls.ENCODER_CONFIGS[name]["hidden_size"] == width[1]), None)
    if any(key.endswith("layers.0.self_attn.q_proj.weight") for key in shapes):
        return next(((name, "") for name in cls.large_encoders() if name not in cls.t5_encoders()), None)
    return None


def _read(path: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, str], Mapping[str, str]]:
    """(shapes, types, header) of a file. Raises `LorakitError` where it cannot be read or is quantised."""
    try:
        with safe_open(path, "pt") as file:
            slices = {key: file.get_slice(key) for key in file.keys()}
            shapes = {key: tuple(one.get_shape()) for key, one in slices.items()}
            kinds = {key: one.get_dtype() for key, one in slices.items()}
            header = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise LorakitError(f"{path}: cannot be read as .safetensors ({error})") from None
    if quantised := next((key for key in shapes if any(word in key for word in QUANTISED)), None):
        raise LorakitError(f"{path}: is quantised ({quantised}); a LoRA is trained on the fp16, bf16 or fp8 version")
    scaled = {of for key in shapes if (of := streaming.scaled_key(key))}
    if strange := next((key for key in scaled if kinds.get(key) not in FLOATS), None):
        raise LorakitError(f"{path}: is quantised ({strange} is no fp8); a LoRA is trained on the fp16, bf16 or fp8 version")
    return shapes, kinds, header


PREDICTIONS = {"v": "v_prediction", "vpred": "v_prediction", "vprediction": "v_prediction", "velocity": "v_prediction", "epsilon": "epsilon",
               "eps": "epsilon", "noise": "epsilon"}  # fmt: skip


def _says(path: Path, keys: Iterable[str], header: Mapping[str, str]) -> tuple[str | None, bool]:
    """(what the denoiser predicts, whether its schedule ends in pure noise), as the file says of itself: by empty tensors `v_pred` and
    `ztsnr` (NoobAI-XL), or in its header by ModelSpec's names or kohya's."""
    zero_snr = "ztsnr" in keys or header.get("ss_zero_terminal_snr", "").lower() == "true"
    if "v_pred" in keys:
        return "v_prediction", zero_snr
    for key in ("modelspec.prediction_type", "modelspec.predict_key"):
        if word := header.get(key, "").strip().lower():
            known = PREDICTIONS.get(word.replace("_", "").replace("-", ""))
            if known is None:
                raise LorakitError(f"{path}: says that it predicts {word!r} ({key}), which lorakit does not train")
            return known, zero_snr
    return ("v_prediction" if header.get("ss_v_parameterization", "").lower() == "true" else None), zero_snr


def _first(prefixes: Iterable[str], keys: Iterable[str], layout: Layout) -> str | None:
    """The first prefix that a key has; the empty one only for a bare transformer."""
    for prefix in prefixes:
        if any(key.startswith(prefix) if prefix else layout.blocks and key.startswith(layout.blocks) for key in keys):
            return prefix
    return None


def _no_base(shapes: Mapping[str, tuple[int, ...]]) -> str:
    if any("lora" in key for key in shapes):
        return "is a LoRA, no base"
    if any(key.endswith("attn2.to_k.weight") and shape[1:] == (REFINER,) for key, shape in shapes.items()):
        return "is SDXL's refiner, which finishes pictures of the base"
    return "has no U-Net or transformer of a base that lorakit knows"


def find_layout(shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, Layout] | tuple[None, None]:
    """(family, layout) by keys that only this architecture has; a U-Net alone by the width of the text that it reads."""
    known = [(name, layout) for name in families.names() for layout in families.load(name).LAYOUTS]
    bare = [key.removeprefix(DENOISER).removeprefix(OWN) for key in shapes]
    like = [
        (name, layout)
        for name, layout in known
        if layout.blocks and any(key.startswith(layout.blocks) for key in bare) and any(layout.needs in key for key in bare)
    ]
    if like:  # of those whose blocks are called so, the one that it is no other base's of, if there is one
        own = [found for found in like if not _other_title(found[1], shapes)]
        return (own or sorted(like, key=lambda found: -len(found[1].blocks)))[0]
    for name, layout in known:
        if layout.mark and any(key.startswith(layout.mark) for key in shapes):
            return name, layout
    reads = next((shape for key, shape in shapes.items() if key.startswith(DENOISER) and key.endswith("attn2.to_k.weight")), None)
    return next(((name, layout) for name, layout in known if reads and layout.text_width == reads[1]), (None, None))


def _other_title(layout: Layout, keys: Iterable[str]) -> str | None:
    """The title of another base, whose blocks are called as the layout's."""
    return next((title for part, title in layout.others.items() if any(part in key for key in keys)), None)


def card_of(file: SingleFile) -> str:
    """The card of the base that a file is, as far as its layers tell."""
    return file.layout.card_of(file.shapes)


def denoiser_config(family: type, file: SingleFile) -> dict[str, Any]:
    if not file.layout.blocks:
        return dict(family.CONFIG) | dict(file.layout.config)
    prefix = file.prefixes[family.FOLDER]
    shapes = {key.removeprefix(prefix): shape for key, shape in file.shapes.items() if key.startswith(prefix)}
    try:
        return dict(family.CONFIG) | family.config_from(shapes)
    except KeyError as error:
        raise LorakitError(f"{file.path}: its transformer lacks {error.args[0]}; give another copy of the file") from None


def encoder_config(family: type, file: SingleFile, name: str) -> PretrainedConfig:
    config = dict(file.layout.encoder_configs.get(name) or family.ENCODER_CONFIGS[name])
    if family.ENCODERS[name].config_class in (Qwen3Config, MistralConfig):  # of which a family's bases have several
        own = {key.removeprefix(file.prefixes[name]): shape for key, shape in file.shapes.items() if key.startswith(file.prefixes[name])}
        try:
            config |= language_model_sizes({key.removeprefix("model."): shape for key, shape in own.items()}, config["head_dim"])
        except KeyError as error:
            raise LorakitError(f"{file.path}: its {name} lacks {error.args[0]}; give another copy of the file") from None
    return family.ENCODERS[name].config_class(**config)


def load(family: type, source: Source, file: SingleFile, part: str, dtype: torch.dtype | None = None) -> Any:
    """A part of the file as diffusers or transformers hold it, in `dtype`."""
    configs = configs_of(family, source, file)
    file = file.of(part)
    if part.startswith("tokenizer"):
        return family.TOKENIZERS[part].from_pretrained(configs / part)
    if part == "scheduler":
        return family.PROCESS.SCHEDULER.from_pretrained(configs, subfolder=part)
    if part in ("vae", "unet"):
        return _ldm_part(family, configs, file, part, dtype)
    with init_empty_weights(include_buffers=False):
        if part == "transformer":
            model = family.DENOISER.from_config(denoiser_config(family, file))
        else:
            model = family.ENCODERS[part](encoder_config(family, file, part))
    if part == "transformer":
        wanted = {key: tuple(t.shape) for key, t in model.state_dict().items()}
        tensors = {key: tensor for key, tensor, _ in original_layout.converted(family.place, file.read(part), wanted)}
    else:
        tensors = _encoder_tensors(model, file, part)
    return _filled(model, tensors, dtype, file.path, part)


def load_denoiser(
    family: type, source: Source, file: SingleFile, precision: str | None, dtype: torch.dtype, device: str, at_home: int = 0
) -> nn.Module:
    """The denoiser of the file, a transformer tensor by tensor; with its large layers in few bits where `precision` says which.
    Fp8 goes into layers in fp8 as it stands. The last `at_home` blocks of a transformer stay in the machine's memory."""
    if family.FOLDER == "unet":
        model = load(family, source, file, "unet", dtype)
        return (quantised.replace_layers(model, precision, dtype) if precision else model).to(device)
    model = streaming.build(lambda: family.DENOISER.from_config(denoiser_config(family, file)), precision, dtype)
    wanted = dense_shapes(model)
    tensors = streaming.LazyFile(file.path, file.prefixes[family.FOLDER])
    where = f"{file.path}: its {family.FOLDER}"
    exact = tuple(getattr(family.DENOISER, "_keep_in_fp32_modules", None) or ())
    converted = original_layout.converted(family.place, tensors, wanted, tensors.scales)
    return streaming.fill(model, converted, dtype, device, where, exact, last_blocks(model, family.BLOCKS, at_home))


def dense_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shapes of a model's tensors as files have them, whatever its layers are held in."""
    shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    for name, module in model.named_modules():
        if isinstance(module, quantised.QuantisedLinear):
            del shapes[f"{name}.packed"], shapes[f"{name}.scale"]
            shapes[f"{name}.weight"] = (module.out_features, module.in_features)
    return shapes


def _ldm_part(family: type, configs: Path, file: SingleFile, part: str, dtype: torch.dtype | None) -> nn.Module:
    """The VAE or the U-Net: names by diffusers' own conversion, tensors laid in and counted here, since diffusers leaves open what
    is missing."""
    cls = family.VAE if part == "vae" else family.DENOISER
    config = cls.load_config(configs, subfolder=part)
    with init_empty_weights(include_buffers=False):
        model = cls.from_config(config)
    try:
        if part == "vae":
            tensors = family.vae_from_file(file.read(part), config)
        else:
            tensors = convert_ldm_unet_checkpoint(file.read(part, keep_prefix=True), config)
    except KeyError as error:
        raise LorakitError(f"{file.path}: its {part} lacks {error.args[0]}; give another copy of the file") from None
    absent = [name for name, tensor in tensors.items() if tensor is None]
    return _filled(model, {name: tensors[name] for name in tensors if name not in absent}, dtype, file.path, part)


def _encoder_tensors(model: nn.Module, file: SingleFile, part: str) -> dict[str, Tensor]:
    if file.prefixes[part] in OPEN_CLIP:
        found = convert_open_clip_checkpoint(model, file.read(part, keep_prefix=True), prefix=file.prefixes[part])
    else:
        found = file.read(part)
    if isinstance(model, T5EncoderModel):
        return found | {"encoder.embed_tokens.weight": found["shared.weight"]}
    # transformers 5 has dropped the level `text_model` where there is no projection; some merged files lack it too
    level = "text_model." if hasattr(model, "text_model") else ""
    found = {key if key.startswith("text_projection") else level + key.removeprefix("text_model."): tensor for key, tensor in found.items()}
    if any("clip_l" in start for start in file.layout.begins(part)):  # as the original code and diffusers: CLIP L is not projected in SD3
        width = model.config.hidden_size
        found["text_projection.weight"] = torch.eye(width)
    return found


def _filled(model: nn.Module, tensors: Mapping[str, Tensor], dtype: torch.dtype | None, path: Path, part: str) -> nn.Module:
    """The model with these tensors as its weights, cast one by one. T5 keeps some in fp32 where all else is fp16."""
    exact = (getattr(type(model), "_keep_in_fp32_modules", None) or ()) if dtype == torch.float16 else ()
    known, given = model.state_dict(), {}
    for key, wanted in known.items():
        if key not in tensors:
            continue
        tensor = tensors[key]
        if tensor.shape != wanted.shape:
            raise LorakitError(
                f"{path}: its {part} is of another shape than this base ({key}: {tuple(tensor.shape)}, not {tuple(wanted.shape)})"
            )
        kept = torch.float32 if any(word in key.split(".") for word in exact) else dtype
        given[key] = tensor.to(kept) if kept and tensor.is_floating_point() else tensor
    model.load_state_dict(given, strict=False, assign=True)
    missing = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if missing:
        raise LorakitError(f"{path}: its {part} lacks {len(missing)} weights, the first {missing[0]}; give another copy of the file")
    return model


def configs_of(family: type, source: Source, file: SingleFile) -> Path:
    """The folder of this file's configurations, written where it is not there yet."""
    key = files.short_hash(
        denoiser_config(family, file), file.layout.name, card_of(file), 2, *([file.schedule()] if file.schedule() else [])
    )
    folder = Path(source.configs) / key
    if not folder.is_dir():
        files.write_folder(folder, lambda part: write_configs(family, part, file))
    return folder


def write_configs(family: type, folder: Path, file: SingleFile | None = None) -> None:
    """A diffusers folder with everything but weights; of the family's usual base where no file is given."""
    config = denoiser_config(family, file) if file else dict(family.CONFIG)
    index = {
        "_class_name": family.PIPELINE.__name__,
        "scheduler": ["diffusers", family.PROCESS.SCHEDULER.__name__],
        "vae": ["diffusers", family.VAE.__name__],
    }
    index[family.FOLDER] = ["diffusers", family.DENOISER.__name__]
    index |= {name: ["transformers", cls.__name__] for name, cls in (family.ENCODERS | family.TOKENIZERS).items()}
    index |= {name: [None, None] for name in family.OPTIONAL}
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    schedule = family.scheduler_config(config) | (file.schedule() if file else {})
    family.PROCESS.SCHEDULER(**schedule).save_config(folder / "scheduler")
    with torch.device("meta"):  # models without memory: only their configurations are wanted, with every default filled in
        family.VAE(**(AUTOENCODER if family.VAE is AutoencoderKL else {}) | dict(family.VAE_CONFIG)).save_config(folder / "vae")
        family.DENOISER(**config).save_config(folder / family.FOLDER)
    for name in family.clip_encoders():
        config = (file and file.layout.encoder_configs.get(name)) or family.ENCODER_CONFIGS[name]
        CLIPTextConfig(**config).save_pretrained(folder / name)
        tokenizer = clip_tokenizer(folder)
        if config["pad_token_id"] == 0:  # open_clip's models were trained with texts that end in zeros, which is "!"
            tokenizer.pad_token = "!"
        tokenizer.save_pretrained(folder / name.replace("text_encoder", "tokenizer"))
