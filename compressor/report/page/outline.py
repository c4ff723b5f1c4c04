"""The learned architecture: a picture and a table with one row per block."""

from __future__ import annotations

from collections.abc import Sequence

from compressor.report import wording
from compressor.report.page.charts import WIDTH, coordinate
from compressor.report.page.markup import Markup, join, legend, section, table, tag
from compressor.report.records import Report
from compressor.report.structure import BlockShape

#: Up to this many rows picture and table are shown open; longer ones fold away.
OPEN_ROWS = 40
_LEFT, _RIGHT = 250, 690  # where the widths are drawn
_KERNEL, _RESOLUTION = 762, 878  # middles of the columns of squares
_SIDE, _LINE = 26, 13  # largest side of a square; height of a layer


def architecture(report: Report) -> Markup:
    """Kernel size, resolution and widths of every block; left out if there are no rows."""
    rows = report.blocks
    if not rows:
        return Markup("")
    names = [wording.block_name(row) for row in rows]
    cells = [
        (
            tag("code", name),
            _change(row.kernel_before, row.kernel_after, row.removed),
            _change(row.resolution_before, row.resolution_after, row.removed),
            _widths(row),
        )
        for name, row in zip(names, rows, strict=True)
    ]
    head = ("Block or layer", "Kernel size", "Resolution", "Width: in, then of each layer")
    parts = [
        legend([("before", "original"), ("accent", "compressed")]),
        tag("figure", picture(rows)),
        table(head, cells, kinds="tttt", dense=True),
    ]
    if len(rows) > OPEN_ROWS:
        parts = [parts[0], tag("details", tag("summary", f"All {len(rows)} blocks and layers"), *parts[1:])]
    blocks = [row for row in rows if row.residual]
    kept, new = sum(not row.removed and not row.new for row in blocks), sum(row.new for row in blocks)
    depth = f"{kept} of {len(blocks) - new} residual blocks are left. " if blocks else ""
    depth += f"{new} {'is' if new == 1 else 'are'} new. " if new else ""
    bracket = " A bracket marks a block that a shortcut leads around." if blocks else ""
    lead = f"{depth}From the input at the top to the output.{bracket}"
    return section("Architecture", *parts, lead=lead)


def _widths(row: BlockShape) -> object:
    if row.removed:
        return "removed"
    change = _change(row.width_before, row.width_after, row.removed)
    return join(["new: ", change]) if row.new else change


def _change(before: Sequence[int], after: Sequence[int], removed: bool) -> object:
    if removed or not after:
        return ""
    if not before:
        return f"[{' '.join(map(str, after))}]"
    first, second = (f"[{' '.join(map(str, sizes))}]" for sizes in (before, after))
    return first if first == second else join([tag("span", f"{first} → ", class_="muted"), second])


def picture(rows: Sequence[BlockShape]) -> Markup:
    """Blocks from top to bottom: widths as silhouettes, kernels and resolutions as squares in squares."""
    widest = max(1, *(max([*row.width_before, *row.width_after], default=1) for row in rows))
    kernels = max(1, *(max([*row.kernel_before, *row.kernel_after], default=1) for row in rows))
    positions = max(1, *(max([*row.resolution_before, *row.resolution_after], default=1) for row in rows))
    parts = [
        tag("text", "Width", x=(_LEFT + _RIGHT) / 2, y=14, text_anchor="middle"),
        tag("text", "Kernel", x=_KERNEL, y=14, text_anchor="middle"),
        tag("text", "Resolution", x=_RESOLUTION, y=14, text_anchor="middle"),
    ]
    y = 26.0
    for row in rows:
        layers = max(1, len(row.width_before or row.width_after) - 1)
        # Squares are drawn to one scale, so a row that has some is as tall as the largest.
        squares = row.kernel_before or row.resolution_before or row.kernel_after or row.resolution_after
        height = max(_LINE * layers, _SIDE if squares else _LINE)
        parts += _row(row, y, height, widest)
        middle = y + height / 2
        parts += _squares(row.kernel_before, row.kernel_after, _KERNEL, middle, _SIDE / kernels)
        parts += _squares(row.resolution_before, row.resolution_after, _RESOLUTION, middle, _SIDE / positions)
        y += height + 7
    label = "Widths, kernels and resolutions of all blocks, before and after"
    return tag("svg", join(parts), viewBox=f"0 0 {WIDTH} {y:.0f}", role="img", aria_label=label)


def _row(row: BlockShape, y: float, height: float, widest: int) -> list[Markup]:
    """Name, shortcut and silhouettes of one block."""
    name = wording.block_name(row)
    shown = name if len(name) <= 30 else f"…{name[-29:]}"
    middle = y + height / 2
    parts = [tag("text", shown, x=0, y=coordinate(middle + 4.5), class_=None if row.removed else "strong")]
    if row.residual:  # the shortcut: a bracket beside the block
        left = _LEFT - 16
        path = f"M{left + 8} {coordinate(y)}H{left}V{coordinate(y + height)}H{left + 8}"
        parts.append(tag("path", d=path, fill="none", stroke="var(--muted)", stroke_width=1.25))
    centre, scale = (_LEFT + _RIGHT) / 2, (_RIGHT - _LEFT) / widest
    before = [] if row.new else [_silhouette(row.width_before, y, height, centre, scale, "before", 0.5)]
    after = [] if row.removed else [_silhouette(row.width_after, y, height, centre, scale, "accent", 1)]
    # The wider one goes behind.
    grown = sum(row.width_after) > sum(row.width_before)
    parts += [*after, *before] if grown else [*before, *after]
    if row.removed:
        parts.append(tag("text", "removed", x=centre, y=coordinate(middle + 4.5), text_anchor="middle"))
    change = "new, " if row.new else f"{row.width_before} → "
    title = f"{name}: width {row.width_before} removed" if row.removed else f"{name}: width {change}{row.width_after}"
    return [tag("g", tag("title", title), join(parts))]


def _silhouette(
    widths: Sequence[int], y: float, height: float, centre: float, scale: float, colour: str, opacity: float
) -> Markup:
    """A polygon as wide as the block at every layer; one width alone is a bar."""
    ends = list(widths) if len(widths) > 1 else [*widths, *widths]
    step = height / max(1, len(ends) - 1)
    left = [f"{coordinate(centre - width * scale / 2)},{coordinate(y + i * step)}" for i, width in enumerate(ends)]
    right = [f"{coordinate(centre + width * scale / 2)},{coordinate(y + i * step)}" for i, width in enumerate(ends)]
    points = " ".join([*left, *reversed(right)])
    return tag("polygon", points=points, fill=f"var(--{colour})", opacity=opacity)


def _squares(before: Sequence[int], after: Sequence[int], x: float, y: float, scale: float) -> list[Markup]:
    """A rectangle for the sizes before, and one for those after in it; one size alone is drawn as a bar."""
    parts = []
    for sizes, colour, opacity in ((before, "before", 0.5), (after, "accent", 1)):
        if not sizes:
            continue
        tall, wide = (sizes[-2], sizes[-1]) if len(sizes) > 1 else (None, sizes[0])
        width, height = max(1.5, wide * scale), 6.0 if tall is None else max(1.5, tall * scale)
        if tall is None:
            width *= 3  # a bar has the room that a square has not
        parts.append(
            tag(
                "rect",
                x=coordinate(x - width / 2),
                y=coordinate(y - height / 2),
                width=coordinate(width),
                height=coordinate(height),
                fill=f"var(--{colour})",
                opacity=opacity,
            )
        )
    return parts
