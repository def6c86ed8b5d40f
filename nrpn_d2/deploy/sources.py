"""Find and read what to predict on: images and videos, as files, folders and globs."""

import glob
import os
from collections.abc import Iterator

import numpy as np
from detectron2.data import detection_utils
from PIL import Image

from ..data.image_header import FORMATS, read_image_header
from ..data.reading import walk

IMAGE_FORMATS = (*FORMATS, "TIFF", "PPM")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")


def suffix(path: str) -> str:
    """Return a file name's last part in lower case, such as ".jpg"."""
    return os.path.splitext(path)[1].lower()


def is_image_name(path: str) -> bool:
    return Image.registered_extensions().get(suffix(path)) in IMAGE_FORMATS


def is_video_name(path: str) -> bool:
    return suffix(path) in VIDEO_SUFFIXES


def find_files(pattern: str, leave_out: str) -> list[str]:
    """Return the images and videos that ``pattern`` means, sorted.

    Args:
        pattern: a file, a glob, or a folder; of that all images and videos in it and below it.
        leave_out: a folder whose files do not count, unless there are no others: that of the
            pictures of an earlier run.

    Raises:
        ValueError: if there is none.
    """
    if os.path.isdir(pattern):
        paths = [
            os.path.join(folder, name)
            for folder, names in walk(pattern)
            for name in names
            if is_image_name(name) or is_video_name(name)
        ]
    elif os.path.exists(pattern):  # also if its name has brackets
        return [pattern]
    else:
        paths = [path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path)]
    inside = os.path.join(os.path.abspath(leave_out), "")
    paths = [path for path in paths if not os.path.abspath(path).startswith(inside)] or paths
    if not paths:
        raise ValueError(f"{pattern}: no image and no video there")
    return sorted(paths)


def read_image(path: str) -> np.ndarray:
    """Return an image as (H, W, 3) uint8 in RGB, turned as its EXIF orientation says.

    Raises:
        ValueError: if it cannot be read, or has more than 8 bits per channel.
    """
    try:
        read_image_header(path, IMAGE_FORMATS)
        return detection_utils.read_image(path, "RGB")
    except Exception as error:  # Pillow's parsers raise nearly anything on a broken file
        raise ValueError(f"cannot be read: {error}") from error


class Video:
    """The frames of a video, (H, W, 3) uint8 in RGB each.

    Attributes:
        frame_rate: frames per second.
        num_frames: as the file says; it may be a guess.

    Raises:
        ValueError: if it cannot be read.
    """

    def __init__(self, path: str):
        import cv2  # only videos need OpenCV

        self._capture = cv2.VideoCapture(path)
        if not self._capture.isOpened():
            raise ValueError("cannot be read as a video")
        self.frame_rate = self._capture.get(cv2.CAP_PROP_FPS) or 25.0
        self.num_frames = max(int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)

    def __iter__(self) -> Iterator[np.ndarray]:
        while True:
            is_read, frame = self._capture.read()
            if not is_read:
                return
            yield np.ascontiguousarray(frame[:, :, ::-1])
