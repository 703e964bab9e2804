"""``python -m naskd``: the command line."""

from naskd.cli import main

if __name__ == "__main__":
    main()
