"""Stage export: writes the LoRA file that most tools load, with its metadata, and reads it back as they do."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections import Counter
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import lorakit
from lorakit import files, stamps
from lorakit.console import say, warn
from lorakit.errors import LorakitError
from lorakit.project import Project
from lorakit.runs import Run
from lorakit.train import checkpoint, formats, lora, names, verify
from lorakit.train.families.base import Family
from lorakit.train.formats import Delta, Network
from lorakit.train.load import load_family
from lorakit.train.sample import trained_run

ROUNDING = 1e-2  # relative; bf16 keeps 8 bits of each factor
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def export(project: Project) -> Run:
    """Write `<name>.safetensors` into the run folder, and check that what the tools read back is what was trained.

    Raises `LorakitError` when a layer is missing in the file, its weight change differs from the trained one, or a tool
    that knows this base would not load all of it.
    """
    run = trained_run(project)
    stamp = stamps.export(project)
    if run.is_done("export", stamp) and run.lora:
        return run
    settings, family = project.settings.export, load_family(project)
    adapter = checkpoint.load_adapter(run, checkpoint.all_steps(run)[-1])
    network = formats.from_peft(adapter, lora.file_alpha(project.settings.train), family.FOLDER)
    tensors = formats.write(network, family.NAME, file_format(project, family), DTYPES[settings.precision])
    path = run.folder / f"{file_name(project)}.safetensors"
    metadata = make_metadata(project, run, tensors, path.stem) if settings.metadata else None
    files.write_whole(path, lambda part: save_file(tensors, part, metadata=metadata))
    check_file(path, network, family.NAME)
    check_in_diffusers(path, network, family)
    loaded = check_tools(path, family.NAME, chosen=settings.format != "auto")
    run.finish("export", stamp, lora=path.name, modules=len(network), bytes=path.stat().st_size, loaded=loaded)
    counts = ", ".join(f"{tool} {count}" for tool, count in loaded.items())
    say(f"export    {len(network)} modules, {path.stat().st_size / 2**20:.1f} MB, read back equal; keys loaded: {counts} of {len(tensors)}")
    return run


def file_format(project: Project, family: Family) -> str:
    chosen = project.settings.export.format
    return family.FORMAT if chosen == "auto" else chosen


def check_file(path: Path, network: Network, family: str) -> None:
    """Hold the weight change of every layer in the file against the trained one; they may differ by the file's rounding."""
    found = formats.read(load_file(path), family)
    if found.keys() != network.keys():
        missing = sorted(network.keys() ^ found.keys())
        raise LorakitError(f"{path}: {len(missing)} layers are not as trained, the first {missing[0]}; please report this")
    for name, delta in network.items():
        check_change(path, name, found[name].change(), delta)


def check_change(path: Path, name: str, found: Tensor, trained: Delta) -> None:
    wanted = trained.change()
    if (found - wanted).norm() > ROUNDING * wanted.norm() + 1e-7:
        raise LorakitError(f"{path}: layer {name} differs from the trained one; please report this")


def check_in_diffusers(path: Path, network: Network, family: Family) -> None:
    """Load the file as a user of diffusers does, and hold every layer's weight change against the trained one."""
    with safe_open(path, "pt") as file:
        if any(key.endswith(".dora_scale") for key in file.keys()):
            return  # diffusers leaves these out; `check_tools` says so
    pipeline = family.bare_pipeline()
    pipeline.load_lora_weights(path.parent, weight_name=path.name, adapter_name="exported")  # offline, older diffusers want both
    loaded = {name: module for name, module in family.denoiser.named_modules() if "exported" in getattr(module, "lora_A", {})}
    inner = {name.removeprefix(f"{family.FOLDER}."): delta for name, delta in network.items()}
    if loaded.keys() != inner.keys():
        raise LorakitError(f"{path}: diffusers loads {len(loaded)} layers of {len(inner)}; please report this")
    for name, module in loaded.items():
        down, up = module.lora_A["exported"].weight, module.lora_B["exported"].weight
        change = up.detach().float().flatten(1) @ down.detach().float().flatten(1) * module.scaling["exported"]
        check_change(path, name, change.cpu(), inner[name])
        wanted = inner[name].magnitude
        if wanted is not None and not torch.allclose(module.lora_magnitude_vector["exported"].weight.cpu().flatten(), wanted.flatten(), rtol=1e-2):
            raise LorakitError(f"{path}: layer {name} has other DoRA lengths in diffusers; please report this")
    family.denoiser.delete_adapters("exported")


def check_tools(path: Path, family: str, chosen: bool) -> dict[str, int]:
    """{tool: keys that it loads}. Raises when a tool that knows the base leaves keys out, unless the format was `chosen`
    or is one that this tool has no way to read."""
    _, judgements = verify.judge_file(path, family=family)
    for judgement in judgements:
        knows_base = family in verify.SUPPORTED.get(judgement.tool, names.FAMILIES)
        if knows_base and not judgement.is_whole:
            text = " ".join(line.strip() for line in verify.in_words(judgement))
            if not chosen and not any("DoRA" in why for why in judgement.skipped.values()):
                raise LorakitError(f"{path}: {text}; please report this")
            warn(text)
    return {judgement.tool: len(judgement.loaded) for judgement in judgements}


def file_name(project: Project) -> str:
    if project.settings.export.name:
        return project.settings.export.name.removesuffix(".safetensors")
    words = [project.trigger or project.folder.name, project.kind.name, project.card.name]
    return re.sub(r"[^\w.-]+", "_", "_".join(words)).strip("._")


def make_metadata(project: Project, run: Run, tensors: dict[str, Tensor], name: str) -> dict[str, str]:
    """The header that A1111, Forge, ComfyUI's managers and model sites read: kohya's `ss_*` and `sshs_*` names and
    ModelSpec 1.0.1. Names only, never a path of this machine."""
    train = project.settings.train
    photos = [r for r in project.manifest.selected if r.get("dataset")]
    hash = tensor_hash(tensors)
    folder = f"1_{project.trigger or project.kind.name}"
    began = (run.folder / "settings.yaml").stat().st_mtime
    metadata = {
        **project.card.metadata,
        "ss_output_name": name,
        "ss_network_module": "networks.lora",
        "ss_network_dim": train.rank,
        "ss_network_alpha": lora.file_alpha(train),
        "ss_resolution": f"({train.resolution}, {train.resolution})",
        "ss_num_train_images": sum(r.get("repeats", 1) for r in photos),
        "ss_steps": run.facts["result"]["steps"],
        "ss_learning_rate": train.learning_rate,
        "ss_lr_scheduler": train.lr_schedule,
        "ss_batch_size_per_device": train.batch_size,
        "ss_gradient_accumulation_steps": train.gradient_accumulation,
        "ss_seed": train.seed,
        "ss_v2": False,
        "ss_network_args": {"adapter": train.adapter, "targets": train.targets},
        "ss_noise_offset": train.noise_offset,
        "ss_min_snr_gamma": train.min_snr_gamma if train.loss_weighting == "min_snr" else "",
        "ss_training_started_at": began,
        "ss_training_finished_at": run.metrics.stat().st_mtime,
        "ss_tag_frequency": {folder: tag_frequency([r["text"] for r in photos])},
        "ss_dataset_dirs": {folder: {"n_repeats": 1, "img_count": len(photos)}},
        "ss_bucket_info": bucket_info(photos),
        "sshs_model_hash": hash,
        "sshs_legacy_hash": hash[:8],
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.title": name,
        "modelspec.description": f"{project.kind.title} LoRA of {len(photos)} photos for {project.card.title}",
        "modelspec.author": "",
        "modelspec.date": time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(began)),
        "modelspec.resolution": f"{train.resolution}x{train.resolution}",
        "modelspec.hash_sha256": f"0x{hash}",
        "modelspec.trigger_phrase": trigger_phrase(project),
        "modelspec.usage_hint": f"write {trigger_phrase(project)!r} into the prompt; begin at strength 0.7" if project.trigger else "",
        "modelspec.tags": f"{project.kind.name},lora",
        "lorakit_version": lorakit.__version__,
    }
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items() if value != ""}


def trigger_phrase(project: Project) -> str:
    trigger = project.settings.trigger
    if trigger.teaches == "style" and trigger.word:
        return trigger.word if "style" in trigger.word.lower() else f"{trigger.word} style"
    return " ".join(word for word in (trigger.word, trigger.class_word if trigger.word else None) if word)


def tag_frequency(texts: list[str]) -> dict[str, int]:
    """How often each comma-separated part stands in the texts, the most frequent first."""
    parts = Counter(part.strip() for text in texts for part in text.split(",") if part.strip())
    return dict(parts.most_common())


def bucket_info(photos: list[dict]) -> dict:
    sizes = Counter(tuple(r["crop"]["bucket"]) for r in photos)
    return {"buckets": {str(i): {"resolution": list(size), "count": count} for i, (size, count) in enumerate(sorted(sizes.items()))}}


def tensor_hash(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over the part of the file that follows the safetensors header, as `sshs_model_hash` is defined."""
    from safetensors.torch import save

    data = save(tensors)
    start = 8 + int.from_bytes(data[:8], "little")
    return hashlib.sha256(data[start:]).hexdigest()


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file."""
    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}
