"""Packages that only some parts of naskd need: whether they are here, and how they are installed."""

import importlib.util
from collections.abc import Iterable, Sequence

INSTALLED_AS = {
    "ray": "'ray[tune]>=2.55'",
    "psycopg": "'psycopg[binary]'",
    "psycopg2": "psycopg2-binary",
    "MySQLdb": "mysqlclient",
    "optuna_dashboard": "optuna-dashboard",
}
"""What ``pip install`` is given, in a shell, where that is not the name that is imported."""


def installed(module: str) -> bool:
    """Whether a module can be imported; it is not, but of ``package.module`` the package is."""
    # A folder of that name where Python was started (W&B writes one) is found as a module without an origin.
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # its package is not there
        return False
    return spec is not None and spec.origin is not None


def missing(modules: Iterable[str]) -> list[str]:
    """The packages of those modules that are not installed, as they are imported."""
    return [module.partition(".")[0] for module in modules if not installed(module)]


def pip_install(packages: Sequence[str]) -> str:
    """The command that installs packages, which are named as they are imported."""
    return f"pip install {' '.join(INSTALLED_AS.get(name, name) for name in packages)}"


def lacks(what: str, modules: Iterable[str], install: str = "") -> str:
    """That something needs what is not installed, and how to install that; empty where all is there.

    Args:
        what: The beginning of the sentence.
        modules: As they are imported.
        install: How, where ``pip install`` here is not the way.
    """
    if not (names := missing(modules)):
        return ""
    return f"{what} needs {' and '.join(names)}, not installed here: {install or pip_install(names)}"
