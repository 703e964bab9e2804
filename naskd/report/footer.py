"""What stands below a table, in lines that end between its parts and never within one."""

from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

_BETWEEN = " · "


class Footer:
    """Short facts in as few lines as the width allows; a table's own caption would break within a number.

    Args:
        parts: Each is kept in one line, unless it alone is wider than that.
    """

    def __init__(self, parts: Sequence[str]) -> None:
        self.parts = tuple(parts)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        line = ""
        for part in self.parts:
            longer = f"{line}{_BETWEEN}{part}" if line else part
            if line and cell_len(longer) > options.max_width:
                yield self._text(line)
                line = part
            else:
                line = longer
        if line:
            yield self._text(line)

    def _text(self, line: str) -> Text:
        return Text(line, style="dim italic", overflow="fold")
