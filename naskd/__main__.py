"""The ``naskd`` command, also as ``python -m naskd``.

Before anything else is imported a Ctrl-C is heard: importing takes seconds.
"""

import sys

from naskd.spec.interrupts import kept


def main() -> None:
    """Import the command line and run it."""
    with kept():
        try:
            from naskd.cli import main as command_line
        except KeyboardInterrupt:
            print("stopped by Ctrl-C", file=sys.stderr)
            sys.exit(130)
        command_line()


if __name__ == "__main__":
    main()
