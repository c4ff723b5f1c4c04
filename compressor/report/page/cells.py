"""Operators side by side: which of each cell are kept."""

from __future__ import annotations

from itertools import takewhile

from compressor.report.page.markup import Markup, join, section, table, tag
from compressor.report.records import Report

#: Up to this many rows the table is shown open.
_OPEN = 24


def cells(report: Report) -> Markup:
    """A row per cell: its operators, those that are gone struck out."""
    if not report.cells:
        return Markup("")
    rows = []
    for cell in report.cells:
        place = _around(cell.operators)
        short = len(place) + bool(place)
        names = [
            tag("b" if name in cell.kept else "s", name[short:] or name, class_=None if name in cell.kept else "muted")
            for name in cell.operators
        ]
        listed = join(join([", " if index else "", name]) for index, name in enumerate(names))
        rows.append((tag("code", place or "(network)"), listed, f"{len(cell.kept)} of {len(cell.operators)}"))
    body = table(("Cell", "Operators", "Kept"), rows, kinds="ttn", dense=len(rows) > _OPEN // 2)
    if len(rows) > _OPEN:
        body = tag("details", tag("summary", f"All {len(rows)} cells"), body)
    lead = "Operators that read the same and whose results are summed or concatenated. Those struck out are gone."
    return section("Operators side by side", body, lead=lead)


def _around(names: list[str]) -> str:
    """The module that all of them are in."""
    columns = zip(*(name.split(".") for name in names), strict=False)
    return ".".join(column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns))
