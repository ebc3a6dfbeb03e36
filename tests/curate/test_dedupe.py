"""Copies are found however they were made, different photos never; the best one of a group is kept."""

import importlib

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from lorakit import open_project, pipeline
from lorakit.curate.compare import KEPT, LONGEST, SIDE, _prepare, compare, forget_prepared, is_another, is_same_picture
from lorakit.curate.dedupe import inherited
from lorakit.curate.descriptors import descriptors, phash, turned
from lorakit.curate.search import close_pairs
from lorakit.photos.photo import read_photo
from lorakit.record import sidecar_of
from tests.conftest import draw_photo

dedupe = importlib.import_module("lorakit.curate.dedupe")  # the wing's stage has its name
PHOTO = draw_photo(1)  # photo_1.jpg of the folder


def verdicts_of(project) -> dict[str, tuple]:
    """{file: (verdict, reasons, duplicate_of)}"""
    return {p["file"]: (p["verdict"], [r["reason"] for r in p["reasons"]], p["duplicate_of"]) for p in pipeline.status(project)["photos"]}


EDITS = {
    "half": lambda p: p.resize((p.width * 3 // 4, p.height * 3 // 4)),
    "dim": lambda p: ImageEnhance.Brightness(p).enhance(0.9),
    "gray": lambda p: p.convert("L"),
    "turned_a_little": lambda p: p.rotate(1, Image.Resampling.BICUBIC),
    "cut": lambda p: p.crop((6, 6, p.width - 6, p.height - 6)),
}


@pytest.mark.parametrize("edit", EDITS)
def test_edited_copy_points_to_the_photo_it_is_a_copy_of(curated, make_photo, edit):
    make_photo("z.jpg", image=EDITS[edit](PHOTO), quality=60)
    found = verdicts_of(curated("dedupe"))
    assert found["z.jpg"][2] == "photo_1.jpg" and "near_duplicate" in found["z.jpg"][1]
    assert [f for f, v in found.items() if v[2]] == ["z.jpg"]


@pytest.mark.parametrize("turn", [ImageOps.mirror, ImageOps.flip, *(lambda p, d=d: p.rotate(d, expand=True) for d in (90, 180, 270))])
def test_mirrored_and_turned_copies_are_found_unless_they_are_wanted(curated, make_photo, turn):
    make_photo("z.jpg", image=turn(PHOTO.resize((560, 448))), quality=80)
    project = curated("dedupe", **{"check.size.good_side": 400, "check.size.min_side": 400})
    assert verdicts_of(project)["z.jpg"][1:] == (["mirrored"], "photo_1.jpg")
    again = open_project(project.folder, settings={"dedupe.mirrored": False})
    pipeline.walk(again, last="dedupe")
    assert verdicts_of(again)["z.jpg"][1:] == ([], None)


@pytest.mark.parametrize(
    ("few", "many", "lowered", "found"), [(150, 3000, "SOME", "photo_1.jpg"), (0, 3000, "SOME", None), (0, 0, "MANY", None)]
)
def test_in_large_sets_only_nearer_photos_are_laid_over_each_other(curated, make_photo, monkeypatch, few, many, lowered, found):
    monkeypatch.setattr(dedupe, "FEW", few)
    monkeypatch.setattr(dedupe, "MANY", many)
    monkeypatch.setattr(dedupe, f"DISTANCE_OF_{lowered}", 30)
    make_photo(
        "z.jpg", image=PHOTO.rotate(2, Image.Resampling.BICUBIC).crop((14, 14, PHOTO.width - 14, PHOTO.height - 14)), quality=90
    )  # 43 bits away
    assert verdicts_of(curated("dedupe", **{"dedupe.sure": 20}))["z.jpg"][2] == found


def test_exact_copy_in_another_folder(curated, make_photo, tmp_path):
    copy = tmp_path / "photos" / "sub" / "photo_2.jpg"
    copy.parent.mkdir()
    copy.write_bytes((tmp_path / "photos" / "photo_2.jpg").read_bytes())
    make_photo("other.jpg", 77)
    assert verdicts_of(curated("dedupe"))["sub/photo_2.jpg"] == ("reject", ["duplicate"], "photo_2.jpg")


def test_larger_copy_is_kept_whatever_its_name(curated, make_photo):
    big = draw_photo(50, (1400, 1100))
    make_photo("a_small.jpg", image=big.resize((700, 550)))
    make_photo("z_big.jpg", image=big)
    assert verdicts_of(curated("dedupe"))["a_small.jpg"][2] == "z_big.jpg"


def test_flat_pictures_are_no_copies_of_each_other(curated, make_photo):
    for value in (0, 120, 255):
        make_photo(f"flat_{value}.png", image=Image.new("RGB", (600, 600), (value,) * 3))
    assert not any(of for _, _, of in verdicts_of(curated("dedupe")).values())


def test_damaged_files_with_the_same_bytes_are_not_copies(curated, tmp_path):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "photos" / name).write_bytes(b"\xff\xd8\xff\xe0 torn")
    assert all(of is None for _, _, of in verdicts_of(curated("dedupe")).values())


def test_hashes_of_turned_pictures_follow_from_one():
    small = np.random.default_rng(0).normal(0, 40, (64, 64)).astype(np.float32)
    for turn in range(8):
        picture = small.T if turn & 4 else small
        picture = picture[:, ::-1] if turn & 1 else picture
        picture = picture[::-1] if turn & 2 else picture
        differing = np.unpackbits(phash(np.ascontiguousarray(picture)) ^ turned(phash(small)[None], turn)[0]).sum()
        assert differing <= 2  # coefficients that are zero but for rounding


@pytest.mark.parametrize("turns", [False, True])
def test_search_finds_exactly_the_pairs_that_counting_bits_finds(turns):
    random = np.random.default_rng(3)
    hashes = random.integers(0, 256, (700, 32), dtype=np.uint8)
    hashes[600:] = turned(hashes[:100], 5 if turns else 0) ^ (random.random((100, 32)) < 0.2).astype(np.uint8)
    expected = set()
    for turn in range(8 if turns else 1):
        for later, asked in enumerate(turned(hashes, turn)):
            close = np.unpackbits(asked ^ hashes[:later], axis=1).sum(axis=1) <= 90
            expected |= {(later, int(earlier)) for earlier in np.nonzero(close)[0]}
    found = list(close_pairs(hashes, 90, turns))
    assert {(later, earlier) for later, earlier, _, _ in found} == expected and len(found) == len(expected) >= 100


def test_flat_picture_has_no_hash(make_photo):
    assert descriptors(read_photo(make_photo("a.png", image=Image.new("RGB", (600, 600), "red")))) is None


@pytest.fixture
def burst(make_photo):
    """Four photos of one moment: a ball flies through the scene of photo_1.jpg."""
    for number in range(4):
        scene = PHOTO.copy()
        ImageDraw.Draw(scene).ellipse((40 + 130 * number, 150, 230 + 130 * number, 340), fill=(250, 250, 20), outline="black", width=6)
        make_photo(f"ball_{number}.jpg", image=scene, quality=92)


def test_moments_of_a_burst_are_no_copies(curated, burst):
    found = verdicts_of(curated("dedupe"))
    assert all(of is None for _, _, of in found.values())


def test_of_a_burst_so_many_are_kept_as_are_wanted(curated, burst):
    found = verdicts_of(curated("dedupe", **{"dedupe.keep_of_burst": 2, "dedupe.burst_distance": 100}))
    burst_of = [file for file, (_, reasons, _) in found.items() if reasons == ["burst"]]
    assert len(burst_of) == 3 and all(file.startswith("ball_") or file == "photo_1.jpg" for file in burst_of)


def test_other_limits_open_no_photo_again(curated, make_photo, burst, monkeypatch):
    project = curated("dedupe")
    assert any(r.get("compared") for r in project.manifest)
    monkeypatch.setattr("lorakit.curate.compare.read_photo", lambda path: pytest.fail("opened again"))
    forget_prepared()
    again = open_project(project.folder, settings={"dedupe.sure": 40, "check.size.min_side": 300})
    pipeline.walk(again, last="dedupe")
    assert all(of is None for _, _, of in verdicts_of(again).values())


def test_same_picture_is_seen_behind_a_letterbox_and_another_is_not(make_photo):
    photo = draw_photo(7, (900, 700))
    framed = ImageOps.expand(photo, (0, 56), "black")
    left, right, other = (
        make_photo("a.jpg", image=photo),
        make_photo("b.jpg", image=framed),
        make_photo("c.jpg", 8, (900, 700)),
    )
    assert is_same_picture(compare(right, left, 0)) and not is_same_picture(compare(other, left, 0))
    assert compare(left, left.with_name("gone.jpg"), 0) == (0, 0.0, 0.0, 0.0, None)


def figure(shirt="navy", mouth="smile", arm=False) -> Image.Image:
    """One body in one pose, on white."""
    page = Image.new("RGB", (640, 900), "white")
    pen = ImageDraw.Draw(page)
    if arm:
        pen.polygon([(400, 440), (560, 230), (600, 260), (440, 500)], fill="tan", outline="black")
    pen.polygon([(200, 420), (440, 420), (500, 860), (140, 860)], fill=shirt, outline="black")
    pen.ellipse((210, 110, 430, 410), fill=(250, 215, 190), outline="black")
    pen.pieslice((195, 80, 445, 330), 180, 360, fill="brown", outline="black")
    for x in (260, 350):
        pen.ellipse((x, 240, x + 34, 270), fill="white", outline="black")
    pen.chord((270, 310, 370, 370), 0, 180, fill="red") if mouth == "smile" else pen.ellipse((290, 320, 350, 390), fill="black")
    return page


@pytest.mark.parametrize("other", [{"shirt": "darkred"}, {"mouth": "open"}, {"arm": True}])
@pytest.mark.parametrize("turn", [0, 1])
def test_another_face_shirt_or_arm_is_another_picture(make_photo, other, turn):
    left = make_photo("a.png", image=ImageOps.mirror(figure(**other)) if turn else figure(**other))
    found = compare(left, make_photo("b.png", image=figure()), turn)
    assert is_another(found) and not is_same_picture(found)


@pytest.mark.parametrize("side", [240, 900])
def test_a_small_other_place_in_a_photo_is_another_picture_and_a_watermark_is_none(make_photo, side):
    """Of a smaller copy too."""
    photo = draw_photo(9, (900, 900))
    whole, scale = make_photo("a.jpg", image=photo, quality=95), side / 900
    other, marked = photo.copy(), photo.resize((side, side))
    face = Image.new("RGB", (96, 96), tuple(255 - value for value in photo.resize((1, 1), box=(400, 300, 496, 396)).getpixel((0, 0))))
    other.paste(face, (400, 300), Image.new("L", face.size, 255))
    ImageDraw.Draw(marked).text((side // 8, side // 2), "SAMPLE", fill="white", font_size=round(75 * scale))
    assert is_another(compare(make_photo("b.jpg", image=other.resize((side, side)), quality=90), whole, 0))
    assert not is_another(compare(make_photo("c.jpg", image=marked, quality=90), whole, 0))


@pytest.mark.parametrize("edit", [*EDITS.values(), ImageOps.mirror])
def test_an_edited_figure_is_no_other_picture(make_photo, edit):
    left = make_photo("a.jpg", image=edit(figure()).convert("RGB"), quality=60)
    assert not is_another(compare(left, make_photo("b.png", image=figure()), int(edit is ImageOps.mirror)))


def test_a_picture_of_one_row_is_not_blown_up(make_photo):
    prepared = _prepare(make_photo("a.png", image=draw_photo(1).resize((20000, 2))), 0)
    assert prepared.gray.size <= SIDE * LONGEST and prepared.colours.size <= 3 * SIDE * LONGEST
    descriptors = prepared.descriptors.nbytes if prepared.descriptors is not None else 0
    assert KEPT * (4 * SIDE * LONGEST + prepared.points.nbytes + descriptors) < 256 << 20  # all that is kept ready


def test_kept_photo_has_the_caption_and_mask_of_its_copy(curated, make_photo, tmp_path):
    """What lies beside the copy that is left out is not lost, follows what is edited there, and status says whose it is."""
    photos = tmp_path / "photos"
    picture = draw_photo(50, (900, 720))
    make_photo("big.jpg", image=picture, quality=95)
    make_photo("small/big.jpg", image=picture.resize((675, 540)), quality=92)
    Image.new("L", (675, 540), 255).save(photos / "small" / "big_mask.png")
    (photos / "small" / "big.txt").write_text("own words")
    (photos / "photo_0.txt").write_text("of its own")
    project = curated("dedupe")
    found = {r["file"]: r for r in project.manifest}
    assert found["small/big.jpg"]["dedupe"]["of"] == found["big.jpg"]["id"]
    assert sidecar_of(found["big.jpg"]) == {"text": "own words", "file": "big.txt"}
    told = {p["file"]: p for p in pipeline.status(project)["photos"]}
    assert told["big.jpg"]["caption_of"] == told["big.jpg"]["mask_of"] == "small/big.jpg"
    assert told["photo_0.jpg"]["caption_of"] is None
    (photos / "small" / "big.txt").write_text("other words")
    pipeline.walk(project, last="dedupe")
    assert sidecar_of({r["file"]: r for r in project.manifest}["big.jpg"])["text"] == "other words"
    (photos / "big.txt").write_text("its own")
    pipeline.walk(project, last="dedupe")
    assert sidecar_of({r["file"]: r for r in project.manifest}["big.jpg"])["text"] == "its own"


@pytest.mark.parametrize(
    ("how", "size", "fits"),
    [
        ({"reason": "duplicate", "distance": 0}, (900, 720), True),
        ({"reason": "near_duplicate", "distance": 10}, (450, 360), True),
        ({"reason": "near_duplicate", "distance": 80}, (450, 360), False),
        ({"reason": "near_duplicate", "distance": 10}, (450, 300), False),
        ({"reason": "mirrored", "distance": 10}, (900, 720), False),
    ],
)
def test_a_mask_is_taken_over_where_it_lies_over_the_same_frame(how, size, fits):
    kept = {"id": "1", "file": "a.jpg", "measures": {"size": {"width": 900, "height": 720}}, "dedupe": {"of": None}}
    copy = {
        "id": "2",
        "file": "b.jpg",
        "measures": {"size": dict(zip(("width", "height"), size, strict=True))},
        "dedupe": {"of": "1", **how},
    }
    found, unused = inherited([kept, {**copy, "mask": {"path": "b_mask.png", "hash": "x"}}])
    assert (found.get("1", {}).get("mask_of") == "2") == fits and (unused == ["b.jpg"]) != fits
