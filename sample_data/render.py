"""Renders the messy photo folder of the demo: a toy robot as a phone would have it, good shots and spoilt ones.

    python -m sample_data.render [--only IMG_2041.jpg ...]

Everything comes from `models/mini`'s world. `expected.json` says what curation should make of each file, and why.
"""

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pillow_heif
from PIL import Image

from models.mini.geometry import Camera, Placed, march
from models.mini.shading import shade
from models.mini.world import Look, Scene, draw_lights

HERE = Path(__file__).parent
SUPERSAMPLING = 1.4
NEARER = 0.82  # of the distances below: the robot as large as the figures that the base knows
ORIENTATION, MAKE, MODEL, TAKEN = 0x0112, 0x010F, 0x0110, 0x0132


@dataclass(frozen=True)
class Shot:
    """One press of the shutter. Angles are degrees; at `turn` 0 the robot faces the camera."""

    surface: str
    light: str
    turn: float
    elevation: float
    distance: float = 3.0
    size: tuple[int, int] = (1200, 900)
    aim: tuple[float, float] = (0.0, 0.5)  # to the side of the robot, and how high
    roll: float = 0.0
    wall: int = 0
    subject: str = "robot"
    colour: str = "red"
    seed: int = 0


GOOD = {
    "IMG_2041.jpg": Shot("wood", "soft light", 15, 14, wall=0, seed=11),
    "IMG_2042.jpg": Shot("grass", "bright sunlight", -35, 24, 3.3, (900, 1200), seed=12),
    "IMG_2043.jpg": Shot("white table", "studio light", 40, 33, 2.7, (1100, 1100), wall=2, seed=13),
    "IMG_2045.jpg": Shot("sand", "evening light", 5, 9, 3.1, (900, 1200), roll=2, seed=14),
    "IMG_2048.jpg": Shot("tiles", "soft light", -60, 38, 3.2, wall=3, seed=15),
    "IMG_2049.jpg": Shot("dark table", "studio light", 28, 18, 2.5, (900, 1200), (0.06, 0.55), wall=4, seed=16),
    "IMG_2052.jpg": Shot("snow", "bright sunlight", -18, 28, 3.4, (1280, 960), (-0.25, 0.5), seed=17),
    "IMG_2054.jpg": Shot("concrete", "soft light", 75, 16, 3.0, (900, 1200), roll=-3, seed=18),
    "IMG_2057.jpg": Shot("grass", "evening light", 22, 11, 2.8, (1280, 960), (0.22, 0.48), seed=19),
    "IMG_2058.jpg": Shot("wood", "bright sunlight", -8, 55, 3.0, (1024, 1024), wall=1, seed=20),
    "DSC_0007.JPG": Shot("white table", "soft light", -48, 20, 2.6, (1200, 800), (-0.15, 0.5), wall=0, seed=21),
    "Röbi im Garten.jpeg": Shot("grass", "soft light", 130, 30, 3.0, (960, 1280), seed=22),
    "IMG_2066.jpg": Shot("concrete", "bright sunlight", 10, 7, 2.1, (900, 1200), (0.0, 0.66), seed=23),
    "IMG_2068.webp": Shot("tiles", "studio light", 35, 45, 3.3, (1024, 768), wall=2, seed=24),
    "IMG_2071.HEIC": Shot("sand", "bright sunlight", -28, 20, 2.9, (1200, 900), (0.15, 0.5), seed=25),
    "IMG_2060.jpg": Shot("dark table", "soft light", -80, 22, 2.8, (900, 1200), wall=1, seed=26),  # stored on its side
}
BURST = replace(GOOD["IMG_2045.jpg"], turn=6.5, elevation=9.4, aim=(0.01, 0.503))
SPOILT = {
    "IMG_2044.jpg": Shot("wood", "studio light", 50, 26, 2.9, wall=2, seed=31),
    "IMG_2050.jpg": Shot("sand", "soft light", -30, 17, 3.0, (900, 1200), seed=32),
    "IMG_2051.jpg": Shot("tiles", "evening light", 12, 24, 3.0, wall=0, seed=33),
    "IMG_2053.jpg": Shot("wood", "evening light", -15, 20, 3.1, wall=3, seed=34),
    "IMG_2056.jpg": Shot("snow", "bright sunlight", 33, 34, 3.0, seed=35),
    "IMG_2061.jpg": Shot("grass", "soft light", 30, 22, 3.0, wall=4, subject="car", colour="red", seed=36),
    "IMG_2062.jpg": Shot("tiles", "studio light", 20, 25, 3.0, (900, 1200), wall=1, subject="mug", colour="yellow", seed=37),
    "IMG_2063.jpg": Shot("concrete", "evening light", -40, 25, 3.0, seed=38),
    "thumb_2064.jpg": Shot("grass", "soft light", -5, 20, 3.0, (200, 150), seed=39),
}


def compose(shot):
    """The scene and look of a shot."""
    rng = np.random.default_rng(shot.seed)
    azimuth = rng.uniform(0, 2 * np.pi)
    across = shot.aim[0] * np.array([np.cos(azimuth), np.sin(azimuth)])
    camera = Camera((*across, shot.aim[1]), azimuth, np.radians(shot.elevation), NEARER * shot.distance, 2.9, np.radians(shot.roll))
    things = (Placed(shot.subject, 0, 0, azimuth + np.radians(shot.turn)),)
    scene = Scene(things, camera, draw_lights(rng, azimuth))
    return scene, Look((shot.colour,), ("shiny",), shot.surface, shot.light, shot.wall, shot.seed)


def expose(shot):
    """The shot as the lens draws it: sRGB floats (H, W, 3)."""
    scene, look = compose(shot)
    width, height = (round(side * SUPERSAMPLING) for side in shot.size)
    buffers = march(scene.things, scene.camera, scene.lights, height, width)
    return vignette(cv2.resize(np.float32(shade(scene, look, buffers)), shot.size, interpolation=cv2.INTER_AREA))


def vignette(picture):
    height, width = picture.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return picture * (1 - 0.10 * (x * x + y * y))[..., None]


def develop(picture, seed, noise=0.011):
    """Sensor grain, then 8 bits. Grain goes on last: a sensor is sharp where the lens is not."""
    rng = np.random.default_rng(seed)
    luma = cv2.GaussianBlur(rng.normal(0, noise, picture.shape[:2]), (0, 0), 0.6) * 1.6
    chroma = cv2.GaussianBlur(rng.normal(0, noise, picture.shape), (0, 0), 1.2)
    return Image.fromarray(np.uint8((picture + luma[..., None] + chroma).clip(0, 1) * 255))


def defocus(picture, radius):
    """A disc for a blur kernel, as an open lens has it."""
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disc = np.float32(x * x + y * y <= radius * radius)
    return cv2.filter2D(picture, -1, disc / disc.sum())


def shake(picture, length, angle):
    """The hand moved by `length` pixels during the exposure."""
    kernel = np.zeros((length, length), np.float32)
    kernel[length // 2] = 1
    turned = cv2.warpAffine(kernel, cv2.getRotationMatrix2D((length / 2 - 0.5,) * 2, angle, 1), (length, length))
    return cv2.filter2D(picture, -1, turned / turned.sum())


def change_exposure(picture, factor):
    return np.clip(np.power(picture, 2.2) * factor, 0, 1) ** (1 / 2.2)


SPOIL = {
    "IMG_2044.jpg": lambda picture: defocus(picture, 11),
    "IMG_2050.jpg": lambda picture: defocus(picture, 16),
    "IMG_2051.jpg": lambda picture: shake(picture, 45, 25),
    "IMG_2053.jpg": lambda picture: change_exposure(picture, 0.012),
    "IMG_2056.jpg": lambda picture: change_exposure(picture, 25.0),
}


def save(image, path, seed, quality=86, **options):
    """Writes a photo with the few EXIF fields that a phone writes."""
    exif = Image.Exif()
    exif[MAKE], exif[MODEL] = "lorakit", "mini world"
    exif[TAKEN] = f"2026:05:14 10:{seed:02d}:00"
    if options.pop("sideways", False):
        image = image.transpose(Image.Transpose.ROTATE_90)
        exif[ORIENTATION] = 6  # "turn me 90 degrees clockwise to see me upright"
    image.save(path, exif=exif.tobytes(), quality=quality, **options)


def render_photo(name, folder):
    """Renders one of the shots above into the folder."""
    shot = GOOD.get(name) or SPOILT[name]
    picture = SPOIL.get(name, lambda p: p)(expose(shot))
    save(develop(picture, shot.seed), folder / name, shot.seed, sideways=name == "IMG_2060.jpg")


def add_copies(folder):
    """The copies that gather in such a folder, and two files that broke on the way."""
    (folder / "IMG_2043 (1).jpg").write_bytes((folder / "IMG_2043.jpg").read_bytes())
    save(develop(cv2.GaussianBlur(expose(BURST), (0, 0), 1.0), 44), folder / "IMG_2046.jpg", 44)
    garden = Image.open(folder / "IMG_2042.jpg")
    sent = garden.resize((garden.width * 7 // 10, garden.height * 7 // 10))
    sent.save(folder / "IMG-20260514-WA0007.jpg", quality=60)
    mirrored = Image.open(folder / "IMG_2049.jpg").transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    save(mirrored, folder / "IMG_2049_edit.jpg", 46, quality=80)
    whole = (folder / "IMG_2063.jpg").read_bytes()
    (folder / "IMG_2063.jpg").write_bytes(whole[: len(whole) * 2 // 5])
    (folder / "IMG_2065.jpg").write_bytes(b"")


def expected():
    """{file: {"verdict", "reason"}}, in the order of names."""
    reasons = {
        "IMG_2043 (1).jpg": "duplicate",
        "IMG_2044.jpg": "blurry",
        "IMG_2046.jpg": "near_duplicate",
        "IMG_2049_edit.jpg": "mirrored",
        "IMG_2050.jpg": "blurry",
        "IMG_2051.jpg": "blurry",
        "IMG_2053.jpg": "too_dark",
        "IMG_2056.jpg": "too_bright",
        "IMG_2061.jpg": "other_subject",
        "IMG_2062.jpg": "other_subject",
        "IMG_2063.jpg": "damaged",
        "IMG_2065.jpg": "empty",
        "IMG-20260514-WA0007.jpg": "near_duplicate",
        "thumb_2064.jpg": "too_small",
    }
    verdicts = {name: {"verdict": "keep", "reason": None} for name in GOOD}
    verdicts.update({name: {"verdict": "reject", "reason": reason} for name, reason in reasons.items()})
    return dict(sorted(verdicts.items()))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", help="render these shots alone, without the copies made from them")
    args = parser.parse_args()
    pillow_heif.register_heif_opener()
    folder = HERE / "photos"
    folder.mkdir(exist_ok=True)
    for name in args.only or [*GOOD, *SPOILT]:
        render_photo(name, folder)
        print(name, flush=True)
    if not args.only:
        add_copies(folder)
    (HERE / "expected.json").write_text(json.dumps(expected(), indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
