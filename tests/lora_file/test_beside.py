"""What lies beside a LoRA file: a workflow of nodes that ComfyUI has, wired from loader to picture, and the card of A1111."""

import json

import pytest
from PIL import Image

from lorakit import lookup
from lorakit.bases import families
from lorakit.lora_file.beside import About, workflow, write_beside
from lorakit.project import catalog

# Required inputs and outputs of ComfyUI's nodes, as its nodes.py, comfy_extras/nodes_sd3.py, nodes_flux.py and nodes_model_advanced.py have them.
NODES = {
    "CheckpointLoaderSimple": ({"ckpt_name"}, ("MODEL", "CLIP", "VAE")),
    "UNETLoader": ({"unet_name", "weight_dtype"}, ("MODEL",)),
    "VAELoader": ({"vae_name"}, ("VAE",)),
    "DualCLIPLoader": ({"clip_name1", "clip_name2", "type"}, ("CLIP",)),
    "CLIPLoader": ({"clip_name", "type"}, ("CLIP",)),
    "TripleCLIPLoader": ({"clip_name1", "clip_name2", "clip_name3"}, ("CLIP",)),
    "LoraLoader": ({"model", "clip", "lora_name", "strength_model", "strength_clip"}, ("MODEL", "CLIP")),
    "ModelSamplingDiscrete": ({"model", "sampling", "zsnr"}, ("MODEL",)),
    "CLIPTextEncode": ({"clip", "text"}, ("CONDITIONING",)),
    "FluxGuidance": ({"conditioning", "guidance"}, ("CONDITIONING",)),
    "EmptyLatentImage": ({"width", "height", "batch_size"}, ("LATENT",)),
    "EmptySD3LatentImage": ({"width", "height", "batch_size"}, ("LATENT",)),
    "EmptyFlux2LatentImage": ({"width", "height", "batch_size"}, ("LATENT",)),
    "KSampler": (
        {"model", "seed", "steps", "cfg", "sampler_name", "scheduler", "positive", "negative", "latent_image", "denoise"},
        ("LATENT",),
    ),
    "VAEDecode": ({"samples", "vae"}, ("IMAGE",)),
    "SaveImage": ({"images", "filename_prefix"}, ()),
}
TAKES = {
    "model": "MODEL", "clip": "CLIP", "vae": "VAE", "positive": "CONDITIONING", "negative": "CONDITIONING", "conditioning": "CONDITIONING",
    "latent_image": "LATENT", "samples": "LATENT", "images": "IMAGE",
}  # fmt: skip


def about(**changes):
    facts = {
        "family": "sd15", "base": "Stable Diffusion 1.5", "version": "sd_v1", "checkpoint": "v1-5.safetensors", "phrase": "zwx mug",
        "prompt": "a photo of a zwx mug", "strength": 0.8, "side": 512, "steps": 20, "guidance": 7.0, "notes": "a mug",
    }  # fmt: skip
    return About(**{**facts, **changes})


@pytest.mark.parametrize("velocity", [False, True])
@pytest.mark.parametrize("family", lookup.names(lookup.FAMILIES))
def test_a_workflow_is_whole_and_its_wires_fit(family, velocity):
    nodes = workflow(about(family=family, velocity=velocity), "zwx.safetensors")
    for node in nodes.values():
        inputs, _ = NODES[node["class_type"]]
        assert node["inputs"].keys() == inputs
        for name, value in node["inputs"].items():
            if name in TAKES:
                number, output = value
                assert NODES[nodes[number]["class_type"]][1][output] == TAKES[name]
    (lora,) = (node["inputs"] for node in nodes.values() if node["class_type"] == "LoraLoader")
    assert (lora["lora_name"], lora["strength_model"]) == ("zwx.safetensors", 0.8)
    used = {value[0] for node in nodes.values() for name, value in node["inputs"].items() if name in TAKES}
    assert {number for number, node in nodes.items() if node["class_type"] != "SaveImage"} == used  # nothing hangs loose
    assert any(node["inputs"].get("text") == "a photo of a zwx mug" for node in nodes.values())
    assert any(node["class_type"] == "ModelSamplingDiscrete" for node in nodes.values()) is velocity


@pytest.mark.parametrize("card", [card.name for card in catalog.cards()])
def test_the_card_of_a1111_names_the_base_in_its_words(card, tmp_path):
    found = catalog.card(card)
    lora = tmp_path / "zwx.v2.safetensors"
    Image.new("RGB", (1024, 512), "red").save(tmp_path / "sample.png")
    version = found.metadata["ss_base_model_version"]
    written = write_beside(lora, about(family=found.family, version=version), tmp_path / "sample.png")
    assert [path.name for path in written] == ["zwx.v2.json", "zwx.v2.comfyui.json", "zwx.v2.preview.png"]
    told = json.loads(written[0].read_text())
    assert (told["activation text"], told["preferred weight"], told["notes"]) == ("zwx mug", 0.8, "a mug")
    assert told["sd version"] in ("SD1", "SD2", "SDXL", "SD3", "Unknown")  # those of its list
    assert (told["sd version"] == "Unknown") is version.startswith(("flux", "zimage", "krea2", "qwen", "anima", "chroma"))
    assert Image.open(written[2]).size == (512, 256)


def test_guidance_that_the_base_counts_from_zero_is_counted_as_comfyui_does():
    (sampler,) = (
        node["inputs"]
        for node in workflow(about(family="z_image", guidance=4.0), "x.safetensors").values()
        if node["class_type"] == "KSampler"
    )
    assert sampler["cfg"] == 5.0


def test_a_base_that_reads_other_texts_than_its_family_gets_its_own_encoder():
    nodes = [workflow(about(family="flux2", version=f"flux2_klein_{size}"), "x.safetensors") for size in ("4b", "9b")]
    clips = [node["inputs"] for graph in nodes for node in graph.values() if node["class_type"] == "CLIPLoader"]
    assert clips == [{"clip_name": f"qwen_3_{size}.safetensors", "type": "flux2"} for size in ("4b", "8b")]


def test_a_family_that_says_nothing_has_no_workflow(tmp_path, monkeypatch):
    monkeypatch.setattr(families.load("sd15"), "IN_TOOLS", {})
    assert workflow(about(), "x.safetensors") is None
    assert [path.name for path in write_beside(tmp_path / "x.safetensors", about(), None)] == ["x.json"]
