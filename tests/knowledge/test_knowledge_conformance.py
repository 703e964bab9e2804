"""Every registered knowledge loss passes the suite that users' losses pass; a new one is tested by being registered."""

import subprocess
import sys

import pytest

from naskd.knowledge import KNOWLEDGE
from naskd.testing import KnowledgeLossSuite

KINDS = KNOWLEDGE.names()


class TestCatalogue(KnowledgeLossSuite):
    names = KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_a_card_of_ours_names_its_paper_and_a_file_of_its_own(kind: str) -> None:
    card = KNOWLEDGE[kind]
    assert "arXiv" in card.paper or "20" in card.paper
    assert card.paper_setting
    module = KNOWLEDGE.load(kind).__module__
    assert module.rpartition(".")[2] == kind or not isinstance(card.implementation, str)


def test_importing_the_cards_does_not_import_torch() -> None:
    code = (
        "import sys, naskd.knowledge; assert len(naskd.knowledge.KNOWLEDGE); "
        "sys.exit(sum(m in sys.modules for m in ('torch', 'optuna', 'ray')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
