"""Text that others wrote, as it may be shown: nothing in it moves the cursor, hides a line or fails to be printed."""

import codecs
import re

_ODD = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and line end; escapes begin with one of them
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # these turn the direction of what follows
    "\u2028\u2029\ud800-\udfff]"  # line ends that are none, and bytes of file names that are not UTF-8
)

_PLAIN = {"–": "-", "−": "-", "←": "<-", "→": "->", "×": "x", "·": "|", "±": "+-", "…": "..."}
PLAIN_ERRORS = "naskd-plain"
"""Name of the error handler that prints what an encoding lacks in characters that it has."""


def visible(text: str) -> str:
    r"""`text` with escapes such as ``\x1b`` for characters that are not seen but do something."""
    return _ODD.sub(lambda match: _escape(match[0]), text)


def visible_line(text: str) -> str:
    r"""The same in one line: line ends are ``\n``."""
    return visible(text).replace("\n", "\\n")


def encodable(text: str) -> str:
    """`text` as UTF-8 can hold it: file names may be bytes that are none."""
    return re.sub("[\ud800-\udfff]", lambda match: _escape(match[0]), text)


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _plainly(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(
        _PLAIN.get(c) or (_escape(c) if "\ud800" <= c <= "\udfff" else "?") for c in lacking
    ), error.end


codecs.register_error(PLAIN_ERRORS, _plainly)
