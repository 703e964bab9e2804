"""The command line: ``naskd``. Importing it registers all commands, and imports nothing heavy."""

from naskd.cli import keeping, looking, searching, serving, taking, timing
from naskd.cli.app import app, main

__all__ = ["app", "keeping", "looking", "main", "searching", "serving", "taking", "timing"]
