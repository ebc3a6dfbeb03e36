"""Deferred shading: geometry buffers and a look to a picture, in linear light, then tone-mapped to sRGB.

Textures are value noise whose octaves fade out below the size of a pixel, so the same ground serves 64 and 1536 px.
"""

import numpy as np

from models.mini.geometry import GROUND, SKY
from models.mini.shapes import GLASS, MAIN, METAL
from models.mini.world import COLOURS, LIGHTS, OUTDOORS, WALLS, paint

EXPOSURE = 1.25
FOG_START, FOG_END = 5.5, 13.0


def to_linear(srgb):
    return np.float32(np.power(np.asarray(srgb), 2.2))


def mix(a, b, share):
    return a + (b - a) * share


def smooth_step(edge0, edge1, x):
    t = np.clip((x - edge0) / (edge1 - edge0), 0.0, 1.0)
    return t * t * (3 - 2 * t)


def _hash(ix, iy, seed):
    """0..1 for each lattice point."""
    h = ix.astype(np.uint32) * np.uint32(374761393) + iy.astype(np.uint32) * np.uint32(668265263)
    h = (h + np.uint32(seed & 0xFFFFFFFF)) * np.uint32(2246822519)
    h = (h ^ (h >> np.uint32(13))) * np.uint32(1274126177)
    return ((h ^ (h >> np.uint32(16))) & np.uint32(0xFFFF)).astype(np.float32) / 65535.0


def value_noise(x, y, seed):
    """Smooth noise in -1..1 with one lattice point per unit."""
    fx, fy = np.floor(x), np.floor(y)
    u, v = x - fx, y - fy
    u, v = u * u * (3 - 2 * u), v * v * (3 - 2 * v)
    ix, iy = fx.astype(np.int64), fy.astype(np.int64)
    low = mix(_hash(ix, iy, seed), _hash(ix + 1, iy, seed), u)
    high = mix(_hash(ix, iy + 1, seed), _hash(ix + 1, iy + 1, seed), u)
    return 2 * mix(low, high, v) - 1


def texture(x, y, frequencies, pixel, seed, stretch=(1.0, 1.0)):
    """Noise summed over `frequencies` (per world unit), each faded out where `pixel` (world units) cannot hold it."""
    total = np.zeros_like(x)
    for i, frequency in enumerate(frequencies):
        seen = np.clip(1.4 - 2.0 * frequency * max(stretch) * pixel, 0.0, 1.0)
        if seen.max() > 0:
            total += seen * value_noise(x * frequency * stretch[0], y * frequency * stretch[1], seed + i)
    return total / np.sqrt(len(frequencies))


def _line(distance, width, pixel):
    """1 on a line of the given half width, antialiased over a pixel and thinned where it is finer than one."""
    soft = width + pixel
    return (1 - smooth_step(width - pixel / 2, soft, np.abs(distance))) * np.minimum(1.0, 2 * width / soft)


def _grain(base, amount, noise):
    return to_linear(base) * np.maximum(1 + amount * noise, 0.05)[:, None]


def grass(x, y, pixel, seed):
    patch = texture(x, y, (0.9, 2.3), pixel, seed)
    blades = texture(x, y, (14, 31, 63), pixel, seed + 9, (1.0, 0.45))
    colour = mix(to_linear((0.20, 0.40, 0.10)), to_linear((0.38, 0.55, 0.18)), (0.5 + 0.35 * patch)[:, None])
    return colour * np.maximum(1 + 0.42 * blades, 0.1)[:, None]


def sand(x, y, pixel, seed):
    ripples = np.sin(9 * y + 2.2 * value_noise(x * 1.3, y * 1.3, seed)) * np.clip(1.5 - 6 * pixel, 0, 1)
    return _grain((0.80, 0.70, 0.52), 0.10, 0.6 * ripples + texture(x, y, (3, 40, 90, 170), pixel, seed))


def snow(x, y, pixel, seed):
    return _grain((0.88, 0.90, 0.94), 0.05, texture(x, y, (1.1, 2.7, 24, 80), pixel, seed))


def concrete(x, y, pixel, seed):
    return _grain((0.56, 0.56, 0.55), 0.11, texture(x, y, (0.8, 2.1, 9, 33, 85, 170), pixel, seed))


def wood(x, y, pixel, seed, light=(0.66, 0.45, 0.26), width=0.42):
    plank = np.floor(x / width).astype(np.int64)
    shade = _hash(plank, np.zeros_like(plank), seed) - 0.5
    grain = texture(x + 0.05 * value_noise(x, y * 2, seed), y + plank * 7.7, (5, 13, 29), pixel, seed, (2.2, 0.16))
    gap = _line((x / width - plank - 0.5) * width - width / 2, 0.006, pixel)
    gap = np.maximum(gap, _line((x / width - plank) * width, 0.006, pixel))
    return _grain(light, 0.16, grain + 1.6 * shade) * (1 - 0.75 * gap)[:, None]


def dark_table(x, y, pixel, seed):
    return wood(x, y, pixel, seed, light=(0.25, 0.16, 0.11), width=1.1)


def white_table(x, y, pixel, seed):
    return _grain((0.87, 0.86, 0.84), 0.03, texture(x, y, (0.7, 18, 60, 130), pixel, seed))


def tiles(x, y, pixel, seed, size=0.55):
    ix, iy = np.floor(x / size).astype(np.int64), np.floor(y / size).astype(np.int64)
    shade = 0.12 * (_hash(ix, iy, seed) - 0.5) + 0.03 * texture(x, y, (3, 40, 110), pixel, seed)
    gap_x, gap_y = (np.abs(v / size - np.floor(v / size) - 0.5) * size - size / 2 for v in (x, y))
    gap = np.maximum(_line(gap_x, 0.014, pixel), _line(gap_y, 0.014, pixel))
    colour = mix(to_linear((0.66, 0.76, 0.80)), to_linear((0.84, 0.86, 0.86)), ((ix + iy) % 2)[:, None])
    return mix(colour * (1 + shade)[:, None], to_linear((0.50, 0.50, 0.50)), gap[:, None])


GROUNDS = {
    "grass": grass,
    "sand": sand,
    "snow": snow,
    "wood": wood,
    "tiles": tiles,
    "concrete": concrete,
    "white table": white_table,
    "dark table": dark_table,
}


def backdrop(rays, look):
    """What stands behind everything, linear RGB for each ray: sky outdoors, a wall indoors."""
    height = rays[:, 2:3]
    light = LIGHTS[look.light]
    if look.surface not in OUTDOORS:
        wall = to_linear(WALLS[look.wall]) * np.float32(light.ambient) * 1.25
        return wall * (0.86 + 0.5 * np.clip(height + 0.25, 0, 0.6))
    horizon = {"evening light": (0.96, 0.78, 0.60), "bright sunlight": (0.78, 0.87, 0.95)}.get(look.light, (0.84, 0.86, 0.88))
    zenith = {"evening light": (0.42, 0.48, 0.68), "bright sunlight": (0.26, 0.50, 0.86)}.get(look.light, (0.58, 0.66, 0.76))
    return mix(to_linear(horizon), to_linear(zenith), smooth_step(-0.05, 0.55, height)) * 0.95


def reflections(rays, normals, look):
    """A crude surrounding, mirrored: backdrop above, the ground's grey below."""
    mirrored = rays - 2 * (rays * normals).sum(-1, keepdims=True) * normals
    below = np.float32([0.16, 0.15, 0.14])
    return mix(below, backdrop(mirrored, look) * 1.1, smooth_step(-0.15, 0.12, mirrored[:, 2:3]))


def thing_paint(scene, look, label, points, pixel):
    """Albedo (N, 3) and gloss, metalness (N,) of the points that lie on things."""
    albedo = np.zeros_like(points)
    gloss, metal = np.full(len(points), 0.08, np.float32), np.zeros(len(points), np.float32)
    for value in np.unique(label):
        on = np.flatnonzero(label == value)
        k, part = int(value) // 16 - 1, int(value) % 16
        thing = scene.things[k]
        colour, material = look.colours[k], look.materials[k]
        local = thing.to_local(points[on])
        speckle = texture(local[:, 0] + local[:, 2], local[:, 1] - local[:, 2], (26, 70, 150), pixel[on], look.seed + k)
        base = to_linear(paint(thing.kind, part, colour)) * np.float32(look.tint)
        albedo[on] = base * (1 + 0.07 * speckle)[:, None]
        striped = material == "striped" or thing.kind == "teapot"
        if part == MAIN and striped:
            albedo[on] = stripes(albedo[on], local, colour, pixel[on])
        if part == MAIN and material in ("shiny", "metal"):
            gloss[on], metal[on] = 1.0, 0.75 * (material == "metal")
        if part in (METAL, GLASS):
            gloss[on], metal[on] = 0.8, 0.5 * (part == METAL)
    return albedo, gloss, metal


def stripes(albedo, local, colour, pixel, count=4.6):
    """Horizontal bands of a second paint: white, or grey on white."""
    other = to_linear(COLOURS["white"] if colour != "white" else (0.45, 0.45, 0.47))
    wave = np.sin(2 * np.pi * count * local[:, 2]) / (2 * np.pi * count)
    band = smooth_step(-0.7, 0.7, wave / np.maximum(pixel, 0.004))
    return mix(albedo, other, band[:, None])


def illuminate(scene, look, buffers, solid, rays, albedo, gloss, metal):
    """Linear light that leaves each solid point (N, 3)."""
    light, which = LIGHTS[look.light], 0 if LIGHTS[look.light].hard else 1
    towards = np.float32(scene.lights[which][0])
    normal = buffers.normal.reshape(-1, 3)[solid]
    lit = buffers.lit.reshape(-1, buffers.lit.shape[-1])[solid, which]
    occlusion = buffers.occlusion.reshape(-1)[solid]
    facing = np.clip(normal @ towards, 0, 1) * lit
    sky = (0.62 + 0.38 * normal[:, 2]) * occlusion
    diffuse = albedo * (1 - metal)[:, None] * (np.outer(facing, light.key) + np.outer(sky, light.ambient))
    half = towards - rays
    half /= np.linalg.norm(half, axis=-1, keepdims=True)
    highlight = np.clip((normal * half).sum(-1), 0, 1) ** mix(12.0, 90.0, gloss) * gloss * lit * (facing > 0)
    fresnel = 0.04 + 0.5 * (1 - np.clip(-(normal * rays).sum(-1), 0, 1)) ** 4
    mirror = reflections(rays, normal, look) * mix(fresnel[:, None], albedo, metal[:, None])
    mirror *= (gloss * occlusion)[:, None]
    return diffuse + mirror + 0.9 * np.outer(highlight, light.key) * mix(np.ones_like(albedo), albedo, metal[:, None])


def shade(scene, look, buffers):
    """The picture as sRGB floats (H, W, 3) in 0..1."""
    height, width = buffers.label.shape
    rays = scene.camera.rays(height, width).reshape(-1, 3)
    label, depth = buffers.label.reshape(-1), buffers.depth.reshape(-1).astype(np.float32)
    picture = backdrop(rays, look)
    solid = np.flatnonzero(label != SKY)
    points = scene.camera.eye() + depth[solid, None] * rays[solid]
    size = 2 * depth[solid] / (min(height, width) * scene.camera.focal)
    tilt = np.clip(-(buffers.normal.reshape(-1, 3)[solid] * rays[solid]).sum(-1), 0.12, 1)
    pixel = size / np.sqrt(tilt)
    albedo, gloss, metal = np.zeros_like(points), np.zeros(len(solid), np.float32), np.zeros(len(solid), np.float32)
    ground = label[solid] == GROUND
    albedo[ground] = GROUNDS[look.surface](*points[ground, :2].T, pixel[ground], look.seed)
    things = ~ground
    albedo[things], gloss[things], metal[things] = thing_paint(scene, look, label[solid][things], points[things], pixel[things])
    seen = illuminate(scene, look, buffers, solid, rays[solid], albedo, gloss, metal)
    fog = smooth_step(FOG_START, FOG_END, depth[solid])[:, None]
    picture[solid] = mix(seen, picture[solid], fog)
    return tone_map(picture).reshape(height, width, 3)


def tone_map(linear):
    """Extended Reinhard (white at 2.5), then the sRGB curve's plain power."""
    x = np.maximum(linear, 0) * EXPOSURE
    return np.power(np.clip(x * (1 + x / 6.25) / (1 + x), 0, 1) * 1.12, 1 / 2.2).clip(0, 1)
