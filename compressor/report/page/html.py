"""The whole page: one file, no scripts, nothing loaded from elsewhere."""

from __future__ import annotations

from compressor.report import wording
from compressor.report.page import cells, kernels, likelihoods, outline, provenance, ranking, sections, space, tuning
from compressor.report.page.markup import Markup, join, tag, text
from compressor.report.page.style import CSS
from compressor.report.records import Report

# The policy makes the browser hold what the docstring promises.
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{css}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def render_html(report: Report) -> str:
    """The report as one self-contained HTML page."""
    head = wording.headline(report)
    return whole_page(f"{report.model}: {head.text}", report_body(report))


def report_body(report: Report) -> Markup:
    """All parts of the page, to stand in a document with the style sheet of ``style.CSS``."""
    head = wording.headline(report)
    notes = wording.warnings(report)
    return join(
        [
            _masthead(report),
            tag("div", tag("strong", head.text), tag("p", head.detail), class_=f"verdict {head.tone}"),
            tag("ul", join(tag("li", note) for note in notes), class_="notes") if notes else "",
            sections.cards(report),
            sections.budgets(report),
            sections.score(report),
            tuning.tuning(report),
            sections.latency(report),
            sections.quantisation(report),
            sections.sizes(report),
            outline.architecture(report),
            kernels.chosen(report),
            ranking.ranking(report),
            sections.widths(report),
            sections.choices(report),
            cells.cells(report),
            sections.history(report),
            space.space(report.history),
            likelihoods.likelihoods(report),
            likelihoods.weight_sets(report),
            sections.fixed(report),
            provenance.loading(report),
            provenance.provenance(report),
            tag("footer", f"Written by compressor {report.versions.get('compressor', '')}, {report.created}."),
        ]
    )


def whole_page(title: str, body: Markup) -> str:
    """A self-contained document."""
    return _PAGE.format(title=text(title), css=CSS, body=body)


def _masthead(report: Report) -> Markup:
    facts = []
    if report.search:
        facts.append(f"searched with {report.search}")
    if report.data:
        facts.append(f"trained on {report.data}")
    facts.append(report.created[:10])
    return join(
        [
            tag("p", "Compression report", class_="overline"),
            tag("h1", report.model),
            tag("p", " · ".join(facts), class_="sub"),
        ]
    )
