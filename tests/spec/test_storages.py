"""A storage that no search could use is found by reading the study file."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from naskd.spec.storages import storage_problems


def test_storages_that_may_be_there() -> None:
    for storage in ("journal", "sqlite", "sqlite:///study.db", "sqlite:////tmp/study.db"):
        assert storage_problems(storage) == []


@pytest.mark.parametrize(
    ("storage", "says"),
    [
        ("://", "of the form"),
        ("nosuchdb://x/y", "SQLAlchemy knows"),
        ("sqlite://", "in memory is lost"),
        ("sqlite:///:memory:", "in memory is lost"),
        ("sqlite:///no/such/study.db", "no/such"),
        ("sqlite:///.", "is a folder"),
        ("postgresql+nodriver://u:s3kr1t@h/db", "SQLAlchemy knows"),
        ("oracle://u:s3kr1t@h/db", "pip install"),
    ],
)
def test_storages_that_cannot_be(storage: str, says: str) -> None:
    (problem,) = storage_problems(storage)
    assert says in str(problem)
    assert "s3kr1t" not in str(problem)


def test_a_study_without_a_url_is_read_without_databases(tmp_path: Path) -> None:
    (tmp_path / "space.py").write_text("def joint(trial): ...\n")
    (tmp_path / "study.toml").write_text(
        'name = "one"\nspace = "space.py:joint"\n[data]\nkind = "digits"\n[budget]\ntrials = 3\n'
    )
    code = (
        "import sys\nfrom pathlib import Path\nfrom naskd.spec.parse import parse_study\n"
        "parse_study(Path('study.toml'))\nassert 'sqlalchemy' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=os.environ)
