"""Images with the boxes that are wrong and the objects that are missed."""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from ...utils.page import (
    MAX_BOXES,
    Box,
    Html,
    details,
    element,
    figure,
    file_picture,
    grid,
    legend,
    section,
)
from .folder import RunFolder
from .series import Groups

NUM_WORST = 12
NUM_COMPARED = 8
MAX_COMPARED_GROUPS = 4
SIDE = 420
_LOOKS = {"hit": "hit", "ignored": "ignored"}  # of kinds of detections; others are wrong


class Mistakes(NamedTuple):
    """Those of one image."""

    file_name: str
    wrong: int
    missed: int
    boxes: list[Box]

    def figure(self, name: str) -> Html:
        picture = file_picture(self.file_name, self.boxes, SIDE)
        caption = f"{name}: {self.wrong} wrong, {self.missed} missed"
        if len(self.boxes) > MAX_BOXES:
            caption += f" (drawn: the first {MAX_BOXES} of {len(self.boxes)} boxes)"
        return figure(picture, caption)


def image_mistakes(run: RunFolder, dataset: str) -> list[Mistakes]:
    """Return the mistakes of each image of the last evaluation."""
    content = run.evaluations[dataset].mistakes if dataset in run.evaluations else {}
    kinds, names = content.get("kinds", ()), content.get("classes", ())
    return [_of_image(record, kinds, names) for record in content.get("images", ())]


def _of_image(record: dict[str, Any], kinds: Sequence[str], names: Sequence[str]) -> Mistakes:
    wrong, right = [], []
    for *corners, category, score, kind in record["detections"]:
        kind = kinds[kind]
        look = _LOOKS.get(kind, "fault")
        label = f"{names[category]} {score:.2f}" if look == "fault" else ""
        # For proposals, which are of one class, duplicates are no mistake
        if kind != "duplicate" or len(names) > 1:
            (wrong if look == "fault" else right).append(Box(corners, look, label))
    objects = record["objects"]
    missed = [Box(box[:4], "missed", names[box[4]]) for box in objects if box[5] == 0]
    ignored = [Box(box[:4], "ignored") for box in objects if box[5] == 2]
    boxes = wrong + missed + right + ignored
    return Mistakes(record["file_name"], len(wrong), len(missed), boxes)


def worst_images(run: RunFolder, dataset: str) -> Html:
    """Return the images with most wrong detections, and those with most missed objects."""
    images = image_mistakes(run, dataset)
    by_wrong = sorted((x for x in images if x.wrong), key=lambda x: -x.wrong)[:NUM_WORST]
    by_missed = sorted((x for x in images if x.missed), key=lambda x: -x.missed)[:NUM_WORST]
    parts, shown = [_legend()], set()
    for title, chosen in (("Most wrong detections", by_wrong), ("Most missed objects", by_missed)):
        new = [x for x in chosen if x.file_name not in shown]
        shown.update(x.file_name for x in new)
        parts += [element("h3", title), _few(new)] if new else []
    return section(f"Worst images of {dataset}", *parts) if shown else Html()


def _legend() -> Html:
    return legend("fault", "missed", "hit", "ignored", fault="wrong, with class and score")


def _few(images: Sequence[Mistakes]) -> Html:
    figures = [x.figure(os.path.basename(x.file_name)) for x in images]
    more = [details(f"{len(figures) - 6} more", grid(*figures[6:]))] if len(figures) > 6 else []
    return Html("".join([grid(*figures[:6]), *more]))


def compared_images(dataset: str, groups: Groups) -> Html:
    """Return the images on which the first runs of the groups differ most, side by side."""
    by_run = {
        first.name: {x.file_name: x for x in image_mistakes(first, dataset)}
        for first, *_ in list(groups.values())[:MAX_COMPARED_GROUPS]
    }
    by_run = {name: images for name, images in by_run.items() if images}
    if len(by_run) < 2:
        return Html()
    common = set.intersection(*(set(images) for images in by_run.values()))

    def difference(file_name: str) -> int:
        counts = [images[file_name].wrong + images[file_name].missed for images in by_run.values()]
        return max(counts) - min(counts)

    chosen = sorted((x for x in sorted(common) if difference(x)), key=difference, reverse=True)
    parts = []
    for file_name in chosen[:NUM_COMPARED]:
        pictures = (images[file_name].figure(name) for name, images in by_run.items())
        title = element("h3", os.path.basename(file_name))
        parts.append(element("div", title, element("div", *pictures, class_="pair")))
    if not parts:
        return Html()
    few = f"the first {MAX_COMPARED_GROUPS} of {len(groups)}"
    which = few if len(groups) > MAX_COMPARED_GROUPS else "the"
    return section(
        f"Images of {dataset} on which {which} runs differ most",
        _legend(),
        element("div", *parts, class_="grid pairs"),
    )
