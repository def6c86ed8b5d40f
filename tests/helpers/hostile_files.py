"""Files that do harm where they are read without care."""

import os
import struct
import zlib


class TouchesAFile:
    """Its pickle makes the file ``path`` when it is loaded."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.system, (f"touch '{self.path}'",)


def hostile_yaml(path):
    """A text that makes the file ``path`` when it is loaded as YAML with Python's objects."""
    return f"x: !!python/object/apply:os.system [\"touch '{path}'\"]\n"


def yaml_bomb():
    """Ten lines; the last one stands for 9^9 pairs."""
    lines = ["a0: &a0 {k: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 10)]
    return "\n".join(lines)


XML_BOMB = "<!DOCTYPE annotation [<!ENTITY a0 'a'>" + "".join(
    f"<!ENTITY a{n} '{f'&a{n - 1};' * 10}'>" for n in range(1, 10)
)
XML_BOMB += "]><annotation>&a9;</annotation>"
EXTERNAL_XML = """<!DOCTYPE annotation [<!ENTITY a SYSTEM "file:///etc/hostname">]>
<annotation>&a;</annotation>"""
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 60 40\n(x) run\n"
DEEP_JSON = b"[" * 100_000


def png_of_size(width, height):
    """A PNG whose header has this size, and no pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    checksum = struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n\0\0\0\x0d" + header + checksum + b"\0\0\0\x04IDATdata"
