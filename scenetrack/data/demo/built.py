"""Man-made scenes of the demo data: highway, street, inside of a city and tall buildings."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from scenetrack.data.demo.canvas import Canvas, Colour, Point, Quad, mix, shade
from scenetrack.data.demo.natural import GRASS, LEAVES, SAND, far_land, foliage

WALL: tuple[Colour, ...] = (
    (176, 122, 92),
    (204, 190, 162),
    (150, 152, 156),
    (128, 84, 72),
    (120, 142, 160),
    (188, 176, 120),
)
GLASS: tuple[Colour, ...] = ((52, 66, 84), (84, 108, 134), (36, 40, 48), (168, 184, 196))
ASPHALT: tuple[Colour, ...] = ((92, 92, 96), (120, 118, 116), (70, 72, 80))
PAINT: tuple[Colour, ...] = (
    (170, 40, 40),
    (40, 70, 150),
    (220, 220, 220),
    (40, 44, 48),
    (200, 170, 60),
)


def draw_highway(canvas: Canvas) -> None:
    """Draw a wide road with lane markings that runs to a low horizon under much sky."""
    canvas.sky()
    horizon, centre = canvas.between(0.3, 0.58), canvas.between(0.2, 0.8)
    grass = canvas.pick(GRASS)
    far_land(canvas, horizon)
    verge = [(0.0, horizon), (1.0, horizon), (1.0, 1.0), (0.0, 1.0)]
    canvas.textured(verge, shade(grass, 0.8), shade(grass, 1.1), canvas.noise(100, 30))
    view = _View(centre, horizon, canvas.between(0.5, 0.75))
    left, right = -canvas.between(0.5, 1.3), canvas.between(0.5, 1.3)
    tar = canvas.pick(ASPHALT)
    road = [view.at(left, 60), view.at(right, 60), view.at(right, 0.7), view.at(left, 0.7)]
    canvas.textured(road, shade(tar, 0.9), shade(tar, 1.08), canvas.noise(60, 60))
    _markings(canvas, view, left, right)
    _rails(canvas, view, left, right)
    for z in np.sort(canvas.rng.uniform(1.6, 12, int(canvas.rng.integers(0, 6))))[::-1]:
        _car(canvas, view, canvas.between(left + 0.1, right - 0.1), float(z), 0.3)
    if canvas.chance(0.25):
        _gantry(canvas, view, left, right)


class _View:
    """A camera ``height`` above flat ground, looking at the vanishing point (x, y)."""

    def __init__(self, x: float, y: float, height: float) -> None:
        self.x, self.y, self.height = x, y, height

    def at(self, across: float, depth: float, up: float = 0.0) -> Point:
        """Project the point ``across`` to the right, ``depth`` ahead and ``up`` onto the image."""
        return self.x + across / depth, self.y + (self.height - up) / depth


def _stripe(canvas: Canvas, view: _View, across: float, span: Point, colour: Colour) -> None:
    near, far = span
    half = 0.018
    canvas.polygon(
        [
            view.at(across - half, far),
            view.at(across + half, far),
            view.at(across + half, near),
            view.at(across - half, near),
        ],
        colour,
    )


def _markings(canvas: Canvas, view: _View, left: float, right: float) -> None:
    white = canvas.pick([(236, 236, 230), (226, 200, 90)], 8)
    for edge in (left + 0.07, right - 0.07):
        _stripe(canvas, view, edge, (0.7, 50), white)
    lanes = max(2, round((right - left) / canvas.between(0.35, 0.5)))
    offset = canvas.between(0, 0.6)
    for lane in range(1, lanes):
        across = left + (right - left) * lane / lanes
        for step in range(14):
            near = 0.6 + offset + step * 0.75 * (1 + 0.12 * step)
            _stripe(canvas, view, across, (near, near + 0.35 * (1 + 0.1 * step)), white)


def _rails(canvas: Canvas, view: _View, left: float, right: float) -> None:
    steel = canvas.pick([(170, 172, 176), (120, 116, 110)])
    for edge in (left - 0.06, right + 0.06):
        if canvas.chance(0.7):
            corners = ((0.7, 0.16), (40, 0.16), (40, 0.1), (0.7, 0.1))
            rail = [view.at(edge, z, up) for z, up in corners]
            canvas.polygon(rail, steel)
            for z in np.arange(0.8, 12, 0.5):
                canvas.line([view.at(edge, z), view.at(edge, z, 0.16)], steel, 0.008 / z)


def _car(canvas: Canvas, view: _View, across: float, z: float, width: float) -> None:
    paint = canvas.pick(PAINT)
    (x0, ground), (x1, _) = view.at(across - width / 2, z), view.at(across + width / 2, z)
    size = x1 - x0
    canvas.box(x0, ground - 0.42 * size, x1, ground - 0.1 * size, paint)
    canvas.box(x0 + 0.12 * size, ground - 0.75 * size, x1 - 0.12 * size, ground - 0.4 * size, paint)
    window = (30, 36, 44)
    canvas.box(x0 + 0.2 * size, ground - 0.7 * size, x1 - 0.2 * size, ground - 0.45 * size, window)
    for x in (x0 + 0.05 * size, x1 - 0.2 * size):
        canvas.box(x, ground - 0.12 * size, x + 0.15 * size, ground, (20, 20, 20))
        canvas.box(x, ground - 0.34 * size, x + 0.13 * size, ground - 0.26 * size, (200, 60, 50))


def _gantry(canvas: Canvas, view: _View, left: float, right: float) -> None:
    z, steel = canvas.between(2, 5), canvas.pick([(130, 132, 136)])
    top = view.height + canvas.between(0.5, 1.0)
    posts = [view.at(left - 0.1, z), view.at(left - 0.1, z, top)]
    posts += [view.at(right + 0.1, z, top), view.at(right + 0.1, z)]
    canvas.line(posts, steel, 0.02 / z)
    (x0, y0), (x1, y1) = view.at(left + 0.2, z, top), view.at(right - 0.2, z, top - 0.35)
    canvas.box(x0, y0, x1, y1, canvas.pick([(30, 90, 60), (40, 70, 150)]))
    canvas.line([(x0 + 0.02, (y0 + y1) / 2), (x1 - 0.02, (y0 + y1) / 2)], (230, 230, 230), 0.006)


def draw_street(canvas: Canvas) -> None:
    """Draw two rows of houses that converge along a road, and a wedge of sky."""
    canvas.sky()
    view = _View(canvas.between(0.25, 0.75), canvas.between(0.45, 0.68), canvas.between(0.25, 0.4))
    half = canvas.between(0.45, 0.75)
    far_land(canvas, view.y + 0.02)
    pavement, tar = canvas.pick(SAND), canvas.pick(ASPHALT)
    canvas.polygon([(0.0, view.y), (1.0, view.y), (1.0, 1.0), (0.0, 1.0)], pavement)
    road = [view.at(a, z) for a, z in ((-half, 30), (half, 30), (half, 0.3), (-half, 0.3))]
    canvas.textured(road, shade(tar, 0.85), shade(tar, 1.1), canvas.noise(70, 50))
    for side in (-1, 1):
        _stripe(canvas, view, side * half, (0.3, 30), mix(pavement, (255, 255, 255), 0.3))
        _house_row(canvas, view, side, half + canvas.between(0.12, 0.3))
    for z in np.arange(0.6, 8, 0.9):
        _stripe(canvas, view, 0.0, (z, z + 0.4), (222, 222, 214))
    for z in np.sort(canvas.rng.uniform(0.9, 5, int(canvas.rng.integers(2, 8))))[::-1]:
        side = 1 if canvas.chance(0.5) else -1
        _car(canvas, view, side * (half - 0.16), float(z), 0.24)
    if canvas.chance(0.6):
        _lamps(canvas, view, half + 0.06)


def _house_row(canvas: Canvas, view: _View, side: int, across: float) -> None:
    depths = [0.35]
    while depths[-1] < 9:
        depths.append(depths[-1] * canvas.between(1.35, 1.8))
    for near, far in reversed(list(pairwise(depths))):
        wall = canvas.distant(canvas.pick(WALL), min(1, far / 9) * 0.8)
        wall = shade(wall, 0.75 if side < 0 else 1.0)
        top = view.height + canvas.between(0.55, 1.3)
        a, b = view.at(side * across, near, top), view.at(side * across, far, top)
        c, d = view.at(side * across, far), view.at(side * across, near)
        canvas.polygon([a, b, c, d], wall)
        canvas.line([a, b], shade(wall, 0.6), 0.008)
        canvas.line([b, c], shade(wall, 0.7), 0.004)
        panes = [shade(canvas.pick(GLASS), 0.9) for _ in range(3)]
        floors = int(canvas.rng.integers(3, 7))
        columns = max(2, round((far - near) / near * 4))
        canvas.windows(_seen_on((a, b, c, d), near, far), floors, columns, (0.5, 0.45), panes)


def _seen_on(quad: Quad, near: float, far: float) -> Quad:
    """Return ``quad`` without the strips at its foot and roof."""
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = quad
    near_rim, far_rim = 0.06 * (dy - ay), 0.06 * (cy - by)
    return (ax, ay + near_rim), (bx, by + far_rim), (cx, cy - far_rim), (dx, dy - near_rim)


def _lamps(canvas: Canvas, view: _View, across: float) -> None:
    side = 1 if canvas.chance(0.5) else -1
    for z in (4.5, 2.4, 1.3):
        top = view.height + 0.55
        arm = [view.at(side * across, z), view.at(side * across, z, top)]
        canvas.line([*arm, view.at(side * (across - 0.2), z, top + 0.03)], (50, 52, 56), 0.014 / z)


def draw_inside_city(canvas: Canvas) -> None:
    """Draw house fronts seen from the front, with shops, doors and a pavement."""
    canvas.sky()
    street = canvas.between(0.78, 0.95)
    x = canvas.between(-0.3, 0.0)
    while x < 1.0:
        width = canvas.between(0.3, 0.8)
        _house_front(canvas, x, x + width, canvas.between(-0.4, 0.15), street)
        x += width
    pavement, tar = canvas.pick(SAND), canvas.pick(ASPHALT)
    canvas.box(0.0, street, 1.0, street + 0.06, pavement)
    canvas.box(0.0, street + 0.06, 1.0, 1.0, tar)
    for _ in range(int(canvas.rng.integers(0, 5))):
        _walker(canvas, street + canvas.between(0.0, 0.05))
    if canvas.chance(0.5):
        _side_car(canvas, canvas.between(-0.1, 0.8), street + canvas.between(0.05, 0.12))


def _house_front(canvas: Canvas, x0: float, x1: float, top: float, street: float) -> None:
    wall = canvas.pick(WALL)
    shop = street - canvas.between(0.2, 0.32)
    front = [(x0, top), (x1, top), (x1, street), (x0, street)]
    canvas.textured(front, shade(wall, 0.88), shade(wall, 1.08), canvas.noise(90, 60))
    if canvas.chance(0.5):
        for y in np.arange(max(top, 0), shop, canvas.between(0.018, 0.03)):
            canvas.line([(x0, y), (x1, y)], shade(wall, 0.82), 0.003)
    trim = mix(wall, (240, 236, 226), 0.6) if canvas.chance(0.5) else shade(wall, 0.6)
    floors = max(1, round((shop - top) / canvas.between(0.2, 0.34)))
    columns = max(2, round((x1 - x0) / canvas.between(0.1, 0.17)))
    upper = ((x0, top + 0.02), (x1, top + 0.02), (x1, shop - 0.02), (x0, shop - 0.02))
    wide = canvas.between(0.4, 0.55)
    canvas.windows(upper, floors, columns, (wide - 0.12, wide - 0.12), [trim])
    canvas.windows(upper, floors, columns, (wide, wide), [canvas.pick(GLASS) for _ in range(4)])
    canvas.windows(upper, 2 * floors, columns, (0.97, 0.0), [trim])
    canvas.line([(x0, shop), (x1, shop)], trim, 0.014)
    canvas.line([(x0, top), (x1, top)], shade(wall, 0.5), 0.02)
    canvas.line([(x1, top), (x1, street)], shade(wall, 0.5), 0.006)
    _shop_floor(canvas, x0, x1, shop, street)


def _shop_floor(canvas: Canvas, x0: float, x1: float, shop: float, street: float) -> None:
    bays = int(canvas.rng.integers(2, 5))
    width = (x1 - x0) / bays
    for bay in range(bays):
        left, right = x0 + (bay + 0.1) * width, x0 + (bay + 0.9) * width
        if canvas.chance(0.35):
            middle, half = (left + right) / 2, min(0.055, width * 0.35)
            canvas.box(middle - half, shop + 0.06, middle + half, street, canvas.pick(PAINT))
            canvas.box(
                middle - half * 0.6,
                shop + 0.08,
                middle + half * 0.6,
                shop + 0.13,
                canvas.pick(GLASS),
            )
        else:
            canvas.box(left, shop + 0.06, right, street - 0.04, canvas.pick(GLASS))
            canvas.line(
                [((left + right) / 2, shop + 0.06), ((left + right) / 2, street - 0.04)],
                (210, 206, 196),
                0.006,
            )
        if canvas.chance(0.6):
            _awning(canvas, left - 0.01, right + 0.01, shop + 0.03)


def _awning(canvas: Canvas, x0: float, x1: float, y: float) -> None:
    cloth, stripes = canvas.pick(PAINT), 8
    step = (x1 - x0) / stripes
    for stripe in range(stripes):
        left = x0 + stripe * step
        tint = cloth if stripe % 2 else (232, 228, 218)
        foot = left - 0.012
        corners = [(left, y), (left + step, y), (foot + step, y + 0.06), (foot, y + 0.06)]
        canvas.polygon(corners, tint)


def _walker(canvas: Canvas, foot: float) -> None:
    x, size, coat = canvas.between(0, 1), canvas.between(0.13, 0.17), canvas.pick(PAINT)
    canvas.box(x - 0.16 * size, foot - 0.85 * size, x + 0.16 * size, foot - 0.4 * size, coat)
    canvas.box(x - 0.13 * size, foot - 0.42 * size, x + 0.13 * size, foot, (44, 46, 60))
    canvas.disc(x, foot - 0.92 * size, 0.09 * size, 0.1 * size, (206, 164, 134))


def _side_car(canvas: Canvas, x: float, ground: float) -> None:
    paint, length = canvas.pick(PAINT), canvas.between(0.3, 0.42)
    roof = [
        (x + 0.2 * length, ground - 0.22 * length),
        (x + 0.32 * length, ground - 0.36 * length),
        (x + 0.7 * length, ground - 0.36 * length),
        (x + 0.85 * length, ground - 0.22 * length),
    ]
    canvas.box(x, ground - 0.24 * length, x + length, ground - 0.06 * length, paint)
    canvas.polygon(roof, shade(paint, 0.5))
    for wheel in (0.2, 0.78):
        canvas.disc(
            x + wheel * length, ground - 0.06 * length, 0.08 * length, 0.08 * length, (24, 24, 26)
        )


def draw_tallbuilding(canvas: Canvas) -> None:
    """Draw towers with fine grids of windows against the sky."""
    canvas.sky()
    if canvas.chance(0.5):
        for _ in range(int(canvas.rng.integers(4, 10))):
            x, width = canvas.between(-0.1, 1), canvas.between(0.05, 0.16)
            _tower(canvas, x, x + width, canvas.between(0.55, 0.85), 0.0, 0.8)
    leaning = canvas.between(0.0, 0.18)
    for _ in range(int(canvas.rng.integers(1, 5))):
        x, width = canvas.between(-0.05, 0.8), canvas.between(0.16, 0.42)
        _tower(canvas, x, x + width, canvas.between(-0.1, 0.4), leaning, canvas.between(0, 0.3))
    if canvas.chance(0.35):
        foliage(canvas, canvas.pick(LEAVES), 120, (0.0, 1.0), (canvas.between(0.86, 0.95), 1.05))


def _tower(canvas: Canvas, x0: float, x1: float, top: float, lean: float, distance: float) -> None:
    """Draw a tower whose sides converge upwards by ``lean``, with a darker second face."""
    wall = canvas.distant(canvas.pick(WALL + GLASS), distance)
    panes = [canvas.distant(canvas.pick(GLASS), distance) for _ in range(3)]

    def drawn_in(x: float) -> float:
        return x + (0.5 - x) * lean * 2

    split = x1 - (x1 - x0) * (canvas.between(0.2, 0.4) if canvas.chance(0.6) else 0.0)
    rows = max(4, round((1.1 - top) / canvas.between(0.035, 0.06)))
    ribbon = canvas.chance(0.3)
    drop = canvas.between(0.0, 0.06) if split < x1 else 0.0
    faces = ((x0, split, top, top, 1.0), (split, x1, top, top + drop, 0.62))
    for left, right, left_top, right_top, tone in faces:
        if right <= left:
            continue
        quad = ((drawn_in(left), left_top), (drawn_in(right), right_top), (right, 1.1), (left, 1.1))
        canvas.polygon(quad, shade(wall, tone))
        columns = max(2, round((right - left) / 0.045))
        gaps = (0.06, 0.5) if ribbon else (0.45, 0.45)
        canvas.windows(quad, rows, columns, gaps, [shade(pane, tone) for pane in panes])
    if canvas.chance(0.3):
        middle = drawn_in((x0 + split) / 2)
        canvas.line([(middle, top), (middle, top - canvas.between(0.05, 0.2))], wall, 0.006)
