"""The contract of a family: one architecture a file of this folder, with all its oddities and its tables of names inside:
nothing else in the package knows a family by name. A family file names its class as CLASS, and has at its top, written out
in full, what is read without importing it: TITLE, what people call it; OTHER_TRAINERS, what each of them calls this base; and READS,
whose tokenizers read its texts, where that is not CLIP's (and T5's, where texts may be longer than 77 tokens)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderKLQwenImage
from diffusers.image_processor import VaeImageProcessor
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint, convert_wan_vae_to_diffusers
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, T5EncoderModel

from lorakit.bases import autoencoder, large_encoders, patches, quantised, single_file, streaming
from lorakit.bases.block_swap import BlockSwap, last_blocks, repeated_blocks
from lorakit.bases.layer_names import LokrForm, OddForm, Original
from lorakit.bases.original_layout import Place
from lorakit.bases.schedules import Diffusion, Flow
from lorakit.bases.single_file_configs import Layout
from lorakit.console import say
from lorakit.errors import LorakitError
from lorakit.settings import Train
from lorakit.weights import Source, hub_errors_in_words, load_whole, weights_folder

# Embeddings of one text or a batch of texts, by name. Where texts of a batch have several lengths, the shorter ones end in zeros, and
# `<name>_rows` [B] says how many rows of each are its own: see `stack_texts` and `rows_of`.
Text = dict[str, Tensor]
TEXTS_AT_ONCE = 1000  # so many wait in memory, read by all encoders but the last: 0.6 MB each for SD3


class Family(ABC):
    """A loaded base model: `CLASS(source, device, dtype, settings)`. Parts are loaded when they are first asked for; a child says what differs."""

    DENOISER: type  # the class of the U-Net or transformer ...
    FOLDER: str  # ... and its sub-folder
    CONFIG: Mapping[str, Any]  # of the full-size denoiser
    ENCODERS: Mapping[str, type]  # text encoders by sub-folder
    TOKENIZERS: Mapping[str, type]
    VAE: type = AutoencoderKL
    VAE_CONFIG: Mapping[str, Any] = {}  # beside the usual; with the next one only where single files can be read
    ENCODER_CONFIGS: Mapping[str, Mapping[str, Any]] = {}  # of the full-size text encoders
    LAYERS_READ: Mapping[
        str, int
    ] = {}  # of language models, where the last layers of their states are not read: the first so many are loaded
    SCHEDULER_CONFIG: Mapping[str, Any] = {}
    TARGETS: Mapping[
        str, tuple[str, ...]
    ]  # names at whose end a module gets a LoRA (after ^ a whole name); each level has the ones before it
    NOT_TARGETS: str = ""  # an expression; what it finds in a module's name keeps that from getting one
    BLOCKS: tuple[str, ...] = ("transformer_blocks",)  # how the names of the lists of repeated blocks end, in the order of their calls
    PIPELINE: type  # of diffusers, for sampling ...
    GUIDANCE: str = "guidance_scale"  # ... which takes the guidance as this
    OPTIONAL: tuple[str, ...] = ()  # its parts that lorakit has no use for
    NAME: str  # of the family
    FORMAT: str  # of the LoRA file that most tools load: kohya or diffusers

    text_length: int | None = None  # tokens that T5 or a language model reads

    PROCESS: type[Diffusion] | type[Flow]  # what it learns
    PIXEL_STEP: int  # picture sides are multiples of this
    TAKES_NEGATIVE = True  # whether its pictures are drawn against a negative prompt
    CHANNELS_LAST = False  # whether its weights are mostly convolutions, which cards do faster that way round
    FP16 = True  # whether it gives numbers in fp16

    # In LoRA files. The names of the denoiser's layers are read off its class, which is built without memory.
    MEMBERS: Mapping[str, Mapping[str, Any]] = {}  # what is otherwise than CONFIG in the denoisers of the family's other bases, by card
    KOHYA_NAMES: tuple[str, ...] = ("diffusers",)  # of layers in kohya files, or "original" ones: the first is written, all are read
    IN_HEADERS: str = ""  # how headers begin to name its bases, without marks; where another family's layers are like its own
    KOHYA_TEXT: Mapping[str, str] = {}  # what they call a text encoder, where it is not lora_te with its number
    ODD_FORMS: tuple[OddForm, ...] = ()  # keys of LoRA files that no layer's name explains
    TOOLS: tuple[str, ...] = ("comfyui", "diffusers")  # that load LoRAs of it
    COMFYUI_PREFIXES: tuple[str, ...] = ()  # that ComfyUI reads before diffusers' paths, beside its usual ones; "" is none before them ...
    COMFYUI_UNDERSCORED: tuple[str, ...] = ("lycoris", "lora_transformer")  # ... and before those of transformers with `_` for dots
    COMFYUI_LACKS: str = ""  # an expression; paths of diffusers in which it is found ComfyUI knows by their original names alone
    DIFFUSERS_READS_KOHYA = False  # whether diffusers has a converter for kohya files of it
    # Prefixes of its own paths in files that go through that converter too, alphas and all; where "" is one of them, every file with alphas.
    DIFFUSERS_CONVERTS: tuple[str, ...] = ()
    DIFFUSERS_CONVERTS_ORIGINAL: tuple[str, ...] = ()  # prefixes of original names that diffusers converts, of lora_A and lora_B alone
    DIFFUSERS_CONVERTS_PATHS: str = ""  # an expression; those of its own paths that it takes after these prefixes too
    PEFT_ORIGINAL = (
        ""  # what stands before original names where files with lora_A and lora_B are written under these, for more tools to load
    )
    DIFFUSERS_LOKR: tuple[LokrForm, ...] = ()  # of LoKr files that diffusers loads; the first that a file has a key of holds for all of it
    LYCORIS_PREFIX = (
        "lycoris_"  # of LoKr and LoHa where its original code fuses layers; after one that ends in a dot the path keeps its own
    )
    DIFFUSERS_READS_ALPHA = False  # whether diffusers takes alphas beside lora_A and lora_B

    # What those that draw with it call it: under a1111 its version, by how ss_base_model_version begins; under comfyui the nodes and files
    # that a workflow takes.
    IN_TOOLS: Mapping[str, Mapping[str, Any]] = {}

    PACKED = False  # whether two by two pixels of its latents are one token of the denoiser, as `patches` packs them
    OTHER_CONFIGS: Mapping[str, str] = {}  # what of a denoiser's configuration, where it is set, makes it another base: its title
    LAYOUTS: tuple[Layout, ...] = ()  # how its bases lie in single files; none can be read where there is none

    @classmethod
    def config_of(cls, card: str) -> dict[str, Any]:
        """The denoiser's configuration of one of the family's bases, as published."""
        return {**cls.CONFIG, **cls.MEMBERS.get(card, {})}

    @classmethod
    def encoder_configs_of(cls, card: str) -> dict[str, Mapping[str, Any]]:
        """The text encoders' configurations of one of the family's bases, as published; of those that lorakit knows."""
        own = next((layout.encoder_configs for layout in cls.LAYOUTS if card in layout.cards), {})
        return {**cls.ENCODER_CONFIGS, **own}

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
    def text_width(cls, config: Mapping[str, Any]) -> int | None:
        """How wide the states of the language model are that a denoiser of this configuration reads; None where that is not asked."""
        return None

    @classmethod
    def vae_from_file(cls, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
        """A VAE under diffusers' names, of the tensors that a single file has of it. Raises `KeyError` for one that it lacks."""
        if cls.VAE is AutoencoderKLQwenImage:  # whose layers are those of Wan's
            return convert_wan_vae_to_diffusers(dict(tensors))
        return convert_ldm_vae_checkpoint(dict(tensors), config)

    @classmethod
    def config_from(cls, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
        """What the shapes of a single file's transformer tell of its configuration. Raises `KeyError` for a tensor it lacks."""
        return {}

    @classmethod
    def t5_encoders(cls) -> tuple[str, ...]:
        return tuple(name for name, kind in cls.ENCODERS.items() if kind is T5EncoderModel)

    @classmethod
    def clip_encoders(cls) -> tuple[str, ...]:
        return tuple(name for name, kind in cls.ENCODERS.items() if issubclass(kind, (CLIPTextModel, CLIPTextModelWithProjection)))

    @classmethod
    def large_encoders(cls) -> tuple[str, ...]:
        """T5 and language models: held in the denoiser's precision, or in 8 bits."""
        return tuple(name for name in cls.ENCODERS if name not in cls.clip_encoders())

    @classmethod
    def encoder_layers(cls, name: str) -> int:
        """How many layers a text encoder has, in the largest of the family's bases."""
        configs = (cls.ENCODER_CONFIGS, *(layout.encoder_configs for layout in cls.LAYOUTS))
        return max((c[name].get("num_hidden_layers") or c[name]["num_layers"] for c in configs if name in c), default=0)

    @classmethod
    def kohya_text(cls, name: str) -> str:
        return cls.KOHYA_TEXT.get(name, f"lora_te{list(cls.ENCODERS).index(name) + 1}")

    _swap: BlockSwap | None = None
    training_adapter: Sequence[Any] = ()  # what it adds to each layer, where there is one

    def __init__(self, source: Source, device: str, dtype: torch.dtype, settings: Train):
        self.source, self.device, self.dtype, self.settings = source, device, dtype, settings
        self._parts: dict[str, Any] = {}
        self.file = single_file.open_source(source, self.NAME) if source.configs else None
        self.process = self.PROCESS(self.part("scheduler", self.PROCESS.SCHEDULER), settings)

    @property
    def denoiser(self) -> nn.Module:
        """The U-Net or transformer that the LoRA is trained on. The blocks that `train.swap_blocks` names wait in the machine's memory,
        and work only after `swap_blocks` was called."""
        if self.FOLDER not in self._parts:
            self._parts[self.FOLDER] = self._load_denoiser(self.held_in()).requires_grad_(False).eval()
        return self._parts[self.FOLDER]

    def repeated_blocks(self) -> list[nn.Module]:
        """The denoiser's repeated blocks in the order in which they are called, each of which gradient checkpointing computes again."""
        return repeated_blocks(self.denoiser, self.BLOCKS)

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

    def _load_denoiser(self, precision: str | None) -> nn.Module:
        """The denoiser, tensor by tensor onto the device, its large layers in few bits where that is asked for: it is never whole
        in the machine's memory, but for a U-Net in a single file."""
        if self.file:
            return single_file.load_denoiser(
                type(self), self.source, self.file, precision, self.dtype, self.device, self.settings.swap_blocks
            )
        with hub_errors_in_words(self.source):
            config = self.DENOISER.load_config(self.source.location, subfolder=self.FOLDER)
            folder = weights_folder(self.source, self.FOLDER)
        if "quantization_config" in config:
            raise LorakitError(f"{folder}: is quantised already; take the fp16 or bf16 version, or train.base_precision=auto")
        exact = tuple(getattr(self.DENOISER, "_keep_in_fp32_modules", None) or ())
        model = streaming.build(lambda: self.DENOISER.from_config(config), precision, self.dtype)
        at_home = last_blocks(model, self.BLOCKS, self.settings.swap_blocks)
        return streaming.fill(model, streaming.read_folder(folder), self.dtype, self.device, str(folder), exact, at_home)

    @property
    def vae(self) -> nn.Module:
        # In fp32: half precision loses detail in every latent, and encoding is done once.
        return self.model("vae", self.VAE, torch.float32)

    def encoder(self, name: str) -> nn.Module:
        if name in self.clip_encoders():
            return self.model(name, self.ENCODERS[name], torch.float32)
        if name not in self._parts:  # in the denoiser's precision: in fp32 T5 is 19 GB
            self._parts[name] = self._load_large(name)
        return self._parts[name]

    def _load_large(self, name: str) -> nn.Module:
        """Frozen, tensor by tensor onto the device, in 8 bits where `train.encoder_precision` says so or what is free asks for it; where
        even that does not fit, it waits in the machine's memory."""
        source = self.source_of(name)
        if self.file and self.file.has(name):
            file = self.file.of(name)
            config, where = single_file.encoder_config(type(self), file, name), f"{file.path}: its {name}"
            lazy = streaming.LazyFile(file.path, file.prefixes[name])
            tensors: streaming.Tensors = ((key, lazy[key], lazy.scales.get(key)) for key in lazy)
        else:
            with hub_errors_in_words(source):
                config = self.ENCODERS[name].config_class.from_pretrained(source.location, subfolder=name)
                if getattr(config, "quantization_config", None):  # as its own library holds it
                    held = self.part(name, self.ENCODERS[name], torch_dtype=self.dtype, use_safetensors=True)
                    return held.requires_grad_(False).eval().to(self.device)
                folder = weights_folder(source, name)
            tensors, where = streaming.read_folder(folder), str(folder)
        kind, depth, learns = self.ENCODERS[name], self.LAYERS_READ.get(name), name in self.learning_encoders
        choices: tuple[str | None, ...] = {"auto": (None, "int8"), "int8": ("int8",), "bf16": (None,)}[self.settings.encoder_precision]
        precision, waits = next(
            ((held, False) for held in choices if learns or large_encoders.fits(kind, config, self.dtype, self.device, depth, held)),
            (choices[-1], True),
        )
        if waits:
            say(
                f"memory    {name} does not fit what is free of the card: its layers come from the machine's memory, one by one, which is slower"
            )
        place = "cpu" if waits else self.device
        model = large_encoders.build(kind, config, tensors, precision, self.dtype, place, where, depth).requires_grad_(False).eval()
        return large_encoders.bring_by_layers(model, self.device) if waits else model

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
        if self.FOLDER in self._parts:
            return self._parts[self.FOLDER].config
        with hub_errors_in_words(self.source):
            return self.DENOISER.load_config(self.source.location, subfolder=self.FOLDER)

    @classmethod
    def scheduler_config(cls, denoiser: Mapping[str, Any]) -> dict[str, Any]:
        """Of a base in a single file, whose denoiser has this configuration."""
        return dict(cls.SCHEDULER_CONFIG)

    def release_encoders(self) -> None:
        """Free the VAE and the text encoders; they are loaded again when they are needed."""
        self.release("vae", *self.ENCODERS)

    def release(self, *names: str) -> None:
        """Free these parts, all but encoders that learn."""
        for name in names:
            if name not in self.learning_encoders:
                self._parts.pop(name, None)
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()

    @cached_property
    def vae_config(self) -> Mapping[str, Any]:
        if self.file and self.file.has("vae"):
            return self.VAE.load_config(single_file.configs_of(type(self), self.source, self.file), subfolder="vae")
        with hub_errors_in_words(self.source_of("vae")):
            return self.VAE.load_config(self.source_of("vae").location, subfolder="vae")

    @property
    def latent_side(self) -> int:
        """Pixels of a picture that one latent pixel stands for, by side."""
        return autoencoder.latent_side(self.vae_config)

    @torch.no_grad()
    def encode_picture(self, pixels: Tensor) -> dict[str, Tensor]:
        """[1, 3, H, W] in -1..1 -> {"mean", "std"}, each [C, h, w]: the distribution of the normalised latents."""
        autoencoder.set_tiles(self.vae, *pixels.shape[-2:], self.device)
        mean, std = self.normalised(*autoencoder.encode(self.vae, pixels.to(self.device, torch.float32)))
        return {"mean": mean[0].cpu(), "std": std[0].cpu()}

    def normalised(self, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        """What the denoiser is to see of the VAE's latents, each [B, C, h, w]: mean and deviation of about 0 and 1 over all pictures."""
        return autoencoder.normalised(self.vae.config, mean, std)

    def unnormalised(self, latents: Tensor) -> Tensor:
        """The other way, for the VAE's decoder."""
        return autoencoder.unnormalised(self.vae.config, latents)

    @property
    def learning_encoders(self) -> tuple[str, ...]:
        """The text encoders that get an adapter: CLIP's, where `train.text_encoder` is set, and T5, where `train.t5` is too. A language
        model never does."""
        return self.encoders_that_learn(self.settings)

    @classmethod
    def encoders_that_learn(cls, settings: Train) -> tuple[str, ...]:
        learn = cls.clip_encoders() + (cls.t5_encoders() if settings.t5 else ())
        return tuple(name for name in cls.ENCODERS if settings.text_encoder and name in learn)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Image.Image:
        """The picture of normalised latents [1, C, h, w]."""
        height, width = (side * self.latent_side for side in latents.shape[-2:])
        autoencoder.set_tiles(self.vae, height, width, self.device)
        unnormalised = self.unnormalised(latents.to(self.device, torch.float32))
        return VaeImageProcessor().postprocess(autoencoder.decode(self.vae, unnormalised))[0]

    def encode_text(self, text: str) -> Text:
        """Embeddings of one text, each [...] without the batch axis."""
        return next(self.encode_texts([text]))

    def encode_texts(self, texts: Sequence[str]) -> Iterator[Text]:
        """Embeddings of each text in turn; where text encoders learn, what of them does not change (`prepare_text`). The encoders
        are loaded one after another, each let go before the next."""
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            yield from self._encode_some(texts[start : start + TEXTS_AT_ONCE])

    @torch.no_grad()
    def _encode_some(self, texts: Sequence[str]) -> Iterator[Text]:
        found: list[dict[str, Any]] = [{} for _ in texts]
        last = list(self.ENCODERS)[-1]  # T5, whose states are the largest: they are given away one by one
        for name in self.ENCODERS:
            for text, parts in zip(texts, found, strict=True):
                prepared = self.prepare(name, text)
                if self.settings.text_encoder:
                    parts[name] = prepared.cpu()
                else:
                    parts[name] = {key: tensor.cpu() for key, tensor in self.read(name, prepared[None]).items()}
                if name == last:
                    yield parts if self.settings.text_encoder else {key: tensor[0] for key, tensor in self.join(parts).items()}
                    parts.clear()
            self.release(name)

    def prepare_text(self, text: str) -> Text:
        """What of one text does not change in training, by encoder: CLIP's token ids [77]; T5's states [length, width], or its
        token ids [length] where it learns; a language model's states, of the text's own length."""
        return {name: self.prepare(name, text).cpu() for name in self.ENCODERS}

    @torch.no_grad()
    def prepare(self, name: str, text: str) -> Tensor:
        """That of one encoder."""
        if name in self.clip_encoders():
            return self.tokens(self.tokenizer_of(name), text)[0]
        ids = self.tokens(self.tokenizer_of(name), text, self.text_length)
        return ids[0] if name in self.learning_encoders else self.encoder(name)(ids)[0][0]

    def tokenizer_of(self, encoder: str) -> str:
        return list(self.TOKENIZERS)[list(self.ENCODERS).index(encoder)]

    @torch.no_grad()
    def chat_states(self, name: str, text: str, layers: Sequence[int], *, thinking: bool, pad: bool = False) -> Tensor:
        """[tokens, len(layers) x width]: the states behind these layers of a language model, side by side (0 is before the first, -1
        behind the last and its norm), for a text as a user's message to which the model is about to answer, with room to think or with
        none. Cut to `text_length` tokens; with `pad` there are always so many, of which the model sees the text's own alone."""
        tokenizer = self.tokenizer(self.tokenizer_of(name))
        message = [{"role": "user", "content": text}]
        words = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True, enable_thinking=thinking)
        return self.states_side_by_side(name, words, layers, pad=pad)

    @torch.no_grad()
    def states_side_by_side(self, name: str, words: str, layers: Sequence[int], *, pad: bool, bare: bool = False) -> Tensor:
        """The same for words that have their template already; `bare` where that has all tokens that mark its beginning."""
        tokenizer, padding = self.tokenizer(self.tokenizer_of(name)), "max_length" if pad else False
        options = {"add_special_tokens": False} if bare else {}
        found = tokenizer(words, padding=padding, max_length=self.text_length, truncation=True, return_tensors="pt", **options).to(
            self.device
        )
        return torch.cat(self.language_states(name, found["input_ids"], layers, found["attention_mask"]), dim=-1)

    @torch.no_grad()
    def language_states(self, name: str, ids: Tensor, layers: Sequence[int], mask: Tensor | None = None) -> list[Tensor]:
        """[tokens, width] for each of these layers of a language model that reads the ids [1, tokens]; of those, if there is a mask, the
        ones that it marks alone."""
        model, ids = self.encoder(name), ids.to(self.device)
        mask = torch.ones_like(ids) if mask is None else mask.to(self.device)
        states = model(input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False).hidden_states
        return [states[layer][0] for layer in layers]

    def t5_states(self, name: str, prepared: Tensor) -> Tensor:
        """[B, length, width] of a batch of prepared texts."""
        found = prepared.to(self.device)
        return self.encoder(name)(found)[0] if name in self.learning_encoders else found

    @abstractmethod
    def text_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the embeddings of one text, as `embed` gives them; of one that is as long as can be."""

    def latent_channels(self) -> int:
        return self.denoiser.config.in_channels // (4 if self.PACKED else 1)

    @abstractmethod
    def read(self, name: str, prepared: Tensor) -> Text:
        """What one encoder says of a batch of texts that are prepared for it; with gradients where it learns."""

    def join(self, read: Mapping[str, Text]) -> Text:
        """Embeddings, as the denoiser takes them, of what each encoder says."""
        return {name: tensor for said in read.values() for name, tensor in said.items()}

    def embed(self, prepared: Text) -> Text:
        """Embeddings of a batch of prepared texts."""
        return self.join({name: self.read(name, tensor) for name, tensor in prepared.items()})

    def embedded(self, text: Text) -> Text:
        """A batch of cached texts as the denoiser takes it: cached whole, or prepared, where text encoders learn."""
        return self.embed(text) if self.learning_encoders else text

    def guidance_input(self, count: int, device: torch.device) -> Tensor | None:
        """[B]: the guidance that a denoiser takes as an input, which was distilled into it; None for one without."""
        embeds = getattr(self.denoiser.config, "guidance_embeds", False)
        return torch.full((count,), self.settings.guidance, device=device, dtype=torch.float32) if embeds else None

    @abstractmethod
    def predict(self, noisy: Tensor, timesteps: Tensor, text: Text, sizes: Tensor) -> Tensor:
        """The denoiser's prediction for latents [B, C, h, w]; `sizes` is [B, 6]: height and width of the photo, top and
        left of the crop, height and width of the picture."""

    @abstractmethod
    def pipeline(self) -> Any:
        """A diffusers pipeline around `sampling_parts`: it is given embeddings, and draws latents."""

    @abstractmethod
    def prompt_options(self, text: Text, empty: Text, negative: Text | None = None) -> dict[str, Any]:
        """The embeddings of a prompt, of the empty text and of a negative prompt as a call of the pipeline takes them."""

    def latents_of(self, drawn: Tensor, height: int, width: int) -> Tensor:
        """[B, C, h, w] of what the pipeline gives as latents, for a picture of this size."""
        return patches.unpack(drawn, *patches.sides(height, width, self.latent_side)) if self.PACKED else drawn

    def bare_pipeline(self) -> Any:
        """A pipeline with the parts that learn and nothing else: enough to load a LoRA file into."""
        parts = dict.fromkeys(("vae", *self.ENCODERS, *self.TOKENIZERS, *self.OPTIONAL))
        parts |= {name: self.encoder(name) for name in self.learning_encoders} | {self.FOLDER: self.denoiser}
        return self.PIPELINE(**parts, scheduler=self.process.schedule)

    def sampling_parts(self) -> dict[str, Any]:
        """The parts that every pipeline takes, by the names that it gives them: the denoiser alone. Texts are embedded before,
        latents decoded after it, so that neither lies beside it."""
        return dict.fromkeys(("vae", *self.ENCODERS, *self.TOKENIZERS)) | {self.FOLDER: self.denoiser}

    def tokens(self, name: str, text: str, length: int | None = None) -> Tensor:
        """[1, length] token ids on the device, padded and cut to the tokenizer's own length where none is given."""
        tokenizer = self.tokenizer(name)
        found = tokenizer(text, padding="max_length", max_length=length or tokenizer.model_max_length, truncation=True, return_tensors="pt")
        return found.input_ids.to(self.device)


def flow_in_comfyui(vae: str, clip: Mapping[str, str], **others: Any) -> dict[str, Any]:
    """For `IN_TOOLS`: what a workflow of ComfyUI takes for a flow whose parts lie in files of their own; `others` are other than these."""
    usual = {"latent": "EmptySD3LatentImage", "sampler": "euler", "scheduler": "simple", "clip_loader": "CLIPLoader"}
    return {**usual, "vae": vae, "clip": clip, **others}


def stack_texts(texts: list[Text]) -> Text:
    """Several single texts as one batch; those of a language model may be of several lengths."""
    batch: Text = {}
    for name in texts[0]:
        found = [text[name] for text in texts]
        rows = [len(one) for one in found] if found[0].dim() > 1 else []
        if len(set(rows)) > 1:
            batch |= {name: torch.nn.utils.rnn.pad_sequence(found, batch_first=True), f"{name}_rows": torch.tensor(rows)}
        else:
            batch[name] = torch.stack(found)
    return batch


def send_text(text: Text, send: Callable[[Tensor], Tensor]) -> Text:
    """A batch of texts on the device that `send` sends to. The numbers of rows stay behind: they are read here, for which a card would
    have to be waited for."""
    return {name: tensor if name.endswith("_rows") else send(tensor) for name, tensor in text.items()}


def rows_of(text: Text, name: str) -> list[Tensor]:
    """The texts of a batch one by one, each with the rows that are its own."""
    rows = text.get(f"{name}_rows")
    return list(text[name]) if rows is None else [one[:count] for one, count in zip(text[name], rows.tolist(), strict=True)]


def mask_of(text: Text, name: str) -> Tensor | None:
    """[B, rows], true where a row is the text's own; None where all are."""
    rows = text.get(f"{name}_rows")
    if rows is None:
        return None
    place = torch.arange(text[name].shape[1], device=text[name].device)
    return place < rows.to(text[name].device, non_blocking=True)[:, None]
