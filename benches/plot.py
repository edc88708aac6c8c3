#!/usr/bin/env python3
"""Draws benches/cost.svg: cargo bench --bench ratios -- --csv | python3 benches/plot.py

Reads bytes,hmac_ns,minimal_ns,layer_ns from standard input. Above: what a call costs by the size of
its body, both axes logarithmic. Below: the same as a ratio to the bare HMAC. The minimal layer is the
floor: it parses, verifies and marks, and does nothing else.
"""
import csv
import math
import pathlib
import sys

WIDTH, LEFT, RIGHT = 700, 84, 676
COST, RATIO = (64, 352), (430, 548)  # top and bottom of each panel
HEIGHT = 612

STYLE = """
text { font: 14px system-ui, -apple-system, 'Segoe UI', 'Liberation Sans', sans-serif; fill: #1f2328 }
.small { font-size: 13px; fill: #59636e }
.title { font-size: 16px; font-weight: 600 }
.grid { stroke: #d1d9e0; stroke-width: 1 }
.paper { fill: #ffffff }
.line { fill: none; stroke-width: 2.5; stroke-linejoin: round }
.hmac { stroke: #59636e; stroke-dasharray: 7 4 }
.layer { stroke: #0969da }
.floor { stroke: #bf8700; stroke-dasharray: 2 4 }
.dot { fill: #0969da }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .small { fill: #9198a1 }
  .grid { stroke: #3d444d }
  .paper { fill: #0d1117 }
  .hmac { stroke: #9198a1 }
  .layer { stroke: #58a6ff }
  .floor { stroke: #d29922 }
  .dot { fill: #58a6ff }
}
"""


def size(count):
    for unit, factor in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= factor:
            return f"{count // factor} {unit}"
    return f"{count} B"


def duration(ns):
    for unit, factor in (("ms", 1e6), ("µs", 1e3)):
        if ns >= factor:
            return f"{ns / factor:.0f} {unit}"
    return f"{ns:.0f} ns"


def main():
    names = ("bytes", "hmac_ns", "minimal_ns", "layer_ns")
    rows = [[float(row[name]) for name in names] for row in csv.DictReader(sys.stdin)]
    if len(rows) < 2 or any(value <= 0 for row in rows for value in row):
        sys.exit(f"plot.py: nothing to draw: at least two rows of {','.join(names)}, all above 0")
    sizes, hmacs, floors, layers = zip(*rows)
    floor_ratios = [floor / hmac for floor, hmac in zip(floors, hmacs)]
    ratios = [layer / hmac for layer, hmac in zip(layers, hmacs)]

    least = 10 ** math.floor(math.log10(min(hmacs)))
    most = 10 ** math.ceil(math.log10(max(layers)))
    highest = math.ceil(max(ratios))

    def scale(value, low, high, start, end):
        return start + (end - start) * (value - low) / (high - low)

    def x(count):
        return scale(math.log2(count), math.log2(sizes[0]), math.log2(sizes[-1]), LEFT, RIGHT)

    def cost_y(ns):
        return scale(math.log10(ns), math.log10(least), math.log10(most), COST[1], COST[0])

    def ratio_y(ratio):
        return scale(ratio, 0, highest, RATIO[1], RATIO[0])

    out = []

    def text(left, top, words, anchor="start", style=""):
        out.append(f'<text x="{left:.1f}" y="{top:.1f}" text-anchor="{anchor}" class="{style}">{words}</text>')

    def grid(x1, y1, x2, y2):
        out.append(f'<path class="grid" d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"/>')

    def line(style, y, values):
        points = " ".join(f"{x(count):.1f},{y(value):.1f}" for count, value in zip(sizes, values))
        out.append(f'<polyline class="line {style}" points="{points}"/>')

    def dots(y, values):
        out.extend(f'<circle class="dot" cx="{x(c):.1f}" cy="{y(v):.1f}" r="3"/>' for c, v in zip(sizes, values))

    ticks = [count for at, count in enumerate(sizes) if at % 2 == 0]
    for top, bottom in (COST, RATIO):
        for count in ticks:
            grid(x(count), top, x(count), bottom)
            text(x(count), bottom + 20, size(int(count)), "middle", "small")

    text(LEFT, 26, "Time of a call on one core, by the size of its body", style="title")
    step = least
    while step <= most:
        grid(LEFT, cost_y(step), RIGHT, cost_y(step))
        text(LEFT - 8, cost_y(step) + 4, duration(step), "end", "small")
        step *= 10
    line("hmac", cost_y, hmacs)
    line("floor", cost_y, floors)
    line("layer", cost_y, layers)
    dots(cost_y, layers)
    legend = COST[0] + 22
    for style, words in (
        ("layer", "the layer, its HMAC included"),
        ("floor", "a minimal layer, its HMAC included"),
        ("hmac", "the bare HMAC-SHA256"),
    ):
        out.append(f'<path class="line {style}" d="M{LEFT + 16} {legend - 5}h34"/>')
        text(LEFT + 60, legend, words)
        legend += 24

    text(LEFT, RATIO[0] - 14, "The same as a ratio to the bare HMAC", style="title")
    for ratio in range(highest + 1):
        grid(LEFT, ratio_y(ratio), RIGHT, ratio_y(ratio))
        text(LEFT - 8, ratio_y(ratio) + 4, f"{ratio} ×", "end", "small")
    line("hmac", ratio_y, [1] * len(sizes))
    line("floor", ratio_y, floor_ratios)
    line("layer", ratio_y, ratios)
    dots(ratio_y, ratios)
    for count, ratio in zip(sizes, ratios):
        if count in (1 << 10, 1 << 16, sizes[-1]):
            anchor = "end" if count == sizes[-1] else "middle"
            text(x(count), ratio_y(ratio) - 10, f"{ratio:.2f}", anchor)
    text((LEFT + RIGHT) / 2, HEIGHT - 20, "body, in bytes (logarithmic)", "middle")

    drawing = "\n".join(out)
    target = pathlib.Path(__file__).with_name("cost.svg")
    target.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
        f' role="img" aria-label="Cost of a call by the size of its body">\n<style>{STYLE}</style>\n'
        f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}" rx="6"/>\n{drawing}\n</svg>\n',
        encoding="utf-8",
    )
    print(target)


main()
