"""What travels to a worker; tests/ray/ has it arrive."""

import dataclasses
from pathlib import Path

from small_studies import small_context

from naskd.executors.parcel import pack
from naskd.studyfile import StudySpec


def test_files_of_one_folder_stay_neighbours_and_each_travels_once_with_what_it_imports(tmp_path: Path):
    contents = {
        "space.py": "import common\n",
        "losses.py": "import common\n",
        "common.py": "import deeper.still\n",
        "deeper/still.py": "",
        "unused.py": "",
        "elsewhere/blocks.py": "import common\n",
        "elsewhere/common.py": "# another one\n",
    }
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    context = small_context(tmp_path / "run", teacher=None)
    context.spec = dataclasses.replace(
        context.spec, base=tmp_path, space="space.py:joint", modules=("losses.py", "elsewhere/blocks.py")
    )
    parcel, _ = pack(context)
    spec = StudySpec.from_dict(parcel.spec)
    assert spec.space == "0/space.py:joint"
    assert spec.modules == ("0/losses.py", "1/blocks.py")
    sent = ("space.py", "losses.py", "common.py", "deeper/still.py")
    expected = {f"0/{name}": contents[name].encode() for name in sent}
    for name in ("blocks.py", "common.py"):
        expected[f"1/{name}"] = contents[f"elsewhere/{name}"].encode()
    assert parcel.files == expected
