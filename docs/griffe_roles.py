"""Docstrings name code as Sphinx does (``:class:`~naskd.x.Y```, double backticks); the site is Markdown."""

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|mod|data|meth|attr|exc|obj):`~?(?:[\w.]*\.)?(\w+)`")


class Roles(griffe.Extension):
    """Writes roles and double backticks as inline code."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        """Called for every module, class, function and attribute that was read."""
        if obj.docstring is not None:
            text = _ROLE.sub(r"`\1`", obj.docstring.value)
            obj.docstring.value = re.sub(r"``([^`\n]+)``", r"`\1`", text)
