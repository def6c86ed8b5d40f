"""The candidates of an audit: as one HTML page on which to decide, and as JSON and CSV."""

import csv
import functools
import hashlib
import io
import json
import os
from collections.abc import Sequence
from importlib import resources

import numpy as np
from detectron2.data.detection_utils import read_image

from .. import utils
from ..data.corrections import DECISIONS
from ..utils.page import Box, Html, element, figure, grid, legend, paragraph, picture, write_page
from ..utils.saving import atomic_open
from .audit import Candidate
from .ground_truth import GroundTruth
from .panels import crop_image

_CONTEXT = 3  # a crop shows this many times the longer side of the box ...
_LEAST = 64  # ... and at least so many pixels


def write_candidates(folder: str, candidates: Sequence[Candidate]) -> None:
    """Write candidates.json and candidates.csv, the best candidate first."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["image_id", "x0", "y0", "x1", "y1", "score", "agreement", "class_name"])
    writer.writerows((c.image_id, *c.box, *c[2:]) for c in candidates)
    texts = json.dumps([c._asdict() for c in candidates], indent=1), table.getvalue()
    for suffix, text in zip(("json", "csv"), texts):
        with atomic_open(os.path.join(folder, f"candidates.{suffix}"), "w") as file:
            file.write(text)


def write_sheet(path: str, candidates: Sequence[Candidate], truth: GroundTruth) -> None:
    """Write the page; the labels are drawn, too."""
    cards = [_card(n, candidate, truth) for n, candidate in enumerate(candidates, start=1)]
    shown = repr(candidates).encode("utf-8", "backslashreplace")
    export = element("button", "Export decisions", id="export", type="button")
    content = [
        paragraph(
            f"{len(candidates)} places in {truth.dataset_name} where models see an object that has "
            "no label, the surest first. Is it an object, background, or something to ignore in "
            "training and evaluation?"
        ),
        paragraph(
            "Keys: o object, b background, i ignore, u undecided; j next, k previous; 1 to 9 the "
            "class. This browser keeps what you decide; export it to apply it.",
            class_="soft",
        ),
        legend("missed", "object", "ignored", missed="candidate", object="label"),
        element("div", export, element("output", aria_live="polite"), class_="bar"),
        element(
            "div",
            grid(*cards),
            data_dataset=truth.dataset_name,
            data_digest=hashlib.sha256(shown).hexdigest()[:16],  # of another page, decisions differ
        ),
    ]
    script = resources.files(utils).joinpath("audit.js").read_text("utf-8")
    write_page(path, f"Missing labels: {truth.dataset_name}", content, script)


def _card(number: int, candidate: Candidate, truth: GroundTruth) -> Html:
    names, n = truth.class_names, truth.index_of(candidate.image_id)
    suggested = candidate.class_name or (names[0] if len(names) == 1 else "")
    options = (element("option", x, value=x, selected=x == suggested or None) for x in ["", *names])
    caption = f"{number}. {candidate.class_name or 'object'}, score {candidate.score:.2f}, "
    caption += f"agreement {candidate.agreement:.0%}: {os.path.basename(truth.file_names[n])}"
    radio = functools.partial(element, "input", type="radio", name_=f"decision{number}")
    radios = (
        element("label", radio(value=value, checked=not value or None), value or "undecided")
        for value in (*DECISIONS, "")
    )
    classes = element("select", *options, aria_label="class", autocomplete="off")
    return element(
        "div",
        figure(_crop(candidate, truth, n), caption),
        element("div", *radios, classes, class_="choice"),
        class_="candidate",
        tabindex=0,
        data_candidate=json.dumps({"image_id": candidate.image_id, "box": candidate.box}),
    )


def _crop(candidate: Candidate, truth: GroundTruth, n: int) -> Html:
    """Return the picture of a candidate on image n with what is around it."""
    try:
        image = read_image(truth.file_names[n], "RGB")
    except Exception:  # Pillow's parsers raise nearly anything on a broken file
        return paragraph("(unreadable)")
    box, objects = np.reshape(candidate.box, (2, 2)), truth.of_image(n)
    side = max(_CONTEXT * (box[1] - box[0]).max(), _LEAST)
    image, start = crop_image(image, box.mean(axis=0), side)
    corners = np.concatenate([[candidate.box], truth.boxes[objects]]) - np.tile(start, 2)
    looks = ["missed", *np.where(truth.ignored[objects], "ignored", "object")]
    boxes = [*map(Box, corners.tolist(), looks)]
    return picture(image, boxes, alt=candidate.class_name or "candidate")
