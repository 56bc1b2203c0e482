"""Natural scenes of the demo data: coast, forest, mountain and open country."""

from __future__ import annotations

import numpy as np

from scenetrack.data.demo.canvas import Canvas, Colour, Point, mix, shade

GRASS: tuple[Colour, ...] = ((96, 138, 58), (140, 150, 70), (178, 160, 84), (72, 108, 60))
LEAVES: tuple[Colour, ...] = ((58, 98, 40), (86, 116, 44), (150, 106, 44), (96, 96, 84))
ROCK: tuple[Colour, ...] = ((112, 104, 100), (128, 110, 88), (86, 98, 112), (80, 96, 70))
SAND: tuple[Colour, ...] = ((214, 190, 146), (180, 158, 124), (150, 144, 138))
WATER: tuple[Colour, ...] = ((50, 92, 128), (70, 124, 134), (96, 110, 122), (40, 66, 88))


def draw_coast(canvas: Canvas) -> None:
    """Draw a horizon, rows of waves, and a beach along a slanting shore."""
    canvas.sky()
    horizon = canvas.between(0.25, 0.6)
    water = canvas.pick(WATER)
    far, near = canvas.distant(water, 0.6), water
    field = [(0.0, horizon), (1.0, horizon), (1.0, 1.0), (0.0, 1.0)]
    canvas.textured(field, shade(far, 0.8), mix(near, far, 0.3), canvas.noise(120, 12))
    if canvas.chance(0.45):
        _headland(canvas, horizon)
    _waves(canvas, horizon, water)
    if canvas.chance(0.8):
        _beach(canvas, horizon)
    if canvas.chance(0.3):
        x, size = canvas.between(0.1, 0.9), canvas.between(0.03, 0.07)
        sail = [(x, horizon - size), (x, horizon), (x + size * 0.6, horizon)]
        canvas.polygon(sail, canvas.pick([(235, 235, 230)]))
        canvas.box(x - size * 0.4, horizon, x + size * 0.7, horizon + size * 0.2, (60, 50, 48))


def _headland(canvas: Canvas, horizon: float) -> None:
    height, reach = canvas.between(0.05, 0.2), canvas.between(0.25, 0.6)
    outline = ridge(canvas, horizon - height * 0.6, height * 0.5, 0.5)
    land = [(x * reach, min(y + max(0.0, x - 0.6) * height * 2.5, horizon)) for x, y in outline]
    rock = canvas.distant(canvas.pick(ROCK + GRASS), 0.5)
    points = [*land, (reach, horizon), (0.0, horizon)]
    canvas.textured(points, shade(rock, 0.8), rock, canvas.noise(30, 30))


def _waves(canvas: Canvas, horizon: float, water: Colour) -> None:
    foam = mix(water, (240, 244, 246), canvas.between(0.5, 0.95))
    for _ in range(int(canvas.rng.integers(120, 260))):
        nearness = canvas.rng.random() ** 1.6
        y = horizon + 0.006 + nearness * (1 - horizon)
        x, length = canvas.between(-0.1, 1), 0.02 + 0.2 * nearness * canvas.between(0.3, 1.2)
        lift = 0.003 + 0.011 * nearness
        tint = foam if canvas.chance(0.4) else shade(water, canvas.between(0.55, 1.3))
        crest = [
            (x + length * t, y - lift * abs(np.sin(2 * np.pi * t))) for t in np.linspace(0, 1, 9)
        ]
        canvas.line(crest, tint, 0.002 + 0.006 * nearness)


def _beach(canvas: Canvas, horizon: float) -> None:
    sand = canvas.pick(SAND)
    start, end = canvas.between(0.55, 1.1), canvas.between(0.7, 1.3)
    bend, phase = canvas.between(0.01, 0.05), canvas.between(0, 6)
    top = horizon + 0.06
    shore = [
        (x, max(top, start + (end - start) * x + bend * np.sin(7 * x + phase)))
        for x in np.linspace(0, 1, 30)
    ]
    for lift, width in ((0.05, 0.012), (0.02, 0.02)):
        canvas.line([(x, y - lift) for x, y in shore], mix(sand, (255, 255, 255), 0.7), width)
    body = [*shore, (1.0, 1.4), (0.0, 1.4)]
    canvas.textured(body, shade(sand, 0.82), shade(sand, 1.08), canvas.noise(160, 160))


def draw_forest(canvas: Canvas) -> None:
    """Draw upright trunks in front of foliage that hides most of the sky."""
    canvas.sky()
    leaf = canvas.pick(LEAVES)
    ground = canvas.between(0.68, 1.05)
    everything = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)]
    canvas.textured(everything, shade(leaf, 0.3), shade(leaf, 1.1), canvas.noise(36, 30, octaves=3))
    foliage(canvas, leaf, 350, (0.0, 1.0), (0.0, ground))
    litter = canvas.pick(LEAVES + GRASS)
    floor = [(0.0, ground), (1.0, ground + canvas.between(-0.05, 0.05)), (1.0, 1.2), (0.0, 1.2)]
    canvas.textured(floor, shade(litter, 0.5), shade(litter, 1.1), canvas.noise(80, 50))
    bark = canvas.pick([(84, 66, 50), (120, 110, 98), (58, 50, 46), (190, 186, 176)])
    for distance in np.sort(canvas.rng.random(int(canvas.rng.integers(9, 22))))[::-1]:
        _trunk(canvas, canvas.distant(bark, distance * 0.7), float(distance), ground)
    foliage(canvas, shade(leaf, 1.15), 260, (0.0, 1.0), (-0.1, canvas.between(0.25, 0.6)))


def _trunk(canvas: Canvas, bark: Colour, distance: float, ground: float) -> None:
    width = 0.012 + 0.06 * (1 - distance) ** 2 * canvas.between(0.5, 1.2)
    foot = ground + (1.15 - ground) * (1 - distance) * canvas.between(0.3, 1)
    x, lean = canvas.between(-0.05, 1.05), canvas.between(-0.06, 0.06)
    canvas.line([(x, foot), (x + lean, -0.05)], bark, width)
    side = 0.28 * width
    canvas.line([(x + side, foot), (x + lean + side, -0.05)], shade(bark, 0.6), width * 0.4)
    canvas.line([(x - side, foot), (x + lean - side, -0.05)], shade(bark, 1.3), width * 0.15)
    for _ in range(int(canvas.rng.integers(1, 4))):
        y, reach = canvas.between(0.0, 0.6), canvas.between(-0.16, 0.16)
        start = x + lean * (1 - y / max(foot, 0.1))
        canvas.line([(start, y), (start + reach, y - abs(reach))], bark, width * 0.25)


def draw_mountain(canvas: Canvas) -> None:
    """Draw jagged ridges behind each other, their flanks streaked by rock and snow."""
    canvas.sky()
    rock = canvas.pick(ROCK)
    layers = int(canvas.rng.integers(2, 4))
    level = canvas.between(0.18, 0.4)
    for layer in range(layers):
        distance = 1 - layer / layers
        outline = ridge(canvas, level, canvas.between(0.16, 0.3), canvas.between(0.5, 0.62))
        _flank(canvas, outline, canvas.distant(rock, distance * 0.7), snow=canvas.chance(0.75))
        level += canvas.between(0.16, 0.3)
    if canvas.chance(0.5):
        _firs(canvas, canvas.between(0.8, 0.98))


def _flank(canvas: Canvas, outline: list[Point], rock: Colour, snow: bool) -> None:
    body = [*outline, (1.0, 1.1), (0.0, 1.1)]
    canvas.textured(body, shade(rock, 0.62), shade(rock, 1.2), canvas.noise(24, 30, octaves=3))
    if snow:
        peak = min(y for _, y in outline)
        line = peak + canvas.between(0.1, 0.3)
        rim = [(x, max(y, line + canvas.between(-0.07, 0.07))) for x, y in outline]
        white = canvas.pick([(238, 241, 246)], 5)
        cap = [*outline, *reversed(rim)]
        canvas.textured(cap, shade(white, 0.86), white, canvas.noise(24, 30))
    for x, y in outline:
        for _ in range(3):
            # Gullies run down the side of the ridge that they start on.
            start, length = y + canvas.rng.random() ** 2 * 0.5, canvas.between(0.03, 0.14)
            lean = canvas.between(0.1, 0.7) * (1 if np.sin(9 * x + outline[0][1] * 40) > 0 else -1)
            end = (x + lean * length, start + length)
            canvas.line(
                [(x, start), end],
                shade(rock, canvas.between(0.4, 1.15)),
                canvas.between(0.002, 0.007),
            )


def _firs(canvas: Canvas, ground: float) -> None:
    fir = shade(canvas.pick(LEAVES), 0.5)
    for x in np.sort(canvas.rng.random(45)):
        height = canvas.between(0.04, 0.12)
        base = ground + canvas.between(-0.02, 0.04)
        half = height * 0.28
        canvas.polygon(
            [(x - half, base), (x, base - height), (x + half, base)],
            shade(fir, canvas.between(0.7, 1.3)),
        )
    canvas.box(0.0, ground, 1.0, 1.1, fir)


def draw_open_country(canvas: Canvas) -> None:
    """Draw rolling fields under a wide sky, with furrows, hedges, bushes and bales."""
    canvas.sky()
    level = canvas.between(0.28, 0.55)
    far_land(canvas, level + 0.05)
    fields = int(canvas.rng.integers(3, 6))
    for field in range(fields):
        nearness = (field + 1) / fields
        _field(canvas, level, nearness)
        level += (1 - level) * canvas.between(0.2, 0.4)
    for _ in range(int(canvas.rng.integers(0, 4))):
        y = canvas.between(0.7, 0.95)
        size = 0.03 + 0.06 * (y - 0.7)
        bale = canvas.pick([(196, 168, 96)])
        x = canvas.between(0, 1)
        canvas.disc(x, y, size, size * 0.8, shade(bale, 0.8))
        canvas.disc(x - size * 0.3, y, size * 0.6, size * 0.75, bale)


def _field(canvas: Canvas, level: float, nearness: float) -> None:
    swell, phase = canvas.between(0.01, 0.05), canvas.between(0, 6)
    waves, tilt = canvas.between(2, 6), canvas.between(-0.08, 0.08)
    edge = [
        (x, level + swell * np.sin(waves * x + phase) + tilt * (x - 0.5))
        for x in np.linspace(0, 1, 24)
    ]
    grass = canvas.distant(canvas.pick(GRASS), 1 - nearness)
    grain = int(140 - 70 * nearness)
    body = [*edge, (1.0, 1.1), (0.0, 1.1)]
    canvas.textured(body, shade(grass, 0.78), shade(grass, 1.12), canvas.noise(grain, grain // 2))
    if canvas.chance(0.5):
        _furrows(canvas, edge, grass, nearness)
    else:
        _tufts(canvas, edge, grass, nearness)
    if canvas.chance(0.7):
        _hedge(canvas, edge, nearness)


def _furrows(canvas: Canvas, edge: list[Point], grass: Colour, nearness: float) -> None:
    target = canvas.between(-0.5, 1.5)
    for x, y in edge:
        end = (x + (x - target) * 0.9, y + 0.5)
        canvas.line([(x, y), end], shade(grass, 0.75), 0.003 + 0.006 * nearness)


def _tufts(canvas: Canvas, edge: list[Point], grass: Colour, nearness: float) -> None:
    top = min(y for _, y in edge)
    for _ in range(160):
        x, y = canvas.between(0, 1), top + 0.06 + (1 - top) * canvas.rng.random()
        size = (0.008 + 0.025 * nearness) * canvas.between(0.5, 1.4)
        tip = (x + canvas.between(-0.4, 0.4) * size, y - size)
        canvas.line([(x, y), tip], shade(grass, canvas.between(0.6, 1.35)), 0.003)


def _hedge(canvas: Canvas, edge: list[Point], nearness: float) -> None:
    leaf = canvas.distant(canvas.pick(LEAVES), 1 - nearness)
    start, end = np.sort(canvas.rng.uniform(-0.2, 1.2, 2))
    for x, y in edge:
        for _ in range(3):
            size = (0.008 + 0.03 * nearness) * canvas.between(0.5, 1.2)
            if start < x < end:
                canvas.disc(
                    x + canvas.between(-0.03, 0.03),
                    y - size * 0.5,
                    size,
                    size * 0.8,
                    shade(leaf, canvas.between(0.6, 1.2)),
                )


def foliage(canvas: Canvas, leaf: Colour, count: int, across: Point, down: Point) -> None:
    """Draw ``count`` leaves at random positions within the given ranges of x and y."""
    xs, ys = canvas.rng.uniform(*across, count), canvas.rng.uniform(*down, count)
    sizes, tones = canvas.rng.uniform(0.006, 0.022, count), canvas.rng.uniform(0.45, 1.5, count)
    for x, y, size, tone in zip(xs, ys, sizes, tones, strict=True):
        canvas.disc(x, y, size, size * 0.7, shade(leaf, tone))


def ridge(canvas: Canvas, level: float, height: float, roughness: float) -> list[Point]:
    """Return a jagged line from left to right at about ``level``, by midpoint displacement."""
    heights = canvas.rng.uniform(-height, height, 3)
    step = height
    for _ in range(6):
        middle = (heights[:-1] + heights[1:]) / 2
        middle += canvas.rng.uniform(-step, step, len(middle))
        heights = np.insert(heights, range(1, len(heights)), middle)
        step *= roughness
    xs = np.linspace(0, 1, len(heights))
    return [(float(x), float(level + h)) for x, h in zip(xs, heights, strict=True)]


def far_land(canvas: Canvas, horizon: float) -> None:
    """Draw low hazy hills that end at ``horizon``, in some images with trees."""
    land = canvas.distant(canvas.pick(GRASS + ROCK), 0.9)
    outline = ridge(canvas, horizon - canvas.between(0.01, 0.06), 0.03, 0.5)
    canvas.polygon([*outline, (1.0, horizon), (0.0, horizon)], land)
    if canvas.chance(0.5):
        tree = canvas.distant(canvas.pick(LEAVES), 0.6)
        for x in canvas.rng.random(25):
            size = canvas.between(0.008, 0.03)
            canvas.disc(x, horizon - size * 0.4, size, size, shade(tree, canvas.between(0.8, 1.1)))
