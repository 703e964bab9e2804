"""Every registered scheme passes the suite that users' schemes pass; a new one is tested by being registered."""

from naskd.schemes import SCHEMES
from naskd.testing import SchemeSuite


class TestCatalogue(SchemeSuite):
    names = SCHEMES.names()
