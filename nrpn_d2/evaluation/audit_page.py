"""The candidates of an audit: as one HTML page on which to decide, and as JSON and CSV."""

import csv
import hashlib
import io
import json
import os
from collections.abc import Hashable, Mapping, Sequence
from importlib import resources

import numpy as np
from detectron2.data.detection_utils import read_image

from .. import utils
from ..data.corrections import DECISIONS
from ..utils.page import Box, Html, element, figure, grid, legend, paragraph, picture, write_page
from ..utils.saving import atomic_open
from .audit import Candidate
from .ground_truth import GroundTruth

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
        with atomic_open(os.path.join(folder, f"candidates.{suffix}"), "wb") as file:
            file.write(text.encode("utf-8", "backslashreplace"))


def write_sheet(
    path: str,
    candidates: Sequence[Candidate],
    truth: GroundTruth,
    files: Mapping[Hashable, str],
) -> None:
    """Write the page.

    Args:
        truth: the labels, which are drawn, too.
        files: image id -> the image.
    """
    cards = [_card(n, c, truth, files[c.image_id]) for n, c in enumerate(candidates, start=1)]
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


def _card(number: int, candidate: Candidate, truth: GroundTruth, file: str) -> Html:
    names = truth.class_names
    suggested = candidate.class_name or (names[0] if len(names) == 1 else "")
    options = (
        element("option", x, selected=True if x == suggested else None) for x in ["", *names]
    )
    caption = f"{number}. {candidate.class_name or 'object'}, score {candidate.score:.2f}, "
    caption += f"agreement {candidate.agreement:.0%}: {os.path.basename(file)}"
    radios = (
        element(
            "label",
            element(
                "input",
                type="radio",
                name_=f"decision{number}",
                value=decision,
                checked=None if decision else True,
            ),
            decision or "undecided",
        )
        for decision in (*DECISIONS, "")
    )
    classes = element("select", *options, aria_label="class", autocomplete="off")
    return element(
        "div",
        figure(_crop(candidate, truth, file), caption),
        element("div", *radios, classes, class_="choice"),
        class_="candidate",
        tabindex=0,
        data_candidate=json.dumps({"image_id": candidate.image_id, "box": candidate.box}),
    )


def _crop(candidate: Candidate, truth: GroundTruth, file: str) -> Html:
    """Return the picture of a candidate with what is around it."""
    try:
        image = read_image(file, "RGB")
    except Exception:  # Pillow's parsers raise nearly anything on a broken file
        return paragraph("(unreadable)")
    size = np.array(image.shape[1::-1])
    box = np.reshape(candidate.box, (2, 2))
    side = max(_CONTEXT * (box[1] - box[0]).max(), _LEAST)
    start = np.clip(box.mean(axis=0) - side / 2, 0, np.maximum(size - side, 0)).astype(int)
    x0, y0 = start
    x1, y1 = np.minimum(start + int(side), size)
    objects = truth.of_image(truth.index_of(candidate.image_id))
    looks = np.where(truth.ignored[objects], "ignored", "object")
    boxes = [Box(candidate.box, "missed"), *map(Box, truth.boxes[objects].tolist(), looks)]
    shift = np.array([x0, y0, x0, y0])
    moved = [Box((np.array(b.corners) - shift).tolist(), b.look) for b in boxes]
    return picture(image[y0:y1, x0:x1], moved, alt=candidate.class_name or "candidate")
