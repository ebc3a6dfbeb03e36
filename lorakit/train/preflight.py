"""What is checked and said before any weights are loaded."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from lorakit import device
from lorakit.bases import families, layer_names, single_file
from lorakit.bases.folder import check_folder, is_distilled
from lorakit.bases.load import check_base_precision, check_numbers, compute_dtype
from lorakit.bases.purposes import purpose_of_file
from lorakit.bases.schedules import Diffusion
from lorakit.bases.tokens import cached_folder
from lorakit.console import say, typed, warn
from lorakit.errors import LorakitError
from lorakit.project import Project
from lorakit.project.catalog import check_family
from lorakit.project.project import HUB, is_on_hub
from lorakit.record import Record
from lorakit.settings import Train
from lorakit.text.words import count_word
from lorakit.train import batches, lora, optimizer, trackers, training_adapter
from lorakit.train.regularisation import regularisation_photos
from lorakit.weights import check_reachable, files_on_hub, has_index, hub_configs, is_split, no_diffusers_folder

DIFFUSION_ONLY = ("prediction", "zero_terminal_snr", "loss_weighting")
MOST_VISITS = 1_000_000  # of photos in one epoch
FLOW_ONLY = ("timestep_sampling", "flow_shift", "logit_mean", "logit_std")


def preflight(project: Project) -> list[Record]:
    """The records of the dataset, after all that can be known beforehand has been checked: the family, every picture
    and text on the disk, the trigger in every text. Raises `LorakitError` at the first thing that is wrong."""
    check_family(project.card)
    check_settings(project)
    lacks, source = check_single_file(project), project.base_source
    for line in of_weights(project):
        say(f"cache     {line}")
    if lacks:
        say(f"cache     {', '.join(lacks)}: not in {Path(source.location).name}, taken from {source.rest.location}")
    if says := prediction_in_words(project):
        say(f"cache     {Path(project.base_source.location).name} says of itself: {says}; it is trained so")
    photos = [r for r in project.manifest.selected if r.get("dataset")]
    if not photos:
        raise LorakitError(f"{project.folder}: no dataset to train on; `lorakit run -o {typed(project.folder)} --until dataset` makes one")
    check_repeats([*photos, *regularisation_photos(project)])
    for record in photos:
        picture = project.dataset_folder / record["dataset"]["file"]
        if not picture.is_file():
            raise LorakitError(f"{picture}: gone from the dataset; `lorakit run -o {typed(project.folder)}` writes it again")
        if not record["text"].strip():
            raise LorakitError(f"{record['file']}: has no words; give it a caption or a --trigger")
        if project.trigger and count_word(record["text"], project.trigger) != 1:
            raise LorakitError(f"{record['file']}: the trigger {project.trigger!r} does not stand once in its text: {record['text']!r}")
    if project.settings.train.masked_loss:
        check_masks(project, photos)
    if not project.trigger:
        warn("no --trigger: the LoRA will act on every prompt")
    return photos


def check_repeats(photos: list[Record]) -> None:
    """Raises `LorakitError` where an epoch would be too long to be laid out: a date in a folder's name read as its repeats."""
    if sum(record.get("repeats", 1) for record in photos) > MOST_VISITS:
        worst = max(photos, key=lambda record: record.get("repeats", 1))
        raise LorakitError(
            f"{worst['file']}: {worst['repeats']:,} repeats, by its folder's name, and more than {MOST_VISITS:,} in one epoch of all; "
            "give the folder another name"
        )


def check_masks(project: Project, photos: list[Record]) -> None:
    """Raises `LorakitError` when no photo has a mask, or one has nothing in it to learn. Photos without one are learned whole."""
    masked = [record for record in photos if record["dataset"].get("mask")]
    if not masked:
        raise LorakitError(
            f"train.masked_loss: none of the {len(photos)} photos has a mask; put photo_mask.png beside photo.jpg (white is learned), "
            "or use photos with a transparent background"
        )
    for record in masked:
        path = project.masks_folder / record["dataset"]["mask"]
        if not path.is_file():
            raise LorakitError(f"{path}: gone from the masks; `lorakit run -o {typed(project.folder)}` writes it again")
        with Image.open(path) as mask:
            if not mask.getextrema()[1] and not project.settings.train.mask_outside:
                raise LorakitError(
                    f"{record['file']}: its mask is black all over the crop; paint white what is to be learned, or remove it"
                )
    say(f"cache     masks of {len(masked)} photos of {len(photos)}; the others are learned whole")


def check_single_file(project: Project) -> list[str]:
    """The parts that weights in one file lack. Raises `LorakitError` when they are nowhere to be had, or the weights are
    those of another base."""
    source = project.base_source
    family = families.load(project.card.family)
    if not source.configs:
        folder = Path(source.location) if source.is_local else hub_configs(source)
        if folder and has_index(folder):
            check_folder(family, folder, project.card.name)
        elif folder and not source.is_local:
            if not any(folder.glob("*.safetensors")):
                check_reachable(source)  # else the index may only not have been fetched yet
            raise LorakitError(no_diffusers_folder(source.location))
        return []
    file = single_file.open_source(source, family.NAME)
    card = single_file.card_of(file)
    if project.card.name != card and any(project.card.name in layout.cards for layout in family.LAYOUTS):
        raise LorakitError(f"{source.location}: is {card}, by its layers; choose --base {card}, or weights of {project.card.title}")
    check_prediction(project.settings.train, file)
    lacks = [name for name in ("vae", *family.ENCODERS, *family.TOKENIZERS) if not file.has(name)]
    if lacks and source.rest is None:
        raise LorakitError(
            f"{source.location}: has no {', '.join(lacks)} in it; --set train.parts=FOLDER names a diffusers folder that has"
        )
    if lacks:
        check_reachable(source.rest)
    wanted = [*lacks, *([] if file.has("scheduler") else ["scheduler"])]
    if source.rest and source.rest.is_local and (absent := [name for name in wanted if not (Path(source.rest.location) / name).is_dir()]):
        raise LorakitError(
            f"{source.rest.location}: has no {', '.join(absent)} in it, nor has {file.path.name}; --set train.parts=FILES,FOLDER names where they are"
        )
    return lacks


def of_weights(project: Project) -> Iterator[str]:
    """What is to be known of the weights: the files that a base is split into, or that it is a distilled one."""
    source = project.base_source
    if source.configs:
        for part, other in single_file.open_source(source, project.card.family).beside.items():
            yield f"{part}: {other.path.name}"
        if what := purpose_of_file(Path(source.location).stem):
            yield f"warning: {Path(source.location).name} is {what}, by its name; its layers do not tell it from the plain base, which is the one to take"
        return
    folder = Path(source.location) if source.is_local else cached_folder(source.location)
    own = project.card.hub == source.location  # the card says it by itself
    if folder and is_distilled(folder) and not own and not project.settings.train.training_adapter:
        better = f"train on {project.card.hub} and use the LoRA on these" if project.card.hub else "take others"
        yield f"warning: {Path(source.location).name} is distilled, by its model_index.json, and training on it undoes that: {better}"


def check_prediction(train: Train, file: single_file.SingleFile) -> None:
    """Raises `LorakitError` when settings contradict what the file says of itself."""
    if file.prediction and train.prediction not in ("base", file.prediction):
        raise LorakitError(
            f"train.prediction = {train.prediction}: {file.path.name} says that it predicts {file.prediction}; --set train.prediction=base takes "
            "what the file says"
        )
    velocity = file.prediction == "v_prediction" or train.prediction == "v_prediction"
    if (train.zero_terminal_snr or file.zero_snr) and not velocity:
        who = "train.zero_terminal_snr" if train.zero_terminal_snr else f"{file.path.name} says zero terminal SNR"
        raise LorakitError(
            f"{who}: the base predicts the noise, of which pure noise teaches nothing; --set train.prediction=v_prediction if it does not"
        )


def prediction_in_words(project: Project) -> str:
    """'v_prediction, zero terminal SNR', where the base is a single file that says so; else empty."""
    source = project.base_source
    if not source.configs:
        return ""
    file = single_file.open_source(source, families.load(project.card.family).NAME)
    return ", ".join([*([file.prediction] if file.prediction else []), *(["zero terminal SNR"] if file.zero_snr else [])])


def check_settings(project: Project) -> None:
    """Raises `LorakitError` naming the first settings that fight each other or the base. Loads no weights."""
    for wrong, line in _fights(project):
        if wrong:
            raise LorakitError(line)
    if adapter := project.settings.train.training_adapter:
        training_adapter.read(training_adapter.path_of(adapter), project.card.family)
    optimizer.find_class(project.settings.train.optimizer)
    trackers.check(project.settings.train.log_with)
    where, train = project.device or device.available()[0], project.settings.train
    check_base_precision(train.base_precision, where)
    check_numbers(families.load(project.card.family), project.card.title, compute_dtype(train.precision, where))


def _fights(project: Project) -> Iterator[tuple[bool, str]]:
    train, export = project.settings.train, project.settings.export
    family = families.load(project.card.family)
    defaults = {field.name: field.default for field in dataclasses.fields(train)}
    step, name = family.PIXEL_STEP, project.card.name
    yield train.bucket_step % step != 0, f"train.bucket_step = {train.bucket_step}: {name} wants a multiple of {step}"
    others = FLOW_ONLY if family.PROCESS is Diffusion else DIFFUSION_ONLY
    what = "predicts noise" if family.PROCESS is Diffusion else "learns a flow"
    for key in others:
        yield getattr(train, key) != defaults[key], f"train.{key} = {getattr(train, key)}: of no use for {name}, which {what}; take it out"
    velocity = train.prediction != "epsilon"
    yield (
        train.zero_terminal_snr and not velocity,
        "train.zero_terminal_snr wants train.prediction=v_prediction: pure noise teaches no noise",
    )
    unshifted = train.timestep_sampling == "sigmoid"
    yield unshifted and train.flow_shift is not None, "train.flow_shift has no effect with timestep_sampling=sigmoid; take one of them out"
    larger = [size for size in train.other_resolutions if size >= train.resolution]
    yield (
        bool(larger),
        f"train.other_resolutions = {larger}: these are the smaller ones; train.resolution = {train.resolution} is the largest",
    )
    tiny = [size for size in train.other_resolutions if size < train.bucket_step]
    yield bool(tiny), f"train.other_resolutions = {tiny}: smaller than train.bucket_step = {train.bucket_step}"
    steps = train.steps or train.min_steps
    yield train.warmup_steps >= steps, f"train.warmup_steps = {train.warmup_steps}: as long as the training ({steps} steps); lower it"
    sentences = project.settings.caption.style == "sentences"
    yield (
        train.shuffle_tags and sentences,
        "train.shuffle_tags: the captions are sentences, which shuffling mixes up; use caption.style=tags",
    )
    yield (
        train.preservation > 0 and not project.trigger,
        "train.preservation keeps the base where the trigger is not said; give a --trigger",
    )
    yield (
        train.text_encoder and not family.encoders_that_learn(dataclasses.replace(train, t5=True)),
        f"train.text_encoder: the language model that reads {name}'s texts does not learn; take it out",
    )
    yield from lora.conflicts(train, export.format)
    yield from optimizer.conflicts(train)
    kept = train.swap_blocks > 0 and train.gradient_checkpointing == "off"
    yield kept, f"train.swap_blocks = {train.swap_blocks} wants train.gradient_checkpointing=on: without, autograd keeps every block"
    yield (
        train.compile and train.swap_blocks > 0,
        "train.compile and train.swap_blocks: blocks that come and go cannot be compiled; take one of them out",
    )
    yield (
        bool(train.parts) and not _lie_in_files(train.weights or ""),
        "train.parts is for weights in a single .safetensors, which may lack some; take it out",
    )
    yield train.mask_outside > 0 and not train.masked_loss, "train.mask_outside has no effect without train.masked_loss=true"
    dora_in_kohya = train.adapter == "dora" and export.format == "kohya"
    yield (
        dora_in_kohya and layer_names.is_fused(family.NAME),
        f"train.adapter=dora cannot be written as export.format=kohya for {name}; use auto",
    )


def _lie_in_files(weights: str) -> bool:
    if is_on_hub(weights):
        return files_on_hub(weights.removeprefix(HUB)) is not None
    return weights.endswith(".safetensors") or bool(weights and is_split(weights))


def say_plan(project: Project, photos: list[Record], steps: int, reg_photos: Sequence[Record] = ()) -> None:
    """The sizes of the training in a few lines: steps, what to know of the base, and photos per bucket."""
    settings = project.settings.train
    say(f"train     {plan_in_words(settings, photos, steps, bool(reg_photos))}; rank {settings.rank}, {project.card.title}")
    if reg_photos:
        share, weight = settings.regularisation_share, settings.regularisation_weight
        say(f"          {len(reg_photos)} regularisation photos in {share:.0%} of the batches, weight {weight:g}")
    if settings.training_adapter:
        say(f"          {Path(settings.training_adapter).name} is added to the base while training, and left out of samples and the file")
    if project.card.note:
        say(f"          {project.card.note}")
    sizes = Counter(tuple(r["crop"]["bucket"]) for r in (*photos, *reg_photos))
    say("          buckets " + ", ".join(f"{w}x{h}: {count}" for (w, h), count in sorted(sizes.items())))


def plan_in_words(settings: Train, photos: list[Record], steps: int, others: bool = False) -> str:
    """'6 photos x 2 repeats x 5.0 epochs / batch 3 = 20 steps'; with regularisation photos the steps are those of both."""
    repeats = sorted({record.get("repeats", 1) for record in photos})
    originals = len(photos) - sum(bool(record.get("view")) for record in photos)
    visits, batch = sum(record.get("repeats", 1) for record in photos), settings.batch_size * settings.gradient_accumulation
    an_epoch = len(batches.epoch(photos, settings.batch_size, settings.seed, 0))
    own = steps * (1 - settings.regularisation_share) if others else steps
    epochs = own * settings.gradient_accumulation / an_epoch
    often = f"{repeats[0]} repeat{'s' * (repeats[0] > 1)}" if len(repeats) == 1 else f"{repeats[0]}-{repeats[-1]} repeats ({visits} visits)"
    smaller = " (the buckets' last ones smaller)" if an_epoch * settings.batch_size != visits else ""
    beside = f" + {steps - own:.0f} of regularisation" if others else ""
    pictures = f"{originals} photos" if originals == len(photos) else f"{len(photos)} pictures of {originals} photos"
    return f"{pictures} x {often} x {epochs:.1f} epochs / batch {batch}{smaller} = {own:.0f} steps{beside}"
