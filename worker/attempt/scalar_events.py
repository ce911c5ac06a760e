"""Scalars in TensorBoard's file format, written without TensorBoard: TFRecords of Event messages. Client and worker have the same file.

The format is that of tensorflow/core/util/event.proto and of tensorflow/core/lib/io/record_writer.h: length, masked CRC-32C
of the length, message, masked CRC-32C of the message.
"""

import struct

POLYNOMIAL = 0x82F63B78
"""CRC-32C (Castagnoli), reversed."""


def _table() -> list[int]:
    rows = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (POLYNOMIAL if value & 1 else 0)
        rows.append(value)
    return rows


TABLE = _table()


def crc32c(data: bytes) -> int:
    """CRC-32C of some bytes."""
    value = 0xFFFFFFFF
    for byte in data:
        value = TABLE[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFFFFFF


def record(data: bytes) -> bytes:
    """A TFRecord."""
    length = struct.pack("<Q", len(data))
    return length + _masked(length) + data + _masked(data)


def _masked(data: bytes) -> bytes:
    value = crc32c(data)
    return struct.pack("<I", ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def scalar(name: str, step: int, value: float, at: float) -> bytes:
    """An Event with one scalar; `at` is its time in seconds since 1970."""
    tag = name.encode()
    one = _bytes(1, tag) + _key(2, 5) + struct.pack("<f", value)
    return _key(1, 1) + struct.pack("<d", at) + _key(2, 0) + _varint(step) + _bytes(5, _bytes(1, one))


def version(at: float) -> bytes:
    """The first Event of a file."""
    return _key(1, 1) + struct.pack("<d", at) + _bytes(3, b"brain.Event:2")


def _key(field: int, kind: int) -> bytes:
    return _varint(field << 3 | kind)


def _bytes(field: int, data: bytes) -> bytes:
    return _key(field, 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)
