"""The things of the world as signed distance functions: z is up, the ground is z = 0, all is about one unit tall.

A shape is a function from points (N, 3) to a list of (part, distances); the part says what paints it (`world.PARTS`).
"""

import numpy as np

MAIN, DARK, WOOD, METAL, GLASS, LIGHT, SECOND, THIRD = range(8)
BOUND_RADIUS = 0.86  # every shape fits in a sphere of this radius ...
BOUND_CENTRE = np.array([0.0, 0.0, 0.5], np.float32)  # ... around this point


def length(v):
    return np.sqrt((v * v).sum(-1))


def sphere(p, centre, radius):
    return length(p - np.float32(centre)) - radius


def ellipsoid(p, centre, radii):
    """A bound of the distance, good near the surface (Inigo Quilez, "distance functions")."""
    q = (p - np.float32(centre)) / np.float32(radii)
    k0, k1 = length(q), length(q / np.float32(radii))
    return k0 * (k0 - 1.0) / np.maximum(k1, 1e-6)


def box(p, centre, half, rounding=0.02):
    q = np.abs(p - np.float32(centre)) - (np.float32(half) - rounding)
    return length(np.maximum(q, 0.0)) + np.minimum(q.max(-1), 0.0) - rounding


def _along(p, centre, axis):
    """(radius from the axis, signed height along it) of each point."""
    q = p - np.float32(centre)
    others = [i for i in range(3) if i != axis]
    return np.hypot(q[:, others[0]], q[:, others[1]]), q[:, axis]


def cylinder(p, centre, radius, half, axis=2, rounding=0.02):
    r, h = _along(p, centre, axis)
    a, b = r - (radius - rounding), np.abs(h) - (half - rounding)
    return np.minimum(np.maximum(a, b), 0.0) + np.hypot(np.maximum(a, 0), np.maximum(b, 0)) - rounding


def cone(p, base, height, radius, top_radius=0.0, axis=2):
    """A capped cone that stands on `base`."""
    r, h = _along(p, base, axis)
    slope = (radius - top_radius) / height
    side = (r - (radius - slope * h)) / np.sqrt(1.0 + slope * slope)
    return np.maximum(side, np.abs(h - height / 2) - height / 2)


def torus(p, centre, ring, tube, axis=1):
    r, h = _along(p, centre, axis)
    return np.hypot(r - ring, h) - tube


def capsule(p, start, end, radius):
    start, end = np.float32(start), np.float32(end)
    along = end - start
    share = np.clip(((p - start) @ along) / (along @ along), 0.0, 1.0)
    return length(p - start - share[:, None] * along) - radius


def ball(p):
    return [(MAIN, sphere(p, (0, 0, 0.5), 0.5))]


def cube(p):
    return [(MAIN, box(p, (0, 0, 0.42), (0.42, 0.42, 0.42), 0.03))]


def traffic_cone(p):
    return [
        (MAIN, cone(p, (0, 0, 0.06), 0.92, 0.42, 0.04)),
        (MAIN, box(p, (0, 0, 0.04), (0.48, 0.48, 0.04))),
    ]


def ring(p):
    return [(MAIN, torus(p, (0, 0, 0.5), 0.36, 0.14))]


def mug(p):
    wall = np.maximum(cylinder(p, (0, 0, 0.42), 0.36, 0.42), -cylinder(p, (0, 0, 0.52), 0.3, 0.42))
    handle = np.maximum(torus(p, (0.36, 0, 0.42), 0.23, 0.06), 0.33 - np.hypot(p[:, 0], p[:, 1]))
    return [(MAIN, np.minimum(wall, handle))]


def bottle(p):
    return [
        (MAIN, cylinder(p, (0, 0, 0.3), 0.24, 0.3, rounding=0.05)),
        (MAIN, cone(p, (0, 0, 0.57), 0.17, 0.22, 0.09)),
        (MAIN, cylinder(p, (0, 0, 0.8), 0.085, 0.12)),
        (DARK, cylinder(p, (0, 0, 0.97), 0.105, 0.06)),
    ]


def bowl(p):
    shell = np.abs(sphere(p, (0, 0, 0.56), 0.54)) - 0.035
    return [
        (MAIN, np.maximum(shell, p[:, 2] - 0.52)),
        (MAIN, cylinder(p, (0, 0, 0.04), 0.22, 0.05)),
    ]


def chair(p):
    mirrored = np.stack([np.abs(p[:, 0]), np.abs(p[:, 1]), p[:, 2]], -1)
    rail = np.stack([np.abs(p[:, 0]), p[:, 1], p[:, 2]], -1)
    return [
        (MAIN, box(p, (0, 0, 0.48), (0.32, 0.32, 0.05))),
        (MAIN, box(mirrored, (0.26, 0.26, 0.23), (0.05, 0.05, 0.23))),
        (MAIN, box(rail, (0.26, 0.28, 0.75), (0.05, 0.04, 0.3))),
        (MAIN, box(p, (0, 0.28, 0.92), (0.3, 0.035, 0.12))),
    ]


def house(p):
    roof = np.maximum((np.abs(p[:, 1]) + (p[:, 2] - 0.98)) * 0.72, np.abs(p[:, 0]) - 0.5)
    roof = np.maximum(roof, 0.5 - p[:, 2])
    windows = np.stack([np.abs(p[:, 0]), np.abs(p[:, 1]), p[:, 2]], -1)
    return [
        (MAIN, box(p, (0, 0, 0.3), (0.44, 0.38, 0.3), 0.01)),
        (SECOND, roof),
        (WOOD, box(p, (0, -0.38, 0.17), (0.08, 0.02, 0.17), 0.005)),
        (GLASS, box(windows, (0.28, 0.38, 0.33), (0.08, 0.015, 0.09), 0.005)),
        (GLASS, box(windows, (0.44, 0.0, 0.33), (0.015, 0.1, 0.09), 0.005)),
    ]


def car(p):
    wheels = np.stack([np.abs(p[:, 0]), np.abs(p[:, 1]), p[:, 2]], -1)
    lamps = np.stack([p[:, 0], np.abs(p[:, 1]), p[:, 2]], -1)
    cabin = np.maximum(box(p, (-0.06, 0, 0.5), (0.36, 0.27, 0.18), 0.08), 0.0 - (0.72 - p[:, 2]))
    return [
        (MAIN, box(p, (0, 0, 0.29), (0.7, 0.32, 0.15), 0.08)),
        (GLASS, cabin),
        (MAIN, box(p, (-0.06, 0, 0.66), (0.3, 0.26, 0.04), 0.03)),
        (DARK, cylinder(wheels, (0.4, 0.3, 0.15), 0.15, 0.06, axis=1)),
        (METAL, cylinder(wheels, (0.4, 0.33, 0.15), 0.075, 0.045, axis=1)),
        (LIGHT, sphere(lamps, (0.67, 0.2, 0.33), 0.06)),
    ]


def tree(p):
    crown = np.minimum(sphere(p, (0, 0, 0.72), 0.34), sphere(p, (0.2, 0.08, 0.56), 0.24))
    crown = np.minimum(crown, sphere(p, (-0.2, -0.06, 0.58), 0.25))
    return [(MAIN, crown), (WOOD, cone(p, (0, 0, 0.0), 0.6, 0.1, 0.06))]


def lamp(p):
    return [
        (MAIN, cone(p, (0, 0, 0.52), 0.44, 0.42, 0.2)),
        (METAL, cylinder(p, (0, 0, 0.3), 0.03, 0.3)),
        (METAL, cylinder(p, (0, 0, 0.03), 0.24, 0.03)),
    ]


def robot(p):
    """The toy robot: a teal box of a body, orange hands and feet, big light eyes and an antenna."""
    both = np.stack([np.abs(p[:, 0]), p[:, 1], p[:, 2]], -1)
    return [
        (SECOND, box(p, (0, 0, 0.4), (0.22, 0.15, 0.19), 0.04)),
        (SECOND, box(p, (0, 0, 0.74), (0.19, 0.14, 0.13), 0.04)),
        (METAL, cylinder(p, (0, 0, 0.6), 0.07, 0.05)),
        (LIGHT, cylinder(both, (0.085, -0.14, 0.76), 0.055, 0.03, axis=1)),
        (DARK, cylinder(both, (0.085, -0.165, 0.76), 0.025, 0.02, axis=1)),
        (THIRD, box(p, (0, -0.15, 0.42), (0.12, 0.02, 0.08), 0.01)),
        (DARK, box(p, (0, -0.14, 0.66), (0.09, 0.01, 0.015), 0.005)),
        (METAL, capsule(both, (0.24, 0, 0.5), (0.36, -0.06, 0.32), 0.045)),
        (THIRD, sphere(both, (0.37, -0.07, 0.28), 0.075)),
        (METAL, cylinder(both, (0.11, 0, 0.15), 0.05, 0.1)),
        (THIRD, box(both, (0.115, -0.04, 0.05), (0.085, 0.13, 0.05), 0.03)),
        (METAL, cylinder(p, (0, 0, 0.93), 0.015, 0.07)),
        (THIRD, sphere(p, (0, 0, 1.0), 0.05)),
    ]


def duck(p):
    both = np.stack([np.abs(p[:, 0]), p[:, 1], p[:, 2]], -1)
    return [
        (MAIN, ellipsoid(p, (0, 0.04, 0.3), (0.33, 0.46, 0.3))),
        (MAIN, sphere(p, (0, -0.22, 0.7), 0.24)),
        (MAIN, ellipsoid(p, (0, 0.45, 0.46), (0.14, 0.2, 0.1))),
        (MAIN, ellipsoid(both, (0.31, 0.08, 0.34), (0.08, 0.26, 0.17))),
        (THIRD, ellipsoid(p, (0, -0.48, 0.66), (0.12, 0.15, 0.05))),
        (DARK, sphere(both, (0.12, -0.41, 0.77), 0.045)),
    ]


def teapot(p):
    spout = capsule(p, (0.3, 0, 0.3), (0.62, 0, 0.62), 0.075)
    handle = np.maximum(torus(p, (-0.38, 0, 0.42), 0.22, 0.05), p[:, 0] + 0.3)
    return [
        (MAIN, ellipsoid(p, (0, 0, 0.4), (0.46, 0.46, 0.38))),
        (MAIN, np.minimum(spout, handle)),
        (SECOND, ellipsoid(p, (0, 0, 0.74), (0.24, 0.24, 0.07))),
        (SECOND, sphere(p, (0, 0, 0.85), 0.065)),
    ]


SHAPES = {
    "ball": ball,
    "cube": cube,
    "cone": traffic_cone,
    "ring": ring,
    "mug": mug,
    "bottle": bottle,
    "bowl": bowl,
    "chair": chair,
    "house": house,
    "car": car,
    "tree": tree,
    "lamp": lamp,
    "robot": robot,
    "duck": duck,
    "teapot": teapot,
}


SOLIDS = {
    "box": box,
    "sphere": sphere,
    "ellipsoid": ellipsoid,
    "cylinder": cylinder,
    "cone": cone,
    "capsule": capsule,
    "torus": torus,
}
