"""Text files as people's programs write them: UTF-8, UTF-16 with its mark as Excel writes it, or Windows' code page."""

WINDOWS = {byte: bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in range(0x80, 0xA0)}
"""What Windows-1252 has where Latin-1 has control characters."""
MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


def text_of(data: bytes | bytearray) -> str:
    """The text of a file. Bytes that are no UTF-8 are read as Windows-1252, so that two names never become one."""
    coding = next((coding for mark, coding in MARKS.items() if data.startswith(mark)), None)
    if coding:
        return data.decode(coding, "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1").translate(WINDOWS)
