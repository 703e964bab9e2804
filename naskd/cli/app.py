"""The command line: a few calls of :mod:`naskd.runs.run` for each command, and what is printed about them.

Results go to standard output, everything else to standard error. The exit code is 0 when all went well, 2
when what was given is wrong (arguments, a study file, a run that does not exist), 1 when something failed
while it ran or a search ended with less than was asked of it, and 130 after a Ctrl-C that stopped at once.

Nothing heavy is imported before a command needs it: the help must not wait for torch.
"""

import errno
import os
import sys
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from naskd import __version__
from naskd.cli.printing import print_plainly, say
from naskd.spec.errors import InputError, NaskdError, left, raised
from naskd.spec.interrupts import kept, unmasked
from naskd.spec.places import raised_by_user
from naskd.spec.timeouts import exit_raises
from naskd.store.files import out_of_space

_INTERRUPTED = 130

_OUR_MISTAKE = f"""
This is a mistake in naskd {__version__}, not in what you gave it. Please report it, with the lines above, the command
and the study file, as CONTRIBUTING.md says; no run is damaged by it."""


class Commands(TyperGroup):
    """Turns what a command raises into one clear message and an exit code.

    What is no :class:`~naskd.spec.errors.NaskdError` is a mistake in naskd, and keeps its traceback; see :func:`main`.
    """

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        try:
            with unmasked(), exit_raises():
                result = super().invoke(ctx)
            sys.stdout.flush()  # a full disk or a closed pipe is said here, not by Python at its end
            return result
        except KeyboardInterrupt:
            say("stopped by Ctrl-C")
            code = _INTERRUPTED
        except NaskdError as error:
            say(f"error: {error}")
            code = 2 if isinstance(error, InputError) else 1
        except SystemExit as error:  # no command leaves so: a user's code has
            say(f"error: {left(error)}")
            code = 1
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            say(_of_the_system(error))
            code = 1
        except Exception as error:
            if not raised_by_user(error):
                raise
            say(f"error: {raised(error)}")
            code = 1
        raise typer.Exit(code)


def _of_the_system(error: OSError) -> str:
    place = f" ({error.filename})" if error.filename else ""
    hint = "; nothing is damaged: make room, and the same command goes on" if out_of_space(error) else ""
    return f"error: {error.strerror or error}{place}{hint}"


app = typer.Typer(
    cls=Commands,
    name="naskd",
    help="Search a student network's architecture and its distillation jointly.",
    epilog="Begin with: naskd init my-study",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Boxes around help and mistakes cost another tenth of a second, and "one clear line" is promised.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """The command line; :mod:`naskd.__main__` imports it."""
    with kept():
        _main()


def _main() -> None:
    print_plainly()
    try:
        os.getcwd()
    except OSError:  # some libraries end the process with a message of their own
        say("error: the folder that naskd was started in is gone; change to one that is there")
        sys.exit(2)
    try:
        try:
            app(prog_name="naskd")
        finally:
            sys.stdout.flush()  # of help, too, a full disk is said here
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it once more
        sys.exit(1)
    except OSError as error:
        say(_of_the_system(error))
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception:  # whatever is none of ours to know: said where to report it
        say(traceback.format_exc() + _OUR_MISTAKE)
        sys.exit(1)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"naskd {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Search a student network's architecture and its distillation jointly."""
