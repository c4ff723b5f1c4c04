"""The parts of the page, each from the report alone; a part without data is left out."""

from __future__ import annotations

import math
from collections import defaultdict

from compressor.report import wording
from compressor.report.page import charts
from compressor.report.page.markup import Markup, join, legend, section, table, tag
from compressor.report.records import Accuracy, LatencyPrediction, Report

#: Up to this many rows a table is shown open; longer ones fold away.
OPEN_ROWS = 24
MAX_POINTS = 400


def cards(report: Report) -> Markup:
    """The four figures to remember."""
    found = []
    if report.latency is not None:
        latency = report.latency
        value = f"{latency.speedup:.2f} {wording.TIMES}"
        before, after = (wording.milliseconds(t["median_ms"]) for t in (latency.original, latency.compressed))
        found.append(("Speed", value, f"{before} → {after}"))
    for budget in [b for b in report.budgets if b.cost != "latency"][:2]:
        fraction = wording.of_original(budget.reached, budget.original)
        before, after = (wording.amount(v, budget.unit) for v in (budget.original, budget.reached))
        value = wording.percent(fraction) if fraction is not None else after
        found.append((wording.cost_name(budget.cost), value, f"{before} → {after}"))
    score = report.score
    if score is not None and score.final is not None:
        change = wording.score_change(score, score.final)
        detail = change or "original not evaluated"
        title = wording.metric_name(score)
        found.append(
            (title, wording.score(score, score.final, 1), detail if report.pretrained else wording.from_random(report))
        )
    if report.sizes:
        size = report.sizes[0]
        before, after = wording.size_bytes(size.original_bytes), wording.size_bytes(size.compressed_bytes)
        found.append((size.name, after, f"{before} → {after}"))
    if not found:
        return Markup("")
    return tag(
        "div",
        join(
            tag(
                "div",
                tag("div", label, class_="label"),
                tag("div", value, class_="value"),
                tag("div", origin, class_="from"),
                class_="card",
            )
            for label, value, origin in found[:4]
        ),
        class_="cards",
    )


def budgets(report: Report) -> Markup:
    """Asked and reached, then the costs nobody set a budget for."""
    rows: list[tuple[object, ...]] = []
    for budget in report.budgets:
        fraction = wording.of_original(budget.reached, budget.original) or 0.0
        limit = wording.of_original(budget.limit, budget.original) or 0.0
        mark = tag("span", "met", class_="mark good") if budget.met else tag("span", "not met", class_="mark bad")
        rows.append(
            (
                wording.cost_name(budget.cost),
                budget.asked,
                wording.amount(budget.limit, budget.unit),
                wording.amount(budget.original, budget.unit),
                wording.amount(budget.reached, budget.unit),
                charts.bar(fraction, limit=limit, colour="accent" if budget.met else "bad"),
                wording.percent(fraction),
                mark,
            )
        )
    asked = {budget.cost for budget in report.budgets}
    for cost in report.costs:
        if cost.name in asked:
            continue
        fraction = wording.of_original(cost.reached, cost.original) or 0.0
        rows.append(
            (
                wording.cost_name(cost.name),
                tag("span", "no budget", class_="muted"),
                "",
                wording.amount(cost.original, cost.unit),
                wording.amount(cost.reached, cost.unit),
                charts.bar(fraction, colour="before"),
                wording.percent(fraction),
                "",
            )
        )
    if not rows:
        return Markup("")
    head = ("Cost", "Asked", "Limit", "Original", "Reached", "Share of the original", "", "")
    lead = "The bar is what is left of the original; the upright line is the limit."
    return section("Asked and reached", table(head, rows, kinds="ttnnnwnt"), lead=lead)


def score(report: Report) -> Markup:
    """Accuracy or error before, after search, after fine-tuning."""
    found = report.score
    if found is None or (found.before is None and found.final is None):
        return Markup("")
    stages = (
        ("Original", found.before, "before"),
        ("After search and trim", found.after_search, "accent"),
        ("After fine-tuning", found.after_finetune, "accent"),
    )
    values = [value for _, value, _ in stages if value is not None]
    is_accuracy = isinstance(found, Accuracy)
    full = 1.0 if is_accuracy else max(values)
    rows = []
    for name, value, colour in stages:
        if value is None:
            continue
        change = "" if name == "Original" else wording.score_change(found, value)
        filled = value / full if full else 0.0
        scale = charts.bar(filled, colour=colour, name=wording.score(found, value))
        rows.append((name, scale, wording.score(found, value), change))
    samples = f"{found.samples:,} samples of the {found.split} split" if found.samples else f"{found.split} split"
    lead = f"{found.metric[:1].upper()}{found.metric[1:]} on {samples}{'' if is_accuracy else '; lower is better'}."
    if not report.pretrained:
        lead += (
            f" The original's weights were random; the compressed network is {wording.from_random(report)}."
            if report.trained_epochs
            else " The weights were random, so these numbers only show that the pipeline ran."
        )
    title = wording.score_title(found)
    return section(title, table(("", "", title, "Change"), rows, kinds="twnn"), lead=lead)


def latency(report: Report) -> Markup:
    """Percentiles of both networks per target."""
    parts = []
    for found in report.latencies:
        pair = (("Original", "before", found.original), ("Compressed", "accent", found.compressed))
        rows = [
            (
                name,
                *(wording.milliseconds(timing[key]) for key in ("median_ms", "p5_ms", "p90_ms", "p95_ms", "p99_ms")),
                f"{timing['throughput_per_s']:,.0f}",
                wording.percent(timing["spread"]),
            )
            for name, _, timing in pair
        ]
        head = ("", "Median", "p5", "p90", "p95", "p99", "Samples/s", "Spread")
        timing, ratio = found.original, found.ratio
        threads = f", {timing['threads']} threads" if timing["threads"] else ""
        confidence = wording.percent(ratio["confidence"], 0)
        conditions = (
            f"Version {timing['version']} on {timing['device']}, {timing['precision']}, "
            f"batch {timing['batch']}{threads}. The networks ran in turn for {ratio['rounds']} rounds, "
            f"{timing['repeats']} and {found.compressed['repeats']} runs. The compressed network takes "
            f"{ratio['value']:.3f} of the original's time, between {ratio['low']:.3f} and {ratio['high']:.3f} "
            f"with {confidence} confidence."
        )
        parts += [
            tag("h3", found.target),
            tag("p", conditions, class_="lead"),
            tag("figure", charts.latency_ranges(pair)),
            tag("p", "Band: 5th to 95th percentile. Stroke: median. Dot: 99th percentile. In ms.", class_="lead"),
            table(head, rows, kinds="tnnnnnnn"),
        ]
    found_prediction = report.latency_prediction
    if found_prediction is not None:
        parts += _prediction(found_prediction)
    return section("Latency", *parts) if parts else Markup("")


def _prediction(found: LatencyPrediction) -> list[Markup]:
    """What the search was told, and how the budget was checked."""
    text = f"The search saw latencies predicted from {found.points} measured points on {found.target}."
    if found.mean_error is not None:
        text += (
            f" On {found.networks} networks that nothing was fitted to, they were off by "
            f"{wording.percent(found.mean_error)} on average."
        )
    parts = [tag("h3", "Prediction"), tag("p", text, class_="lead")]
    if found.estimated:
        listed = ", ".join(found.estimated)
        parts.append(tag("p", f"Estimated, because the runtime would not run them alone: {listed}.", class_="lead"))
    if found.unmeasured:
        listed = ", ".join(found.unmeasured)
        parts.append(tag("p", f"Estimated, because there was no time to measure them: {listed}.", class_="lead"))
    if found.rounds:
        rows = [
            (
                str(n),
                *(wording.milliseconds(r[key]) for key in ("predicted_ms", "measured_ms", "original_ms", "limit_ms")),
            )
            for n, r in enumerate(found.rounds, 1)
        ]
        parts.append(table(("Round", "Predicted", "Measured", "Original", "Budget"), rows, kinds="tnnnn"))
    return parts


def quantisation(report: Report) -> Markup:
    """Single precision and int8 side by side."""
    found = report.quantisation
    if found is None:
        return Markup("")
    rows = []
    if found.before is not None and found.after is not None:
        name = wording.metric_name(found.score)
        before, after = (wording.score(found.score, value) for value in (found.before, found.after))
        rows.append((f"{name}, {found.split}", before, after))
    if found.latency is not None:
        one, two = (wording.milliseconds(t["median_ms"]) for t in (found.latency.original, found.latency.compressed))
        rows.append((f"Latency, {found.latency.target}", one, two))
    rows.append(("File", wording.size_bytes(found.bytes_before), wording.size_bytes(found.bytes_after)))
    lead = (
        f"The compressed network, quantised by ONNX Runtime with ranges from {found.calibration_samples} samples of "
        "the training data."
    )
    return section("Int8", tag("p", lead, class_="lead"), table(("", "Single precision", "Int8"), rows, kinds="tnn"))


def sizes(report: Report) -> Markup:
    """Bytes before and after, and the files written."""
    parts = []
    if report.sizes:
        largest = max(max(size.original_bytes, size.compressed_bytes) for size in report.sizes)
        rows = [
            (
                size.name,
                wording.size_bytes(size.original_bytes),
                wording.size_bytes(size.compressed_bytes),
                charts.before_after(size.original_bytes, size.compressed_bytes, largest),
                wording.percent(wording.of_original(size.compressed_bytes, size.original_bytes) or 0.0),
            )
            for size in report.sizes
        ]
        parts.append(table(("", "Original", "Compressed", "", "Left"), rows, kinds="tnnwn"))
    if report.files:
        files = []
        for file in report.files:
            batches = ", ".join(str(batch) for batch in file.batches)
            checked = f"differs by {file.error:.1e} at batch {batches}" if file.error is not None else ""
            note = " ".join(file.notes)
            files.append(
                (
                    tag("code", file.path),
                    file.format,
                    wording.size_bytes(file.bytes),
                    join([checked, Markup("<br>") if checked and note else "", note]),
                )
            )
        parts.append(table(("File", "Format", "Size", "Compared with PyTorch"), files, kinds="ttnt"))
    return section("Size and files", *parts) if parts else Markup("")


def widths(report: Report) -> Markup:
    """Channels per layer before and after, blocks taken out, attributes mended."""
    if not report.widths:
        return Markup("")
    largest = max(max(width.before, width.after) for width in report.widths)
    rows = [
        (
            tag("code", width.layer),
            tag("span", width.kind, class_="muted"),
            charts.before_after(width.before, width.after, largest),
            f"{width.before or 'new'} → {width.after or 'removed'}",
            wording.percent(width.after / width.before, 0) if width.before else "",
        )
        for width in report.widths
    ]
    body = table(("Layer", "", "", "Channels", "Left"), rows, kinds="ttwnn", dense=True)
    if len(rows) > OPEN_ROWS:
        body = tag("details", tag("summary", f"All {len(rows)} layers"), body)
    parts: list[Markup] = [
        legend([("before", "original"), ("accent", "compressed")]),
        tag("figure", charts.columns([(float(width.before), float(width.after)) for width in report.widths])),
        body,
    ]
    if report.blocks_removed:
        names = join(
            join([", " if index else "", tag("code", name)]) for index, name in enumerate(report.blocks_removed)
        )
        count = len(report.blocks_removed)
        parts.append(tag("p", f"{count} block{'s' if count > 1 else ''} taken out whole: ", names, ".", class_="lead"))
    if report.attributes_changed:
        changes = [
            (tag("code", c.module), tag("code", c.attribute), f"{c.before} → {c.after}")
            for c in report.attributes_changed
        ]
        changed = table(("Module", "Attribute", "Value"), changes, kinds="ttn", dense=True)
        title = f"{len(changes)} module attributes mended"
        parts.append(tag("details", tag("summary", title), changed))
    return section("Layer widths", *parts, lead="Output channels of every layer, from the input to the output.")


def choices(report: Report) -> Markup:
    """What was chosen at every site that had alternatives; kernels have a part of their own."""
    shown = [c for c in report.choices if c.name not in report.operators or c.kind != "convolution"]
    if not shown:
        return Markup("")
    rows = [
        (
            tag("code", c.name),
            tag("span", c.kind, class_="muted"),
            f"{c.before} → {c.after}" if c.after != c.before else c.before,
        )
        for c in shown
    ]
    changed = sum(c.after != c.before for c in shown)
    lead = f"Sites where one of several alternatives survives: {changed} of {len(rows)} changed."
    return section("Choices", table(("Site", "Kind", "Chosen"), rows, kinds="ttt", dense=True), lead=lead)


def history(report: Report) -> Markup:
    """The cost while the search ran."""
    originals = {cost.name: cost.original for cost in report.costs}
    originals.update({budget.cost: budget.original for budget in report.budgets})
    limits = {b.cost: b.limit / b.original for b in report.budgets if b.original}
    series: list[tuple[str, str, list[tuple[float, float]]]] = []
    dashed: list[tuple[str, float]] = []
    keys: list[tuple[str, str]] = []
    limit_keys: list[tuple[str, str]] = []
    for name, original in originals.items():
        if len(series) == len(charts.COLOURS):
            break
        points = []
        for index, entry in enumerate(report.history):
            value = (entry.get("costs") or {}).get(name)
            if isinstance(value, (int, float)) and math.isfinite(value) and original:
                points.append((float(entry.get("step", index)), value / original))
        if len(points) < 2 or (limits and name not in limits):
            continue
        colour = charts.COLOURS[len(series)]
        stride = -(-len(points) // MAX_POINTS)
        kept = points[::stride] if points[-1] in points[::stride] else [*points[::stride], points[-1]]
        series.append((name, colour, kept))
        keys.append((colour, wording.cost_name(name)))
        if name in limits:
            dashed.append((colour, limits[name]))
            limit_keys.append((colour, f"limit {wording.percent(limits[name], 0)}"))
    if not series:
        return Markup("")
    chart = tag("figure", charts.lines(series, dashed, "search step"))
    lead = "Share of the original's cost that the network being searched would have, step by step."
    return section("Cost during the search", legend(keys, dashed=limit_keys), chart, lead=lead)


def fixed(report: Report) -> Markup:
    """What was left alone, grouped by reason."""
    if not report.fixed:
        return Markup("")
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for entry in report.fixed:
        groups[entry.operator, entry.reason].append(entry.place)
    rows = []
    for (operator, reason), places in sorted(groups.items(), key=lambda item: -len(item[1])):
        listing = join(join([", " if index else "", tag("code", place)]) for index, place in enumerate(places))
        if len(places) > 6:
            listing = tag("details", tag("summary", f"{len(places)} places"), listing, class_="flush")
        rows.append((reason, tag("code", operator) if operator else "", listing))
    lead = "These parts keep their width. The network is correct with them; it is only less compressed."
    return section("What was left alone, and why", table(("Reason", "Operator", "Where"), rows, kinds="ttt"), lead=lead)
