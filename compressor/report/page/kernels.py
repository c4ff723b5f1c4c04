"""The kernels that a search chose: in the paper's notation, as pictures of their taps, and as a table.

Every picture is small and of one site, so that a narrow window shows fewer beside each other and none shrinks.
"""

from __future__ import annotations

from collections.abc import Sequence

from compressor.report import kernels, wording
from compressor.report.kernels import Kernel, Site
from compressor.report.page.charts import coordinate
from compressor.report.page.markup import Markup, join, legend, section, table, tag
from compressor.report.records import Report

#: Up to this many sites the table is shown open, and up to so many the pictures.
OPEN_ROWS, OPEN_PICTURES = 24, 80
_SIDE, _ROW = 120, 34  # of a picture in two dimensions; height of one in one dimension
_WIDE = 300  # its width
_ZOOM = 5  # a frame this many times as long as its kernels is cut to that
_TAPS = 64  # more taps along an axis are drawn as one area


def chosen(report: Report) -> Markup:
    """Left out where no kernels were chosen."""
    found = kernels.sites(report)
    if not found:
        return Markup("")
    changed = sum(site.changed for site in found)
    lead = (
        f"The kernel of {changed} of {len(found)} convolutions is another one now. From the input to the output, with "
        "output channels, then kernel size and dilation of each convolution, block by block."
    )
    parts = [tag("p", _words(found), class_="notation"), *_pictures(found)]
    body = _table(found)
    if len(found) > OPEN_ROWS:
        body = tag("details", tag("summary", f"All {len(found)} kernels"), body)
    return section("Kernels", *parts, body, lead=lead)


def _words(found: Sequence[Site]) -> Markup:
    """``Block`` with what is in it below the line, one after the other."""
    return join(join([tag("span", kind, tag("sub", inside)), " "]) for kind, inside in kernels.notation(found))


def _pictures(found: Sequence[Site]) -> list[Markup]:
    flat = [site for site in found if len(site.after.size) != 2]
    deep = [site for site in found if len(site.after.size) == 2]
    grids = []
    for sites, draw, kind in ((deep, picture, "tiles"), (flat, strip, "strips")):
        if not sites:
            continue
        grid = tag("div", join(_figure(site, draw(site)) for site in sites), class_=f"multiples {kind}")
        if len(sites) > OPEN_PICTURES:
            grid = tag("details", tag("summary", f"Pictures of all {len(sites)} sites"), grid)
        grids.append(grid)
    keys = legend([("accent", "taps now"), ("before", "taps before, or unchanged")])
    text = "Taps as far apart as what they read; the frame is the input of that layer"
    cut = any(_window(site)[1] for site in found)
    text += ", dashed where it goes on." if cut else "."
    return [keys, *grids, tag("p", text, class_="lead")]


def _figure(site: Site, drawn: Markup) -> Markup:
    size = wording.TIMES.join(map(str, site.input_size))
    note = " · ".join(part for part in (size, "removed later" if site.removed else "") if part)
    said = tag("b", site.after.text, class_="changed" if site.changed else None)
    caption = [tag("code", site.name or "(network)"), tag("span", said, f" {note}" if note else "")]
    return tag("figure", drawn, tag("figcaption", *caption))


def picture(site: Site) -> Markup:
    """A kernel in two dimensions: taps as squares, those before as smaller ones on top."""
    (window, cut), middle = _window(site), _SIDE / 2
    scale = (_SIDE - 2) / window
    parts = [_frame(site, scale, cut, filled=True)]
    for kernel, colour, share, least in _layers(site):
        side = max(least, share * scale)
        lines = []
        for row in _places(kernel, 0):
            across = _places(kernel, 1)
            first = middle + across[0] * scale - side / 2
            lines.append((first, middle + row * scale, across[-1] * scale - across[0] * scale + side))
        path = "".join(f"M{coordinate(x)} {coordinate(y)}h{coordinate(length)}" for x, y, length in lines)
        step = kernel.dilation[1] * scale
        dashes = f"{coordinate(side)} {coordinate(step - side)}" if step > side and kernel.size[1] <= _TAPS else None
        tall = kernel.extent[0] * scale if len(lines) == 1 and kernel.size[0] > _TAPS else side
        parts.append(
            tag(
                "path",
                d=path,
                fill="none",
                stroke=f"var(--{colour})",
                stroke_width=coordinate(tall),
                stroke_dasharray=dashes,
            )
        )
    parts.append(_frame(site, scale, cut, filled=False))
    return _svg(site, parts, _SIDE, _SIDE)


def strip(site: Site) -> Markup:
    """A kernel in one dimension: taps as strokes, above the line now and below it before."""
    (window, cut), middle = _window(site), _WIDE / 2
    scale = (_WIDE - 2) / window
    parts = [_frame(site, scale, cut, filled=True)]
    for kernel, colour, share, least in _layers(site):
        wide = max(least, share * scale, 1.5)
        places = _places(kernel, -1)
        first = middle + places[0] * scale - wide / 2
        length, step = (places[-1] - places[0]) * scale + wide, kernel.dilation[-1] * scale
        whole = kernel.size[-1] > _TAPS or step <= wide
        top, tall = (_ROW / 2 - 13, 12) if colour == "accent" else (_ROW / 2 + 1, 12)
        if not site.changed:
            top, tall = _ROW / 2 - 6, 12
        y = top + tall / 2
        parts.append(
            tag(
                "path",
                d=f"M{coordinate(first)} {coordinate(y)}h{coordinate(length)}",
                stroke=f"var(--{colour})",
                stroke_width=tall,
                stroke_dasharray=None if whole else f"{coordinate(wide)} {coordinate(step - wide)}",
            )
        )
    parts.append(_frame(site, scale, cut, filled=False))
    return _svg(site, parts, _WIDE, _ROW)


def _layers(site: Site) -> list[tuple[Kernel, str, float, float]]:
    """What is drawn, last on top: kernel, colour, share of a sample that a tap fills, smallest side."""
    if site.before is None or site.changed:
        old = [] if site.before is None else [(site.before, "before", 0.4, 1.0)]
        return [(site.after, "accent", 0.84, 1.8), *old]
    return [(site.after, "before", 0.84, 1.8)]


def _window(site: Site) -> tuple[float, bool]:
    """Samples that a picture shows along its longer axis, and whether that is less than the input."""
    extents = [*site.after.extent, *(site.before.extent if site.before is not None else ())]
    longest = max(*extents, *site.input_size, 1)
    short = max(extents) * _ZOOM
    return (short, True) if longest > short else (longest, False)


def _frame(site: Site, scale: float, cut: bool, *, filled: bool) -> Markup:
    """The input, its middle that of the kernel."""
    if not site.input_size:
        return Markup("")
    flat = len(site.after.size) != 2
    across, down = (_WIDE, _ROW) if flat else (_SIDE, _SIDE)
    wide = min(across - 2.0, site.input_size[-1] * scale)
    tall = _ROW - 4.0 if flat else min(down - 2.0, site.input_size[0] * scale)
    return tag(
        "rect",
        x=coordinate((across - wide) / 2),
        y=coordinate((down - tall) / 2),
        width=coordinate(wide),
        height=coordinate(tall),
        fill="var(--surface)" if filled else "none",
        stroke=None if filled else "var(--muted)",
        stroke_width=1,
        stroke_dasharray="4 4" if cut else None,
    )


def _places(kernel: Kernel, axis: int) -> list[float]:
    """Where taps lie along an axis, in samples from the middle; of very many the ends alone."""
    size, step = kernel.size[axis], kernel.dilation[axis]
    if size > _TAPS:
        return [-step * (size - 1) / 2, step * (size - 1) / 2] if axis else [0.0]
    return [step * (i - (size - 1) / 2) for i in range(size)]


def _svg(site: Site, parts: Sequence[Markup], wide: float, tall: float) -> Markup:
    was = f"{site.before.text} before, " if site.changed and site.before is not None else ""
    title = f"{site.name}: {was}{site.after.text}{'' if was else ', unchanged' if site.before is not None else ''}"
    return tag("svg", tag("title", title), join(parts), viewBox=f"0 0 {wide} {tall}", role="img")


def _table(found: Sequence[Site]) -> Markup:
    rows = [
        (
            tag("code", site.name or "(network)"),
            str(site.channels) if site.channels else "removed" if site.removed else "",
            wording.TIMES.join(map(str, site.input_size)),
            tag("span", site.before.text, class_="muted") if site.before is not None else "",
            tag("b", site.after.text) if site.changed else site.after.text,
            _reach(site),
        )
        for site in found
    ]
    head = ("Convolution", "Channels", "Input", "Before", "Now", "Samples from end to end")
    return table(head, rows, kinds="tnnnnn", dense=True)


def _reach(site: Site) -> object:
    new = wording.TIMES.join(map(str, dict.fromkeys(site.after.extent)))
    if site.before is None or site.before.extent == site.after.extent:
        return new
    old = wording.TIMES.join(map(str, dict.fromkeys(site.before.extent)))
    return join([tag("span", f"{old} → ", class_="muted"), new])
