"""Whatever is done to the bytes of a photo, it is either measured or refused with one word: nothing else comes out."""

import io
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lorakit.curate.check import measure
from lorakit.quality import verdicts
from lorakit.settings import resolve
from tests.conftest import draw_photo

REFUSED = {"damaged", "not_an_image", "empty", "too_many_pixels"}
DEFAULTS = resolve([])


def container(format: str, **options) -> bytes:
    buffer = io.BytesIO()
    draw_photo(1, (96, 80)).save(buffer, format, **options)
    return buffer.getvalue()


CONTAINERS = [
    container("JPEG"), container("JPEG", progressive=True), container("PNG"), container("WEBP"), container("GIF"), container("TIFF"),
    container("TIFF", compression="tiff_lzw"), container("BMP"), container("AVIF"), container("JPEG2000"),
    container("PNG", save_all=True, append_images=[draw_photo(2, (96, 80))]),
]  # fmt: skip


@st.composite
def torn_files(draw) -> bytes:
    """A real file with a few bytes changed, a piece cut out, doubled or filled with one value, or its end cut off."""
    data = bytearray(draw(st.sampled_from(CONTAINERS)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.one_of(st.integers(0, min(200, len(data))), st.integers(0, len(data))))
        stop = min(len(data), start + draw(st.integers(0, 64)))
        change = draw(st.sampled_from(("replace", "cut", "double", "fill", "end")))
        if change == "replace":
            data[start:stop] = draw(st.binary(min_size=stop - start, max_size=stop - start))
        elif change == "cut":
            del data[start:stop]
        elif change == "double":
            data[start:start] = data[start:stop]
        elif change == "fill":
            data[start:stop] = bytes([draw(st.integers(0, 255))]) * (stop - start)
        else:
            del data[start:]
    return bytes(data)


def check_file(data: bytes, folder) -> None:
    path = folder / "a.jpg"
    path.write_bytes(data)
    found = measure(path)
    json.dumps(found)
    if "unreadable" in found["measures"]["damaged"]:
        assert found["measures"]["damaged"]["unreadable"] in REFUSED
        assert "\n" not in found["measures"]["damaged"]["detail"]
    else:
        assert found["measures"]["size"]["width"] >= 1
    verdicts.judge(found, DEFAULTS)


@given(torn_files())
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_torn_files_are_measured_or_refused(tmp_path, data):
    check_file(data, tmp_path)


@pytest.mark.slow
@given(torn_files())
@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_many_torn_files_are_measured_or_refused(tmp_path, data):
    check_file(data, tmp_path)
