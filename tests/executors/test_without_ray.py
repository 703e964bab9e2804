"""Ray and what comes with it are extras: naskd searches, shows and exports without them, and says what lacks."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from small_studies import SEARCHED, SEARCHED_SPACE

from naskd.spec.errors import InputError
from naskd.spec.packages import INSTALLED_AS, lacks, pip_install
from naskd.spec.parse import parse_study
from naskd.store.checkpoints import check_scheme
from naskd.tables import read_table

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = ("ray", "pyarrow", "tensorboardX")

SESSION = """\
import sys

import naskd

for executor in ("serial", "processes"):
    settings = ["epochs=1", f"execution.executor={executor}"]
    run = naskd.search("study.toml", trials=1, out=f"runs/{executor}", settings=settings)
    (best, *_) = naskd.open_run(run.path).front()
    print(executor, best["state"], run.export(best["number"])["origin"])
assert not any(sys.modules.get(name) for name in ("ray", "pyarrow", "tensorboardX"))
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "study.toml").write_text(SEARCHED)
    (tmp_path / "space.py").write_text(SEARCHED_SPACE.replace("SCHEME", "offline"))
    return tmp_path


@pytest.fixture
def gone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in EXTRAS:
        monkeypatch.setitem(sys.modules, name, None)


def test_a_search_a_front_and_an_export_without_them(project: Path) -> None:
    (project / "session.py").write_text(SESSION)
    lines = [f"sys.modules[{name!r}] = None" for name in EXTRAS]
    (project / "sitecustomize.py").write_text("\n".join(["import sys", *lines]) + "\n")
    done = subprocess.run(
        [sys.executable, "session.py"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(project), str(ROOT)])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["serial COMPLETE search", "processes COMPLETE search"]


@pytest.mark.usefixtures("gone")
def test_a_study_that_needs_one_is_refused_with_the_remedy(project: Path) -> None:
    data = project / "images.parquet"
    data.touch()
    settings = ["execution.executor=ray", "data.kind=parquet", f"data.root={data}"]
    with pytest.raises(InputError) as refused:
        parse_study(project / "study.toml", settings)
    problems = str(refused.value)
    assert re.search(r"execution\.executor: got \"ray\".*pip install 'ray\[tune\]>=2\.55'", problems), (
        problems
    )
    assert re.search(r"data\.kind: got \"parquet\".*pip install pyarrow", problems), problems


@pytest.mark.usefixtures("gone")
def test_tables_and_checkpoints_at_a_url_say_what_they_need(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pip install pyarrow"):
        read_table(tmp_path)
    with pytest.raises(InputError, match=r"checkpoints.*pip install pyarrow"):
        check_scheme("s3://bucket/prefix")
    check_scheme(str(tmp_path))


def test_what_is_there_lacks_nothing() -> None:
    assert lacks("a search", ["torch", "numpy.linalg"]) == ""
    assert lacks("it", ["no_such_package.part"]) == (
        "it needs no_such_package, not installed here: pip install no_such_package"
    )


def test_what_is_installed_is_what_the_extras_install() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert extras["ray"] == [INSTALLED_AS["ray"].strip("'")]
    assert not [
        line for line in project["dependencies"] if line.startswith(("ray", "pyarrow", "tensorboardX"))
    ]
    assert any(line.startswith("ray[") for line in extras["dev"]), "the tests of the executor need it"
    assert pip_install(["ray", "psycopg"]) == "pip install 'ray[tune]>=2.55' 'psycopg[binary]'"
