"""A base that lies in several files, as ComfyUI splits them: each part is read from its own, tokenizers from a folder, and what does not
belong together is one line."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from lorakit.bases import families, original_layout
from lorakit.bases.single_file import open_file
from lorakit.errors import LorakitError
from lorakit.settings import Train
from lorakit.train.preflight import check_settings, check_single_file
from lorakit.weights import _folder_identity, identity
from tests.bases.test_anima import TinyAnima
from tests.bases.test_chroma1 import TinyChroma
from tests.bases.test_flux2 import TinyFlux2, TinyFlux2Dev, original_vae
from tests.bases.test_folder import in_a_cache
from tests.bases.test_krea2 import TinyKrea2
from tests.bases.test_qwen_image import TinyQwenImage
from tests.bases.test_single_file import TinyFlux1, same, vae_key
from tests.bases.test_z_image import TinyZImage
from tests.tiny_bases import _seeing


class SplitKrea2(TinyKrea2):
    ENCODER_CONFIGS = {"text_encoder": _seeing(dict)}


class SplitQwenImage(TinyQwenImage):
    ENCODER_CONFIGS = {"text_encoder": _seeing(dict)}


class SplitAnima(TinyAnima):
    ENCODER_CONFIGS = TinyZImage.ENCODER_CONFIGS


TINY = {"flux1": TinyFlux1, "chroma1": TinyChroma, "z_image": TinyZImage, "flux2": TinyFlux2, "flux2_dev": TinyFlux2Dev, "krea2": SplitKrea2, "qwen_image": SplitQwenImage,
        "anima": SplitAnima}  # fmt: skip
FROM_A_FOLDER = {
    "chroma1": ["scheduler"],
    "z_image": ["scheduler"],
    "krea2": ["scheduler", "vae"],
    "qwen_image": ["vae"],
    "anima": ["vae"],
}  # diffusers' converter
# of a video's VAE knows its full size alone
PATHS = {"text_encoder": "text_encoders/a", "text_encoder_2": "text_encoders/b", "vae": "vae/vae", "denoiser": "diffusion_models/base"}


def parts_of(family):
    """{part: tensors}, as the files of model sites have them."""
    parts = {"denoiser": original_layout.as_original(type(family).place, family.denoiser.state_dict())}
    if family.NAME.startswith("flux2"):
        parts["vae"] = original_vae(family.vae, inside=True)
    elif family.NAME == "anima":
        own = parts["denoiser"] | {f"llm_adapter.{key}": tensor for key, tensor in family.conditioner.state_dict().items()}
        parts["denoiser"] = {f"net.{key}": tensor for key, tensor in own.items()}
    elif "vae" not in FROM_A_FOLDER.get(family.NAME, ()):
        state = family.vae.state_dict()
        parts["vae"] = {vae_key(key): t[..., None, None] if "attentions" in key and t.dim() == 2 else t for key, t in state.items()}
    for name in family.ENCODERS:
        level = {"flux1": "text_model." if name == "text_encoder" else "", "chroma1": ""}.get(family.NAME, "model.")
        states = {key.removeprefix("language_model."): tensor for key, tensor in family.encoder(name).state_dict().items()}
        parts[name] = {
            f"{level}{key.removeprefix(level)}": tensor for key, tensor in states.items() if key != "encoder.embed_tokens.weight"
        }
    if family.NAME == "flux2":
        parts["text_encoder"]["lm_head.weight"] = torch.zeros(64, 32)
    return parts


def write(folder, parts):
    for name, tensors in parts.items():
        path = folder / f"{PATHS[name]}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({key: tensor.contiguous().clone() for key, tensor in tensors.items()}, path)


@pytest.fixture
def tiny_families(monkeypatch):
    real = families.load
    monkeypatch.setattr(families, "load", lambda name: TINY.get(name) or real(name))


@pytest.mark.parametrize(
    ("family", "card", "form"),
    [
        pytest.param("flux1", "flux1-dev", "files", marks=pytest.mark.slow),
        ("chroma1", "chroma", "folder"),
        ("z_image", "z-image", "folder"),
        ("krea2", "krea2", "folder"),
        ("qwen_image", "qwen-image", "folder"),
        ("anima", "anima", "folder"),
        ("flux2", "flux2-klein-4b", "folder"),
        ("flux2", "flux2-klein-4b", "files"),
        ("flux2_dev", "flux2-dev", "folder"),
    ],
)
def test_every_part_is_read_from_its_own_file(load_tiny, tiny_base, make_project, tmp_path, tiny_families, family, card, form):
    wanted = load_tiny(family)
    write(tmp_path / "split", parts_of(wanted))
    rest = tmp_path / "words"
    from_folder = FROM_A_FOLDER.get(family, [])
    for name in (*wanted.TOKENIZERS, *from_folder):
        shutil.copytree(tiny_base(family) / name, rest / name)
    if family == "krea2":
        shutil.copy(tiny_base(family) / "model_index.json", rest)  # says which layers a tiny one reads
    files = [str(tmp_path / "split" / f"{PATHS[name]}.safetensors") for name in (*wanted.ENCODERS, "vae") if name not in from_folder]
    settings = {"train.weights": str(tmp_path / "split"), "train.parts": str(rest)}
    if form == "files":
        settings = {
            "train.weights": str(tmp_path / "split/diffusion_models/base.safetensors"),
            "train.parts": ", ".join([*files, str(rest)]),
        }
    project = make_project(base=card, **settings)
    source = project.base_source
    assert source.files == tuple(files) and source.rest.location == str(rest)
    lacks = [name for name in from_folder if name == "vae"]
    unknown = [name for name in wanted.TOKENIZERS if (family, name) != ("flux1", "tokenizer")]  # CLIP's is known
    assert check_single_file(project) == [*lacks, *unknown]
    found = TINY[family](source, "cpu", torch.float32, Train())
    assert same(found.denoiser, wanted.denoiser, 0) and same(found.vae, wanted.vae, 0)
    assert all(same(found.encoder(name), wanted.encoder(name), 0) for name in found.ENCODERS)
    assert all(torch.equal(tensor, wanted.encode_text("a mug")[name]) for name, tensor in found.encode_text("a mug").items())
    (rest / list(wanted.TOKENIZERS)[-1]).rename(tmp_path / "away")
    with pytest.raises(LorakitError, match="has no (t5_)?tokenizer|no model_index.json in it"):
        check_single_file(project)


def test_comfyui_s_fp8_is_read_in_every_part(load_tiny, tiny_base, make_project, tmp_path, tiny_families):
    wanted = load_tiny("flux2")
    parts = parts_of(wanted)
    write(tmp_path / "split", {**parts, **{name: in_fp8(parts[name]) for name in ("denoiser", "text_encoder")}})
    project = make_project(base="flux2-klein-4b", **{"train.weights": str(tmp_path / "split"), "train.parts": str(tiny_base("flux2"))})
    source = project.base_source
    found = TinyFlux2(source, "cpu", torch.float32, Train())
    ours, theirs = found.encode_text("a mug")["states"], wanted.encode_text("a mug")["states"]
    assert found.held_in() == "fp8" and 0 < (ours - theirs).norm() < 0.2 * theirs.norm()
    before = identity(source)
    path = tmp_path / "split/vae/vae.safetensors"
    save_file({**load_file(path), "bn.running_mean": torch.zeros(128)}, path)
    _folder_identity.cache_clear()
    assert identity(project.base_source) != before  # another VAE: nothing of the cache is taken


def test_a_repository_of_the_hub_that_is_split_is_read_as_far_as_it_was_fetched(load_tiny, tiny_base, make_project, tmp_path, monkeypatch):
    """As `hf download` leaves it in the cache: one transformer of several, with what belongs to it; else it is one line."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    write(tmp_path / "repository/split_files", parts_of(load_tiny("z_image")))
    in_a_cache(tmp_path / "repository", tmp_path / "hub")
    snapshot = tmp_path / "hub/models--someone--base/snapshots/0123abcd"
    settings = {"train.weights": "hf://someone/base", "train.parts": str(tiny_base("z_image"))}
    project = make_project(base="z-image", **settings)
    check_settings(project)
    source, inside = project.base_source, snapshot / "split_files"
    assert source.location == str(inside / "diffusion_models/base.safetensors") and len(source.files) == 2
    assert check_single_file(project) == ["tokenizer"]
    one = make_project(
        "one", base="z-image", **{**settings, "train.weights": "hf://someone/base/split_files/diffusion_models/base.safetensors"}
    )
    assert one.base_source.location == source.location and not one.base_source.files
    with pytest.raises(LorakitError, match=r"`hf download someone/base other.safetensors` fetches it"):
        _ = make_project("gone", **{"train.weights": "hf://someone/base/other.safetensors"}).base_source
    save_file({"x": torch.zeros(1)}, inside / "diffusion_models/second.safetensors")
    with pytest.raises(LorakitError, match="base.safetensors, second.safetensors in diffusion_models, and one is wanted"):
        _ = project.base_source
    (inside / "diffusion_models").rename(snapshot / "elsewhere")
    save_file({"x": torch.zeros(1)}, snapshot / "flux.safetensors")
    with pytest.raises(LorakitError, match="hf://someone/base: has no model_index.json, so it is no diffusers repository") as error:
        check_single_file(make_project("none", base="z-image", **{"train.weights": "hf://someone/base"}))
    assert "\n" not in str(error.value)


def in_fp8(tensors):
    found = {}
    for key, tensor in tensors.items():
        if tensor.dim() == 2 and ("blocks" in key or "layers" in key):
            scale = tensor.abs().max() / 448
            found |= {key: (tensor / scale).to(torch.float8_e4m3fn), f"{key.removesuffix('.weight')}.weight_scale": scale}
        else:
            found[key] = tensor
    return found


def test_what_does_not_belong_together_is_one_line(load_tiny, make_project, tmp_path):
    write(tmp_path, parts_of(load_tiny("flux2")))
    main, words, vae = (tmp_path / f"{PATHS[name]}.safetensors" for name in ("denoiser", "text_encoder", "vae"))
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    wide = {key: torch.zeros(t.shape[0], 48) if key.endswith("embed_tokens.weight") else t for key, t in load_file(words).items()}
    save_file(wide, tmp_path / "wide.safetensors")
    for given, line in (
        ([words, words], r"a\.safetensors: is the text_encoder, as a\.safetensors is; give one of them"),
        ([tmp_path / "other.safetensors"], r"other\.safetensors: is no VAE and no text encoder of FLUX\.2 klein"),
        (
            [tmp_path / "wide.safetensors"],
            r"its states are 48 wide, and base\.safetensors reads texts of 32; give the text encoder of this base",
        ),
        ([vae, main], r"base\.safetensors: is no VAE and no text encoder"),
    ):
        with pytest.raises(LorakitError, match=line):
            open_file(main, "flux2", given)
    save_file({"x": torch.zeros(1)}, tmp_path / "diffusion_models/second.safetensors")
    with pytest.raises(
        LorakitError, match=r"base\.safetensors, second\.safetensors in diffusion_models, and one is wanted; give the file itself"
    ):
        _ = make_project(**{"train.weights": str(tmp_path)}).base_source
    with pytest.raises(LorakitError, match=r"train\.parts: gone\.safetensors: no such file"):
        _ = make_project("b", **{"train.weights": str(main), "train.parts": "gone.safetensors"}).base_source
    with pytest.raises(LorakitError, match=r"train\.parts: hf://a/b, hf://c/d: one folder or place on the hub"):
        _ = make_project("c", **{"train.weights": str(main), "train.parts": "hf://a/b,hf://c/d"}).base_source
