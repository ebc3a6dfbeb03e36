"""Every setting of lorakit, its default and its meaning, and the layers that change it:
defaults here <- models/<base>.yaml <- pipelines/<kind>.yaml <- project.yaml <- command line."""

from __future__ import annotations

import dataclasses
import math
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, is_dataclass
from functools import cache, partialmethod
from types import UnionType
from typing import Any

import yaml

from lorakit import files, lookup
from lorakit.errors import LorakitError, UnknownName

TARGETS = ("attention", "mlp", "linear", "conv")
ADAPTERS = ("lora", "dora", "lokr", "loha")
SECRET = re.compile(r"(^|_)(api_?key|key|token|secret|password)$")  # names of what does not belong into a file
FLOW_SAMPLING = ("logit_normal", "uniform", "mode", "sigmoid")


def setting(
    default: Any,
    help: str,
    *,
    choices: tuple = (),
    least: float | None = None,
    most: float | None = None,
    neutral: Any = dataclasses.MISSING,
    stamped: Mapping[Any, Any] | None = None,
    why_not: Callable[[Any], str | None] | None = None,
) -> Any:
    """A dataclass field with its help sentence and the values that it may take; `why_not` says what is wrong with one.

    `neutral` is the value that means "as before this setting existed", and every setting added after 0.1.0 has one: stamps
    leave the setting out there, so that a finished project stays finished when lorakit is updated. It need not be the
    default: a new setting whose default changes the result does redo the stage, and should. `stamped` says what stood in
    stamps for a value before the setting got others.
    """
    facts = {"help": help, "choices": choices, "least": least, "most": most, "neutral": neutral, "stamped": stamped or {}}
    facts["why_not"] = why_not
    return field(default=default, metadata=facts)


def is_neutral(spec: dataclasses.Field, value: Any) -> bool:
    """Whether a setting has the value at which everything is as before the setting existed."""
    return spec.metadata.get("neutral", dataclasses.MISSING) == value


def in_stamp(spec: dataclasses.Field, value: Any) -> Any:
    stamped = spec.metadata.get("stamped")
    return stamped.get(value, value) if stamped else value


def for_stamp(section: Any) -> dict[str, Any]:
    """A section as stamps read it: {name: value}, without the settings that are neutral and sub-sections that only hold such."""
    facts = {}
    for spec in dataclasses.fields(section):
        value = getattr(section, spec.name)
        if not dataclasses.is_dataclass(value):
            if not is_neutral(spec, value):
                facts[spec.name] = in_stamp(spec, value)
        elif inner := for_stamp(value):
            facts[spec.name] = inner
    return facts


@dataclass(frozen=True)
class Scan:
    recursive: bool = setting(True, "look into sub-folders")
    roles: bool = setting(
        True, "folders of masks, samples, regularisation and control pictures are what their names say; false: all are photos", neutral=True
    )
    repeats: bool | None = setting(
        None,
        "kohya's 10_name folders say how often a photo is used; empty: only those of a set curated by hand (train FOLDER)",
        neutral=None,
    )


@dataclass(frozen=True)
class Dedupe:
    sure: int = setting(
        48, "bits of 256 up to which two perceptual hashes are of one picture, unless a place of it clearly differs", least=0, most=128
    )
    distance: int = setting(108, "up to so many, both photos are opened and laid over each other; at most 104 in sets of over 150 photos, 80 over 3000",
                            least=0, most=116)  # fmt: skip
    mirrored: bool = setting(True, "a mirrored or turned copy is a near duplicate too")
    keep_of_burst: int = setting(0, "photos to keep of a burst (one moment, seen nearly alike); 0 = all", least=0)
    burst_distance: int = setting(80, "bits of 256 within which two photos count as one moment", least=0, most=104)


@dataclass(frozen=True)
class Embed:
    clip: str | None = setting(None, "open_clip weights, a folder or hf-hub:owner/name, that see what photos show; empty: none")
    aesthetic: str | None = setting(None, ".safetensors of an aesthetic head for these weights; the more pleasing photos are chosen first")
    apart: float = setting(
        5.0, "robust standard deviations by which a photo may stand apart before it counts as another subject; 0 = never", least=0.0
    )
    same: float = setting(0.97, "cosine from which two photos show the same and get a warning", least=0.0, most=1.01)


@dataclass(frozen=True)
class Select:
    count: int | None = setting(None, "photos to train on; empty: every good one, up to the kind's number", least=1)
    most: int = setting(50, "the most photos this kind of LoRA gains from", least=1)
    least: int = setting(10, "the least photos this kind of LoRA can be made of; with fewer, that is said", least=1)
    wanted: int = setting(20, "the photos it wants; with fewer, that is said", least=1)
    everything: bool = setting(False, "take every readable photo whatever its verdict (a set curated by hand)")


@dataclass(frozen=True)
class Crop:
    max_aspect: float = setting(2.0, "longest bucket side over its shortest", least=1.0, most=4.0)
    max_upscale: float = setting(1.5, "how far a photo may be enlarged; smaller ones get a smaller bucket", least=1.0)
    borders: bool = setting(True, "leave out the borders that the check found")
    faces: bool = setting(True, "keep faces whole, where the check found some")


def why_no_tags(value: tuple[str, ...]) -> str | None:
    """Why a value is no list of tags."""
    wrong = next((tag for tag in value if "," in tag or not tag.strip()), None)
    return None if wrong is None else f"has {wrong!r}, and an entry is one tag, without commas"


@dataclass(frozen=True)
class Caption:
    captioner: str = setting("blip", "who writes the captions: see `lorakit captioners`")
    captioners: tuple[str, ...] = setting(
        (),
        "several that read each photo one after the other, in place of captioner: [wd_tagger, qwen3_vl]; with weights as {name: FOLDER}",
        neutral=(),
    )
    weights: str | None = setting(None, "folder with the captioner's weights; empty: its hub id")
    server: str | None = setting(None, "for captioner server: its address, such as http://127.0.0.1:11434/v1", neutral=None)
    model: str | None = setting(None, "for captioner server: the model there; empty: the only one that it has", neutral=None)
    precision: str = setting(
        "auto",
        "how a captioner's weights are held: bf16 as they are, int8 half of that, nf4 a quarter; auto: bf16 where the card's memory is enough",
        choices=("auto", "bf16", "int8", "nf4"),
        neutral="auto",
    )
    batch_size: int | None = setting(
        None, "photos captioned at once; empty: 8 on a CPU, 4 of a server, as many as should fit on a GPU", least=1
    )
    prompt: str | None = setting(
        None,
        "what the captioner is asked (chat models), begins with (blip), or its task (florence2); of several captioners the last one's; empty: its own",
    )
    prompt_tags: str | None = setting(None, "the same for bases that want tags; empty: prompt")
    prompt_mixed: str | None = setting(None, "the same for bases that want tags and sentences; empty: prompt")
    prompt_sentences: str | None = setting(None, "the same for bases that want sentences; empty: prompt")
    max_tokens: int | None = setting(
        None, "longest caption a model may write, in its own tokens; auto (empty): as long as the base reads", least=4, stamped={None: 75}
    )
    existing: str = setting(
        "keep",
        "captions beside the photos: kept, replaced, or joined by what the captioner reads",
        choices=("keep", "replace", "append", "prepend"),
    )
    several: str = setting(
        "readings",
        "several captions of yours for one photo: every visit of the training draws one of them, or the first alone is used",
        choices=("readings", "first"),
        neutral="readings",  # for photos with one caption both are as before; `stamps.other_captions` counts the others
    )
    embedded: bool = setting(
        False,
        "descriptions, else keywords, in the photos themselves (XMP, IPTC, EXIF) and in .xmp files are captions too, where none lies beside",
        neutral=False,
    )
    style: str = setting(
        "tags",
        "how the base wants its words; mixed: a sentence, then tags; both: tags, then sentences",
        choices=("tags", "mixed", "sentences", "both"),
    )
    tag_order: str = setting(
        "subject",
        "how tags alone are ordered; subject: it, its qualities, action, setting, light; booru: a tagger's counts, names and rest, as it has them",
        choices=("subject", "booru"),
        neutral="subject",
    )
    lead_tags: tuple[str, ...] = setting(
        (),
        "tags in front of every text that no person wrote, before the trigger: [score_9, score_8_up]; empty: none",
        neutral=(),
        why_not=why_no_tags,
    )
    quality_tags: tuple[str, ...] = setting(
        (), "the same behind the other tags: [masterpiece, best quality]; empty: none", neutral=(), why_not=why_no_tags
    )
    token_budget: int = setting(75, "tokens of a text that the base reads; more is cut at a phrase", least=8)
    omit: tuple[str, ...] = setting((), "families of words (lorakit/text/word_groups.yaml) that belong to what is taught and stay unsaid")
    omit_own: bool = setting(False, "leave these families out of captions that people wrote, too", neutral=False)
    omit_of_thing: tuple[str, ...] = setting(
        (), "families of words that stay unsaid where they describe the thing itself: the red of a red mug on red cloth"
    )
    describe: tuple[str, ...] = setting((), "families of words that pruning leaves alone")
    rules: tuple[str, ...] = setting((), "changes of words over the whole set, see `lorakit words`")
    strict: bool = setting(False, "a photo whose text has a fault is left out, with exit code 3")
    clip: str | None = setting(
        None, "open_clip weights that see facets and score how well each text fits its photo; empty: those of embed.clip"
    )
    min_facet: float = setting(
        0.6, "probability from which what open_clip sees (medium, framing, light, setting) is said; above 1 = never", least=0.0
    )
    min_agreement: float = setting(0.18, "cosine of open_clip below which a text gets a warning", least=-1.0, most=1.0)

    @property
    def readers(self) -> tuple[tuple[str, str | None], ...]:
        """(captioner, its weights or None) of each that reads the photos, in their order."""
        if not self.captioners:
            return ((self.captioner, self.weights),)
        return tuple(
            (name.strip(), None if weights in ("", "None") else weights)
            for name, _, weights in (entry.partition("=") for entry in self.captioners)
        )

    @property
    def question(self) -> str | None:
        """What the captioner is asked for the base's style; None: its own words."""
        asked = {"tags": self.prompt_tags, "mixed": self.prompt_mixed, "both": self.prompt_mixed, "sentences": self.prompt_sentences}
        return asked[self.style] or self.prompt


@dataclass(frozen=True)
class Trigger:
    word: str | None = setting(None, "the trigger word, put into every text exactly once")
    class_word: str | None = setting(None, "what the subject is: dog, woman, mug")
    teaches: str = setting("subject", "what the word stands for; a style reads `in the zwx style`", choices=("subject", "style"))


@dataclass(frozen=True)
class Dataset:
    format: str = setting("png", "pictures of the curated folder", choices=("png", "jpg"))


@dataclass(frozen=True)
class Cache:
    """Latents and text embeddings; nothing to set yet."""


@dataclass(frozen=True)
class Train:
    weights: str | None = setting(
        None, "the base: a diffusers folder, one .safetensors, or hf://owner/name; empty: the card's own or its hub id"
    )
    parts: str | None = setting(
        None,
        "what a single file lacks: text encoders and VAE as .safetensors, a diffusers folder or hf://owner/name; commas between; empty: the card's hub id",
    )
    training_adapter: str | None = setting(
        None, "a LoRA file that undoes a base's distillation: added while training, not in samples and the LoRA file", neutral=None
    )
    steps: int | None = setting(None, "optimizer steps; empty: steps_per_photo x photos, within min_steps..max_steps", least=1)
    steps_per_photo: int = setting(100, "for the rule of `steps`", least=1)
    min_steps: int = setting(1000, "for the rule of `steps`", least=1)
    max_steps: int = setting(8000, "for the rule of `steps`", least=1)
    rank: int = setting(32, "rank of the LoRA matrices", least=1)
    alpha: float | None = setting(None, "LoRA scale is alpha / rank; empty: alpha = rank", least=1e-6)
    targets: str = setting("linear", "which layers of the denoiser learn, each level with the ones before", choices=TARGETS)
    include: str | None = setting(None, "regular expression: of these layers only those whose name it finds")
    exclude: str | None = setting(None, "regular expression: and none whose name it finds")
    block_ranks: tuple[str, ...] = setting(
        (), "a table of regular expressions on layer names and their rank, or rank/alpha: {mid_block: 16/8}"
    )
    adapter: str = setting(
        "lora", "dora also learns each output's length (arXiv:2402.09353); lokr, loha: see docs/training.md", choices=ADAPTERS
    )
    lokr_factor: int = setting(-1, "for lokr: one side of the first Kronecker factor; -1: as square as it can be", least=-1)
    init: str = setting(
        "kaiming", "where LoRA starts: at zero, or at the weights' strongest directions", choices=("kaiming", "pissa", "olora")
    )
    hold_out: bool = setting(True, "about a tenth of the photos, of 8 and more, is watched and not trained on", neutral=True)
    validate_every: int | None = setting(
        None,
        "steps between validations, which the training does not feel; empty: a twentieth of it; 0 = none, and nothing is held out",
        least=0,
        neutral=None,
    )
    stop_early: bool = setting(False, "end where the validation has been worse for a quarter of the steps", neutral=False)
    keep_best: bool = setting(True, "the checkpoint of the best validation stays beside the last ones", neutral=True)
    from_lora: str | None = setting(
        None, "a LoRA file to start from, in any form; `--from-lora FILE` takes rank and targets from it", neutral=None
    )
    text_encoder: bool = setting(False, "the CLIP text encoders learn too")
    t5: bool = setting(False, "and so does T5 (SD3, FLUX): 10 GB more, for a part of the file that diffusers does not load")
    text_encoder_rate: float | None = setting(None, "their peak learning rate; empty: learning_rate. Half of that is usual", least=0.0)
    rank_stabilised: bool = setting(False, "scale by alpha / sqrt(rank) (rsLoRA, arXiv:2312.03732)")
    resolution: int = setting(512, "side of the square whose area the buckets share, in pixels", least=8)
    other_resolutions: tuple[int, ...] = setting((), "smaller resolutions that every picture is trained at too, such as [512, 768]")
    bucket_step: int = setting(64, "bucket sides are multiples of this, in pixels", least=8)
    batch_size: int = setting(1, "photos a step on the card", least=1)
    gradient_accumulation: int = setting(1, "batches an optimizer step", least=1)
    optimizer: str = setting(
        "adamw", "adamw, adafactor; adamw8bit, lion, prodigy, schedulefree (own packages); or any package.module.Class"
    )
    learning_rate: float = setting(1e-4, "peak learning rate; prodigy finds its own and wants 1", least=0.0)
    lora_plus_ratio: float = setting(1.0, "learning rate of LoRA's B over A's (LoRA+, arXiv:2402.12354); 16 is usual", least=1.0)
    lr_schedule: str = setting("cosine", "after the warm-up; wsd falls in the last fifth", choices=("cosine", "constant", "linear", "wsd"))
    warmup_steps: int = setting(0, "steps in which the rate rises from zero", least=0)
    weight_decay: float = setting(0.01, "of the optimizer", least=0.0)
    max_grad_norm: float = setting(1.0, "gradients are clipped to this norm; 0 = never", least=0.0)
    ema: float = setting(
        0.0, "decay of a running mean of the adapter, written instead of its last state; 0 = none, 0.99 is usual", least=0.0, most=0.9999
    )
    caption_dropout: float = setting(
        0.05, "share of visits with an empty text; with preservation, of those that stay the base's", least=0.0, most=1.0
    )
    preservation: float = setting(0.0, "weight of staying with the base where the trigger is not said; 1 is strong", least=0.0)
    regularisation: str | None = setting(None, "a folder of other photos of the class with captions, trained on between the photos")
    regularisation_share: float = setting(0.5, "share of the batches that are regularisation photos", least=0.01, most=0.9)
    regularisation_weight: float = setting(1.0, "weight of their loss", least=0.0)
    shuffle_tags: bool = setting(False, "train on each text's tags in several orders")
    keep_tags: int = setting(1, "tags that stay in front when others are shuffled or dropped", least=0)
    tag_dropout: float = setting(0.0, "share of the other tags left out of a reading; never the trigger", least=0.0, most=1.0)
    caption_variants: int = setting(8, "readings of each text that are cached when tags are shuffled or dropped", least=1)
    prediction: str = setting(
        "base", "what a DDPM base predicts; base: as its file or scheduler says", choices=("base", "epsilon", "v_prediction")
    )
    zero_terminal_snr: bool = setting(False, "rescale the schedule to end in pure noise (arXiv:2305.08891); needs v_prediction")
    masked_loss: bool = setting(False, "learn what a mask shows: photo_mask.png beside the photo, or its own transparency")
    mask_outside: float = setting(0.0, "weight of what lies outside the mask", least=0.0, most=1.0)
    loss: str = setting("mse", "huber forgives single large errors", choices=("mse", "huber"))
    loss_weighting: str = setting("none", "of timesteps, for DDPM bases", choices=("none", "min_snr", "debiased"))
    min_snr_gamma: float = setting(5.0, "for loss_weighting min_snr", least=0.01)
    noise_offset: float = setting(0.0, "shift of whole channels, for very dark and bright pictures; 0.05 is usual", least=0.0, most=1.0)
    multires_noise: float = setting(0.0, "weight of each coarser level of pyramid noise; 0.3 is usual", least=0.0, most=0.99)
    input_perturbation: float = setting(0.0, "extra noise in the input alone (arXiv:2301.11706); 0.1 is usual", least=0.0, most=1.0)
    timestep_sampling: str = setting("logit_normal", "for flow bases; sigmoid: unshifted", choices=FLOW_SAMPLING)
    logit_mean: float = setting(0.0, "for timestep_sampling logit_normal; above 0 is nearer noise")
    logit_std: float = setting(1.0, "for timestep_sampling logit_normal", least=0.01)
    flow_shift: float | None = setting(
        None, "pushes flow timesteps towards noise; empty: the base's own, by picture size on FLUX dev", least=0.01
    )
    guidance: float = setting(1.0, "guidance embedding that FLUX dev is trained with", least=0.0)
    seed: int = setting(42, "of the adapter, the order of photos, noise and timesteps", least=0)
    precision: str = setting("auto", "auto: bf16 or fp16 on a GPU, fp32 on a CPU", choices=("auto", "fp32", "bf16", "fp16"))
    base_precision: str = setting(
        "auto",
        "how the frozen base is held: bf16 as it is, fp8 half, nf4 a quarter of it; auto: bf16 (a single file in fp8 as it is) where the card's "
        "memory is enough",
        choices=("auto", "bf16", "fp8", "nf4"),
        neutral="auto",
    )
    encoder_precision: str = setting(
        "auto",
        "how T5 or a language model is held while texts are embedded: bf16 as it is, int8 half of that; auto: int8 where it does not fit the card. What fits in no way is brought layer by layer",
        choices=("auto", "bf16", "int8"),
        neutral="auto",
    )
    gradient_checkpointing: str = setting(
        "auto", "less memory for about a third more time; auto: where the card's memory asks for it", choices=("auto", "on", "off"),
        stamped={"auto": False, "off": False, "on": True},
    )  # fmt: skip
    swap_blocks: int = setting(
        0, "blocks of the base that wait in the machine's memory while others work; wants gradient_checkpointing", least=0, neutral=0
    )
    compile: bool = setting(
        False, "compile the base's repeated blocks: quicker steps after slow first ones; needs a C compiler", neutral=False
    )
    log_with: tuple[str, ...] = setting(
        (), "trackers that are told losses and samples beside metrics.jsonl: tensorboard, wandb, or another of accelerate's", neutral=()
    )
    checkpoint_every: int = setting(250, "steps between two checkpoints; 0 = only at the end", least=0)
    keep_checkpoints: int = setting(4, "older checkpoints are removed; 0 = keep all", least=0)

    @property
    def checkpoints_gradients(self) -> bool:
        """Swapped blocks want it, and nothing else where it is left to the machine."""
        return self.gradient_checkpointing == "on" or (self.gradient_checkpointing == "auto" and self.swap_blocks > 0)

    def planned_steps(self, photos: int) -> int:
        """`steps`, or steps_per_photo x photos within min_steps..max_steps, and those of the regularisation photos besides."""
        own = min(max(self.steps_per_photo * photos, self.min_steps), self.max_steps)
        return self.steps or math.ceil(own / (1 - self.regularisation_share) if self.regularisation else own)


@dataclass(frozen=True)
class Sample:
    every: int = setting(250, "steps between sample images while training; 0 = none", least=0)
    prompts: tuple[str, ...] = setting(
        (), "prompts, or a .txt file with one a line, with --n --w --h --d --s --g as sd-scripts reads them; empty: made from the captions"
    )
    count: int = setting(4, "sample prompts to make when none are given", least=1)
    steps: int = setting(25, "sampler steps", least=1)
    guidance: float = setting(7.0, "classifier-free guidance", least=0.0)
    seed: int = setting(1234, "fixed, so that samples of different steps compare", least=0)


@dataclass(frozen=True)
class Export:
    name: str | None = setting(None, "file name without ending; empty: trigger, kind and base", why_not=files.why_no_name)
    precision: str = setting("fp16", "of the written tensors", choices=("fp16", "bf16", "fp32"))
    format: str = setting("auto", "names in the file; auto: what most tools load for this base", choices=("auto", "kohya", "diffusers"))
    checkpoint: int | None = setting(
        None, "step whose checkpoint is exported and drawn with; empty: the last. `lorakit pick` wins over it", least=1, neutral=None
    )
    metadata: bool = setting(True, "write the header with trigger, settings and tags; without, only the tensors")


@dataclass(frozen=True)
class Report:
    thumbnail: int = setting(160, "side of the small pictures in the report, in pixels; chosen photos have twice", least=32)


@cache
def check_section() -> Any:
    """The `check` section: one sub-section per file of curate/checks, each that file's own `Settings`."""
    modules = {name: lookup.load(lookup.CHECKS, name) for name in lookup.names(lookup.CHECKS)}
    fields = [(name, module.Settings, field(default_factory=module.Settings)) for name, module in modules.items()]
    return dataclasses.make_dataclass("Check", fields, frozen=True, namespace={"__reduce__": partialmethod(_pickled, "check")})


def caption_section() -> type:
    """The `caption` section: what all captioners share, and one sub-section per file of caption/captioners that has `Settings`."""
    return _with_captioners(SECTIONS["caption"])


@cache
def _with_captioners(shared: type) -> type:
    having = [name for name in lookup.modules(lookup.CAPTIONERS) if lookup.defines(lookup.CAPTIONERS, name, "Settings")]
    own = {name: lookup.load(lookup.CAPTIONERS, name).Settings for name in having}
    for name, settings in own.items():
        _check_own_settings(name, settings)
    fields = [(name, settings, field(default_factory=settings)) for name, settings in own.items()]
    made = {"__reduce__": partialmethod(_pickled, "caption")}
    return dataclasses.make_dataclass("Caption", fields, bases=(shared,), frozen=True, namespace=made)


def _pickled(self: Any, section: str) -> tuple:
    """For another process, which knows neither a section that was put together here nor the files of plug-ins by name."""
    values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
    return _put_together, (section, {name: vars(value) if is_dataclass(value) else value for name, value in values.items()})


def _put_together(section: str, values: dict[str, Any]) -> Any:
    made = SUBSECTIONS[section]()
    parts: dict[str, Any] = {f.name: f.type for f in dataclasses.fields(made) if is_dataclass(f.type)}
    return made(**{name: parts[name](**value) if name in parts else value for name, value in values.items()})


def _check_own_settings(captioner: str, settings: type) -> None:
    """A captioner's settings must not hide shared ones, and must not hold what may not stand in project.yaml."""
    if captioner in {f.name for f in dataclasses.fields(Caption)}:
        raise LorakitError(f"captioner {captioner}: caption.{captioner} is a setting of all captioners; give the file another name")
    if secret := next((f.name for f in dataclasses.fields(settings) if SECRET.search(f.name)), None):
        raise LorakitError(
            f"captioner {captioner}: caption.{captioner}.{secret} would be written into project.yaml; let the environment hold it, "
            "in the variable that CARD.secret names"
        )


SUBSECTIONS = {"check": check_section, "caption": caption_section}  # sections of which plug-ins bring parts
SECTIONS = {
    "scan": Scan, "dedupe": Dedupe, "embed": Embed, "select": Select, "crop": Crop, "caption": Caption, "trigger": Trigger,
    "dataset": Dataset, "cache": Cache, "train": Train, "sample": Sample, "export": Export, "report": Report,
}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """Resolved settings, one attribute per stage, and for every dotted key the layer that its value came from."""

    scan: Scan
    check: Any
    dedupe: Dedupe
    embed: Embed
    select: Select
    crop: Crop
    caption: Caption
    trigger: Trigger
    dataset: Dataset
    cache: Cache
    train: Train
    sample: Sample
    export: Export
    report: Report
    origin: Mapping[str, str] = field(repr=False, default_factory=dict)

    def flat(self) -> dict[str, Any]:
        """{'train.rank': 32, ...} for every key, in reading order."""
        return {key: _get(self, key) for key in known_keys()}

    def flat_for_stamp(self) -> dict[str, Any]:
        """The same without the settings that are neutral."""
        specs = {key: spec for key, (spec, _) in known_keys().items()}
        return {key: in_stamp(specs[key], value) for key, value in self.flat().items() if not is_neutral(specs[key], value)}


@cache
def known_keys() -> dict[str, tuple[dataclasses.Field, Any]]:
    """Every dotted key with its dataclass field and its type."""
    keys: dict[str, tuple[dataclasses.Field, Any]] = {}
    for section in (f.name for f in dataclasses.fields(Settings) if f.name != "origin"):
        whole = SUBSECTIONS[section]() if section in SUBSECTIONS else SECTIONS[section]
        keys |= _keys_of(section, whole)
    return keys


def _keys_of(prefix: str, section: type) -> dict[str, tuple[dataclasses.Field, Any]]:
    types, keys = typing.get_type_hints(section), {}
    for f in dataclasses.fields(section):
        if dataclasses.is_dataclass(types[f.name]):
            keys |= _keys_of(f"{prefix}.{f.name}", types[f.name])
        else:
            keys[f"{prefix}.{f.name}"] = (f, types[f.name])
    return keys


def resolve(layers: list[tuple[str, Mapping]]) -> Settings:
    """Lay `layers` (name, nested or dotted mapping) over the defaults, last one on top.

    Raises `UnknownName` for a key that does not exist and `LorakitError` for a value that it cannot take.
    """
    values = {key: f.default for key, (f, _) in known_keys().items()}
    origin = dict.fromkeys(values, "default")
    for layer, mapping in layers:
        for key, value in flatten(mapping).items():
            values[key] = convert(key, value, layer)
            origin[key] = layer
    return _build(values, origin)


def flatten(mapping: Mapping, prefix: str = "") -> dict[str, Any]:
    """{'train': {'rank': 8}} and {'train.rank': 8} both become {'train.rank': 8}."""
    flat: dict[str, Any] = {}
    for key, value in mapping.items():
        if isinstance(value, Mapping) and f"{prefix}{key}" not in known_keys():  # a setting may itself be a table
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def parse_assignments(words: typing.Iterable[str]) -> dict[str, Any]:
    """`--set` words such as 'train.rank=16' as a mapping; values are read as YAML."""
    pairs = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key.strip():
            raise LorakitError(f"--set {word!r}: write it as key=value, for example --set train.rank=16")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        pairs[key.strip()] = convert(key.strip(), value, "--set")
    return pairs


def convert(key: str, value: Any, where: str) -> Any:
    """`value` as the type of setting `key`. Raises when the key is unknown or the value does not fit."""
    if key not in known_keys():
        raise UnknownName("setting", key, list(known_keys()), where)
    spec, wanted = known_keys()[key]
    if isinstance(value, bool) and "on" in spec.metadata.get("choices", ()):  # which is also what YAML makes of a bare on
        value = "on" if value else "off"
    if value == "auto" and type(None) in typing.get_args(wanted) and str not in typing.get_args(wanted):
        value = None  # what is left to lorakit is empty
    try:
        converted = _as_type(value, wanted)
    except (TypeError, ValueError, OverflowError):  # the last of a whole number that is .inf
        raise LorakitError(f"{where}: {key} = {value!r} is not {_type_words(wanted)} ({spec.metadata['help']})") from None
    _check_range(key, converted, spec.metadata, where)
    return converted


def _check_range(key: str, value: Any, meta: Mapping, where: str) -> None:
    choices, least, most, why_not = meta["choices"], meta["least"], meta["most"], meta["why_not"]
    if choices and value not in choices:
        raise LorakitError(f"{where}: {key} = {value!r}; choose one of {', '.join(choices)}")
    if value is not None and least is not None and not value >= least:
        raise LorakitError(f"{where}: {key} = {value!r} is too small, at least {least:g} ({meta['help']})")
    if value is not None and most is not None and not value <= most:
        raise LorakitError(f"{where}: {key} = {value!r} is too large, at most {most:g} ({meta['help']})")
    if value is not None and why_not and (fault := why_not(value)):
        raise LorakitError(f"{where}: {key} = {value!r} {fault} ({meta['help']})")


def _as_type(value: Any, wanted: Any) -> Any:
    if typing.get_origin(wanted) in (UnionType, typing.Union):
        if value is None:
            return None
        wanted = next(t for t in typing.get_args(wanted) if t is not type(None))
    if typing.get_origin(wanted) is tuple:
        value = [f"{key}={entry}" for key, entry in value.items()] if isinstance(value, Mapping) else value
        entry = typing.get_args(wanted)[0]
        return tuple(_as_type(v, entry) for v in (value if isinstance(value, (list, tuple)) else [value]))
    if value is None or isinstance(value, (list, tuple, Mapping)) or (isinstance(value, bool) and wanted is not bool):
        raise TypeError
    if wanted is bool and not isinstance(value, bool):
        raise TypeError
    if wanted is int and float(value) != int(float(value)):
        raise ValueError
    return int(float(value)) if wanted is int else wanted(value)


def _type_words(wanted: Any) -> str:
    text = str(wanted)
    if "tuple[int" in text:
        return "a list of whole numbers"
    words = {"tuple": "a list", "int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}
    return next((words[name] for name in words if name in text), text)


def _build(values: dict[str, Any], origin: dict[str, str]) -> Settings:
    sections = SECTIONS | {name: whole() for name, whole in SUBSECTIONS.items()}
    return Settings(origin=origin, **{name: _section(section, name, values) for name, section in sections.items()})


def _section(section: type, prefix: str, values: dict[str, Any]) -> Any:
    parts = {}
    for f in dataclasses.fields(section):
        key = f"{prefix}.{f.name}"
        parts[f.name] = values[key] if key in values else _section(typing.cast("type", f.type), key, values)
    return section(**parts)


def _get(settings: Settings, key: str) -> Any:
    value: Any = settings
    for part in key.split("."):
        value = getattr(value, part)
    return value
