"""An inspection as one HTML page that needs no network."""

import random
from collections.abc import Iterable, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import detection_utils

from ...utils.page import (
    Box,
    Html,
    details,
    element,
    figure,
    file_picture,
    grid,
    legend,
    markup,
    paragraph,
    picture,
    section,
    table,
)
from ...utils.seeding import seeded
from ..faults import DatasetError
from ..loader import missing_shapes
from ..mapper import VOCDatasetMapper
from ..reading import absolute_box, is_ignored
from .image import Finding
from .inspection import Inspection
from .report import kinds, statistics_rows

# They bound the page's size, to about 5 MB
_PICTURES = 16  # of each kind of finding
_LINES = 200  # of text, of each kind
_SAMPLES = 8


def page_content(inspection: Inspection, cfg: CfgNode) -> Iterable[Html]:
    """Yield statistics, findings with pictures, and samples as training sees them."""
    for rows in statistics_rows(inspection):
        yield table(("", *inspection.statistics), rows)
    counts = kinds(inspection)
    records = {task.record["file_name"]: task.record for task in inspection.readable}
    found = table(("", "count"), counts.items()) if counts else paragraph("Nothing is wrong.")
    yield section("Found", found)
    for kind, count in counts.items():
        of_kind = [f for f in inspection.findings if f.kind == kind]
        yield section(f"{kind} ({count})", *_of_kind(of_kind, records))
    yield section(
        "Random samples, before and after augmentation",
        legend("object", "ignored"),
        grid(*_samples(inspection, cfg), large=True),
    )


def _of_kind(findings: Sequence[Finding], records: dict[str, dict[str, Any]]) -> Iterable[Html]:
    figures = []
    for finding in [finding for finding in findings if finding.image][:_PICTURES]:
        faults = [Box(box, "fault") for box in finding.boxes]
        files = [path for path in (finding.image, finding.other) if path]
        pictures = [file_picture(f, faults + _objects(records.get(f, {}))) for f in files]
        figures.append(figure(_pair(pictures), finding.message))
    yield grid(*figures)
    lines = (element("li", finding.message) for finding in findings[:_LINES])
    summary = f"List ({min(len(findings), _LINES)} of {len(findings)})"
    yield details(summary, element("ul", *lines))


def _samples(inspection: Inspection, cfg: CfgNode) -> Iterable[Html]:
    mapper = VOCDatasetMapper(cfg, is_train=True)
    readable = [task for task in inspection.readable if not any(missing_shapes(cfg, task.record))]
    chosen = random.Random(0).sample(range(len(readable)), min(_SAMPLES, len(readable)))
    for number in sorted(chosen):
        record = {"annotations": [], **readable[number].record}
        path = record["file_name"]
        before = file_picture(path, _objects(record))
        try:
            with seeded(0, number):
                after = _mapped_picture(mapper(record), cfg.INPUT.FORMAT)
        except DatasetError as error:
            yield figure(before, error)
        else:
            yield figure(_pair([before, after]), path)


def _pair(pictures: Sequence[Html]) -> Html:
    return element("div", *pictures, class_="pair") if len(pictures) > 1 else markup(*pictures)


def _mapped_picture(mapped: dict[str, Any], image_format: str) -> Html:
    """Return the picture of a model input."""
    pixels, objects = mapped["image"].permute(1, 2, 0).numpy(), mapped["instances"]
    boxes = [Box(box) for box in objects.gt_boxes.tensor.tolist()]
    boxes += [Box(box, "ignored") for box in objects.ignored_boxes.tensor.tolist()]
    return picture(detection_utils.convert_image_to_rgb(pixels, image_format), boxes)


def _objects(record: dict[str, Any]) -> list[Box]:
    annotations = record.get("annotations", ())
    return [
        Box(absolute_box(obj), "ignored" if is_ignored(obj) else "object") for obj in annotations
    ]
