"""Command lines."""

import argparse
from pathlib import Path


def parser(description: str | None, *, json: bool = True) -> argparse.ArgumentParser:
    """A parser that shows the module's docstring as it is written.

    Args:
        description: The docstring.
        json: Whether it has ``--json`` and ``--resume``, which :class:`harness.results.Results` is about.
    """
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if json:
        made.add_argument(
            "--json", type=new_file, help="file for all measurements; rewritten after each step"
        )
        made.add_argument("--resume", action="store_true", help="keep what the file of --json has already")
    return made


def new_file(text: str) -> Path:
    """A file that can be written: better said before hours of measuring than after.

    Raises:
        argparse.ArgumentTypeError: Its folder does not exist.
    """
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{path}: the folder does not exist")
    return path
