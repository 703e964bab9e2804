"""The command that shows runs in a browser."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from naskd.cli.app import app
from naskd.cli.printing import say


@app.command()
def serve(
    place: Annotated[
        Path, typer.Argument(metavar="RUN|DIR", help="A run directory, or a folder of runs.")
    ] = Path("runs"),
    host: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Where to listen; other machines reach 0.0.0.0, and need the token that is printed.",
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free.")] = 8642,
    open_it: Annotated[
        bool | None,
        typer.Option(
            "--open/--no-open", help="Open a browser; default: where there is a screen.", show_default=False
        ),
    ] = None,
) -> None:
    """Show a run in a browser while it goes on.

    The page of naskd front --html, which draws what the search finds; of a folder, a list of its runs. Reading takes no
    part in the search. Ctrl-C ends it.
    """
    from naskd.runs.serving import Pages, Server, is_loopback

    server = Server(Pages(place), host, port)
    try:
        print(server.url, flush=True)
        say(f"serving {place}; Ctrl-C ends it")
        if not is_loopback(host):
            say("whoever has this address can read the runs; the connection is not encrypted")
        if _has_screen() if open_it is None else open_it:
            import webbrowser

            webbrowser.open(server.url)
        server.serve_forever()
    except KeyboardInterrupt:
        say("stopped")
    finally:
        server.server_close()


def _has_screen() -> bool:
    """Whether a browser would have a window; one in the terminal would take it over."""
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
