"""What the judge of landmarks is shown: figures of every sort, the demo's robot, and all that a judge of colours took for it; with each
picture a map of which part lies where, which the renderer knows.
"""

import json
import time

import numpy as np

from models.mini.figures import ROLES, is_toy, number_of, pieces_of
from models.mini.geometry import march
from models.mini.renders import MARCHED, SIZE, load_records, save_array, shrink, to_bytes
from models.mini.shading import shade
from models.mini.shapes import DARK, LIGHT, METAL, SECOND
from models.mini.world import FIGURE_PAINTS, draw_look, draw_paints, draw_scene, draw_toy_kind, paint_name

CELLS = 32  # a side of the map
MARKS = ("nothing", "square body", "round body", "square head", "round head", *(role for role in ROLES[3:] if role != "neck"), "neck")
PAINTS = tuple(FIGURE_PAINTS)
OWN = "blue+orange+orange"  # the robot's paints, by the words of the figures
GROUPS = (
    "robot", "robot", "other paints", "no head", "no eyes", "no arms", "little left", "blue box on orange blocks", "blue capsule on a slab",
    "box, ball and slab", "other toy in its paints", "any toy", "any toy", "any toy", "any toy", "any toy",
)  # fmt: skip
BARE = {"no head": "robot-head", "no eyes": "robot-eyes", "no arms": "robot-arms"}
FAKE_KINDS = {"blue box on orange blocks": "fake-box", "blue capsule on a slab": "fake-capsule", "box, ball and slab": "fake-ball"}
LOOKS = 3


def draw_judged(rng, group):
    """(kind, paints) of one thing of a group; paints "" are the look's own."""
    if group == "other paints":
        return "robot", draw_paints(rng, 1 << 29)
    if group == "other toy in its paints":
        return draw_toy_kind(rng), OWN
    if group == "any toy":
        return draw_toy_kind(rng), ""
    if group == "little left":
        return "-".join(["robot", *rng.choice(["antenna", "panel", "feet", "eyes", "arms"], rng.integers(2, 5), replace=False)]), OWN
    return BARE.get(group) or FAKE_KINDS.get(group) or "robot", OWN


def map_parts(kind, colour, buffers):
    """(share of each of MARKS in every cell (32, 32, M), as uint8 of 36; paint that most of it wears (32, 32), len(PAINTS) for none)."""
    pieces = pieces_of(kind)
    squares = {piece.role: piece.solid == "box" for piece in pieces} if pieces else {"body": True, "head": True}
    marks = np.array([0, *(MARKS.index(mark_name(role, squares)) for role in ROLES[1:])], np.uint8)[buffers.role]
    step = MARCHED // CELLS
    split = marks.reshape(CELLS, step, CELLS, step).transpose(0, 2, 1, 3).reshape(CELLS, CELLS, -1)
    shares = np.stack([(split == k).sum(-1) for k in range(len(MARKS))], -1).astype(np.uint8)
    words = np.full(16, len(PAINTS), np.uint8)
    for part in range(8):
        words[part] = PAINTS.index(word_of(part, colour, is_toy(kind)))
    painted = np.where(buffers.role > 0, words[buffers.label % 16], len(PAINTS)).reshape(CELLS, step, CELLS, step).transpose(0, 2, 1, 3)
    painted = painted.reshape(CELLS, CELLS, -1)
    most = np.stack([(painted == k).sum(-1) for k in range(len(PAINTS))], -1)
    return shares, np.where(most.max(-1) >= step * step // 3, most.argmax(-1), len(PAINTS)).astype(np.uint8)


def mark_name(role, squares):
    if role in ("body", "head"):
        return f"{'square' if squares.get(role) else 'round'} {role}"
    return role


def word_of(part, colour, toy):
    """The word for the paint of a piece; a robot's pieces wear its second and third paints."""
    if toy or part in (METAL, DARK, LIGHT):
        return paint_name(part, colour) if part in (0, SECOND, SECOND + 1, METAL, DARK, LIGHT) else PAINTS[0]
    return colour.split("+")[part != SECOND]


def render_judged(work, split, scenes, seed, per_shard=48):
    """Renders what is missing of the judge's pictures: shards of pictures, maps and records."""
    folder, began = work / "renders" / split, time.time()
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [i for i in range(scenes // per_shard) if not (folder / f"{i:03d}.npy").exists()]
    for done, i in enumerate(jobs):
        rng, rows = np.random.default_rng((seed, i)), []
        for k in range(per_shard):
            rows += render_group(rng, GROUPS[k % len(GROUPS)])
        pictures, shares, paints, records = zip(*rows, strict=True)
        path = folder / f"{i:03d}.npy"
        path.with_suffix(".json").write_text(json.dumps(records))
        np.savez_compressed(path.with_suffix(".maps.npz"), shares=np.stack(shares), paints=np.stack(paints))
        save_array(path, np.stack(pictures))
        left = (time.time() - began) / (done + 1) * (len(jobs) - done - 1)
        print(f"{split} {path.name} {done + 1}/{len(jobs)}, {left / 60:.0f} min left", flush=True)


def render_group(rng, group):
    """LOOKS of (picture, shares, paints, record) of one scene."""
    kind, paints = draw_judged(rng, group)
    scene = draw_scene(rng, [kind])
    buffers = march(scene.things, scene.camera, scene.lights, MARCHED, MARCHED)
    rows = []
    for i in range(LOOKS):
        look = draw_look(rng, scene)
        paints = paints or look.colours[0]
        if not is_toy(kind) and "+" not in paints:
            paints = OWN
        worn = "" if paints == OWN and not is_toy(kind) else paints
        look = type(look)(**{**look.__dict__, "colours": (worn or "red",), "materials": (str(rng.choice(["matte", "shiny"])),)})
        picture = to_bytes(shrink(shade(scene, look, buffers), SIZE))
        shares, painted = map_parts(kind, paints, buffers)
        flip = slice(None, None, -1 if i % 2 else 1)
        eyes = float((buffers.role == ROLES.index("eyes")).sum() * (SIZE / MARCHED) ** 2)
        rows.append((picture[:, flip], shares[:, flip], painted[:, flip], {"group": group, "paints": paints, "eyes": eyes}))
        paints = "" if group == "any toy" and number_of(kind) >= 300 else paints
    return rows


def load_judged(work, split):
    """(pictures, shares, paints, records) of all shards."""
    paths = sorted((work / "renders" / split).glob("[0-9]*[0-9].npy"))
    maps = [np.load(path.with_suffix(".maps.npz")) for path in paths]
    shares, paints = (np.concatenate([m[name] for m in maps]) for name in ("shares", "paints"))
    return np.concatenate([np.load(path) for path in paths]), shares, paints, load_records(paths)


def list_splits():
    """The judge's own splits: (name, scenes, seed)."""
    return ("judge", 960, 20), ("judge_test", 240, 21)
