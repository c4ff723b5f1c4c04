"""The report for a terminal: whether it is faster comes first."""

from __future__ import annotations

from compressor.report import kernels, wording
from compressor.report.records import Report


def summary_text(report: Report) -> str:
    """A dozen plain lines; no colours, no trailing blanks."""
    head = wording.headline(report)
    lines = [f"{report.model}: {head.text}", f"  {head.detail}"]
    lines += [f"  Warning: {text}" for text in wording.warnings(report)]
    for title, rows in (
        ("Cost", _costs(report)),
        (wording.score_title(report.score), _score(report)),
        ("Tuning", _tuning(report)),
        ("Latency", _latency(report)),
        ("Int8", _quantisation(report)),
        ("Kernels", _kernels(report)),
        ("Size", _sizes(report)),
        ("Result", _result(report)),
    ):
        if rows:
            lines += ["", title, *_table(rows)]
    return "\n".join(line.rstrip() for line in lines)


def _costs(report: Report) -> list[list[str]]:
    asked = {budget.cost for budget in report.budgets}
    rows = []
    for budget in report.budgets:
        fraction = wording.of_original(budget.reached, budget.original)
        rows.append(
            [
                wording.cost_name(budget.cost),
                wording.amount(budget.original, budget.unit),
                f"-> {wording.amount(budget.reached, budget.unit)}",
                wording.percent(fraction) if fraction is not None else "",
                f"asked {budget.asked}, {'met' if budget.met else 'NOT MET'}",
            ]
        )
    for cost in report.costs:
        if cost.name not in asked:
            fraction = wording.of_original(cost.reached, cost.original)
            rows.append(
                [
                    wording.cost_name(cost.name),
                    wording.amount(cost.original, cost.unit),
                    f"-> {wording.amount(cost.reached, cost.unit)}",
                    wording.percent(fraction) if fraction is not None else "",
                    "",
                ]
            )
    return rows


def _score(report: Report) -> list[list[str]]:
    found = report.score
    if found is None:
        return []
    samples = f" of {found.samples}" if found.samples else ""
    better = ", lower is better" if found.lower_is_better else ""
    what = f"{found.metric}{better}, {found.split}{samples}"
    rows: list[list[str]] = []
    for name, value in (
        ("before", found.before),
        ("after search", found.after_search),
        ("after fine-tuning", found.after_finetune),
    ):
        if value is not None:
            change = wording.score_change(found, value).replace(wording.MINUS, "-") if rows else what
            rows.append([name, wording.score(found, value), change])
    return rows


def _tuning(report: Report) -> list[list[str]]:
    found = report.tuning
    if found is None or not found.trials:
        return []
    lost = sum(trial.score is None for trial in found.trials)
    seconds = wording.seconds(sum(trial.seconds for trial in found.trials))
    rows = [["trials", f"{len(found.trials)}{f', {lost} lost' if lost else ''}, {seconds}"]]
    if found.winner is None:
        return [*rows, ["chosen", "all were lost: the job's own settings"]]
    won = found.winner
    dropout = "" if won.dropout is None else f", dropout {won.dropout:g}"
    told = f"lr {won.lr:.4g}, weight decay {won.weight_decay:g}, momentum {won.momentum:g}{dropout}"
    return [*rows, ["chosen", f"{told}: {wording.trial_score(found, won)} on held-out samples"]]


def _latency(report: Report) -> list[list[str]]:
    rows = []
    for latency in report.latencies:
        for name, timing in (("original", latency.original), ("compressed", latency.compressed)):
            rows.append(
                [
                    latency.target,
                    name,
                    f"median {wording.milliseconds(timing['median_ms'])}",
                    f"p95 {wording.milliseconds(timing['p95_ms'])}",
                    f"p99 {wording.milliseconds(timing['p99_ms'])}",
                    f"{timing['throughput_per_s']:.0f}/s",
                    f"{timing['threads']} threads" if timing["threads"] else "",
                ]
            )
    found = report.latency_prediction
    if found is not None:
        error = "" if found.mean_error is None else f"mean error {wording.percent(found.mean_error)}"
        tested = f"on {found.networks} held-out networks" if found.networks else "not tested"
        rounds = f"budget checked on the device in {len(found.rounds)} rounds" if found.rounds else ""
        rows.append([found.target, "prediction", error, tested, rounds])
        rows += [["", "estimated, as the target refuses it", label] for label in found.estimated]
        rows += [["", "estimated, not measured in the time given", label] for label in found.unmeasured]
    return rows


def _quantisation(report: Report) -> list[list[str]]:
    found = report.quantisation
    if found is None:
        return []
    rows = []
    if found.before is not None and found.after is not None:
        score = found.score
        change = wording.score_change(score, found.after).replace(wording.MINUS, "-")
        samples = f"{found.split} of {found.samples}" if found.samples else found.split
        after = f"-> {wording.score(score, found.after)}"
        name = wording.score_title(score).lower()
        rows.append([name, wording.score(score, found.before), after, f"{change}, {samples}"])
    if found.latency is not None:
        one, two = found.latency.original["median_ms"], found.latency.compressed["median_ms"]
        speed = f"{found.latency.verdict}, {found.latency.target}"
        rows.append(["latency", wording.milliseconds(one), f"-> {wording.milliseconds(two)}", speed])
    rows.append(["file", wording.size_bytes(found.bytes_before), f"-> {wording.size_bytes(found.bytes_after)}", ""])
    return rows


def _kernels(report: Report) -> list[list[str]]:
    """What was chosen, in the notation of Shen et al.: channels, then (kernel size, dilation) of each convolution."""
    return [[line] for line in kernels.plain(kernels.notation(kernels.sites(report)))]


def _sizes(report: Report) -> list[list[str]]:
    return [
        [size.name, wording.size_bytes(size.original_bytes), f"-> {wording.size_bytes(size.compressed_bytes)}"]
        for size in report.sizes
    ]


def _result(report: Report) -> list[list[str]]:
    rows = []
    if report.verification is not None:
        check = report.verification
        state = "verified" if check.passed else "FAILED"
        rows.append(
            [
                state,
                f"trimmed and masked network differ by {check.error:.1e} (limit {check.tolerance:.0e}) {check.what}",
            ]
        )
    if report.choices:
        changed = [f"{c.name} {c.before} -> {c.after}" for c in report.choices if c.after != c.before]
        said = f": {', '.join(changed[:4])}{' ...' if len(changed) > 4 else ''}" if changed else ""
        rows.append(["choices", f"{len(changed)} of {len(report.choices)} changed{said}"])
    if report.blocks_removed:
        rows.append(["blocks", f"{len(report.blocks_removed)} removed: {', '.join(report.blocks_removed)}"])
    if report.fixed:
        rows.append(
            [
                "left alone",
                f"{len(report.fixed)} place{'s' if len(report.fixed) > 1 else ''}; the report says where and why",
            ]
        )
    if report.files:
        rows.append(["files", ", ".join(f"{f.path} ({wording.size_bytes(f.bytes)})" for f in report.files)])
    if report.stage_seconds:
        stages = ", ".join(f"{name} {wording.seconds(value)}" for name, value in report.stage_seconds.items())
        rows.append(["time", f"{stages}; {wording.seconds(sum(report.stage_seconds.values()))} in all"])
    return rows


def _table(rows: list[list[str]]) -> list[str]:
    """Columns as wide as their widest cell; the last one is free."""
    columns = max(len(row) for row in rows)
    widths = [max((len(row[i]) for row in rows if i < len(row) - 1), default=0) for i in range(columns)]
    return ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)) for row in rows]
