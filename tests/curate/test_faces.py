"""Faces: judged from what is stored, kept whole by the crop; found by the detector where its weights are installed."""

import pytest
from PIL import Image, ImageDraw, ImageFilter

from lorakit import lookup, pipeline
from lorakit.curate.check import measure
from lorakit.curate.checks import faces
from lorakit.curate.crop import place
from lorakit.project import catalog
from lorakit.quality import coverage, verdicts
from lorakit.settings import resolve
from tests.conftest import draw_photo


def reasons(count: int, **settings) -> list[tuple]:
    record = {"id": "a", "measures": {"faces": {"count": count, "boxes": [[0, 0, 9, 9]] * count}}}
    return [(r.verdict, r.reason, r.value, r.threshold) for r in verdicts.judge(record, resolve([("test", settings)])).reasons]


def test_only_a_kind_that_wants_faces_counts_them():
    assert reasons(0) == reasons(1) == reasons(5) == []
    likeness = catalog.kind("likeness").settings
    assert reasons(0, **likeness) == [("warn", "no_face", 0, 1)]
    assert reasons(1, **likeness) == []
    assert reasons(3, **likeness) == [("warn", "many_faces", 3, 1)]
    assert reasons(1, **{"check.faces.least": 2}) == [("warn", "few_faces", 1, 2)]


def record_of(size: tuple[int, int], boxes: list[list[int]]) -> dict:
    """A photo whose eye-catching part lies at its right and lower end, with faces."""
    looked = {"columns": ("00" * 24) + "ff" * 8, "rows": ("00" * 24) + "ff" * 8}
    return {"measures": {"size": {"width": size[0], "height": size[1]}, "faces": {"count": len(boxes), "boxes": boxes}}, "look": looked}


def holds(box, face) -> bool:
    return box[0] <= face[0] and box[1] <= face[1] and box[2] >= face[2] and box[3] >= face[3]


@pytest.mark.parametrize("left", [0, 150, 700, 1400, 1900])
def test_a_face_stays_whole_wherever_it_is(left):
    wide, face = (2000, 500), [left, 150, left + 90, 270]
    box = place((0, 0, *wide), (512, 512), record_of(wide, [face]))
    assert holds(box, face) and box[3] - box[1] == box[2] - box[0] == 500
    assert box[0] >= 0 and box[2] <= 2000


def test_without_faces_or_with_them_switched_off_the_eye_decides():
    wide, face = (2000, 500), [100, 150, 190, 270]
    by_eye = place((0, 0, *wide), (512, 512), record_of(wide, []))
    assert by_eye[0] > 1400
    assert place((0, 0, *wide), (512, 512), record_of(wide, [face]), with_faces=False) == by_eye


def test_a_face_that_is_in_the_box_anyway_does_not_move_it():
    wide = (2000, 500)
    by_eye = place((0, 0, *wide), (512, 512), record_of(wide, []))
    assert place((0, 0, *wide), (512, 512), record_of(wide, [[1700, 200, 1760, 280]])) == by_eye


def test_hair_and_chin_stay_in_an_upright_photo():
    tall, face = (500, 2000), [200, 300, 300, 440]
    box = place((0, 0, *tall), (512, 512), record_of(tall, [face]))
    assert box[1] <= 300 - 60 and box[3] >= 440 + 40


def test_of_several_faces_all_that_fit_are_kept_and_the_largest_first():
    wide = (2000, 500)
    large, near, far = [1000, 150, 1120, 300], [700, 150, 800, 280], [60, 150, 150, 270]
    box = place((0, 0, *wide), (512, 512), record_of(wide, [large, near, far]))
    assert holds(box, large) and holds(box, near) and not holds(box, far)


def test_a_face_larger_than_the_box_is_cut_evenly():
    tall, face = (500, 2000), [100, 700, 400, 1300]
    top, bottom = place((0, 0, *tall), (512, 512), record_of(tall, [face]))[1::2]
    assert abs((top + bottom) / 2 - (700 - 300 + 1300 + 200) / 2) <= 1


def test_borders_stay_out_whatever_the_faces_say():
    region = (0, 130, 800, 770)
    box = place(region, (512, 512), record_of((800, 900), [[0, 100, 90, 220]]))
    assert box[0] == 0 and box[1] >= 130 and box[3] <= 770


def test_the_stage_crop_keeps_stored_faces_and_is_done_again_when_they_are_found(curated, make_photo):
    make_photo("wide.jpg", 40, (1600, 640), quality=92)
    project = curated("crop", **{"crop.max_aspect": 1.0})
    record = next(r for r in project.manifest if r["file"] == "wide.jpg")
    free = record["crop"]["box"]
    face = [10, 200, 90, 300] if free[0] > 400 else [1500, 200, 1580, 300]
    project.manifest.keep({**record, "measures": {**record["measures"], "faces": {"count": 1, "boxes": [face]}}})
    assert pipeline.progress_of(project, "crop")["pending"] == 1
    pipeline.walk(project, first="crop", last="crop")
    assert holds(project.manifest[record["id"]]["crop"]["box"], face)


def taken_from(*heights: float) -> list[dict]:
    """Photos of 1000 px height in which the largest face fills these shares of it; 0 for none found."""
    sizes = [(800, 1000), (1100, 1000), (1000, 1000)]
    return [
        {
            "measures": {
                "size": dict(zip(("width", "height"), sizes[n % 3])),
                "exposure": {"p50": (60, 120, 180)[n % 3]},
                "colour": {"chroma": 90},
                "faces": {"count": int(share > 0), "boxes": [[100, 100, 200, 100 + round(1000 * share)]] if share else []},
            }
        }
        for n, share in enumerate(heights)
    ]


def lacks(chosen: list[dict], kind: str = "likeness") -> list[str]:
    found = catalog.kind(kind)
    return coverage.find(chosen, found, resolve([("kind", found.settings), ("test", {"select.wanted": 5, "select.least": 5})]))


def test_a_likeness_is_told_which_distances_it_lacks():
    assert lacks(taken_from(0.1, 0.2, 0.2, 0.4, 0.5)) == []
    assert lacks(taken_from(0.2, 0.25, 0.3, 0.4, 0.5)) == [
        "no photo shows the whole figure (the smallest face fills 20% of its photo's height)"
    ]
    assert lacks(taken_from(0.1, 0.12, 0.2, 0.2, 0.2)) == [
        "no photo shows the face from near (the largest fills 20% of its photo's height)"
    ]
    assert lacks(taken_from(0, 0, 0, 0, 0)) == ["no face was found in any of 5 photos"]


def test_what_cannot_be_known_of_distances_is_not_said():
    assert lacks(taken_from(0, 0.25, 0.3, 0.4, 0.5)) == [], "one of them may be a whole figure from behind"
    assert lacks(taken_from(0.2, 0.25, 0.25, 0.25, 0.25), "object") == []
    unknown = [{"measures": {k: v for k, v in r["measures"].items() if k != "faces"}} for r in taken_from(0.2, 0.2, 0.2, 0.2, 0.2)]
    assert lacks(unknown) == [], "faces were not looked for"


@pytest.fixture(scope="module")
def detector():
    for name in faces.NEEDS:
        pytest.importorskip(name)
    assert lookup.is_installed(faces)


def with_face(size: tuple[int, int], left: int, top: int, height: int) -> Image.Image:
    """A photo with a drawn face of so many pixels from forehead to chin."""
    photo, width = draw_photo(3, size).filter(ImageFilter.GaussianBlur(2)), height * 0.74
    draw = ImageDraw.Draw(photo)

    def oval(x: float, y: float, across: float, down: float, colour: tuple) -> None:
        draw.ellipse(
            (left + (x - across) * width, top + (y - down) * height, left + (x + across) * width, top + (y + down) * height), fill=colour
        )

    oval(0.5, 0.42, 0.62, 0.6, (60, 40, 30))
    oval(0.5, 0.5, 0.5, 0.5, (214, 170, 140))
    for eye in (0.3, 0.7):
        oval(eye, 0.43, 0.1, 0.045, (245, 245, 245))
        oval(eye, 0.43, 0.045, 0.042, (50, 30, 20))
        brow = (left + (eye - 0.14) * width, top + 0.3 * height, left + (eye + 0.14) * width, top + 0.42 * height)
        draw.arc(brow, 200, 340, fill=(60, 40, 30), width=max(2, height // 40))
    draw.polygon([(left + x * width, top + y * height) for x, y in ((0.5, 0.45), (0.43, 0.63), (0.57, 0.63))], fill=(198, 150, 122))
    oval(0.5, 0.63, 0.08, 0.035, (185, 130, 105))
    oval(0.5, 0.77, 0.17, 0.04, (160, 70, 70))
    return photo.filter(ImageFilter.GaussianBlur(height / 100))


@pytest.mark.parametrize(
    ("size", "left", "top", "height"), [((768, 512), 300, 120, 160), ((768, 512), 60, 60, 250), ((1536, 2048), 900, 300, 600)]
)
def test_a_face_is_found_where_it_is(detector, make_photo, size, left, top, height):
    measures = measure(make_photo("a.jpg", image=with_face(size, left, top, height), quality=92))["measures"]["faces"]
    assert measures["count"] == 1
    found, drawn = measures["boxes"][0], (left, top, left + round(height * 0.74), top + height)
    assert all(abs(a - b) < 0.2 * height for a, b in zip(found, drawn, strict=True)), (found, drawn)


def test_pictures_without_a_face_have_none(detector, make_photo):
    for seed in range(4):
        assert measure(make_photo("a.jpg", seed, (800, 640)))["measures"]["faces"] == {"count": 0, "boxes": []}
    for size in ((1, 1), (2, 3000), (40, 40)):
        assert measure(make_photo("a.png", image=Image.new("RGB", size, (9, 80, 20))))["measures"]["faces"]["count"] == 0


def test_faces_are_found_upright_in_a_turned_file(detector, make_photo):
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = with_face((512, 768), 150, 200, 200)
    path = make_photo("turned.jpg", image=upright.rotate(90, expand=True), exif=exif.tobytes(), quality=92)
    (box,) = measure(path)["measures"]["faces"]["boxes"]
    assert abs(box[0] - 150) < 40 and abs(box[1] - 200) < 40
