"""The checks: what is wrong with a photo is found and named, and a changed limit opens no photo."""

import _thread
import io
import time

import numpy as np
import pytest
from PIL import Image, ImageDraw

import lorakit
from lorakit import open_project, pipeline
from lorakit.ahead import Threads
from lorakit.curate import check as check_stage
from lorakit.curate.check import measure
from lorakit.quality import verdicts
from lorakit.settings import resolve
from tests.conftest import draw_photo


def reasons(path, **settings) -> dict[str, str]:
    """{reason: verdict} of one photo file."""
    found = verdicts.judge(measure(path), resolve([("test", settings)]))
    return {r.reason: r.verdict for r in found.reasons}


def test_good_photo_has_nothing_against_it(make_photo):
    assert reasons(make_photo("a.jpg", 1, (900, 700))) == {}


@pytest.mark.parametrize("size, reason", [((300, 400), "too_small"), ((2400, 600), "too_narrow")])
def test_size(make_photo, size, reason):
    assert reasons(make_photo("a.jpg", 1, size))[reason] == "reject"


def test_smallest_side_can_be_set(make_photo):
    path = make_photo("a.jpg", 1, (600, 540))
    assert "too_small" not in reasons(path) and "too_small" in reasons(path, **{"check.size.min_side": 541})


@pytest.mark.parametrize(
    "change, reason, verdict",
    [
        (lambda p: p // 12, "too_dark", "reject"),
        (lambda p: np.full_like(p, 128), "flat", "reject"),
        (lambda p: np.clip(p.astype(int) * 4 + 150, 0, 255), "too_bright", "reject"),
        (lambda p: p // 8 + 110, "low_contrast", "warn"),
        (lambda p: p // 2, "dark", "warn"),
    ],
)
def test_exposure(make_photo, change, reason, verdict):
    pixels = change(np.asarray(draw_photo(2, (900, 700)))).astype(np.uint8)
    assert reasons(make_photo("a.png", image=Image.fromarray(pixels)))[reason] == verdict


def test_rotten_jpeg_is_rejected_by_the_tear_in_its_picture(make_photo):
    path = make_photo("a.jpg", 4, (900, 700))
    data = bytearray(path.read_bytes())
    for at in range(len(data) // 2, len(data) // 2 + 400, 7):
        data[at] ^= 0x55
    path.write_bytes(data)
    assert reasons(path) == {"damaged": "reject"}


def test_complaint_about_a_whole_picture_only_warns(make_photo):
    path = make_photo("a.jpg", image=Image.effect_noise((900, 700), 60).convert("RGB"))
    data = path.read_bytes()
    at = data.index(b"\xff\xdb")
    path.write_bytes(data[:at] + b"\0\0" + data[at:])
    assert reasons(path)["decoder_warning"] == "warn" and "damaged" not in reasons(path)
    assert reasons(path, **{"check.damaged.max_seam": 0.0})["damaged"] == "reject"


def test_animation_warns(make_photo, tmp_path):
    buffer = io.BytesIO()
    draw_photo(1).save(buffer, "WEBP", save_all=True, append_images=[draw_photo(2)], duration=100)
    (tmp_path / "a.webp").write_bytes(buffer.getvalue())
    assert reasons(tmp_path / "a.webp")["animated"] == "warn"


def test_tiny_and_long_pictures_break_no_check(make_photo):
    for size in ((1, 1), (2, 3000), (3000, 3), (40, 40)):
        assert reasons(make_photo("a.png", image=Image.new("RGB", size, (9, 80, 20))))["too_small"] == "reject"


def test_one_bad_file_does_not_stop_the_others(curated, tmp_path):
    (tmp_path / "photos" / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    project = curated()
    lorakit.scan(project)
    lorakit.check(project)
    found = pipeline.status(project)
    assert found["stages"]["check"] == {"done": 7, "pending": 0, "failed": 0}
    assert [p["file"] for p in found["photos"] if p["verdict"] == "reject"] == ["bad.jpg"]


def test_photo_that_vanishes_before_it_is_measured(curated, tmp_path):
    project = curated()
    lorakit.scan(project)
    (tmp_path / "photos" / "photo_3.jpg").unlink()
    lorakit.check(project)
    gone = next(p for p in pipeline.status(project)["photos"] if p["file"] == "photo_3.jpg")
    assert gone["verdict"] == "reject" and gone["reasons"][0]["reason"] == "unreadable"


def test_second_check_opens_no_photo(curated, monkeypatch):
    project = curated()
    lorakit.scan(project)
    lorakit.check(project)
    monkeypatch.setattr("lorakit.curate.check.read_photo", lambda path: pytest.fail("opened again"))
    lorakit.check(project)


def test_borders_are_found_with_the_box_inside_them(make_photo):
    framed = Image.new("RGB", (900, 900), "black")
    framed.paste(draw_photo(5, (900, 700)), (0, 100))
    path = make_photo("a.jpg", image=framed)
    left, top, right, bottom = measure(path)["measures"]["borders"]["box"]
    assert (left, right) == (0, 900) and abs(top - 100) <= 3 and abs(bottom - 800) <= 3
    assert reasons(path)["borders"] == "warn"


def test_white_background_is_no_border(make_photo):
    product = Image.new("RGB", (900, 900), "white")
    product.paste(draw_photo(5, (300, 300)), (300, 300))
    assert "borders" not in reasons(make_photo("a.jpg", image=product))


def test_paper_around_a_packet_with_a_straight_edge_is_no_border(make_photo):
    product, shape = Image.new("RGB", (900, 900), "white"), Image.new("L", (900, 900), 0)
    ImageDraw.Draw(shape).polygon([(130, 200), (770, 200), (700, 760), (200, 760)], fill=255)
    product.paste(draw_photo(5, (900, 900)), mask=shape)
    assert "borders" not in reasons(make_photo("a.jpg", image=product))


def test_compressed_and_transparent_photos_warn(make_photo):
    photo = draw_photo(6, (900, 700))
    assert reasons(make_photo("poor.jpg", image=photo, quality=15))["compressed"] == "warn"
    assert reasons(make_photo("poorest.jpg", image=photo, quality=6))["over_compressed"] == "reject"
    photo.putalpha(Image.linear_gradient("L").resize(photo.size))
    assert reasons(make_photo("see-through.png", image=photo))["transparent"] == "warn"


def test_grayscale_photo_warns_in_a_coloured_set_only(curated, make_photo, tmp_path):
    make_photo("gray.jpg", image=draw_photo(7).convert("L"))
    photos = {p["file"]: p for p in pipeline.status(curated("select"))["photos"]}
    assert photos["gray.jpg"]["verdict"] == "warn" and photos["gray.jpg"]["selected"]
    assert {"reason": "grayscale", "value": 0, "threshold": 8} in photos["gray.jpg"]["reasons"]
    assert all(photo["verdict"] == "keep" for name, photo in photos.items() if name != "gray.jpg")
    for number in range(8, 15):
        make_photo(f"gray_{number}.jpg", image=draw_photo(number).convert("L"))
    project = lorakit.open_project(tmp_path / "project")
    pipeline.walk(project, last="select")
    assert all(photo["verdict"] == "keep" for photo in pipeline.status(project)["photos"])


def test_rejected_photos_say_nothing_about_the_set(curated, make_photo):
    for number in range(8, 20):
        make_photo(f"tiny_gray_{number}.jpg", image=draw_photo(number, (90, 70)).convert("L"))
    make_photo("gray.jpg", image=draw_photo(7).convert("L"))
    photos = {p["file"]: p for p in pipeline.status(curated("dedupe"))["photos"]}
    assert [r["reason"] for r in photos["gray.jpg"]["reasons"]] == ["grayscale"]
    assert "grayscale" not in [r["reason"] for r in photos["tiny_gray_9.jpg"]["reasons"]]


def test_the_one_photo_of_another_aspect_warns():
    def records(*sizes):
        return [{"id": str(n), "measures": {"size": {"width": w, "height": h}}} for n, (w, h) in enumerate(sizes)]

    defaults = resolve([])
    set_of = [(900, 600)] * 8 + [(800, 600)] * 2
    assert verdicts.odd_ones(records(*set_of, (600, 1300)), defaults) == {"10": [verdicts.Reason("warn", "odd_aspect", 0.46, 1.5)]}
    assert verdicts.odd_ones(records(*set_of, (600, 1300), (600, 1300)), defaults) == {}
    assert verdicts.odd_ones(records(*set_of, (700, 700)), defaults) == {}
    assert verdicts.odd_ones([], defaults) == {}


@pytest.mark.parametrize(
    ("told", "taken"),
    [
        ("2026:05:31 18:30:00", "2026-05-31T18:30:00"),
        ("2026:05:31 18:30:00\0", "2026-05-31T18:30:00"),
        ("0000:00:00 00:00:00", None),
        ("soon", None),
    ],
)
def test_time_of_a_photo_is_its_cameras(make_photo, told, taken):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = told
    assert measure(make_photo("a.jpg", 1, exif=exif))["measures"]["moment"] == {"taken": taken}
    assert measure(make_photo("b.jpg", 1))["measures"]["moment"] == {"taken": None}


def test_ctrl_c_in_the_middle_keeps_what_was_measured(curated, make_photo, tmp_path, monkeypatch):
    for number in range(60):
        make_photo(f"small_{number}.jpg", seed=number, size=(120, 100))
    looked_at = []

    def measure_until_interrupted(path):
        looked_at.append(path)
        if len(looked_at) == 25:
            _thread.interrupt_main()  # what Ctrl-C does
        time.sleep(0.005)
        return measure(path)

    monkeypatch.setattr(check_stage, "measure", measure_until_interrupted)
    with pytest.raises(KeyboardInterrupt):
        curated("check")
    before = len(looked_at)
    assert before < 40, "the queue was not worked off"
    project = open_project(tmp_path / "project")
    pipeline.walk(project, last="check")
    assert all(r["measures"] for r in project.manifest) and len(project.manifest) == 66
    lost = len(looked_at) - 66
    assert lost <= 8, "only those in hand are measured again"


def test_one_slow_photo_does_not_hold_up_the_others(curated, make_photo, monkeypatch):
    for number in range(20):
        make_photo(f"z_{number}.jpg", seed=number, size=(120, 100))
    finished = []

    def slow_first(path):
        if path.name == "photo_0.jpg":
            time.sleep(1.0)
        finished.append(path.name)
        return {"measures": {}, "look": None}

    monkeypatch.setattr(check_stage, "measure", slow_first)
    monkeypatch.setattr(Threads.__init__, "__defaults__", (2,))
    curated("check")
    assert finished[-1] == "photo_0.jpg"


def test_other_tools_can_compare_the_hash(make_photo, curated):
    """It is imagehash's own of the shrunken gray copy, and within 2 bits that of the file; it stands in no stamp."""
    import imagehash
    from PIL import Image

    for seed in range(4):
        path = make_photo(f"p{seed}.jpg", seed, (900, 700))
        with Image.open(path) as image:
            assert imagehash.hex_to_hash(measure(path)["phash"]) - imagehash.phash(image) <= 2
    project = curated("check")
    assert all(len(photo["phash"]) == 16 for photo in pipeline.status(project)["photos"])
    for record in list(project.manifest):
        project.manifest.keep({key: value for key, value in record.items() if key != "phash"})
    assert pipeline.progress_of(project, "check")["pending"] == 0 and pipeline.status(project)["photos"][0]["phash"] is None
