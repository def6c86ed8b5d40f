"""Image file -> size and EXIF orientation, without decoding its pixels."""

from collections.abc import Sequence
from typing import BinaryIO, NamedTuple

from PIL import ExifTags, Image

# What strangers' files are tried as. Pillow knows more formats, some of which start programs.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")


class ImageHeader(NamedTuple):
    size: tuple[int, int]  # (width, height) of the pixels as stored
    orientation: int  # EXIF: 1 as stored; 5 to 8 exchange width and height

    @property
    def oriented_size(self) -> tuple[int, int]:
        """The (width, height) of the image that ``detection_utils.read_image`` returns."""
        return self.size[::-1] if self.orientation >= 5 else self.size

    def rotate_box(self, box: tuple[float, ...]) -> tuple[float, ...]:
        """Move a 0-based (x0, y0, x1, y1) from stored to oriented pixels, orientation 5 to 8."""
        x0, y0, x1, y1 = box
        width, height = self.size
        return {
            5: (y0, x0, y1, x1),
            6: (height - y1, x0, height - y0, x1),
            7: (height - y1, width - x1, height - y0, width - x0),
            8: (y0, width - x1, y1, width - x0),
        }[self.orientation]


def read_image_header(path: str, formats: Sequence[str] = FORMATS) -> ImageHeader:
    """Read what Detectron2 will see of an image.

    Raises:
        ValueError: the file is missing, unreadable, no image, too large for Pillow, or cannot
            become 8-bit RGB without loss of its content.
    """
    try:
        with open(path, "rb") as file, Image.open(file, formats=formats) as image:
            header = ImageHeader(image.size, _orientation(image, file))
            mode = image.mode
    except Exception as error:  # Pillow's parsers raise nearly anything on a broken file
        raise ValueError(f"{type(error).__name__}: {error}") from None
    if mode.startswith(("I", "F")):
        # Detectron2's read_image would cut every value at 255.
        raise ValueError(f"mode {mode} has more than 8 bits; convert it to 8 bits")
    return header


def _orientation(image: Image.Image, file: BinaryIO) -> int:
    # Pillow decodes a whole PNG to look for EXIF behind its pixels: only where there is some.
    if image.format == "PNG" and not _png_has_metadata(file):
        return 1
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # as Detectron2: unreadable EXIF is no EXIF
        return 1
    return int(orientation) if orientation in range(2, 9) else 1


def _png_has_metadata(file: BinaryIO) -> bool:
    """Tell whether a chunk may hold an orientation."""
    keywords = (b"Raw profile type exif", b"XML:com.adobe.xmp")
    file.seek(8)  # the signature
    may_have = False
    while not may_have and len(head := file.read(40)) >= 8:
        # Chunk: length (4 bytes), type (4), content (length), checksum (4).
        may_have = head[4:8] == b"eXIf" or head[8:].startswith(keywords)
        file.seek(int.from_bytes(head[:4], "big") + 12 - len(head), 1)
    return may_have
