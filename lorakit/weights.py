"""Where model weights come from: a folder that is given, a folder beside the card, one built here, or a hub id."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from lorakit.errors import LorakitError, WeightsMissing

SHOWN = 3  # names of tensors that an error line gives
SPLIT = ("diffusion_models", "text_encoders", "vae")  # ComfyUI's folders
EDGE = 1 << 16  # bytes read at both ends of a weight file to tell it from another


INDEX = ("model_index.json", "modular_model_index.json")  # of a diffusers folder; the second where the pipeline is one of blocks


@dataclass(frozen=True)
class Source:
    """`location` is what `from_pretrained` takes: a folder's path or a hub id."""

    location: str
    is_local: bool
    title: str = ""
    size_gb: float = 0.0
    option: str = "--weights "  # how a user names a folder instead
    otherwise: str = ""  # what else a user can do
    configs: str = ""  # where the configurations of a single file lie, or will be written
    files: tuple[str, ...] = ()  # further .safetensors of a base that lies in several: text encoders, VAE
    rest: Source | None = None  # what these lack
    built: str = ""  # name and version of weights that are built on this machine
    marker: str = "model_index.json"  # the file that every folder of such weights has


@lru_cache(maxsize=16)
def check_reachable(source: Source) -> None:
    """Raises `WeightsMissing` when a hub id is neither in the cache nor to be found on the hub. Loads nothing."""
    if source.is_local:
        return
    if not source.location:
        raise WeightsMissing(f"{source.title}: no place on the hub is known for it; give its .safetensors with {source.option}FILE")
    from huggingface_hub import HfApi, try_to_load_from_cache

    markers = INDEX if source.marker in INDEX else (source.marker,)
    if any(isinstance(try_to_load_from_cache(source.location, marker), str) for marker in markers):
        return
    try:
        HfApi().model_info(source.location, timeout=10)
    except Exception as error:  # offline mode, no network, no such repository, gated: each with the hub's own words
        raise WeightsMissing(missing_line(source, error)) from error


def hub_configs(source: Source) -> Path | None:
    """A folder with the configurations of a base of the hub, which are fetched (kilobytes) where they are not here yet, and whatever
    else of it is in the cache. None where there is no getting them, which loading says in full."""
    if not source.location:
        return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return Path(snapshot_download(source.location, allow_patterns=[*INDEX, "*/config.json"]))
    except (OSError, HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled):
        return None


def has_index(folder: Path) -> bool:
    """Whether a folder says of itself, as diffusers' do, that it holds a base."""
    return any((folder / name).is_file() for name in INDEX)


def weights_folder(source: Source, part: str) -> Path:
    """The folder of a part's configuration and safe weights; from the hub only these are fetched, where they are not there yet."""
    if source.is_local:
        return Path(source.location) / part
    from huggingface_hub import snapshot_download

    wanted = [f"{part}/*.json", f"{part}/*.safetensors"]
    whole = snapshot_download(source.location, allow_patterns=wanted, ignore_patterns=["*.fp16.*", "*.non_ema.*"])
    return Path(whole) / part


def local_folder(path: str | Path, marker: str, option: str) -> Path:
    """A folder that a user gave as weights. Raises a one-line error when it is not one."""
    folder = Path(path).expanduser()
    if folder.suffix in (".ckpt", ".bin", ".pt", ".pth"):
        raise LorakitError(f"{option} {folder}: pickled weights can run code and are refused; use a .safetensors version")
    if folder.suffix == ".gguf":
        raise LorakitError(f"{option} {folder}: GGUF is quantised; a LoRA is trained on the fp16 or bf16 version, as .safetensors")
    if folder.is_file():
        raise LorakitError(f"{option} {folder}: a file, not a folder; give a folder with {marker} in it")
    if not folder.is_dir():
        raise LorakitError(f"{option} {folder}: no such folder")
    if marker and not ((folder / marker).is_file() or (marker in INDEX and has_index(folder))):
        raise LorakitError(f"{option} {folder}: no {marker} in it, so it is no folder of such weights; give the folder that holds it")
    return folder.resolve()


def local_base(
    path: str | Path, configs: Path, title: str, size_gb: float, rest: Source | None = None, files: Iterable[str | Path] = ()
) -> Source:
    """A base that a user gave: a diffusers folder; a single `.safetensors`, beside which `files` have further parts; or a folder in which
    ComfyUI's `diffusion_models/`, `text_encoders/` and `vae/` are. What is in none of these `rest` has."""
    place = Path(path).expanduser()
    if is_split(place):
        place, *found = split_files(place)
        files = [*found, *files]
    if place.suffix == ".safetensors" and place.is_file():
        further = tuple(os.path.abspath(Path(file).expanduser()) for file in files)  # links stay: in the hub's cache they have the names
        return Source(os.path.abspath(place), True, title, size_gb, configs=str(configs), files=further, rest=rest)
    return Source(str(local_folder(place, "model_index.json", "--weights")), True, title, size_gb)


def files_on_hub(name: str) -> Path | None:
    """Where the hub's cache has `owner/name/FILE.safetensors`, or all that was fetched of a repository that is split as ComfyUI's are; None for
    a diffusers repository, or one of which nothing is here. Raises `LorakitError` for a file that is not here."""
    from huggingface_hub import snapshot_download, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    owner, _, rest = name.partition("/")
    repository, _, file = rest.partition("/")
    try:
        if file:
            found = try_to_load_from_cache(f"{owner}/{repository}", file)
            if isinstance(found, str):
                return Path(found)
            raise LorakitError(
                f"--weights hf://{name}: not on this machine; `hf download {owner}/{repository} {file}` fetches it, then the same again"
            )
        folder = Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    return folder if is_split(folder) else None


def no_diffusers_folder(name: str) -> str:
    """Why a repository of the hub that has no index is of no use as it is, and what is to be done, in a line."""
    return (
        f"--weights hf://{name}: has no {INDEX[0]}, so it is no diffusers repository. Of one with single files `hf download {name} FILE` fetches "
        f"one for --weights hf://{name}/FILE; of one that is split as ComfyUI's are ({SPLIT[0]}/, {SPLIT[1]}/, {SPLIT[2]}/) those of one base, "
        "and then the same again"
    )


def is_split(path: str | Path) -> bool:
    """Whether a folder has a base that is split as ComfyUI does."""
    folder = Path(path).expanduser()
    return not has_index(folder) and any((place / SPLIT[0]).is_dir() for place in (folder, folder / "split_files"))


def split_files(folder: Path) -> list[Path]:
    """The files of such a base, the denoiser first. Raises `LorakitError` where there are several denoisers: the folder is ComfyUI's own
    then, with many bases in it, or a repository with one base in several precisions."""
    inside = next(place for place in (folder, folder / "split_files") if (place / SPLIT[0]).is_dir())
    found = [sorted((inside / name).glob("*.safetensors")) for name in SPLIT]
    if len(found[0]) != 1:
        names = _some([path.name for path in found[0]]) or "no .safetensors"
        raise LorakitError(
            f"--weights {folder}: {names} in {SPLIT[0]}, and one is wanted; give the file itself, and the others with "
            "--set train.parts=ENCODER.safetensors,VAE.safetensors"
        )
    return [path for files in found for path in files]


def identity(source: Source) -> str:
    """A fingerprint of the weights that does not depend on where they lie; a hub id stands for itself."""
    if source.built:
        return f"built:{source.built}"
    own = "+".join(map(_folder_identity, (source.location, *source.files))) if source.is_local else f"hub:{source.location}"
    return f"{own}+{identity(source.rest)}" if source.rest else own


@lru_cache(maxsize=16)
def _folder_identity(folder: str) -> str:
    """Names, sizes and both ends of every file: enough to tell two models apart without reading gigabytes."""
    digest = hashlib.blake2b(digest_size=8)
    root = Path(folder)
    inside = (p for p in root.rglob("*") if p.is_file() and not p.name.startswith("."))
    for path in [root] if root.is_file() else sorted(inside):
        digest.update(f"{path.relative_to(root).as_posix()}:{path.stat().st_size}\n".encode())
        with open(path, "rb") as file:
            digest.update(file.read(EDGE))
            if path.stat().st_size > EDGE:
                file.seek(-EDGE, os.SEEK_END)
                digest.update(file.read(EDGE))
    return digest.hexdigest()


@contextmanager
def hub_errors_in_words(source: Source):
    """Turn 'cannot reach the hub and nothing is cached' into one line that names the three ways to give the weights."""
    quiet_libraries()
    check_reachable(source)  # at once, where the loaders would ask for every file five times
    try:
        with without_own_code(source.location):
            yield
    except (OSError, ValueError, RuntimeError, ImportError) as error:  # ImportError: a package that these weights alone want
        if not source.is_local and (isinstance(error, OSError) or "onnect" in str(error) or "offline" in str(error)):
            raise WeightsMissing(missing_line(source, error)) from error
        raise LorakitError(f"{source.location}: cannot be loaded ({_first_line(error)})") from error


@contextmanager
def without_own_code(place: str):
    """Weights that can only be loaded by code of their own repository are refused in one line. Never asks: a "y" on stdin that is
    meant for something else would run it."""
    from transformers import dynamic_module_utils

    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0
    try:
        yield
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise LorakitError(
            f"{place}: needs code of its own to be loaded, and lorakit runs no code that comes with weights; choose weights in the form "
            "that transformers knows by itself"
        ) from None


def load_whole(cls: type, place: str | Path, **options: Any) -> Any:
    """`cls.from_pretrained(place)` of a model of transformers or diffusers, with every tensor from its file. The libraries fill what
    is missing with random numbers and go on. Raises `LorakitError` that names what is missing or of another shape."""
    if cls.__module__.startswith("transformers."):  # its error does not name the tensor; what it leaves out is refused here
        options["ignore_mismatched_sizes"] = True
    model, found = cls.from_pretrained(place, output_loading_info=True, **options)
    check_whole(f"{place}{'/' + options['subfolder'] if 'subfolder' in options else ''}", found)
    return model


def check_whole(place: str, found: Mapping[str, Iterable]) -> None:
    """Raises `LorakitError` when what a library says of its loading (`missing_keys`, `mismatched_keys`, `unexpected_keys`) is not whole."""
    missing = sorted({*found.get("missing_keys", ()), *(entry[0] for entry in found.get("mismatched_keys", ()))})
    if not missing:
        return
    unknown = sorted(found.get("unexpected_keys", ()))
    other = f"; {len(unknown)} of other names are in it: {_some(unknown)}" if unknown else ""
    raise LorakitError(
        f"{place}: {len(missing)} tensors are missing or of another shape: {_some(missing)}{other}. The file is damaged or belongs to another "
        "model; take another copy"
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def quiet_libraries() -> None:
    """Keep the model libraries' own progress bars and advice off the screen; their errors still come through."""
    import diffusers
    import huggingface_hub
    import transformers

    huggingface_hub.utils.logging.set_verbosity_error()
    quiet_bitsandbytes()
    for library in (transformers.utils.logging, diffusers.utils.logging):
        library.set_verbosity_error()
        library.disable_progress_bar()


def quiet_bitsandbytes() -> None:
    """Keep one line of bitsandbytes off the screen: that a kernel for the CPU, which nothing here calls, is not there. diffusers and peft
    import it, so this is called where the packages that import those begin."""
    logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(_is_of_use)


def _is_of_use(line: logging.LogRecord) -> bool:
    return "gemm_4bit_forward" not in line.getMessage()


def missing_line(source: Source, error: Exception) -> str:
    return (
        f"the weights of {source.title} ({source.location}, {source.size_gb:g} GB) are not on this machine and the hub "
        f"cannot give them ({_first_line(error)}). Three ways: (1) connect, and `hf auth login` if they are gated; "
        f"(2) elsewhere `hf download {source.location}`, copy the folder here and give it with {source.option}FOLDER; "
        f"(3) set HF_HOME to a cache that has them{source.otherwise}"
    )


def _first_line(error: Exception) -> str:
    """The first line of an error; and the next, where torch puts there what the first one announces."""
    lines = [" ".join(line.split()) for line in str(error).strip().splitlines()]
    if len(lines) > 1 and lines[0].endswith(":"):
        return f"{lines[0]} {lines[1]}"[:240]
    return lines[0][:120] if lines else type(error).__name__
