"""WAV files whose headers FFmpeg misreads, as they were meant.

WAVE_FORMAT_EXTENSIBLE may hold samples of 24 bits in 32, or of 16 in 24. FFmpeg takes those for the floating-point
samples of an old editor, or for shorter ones. And a header may say less than the file holds: sizes wrap around at 4 GB,
and a recorder that lost power has not written the last one. FFmpeg then stops early.
"""

import os
import struct

_PCM = bytes.fromhex("0100000000001000800000aa00389b71")  # the subformat of WAVE_FORMAT_EXTENSIBLE
_EXTENSIBLE = 0xFFFE
_MOST_CHUNKS = 1000  # before the sound; a recorder writes a handful
_TO_THE_END = 0xFFFFFFFF
_STREAMED = (0, _TO_THE_END)  # sizes that nobody knew; FFmpeg reads these to the end


def as_meant(path):
    """The path; or, where FFmpeg would misread its header, an open file that reads as one with a plain header."""
    try:
        with open(path, "rb") as file:
            changes = _changes(file, os.fstat(file.fileno()).st_size)
    except (OSError, struct.error):
        return path
    return _Changed(path, changes) if changes else path


class _Changed:
    """A file with other bytes at some places, as PyAV reads files."""

    def __init__(self, path, changes):
        self.name, self._changes, self._file = path, changes, open(path, "rb")
        self.seek, self.tell = self._file.seek, self._file.tell

    def __del__(self):
        self._file.close()  # PyAV does not

    def read(self, size=-1):
        start = self.tell()
        content = bytearray(self._file.read(size))
        for place, new in self._changes.items():
            for at, byte in enumerate(new, place - start):
                if 0 <= at < len(content):
                    content[at] = byte
        return bytes(content)


def _changes(file, size):
    """Place in the file → the bytes that belong there."""
    changes = {}
    if file.read(4) not in (b"RIFF", b"RF64", b"BW64") or file.read(8)[4:] != b"WAVE":
        return changes
    for _ in range(_MOST_CHUNKS):
        name, length = struct.unpack("<4sI", file.read(8))
        start = file.tell()
        if name == b"data":
            if length not in _STREAMED and start + length + 8 <= size and not _is_chunk(file, start + length, size):
                changes[start - 4] = struct.pack("<I", _TO_THE_END)
            return changes
        if name == b"fmt " and length >= 40:
            tag, bits, _, valid, _, subformat = struct.unpack("<H12xHHHI16s", file.read(40))
            if tag == _EXTENSIBLE and subformat == _PCM and 0 < valid < bits and bits in (16, 24, 32):
                changes[start + 18] = struct.pack("<H", bits)
        file.seek(start + length + length % 2)
    return changes


def _is_chunk(file, place, size):
    """Whether a chunk, or the padding byte before one, is at a place of a file."""
    for start in (place, place + 1):
        file.seek(start)
        head = file.read(8)
        if len(head) == 8 and all(0x20 <= byte <= 0x7E for byte in head[:4]):
            return struct.unpack("<I", head[4:])[0] <= size - start
    return False
