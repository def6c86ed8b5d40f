"""An inspection as one HTML page that needs no network and no script."""

import base64
import io
import random
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import detection_utils
from PIL import Image

from ...utils.seeding import seeded
from ..anchors.seen import absolute_box
from ..faults import DatasetError
from ..mapper import VOCDatasetMapper
from ..reading import is_ignored
from .image import Finding
from .inspection import Inspection
from .report import kinds, statistics_rows

# They bound the page's size, to about 5 MB
_SIDE = 288  # pixels of a picture's longer side
_PICTURES = 16  # of each kind of finding
_LINES = 200  # of text, of each kind
_SAMPLES = 8
_BOXES = 100  # drawn on a picture

_HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>Check of {title}</title>
<style>
body {{ font: 16px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 72rem; padding: 1rem;
  color: #1b1b1b; background: #fff; }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.2rem; margin-top: 2rem; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; margin-bottom: 1rem; }}
th, td {{ padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #ddd; }}
th:first-child, td:first-child {{ text-align: left; }}
.grid {{ display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(16rem, 1fr)); }}
.samples {{ grid-template-columns: repeat(auto-fill, minmax(min(24rem, 100%), 1fr)); }}
figure {{ margin: 0; }} svg {{ width: 100%; height: auto; background: #eee; display: block; }}
figcaption, li {{ font-size: .85rem; overflow-wrap: anywhere; }}
.pair {{ display: grid; grid-template-columns: 1fr 1fr; gap: .25rem; align-items: start; }}
rect {{ fill: none; vector-effect: non-scaling-stroke; stroke-width: 2; stroke: #0072b2; }}
rect.fault {{ stroke: #d50000; stroke-width: 3; }}
rect.ignored {{ stroke: #777; stroke-dasharray: 4 3; }}
</style>
</head>
<body>
"""


class _Box(NamedTuple):
    corners: Sequence[float]
    look: str = ""  # "fault" or "ignored"


def to_html(inspection: Inspection, cfg: CfgNode) -> str:
    """Return the page: statistics, findings with pictures, and samples as training sees them."""
    names = ", ".join(inspection.statistics)
    parts = [_HEAD.format(title=escape(names)), f"<h1>Check of {escape(names)}</h1>"]
    for rows in statistics_rows(inspection):
        parts.append(_table(rows, ("", *inspection.statistics)))
    counts = kinds(inspection)
    records = {task.record["file_name"]: task.record for task in inspection.readable}
    parts.append("<h2>Found</h2>")
    parts.append(_table(counts.items(), ("", "count")) if counts else "<p>Nothing is wrong.</p>")
    for kind, count in counts.items():
        parts.append(f"<h2>{escape(kind)} ({count})</h2>")
        parts += _of_kind([f for f in inspection.findings if f.kind == kind], records)
    parts.append("<h2>Random samples, before and after augmentation</h2>")
    parts.append('<p>Blue: objects; grey, dashed: ignored ones.</p><div class="grid samples">')
    parts += _samples(inspection, cfg)
    return "\n".join([*parts, "</div>", "</body>", "</html>", ""])


def _of_kind(findings: Sequence[Finding], records: dict[str, dict[str, Any]]) -> Iterable[str]:
    yield '<div class="grid">'
    for finding in [finding for finding in findings if finding.image][:_PICTURES]:
        faults = [_Box(box, "fault") for box in finding.boxes]
        files = [path for path in (finding.image, finding.other) if path]
        pictures = "".join(_file_picture(f, faults + _objects(records.get(f, {}))) for f in files)
        if finding.other:
            pictures = f'<div class="pair">{pictures}</div>'
        yield _figure(pictures, finding.message)
    yield "</div>"
    yield f"<details><summary>List ({min(len(findings), _LINES)} of {len(findings)})</summary><ul>"
    yield from (f"<li>{escape(finding.message)}</li>" for finding in findings[:_LINES])
    yield "</ul></details>"


def _samples(inspection: Inspection, cfg: CfgNode) -> Iterable[str]:
    chosen = random.Random(0).sample(
        range(len(inspection.readable)), min(_SAMPLES, len(inspection.readable))
    )
    mapper = VOCDatasetMapper(cfg, is_train=True)
    for number in sorted(chosen):
        record = {"annotations": [], **inspection.readable[number].record}
        path = record["file_name"]
        before = _file_picture(path, _objects(record))
        try:
            with seeded(0, number):
                after = _mapped_picture(mapper(record), cfg.INPUT.FORMAT)
        except DatasetError as error:
            yield _figure(before, str(error))
        else:
            yield _figure(f'<div class="pair">{before}{after}</div>', path)


def _mapped_picture(mapped: dict[str, Any], image_format: str) -> str:
    """Return the picture of a model input."""
    pixels, objects = mapped["image"].permute(1, 2, 0).numpy(), mapped["instances"]
    boxes = [_Box(box) for box in objects.gt_boxes.tensor.tolist()]
    boxes += [_Box(box, "ignored") for box in objects.ignored_boxes.tensor.tolist()]
    return _picture(detection_utils.convert_image_to_rgb(pixels, image_format), boxes)


def _objects(record: dict[str, Any]) -> list[_Box]:
    annotations = record.get("annotations", ())
    boxes = (absolute_box(obj) for obj in annotations)
    looks = ("ignored" if is_ignored(obj) else "" for obj in annotations)
    return [_Box(box, look) for box, look in zip(boxes, looks)]


def _file_picture(path: str, boxes: Sequence[_Box]) -> str:
    try:
        return _picture(detection_utils.read_image(path, "RGB"), boxes)
    except Exception:  # an unreadable image is what is to be reported
        return "<p>(unreadable)</p>"


def _picture(image: np.ndarray, boxes: Sequence[_Box]) -> str:
    """Return a small copy of an image (H, W, 3), with boxes in its pixels, the first on top."""
    height, width = image.shape[:2]
    small = Image.fromarray(np.asarray(image, np.uint8))
    small.thumbnail((_SIDE, _SIDE))
    encoded = io.BytesIO()
    small.save(encoded, "JPEG", quality=75)
    data = base64.b64encode(encoded.getvalue()).decode()
    shortest = max(height, width) / 60
    rectangles = "".join(_rectangle(box, shortest) for box in reversed(boxes[:_BOXES]))
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img">'
        f'<image href="data:image/jpeg;base64,{data}" width="{width}" height="{height}" '
        f'preserveAspectRatio="none"/>{rectangles}</svg>'
    )


def _rectangle(box: _Box, shortest: float) -> str:
    x0, y0, x1, y1 = box.corners
    # A box without area would not be visible
    width, height = max(x1 - x0, shortest), max(y1 - y0, shortest)
    x, y = (x0 + x1 - width) / 2, (y0 + y1 - height) / 2
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
        f'class="{box.look}"/>'
    )


def _figure(content: str, caption: str) -> str:
    return f"<figure>{content}<figcaption>{escape(caption)}</figcaption></figure>"


def _table(rows: Iterable[Iterable[Any]], headers: Iterable[str]) -> str:
    def line(cells: Iterable[Any], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"

    body = "\n".join(line(row, "td") for row in rows)
    return f'<div class="wide"><table>\n{line(headers, "th")}\n{body}\n</table></div>'
