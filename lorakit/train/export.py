"""Stage export: writes the LoRA as a kohya-named `.safetensors` with alpha and metadata, and reads it back to prove it."""

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
from lorakit.console import say
from lorakit.errors import LorakitError
from lorakit.project import Project
from lorakit.runs import Run
from lorakit.train import checkpoint, lora
from lorakit.train.families.base import Family
from lorakit.train.load import load_family
from lorakit.train.sample import trained_run

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def export(project: Project) -> Run:
    """Write `<name>.safetensors` into the run folder, and check that what is read back is what was trained.

    Raises `LorakitError` when a module is missing in the file or its weight change differs from the trained one.
    """
    run = trained_run(project)
    stamp = stamps.export(project)
    if run.is_done("export", stamp) and run.lora:
        return run
    adapter = checkpoint.load_adapter(run, checkpoint.all_steps(run)[-1])
    alpha = lora.alpha_of(project.settings.train)
    tensors = kohya_tensors(adapter, alpha, load_family(project), DTYPES[project.settings.export.precision])
    path = run.folder / f"{file_name(project)}.safetensors"
    metadata = make_metadata(project, run, tensors, path.stem)
    files.write_whole(path, lambda part: save_file(tensors, part, metadata=metadata))
    modules = check_file(path, adapter, alpha)
    run.finish("export", stamp, lora=path.name, modules=modules, bytes=path.stat().st_size)
    say(f"export    {modules} modules, {path.stat().st_size / 2**20:.1f} MB, read back and equal to the trained ones")
    return run


def kohya_tensors(adapter: dict[str, Tensor], alpha: float, family: Family, dtype: torch.dtype) -> dict[str, Tensor]:
    """peft's `<module>.lora_A/lora_B.weight` as kohya's `<name>.lora_down/lora_up.weight` and `<name>.alpha`."""
    tensors = {}
    for key, value in adapter.items():
        module, part = key.removesuffix(".weight").rsplit(".", 1)
        name = family.kohya_name(module)
        tensors[f"{name}.{'lora_down' if part == 'lora_A' else 'lora_up'}.weight"] = value.to(dtype).contiguous()
        tensors[f"{name}.alpha"] = torch.tensor(alpha, dtype=dtype)
    return tensors


def check_file(path: Path, adapter: dict[str, Tensor], alpha: float) -> int:
    """Hold the weight change of every module in the file against the trained one; returns how many modules there are.

    Both sides are up @ down * alpha / rank; they may differ by the rounding of the file's precision."""
    written = load_file(path)
    names = sorted({key.rsplit(".lora_A", 1)[0] for key in adapter if ".lora_A" in key})
    changes = {name: _change(adapter[f"{name}.lora_A.weight"], adapter[f"{name}.lora_B.weight"], alpha) for name in names}
    in_file = {key.removesuffix(".lora_down.weight") for key in written if key.endswith(".lora_down.weight")}
    if len(in_file) != len(names) or len(written) != 3 * len(names):
        raise LorakitError(f"{path}: {len(in_file)} modules in the file, {len(names)} were trained; please report this")
    for name in names:
        stem = next((s for s in in_file if s.endswith(name.replace(".", "_"))), None)
        if stem is None:
            raise LorakitError(f"{path}: module {name} is missing in the file; please report this")
        found = _change(written[f"{stem}.lora_down.weight"], written[f"{stem}.lora_up.weight"], float(written[f"{stem}.alpha"]))
        if not torch.allclose(found, changes[name], rtol=1e-2, atol=1e-2 * float(changes[name].abs().max()) + 1e-7):
            raise LorakitError(f"{path}: module {name} differs from the trained one; please report this")
    return len(names)


def _change(down: Tensor, up: Tensor, alpha: float) -> Tensor:
    down, up = down.float().flatten(1), up.float().flatten(1)
    return up @ down * (alpha / down.shape[0])


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
        "ss_network_alpha": lora.alpha_of(train),
        "ss_resolution": f"({train.resolution}, {train.resolution})",
        "ss_num_train_images": sum(r.get("repeats", 1) for r in photos),
        "ss_steps": run.facts["result"]["steps"],
        "ss_learning_rate": train.learning_rate,
        "ss_lr_scheduler": train.lr_schedule,
        "ss_batch_size_per_device": train.batch_size,
        "ss_gradient_accumulation_steps": train.gradient_accumulation,
        "ss_seed": train.seed,
        "ss_v2": False,
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
