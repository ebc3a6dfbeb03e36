"""Photo files of every kind come out upright, in the right colours, or with a one-word reason."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from lorakit.curate.checks import colour
from lorakit.errors import UnreadablePhoto
from lorakit.photos.decode import load_alpha, load_image, load_reduced, sniff
from lorakit.photos.photo import WORKING_SIDE, read_photo
from tests.conftest import draw_photo


def colours_of(path) -> np.ndarray:
    """Mean colour of the four quarters of the whole photo, [2, 2, 3]."""
    return np.asarray(load_image(path).resize((2, 2), Image.Resampling.BOX)).astype(int)


@pytest.fixture
def quarters() -> Image.Image:
    """Red, green, blue and grey quarters on a landscape picture: every wrong turn and channel shows."""
    picture = np.zeros((600, 800, 3), np.uint8)
    picture[:300, :400], picture[:300, 400:], picture[300:, :400], picture[300:, 400:] = (
        (200, 30, 30),
        (30, 180, 30),
        (30, 30, 200),
        (128,) * 3,
    )
    return Image.fromarray(picture)


STORED = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
          5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270}  # fmt: skip


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
def test_exif_turns_are_undone(tmp_path, quarters, orientation, ending):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = quarters.transpose(STORED[orientation]) if orientation > 1 else quarters
    stored.save(tmp_path / f"a.{ending}", exif=exif.tobytes(), quality=95)
    photo = read_photo(tmp_path / f"a.{ending}")
    assert (photo.width, photo.height) == (800, 600) and photo.gray.shape[1] > photo.gray.shape[0]
    assert np.abs(colours_of(tmp_path / f"a.{ending}") - np.asarray(quarters.resize((2, 2), Image.Resampling.BOX))).max() < 6
    assert np.abs(photo.colours[5, 5].astype(int) - (200, 30, 30)).max() < 12


@pytest.mark.parametrize("orientation", [0, 99])
def test_senseless_orientation_is_passed_over(tmp_path, quarters, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    quarters.save(tmp_path / "a.jpg", exif=exif.tobytes())
    assert read_photo(tmp_path / "a.jpg").width == 800


def test_broken_exif_and_profile_are_no_reason_to_refuse(tmp_path, quarters):
    quarters.save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\xde\xad" * 40, icc_profile=b"BROKEN" * 50)
    assert read_photo(tmp_path / "a.jpg").warning == ""


@pytest.mark.parametrize("mode, ending", [("L", "jpg"), ("CMYK", "jpg"), ("P", "png"), ("LA", "png"), ("RGBA", "png"), ("RGB", "bmp"),
                                          ("RGB", "tiff"), ("CMYK", "tiff"), ("RGB", "gif"), ("RGB", "avif"), ("RGB", "webp")])  # fmt: skip
def test_modes_keep_their_colours(tmp_path, quarters, mode, ending):
    path = tmp_path / f"a.{ending}"
    quarters.convert(mode).save(path)
    expected = quarters.convert("L").convert("RGB") if mode in ("L", "LA") else quarters
    found = colours_of(path)
    assert np.abs(found - np.asarray(expected.resize((2, 2), Image.Resampling.BOX))).max() < 10
    assert np.abs(read_photo(path).colours[5, 5].astype(int) - found[0, 0]).max() < 12


def test_heic_is_read(tmp_path, quarters):
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.from_pillow(quarters).save(tmp_path / "a.heic", quality=95)
    assert sniff(tmp_path / "a.heic") == "heic"
    assert np.abs(colours_of(tmp_path / "a.heic")[0, 0] - (200, 30, 30)).max() < 12


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path):
    ramp = np.tile(np.linspace(0, 65535, 700).astype(np.uint16), (600, 1))
    Image.fromarray(ramp).save(tmp_path / "a.png")
    gray = read_photo(tmp_path / "a.png").gray
    assert gray[0, 0] == 0 and gray[0, -1] == 255 and abs(int(gray[0, gray.shape[1] // 2]) - 128) < 3


def test_float_tiff_with_senseless_numbers_is_shown(tmp_path):
    values = np.tile(np.linspace(0, 1, 700, dtype=np.float32), (600, 1))
    values[0, :2] = np.nan, np.inf
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert abs(int(read_photo(tmp_path / "a.tif").gray[5, 299]) - 128) < 3


def test_transparency_shows_white_not_the_colour_beneath(tmp_path):
    pixels = np.full((600, 600, 4), (255, 0, 255, 0), np.uint8)
    pixels[200:400, 200:400] = (10, 120, 10, 255)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    photo = read_photo(tmp_path / "a.png")
    assert photo.transparent and photo.colours[5, 5].tolist() == [255, 255, 255] and photo.colours[150, 150].tolist() == [10, 120, 10]


def test_colour_profile_is_applied(tmp_path, quarters):
    """The reference is little-cms itself, asked directly."""
    swapped = ImageCms.ImageCmsProfile(io.BytesIO(_profile_with_red_and_green_swapped()))
    expected = ImageCms.profileToProfile(quarters, swapped, ImageCms.createProfile("sRGB"), outputMode="RGB")
    for name in ("a.jpg", "a.png"):
        quarters.save(tmp_path / name, icc_profile=swapped.tobytes(), quality=95)
        assert np.abs(colours_of(tmp_path / name) - np.asarray(expected.resize((2, 2), Image.Resampling.BOX))).max() < 8
        assert read_photo(tmp_path / name).colours[5, 5, 1] > 150


def _profile_with_red_and_green_swapped() -> bytes:
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(profile[128:132], "big")
    places = {bytes(profile[132 + 12 * i : 136 + 12 * i]): 132 + 12 * i for i in range(count)}
    red, green = places[b"rXYZ"], places[b"gXYZ"]
    profile[red + 4 : red + 12], profile[green + 4 : green + 12] = (
        profile[green + 4 : green + 12],
        profile[red + 4 : red + 12],
    )
    return bytes(profile).replace(b"s\0R\0G\0B", b"t\0e\0s\0t")


def test_content_counts_not_the_name(tmp_path, quarters):
    quarters.save(tmp_path / "a.png", "JPEG")
    quarters.save(tmp_path / "b", "PNG")
    assert read_photo(tmp_path / "a.png").format == "jpeg" and read_photo(tmp_path / "b").format == "png"


def jpeg(seed: int = 1, **options) -> bytes:
    buffer = io.BytesIO()
    draw_photo(seed, (900, 700)).save(buffer, "JPEG", quality=90, **options)
    return buffer.getvalue()


def png() -> bytes:
    buffer = io.BytesIO()
    draw_photo(1, (200, 200)).save(buffer, "PNG")
    return buffer.getvalue()


def with_wrong_checksum(data: bytes) -> bytes:
    at = data.index(b"IDAT") + 4 + int.from_bytes(data[data.index(b"IDAT") - 4 : data.index(b"IDAT")], "big")
    return data[:at] + bytes(b ^ 255 for b in data[at : at + 4]) + data[at + 4 :]


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "empty"),
        (b"holiday notes\n" * 50, "not_an_image"),
        (b"%PDF-1.7" + bytes(500), "not_an_image"),
        (b"\x89PNG\r\n\x1a\n", "damaged"),
        (jpeg()[:20000], "damaged"),
        (jpeg()[:-200], "damaged"),
        (png()[:-200], "damaged"),
        (with_wrong_checksum(png()), "damaged"),
        (b"RIFF\x99\0\0\0WEBPVP8 " + bytes(60), "damaged"),
    ],
)
def test_bad_file_gets_one_line_and_one_word(tmp_path, data, reason):
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(UnreadablePhoto) as caught:
        read_photo(tmp_path / "a.jpg")
    assert caught.value.reason == reason and "\n" not in caught.value.detail and "0x" not in caught.value.detail


def test_complaint_about_a_whole_picture_is_only_a_warning(tmp_path):
    data = jpeg()
    at = data.index(b"\xff\xdb")
    (tmp_path / "a.jpg").write_bytes(data[:at] + b"\0\0" + data[at:])
    assert "extraneous bytes" in read_photo(tmp_path / "a.jpg").warning


def test_trailing_bytes_are_no_fault(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg() + bytes(5000))
    assert read_photo(tmp_path / "a.jpg").warning == ""


def test_cmyk_jpeg_that_is_whole_has_no_complaint(tmp_path, quarters):
    quarters.resize((2200, 2100)).convert("CMYK").save(tmp_path / "a.jpg")
    photo = read_photo(tmp_path / "a.jpg")
    assert photo.warning == "" and (photo.width, photo.height) == (2200, 2100)


def test_bomb_is_refused_by_its_header(tmp_path):
    head = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head))
    pixels = struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + pixels)
    with pytest.raises(UnreadablePhoto, match="too_many_pixels"):
        read_photo(tmp_path / "a.png")


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_working_copies_have_one_size_at_any_resolution(tmp_path, ending):
    for side in (300, 1024, 1500, 2100):
        draw_photo(1, (600, 400)).resize((side * 5 // 4, side)).save(tmp_path / f"a.{ending}", compress_level=1)
        photo = read_photo(tmp_path / f"a.{ending}")
        assert min(photo.gray.shape) == min(WORKING_SIDE, side) and min(side, 256) <= min(photo.colours.shape[:2]) <= 512


def test_quality_of_a_jpeg_is_read_from_its_tables(tmp_path):
    for quality in (2, 6, 9, 30, 75, 95):
        draw_photo(1).save(tmp_path / "a.jpg", quality=quality)
        assert abs(read_photo(tmp_path / "a.jpg").jpeg_quality - quality) <= 1


@pytest.mark.parametrize("turn", [1, 6])
@pytest.mark.parametrize("scale, factor", [(1.0, 1), (0.6, 1), (0.5, 2), (0.3, 2), (0.2, 4), (0.01, 8)])
def test_reduced_photo_is_the_same_picture_with_fewer_pixels(make_photo, turn, scale, factor):
    exif = Image.Exif()
    exif[0x0112] = turn
    path = make_photo("a.jpg", image=draw_photo(5, (801, 603)), exif=exif, quality=95)
    reduced, found = load_reduced(path, scale)
    full = load_image(path)
    assert found == factor
    assert all(small == -(-large // factor) for small, large in zip(reduced.size, full.size, strict=True))
    shrunk = np.asarray(full.resize(reduced.size, Image.Resampling.BOX), dtype=float)
    assert np.abs(np.asarray(reduced, dtype=float) - shrunk).mean() < 4


def test_photo_that_no_decoder_shrinks_comes_whole(make_photo):
    path = make_photo("a.png", image=draw_photo(5, (400, 300)))
    assert (load_reduced(path, 0.1)[0].size, load_reduced(path, 0.1)[1]) == ((400, 300), 1)


def test_tiff_whose_second_frame_is_torn_is_damaged(make_photo):
    path = make_photo("a.tiff", image=draw_photo(5, (96, 80)))
    data = bytearray(path.read_bytes())
    (first,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, first)
    struct.pack_into("<I", data, first + 2 + 12 * entries, len(data))  # where the next frame's tags are to lie
    path.write_bytes(bytes(data) + bytes(6))  # none at all
    with pytest.raises(UnreadablePhoto, match="Missing dimensions"):
        read_photo(path)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["tif", "avif", "heic"])
def test_what_the_decoder_turned_is_not_turned_again(tmp_path, quarters, orientation, ending):
    pytest.importorskip("pillow_heif").register_heif_opener()
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = quarters.transpose(STORED[orientation]) if orientation > 1 else quarters
    path = tmp_path / f"a.{ending}"
    stored.save(path, exif=exif.tobytes(), **({} if ending == "tif" else {"quality": 95}))
    photo = read_photo(path)
    assert (photo.width, photo.height) == (800, 600)
    assert np.abs(photo.colours[5, 5].astype(int) - (200, 30, 30)).max() < 12
    for whole in (load_image(path), load_reduced(path, 0.5)[0]):
        assert whole.size == (800, 600)
        assert np.abs(np.asarray(whole.resize((2, 2), Image.Resampling.BOX))[0, 0].astype(int) - (200, 30, 30)).max() < 12


def test_transparency_of_a_turned_tiff_lies_over_it(tmp_path, quarters):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = quarters.copy()
    picture.putalpha(Image.new("L", picture.size, 255))
    picture.paste((0, 0, 0, 0), (0, 0, 400, 300))
    picture.transpose(STORED[6]).save(tmp_path / "a.tif", exif=exif)
    alpha = np.asarray(load_alpha(tmp_path / "a.tif"))
    assert alpha.shape == (600, 800) and alpha[10, 10] == 0 and alpha[10, 790] == alpha[590, 10] == 255
    assert read_photo(tmp_path / "a.tif").opaque[10, 10] == 0


def test_orientation_in_the_xmp_of_an_avif_counts_for_nothing(tmp_path, quarters):
    """Only irot and imir turn an AVIF (HEIF, ISO/IEC 23008-12)."""
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    xmp += b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
    quarters.save(tmp_path / "a.avif", xmp=xmp)
    assert read_photo(tmp_path / "a.avif").width == load_image(tmp_path / "a.avif").width == 800


# Colorants of Display P3 and BT.2020 in the profile connection space, as their published ICC profiles have them.
COLORANTS = {
    12: ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)),
    9: ((0.67348, 0.27904, -0.00194), (0.16566, 0.67535, 0.02998), (0.12505, 0.04561, 0.79686)),
}


def profile_of(primaries: int) -> ImageCms.ImageCmsProfile:
    """An ICC profile with these primaries and sRGB's curve."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(profile[128:132], "big")
    tags = {bytes(profile[132 + 12 * i : 136 + 12 * i]): 136 + 12 * i for i in range(count)}
    for name, xyz in zip((b"rXYZ", b"gXYZ", b"bXYZ"), COLORANTS[primaries], strict=True):
        at = int.from_bytes(profile[tags[name] : tags[name] + 4], "big")
        profile[at + 8 : at + 20] = struct.pack(">3i", *(round(part * 65536) for part in xyz))
    return ImageCms.ImageCmsProfile(io.BytesIO(bytes(profile).replace(b"s\0R\0G\0B", b"t\0e\0s\0t")))


def with_chunk(png_bytes: bytes, name: bytes, body: bytes) -> bytes:
    """A PNG with a further chunk behind its header."""
    chunk = struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    return png_bytes[:33] + chunk + png_bytes[33:]


def png_of(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def save_told(picture: Image.Image, path, primaries: int, transfer: int) -> None:
    """A picture whose numbers are told by H.273: cICP in a PNG, nclx in HEIC and AVIF."""
    if path.suffix == ".png":
        path.write_bytes(with_chunk(png_of(picture), b"cICP", bytes((primaries, transfer, 0, 1))))
    elif path.suffix == ".heic":
        heif = pytest.importorskip("pillow_heif")
        heif.from_pillow(picture).save(path, quality=-1, chroma=444, matrix_coefficients=6, color_primaries=primaries,
                                       transfer_characteristics=transfer, full_range_flag=1, save_nclx_profile=True)  # fmt: skip
    else:
        picture.save(path, quality=100, subsampling="4:4:4")
        data = path.read_bytes()
        at = data.index(b"colrnclx")
        path.write_bytes(data[: at + 8] + struct.pack(">HH", primaries, transfer) + data[at + 12 :])


@pytest.mark.parametrize("ending", ["png", "heic", "avif"])
@pytest.mark.parametrize("primaries", COLORANTS)
def test_primaries_told_by_h273_are_converted_as_lcms_converts_them(tmp_path, quarters, primaries, ending):
    muted = Image.fromarray((np.asarray(quarters) * 0.5 + 60).astype(np.uint8))  # within sRGB, for each has its own way to clip
    expected = ImageCms.profileToProfile(muted, profile_of(primaries), ImageCms.createProfile("sRGB"), outputMode="RGB")
    path = tmp_path / f"a.{ending}"
    save_told(muted, path, primaries, 13)
    wanted = np.asarray(expected.resize((2, 2), Image.Resampling.BOX)).astype(int)
    slack = 2 if ending == "png" else 5
    assert np.abs(colours_of(path) - wanted).max() <= slack and np.abs(wanted - np.asarray(muted)[5, 5]).max() > 8
    photo = read_photo(path)
    assert np.abs(photo.colours[5, 5].astype(int) - wanted[0, 0]).max() <= slack and photo.told == f"H.273 {primaries}/13"
    assert np.abs(np.asarray(load_reduced(path, 0.25)[0])[5, 5].astype(int) - wanted[0, 0]).max() <= slack


@pytest.mark.parametrize("transfer, white", [(16, 0.5807), (18, 0.75)])  # the codes of a white page (ITU-R BT.2408)
def test_hdr_is_tone_mapped_and_named(tmp_path, transfer, white):
    ramp = np.repeat(np.tile(np.arange(256, dtype=np.uint8), (512, 3))[:, :, None], 3, axis=2)
    save_told(Image.fromarray(ramp), tmp_path / "a.png", 9, transfer)
    shown = np.asarray(load_image(tmp_path / "a.png"))[0, :256].astype(int)
    assert (np.diff(shown[:, 0]) >= 0).all() and np.ptp(shown, axis=1).max() <= 1  # gray stays gray, brighter stays brighter
    assert 225 <= shown[round(white * 255), 0] <= 250 and shown[255, 0] >= 254 and shown[0, 0] == 0
    photo, name = read_photo(tmp_path / "a.png"), {16: "PQ", 18: "HLG"}[transfer]
    found = list(colour.judge(colour.measure(photo), colour.Settings()))
    assert photo.hdr == name and [(r.verdict, r.reason, r.value) for r in found] == [("warn", "hdr", f"{name}, tone-mapped to sRGB")]


def test_cicp_stands_above_a_profile_and_srgb_is_left_alone(tmp_path, quarters):
    buffer = io.BytesIO()
    quarters.save(buffer, "PNG", icc_profile=_profile_with_red_and_green_swapped())
    (tmp_path / "a.png").write_bytes(with_chunk(buffer.getvalue(), b"cICP", bytes((1, 13, 0, 1))))
    assert (np.asarray(load_image(tmp_path / "a.png")) == np.asarray(quarters)).all()


def test_gamma_and_chromaticities_of_a_png(tmp_path, quarters):
    linear = struct.pack(">I", 100000)
    (tmp_path / "a.png").write_bytes(with_chunk(png_of(quarters), b"gAMA", linear))
    assert abs(int(np.asarray(load_image(tmp_path / "a.png"))[590, 790, 0]) - 188) <= 1  # half the light
    usual = struct.pack(">I", 45455)
    (tmp_path / "b.png").write_bytes(with_chunk(png_of(quarters), b"gAMA", usual))
    assert (np.asarray(load_image(tmp_path / "b.png")) == np.asarray(quarters)).all()
    p3 = struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
    (tmp_path / "c.png").write_bytes(with_chunk(with_chunk(png_of(quarters), b"cHRM", p3), b"gAMA", usual))
    expected = ImageCms.profileToProfile(quarters, profile_of(12), ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert np.abs(np.asarray(load_image(tmp_path / "c.png")).astype(int) - np.asarray(expected)).max() <= 3


def test_adobe_rgb_told_by_exif_alone(tmp_path, quarters):
    exif = Image.Exif()
    exif[0x8769] = {0xA001: 0xFFFF, 0xA005: {1: "R03"}}
    quarters.save(tmp_path / "a.jpg", exif=exif.tobytes(), quality=95)
    found = colours_of(tmp_path / "a.jpg")
    assert found[0, 0, 0] > 225 and abs(found[1, 1] - 128).max() <= 2  # the same numbers are a deeper red; gray stays
    assert np.abs(read_photo(tmp_path / "a.jpg").colours[5, 5].astype(int) - found[0, 0]).max() < 8


def test_a_jpeg_2000_has_its_profile_applied(tmp_path, quarters):
    quarters.save(tmp_path / "a.jp2")
    data = (tmp_path / "a.jp2").read_bytes()
    at = data.index(b"colr") - 4
    size, head = int.from_bytes(data[at : at + 4], "big"), data.index(b"jp2h") - 4
    profile = b"colr\x02\0\0" + profile_of(12).tobytes()
    box = struct.pack(">I", len(profile) + 4) + profile
    grown = struct.pack(">I", int.from_bytes(data[head : head + 4], "big") + len(box) - size)
    (tmp_path / "a.jp2").write_bytes(data[:head] + grown + data[head + 4 : at] + box + data[at + size :])
    expected = ImageCms.profileToProfile(quarters, profile_of(12), ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert np.abs(colours_of(tmp_path / "a.jp2") - np.asarray(expected.resize((2, 2), Image.Resampling.BOX))).max() <= 4


def test_libraries_do_not_write_past_us_and_our_lines_stay(tmp_path):
    """In a process of its own: file descriptor 2 belongs to all of it."""
    script = """
import os, sys, threading
from lorakit.console import quiet_libraries, say
def decode(_):
    for _ in range(50):
        with quiet_libraries():
            os.write(2, b"libtiff: noise\\n")
threads = [threading.Thread(target=decode, args=(0,)) for _ in range(4)]
with quiet_libraries():
    [t.start() for t in threads]
    for number in range(50):
        say(f"line {number}")
    [t.join() for t in threads]
os.write(2, b"after\\n")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == [*(f"line {number}" for number in range(50)), "after"]
