"""The end of the page: how to load the network, and everything needed to make it again."""

from __future__ import annotations

from compressor.report import wording
from compressor.report.page import charts
from compressor.report.page.markup import Markup, join, legend, section, tag
from compressor.report.records import Report


def loading(report: Report) -> Markup:
    """Code that gives the network back."""
    factory = report.model_class.rpartition(".")[2] or "MyNet"
    lines = [
        "import compressor",
        "",
        'model = compressor.load("path/to/this/folder")  # an ordinary module, in eval mode',
        f"# built by code of your own: compressor.load(..., model={factory}())",
    ]
    onnx = next((file.path for file in report.files if file.format == "onnx"), None)
    if onnx is not None:
        lines += ["", "import onnxruntime", "", f"session = onnxruntime.InferenceSession({onnx!r})"]
        lines += ["outputs = session.run(None, {session.get_inputs()[0].name: batch})"]
    return section("How to load it", tag("pre", tag("code", "\n".join(lines))), lead="Loading never runs pickled code.")


def provenance(report: Report) -> Markup:
    """Everything needed to make it again."""
    facts: list[tuple[str, object]] = [
        ("Command", tag("code", report.command) if report.command else None),
        ("Model", join([report.model, " ", tag("span", report.model_class, class_="muted")])),
        ("Input", f" {wording.TIMES} ".join(str(size) for size in report.input_shape)),
        (
            "Weights",
            report.weights if report.pretrained else f"{report.weights or 'random'} ({wording.from_random(report)})",
        ),
        ("Data", report.data or "none: nothing was trained"),
        ("Search", wording.about_search(report)),
        ("Seed", report.seed),
        ("Created", report.created),
        ("Versions", ", ".join(f"{name} {value}" for name, value in report.versions.items())),
        (
            "Machine",
            ", ".join(f"{value}" if key != "cores" else f"{value} cores" for key, value in report.machine.items()),
        ),
    ]
    if report.verification is not None:
        check = report.verification
        facts.insert(
            6,
            (
                "Verification",
                f"{'passed' if check.passed else 'FAILED'}: original with hard masks and trimmed network differ by "
                f"{check.error:.1e} of the largest output, at most {check.tolerance:.0e} is allowed; {check.what}",
            ),
        )
    items = join(join([tag("dt", name), tag("dd", value)]) for name, value in facts if value not in (None, ""))
    parts = [tag("dl", items, class_="facts")]
    if report.stage_seconds:
        palette = (*charts.COLOURS, "before", "neutral", "good")
        names = list(report.stage_seconds)
        colours = [palette[index % len(palette)] for index in range(len(names))]
        keys = [
            (colour, f"{name} {wording.seconds(report.stage_seconds[name])}")
            for name, colour in zip(names, colours, strict=True)
        ]
        total = wording.seconds(sum(report.stage_seconds.values()))
        parts.append(tag("p", f"Time spent: {total}.", class_="lead"))
        said = ", ".join(name for _, name in keys)
        parts.append(tag("figure", charts.stacked(list(report.stage_seconds.values()), colours, said)))
        parts.append(legend(keys))
    return section("Provenance", *parts)
