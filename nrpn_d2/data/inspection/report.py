"""An inspection as text and JSON."""

import json
from collections import Counter
from collections.abc import Collection
from typing import Any

from tabulate import tabulate

from .inspection import Inspection

_SHOWN = 5  # findings of each kind


def to_text(inspection: Inspection) -> str:
    """Return tables of the datasets and of what was found, with the first of each kind."""
    parts = [_table(rows, ("", *inspection.statistics)) for rows in statistics_rows(inspection)]
    counts = kinds(inspection)
    if not counts:
        return "\n\n".join([*parts, "Nothing is wrong."])
    parts.append(_table(counts.items(), ("found", "count")))
    for kind, count in counts.items():
        of_kind = [finding for finding in inspection.findings if finding.kind == kind]
        lines = [f"{kind}:", *(f"  {finding.message}" for finding in of_kind[:_SHOWN])]
        if count > _SHOWN:
            lines.append(f"  ... and {count - _SHOWN} more")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def to_json(inspection: Inspection, accepted: Collection[str]) -> str:
    """Return the statistics and all findings, as JSON."""
    content = {
        "datasets": inspection.statistics,
        "counts": kinds(inspection),
        "accepted": sorted(accepted),
        "findings": [finding._asdict() for finding in inspection.findings],
    }
    return json.dumps(content, indent=1, allow_nan=False)


def kinds(inspection: Inspection) -> dict[str, int]:
    """Return how many findings there are of each kind, the most frequent first."""
    return dict(Counter(finding.kind for finding in inspection.findings).most_common())


def statistics_rows(inspection: Inspection) -> list[list[tuple[Any, ...]]]:
    """Return the rows of two tables, datasets and classes; a column per dataset."""
    datasets = list(inspection.statistics.values())
    rows = [
        (key, *(dataset[key] for dataset in datasets))
        for key in ("images", "images without objects", "objects", "ignored objects")
    ]
    for key in ("objects per image", "sizes in training", "reached by the anchors"):
        for part in datasets[0][key]:
            values = (dataset[key][part] for dataset in datasets)
            is_share = key == "reached by the anchors"
            rows.append((f"{key}: {part}", *(_number(value, is_share) for value in values)))
    names = dict.fromkeys(name for dataset in datasets for name in dataset["classes"])
    classes = [
        (name, *(dataset["classes"].get(name, "") for dataset in datasets)) for name in names
    ]
    return [rows, classes]


def _number(value: float | None, is_share: bool) -> str:
    if value is None:
        return "n/a"
    return f"{100 * value:.1f} %" if is_share else f"{value:.4g}"


def _table(rows: Any, headers: tuple[str, ...]) -> str:
    return tabulate(rows, headers, tablefmt="simple", disable_numparse=True)
