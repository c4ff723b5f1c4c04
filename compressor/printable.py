"""Text from files and from other people's code, made harmless for a terminal."""

from __future__ import annotations

import re

# Control characters but for line ends and tabs, half of a surrogate pair, and signs that turn the direction of text.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_UNSAFE_IN_JSON = re.compile("[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""``text`` with what a terminal would obey instead of showing written out: the escape sign as ``\x1b``."""
    return _UNSAFE.sub(_written, text)


def printable_json(text: str) -> str:
    """The same for a JSON document: what the format leaves in strings as it is, in the escapes of the format."""
    return _UNSAFE_IN_JSON.sub(lambda sign: f"\\u{ord(sign[0]):04x}", text)


def _written(sign: re.Match[str]) -> str:
    code = ord(sign[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
