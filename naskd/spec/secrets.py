"""Passwords in URLs: neither shown nor kept.

A study may name a storage, checkpoints or a cluster by a URL. Whatever is printed, logged or written of one goes
through this module first, and so does every message that may repeat one.
"""

import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

STORAGE_PASSWORD = "NASKD_STORAGE_PASSWORD"
"""Environment variable with the password of a storage URL that names a user and no password."""

_HIDDEN = "***"
# Every part is bounded, so that no text, however long or odd, takes a long time.
_SCHEME = r"(?P<start>[A-Za-z][A-Za-z0-9+.-]{0,30}://"
_USER = r"[^\s:/@'\"]{0,200}:)"
_WORDS = r"(?:password|passwd|pwd|secret|api_?key|access_?key)[\w-]{0,40}|token"
_QUERY = rf"[\w-]{{0,40}}(?:{_WORDS})=[^\s&;'\"#]{{0,1500}}"

# Shown: all up to the last at sign of the line, since passwords may hold what should have been encoded: slashes, at
# signs, blanks, quotes. Too much is hidden rather than too little; a port with something after it is none, though.
_SHOWN = (
    re.compile(rf"{_SCHEME}{_USER}[^\s'\"]{{0,1500}}(?=@)"),
    re.compile(rf"{_SCHEME}{_USER}(?!\d{{1,5}}(?:[\s/,;:.)'\"]|$)|\*\*\*)(?:(?!://)[^\n]){{0,1500}}(?=@)"),
    re.compile(r"(?P<start>https?://)[^\s:/@'\"]{1,1500}(?=@)"),  # a token as the user
    re.compile(
        rf"(?P<start>(?:{_WORDS})=)(?:'[^'\n]{{0,1500}}'|\"[^\"\n]{{0,1500}}\"|[^\s&;'\",]{{1,1500}})", re.I
    ),
)

# Kept: exactly what databases and filesystems read as the password, so that the rest is still the URL.
_KEPT = (
    (
        re.compile(
            rf"{_SCHEME}[^\s:/@'\"]{{0,200}}):(?!\d{{1,5}}\s)(?:[^/?#\n]{{0,1500}}|[^@\n]{{0,1500}})@"
        ),
        r"\g<start>@",
    ),
    (re.compile(r"(?P<start>https?://)[^\s:/@'\"]{1,1500}@"), r"\g<start>"),
    (re.compile(rf"[&;]{_QUERY}", re.I), ""),
    (re.compile(rf"\?{_QUERY}(?P<more>[&;]?)", re.I), lambda m: "?" if m["more"] else ""),
)


def redacted(text: str, url: str = "") -> str:
    """`text` with stars for the passwords of the URLs in it, and for values that are named as passwords.

    Args:
        text: A message, a setting, a traceback, a URL.
        url: One whose password must not stand in `text` in any other form either.
    """
    if password := _password(url):
        for form in {password, unquote(password)}:
            text = text.replace(form, _HIDDEN)
    for pattern in _SHOWN:
        text = pattern.sub(rf"\g<start>{_HIDDEN}", text)
    return text


def without_passwords(text: str) -> str:
    """`text` with its URLs as they are without passwords: what may be kept, and copied into a shell."""
    for pattern, rest in _KEPT:
        text = pattern.sub(rest, text)
    return text


def kept(data: Any) -> Any:
    """Plain JSON data as it may be written to a file: every text in it without passwords."""
    if isinstance(data, str):
        return without_passwords(data)
    if isinstance(data, Mapping):
        return {key: kept(value) for key, value in data.items()}
    return [kept(value) for value in data] if isinstance(data, list | tuple) else data


def storage_with_password(url: str) -> str:
    """A storage URL with the password of :data:`STORAGE_PASSWORD`, where it names a user and no password itself."""
    password = os.environ.get(STORAGE_PASSWORD)
    if not password or _password(url):
        return url
    return re.sub(rf"^{_SCHEME}[^:/@]+)@", lambda m: f"{m['start']}:{quote(password, safe='')}@", url)


def _password(url: str) -> str:
    """The password of a URL, as written there."""
    found = re.match(rf"\s*{_SCHEME}[^:/@]{{0,200}}):(?P<password>[^/?#\n]{{0,1500}}|[^@\n]{{0,1500}})@", url)
    return found["password"] if found else ""
