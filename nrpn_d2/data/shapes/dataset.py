"""The embedded dataset ``shapes``: made from a seed, in VOC layout, every object labelled.

Filled disks, squares and triangles, from 12 to over 96 pixels wide, among near-misses of the same
colors (outlines, fragments, similar forms) on structured backgrounds. A network that has learnt
"something round, of one color" fires on them with confidence: false positives to learn from.
"""

import json
import os
import shutil
from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple
from uuid import uuid4
from xml.etree import ElementTree

import numpy as np
from detectron2.utils import comm
from PIL import Image
from tqdm import tqdm

from ...utils.text_files import load_json
from ..voc.xml import add_element
from . import drawing
from .drawing import DISTRACTOR_FORMS, OBJECT_FORMS, Color, Point, Shape

SHAPES_CLASSES = tuple(OBJECT_FORMS)
VERSION = 1  # to be raised with every change that alters a pixel or a box
_SPEC_FILE = "shapes.json"
_NO_OBJECT = 0.08  # fraction of the images
_HIDDEN, _FAINT = 0.03, 0.03  # fractions of the objects
_MIN_VISIBLE = 0.6  # part of an object's pixels; below, it is difficult


class DrawnObject(NamedTuple):
    name: str
    box: tuple[int, int, int, int]  # x0, y0, x1, y1: pixels x0..x1-1, y0..y1-1
    difficult: int
    truncated: int
    mask: np.ndarray  # (H, W) bool: its visible pixels


class Scene(NamedTuple):
    background: np.ndarray  # (H, W, 3) float
    shapes: list[Shape]  # from back to front
    objects: Sequence[int]  # which of them are objects
    faint: list[int]  # objects of low contrast


def make_shapes(
    root: str, seed: int = 0, num_train: int = 600, num_test: int = 150, size: int = 160
) -> str:
    """Make the dataset, unless the folder has it already.

    The folder appears when it is complete, so that an interruption leaves no half of it and
    several processes may call this at once.

    Args:
        root: the folder to make; "train" and "test" are its splits.
        seed: not negative; the same arguments give the same bytes.
        size: width and height of the images in pixels.

    Returns:
        ``root``.

    Raises:
        ValueError: an argument is out of range, or the folder holds something else.
    """
    limits = {"seed": 0, "num_train": 1, "num_test": 1, "size": 64}
    spec = {"seed": seed, "num_train": num_train, "num_test": num_test, "size": size}
    for name, least in limits.items():
        if not isinstance(spec[name], int) or spec[name] < least:
            raise ValueError(f"make_shapes: {name} is {spec[name]!r}; it must be an int >= {least}")
    spec["version"] = VERSION
    if _holds(root, spec):
        return root
    draft = f"{os.path.abspath(root)}.{uuid4().hex}.tmp"
    try:
        _write_folder(draft, spec)
        os.rename(draft, root)
    except OSError:
        if not _holds(root, spec):  # another process may have been faster
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return root


def _holds(root: str, spec: dict) -> bool:
    """Tell whether the folder has this very dataset; raise ValueError if it has another."""
    if not os.path.isdir(root) or not os.listdir(root):
        return False
    path = os.path.join(root, _SPEC_FILE)
    try:
        made_as = load_json(path, 2**20)
    except ValueError as error:
        message = f"{root}: the folder is not empty, and no `shapes` dataset ({error})"
        raise ValueError(f"{message}; delete it, or choose another folder") from None
    if made_as != spec:
        message = f"{path}: the folder was made as {made_as}, wanted is {spec}"
        raise ValueError(f"{message}; delete the folder, or choose another one")
    return True


def _write_folder(root: str, spec: dict) -> None:
    for folder in ("ImageSets/Main", "JPEGImages", "Annotations"):
        os.makedirs(os.path.join(root, folder))
    size = spec["size"]
    splits = {"train": spec["num_train"], "test": spec["num_test"]}
    todo = [(split, index) for split in splits for index in range(splits[split])]
    quiet = not comm.is_main_process()
    for split, index in tqdm(todo, desc="Making the dataset shapes", disable=quiet):
        picture, objects = make_image(spec["seed"], split, index, size)
        name = f"{split}_{index:05d}"
        # Level 1: the grain hardly compresses; higher levels take 4 times as long to save 10 %.
        path = os.path.join(root, "JPEGImages", f"{name}.png")
        Image.fromarray(picture).save(path, compress_level=1)
        _write_xml(os.path.join(root, "Annotations", f"{name}.xml"), name, size, objects)
    for split, count in splits.items():
        with open(os.path.join(root, "ImageSets", "Main", f"{split}.txt"), "w") as file:
            file.writelines(f"{split}_{index:05d}\n" for index in range(count))
    with open(os.path.join(root, _SPEC_FILE), "w") as file:
        json.dump(spec, file, indent=1)


def make_image(
    seed: int, split: str, index: int, size: int
) -> tuple[np.ndarray, list[DrawnObject]]:
    """Draw one image, independent of all others: (size, size, 3) uint8, and its objects."""
    stream = np.random.SeedSequence([seed, ("train", "test").index(split), index])
    scene = plan_scene(np.random.Generator(np.random.PCG64(stream)), size)
    picture, owner = drawing.draw(scene.background, scene.shapes)
    return picture, find_objects(scene, owner)


def find_objects(scene: Scene, owner: np.ndarray) -> list[DrawnObject]:
    """Measure on the drawn picture what an annotator would see of each object."""
    objects = []
    for index in scene.objects:
        mask = owner == index
        rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
        box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        alone = (drawing.coverage(scene.shapes[index], owner.shape)[1] >= 0.5).sum()
        difficult = index in scene.faint or mask.sum() < _MIN_VISIBLE * alone
        truncated = min(box) == 0 or max(box) == len(owner)
        box = tuple(map(int, box))
        name = scene.shapes[index].form
        objects.append(DrawnObject(name, box, int(difficult), int(truncated), mask))
    return objects


def plan_scene(rng: np.random.Generator, size: int) -> Scene:
    """Decide on background, near-misses and objects; objects lie in front."""
    background = drawing.random_background(rng, size)
    count = 0 if rng.random() < _NO_OBJECT else 1 + int(5 * rng.random())
    objects, covers, faint = [], [], []
    for number in range(count):
        place = _free_place(rng, size, 0.35 * size, objects, spacing=0.95)
        if place is None:
            break
        fate = rng.random()
        is_faint = fate < _FAINT
        objects.append(_shape(rng, SHAPES_CLASSES, background, *place, faint=is_faint))
        if is_faint:
            faint.append(number)
        elif fate < _FAINT + _HIDDEN:
            covers.append(_shape(rng, ("occluder",), background, *place))
    distractors = []
    for _ in range(4 + int(6 * rng.random())):
        place = _free_place(rng, size, 0.2 * size, objects + distractors, spacing=0.85)
        if place is not None:
            forms = [form for form in DISTRACTOR_FORMS if form != "hexagon" or place[1] > 16]
            distractors.append(_shape(rng, forms, background, *place))
    shapes, first = distractors + objects + covers, len(distractors)
    indices = range(first, first + len(objects))
    return Scene(background, shapes, indices, [indices[number] for number in faint])


def _free_place(
    rng: np.random.Generator, size: int, max_radius: float, taken: Sequence[Shape], spacing: float
) -> tuple[Point, float] | None:
    """Find a center and a radius clear of the others, mostly small; None if there is no room."""
    for _ in range(60):
        radius = 6 + (max_radius - 6) * rng.random() ** 2
        center = tuple(0.7 * radius + (size - 1.4 * radius) * rng.random(2))
        if all(
            sqrt((center[0] - other.center[0]) ** 2 + (center[1] - other.center[1]) ** 2)
            > spacing * (radius + other.radius)
            for other in taken
        ):
            return center, radius
    return None


def _shape(
    rng: np.random.Generator,
    forms: Sequence[str],
    background: np.ndarray,
    center: Point,
    radius: float,
    faint: bool = False,
) -> Shape:
    form = forms[int(len(forms) * rng.random())]
    x, y = int(center[0]), int(center[1])
    reach = int(radius)
    around = background[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1]
    behind = around.reshape(-1, 3).sum(axis=0) / (around.size // 3)
    color = drawing.random_color(rng)
    while _length(color - behind) < 90:
        color = drawing.random_color(rng)
    if faint:
        color = behind + (color - behind) * (22 / _length(color - behind))
    # At most half of the contrast, so that no rim vanishes in the background.
    shade = rng.random(3) - 0.5
    shade *= (0.1 + 0.3 * rng.random()) * min(_length(color - behind), 90) / _length(shade)
    return Shape(form, center, radius, drawing.random_axis(rng), color, shade)


def _length(color: Color) -> float:
    return sqrt(color[0] * color[0] + color[1] * color[1] + color[2] * color[2])


def _write_xml(path: str, name: str, size: int, objects: Sequence[DrawnObject]) -> None:
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = f"{name}.png"
    add_element(root, "size", width=size, height=size, depth=3)
    for drawn in objects:
        texts = {"name": drawn.name, "truncated": drawn.truncated, "difficult": drawn.difficult}
        x0, y0, x1, y1 = drawn.box  # VOC counts from 1 and includes the last pixel
        corners = {"xmin": x0 + 1, "ymin": y0 + 1, "xmax": x1, "ymax": y1}
        add_element(add_element(root, "object", **texts), "bndbox", **corners)
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(path)
