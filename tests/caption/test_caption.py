"""Stage caption: every photo gets its words, in order, at once, and nothing stops the rest."""

import pytest
from PIL import Image

import lorakit
from lorakit import lookup
from lorakit.caption.caption import caption, fitting_batch, is_out_of_memory, read_in_parts
from lorakit.caption.captioners import florence2, imagenet
from lorakit.caption.captioners.base import CaptionerCard, Reader
from lorakit.errors import LorakitError
from lorakit.photos import images
from lorakit.project.manifest import Manifest
from lorakit.text.composing import RawCaption
from tests.conftest import draw_photo


@pytest.fixture
def curated(make_cropped):
    """curated(**settings): a project whose photos are chosen and cropped."""
    return make_cropped


def forgotten(project) -> None:
    """The project as if no photo had been read."""
    project.manifest.replace([{**r, "caption": None, "done": {**r["done"], "caption": None}} for r in project.manifest])
    (project.cache_folder / "readings.jsonl").unlink()


def captions(project) -> dict[str, str]:
    return {r["file"]: (r["caption"]["sentence"], *r["caption"]["tags"]) for r in project.manifest.selected if r.get("caption")}


def test_tiny_blip_captions_a_project(curated, tiny_blip):
    project = curated(
        **{
            "caption.captioner": "blip",
            "caption.weights": str(tiny_blip),
            "caption.max_tokens": 8,
            "caption.batch_size": 4,
        }
    )
    caption(project)
    together = captions(project)
    assert len(together) == 6
    single = lorakit.open_project(project.folder, settings={"caption.batch_size": 1}, device="cpu")
    forgotten(single)
    caption(single)
    assert captions(single) == together


def test_photo_is_read_as_it_is_trained(make_photo, tmp_path):
    """Upright and cropped: a photo turned by its EXIF tag, of which a crop is taken."""
    upright = Image.new("RGB", (300, 400), (200, 0, 0))
    upright.paste((0, 0, 200), (0, 200, 300, 400))
    exif = Image.Exif()
    exif[0x0112] = 6
    path = make_photo("turned.png", image=upright.rotate(90, expand=True), exif=exif)
    seen = images.load_crop_to_read({"path": str(path), "crop": {"box": (0, 0, 300, 200), "bucket": (64, 64)}})
    assert seen.size == (300, 200)
    assert seen.getpixel((150, 100)) == (200, 0, 0)


def test_captioner_sees_a_turned_photo_as_its_upright_twin(curated, make_photo, monkeypatch):
    """Through the whole stage: EXIF rotation, crop, words and measured pixels. (Another tool captions what lies on its side
    and trains what stands upright.)"""
    upright = draw_photo(77, (512, 640))
    exif = Image.Exif()
    exif[0x0112] = 6
    make_photo("twin_turned.png", image=upright.rotate(90, expand=True), exif=exif)
    make_photo("twin_upright.png", image=upright)
    seen = {}
    monkeypatch.setattr(
        imagenet,
        "prepare",
        lambda picture, prepare=imagenet.prepare: (seen.setdefault(picture.tobytes(), picture.size), prepare(picture))[1],
    )
    project = curated(**{"select.everything": True})
    caption(project)
    turned, twin = (next(r for r in project.manifest.selected if r["file"] == f"twin_{name}.png") for name in ("turned", "upright"))
    assert turned["caption"] == twin["caption"]
    assert len(seen) == 7, "six photos, and the twins as one"
    assert upright.crop(tuple(map(round, turned["crop"]["box"]))).tobytes() in seen, "as it stands upright"


def test_second_run_reads_nothing_again(curated, monkeypatch):
    project = curated()
    caption(project)
    monkeypatch.setattr(imagenet, "load", lambda *args: pytest.fail("a captioner was loaded for nothing"))
    caption(project)


@pytest.mark.parametrize("name", ["imagenet", "blip", "blip2", "florence2"])
def test_stopped_run_goes_on_with_what_is_missing(curated, monkeypatch, request, name):
    monkeypatch.setattr(florence2, "DETECT_TOKENS", 12)
    monkeypatch.setattr(florence2, "LEAST_TOKENS", {})
    weights = None if name == "imagenet" else str(request.getfixturevalue(f"tiny_{name}"))
    project = curated(**{"caption.batch_size": 2, "caption.captioner": name, "caption.weights": weights, "caption.max_tokens": 8})
    captioner = lookup.load(lookup.CAPTIONERS, name)
    load, seen = captioner.load, []

    def counting(stop_after):
        def wrapped(source, device, settings):
            reader = load(source, device, settings)

            def read(batch):
                if len(seen) >= stop_after:
                    raise KeyboardInterrupt
                seen.extend(batch)
                return reader.read(batch)

            return Reader(reader.prepare, read)

        return wrapped

    monkeypatch.setattr(captioner, "load", counting(4))
    with pytest.raises(KeyboardInterrupt):
        caption(project)
    assert len(captions(lorakit.open_project(project.folder))) == 4, "results are on disk as each batch ends"
    monkeypatch.setattr(captioner, "load", counting(99))
    again = lorakit.open_project(project.folder, device="cpu")
    caption(again)
    assert len(seen) == 6
    assert len(captions(again)) == 6


def test_unreadable_photo_is_named_and_the_rest_goes_on(curated, capsys):
    project = curated()
    gone = project.manifest.selected[2]
    with open(gone["path"], "wb") as file:
        file.write(b"not a photo any more")
    caption(project)
    assert gone["file"] not in captions(project)
    assert len(captions(project)) == 5
    assert project.manifest[gone["id"]]["failed"]["caption"]
    assert gone["file"] in capsys.readouterr().err


def test_batch_of_bad_photos_only_does_not_stop_the_rest(curated):
    project = curated(**{"caption.batch_size": 2})
    for record in project.manifest.selected[:4]:
        with open(record["path"], "wb") as file:
            file.write(b"broken")
    caption(project)
    assert len(captions(project)) == 2


def test_no_caption_at_all_is_an_error_that_names_the_way_out(curated):
    project = curated(**{"caption.captioner": "text_files"})
    with pytest.raises(LorakitError, match="--captioner imagenet"):
        caption(project)


def test_partly_captioned_set_gets_the_rest(make_photo, make_project, photo_folder):
    (photo_folder / "photo_1.txt").write_text("a zwx mug on a shelf")
    (photo_folder / "photo_4.caption").write_text("two mugs")
    project = make_project()
    lorakit.walk(project, last="caption")
    found = captions(project)
    assert found["photo_1.jpg"] == ("a zwx mug on a shelf",)
    assert found["photo_4.jpg"] == ("two mugs",)
    assert len(found) == 6


@pytest.mark.parametrize(
    "existing, kept, first",
    [("keep", True, None), ("replace", False, None), ("append", True, True), ("prepend", True, False)],
)
def test_existing_captions(make_project, photo_folder, existing, kept, first):
    (photo_folder / "photo_1.txt").write_text("two mugs")
    project = make_project(**{"caption.existing": existing})
    lorakit.walk(project, last="trigger")
    text = next(r["text"] for r in project.manifest.selected if r["file"] == "photo_1.jpg")
    assert ("two mugs" in text) is kept
    if first is not None:
        assert text.endswith("two mugs") is not first
        assert len(text) > len("zwx mug, two mugs")


class Memory:
    """A reader with room for so many photos; more than that ends as torch ends it."""

    def __init__(self, room: int):
        self.room, self.sizes = room, []

    def read(self, batch: list) -> list[RawCaption]:
        self.sizes.append(len(batch))
        if len(batch) > self.room:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return [RawCaption(str(number)) for number in batch]


def test_out_of_memory_halves_the_batch_and_completes():
    memory = Memory(room=3)
    readings, size = read_in_parts(Reader(lambda p: p, memory.read), list(range(10)), 8)
    assert [r.sentence for r in readings] == [str(n) for n in range(10)]
    assert size == 2
    assert memory.sizes == [8, 4, 2, 2, 2, 2, 2]


def test_batch_follows_the_memory_that_is_free():
    card = CaptionerCard("any", "sentence", "MIT", batch_per_gb=3)
    assert fitting_batch(card, None) == 8
    assert [fitting_batch(card, free) for free in (0.1, 4.2, 79.0)] == [1, 12, 64]


@pytest.mark.parametrize("name", ["blip", "blip2", "florence2"])
def test_model_that_runs_out_of_memory_completes_with_the_same_captions(curated, request, monkeypatch, capsys, name):
    """The real code of the captioner and of transformers, in which `generate` finds room for two photos at once."""
    monkeypatch.setattr(florence2, "DETECT_TOKENS", 12)
    monkeypatch.setattr(florence2, "LEAST_TOKENS", {})
    weights = str(request.getfixturevalue(f"tiny_{name}"))
    wanted = {"caption.captioner": name, "caption.weights": weights, "caption.max_tokens": 8}
    roomy = curated(**wanted)
    caption(roomy)
    tight = lorakit.open_project(roomy.folder, settings={"caption.batch_size": 6}, device="cpu")
    forgotten(tight)
    sizes = []
    with_room_for(2, name, sizes, monkeypatch)
    caption(tight)
    assert captions(tight) == captions(roomy) and len(captions(tight)) == 6
    assert sizes[0] == 6 and max(sizes[2:]) <= 3 and "going on with" in capsys.readouterr().err


def with_room_for(most: int, name: str, sizes: list[int], monkeypatch) -> None:
    import transformers

    model = {
        "blip": "BlipForConditionalGeneration",
        "blip2": "Blip2ForConditionalGeneration",
        "florence2": "Florence2ForConditionalGeneration",
    }[name]
    generate = getattr(transformers, model).generate

    def limited(self, *args, **kwargs):
        sizes.append(len(kwargs["pixel_values"]))
        if sizes[-1] > most:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return generate(self, *args, **kwargs)

    monkeypatch.setattr(getattr(transformers, model), "generate", limited)


def test_not_even_one_photo_in_memory_is_one_line():
    with pytest.raises(LorakitError, match="smaller captioner"):
        read_in_parts(Reader(lambda p: p, Memory(room=0).read), [1, 2], 2)


def test_real_allocation_failure_is_known_as_one():
    import torch

    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("shapes cannot be multiplied"))


def test_other_errors_are_not_taken_for_lack_of_memory():
    def read(batch):
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="multiplied"):
        read_in_parts(Reader(lambda p: p, read), [1, 2], 2)


def test_another_base_rewords_without_reading_again(curated, monkeypatch):
    """From FLUX's sentences to SD1.5's tags, as `lorakit caption PROJECT --base sd15` does it."""
    project = curated(base="flux1-dev", **{"train.weights": None, "check.size.min_side": 64})
    lorakit.walk(project, last="trigger")
    before = {r["file"]: (r["caption"], r["text"]) for r in project.manifest.selected}
    monkeypatch.setattr(imagenet, "load", lambda *args: pytest.fail("the photos were read again"))
    again = lorakit.open_project(project.folder, base="sd15", device="cpu")
    lorakit.walk(again, last="trigger")
    after = {r["file"]: (r["caption"], r["text"]) for r in again.manifest.selected}
    assert len(after) == 6 and all(after[file][0] == before[file][0] for file in before)
    assert all(before[file][1].startswith("a zwx mug") and after[file][1].startswith("zwx mug") for file in before)


def test_changed_style_rewords_without_reading_again(curated, monkeypatch):
    project = curated()
    lorakit.walk(project, last="trigger")
    before = Manifest(project.folder)
    monkeypatch.setattr(imagenet, "load", lambda *args: pytest.fail("the photos were read again"))
    again = lorakit.open_project(project.folder, settings={"caption.style": "sentences"}, device="cpu")
    lorakit.walk(again, last="trigger")
    for record in again.manifest.selected:
        assert record["caption"] == before[record["id"]]["caption"]
        assert record["text"].startswith("a zwx mug")
