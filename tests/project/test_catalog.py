"""Cards and kinds: every pair resolves, a user's own come first, mistakes are named."""

import pytest

from lorakit import settings
from lorakit.errors import LorakitError, UnknownName
from lorakit.project import catalog

BASES = [card.name for card in catalog.cards()]
KINDS = [kind.name for kind in catalog.kinds()]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("base", BASES)
def test_every_kind_resolves_with_every_card(base, kind):
    card, of_kind = catalog.card(base), catalog.kind(kind)
    resolved = settings.resolve([("base", card.settings), ("kind", of_kind.settings)])
    assert resolved.select.least <= resolved.select.most
    assert resolved.train.resolution % resolved.train.bucket_step == 0
    assert resolved.caption.style in ("tags", "mixed", "sentences", "both")


def test_the_promised_bases_and_kinds_are_there():
    assert {
        "sd15",
        "sd21",
        "sdxl",
        "sd3-medium",
        "sd35-medium",
        "sd35-large",
        "flux1-dev",
        "flux1-krea",
        "flux1-schnell",
        "z-image",
        "z-image-turbo",
        "flux2-klein-4b",
        "flux2-klein-9b",
        "krea2",
        "krea2-turbo",
        "qwen-image",
        "qwen-image-2512",
        "anima",
        "illustrious",
        "noobai",
        "pony",
        "tiny-random",
    } <= set(BASES)
    assert set(KINDS) == {"style", "character", "object", "likeness"}


def test_a_card_says_what_lora_files_must_carry():
    for card in catalog.cards():
        assert {"ss_base_model_version", "modelspec.architecture"} <= set(card.metadata)
        assert card.hub or card.builder or card.folder or "--weights" in card.note


def test_a_card_in_the_project_is_found_first(tmp_path):
    (tmp_path / "models").mkdir()
    text = catalog.card("sd15").path.read_text(encoding="utf-8")
    (tmp_path / "models" / "sd15.yaml").write_text(text.replace("Stable Diffusion 1.5", "My own", 1), encoding="utf-8")
    (tmp_path / "models" / "mine.yaml").write_text(text, encoding="utf-8")
    assert catalog.card("sd15", tmp_path).path.parent == tmp_path / "models"
    assert catalog.card("mine", tmp_path).family == "sd15"


def test_unknown_names_and_bad_cards_are_one_line(tmp_path):
    with pytest.raises(UnknownName, match="no base is called 'sd1.5'; did you mean 'sd15'"):
        catalog.card("sd1.5")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine.yaml").write_text("title: x\nfamilly: sd15\n", encoding="utf-8")
    with pytest.raises(UnknownName, match="did you mean 'family'"):
        catalog.card("mine", tmp_path)
    (tmp_path / "models" / "mine.yaml").write_text("title: x\n", encoding="utf-8")
    with pytest.raises(LorakitError, match="missing.*compare it with models/sd15.yaml"):
        catalog.card("mine", tmp_path)


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("Comfy-Org/z_image_turbo", "--base z-image-turbo --weights hf://Comfy-Org/z_image_turbo;"),
        ("hf://Comfy-Org/flux2-dev", "--base flux2-dev --weights hf://Comfy-Org/flux2-dev;"),
        ("krea/Krea-2-Raw", "--base krea2; `lorakit bases`"),
        ("someone/something", "--base CARD --weights hf://someone/something;"),
    ],
)
def test_a_place_on_the_hub_is_no_base_and_the_line_says_how_it_is_given(place, line):
    with pytest.raises(LorakitError) as error:
        catalog.card(place)
    assert line in str(error.value) and "\n" not in str(error.value)
