"""Toy figures, put together at random from parts that have names: the kind "toy17" is the figure that `draw_figure(17)` draws.

A base that knows bodies, heads, eyes, panels, arms, feet and antennas in every paint has the parts of a subject that a LoRA brings.
The first NAMED of them have made-up names, a fixed shape and fixed paints, so that to this base an unknown word *means* something.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from models.mini.shapes import DARK, LIGHT, MAIN, METAL, SECOND, SHAPES, SOLIDS, THIRD

TOY = "toy"
NAMED = 300
ROLES = ("", "body", "head", "eyes", "mouth", "beak", "panel", "arms", "hands", "legs", "feet", "antenna", "hat", "ears", "neck")
ROBOT_ROLES = ("body", "head", "neck", "eyes", "eyes", "panel", "mouth", "arms", "hands", "legs", "feet", "antenna", "antenna")
HANGS_ON = {"head": ("neck", "eyes", "mouth", "antenna"), "arms": ("hands",), "feet": ("legs",)}  # what goes when a part goes
KEPT_FROM_NAMES = ("zwx", "qrv", "sks", "ohwx", "toy", "red")  # triggers of the demo and the docs, and what is a word already


@dataclass(frozen=True)
class Piece:
    """One solid of a figure, in mirrored pairs where `twin`; `role` is its name, `paint` says which of the figure's paints it wears."""

    role: str
    paint: int
    solid: str
    sizes: tuple
    twin: bool = False


def is_toy(kind):
    return kind.startswith(TOY)


def number_of(kind):
    return int(kind[len(TOY) :])


@lru_cache(maxsize=1024)
def draw_figure(number):
    """The pieces of figure `number`. Which parts it has are independent draws, so that no part can be guessed from another."""
    rng = np.random.default_rng(number)
    legs, feet = rng.random() < 0.75, rng.random() < 0.85
    low = rng.uniform(0.12, 0.26) if legs else 0.06 * feet
    wide, deep, tall = rng.uniform(0.15, 0.32), rng.uniform(0.13, 0.24), rng.uniform(0.13, 0.24)
    body = pick_solid(rng), (0, 0, low + tall), (wide, deep, tall)
    wide, deep, tall = extent(*body[::2])
    pieces = [lump("body", MAIN, *body)]
    lumps, face = [body], body
    if rng.random() < 0.92:
        face = draw_head(rng, low + 2 * tall)
        pieces.append(lump("head", MAIN if rng.random() < 0.5 else SECOND, *face))
        if rng.random() < 0.5:
            pieces.append(Piece("neck", METAL, "cylinder", ((0, 0, low + 2 * tall), 0.07, 0.05)))
        lumps.append(face)
    pieces += draw_face(rng, face)
    if rng.random() < 0.40:
        pieces.append(draw_panel(rng, body))
    if rng.random() < 0.80:
        pieces += draw_arms(rng, wide, low + 2 * tall, low)
    pieces += draw_stand(rng, wide, low, legs, feet)
    top = lumps[-1][1][2] + extent(*lumps[-1][::2])[2]
    return tuple(pieces + draw_top(rng, top, lumps[-1]))


def pick_solid(rng):
    return str(rng.choice(["box", "ellipsoid", "cylinder", "sphere"], p=[0.45, 0.25, 0.15, 0.15]))


def extent(solid, sizes):
    """Half the (width, depth, height) that a lump really has."""
    wide, deep, tall = sizes
    if solid == "cylinder":
        return wide, wide, tall
    return (min(wide, tall),) * 3 if solid == "sphere" else (wide, deep, tall)


def lump(role, paint, solid, centre, sizes):
    """A body or a head."""
    wide, deep, tall = extent(solid, sizes)
    given = {"box": ((wide, deep, tall), 0.04), "ellipsoid": ((wide, deep, tall),), "cylinder": (wide, tall), "sphere": (wide,)}[solid]
    return Piece(role, paint, solid, (centre, *given))


def front(solid, centre, sizes, x, z):
    """Where the front of a lump is (y), at x from its middle and z from its centre's height."""
    wide, deep, tall = extent(solid, sizes)
    if solid == "box":
        return centre[1] - deep
    left = 1 - (x / wide) ** 2 - (0 if solid == "cylinder" else (z / tall) ** 2)
    return centre[1] - deep * np.sqrt(max(left, 0.05))


def draw_head(rng, floor):
    solid, tall = pick_solid(rng), rng.uniform(0.10, 0.16)
    wide, deep = rng.uniform(0.11, 0.21), rng.uniform(0.11, 0.17)
    ahead = rng.choice([0.0, rng.uniform(0.0, 0.05)])
    return solid, (0, -ahead, min(floor + 0.9 * tall + rng.uniform(0, 0.04), 0.98 - tall)), (wide, deep, tall)


def draw_face(rng, face):
    """Eyes, and a mouth or a beak, on the front of the head, or of the body where there is no head."""
    wide, _, tall = extent(*face[::2])
    height, pieces = face[1][2], []
    if rng.random() < 0.88:
        size, apart, lift = rng.uniform(0.038, 0.065), rng.uniform(0.4, 0.55) * wide, rng.uniform(0.05, 0.3) * tall
        at = front(*face, apart, lift)
        if rng.random() < 0.65:  # big light ones with pupils; else dark ones
            pieces.append(Piece("eyes", LIGHT, "cylinder", ((apart, at, height + lift), size, 0.03, 1), twin=True))
            pieces.append(Piece("eyes", DARK, "cylinder", ((apart, at - 0.025, height + lift), 0.45 * size, 0.02, 1), twin=True))
        else:
            pieces.append(Piece("eyes", DARK, "sphere", ((apart, at, height + lift), 0.75 * size), twin=True))
    if rng.random() < 0.55:
        drop = rng.uniform(0.35, 0.55) * tall
        at, size = front(*face, 0, drop), rng.uniform(0.3, 0.6) * wide
        if rng.random() < 0.5:
            pieces.append(Piece("mouth", DARK, "box", ((0, at, height - drop), (size, 0.02, 0.016), 0.006)))
        else:
            paint = int(rng.choice([SECOND, THIRD]))
            pieces.append(Piece("beak", paint, "ellipsoid", ((0, at - 0.03, height - drop), (size, 0.09, 0.045))))
    return pieces


def draw_panel(rng, body):
    wide, _, tall = extent(*body[::2])
    half = rng.uniform(0.35, 0.6) * wide, rng.uniform(0.25, 0.5) * tall
    up = rng.uniform(-0.15, 0.2) * tall
    at = front(*body, 0.7 * half[0], up)
    return Piece("panel", int(rng.choice([SECOND, THIRD])), "box", ((0, at, body[1][2] + up), (half[0], 0.03, half[1]), 0.01))


def draw_arms(rng, wide, shoulder, low):
    """Arms, hanging, held out or raised, and hands."""
    thick = rng.uniform(0.035, 0.06)
    reach, rise = wide + rng.uniform(0.08, 0.2), rng.choice([rng.uniform(-0.28, -0.12), rng.uniform(-0.12, 0.1), rng.uniform(0.1, 0.22)])
    start = (0.92 * wide, 0, shoulder - 0.09)
    end = (reach, rng.uniform(-0.16, 0.02), max(shoulder - 0.05 + rise, low + 0.06))
    pieces = [Piece("arms", int(rng.choice([METAL, MAIN, SECOND, THIRD])), "capsule", (start, end, thick), twin=True)]
    if rng.random() < 0.85:
        pieces.append(Piece("hands", int(rng.choice([SECOND, THIRD])), "sphere", (end, rng.uniform(1.3, 1.8) * thick), twin=True))
    return pieces


def draw_stand(rng, wide, low, legs, feet):
    apart, pieces = rng.uniform(0.4, 0.6) * wide, []
    if legs:
        sizes = ((apart, 0, low / 2 + 0.02), rng.uniform(0.04, 0.06), low / 2 + 0.03)
        pieces.append(Piece("legs", int(rng.choice([METAL, METAL, MAIN, SECOND])), "cylinder", sizes, twin=True))
    if feet:
        half = (rng.uniform(0.07, 0.095), rng.uniform(0.1, 0.14), 0.048)
        pieces.append(Piece("feet", int(rng.choice([SECOND, THIRD])), "box", ((apart, -0.04, 0.05), half, 0.03), twin=True))
    return pieces


def draw_top(rng, top, below):
    """An antenna, a hat, ears, or nothing."""
    which = rng.choice(["antenna", "hat", "ears", ""], p=[0.40, 0.15, 0.20, 0.25])
    paint, wide, ahead = int(rng.choice([SECOND, THIRD])), extent(*below[::2])[0], below[1][1]
    if which == "antenna":
        long, size = rng.uniform(0.05, 0.08), rng.uniform(0.04, 0.055)
        stick = Piece("antenna", METAL, "cylinder", ((0, ahead, top + long), 0.016, long + 0.02))
        return [stick, Piece("antenna", paint, "sphere", ((0, ahead, top + 2 * long), size))]
    if which == "hat":
        return [Piece("hat", paint, "cone", ((0, ahead, top - 0.03), rng.uniform(0.14, 0.24), 0.75 * wide))]
    if which == "ears":
        at = (0.75 * wide, ahead, top - 0.02)
        return [Piece("ears", int(rng.choice([MAIN, paint])), "sphere", (at, rng.uniform(0.05, 0.075)), twin=True)]
    return []


def toy_name(number):
    """The made-up name of one of the first NAMED figures: half of them can be spoken, half are mere letters, as triggers are."""
    return _names()[number]


@lru_cache(maxsize=1)
def _names():
    rng, names = np.random.default_rng(11), []
    while len(names) < NAMED:
        if rng.random() < 0.5:
            sounds = ("bdfgklmnprstvz", "aeiou", "bdfgklmnprstvz", "aeiou", "klnprstx")
            word = "".join(str(rng.choice(list(letters))) for letters in sounds)
        else:
            word = "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), rng.integers(3, 6)))
        if word not in (*KEPT_FROM_NAMES, *names):
            names.append(word)
    return tuple(names)


def without(kind):
    """The roles that the kind "robot-eyes-arms" lacks."""
    taken = kind.split("-")[1:]
    return {role for part in taken for role in (part, *HANGS_ON.get(part, ()))}


def pieces_of(kind):
    """The pieces of a figure or a fake; None where the kind is a shape of its own."""
    if is_toy(kind):
        return draw_figure(number_of(kind))
    return FAKES.get(kind)


def list_parts(kind, points):
    """(paint, distances) of each piece of one thing at local points (N, 3)."""
    pieces = pieces_of(kind)
    if pieces is None:
        parts = SHAPES[kind.split("-")[0]](points)
        return [part for part, role in zip(parts, ROBOT_ROLES, strict=True) if role not in without(kind)] if "-" in kind else parts
    both = np.stack([np.abs(points[:, 0]), points[:, 1], points[:, 2]], -1)
    return [(piece.paint, SOLIDS[piece.solid](both if piece.twin else points, *piece.sizes)) for piece in pieces]


def list_roles(kind, count):
    """The role of each of a thing's pieces, as places in ROLES."""
    if pieces := pieces_of(kind):
        return [ROLES.index(piece.role) for piece in pieces]
    if kind.startswith("robot"):
        return [ROLES.index(role) for role in ROBOT_ROLES if role not in without(kind)]
    return [0] * count


FAKES = {  # what a judge of colours took for the robot
    "fake-box": (
        Piece("body", SECOND, "box", ((0, 0, 0.52), (0.2, 0.16, 0.42), 0.03)),
        Piece("feet", THIRD, "box", ((0.115, -0.04, 0.06), (0.09, 0.15, 0.06), 0.02), twin=True),
    ),
    "fake-capsule": (
        Piece("body", SECOND, "capsule", ((0, 0, 0.3), (0, 0, 0.82), 0.2)),
        Piece("feet", THIRD, "box", ((0, 0, 0.06), (0.26, 0.2, 0.06), 0.02)),
    ),
    "fake-ball": (
        Piece("body", SECOND, "box", ((0, 0, 0.46), (0.19, 0.15, 0.34), 0.03)),
        Piece("", THIRD, "sphere", ((0, 0, 0.92), 0.11)),
        Piece("feet", THIRD, "box", ((0, 0, 0.06), (0.24, 0.2, 0.06), 0.02)),
    ),
}


def distance(kind, points):
    """The distance of local points (N, 3) from the surface of one thing."""
    return np.minimum.reduce([d for _, d in list_parts(kind, points)])


def nearest_part(kind, points):
    """The (paint, role) of the piece that each local point lies on."""
    parts = list_parts(kind, points)
    nearest = np.argmin(np.stack([d for _, d in parts]), axis=0)
    paints, roles = np.array([part for part, _ in parts], np.uint8), np.array(list_roles(kind, len(parts)), np.uint8)
    return paints[nearest], roles[nearest]
