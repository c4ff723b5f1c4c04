"""Tables for people to read."""

from __future__ import annotations

import io
import shutil
from collections.abc import Sequence

_LEAST_WIDTH = 100


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, limit: int | None = None) -> str:
    """A table as plain text; columns of numbers are right-aligned.

    Args:
        limit: most rows to show; a last line says how many were left out.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = rows if limit is None else rows[:limit]
    drawn = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(columns):
        numeric = bool(shown) and all(isinstance(row[index], (int, float)) for row in shown)
        drawn.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in shown:
        drawn.add_row(*(Text(cell(value)) for value in row))
    width = max(_LEAST_WIDTH, shutil.get_terminal_size((_LEAST_WIDTH, 24)).columns)
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None).print(drawn)
    text = "\n".join(line.rstrip() for line in stream.getvalue().rstrip().splitlines())
    left_out = len(rows) - len(shown)
    return f"{text}\n  ... and {left_out} more" if left_out > 0 else text


def cell(value: object) -> str:
    """A value as text: thousands separated, fractions to four figures."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def amount(value: float, unit: str = "") -> str:
    """A large number with a prefix: 4.09 G."""
    for scale, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= scale:
            return f"{value / scale:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}".rstrip()
