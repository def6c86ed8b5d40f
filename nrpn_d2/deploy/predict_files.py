"""Predict on files: read, run the model on batches, draw, write."""

import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.structures import Instances
from tqdm import tqdm

from .outputs import Results, VideoWriter, as_detections, picture_names, write_crops, write_image
from .pictures import draw
from .predictor import Predictor
from .sources import Video, is_video_name, read_image

logger = logging.getLogger(__name__)


class Shown(NamedTuple):
    """Which predictions are drawn."""

    top_k: int  # at most so many of an image
    min_score: float  # from this score on
    fallback: int  # so many of an image in which none has min_score

    def of(self, scores: np.ndarray) -> np.ndarray:
        """Return indices into scores (K,), which are in descending order."""
        passing = np.flatnonzero(scores >= self.min_score)
        return passing[: self.top_k] if len(passing) else np.arange(len(scores))[: self.fallback]


@dataclass
class Summary:
    """What was done; ``failures`` has a line per file that could not be used."""

    images: int = 0
    boxes: int = 0
    drawn: int = 0  # boxes
    without: int = 0  # images in which no score reaches min_score
    best: float = 0.0  # score in these
    seconds: float = 0.0
    model_seconds: float = 0.0
    failures: list[str] = field(default_factory=list)


class Frame(NamedTuple):
    """An image to predict on, as it is and as the model gets it."""

    image_id: str
    image: np.ndarray  # (H, W, 3) RGB
    inputs: dict[str, Any]  # the model's
    path: str  # of the picture or video to write
    video: VideoWriter | None = None
    number: str = ""  # of a video's frame, with a separator


def predict_files(
    predictor: Predictor,
    files: Sequence[str],
    output: str,
    class_names: Sequence[str],
    *,
    proposals: bool,
    batch: int,
    shown: Shown,
    crops: bool,
) -> Summary:
    """Write pictures and results of images and videos to ``output``.

    A file that cannot be used is reported, and the others go on. What was done is on the disk
    even if an error or Ctrl-C ends the run.

    Args:
        proposals: draw what the RPN proposes instead of detections.
        batch: how many images of one size the model gets at a time.
        crops: write what is in each drawn box, too.
    """
    summary, results = Summary(), Results(class_names)
    start, video = time.perf_counter(), None
    prefixes = [""] if proposals else [f"{name} " for name in class_names]
    try:
        is_short = len(files) == 1 and not is_video_name(files[0])
        with tqdm(total=len(files), unit="image", disable=is_short) as bar:
            frames = _read(predictor, files, output, bar, summary.failures)
            for some in batches(frames, batch):
                for frame, found in zip(some, run_model(predictor, some, proposals, summary)):
                    results.add(frame.image_id, found)
                    if video not in (None, frame.video):
                        video.close()
                    video = frame.video
                    _write(frame, found, prefixes, shown, crops, summary)
                bar.update(len(some))
    finally:
        if video is not None:
            video.close()
        results.write(output)
    summary.boxes = len(results.rows)
    summary.seconds = time.perf_counter() - start
    return summary


def common_folder(paths: Iterable[str]) -> str:
    return os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])


def _read(
    predictor: Predictor, files: Sequence[str], output: str, bar: tqdm, failures: list[str]
) -> Iterator[Frame]:
    """Yield the images and frames of all files; note in ``failures`` what cannot be used."""
    folder = common_folder(files)
    names = [os.path.relpath(os.path.abspath(file), folder) for file in files]
    pictures = picture_names(names)
    for file, name in zip(files, names, strict=True):
        image_id, path = name.replace(os.sep, "/"), os.path.join(output, pictures[name])
        try:
            if is_video_name(file):
                yield from _read_video(predictor, file, image_id, path, bar)
            else:
                image = read_image(file)
                yield Frame(image_id, image, predictor.inputs_of_rgb(image), path)
        except ValueError as error:
            failures.append(f"{file}: {error}")
            bar.write(failures[-1])
            bar.update(1)


def _read_video(
    predictor: Predictor, file: str, image_id: str, path: str, bar: tqdm
) -> Iterator[Frame]:
    video = Video(file)
    writer, count = VideoWriter(path, video.frame_rate), 0
    bar.total += max(video.num_frames - 1, 0)
    for count, image in enumerate(video, 1):
        inputs, number = predictor.inputs_of_rgb(image), f"{count - 1:06d}"
        yield Frame(f"{image_id}/{number}", image, inputs, path, writer, f"{number}_")
    if count == 0:
        raise ValueError("no frame of the video can be read")
    if count < video.num_frames:
        logger.warning("%s: only %d of %d frames can be read", file, count, video.num_frames)
        bar.total -= video.num_frames - count


def batches(frames: Iterator[Frame], size: int) -> Iterator[list[Frame]]:
    """Group images of one size, of one video: so padding changes nothing, and order is kept."""
    for _, group in groupby(frames, key=lambda f: (f.video, f.inputs["image"].shape)):
        while some := list(islice(group, size)):
            yield some


def run_model(
    predictor: Predictor, frames: Sequence[Frame], proposals: bool, summary: Summary
) -> list[Instances]:
    """Return detections, or proposals as such, on the CPU; note the time in ``summary``."""
    start = time.perf_counter()
    inputs = [frame.inputs for frame in frames]
    if proposals:
        found = [as_detections(x.to("cpu")) for x in predictor.propose_batch(inputs)]
    else:
        found = [x.to("cpu") for x in predictor.detect_batch(inputs)]
    summary.model_seconds += time.perf_counter() - start
    return found


def _write(
    frame: Frame, found: Instances, prefixes: list[str], shown: Shown, crops: bool, done: Summary
) -> None:
    """Draw one image's predictions; ``prefixes`` come before the scores of each class."""
    scores = found.scores.numpy()
    done.images += 1
    if not (scores >= shown.min_score).any():
        done.without += 1
        done.best = max(done.best, float(scores.max(initial=0)))
    drawn = found[torch.from_numpy(shown.of(scores))]
    done.drawn += len(drawn)
    boxes, classes = drawn.pred_boxes.tensor.numpy(), drawn.pred_classes.tolist()
    labels = [f"{prefixes[c]}{score:.2f}" for c, score in zip(classes, drawn.scores.tolist())]
    masks = drawn.pred_masks.numpy() if drawn.has("pred_masks") else None
    picture = draw(frame.image, boxes, labels, classes, masks)
    if frame.video is None:
        write_image(frame.path, picture)
    else:
        frame.video.write(picture)
    if crops:
        write_crops(frame.path, frame.image, boxes, labels, frame.number)
