"""The contract of a family: one architecture a file of this folder, with all its oddities and its tables of names inside:
nothing else in the package knows a family by name. A family file names its class as CLASS, and has at its top, written out
in full, what is read without importing it: OTHER_TRAINERS, what each of them calls this base."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from transformers import T5EncoderModel

from lorakit.bases import quantised, single_file, streaming
from lorakit.bases.block_swap import BlockSwap, repeated_blocks
from lorakit.bases.layer_names import OddForm, Original
from lorakit.bases.original_layout import Place
from lorakit.bases.schedules import Diffusion, Flow
from lorakit.bases.single_file_configs import Layout
from lorakit.errors import LorakitError
from lorakit.settings import Train
from lorakit.weights import Source, hub_errors_in_words, load_whole, weights_folder

Text = dict[str, Tensor]  # embeddings of one text or a batch of texts, by name; the first axis counts texts


class Family(ABC):
    """A loaded base model: `CLASS(source, device, dtype, settings)`. Parts are loaded when they are first asked for; a child says what differs."""

    DENOISER: type  # the class of the U-Net or transformer ...
    FOLDER: str  # ... and its sub-folder
    CONFIG: Mapping[str, Any]  # of the full-size denoiser
    ENCODERS: Mapping[str, type]  # text encoders by sub-folder
    TOKENIZERS: Mapping[str, type]
    VAE_CONFIG: Mapping[str, Any] = {}  # beside the usual; with the next one only where single files can be read
    ENCODER_CONFIGS: Mapping[str, Mapping[str, Any]] = {}  # of the full-size text encoders
    SCHEDULER_CONFIG: Mapping[str, Any] = {}
    TARGETS: Mapping[str, tuple[str, ...]]  # names at whose end a module gets a LoRA; each level has the ones before it
    PIPELINE: type  # of diffusers, for sampling
    OPTIONAL: tuple[str, ...] = ()  # its parts that lorakit has no use for
    NAME: str  # of the family
    FORMAT: str  # of the LoRA file that most tools load: kohya or diffusers

    text_length: int | None = None  # T5 tokens

    PROCESS: type[Diffusion] | type[Flow]  # what it learns
    PIXEL_STEP: int  # picture sides are multiples of this
    TAKES_NEGATIVE = True  # whether its pictures are drawn against a negative prompt

    # In LoRA files. The names of the denoiser's layers are read off its class, which is built without memory.
    MEMBERS: tuple[Mapping[str, Any], ...] = ()  # what is otherwise than CONFIG in the denoisers of the family's other bases
    KOHYA_NAMES: tuple[str, ...] = ("diffusers",)  # of layers in kohya files, or "original" ones: the first is written, all are read
    KOHYA_TEXT: Mapping[str, str] = {}  # what they call a text encoder, where it is not lora_te with its number
    ODD_FORMS: tuple[OddForm, ...] = ()  # keys of LoRA files that no layer's name explains
    TOOLS: tuple[str, ...] = ("comfyui", "diffusers")  # that load LoRAs of it
    COMFYUI_PREFIXES: tuple[str, ...] = ()  # that ComfyUI reads before diffusers' paths, beside its usual ones
    DIFFUSERS_READS_KOHYA = False  # whether diffusers has a converter for kohya files of it
    DIFFUSERS_READS_ALPHA = False  # whether diffusers takes alphas beside lora_A and lora_B

    LAYOUTS: tuple[Layout, ...] = ()  # how its bases lie in single files; none can be read where there is none

    @staticmethod
    def original_name(path: str) -> Original | None:
        """What a layer of the denoiser is called in the original code; None where that has it not, or is not known."""
        return None

    @staticmethod
    def other_name(path: str) -> Original | None:
        """What a layer of the denoiser is called in LoRA files of another trainer, where that has names of its own."""
        return None

    @staticmethod
    def place(key: str, shape: tuple[int, ...]) -> Place | None:
        """Where a single file has the transformer's tensor `key`, whose layer's weight has this shape; None where it has it
        not. U-Nets are read by diffusers itself."""
        return None

    @classmethod
    def config_from(cls, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
        """What the shapes of a single file's transformer tell of its configuration. Raises `KeyError` for a tensor it lacks."""
        return {}

    @classmethod
    def t5_encoders(cls) -> tuple[str, ...]:
        return tuple(name for name, kind in cls.ENCODERS.items() if kind is T5EncoderModel)

    @classmethod
    def clip_encoders(cls) -> tuple[str, ...]:
        return tuple(name for name, kind in cls.ENCODERS.items() if kind is not T5EncoderModel)

    @classmethod
    def encoder_layers(cls, name: str) -> int:
        """How many layers a text encoder has, in the largest of the family's bases."""
        configs = (cls.ENCODER_CONFIGS, *(layout.encoder_configs for layout in cls.LAYOUTS))
        return max((c[name].get("num_hidden_layers") or c[name]["num_layers"] for c in configs if name in c), default=0)

    @classmethod
    def kohya_text(cls, name: str) -> str:
        return cls.KOHYA_TEXT.get(name, f"lora_te{list(cls.ENCODERS).index(name) + 1}")

    _swap: BlockSwap | None = None

    def __init__(self, source: Source, device: str, dtype: torch.dtype, settings: Train):
        self.source, self.device, self.dtype, self.settings = source, device, dtype, settings
        self._parts: dict[str, Any] = {}
        self.file = single_file.open_file(Path(source.location), self.NAME) if source.configs else None
        self.process = self.PROCESS(self.part("scheduler", self.PROCESS.SCHEDULER), settings)

    @property
    def denoiser(self) -> nn.Module:
        """The U-Net or transformer that the LoRA is trained on."""
        if self.FOLDER not in self._parts and (precision := self.held_in()):
            self._parts[self.FOLDER] = self._load_quantised(precision).requires_grad_(False).eval().to(self.device)
        return self.model(self.FOLDER, self.DENOISER, self.dtype)

    def repeated_blocks(self) -> list[nn.Module]:
        """The denoiser's repeated blocks in the order in which they are called, each of which gradient checkpointing computes again."""
        return repeated_blocks(self.denoiser)

    def swap_blocks(self, count: int) -> None:
        """Let the last `count` of these, adapters and all in them by now, wait in the machine's memory while others work."""
        self._swap = BlockSwap(self.repeated_blocks(), count, self.device) if count else None

    def settle_blocks(self) -> None:
        """After each backward pass."""
        if self._swap:
            self._swap.settle()

    def held_in(self) -> str | None:
        """The few bits that the denoiser's layers are held in, fp8 or nf4; None for the family's dtype. `auto` leaves a single
        file in fp8 as it is."""
        wanted = self.settings.base_precision
        if wanted == "auto" and self.file and self.file.is_fp8:
            return "fp8"
        return wanted if wanted in quantised.PRECISIONS else None

    def _load_quantised(self, precision: str) -> nn.Module:
        """The denoiser with its large layers in few bits; a transformer is never whole in memory, a U-Net in a single file is."""
        if self.file:
            return single_file.load_quantised(type(self), self.source, self.file, precision, self.dtype, self.device)
        with hub_errors_in_words(self.source):
            config = self.DENOISER.load_config(self.source.location, subfolder=self.FOLDER)
            folder = weights_folder(self.source, self.FOLDER)
        if "quantization_config" in config:
            raise LorakitError(f"{folder}: is quantised already; take the fp16 or bf16 version, or train.base_precision=auto")
        exact = tuple(getattr(self.DENOISER, "_keep_in_fp32_modules", None) or ())
        model = streaming.build(lambda: self.DENOISER.from_config(config), precision, self.dtype)
        return streaming.fill(model, streaming.read_folder(folder), self.dtype, self.device, str(folder), exact)

    @property
    def vae(self) -> AutoencoderKL:
        # In fp32: half precision loses detail in every latent, and encoding is done once.
        return self.model("vae", AutoencoderKL, torch.float32)

    def encoder(self, name: str) -> nn.Module:
        cls = self.ENCODERS[name]
        return self.model(name, cls, self.dtype if cls is T5EncoderModel else torch.float32)  # T5 in fp32 is 19 GB

    def tokenizer(self, name: str) -> Any:
        return self.part(name, self.TOKENIZERS[name])

    def model(self, name: str, cls: type, dtype: torch.dtype) -> nn.Module:
        """A frozen part with weights, on the device."""
        if name not in self._parts:
            loaded = self.part(name, cls, torch_dtype=dtype, use_safetensors=True)
            self._parts[name] = loaded.requires_grad_(False).eval().to(self.device)  # once: blocks may be swapped out later
        return self._parts[name]

    def part(self, name: str, cls: type, **options: Any) -> Any:
        if name not in self._parts:
            with hub_errors_in_words(self.source):
                self._parts[name] = self._load(name, cls, **options)
        return self._parts[name]

    def _load(self, name: str, cls: type, **options: Any) -> Any:
        if self.file and self.file.has(name):
            return single_file.load(type(self), self.source, self.file, name, options.get("torch_dtype"))
        with hub_errors_in_words(self.source_of(name)):
            load_part = partial(load_whole, cls) if issubclass(cls, nn.Module) else cls.from_pretrained
            return load_part(self.source_of(name).location, subfolder=name, **options)

    def source_of(self, name: str) -> Source:
        """Where a part comes from: what a single file lacks lies elsewhere."""
        if not self.file or self.file.has(name):
            return self.source
        if self.source.rest is None:
            raise LorakitError(f"{self.source.location}: has no {name} in it; --set train.parts=FOLDER names a diffusers folder that has")
        return self.source.rest

    def denoiser_config(self) -> Mapping[str, Any]:
        if self.file:
            return single_file.denoiser_config(type(self), self.file)
        with hub_errors_in_words(self.source):
            return self.DENOISER.load_config(self.source.location, subfolder=self.FOLDER)

    @classmethod
    def scheduler_config(cls, denoiser: Mapping[str, Any]) -> dict[str, Any]:
        """Of a base in a single file, whose denoiser has this configuration."""
        return dict(cls.SCHEDULER_CONFIG)

    def release_encoders(self) -> None:
        """Free the VAE and the text encoders; they are loaded again when they are needed."""
        for name in ("vae", *(name for name in self.ENCODERS if name not in self.learning_encoders)):
            self._parts.pop(name, None)
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()

    @torch.no_grad()
    def encode_picture(self, pixels: Tensor) -> dict[str, Tensor]:
        """[1, 3, H, W] in -1..1 -> {"mean", "std"}, each [C, h, w]: the distribution of the scaled latents."""
        found = self.vae.encode(pixels.to(self.device, torch.float32)).latent_dist
        scale, shift = self.vae.config.scaling_factor, self.vae.config.shift_factor or 0.0
        return {"mean": ((found.mean - shift) * scale)[0].cpu(), "std": (found.std * scale)[0].cpu()}

    @property
    def learning_encoders(self) -> tuple[str, ...]:
        """The text encoders that get an adapter: CLIP's, where `train.text_encoder` is set, and T5, where `train.t5` is too."""
        return self.encoders_that_learn(self.settings)

    @classmethod
    def encoders_that_learn(cls, settings: Train) -> tuple[str, ...]:
        return tuple(name for name in cls.ENCODERS if settings.text_encoder and (settings.t5 or name in cls.clip_encoders()))

    @torch.no_grad()
    def encode_text(self, text: str) -> Text:
        """Embeddings of one text, each [...] without the batch axis."""
        prepared = {name: tensor[None] for name, tensor in self.prepare_text(text).items()}
        return {name: tensor[0].cpu() for name, tensor in self.embed(prepared).items()}

    @torch.no_grad()
    def prepare_text(self, text: str) -> Text:
        """What of one text does not change in training, by encoder: CLIP's token ids [77]; T5's states [length, width], or its
        token ids [length] where it learns."""
        found = {}
        for (name, cls), tokenizer in zip(self.ENCODERS.items(), self.TOKENIZERS, strict=True):
            if cls is T5EncoderModel:
                ids = self.tokens(tokenizer, text, self.text_length)
                found[name] = ids[0] if name in self.learning_encoders else self.encoder(name)(ids)[0][0]
            else:
                found[name] = self.tokens(tokenizer, text)[0]
        return {name: tensor.cpu() for name, tensor in found.items()}

    def t5_states(self, name: str, prepared: Text) -> Tensor:
        """[B, length, width] of a batch of prepared texts."""
        found = prepared[name].to(self.device)
        return self.encoder(name)(found)[0] if name in self.learning_encoders else found

    @abstractmethod
    def text_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the embeddings of one text, as `embed` gives them."""

    def latent_channels(self) -> int:
        return self.denoiser.config.in_channels

    @abstractmethod
    def embed(self, prepared: Text) -> Text:
        """Embeddings, as the denoiser takes them, of a batch of prepared texts; with gradients where text encoders learn."""

    def embedded(self, text: Text) -> Text:
        """A batch of cached texts as the denoiser takes it: cached whole, or prepared, where text encoders learn."""
        return self.embed(text) if self.learning_encoders else text

    @abstractmethod
    def predict(self, noisy: Tensor, timesteps: Tensor, text: Text, sizes: Tensor) -> Tensor:
        """The denoiser's prediction for latents [B, C, h, w]; `sizes` is [B, 6]: height and width of the photo, top and
        left of the crop, height and width of the picture."""

    @abstractmethod
    def pipeline(self) -> Any:
        """A diffusers pipeline around the loaded parts, for sampling."""

    def bare_pipeline(self) -> Any:
        """A pipeline with the parts that learn and nothing else: enough to load a LoRA file into."""
        parts = dict.fromkeys(("vae", *self.ENCODERS, *self.TOKENIZERS, *self.OPTIONAL))
        parts |= {name: self.encoder(name) for name in self.learning_encoders} | {self.FOLDER: self.denoiser}
        return self.PIPELINE(**parts, scheduler=self.process.schedule)

    def sampling_options(self) -> dict[str, Any]:
        """What a call of the pipeline needs beside prompt, size, steps, guidance and seed."""
        return {}

    def sampling_parts(self) -> dict[str, Any]:
        """The parts that every pipeline takes, by the names that it gives them."""
        dtype = self.dtype
        encoders = {name: self._to_draw_with(name, dtype) for name in self.ENCODERS}
        return {"vae": self.vae.to(dtype), self.FOLDER: self.denoiser, **encoders, **{n: self.tokenizer(n) for n in self.TOKENIZERS}}

    def _to_draw_with(self, name: str, dtype: torch.dtype) -> nn.Module:
        """A text encoder as a pipeline takes it. One that learns keeps its precision: of CLIP's fp32 a copy is drawn with; T5 has the
        denoiser's already, all but its adapter, whose layers see to that themselves."""
        encoder = self.encoder(name)
        if name not in self.learning_encoders:
            return encoder.to(dtype)
        return encoder if self.ENCODERS[name] is T5EncoderModel else copy.deepcopy(encoder).to(dtype)

    def tokens(self, name: str, text: str, length: int | None = None) -> Tensor:
        """[1, length] token ids on the device, padded and cut to the tokenizer's own length where none is given."""
        tokenizer = self.tokenizer(name)
        found = tokenizer(text, padding="max_length", max_length=length or tokenizer.model_max_length, truncation=True, return_tensors="pt")
        return found.input_ids.to(self.device)


def stack_texts(texts: list[Text]) -> Text:
    """Several single texts as one batch."""
    return {name: torch.stack([text[name] for text in texts]) for name in texts[0]}
