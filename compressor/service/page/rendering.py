"""Templates to HTML. Whatever is put into one is escaped, but for what ``report.page.markup`` made."""

from __future__ import annotations

from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup as Safe
from markupsafe import escape

from compressor.report import wording
from compressor.report.page.markup import Markup
from compressor.service.page import assets, formats
from compressor.storage.version import VERSION

TEMPLATES = Path(__file__).parent / "templates"
STATES = {
    "queued": ("◷", "neutral"),
    "running": ("▶", "accent"),
    "done": ("✓", "good"),
    "failed": ("✕", "bad"),
    "cancelled": ("⊘", "neutral"),
}
"""By state its sign, for those who do not see colours, and its tone."""


@cache
def environment() -> Environment:
    """The templates, with what all of them may use."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.globals.update(asset=assets.address, version=VERSION, states=STATES)
    made.filters.update(
        drawn=drawn,
        badge=badge,
        size=wording.size_bytes,
        iso=formats.iso,
        seconds=wording.seconds,
        amount=wording.amount,
        cost_name=wording.cost_name,
        percent=wording.percent,
        number=formats.number,
        score=formats.score_text,
        segment=lambda text: quote(str(text), safe=""),
        path=lambda text: quote(str(text), safe="/"),
    )
    return made


def render(template: str, *, now: datetime, **values: Any) -> str:
    """A template with values. ``now`` is what relative times are told from."""

    def when(moment: datetime | None, *, both: bool = False) -> Safe:
        """A time: relative, and in UTC beside it or on being pointed at."""
        if moment is None:
            return Safe("")
        ago, full, iso = formats.relative(moment, now), formats.written(moment), formats.iso(moment)
        if both:
            return Safe('<time datetime="{}">{} (<span data-ago>{}</span>)</time>').format(iso, full, ago)
        return Safe('<time datetime="{}" title="{}"><span data-ago>{}</span></time>').format(iso, full, ago)

    def lasted(began: datetime | None, ended: datetime | None) -> str:
        return formats.duration(began, ended, now)

    return environment().get_template(template).render(now=now, when=when, lasted=lasted, **values)


def drawn(markup: Markup) -> Safe:
    """What ``report.page`` drew, as it is. Raises ``TypeError`` for any other text."""
    if not isinstance(markup, Markup):
        raise TypeError(f"only what report.page.markup made is markup, not {type(markup).__name__}")
    return Safe(str(markup))


def badge(state: str) -> Safe:
    """A state with its sign."""
    sign, tone = STATES.get(state, ("?", "neutral"))
    return Safe('<span class="badge {}"><span aria-hidden="true">{}</span> {}</span>').format(tone, sign, escape(state))
