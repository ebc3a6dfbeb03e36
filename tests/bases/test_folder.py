"""Diffusers folders that cannot be trained as the base that was chosen are named in one line."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from lorakit.bases import families
from lorakit.bases.folder import check_folder
from lorakit.errors import LorakitError
from lorakit.train.preflight import check_single_file


@pytest.fixture
def folder(tiny_weights, tmp_path):
    return shutil.copytree(tiny_weights, tmp_path / "base")


def change_config(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_weights(folder, change):
    path = next(folder.glob("*.safetensors"))
    save_file(change(load_file(path)), path)


def to_gguf(folder):
    path = next((folder / "unet").glob("*.safetensors"))
    path.rename(path.with_name("unet-Q4_K_M.gguf"))


def first_in_fp8(tensors):
    key = next(iter(tensors))
    return {**tensors, key: tensors[key].to(torch.float8_e4m3fn)}


BREAKS = {
    "inpainting": (lambda f: change_config(f / "unet/config.json", in_channels=9), "reads 9 channels in place of 4, for inpainting"),
    "another latent": (lambda f: change_config(f / "vae/config.json", latent_channels=16), "reads 4 channels in place of 16"),
    "another class": (lambda f: change_config(f / "unet/config.json", _class_name="Flux2Transformer2DModel"),
                      "its unet is a Flux2Transformer2DModel, not sd15's UNet2DConditionModel"),
    "NF4": (lambda f: change_config(f / "unet/config.json", quantization_config={"quant_method": "bitsandbytes"}), "is quantised .bitsandbytes"),
    "another encoder": (lambda f: change_config(f / "text_encoder/config.json", model_type="qwen3"), "its text_encoder is a qwen3"),
    "fp8": (lambda f: change_weights(f / "unet", first_in_fp8), "its unet is in fp8"),
    "GGUF": (to_gguf, "has unet-Q4_K_M.gguf and no .safetensors"),
    "decoder only": (lambda f: change_weights(f / "vae", lambda t: {k: v for k, v in t.items() if not k.startswith("encoder.")}),
                     "its vae has a decoder only"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BREAKS)
def test_a_folder_that_does_not_fit_is_named(folder, kind):
    change, line = BREAKS[kind]
    check_folder(families.load("sd15"), folder)
    change(folder)
    with pytest.raises(LorakitError, match=line) as error:
        check_folder(families.load("sd15"), folder)
    assert "\n" not in str(error.value)


def test_an_inpainting_krea2_is_named(tiny_base, tmp_path):
    folder = shutil.copytree(tiny_base("krea2"), tmp_path / "fill")
    change_config(folder / "transformer/config.json", in_channels=128)
    with pytest.raises(LorakitError, match="reads 128 channels in place of 64"):
        check_folder(families.load("krea2"), folder)


@pytest.mark.parametrize(
    ("in_channels", "name", "line"),
    [(384, "FluxTransformer2DModel", "reads 384 channels in place of 64"), (64, "ChromaTransformer2DModel", "is a ChromaTransformer2DModel"),
     (128, "Flux2Transformer2DModel", "is a Flux2Transformer2DModel"), (64, "NunchakuFluxTransformer2dModel", "is a Nunchaku")],
)  # fmt: skip
def test_relatives_of_flux_are_named(tmp_path, in_channels, name, line):
    for part, config in (("transformer", {"_class_name": name, "in_channels": in_channels}), ("vae", {"latent_channels": 16})):
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text(json.dumps(config))
    with pytest.raises(LorakitError, match=line):
        check_folder(families.load("flux1"), tmp_path)


NOT_PLAIN = [  # the pipelines of diffusers 0.42 that draw with the denoisers of these families
    ("qwen_image", "QwenImageEditPipeline", "for editing pictures"), ("qwen_image", "QwenImageEditPlusPipeline", "for editing pictures"),
    ("qwen_image", "QwenImageLayeredPipeline", "for pictures in layers"), ("flux1", "FluxKontextPipeline", "for editing pictures"),
    ("flux1", "FluxFillPipeline", "for inpainting"), ("flux1", "FluxControlPipeline", "for control"),
    ("flux1", "FluxPriorReduxPipeline", "for variations of a picture"), ("flux2", "Flux2KleinInpaintPipeline", "for inpainting"),
    ("z_image", "ZImageOmniPipeline", "for several pictures at once"), ("sdxl", "StableDiffusionXLInpaintPipeline", "for inpainting"),
    ("sdxl", "StableDiffusionXLInstructPix2PixPipeline", "for editing pictures"), ("sd15", "StableDiffusionDepth2ImgPipeline", "for control"),
    ("sd15", "StableUnCLIPPipeline", "for variations of a picture"), ("sd15", "StableDiffusionUpscalePipeline", "for enlarging pictures"),
    ("krea2", "Krea2EditPipeline", "for editing pictures"),
]  # fmt: skip


@pytest.mark.parametrize(("family", "drawn_by", "what"), NOT_PLAIN)
def test_a_folder_that_is_for_something_else_is_told_by_its_pipeline(tmp_path, family, drawn_by, what):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": drawn_by}))
    with pytest.raises(LorakitError, match=f"is {what}, by the {drawn_by} of its model_index.json; give the plain base"):
        check_folder(families.load(family), tmp_path)


def test_a_folder_of_another_kind_is_told_by_its_parts(tmp_path):
    def folder(name, index=None, **config):
        (tmp_path / name / "unet").mkdir(parents=True)
        (tmp_path / name / "transformer").mkdir()
        (tmp_path / name / "model_index.json").write_text(json.dumps(index or {}))
        for part in ("unet", "transformer"):
            (tmp_path / name / part / "config.json").write_text(json.dumps(config))
        return tmp_path / name

    refiner = folder(
        "refiner", {"_class_name": "StableDiffusionXLImg2ImgPipeline"}, _class_name="UNet2DConditionModel", cross_attention_dim=1280
    )
    edits = folder("edit", _class_name="QwenImageTransformer2DModel", zero_cond_t=True)
    sees = folder("omni", _class_name="ZImageTransformer2DModel", siglip_feat_dim=1152)
    dev = folder("dev", {"_class_name": "Flux2Pipeline"}, _class_name="Flux2Transformer2DModel")
    for family, place, line in (
        ("sdxl", refiner, "reads texts 1280 wide in place of 2048: a refiner"),
        ("qwen_image", edits, "is Qwen-Image-Edit-2511, by its transformer's configuration"),
        ("z_image", sees, "is Z-Image Omni, which sees pictures too, by its transformer's"),
        ("flux2", dev, "is FLUX.2 dev, by its model_index.json; choose --base flux2-dev"),
    ):
        with pytest.raises(LorakitError, match=line):
            check_folder(families.load(family), place)


def test_it_is_said_before_anything_starts(folder, make_project, tmp_path):
    change_config(folder / "unet/config.json", in_channels=9)
    with pytest.raises(LorakitError, match="reads 9 channels"):
        check_single_file(make_project(**{"train.weights": str(folder)}))
    (tmp_path / "flux1-dev-Q4_0.gguf").write_bytes(b"GGUF")
    with pytest.raises(LorakitError, match="GGUF is quantised"):
        check_single_file(make_project("other", **{"train.weights": str(tmp_path / "flux1-dev-Q4_0.gguf")}))


@pytest.mark.parametrize(
    "family", ["sd15", "sdxl", "sd3", "flux1", "chroma1", "z_image", "flux2", "flux2_dev", "krea2", "qwen_image", "anima"]
)
def test_a_base_of_the_family_fits(tiny_base, family):
    check_folder(families.load(family), tiny_base(family))


def in_a_cache(folder, cache):
    """A diffusers folder as the hub's cache holds it."""
    place = cache / "models--someone--base"
    shutil.copytree(folder, place / "snapshots" / "0123abcd")
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("0123abcd")


def test_weights_on_the_hub_are_looked_at_as_folders_are(folder, make_project, tmp_path, monkeypatch):
    change_config(folder / "unet/config.json", in_channels=9)
    in_a_cache(folder, tmp_path / "hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(LorakitError, match="reads 9 channels in place of 4, for inpainting"):
        check_single_file(make_project(**{"train.weights": "hf://someone/base"}))


def test_another_base_of_the_family_is_named(folder):
    check_folder(families.load("sd15"), folder, "sd15")
    change_config(folder / "unet/config.json", cross_attention_dim=1024)
    with pytest.raises(LorakitError, match="is Stable Diffusion 2, by the texts that it reads; choose --base sd21"):
        check_folder(families.load("sd15"), folder, "sd15")
    check_folder(families.load("sd15"), folder, "sd21")
    check_folder(families.load("sd15"), folder, "mini")
