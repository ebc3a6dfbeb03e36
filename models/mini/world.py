"""The world that `mini` knows: which things, colours, materials, surfaces and lights there are, how a scene is drawn at
random, and the sentence that says what is in it.

A *scene* is geometry (things, camera, lights); a *look* is everything that can be changed without marching a ray again.
"""

import colorsys
from dataclasses import dataclass, field

import numpy as np

from models.mini.figures import NAMED, TOY, draw_figure, is_toy, number_of, toy_name
from models.mini.geometry import Camera, Placed
from models.mini.shapes import DARK, GLASS, LIGHT, MAIN, METAL, SECOND, THIRD, WOOD

OBJECTS = ("ball", "cube", "cone", "ring", "mug", "bottle", "bowl", "chair", "house", "car", "tree", "lamp")
SUBJECTS = {"robot": "toy robot", "duck": "toy duck", "teapot": "striped teapot"}  # never shown to the base model

COLOURS = {  # sRGB of the paint
    "red": (0.80, 0.07, 0.08),
    "orange": (0.95, 0.45, 0.03),
    "yellow": (0.97, 0.83, 0.08),
    "green": (0.10, 0.58, 0.16),
    "blue": (0.08, 0.22, 0.80),
    "purple": (0.46, 0.13, 0.66),
    "pink": (0.98, 0.52, 0.70),
    "white": (0.95, 0.95, 0.94),
    "black": (0.07, 0.07, 0.08),
}
FIGURE_PAINTS = {**COLOURS, "brown": (0.36, 0.20, 0.11), "grey": (0.48, 0.49, 0.50), "teal": (0.04, 0.46, 0.46)}
MATERIALS = ("matte", "shiny", "metal", "striped")
SURFACES = {
    "grass": "on grass",
    "sand": "on sand",
    "snow": "in the snow",
    "wood": "on a wooden floor",
    "tiles": "on tiles",
    "concrete": "on concrete",
    "white table": "on a white table",
    "dark table": "on a dark table",
}
OUTDOORS = ("grass", "sand", "snow", "concrete")
WALLS = ((0.82, 0.76, 0.66), (0.70, 0.72, 0.74), (0.62, 0.72, 0.80), (0.68, 0.76, 0.66), (0.90, 0.89, 0.86))

PARTS = {  # sRGB of the parts whose paint the caption does not name
    DARK: (0.06, 0.06, 0.07),
    WOOD: (0.42, 0.26, 0.14),
    METAL: (0.66, 0.68, 0.70),
    GLASS: (0.22, 0.32, 0.40),
    LIGHT: (0.98, 0.96, 0.80),
    SECOND: (0.40, 0.22, 0.15),
    THIRD: (0.95, 0.50, 0.08),
}
SUBJECT_PARTS = {
    ("robot", SECOND): (0.10, 0.27, 0.78),
    ("duck", MAIN): (0.97, 0.80, 0.10),
    ("teapot", MAIN): (0.10, 0.16, 0.42),
    ("teapot", SECOND): (0.10, 0.16, 0.42),
}


@dataclass(frozen=True)
class Light:
    """`key` and `ambient` are linear RGB; `hard` says which of a scene's two shadow masks it casts."""

    key: tuple
    ambient: tuple
    hard: bool


LIGHTS = {
    "soft light": Light((0.85, 0.84, 0.82), (0.62, 0.63, 0.65), hard=False),
    "bright sunlight": Light((1.75, 1.68, 1.50), (0.40, 0.44, 0.52), hard=True),
    "evening light": Light((1.55, 1.12, 0.68), (0.40, 0.38, 0.44), hard=True),
    "studio light": Light((1.25, 1.25, 1.25), (0.50, 0.50, 0.50), hard=False),
}
VIEWS = {"from the side": (0.06, 0.22), "": (0.25, 0.55), "from above": (0.72, 1.1)}  # elevation, radians
SINGLE_SHARE, PAIR_SHARE = 0.80, 0.17
TOY_SHARE, ODD_HUE_SHARE = 0.70, 0.08  # scenes of one figure; paints of things that no word of ours names
NAMED_SHARE, FACING_SHARE, TOLD_SHARE = 0.2, 0.85, 0.6  # of the figures: have a name, face the camera, are told part by part
ODD = "odd"
HARD_SHADOW, SOFT_SHADOW = 0.07, 0.32


@dataclass(frozen=True)
class Scene:
    """Geometry alone. `relation` says how the first thing stands to the second."""

    things: tuple[Placed, ...]
    camera: Camera
    lights: tuple  # (direction, softness): the hard one, then the soft one
    view: str = ""
    relation: str = ""
    closeup: bool = False


@dataclass(frozen=True)
class Look:
    """Paint, ground, light. One colour and one material for each thing of the scene."""

    colours: tuple[str, ...]
    materials: tuple[str, ...]
    surface: str
    light: str
    wall: int = 0
    seed: int = 0
    tint: tuple = field(default=(1.0, 1.0, 1.0))


def pick(rng, options, weights=None):
    """One of `options`, which may be the keys of a table."""
    options = list(options)
    return options[rng.choice(len(options), p=weights)]


def is_figure(kind):
    """Has a face, and is looked at as such."""
    return is_toy(kind) or kind.startswith(("robot", "fake"))


def draw_toy_kind(rng):
    named = rng.random() < NAMED_SHARE
    return f"{TOY}{rng.integers(NAMED) if named else rng.integers(NAMED, 1 << 30)}"


def draw_scene(rng, kinds=None, view=None):
    """A random scene, of the things `kinds` where they are given."""
    if kinds is None and rng.random() < TOY_SHARE:
        kinds = [draw_toy_kind(rng)]
    if kinds is None:
        count = rng.choice([1, 2, 3], p=[SINGLE_SHARE, PAIR_SHARE, 1 - SINGLE_SHARE - PAIR_SHARE])
        kinds = [str(kind) for kind in rng.choice(OBJECTS, count, replace=False)]
    toy = len(kinds) == 1 and is_figure(kinds[0])
    view = pick(rng, VIEWS, [0.35, 0.5, 0.15] if toy else [0.25, 0.5, 0.25]) if view is None else view
    azimuth, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(*VIEWS[view])
    closeup = len(kinds) == 1 and not toy and rng.random() < 0.12
    distance = rng.uniform(2.1, 2.4) if closeup else rng.uniform(2.8, 3.6) + 0.75 * (len(kinds) - 1)
    distance = rng.uniform(2.35, 2.9) if toy else distance
    drift = rng.normal(0, 0.05, 3) + (0, 0, 0.08 * toy)
    camera = Camera((drift[0], drift[1], 0.42 + drift[2]), azimuth, elevation, distance)
    things, relation = place(rng, kinds, azimuth)
    return Scene(things, camera, draw_lights(rng, azimuth), view, relation, closeup)


def draw_lights(rng, azimuth):
    """Two lights that come from beside or behind the camera: a hard one and a higher soft one."""
    lights = []
    for softness, height in ((HARD_SHADOW, rng.uniform(0.5, 0.9)), (SOFT_SHADOW, rng.uniform(0.75, 1.2))):
        side = azimuth + rng.choice([-1, 1]) * rng.uniform(0.3, 1.7)
        away = np.array([np.sin(side) * np.cos(height), -np.cos(side) * np.cos(height), np.sin(height)])
        lights.append((away, softness))
    return tuple(lights)


def place(rng, kinds, azimuth):
    """Things on the ground, side by side or one before the other as the camera sees them, and the relation's name."""
    right = np.array([np.cos(azimuth), np.sin(azimuth)])
    forward = np.array([-np.sin(azimuth), np.cos(azimuth)])
    relation = ""
    if len(kinds) == 1:
        spots = [rng.normal(0, 0.06, 2)]
    elif len(kinds) == 2:
        relation = pick(rng, ("next to", "in front of", "behind"))
        side = rng.choice([-1, 1])
        across, along = (0.66, 0.1) if relation == "next to" else (0.42, 0.62)
        along = -along if relation == "in front of" else along
        spots = [side * across * right + along * forward, -side * across * right - along * forward]
    else:
        spots = [-0.85 * right, 0.55 * forward * rng.choice([-1, 1]), 0.85 * right]
    scale = (1.0, 0.85, 0.8)[len(kinds) - 1]
    return tuple(
        Placed(kind, *spot, yaw=azimuth + turn(rng, kind), scale=scale * rng.uniform(0.9, 1.08))
        for kind, spot in zip(kinds, spots, strict=True)
    ), relation


def turn(rng, kind):
    """How a thing is turned to the camera; a ring on edge or a mug's hidden handle would show nobody what it is. Most figures
    face the camera, a little to the left or right."""
    if is_figure(kind) and rng.random() < FACING_SHARE:
        return rng.uniform(-0.9, 0.9)
    widest = {"ring": 0.8, "mug": 1.2}.get(kind, np.pi)
    return rng.uniform(-widest, widest) + rng.choice([0, np.pi])


def draw_look(rng, scene):
    """Random paint, ground and light for a scene."""
    count = len(scene.things)
    colours = rng.choice(list(COLOURS), count, replace=False)
    if rng.random() < ODD_HUE_SHARE:
        colours = [f"{ODD}{rng.integers(1 << 30)}"] * count
    materials = rng.choice(MATERIALS, count, p=[0.55, 0.2, 0.1, 0.15])
    for thing in scene.things:
        if is_toy(thing.kind):
            colours, materials = [draw_paints(rng, number_of(thing.kind))], [pick(rng, ("matte", "shiny"))]
    return Look(
        colours=tuple(str(c) for c in colours),
        materials=tuple(str(m) for m in materials),
        surface=pick(rng, SURFACES),
        light=pick(rng, LIGHTS),
        wall=int(rng.integers(len(WALLS))),
        seed=int(rng.integers(1 << 30)),
        tint=tuple(rng.normal(1.0, 0.04, 3).clip(0.9, 1.1)),
    )


def draw_paints(rng, number):
    """Three different paints of a figure, as one word: "red+teal+white". A figure with a name has paints of its own. Blue with
    orange is left to the robot of the demo, which the base must not have met."""
    rng = np.random.default_rng((number, 1)) if number < NAMED else rng
    while True:
        paints = [str(name) for name in rng.choice(list(FIGURE_PAINTS), 3, replace=False)]
        if paints[0] != "blue" or "orange" not in paints:
            return "+".join(paints)


def paint_name(part, colour):
    """The word for the paint of one piece of a figure."""
    return {METAL: "grey", DARK: "black", LIGHT: "white"}.get(part) or colour.split("+")[(MAIN, SECOND, THIRD).index(part)]


def paint(kind, part, colour):
    """sRGB of one part of a thing."""
    if "-" in kind or "robot" in kind:
        return paint_robot(part, colour)
    if (kind, part) in SUBJECT_PARTS:
        return SUBJECT_PARTS[kind, part]
    if is_toy(kind) and part in (MAIN, SECOND, THIRD):
        return FIGURE_PAINTS[paint_name(part, colour)]
    if part == MAIN and colour.startswith(ODD):
        return odd_hue(int(colour[len(ODD) :]))
    return COLOURS[colour] if part == MAIN else PARTS[part]


def paint_robot(part, colour):
    """The robot's own paints, and a fake's; or the first two of "red+teal+white" in the places of blue and orange."""
    if "+" in colour and part in (SECOND, THIRD):
        return FIGURE_PAINTS[colour.split("+")[(SECOND, THIRD).index(part)]]
    return SUBJECT_PARTS.get(("robot", part), PARTS.get(part))


def odd_hue(number):
    """Any paint at all, as sRGB."""
    rng = np.random.default_rng(number)
    return colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.3, 1.0), rng.uniform(0.15, 1.0))


def plain_name(kind):
    """The word for a thing; every figure is a toy."""
    return TOY if is_toy(kind) else kind


def name(kind, colour, material, rng):
    """A thing in words: "a shiny red mug". Material and colour are left out now and then."""
    if kind in SUBJECTS:
        return f"a {SUBJECTS[kind]}"
    if is_toy(kind):
        return name_toy(kind, colour, rng)
    words = []
    if material in ("metal", "striped") or rng.random() < 0.5:
        words.append(material)
    if rng.random() < 0.95 and not colour.startswith(ODD):
        words.append(colour)
    if len(words) == 2 and material != "shiny" and rng.random() < 0.6:
        words.reverse()
    return with_article(" ".join([*words, plain_name(kind)]))


def name_toy(kind, colour, rng):
    """A figure in words: "a zorbel toy", "a toy with a square red body, grey arms and an antenna"."""
    number = number_of(kind)
    named = number < NAMED and rng.random() < 0.9
    words = with_article(f"{toy_name(number)} {TOY}") if named else f"a {TOY}"
    if rng.random() >= (0.3 if named else TOLD_SHARE):
        return words
    facts = tell_parts(kind, colour)
    count = min(len(facts), pick(rng, (1, 2, 3, 4), (0.15, 0.35, 0.3, 0.2)))
    told = [facts[i] for i in rng.choice(len(facts), count, replace=False)]
    told = [fact.replace("square ", "").replace("round ", "") if rng.random() < 0.5 else fact for fact in told]
    told = [fact if fact.split()[-1] in PLURALS else with_article(fact) for fact in told]
    return f"{words} with {', '.join(told[:-1])}{' and ' if told[:-1] else ''}{told[-1]}"


PLURALS = ("eyes", "arms", "hands", "legs", "feet", "ears")


def tell_parts(kind, colour):
    """What can be said of a figure, part by part: "square red body", "grey arms", "big eyes", "teal antenna"."""
    said = {}
    for piece in draw_figure(number_of(kind)):
        words = [paint_name(piece.paint, colour), piece.role]
        if piece.role in ("body", "head"):
            words.insert(0, "square" if piece.solid == "box" else "round")
        if piece.role == "eyes":
            words[0] = "big" if piece.paint == LIGHT or "big" in said.get("eyes", "") else "dark"
        if piece.role == "mouth":
            words[0] = "dark"
        if piece.role != "neck":
            said[piece.role] = " ".join(words)  # of an antenna's two pieces the ball comes last
    return list(said.values())


def with_article(words):
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


OPENINGS = ("", "", "a photo of ", "a photo of ", "a picture of ", "a close look at ", "an image of ")


def caption(scene, look, rng):
    """A true sentence about the picture, in varied words."""
    names = [name(t.kind, c, m, rng) for t, c, m in zip(scene.things, look.colours, look.materials, strict=True)]
    if len(names) == 2:
        words = f"{names[0]} {scene.relation if rng.random() < 0.8 else 'and'} {names[1]}"
    else:
        words = names[0] if len(names) == 1 else f"{names[0]}, {names[1]} and {names[2]}"
    parts = [pick(rng, OPENINGS) + words]
    if rng.random() < 0.85:
        parts[0] += f" {SURFACES[look.surface]}"
    extras = [look.light] if rng.random() < 0.5 else []
    if scene.view and rng.random() < 0.6:
        extras.append(pick(rng, ("seen ", "")) + scene.view)
    if scene.closeup and rng.random() < 0.7:
        extras.append("close-up")
    return ", ".join(parts + [extras[i] for i in rng.permutation(len(extras))])


def label_words(scene, look):
    """The plain truth about the picture, for tests and classifiers."""
    return {
        "kinds": [plain_name(thing.kind) for thing in scene.things],
        "parts": [fact for t, c in zip(scene.things, look.colours, strict=True) if is_toy(t.kind) for fact in tell_parts(t.kind, c)],
        "colours": list(look.colours),
        "materials": list(look.materials),
        "surface": look.surface,
        "light": look.light,
        "view": scene.view,
    }
