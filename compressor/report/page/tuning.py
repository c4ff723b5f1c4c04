"""The trials that the settings of fine-tuning were chosen by."""

from __future__ import annotations

from compressor.report import wording
from compressor.report.page.markup import Markup, section, table, tag
from compressor.report.records import Report

#: Up to this many rows the table is shown open.
OPEN_ROWS = 24


def tuning(report: Report) -> Markup:
    """A row for each trial, with what it was told and found; the winner is marked."""
    found = report.tuning
    if found is None or not found.trials:
        return Markup("")
    varied = any(trial.dropout is not None for trial in found.trials)
    rows: list[tuple[object, ...]] = []
    for trial in found.trials:
        dropout = ("as it was" if trial.dropout is None else f"{trial.dropout:g}",) if varied else ()
        if trial.number == found.won:
            said: object = tag("span", "chosen", class_="mark good")
        else:
            said = tag("span", trial.lost or "", class_="muted")
        rows.append(
            (
                str(trial.number),
                f"{trial.lr:.4g}",
                f"{trial.weight_decay:g}",
                f"{trial.momentum:g}",
                *dropout,
                wording.trial_score(found, trial),
                wording.seconds(trial.seconds),
                said,
            )
        )
    head = (
        "Trial",
        "Learning rate",
        "Weight decay",
        "Momentum",
        *(("Dropout",) if varied else ()),
        "Score",
        "Time",
        "",
    )
    body = table(head, rows, kinds=f"tnnn{'n' if varied else ''}nnt", dense=len(rows) > OPEN_ROWS // 2)
    if len(rows) > OPEN_ROWS:
        body = tag("details", tag("summary", f"All {len(rows)} trials"), body)
    parts = [body]
    winner = found.winner
    if winner is None:
        parts.append(tag("p", "All were lost, so fine-tuning kept the job's own settings.", class_="lead"))
    elif winner.dropout is not None:
        parts.append(
            tag(
                "p",
                f"The dropout modules of the network were set to {winner.dropout:g}. That is an attribute of theirs: "
                "networks loaded from the saved folder have that of their factory.",
                class_="lead",
            )
        )
    return section("Tuning", *parts, lead=wording.tuning_lead(found))
