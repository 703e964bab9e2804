import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from naskd.spec.begun import as_begun, is_settled
from naskd.spec.code_identity import code_id, foreign_code
from naskd.spec.identity import identity_difference
from naskd.spec.parse import StudyFileError, parse_study
from naskd.spec.study import SamplerSpec, StudySpec
from naskd.spec.userfile import file_content_id, import_file, load_function

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / "naskd" / "templates"
SPACE = "def joint(trial): ...\n"
GOOD = """
name = "good"
space = "space.py:joint"
[data]
kind = "digits"
[budget]
trials = 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "space.py").write_text(SPACE)
    return tmp_path


def parse(folder: Path, text: str, *settings: str) -> StudySpec:
    (folder / "study.toml").write_text(text)
    return parse_study(folder / "study.toml", settings)


def problems(folder: Path, text: str, *settings: str) -> dict[str, str]:
    with pytest.raises(StudyFileError) as caught:
        parse(folder, text, *settings)
    error = caught.value
    lines = str(error).splitlines()
    assert [line.strip() for line in lines[1:]] == [str(problem) for problem in error.problems]
    assert str(len(error.problems)) in lines[0]
    for jargon in ("pydantic", "Input should", "dataclass", "Literal", "NoneType", "Traceback"):
        assert jargon not in str(error)
    assert len({p.key for p in error.problems}) == len(error.problems), "each key is reported once"
    return {problem.key: str(problem) for problem in error.problems}


class TestGoodFile:
    def test_the_smallest_file_has_the_documented_defaults(self, folder: Path) -> None:
        spec = parse(folder, GOOD)
        assert (spec.seed, spec.epochs, spec.objectives) == (0, 20, ("val_accuracy", "macs"))
        assert (spec.storage, spec.teacher, spec.sampler) == ("journal", None, SamplerSpec())
        assert (spec.execution.executor, spec.execution.threads, spec.execution.device) == (
            "serial",
            1,
            "auto",
        )
        assert (spec.budget.trials, spec.budget.max_turned_away) == (3, 200)
        assert (spec.retrain_epochs, spec.retrain.seeds) == (20, 5)

    def test_paths_are_relative_to_the_file_wherever_one_stands(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (folder / "study.toml").write_text(GOOD)
        monkeypatch.chdir(folder.parent)
        spec = parse_study(Path(folder.name) / "study.toml")
        assert spec.base == folder
        assert spec.resolve("a/../space.py") == folder / "space.py"
        assert spec.resolve("/elsewhere/x") == Path("/elsewhere/x")

    def test_large_counts_may_be_written_as_powers_of_ten(self, folder: Path) -> None:
        spec = parse(folder, GOOD + "[limits]\nmax_macs = 4e6\nmin_macs = 10_000\n")
        assert spec.limits.max_macs == 4_000_000
        assert isinstance(spec.limits.max_macs, int)

    @pytest.mark.parametrize(
        ("table", "key"),
        [
            ("data", "max_train"),
            ("data", "max_bytes"),
            ("budget", "trials"),
            ("budget", "train_macs"),
            ("execution", "device_data_bytes"),
            ("execution", "bank_bytes"),
            ("execution", "bank_disk_bytes"),
            ("execution", "bank_device_bytes"),
        ],
    )
    def test_numbers_of_images_trials_and_bytes_may_be_written_so_too(
        self, folder: Path, table: str, key: str
    ) -> None:
        found = getattr(getattr(parse(folder, GOOD, f"{table}.{key}=2e9"), table), key)
        assert (type(found), found) == (int, 2 * 10**9)

    def test_whole_number_stands_for_a_real_one(self, folder: Path) -> None:
        spec = parse(
            folder, GOOD + "[teacher]\ntorchvision = 'resnet18'\nmean = [0, 1, 0]\nstd = [1, 1, 1]\n"
        )
        assert spec.teacher is not None
        assert spec.teacher.mean == (0.0, 1.0, 0.0)

    def test_warm_start_keeps_types_and_dots(self, folder: Path) -> None:
        spec = parse(
            folder, GOOD + '[[warm_start]]\n"stage1.width" = 16\nuse = true\nrate = 0.5\nblock = "basic"\n'
        )
        assert spec.warm_start == ({"stage1.width": 16, "use": True, "rate": 0.5, "block": "basic"},)
        assert isinstance(spec.warm_start[0]["use"], bool)

    def test_json_round_trip(self, folder: Path) -> None:
        text = GOOD.replace(
            "[data]",
            "objectives = ['macs', 'val_accuracy', 'n_params']\nreference_point = {macs=5e7}\n[data]",
        )
        spec = parse(folder, text + '[teacher]\ntorchvision = "resnet18"\n[[warm_start]]\n"a.b" = 1.5\n')
        again = StudySpec.from_dict(json.loads(json.dumps(spec.to_dict())))
        assert again == spec
        assert again.base == folder
        with pytest.raises(ValueError, match="epohs"):
            StudySpec.from_dict({**spec.to_dict(), "epohs": 1})


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("max_latency_ms", "did you mean limits.max.latency_ms?"),
        ("min_peak_memory", "did you mean limits.min.peak_memory?"),
        ("max_mac", "did you mean 'max_macs'?"),
    ],
)
def test_a_limit_that_has_no_short_form_is_led_to_its_table(folder: Path, key: str, hint: str) -> None:
    assert problems(folder, f"{GOOD}[limits]\n{key} = 5\n")[f"limits.{key}"].endswith(hint)


@pytest.mark.parametrize(
    ("addition", "key", "ends"),
    [
        ("[limits]\nmax_macs = '4M'", "limits.max_macs", "; write it as a number: 4_000_000"),
        ("[limits]\nmax = {macs = '2.5k'}", "limits.max.macs", "; write it as a number: 2_500"),
        ("[sampler]\nstartup_trials = '5'", "sampler.startup_trials", "; write it as a number: 5"),
        ("[limits]\nmax_macs = '0.5'", "limits.max_macs", "at least 1"),
        ("[limits]\nmax_macs = 'many'", "limits.max_macs", "at least 1"),
        ("[execution]\ndevice = '4M'", "execution.device", ""),
    ],
)
def test_a_number_as_text_is_refused_with_the_way_to_write_it(
    folder: Path, addition: str, key: str, ends: str
) -> None:
    found = problems(folder, f"{GOOD}{addition}\n")[key]
    assert found.endswith(ends)
    assert ("write it" in found) is ("write it" in ends)


@pytest.mark.parametrize(
    ("key", "hint"), [("epoch", "did you mean 'epochs'?"), ("limit", "did you mean 'limits'?")]
)
def test_only_near_names_are_suggested(folder: Path, key: str, hint: str) -> None:
    assert problems(folder, f"{key} = 3\n{GOOD}")[key].endswith(hint)


class TestAllMistakesTogether:
    TEXT = """
name = "my study"
seed = "20"
space = "space.py:joit"
epochs = 0
objectivs = ["val_accuracy", "macs"]
objectives = ["val_accuracy", "n_parms"]
reference_point = {mac = 1}
modules = ["blocks.py"]
max_macs = 4e6
storage = "sqllite"
base = "/"
[data]
kind = "digit"
val_fraction = 1.5
[teacher]
builder = "nowhere.py:build"
torchvision = "resnet18"
learning_rate = 0.1
[sampler]
name = "tpe"
population_size = 20
[budget]
max_turned_away = true
[limits]
min_macs = 4e6
max_macs = 1e3
[execution]
threads = 1.5
channels_last = "no"
callbacks = ["mlflow", "wanddb"]
trials = 3
[retrain]
seeds = 2021-01-01
"""
    EXPECTED = (
        ("name", 'got "my study"', "letters", ""),
        ("seed", 'got "20"', "a whole number at least 0", ""),
        ("space", 'got "space.py:joit"', "joint", "did you mean 'joint'?"),
        ("epochs", "got 0", "a whole number in [1, 1e+06]", ""),
        ("objectivs", 'got ["val_accuracy", "macs"]', "the keys name, space", "did you mean 'objectives'?"),
        ("objectives[1]", 'got "n_parms"', '"n_params"', "did you mean 'n_params'?"),
        ("reference_point.mac", "got 1", "val_accuracy, macs", "did you mean 'macs'?"),
        ("modules[0]", 'got "blocks.py"', "an existing file; there is no /", ""),
        ("max_macs", "got 4000000.0", "the keys name", "did you mean limits.max_macs?"),
        ("storage", 'got "sqllite"', "'journal', 'sqlite' or an Optuna storage URL", ""),
        ("base", 'got "/"', "the keys name", ""),
        (
            "data.kind",
            'got "digit"',
            '"digits", "cifar10", "image_folder", "torchvision"',
            "did you mean 'digits'?",
        ),
        ("data.val_fraction", "got 1.5", "a number in (0, 1)", ""),
        ("teacher", "builder", "exactly one of architecture, builder, torchvision and source", ""),
        ("teacher.builder", 'got "nowhere.py"', "an existing file", ""),
        ("teacher.learning_rate", "got 0.1", "architecture", "did you mean teacher.training.learning_rate?"),
        ("sampler.population_size", 'sampler.name = "tpe"', "only with 'nsga2' or 'nsga3'", ""),
        ("budget", "an empty table", "at least one of trials, seconds and train_macs", ""),
        ("budget.max_turned_away", "got true", "a whole number", ""),
        ("limits", "min_macs = 4000000.0", "min_macs must be below max_macs", ""),
        ("execution.threads", "got 1.5", "a whole number", ""),
        ("execution.channels_last", 'got "no"', '"auto", true or false', ""),
        (
            "execution.callbacks[1]",
            'got "wanddb"',
            '"tensorboard", "mlflow" or "wandb"',
            "did you mean 'wandb'?",
        ),
        ("execution.trials", "got 3", "executor, device", "did you mean budget.trials?"),
        ("retrain.seeds", "got the date 2021-01-01", "a whole number", ""),
    )

    def test_every_mistake_is_listed_with_key_value_allowed_and_nearest(self, folder: Path) -> None:
        found = problems(folder, self.TEXT)
        assert set(found) == {key for key, *_ in self.EXPECTED}
        for key, *parts in self.EXPECTED:
            for part in parts:
                assert part in found[key], f"{part!r} not in {found[key]!r}"

    def test_overrides_are_checked_with_the_rest(self, folder: Path) -> None:
        found = problems(folder, GOOD, "epochs=-1", "sampler.name=tpee", "nonsense", "name.x=1", "data.knd=1")
        assert "got -1" in found["epochs"]
        assert "'tpe'" in found["sampler.name"]
        assert {"'nonsense'", "'name.x=1'", "data.knd"} <= set(found)

    def test_missing_keys_and_tables(self, folder: Path) -> None:
        found = problems(folder, "seed = 1\nbudget = 3\n")
        assert set(found) == {"name", "space", "data", "budget"}
        assert "got nothing" in found["data"]
        assert "a table with the keys kind, root" in found["data"]
        assert "got 3" in found["budget"]


class TestSingleMistakes:
    @pytest.mark.parametrize(
        ("addition", "key", "says"),
        [
            ("epochs = 20.0", "epochs", "a whole number"),
            ("seed = true", "seed", "a whole number"),
            ("objectives = ['val_accuracy', 'val_accuracy']", "objectives", "distinct"),
            ("objectives = ['n_params', 'macs']", "objectives", "'val_accuracy' among them"),
            ("objectives = ['val_accuracy']", "objectives", "two or three"),
            ("objectives = 'macs'", "objectives", "two or three"),
            ("reference_point = {n_params = 3}", "reference_point.n_params", "val_accuracy, macs"),
            ("reference_point = {macs = inf}", "reference_point.macs", "a finite number"),
            ("reference_point = {macs = 0}", "reference_point.macs", "a number above 0"),
            ("objectives = ['val_accuracy', 'mac']", "objectives[1]", "did you mean 'macs'?"),
            ("limits = {max = {n_param = 3}}", "limits.max.n_param", "did you mean 'n_params'?"),
            (
                "limits = {min = {train_macs = 3}}",
                "limits.min.train_macs",
                "objectives known before training",
            ),
            ("limits = {max = {macs = 3}, min_macs = 3}", "limits", "min_macs must be below max.macs"),
            ("space = 'space.py'", "space", "path/to/file.py:function"),
            ("space = 'spce.py:joint'", "space", "did you mean 'space.py'"),
            ("name = 2020-01-01", "name", "got the date 2020-01-01"),
            ("name = '../up'", "name", "letters, digits"),
            ("modules = 'space.py'", "modules", "a list"),
            ("limits = {max_macs = 1.5}", "limits.max_macs", "a whole number"),
            ("limits = {max_macs = 0}", "limits.max_macs", "at least 1"),
            ("warm_start = [{a = [1]}]", "warm_start[0].a", "a number, a string, true or false"),
            ("warm_start = {a = 1}", "warm_start", "a list; each item: a table"),
            (
                "sampler = {name = 'random', startup_trials = 3}",
                "sampler.startup_trials",
                "'tpe', 'gp' or 'ehvi'",
            ),
            ("sampler = {name = 'nsga2', multivariate = true}", "sampler.multivariate", "only with 'tpe'"),
            ("execution = {callbacks = 'mlflow'}", "execution.callbacks", "distinct ones of"),
            ("execution = {callbacks = ['wandb', 'wandb']}", "execution.callbacks", "distinct ones of"),
        ],
    )
    def test_is_the_only_problem_reported(self, folder: Path, addition: str, key: str, says: str) -> None:
        name = addition.partition(" ")[0]
        kept = "\n".join(line for line in GOOD.splitlines() if not line.startswith(f"{name} ="))
        found = problems(folder, f"{addition}\n{kept}")
        assert list(found) == [key]
        assert says in found[key]

    @pytest.mark.parametrize(
        ("data", "key", "says"),
        [
            ("kind = 'cifar10'", "data", "needs root"),
            ("kind = 'digits'\ntest_root = '.'", "data", "for kind = 'image_folder'"),
            ("kind = 'cifar10'\nroot = 3", "data.root", "a string"),
            ("kind = 'digits'\nchannels = true", "data.channels", "1 or 3"),
            ("kind = 'cifar10'\nroot = 'cifar'", "data.root", "download = true"),
            ("kind = 'image_folder'\nroot = 'images'", "data.root", "an existing folder; there is no /"),
            ("kind = 'image_folder'\nroot = '.'", "data.root", "two or more classes"),
            (
                "kind = 'csv'\nroot = 'space.py'\ntest_value = 'x'",
                "data.test_value",
                "only with split_column",
            ),
            (
                "kind = 'npz'\nroot = 'space.py'\ntest_labels = 'y'",
                "data.test_labels",
                "only with test_images",
            ),
            (
                "kind = 'npz'\nroot = 'space.py'\ntest_root = 'space.py'\ntest_images = 'x'",
                "data.test_images",
                "nothing where test_root holds",
            ),
        ],
    )
    def test_data(self, folder: Path, data: str, key: str, says: str) -> None:
        found = problems(folder, GOOD.replace('kind = "digits"', data))
        assert list(found) == [key]
        assert says in found[key]

    def test_folders_that_will_be_made_need_not_exist(self, folder: Path) -> None:
        spec = parse(
            folder, GOOD.replace('kind = "digits"', "kind = 'cifar10'\nroot = 'cifar'\ndownload = true")
        )
        assert spec.data.root == "cifar"

    @pytest.mark.parametrize(
        ("teacher", "key", "says"),
        [
            ("seed = 1", "teacher", "exactly one of architecture, builder, torchvision and source"),
            ("builder = 'space.py:joint'", "teacher", "needs a checkpoint"),
            ("torchvision = 'resnet18'\ncheckpoint = 'w.pt'", "teacher.checkpoint", "an existing file"),
            (
                "torchvision = 'resnet18'\nsha256 = 'abc'\ncheckpoint = 'space.py'",
                "teacher.sha256",
                "of the form",
            ),
            ("torchvision = 'resnet18'\nmean = [0.5, 0.5]\nstd = [1.0, 1.0]", "teacher", "1 or 3"),
            (
                "torchvision = 'resnet18'\nmean = [0.5]\nstd = [1.0, 1.0, 1.0]",
                "teacher",
                "one std for each channel",
            ),
            (
                "torchvision = 'resnet18'\ncheckpoint = 'space.py'\ntraining = {epochs = 3}",
                "teacher.training",
                "trained already",
            ),
            (
                "torchvision = 'resnet18'\ncheckpoint = 'space.py'\nhead_share = 0.3",
                "teacher.head_share",
                "trained already",
            ),
            ("source = 'run'\nrun = 'runs/x'\ntraining = {epochs = 3}", "teacher.training", "stays as it is"),
            ("source = 'run'\nrun = 'runs/x'\nfine_tune = true", "teacher.fine_tune", "stays as it is"),
            (
                "source = 'transformers'\nmodel = 'folder'\ntraining = {epochs = 3}",
                "teacher.training",
                "fine_tune = true",
            ),
            ("torchvision = 'resnet18'\nmin_accuracy = 0.9", "teacher.min_accuracy", "naskd trains this one"),
            (
                "torchvision = 'resnet18'\ncheckpoint = 'space.py'\nfine_tune = true\nmin_accuracy = 0.9",
                "teacher.min_accuracy",
                "naskd trains this one",
            ),
            (
                "resolution = 32\narchitecture = {stages = [{block = 'basic', depth = 1, width = 8}]}",
                "teacher.resolution",
                "builder or torchvision",
            ),
            (
                "architecture = {stages = [{block = 'basic', depth = 1, width = 8, kernel = 4}]}",
                "teacher.architecture.stages[0]",
                "kernel must be odd",
            ),
        ],
    )
    def test_teacher(self, folder: Path, teacher: str, key: str, says: str) -> None:
        found = problems(folder, GOOD + f"[teacher]\n{teacher}\n")
        assert list(found) == [key]
        assert says in found[key]

    def test_a_path_that_exists_from_where_one_stands_is_named(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (folder / "images").mkdir()
        (folder / "studies").mkdir()
        monkeypatch.chdir(folder)
        shutil.copy(folder / "space.py", folder / "studies")
        found = problems(folder / "studies", GOOD, "data.kind=image_folder", "data.root=images")
        assert f"did you mean {folder / 'images'}?" in found["data.root"]

    def test_syntax_error_names_the_line(self, folder: Path) -> None:
        found = problems(folder, 'name = "x"\nseed = 1\nepochs 20\n')
        assert list(found) == ["line 3"]
        assert "'epochs 20'" in found["line 3"]

    def test_broken_space_file_names_the_line(self, folder: Path) -> None:
        (folder / "space.py").write_text("x = 1\ndef joint(trial:\n")
        assert "space.py:2: not valid Python" in problems(folder, GOOD)["space"]

    def test_no_file_at_all(self, tmp_path: Path) -> None:
        with pytest.raises(StudyFileError, match="No such file"):
            parse_study(tmp_path / "none.toml")

    def test_the_space_is_looked_at_and_not_executed(self, folder: Path) -> None:
        (folder / "space.py").write_text(f"raise SystemExit\n{SPACE}")
        parse(folder, GOOD)

    def test_only_what_can_be_a_space_is_offered(self, folder: Path) -> None:
        (folder / "space.py").write_text(
            "def architecture(trial: Trial) -> ArchitectureSpec: ...\n"
            "def distillation(trial, student): ...\n"
            "def training(*, trial): ...\n"
            "def rounded(width: int): ...\n"
            "def nothing(): ...\n"
            "def _own(trial): ...\n"
            "def joined(t: 'optuna.Trial', width=3, *, depth=2) -> 'TrialConfig': ...\n"
            "def plain(trial): ...\n"
        )
        assert "space.py: joined, plain" in problems(folder, GOOD)["space"]
        (folder / "space.py").write_text("def jont(t): ...\n")
        assert "space.py: jont; did you mean 'jont'?" in problems(folder, GOOD)["space"]

    @pytest.mark.parametrize(
        "source",
        [
            "joint = lambda trial: None",
            "from other import joint",
            "from other import *",
            "if True:\n  def joint(t): ...",
        ],
    )
    def test_a_space_may_be_bound_in_any_way(self, folder: Path, source: str) -> None:
        (folder / "space.py").write_text(source)
        parse(folder, GOOD)


class TestSettings:
    def test_values_are_toml_or_else_strings(self, folder: Path) -> None:
        spec = parse(
            folder,
            GOOD,
            "seed=7",
            "objectives=['val_accuracy', 'n_params']",
            "sampler.name=nsga2",
            'name="other"',
            "storage=sqlite:///a=b.db",
            "limits.max_macs=4e6",
            'warm_start=[{"a.b" = 1}]',
        )
        assert (spec.seed, spec.name, spec.sampler.name) == (7, "other", "nsga2")
        assert spec.objectives == ("val_accuracy", "n_params")
        assert spec.storage == "sqlite:///a=b.db"
        assert spec.limits.max_macs == 4_000_000
        assert spec.warm_start == ({"a.b": 1},)

    def test_the_last_one_wins_and_the_file_is_left_alone(self, folder: Path) -> None:
        assert parse(folder, GOOD, "seed=1", "seed=2").seed == 2
        assert (folder / "study.toml").read_text() == GOOD


class TestIdentity:
    @pytest.mark.parametrize(
        "setting",
        [
            "budget.trials=9",
            "budget.seconds=1",
            "budget.max_turned_away=5",
            "execution.executor=ray",
            "execution.checkpoint_every=3",
            "execution.callbacks=['mlflow']",
            "execution.bank_bytes=1073741824",
            "execution.bank_device_bytes=0",
            "storage=sqlite",
            "retrain.seeds=2",
        ],
    )
    def test_is_left_alone_by_what_does_not_change_a_result(self, folder: Path, setting: str) -> None:
        assert (
            identity_difference(parse(folder, GOOD).identity(), parse(folder, GOOD, setting).identity()) == []
        )

    @pytest.mark.parametrize(
        ("setting", "hashes"),
        [
            ("data.test_fraction=0.3", ("data_hash", "split_hash")),
            ("data.max_train=100_000", ("data_hash", "split_hash")),
            ("data.resolution=8", ("data_hash", "split_hash")),
            ("teacher.seed=3", ("teacher_hash",)),
        ],
    )
    def test_is_not_changed_by_a_key_that_nothing_came_of(
        self, folder: Path, setting: str, hashes: tuple[str, ...]
    ) -> None:
        """What images, their split and teachers are is named by hashes; where these are the same, so is all."""
        taught = GOOD + "[teacher]\ntorchvision = 'resnet18'\n"
        one, other = parse(folder, taught).identity(), parse(folder, taught, setting).identity()
        assert identity_difference(one, other) != []
        known = {"data_hash": "d", "split_hash": "s", "teacher_hash": "t"}
        assert identity_difference({**one, **known}, {**other, **known}) == []
        for key in hashes:
            lines = identity_difference({**one, **known}, {**other, **known, key: "another"})
            assert [line.partition(":")[0] for line in lines] == [setting.partition("=")[0], key]

    def test_holds_the_name_by_which_designs_mean_a_teacher(self, folder: Path) -> None:
        teachers = "[[teachers]]\ntorchvision = 'resnet18'\nname = 'a'\n"
        known = {"data_hash": "d", "split_hash": "s", "teacher_hashes": {"a": "t"}}
        one = parse(folder, GOOD + teachers).identity() | known
        seed = parse(folder, GOOD + teachers + "seed = 3\n").identity() | known
        assert identity_difference(one, seed) == []
        renamed = parse(folder, GOOD + teachers.replace("'a'", "'b'")).identity()
        lines = identity_difference(one, renamed | known | {"teacher_hashes": {"b": "t"}})
        assert any(line.startswith("teachers.0.name") for line in lines)

    def test_keys_that_came_later_are_not_missed_in_older_runs(self, folder: Path) -> None:
        """What a study of version 0.1.0's first weeks wrote into its books; new keys that mean the same add nothing."""
        taught = GOOD + "[teacher]\ntorchvision = 'resnet18'\n"
        before = ("data.views=all", "execution.bank_disk_bytes=0")
        identity = parse(folder, taught, *before).identity()
        assert "views" not in identity["data"]
        assert sorted(identity["execution"]) == ["channels_last", "device", "precision", "threads"]
        training = identity["teacher"]["training"]
        assert sorted(training) == [
            "augmentation",
            "batch_size",
            "epochs",
            "learning_rate",
            "momentum",
            "optimizer",
            "schedule",
            "weight_decay",
        ]
        mixed = parse(folder, taught, *before, "teacher.training.mixing=mixup").identity()
        assert identity_difference(identity, mixed) == ['teacher.training.mixing: (absent) -> "mixup"']

    @pytest.mark.parametrize(
        ("setting", "line"),
        [
            ("epochs=30", "epochs: 20 -> 30"),
            ("seed=1", "seed: 0 -> 1"),
            ("execution.threads=2", "execution.threads: 1 -> 2"),
            ("execution.bank_bytes=2e9", "execution.bank_bytes: (absent) -> 2000000000"),
            ("execution.bank_bytes=0", "execution.bank_bytes: (absent) -> 0"),
            ("execution.bank_disk_bytes=2e9", "execution.bank_disk_bytes: 17179869184 -> 2000000000"),
            ("data.views=4", "data.views: 8 -> 4"),
            ("data.views=all", "data.views: 8 -> (absent)"),
            ("execution.cuda_graphs=false", "execution.cuda_graphs: (absent) -> false"),
            ("execution.device=cpu", 'execution.device: "auto" -> "cpu"'),
            ("limits.max_macs=1e6", "limits.max_macs: null -> 1000000"),
            ("sampler.multivariate=false", "sampler.multivariate: true -> false"),
            ("objectives=['val_accuracy','n_params']", 'objectives.1: "macs" -> "n_params"'),
        ],
    )
    def test_names_each_difference(self, folder: Path, setting: str, line: str) -> None:
        assert identity_difference(
            parse(folder, GOOD).identity(), parse(folder, GOOD, setting).identity()
        ) == [line]

    def test_what_a_file_leaves_to_the_version_is_filled_in_as_the_run_began(self, folder: Path) -> None:
        spec = parse(folder, GOOD)
        assert (spec.data.views, spec.execution.bank_disk_bytes) == (None, None)
        new = as_begun(spec, None)
        assert (new.data.views, new.execution.bank_disk_bytes) == (8, 2**34)
        assert new.identity() == spec.identity()
        assert is_settled(new)
        assert not is_settled(spec)
        other = parse(folder, GOOD, "data.views=3", "execution.bank_disk_bytes=5").identity()
        begun = as_begun(spec, other)
        assert (begun.data.views, begun.execution.bank_disk_bytes) == (3, 5)
        assert begun.identity() == other
        old = as_begun(spec, {"data": {"kind": "digits"}, "execution": {"threads": 1}})
        assert (old.data.views, old.data.most_views, old.execution.disk_bytes) == ("all", None, 0)
        said = parse(folder, GOOD, "data.views=5", "execution.bank_disk_bytes=7")
        assert as_begun(said, other) == said, "what is said stays"

    @pytest.mark.parametrize("views", ["0", "-1", "2.5", "'some'", "true"])
    def test_views_are_a_number_or_all(self, folder: Path, views: str) -> None:
        with pytest.raises(StudyFileError, match=r'data\.views: .*a whole number at least 1 or "all"'):
            parse(folder, GOOD, f"data.views={views}")

    def test_a_moved_checkout_is_the_same_study(self, folder: Path) -> None:
        spec = parse(folder, GOOD)
        assert replace(spec, base=Path("/elsewhere")).identity() == spec.identity()

    def test_what_appears_or_goes_is_named(self) -> None:
        assert identity_difference({"a": {"b": 1}}, {"c": [2]}) == [
            "a.b: 1 -> (absent)",
            "c.0: (absent) -> 2",
        ]
        assert identity_difference({"a": None, "l": []}, {"a": None, "l": []}) == []


class TestShippedStudies:
    STUDIES = sorted((ROOT / "studies").glob("*.toml"))

    def test_there_are_three(self) -> None:
        assert {p.stem for p in self.STUDIES} >= {"digits", "cifar10", "image_folder"}

    @pytest.mark.parametrize("path", [*STUDIES, TEMPLATES / "study.toml"], ids=lambda p: p.stem)
    def test_parses(self, path: Path, tmp_path: Path) -> None:
        for name in ("cats", "dogs"):
            (tmp_path / name).mkdir()
        (tmp_path / "teacher.pt").touch()
        settings = {
            "image_folder": [f"data.root={tmp_path}"],
            "images_96": [f"data.root={tmp_path}"],
            # What its user brings.
            "own_teacher": [f"data.root={tmp_path}", f"teacher.checkpoint={tmp_path / 'teacher.pt'}"],
            # Its script writes both.
            "few_labels": [f"data.unlabelled={tmp_path}", f"teacher.checkpoint={tmp_path / 'teacher.pt'}"],
        }
        spec = parse_study(path, settings.get(path.stem, []))
        assert spec.teacher is not None
        assert spec.teacher.trained_here is (path.stem not in ("few_labels", "own_teacher"))

    def test_the_template_is_the_digits_study(self) -> None:
        template, digits = (
            parse_study(TEMPLATES / "study.toml"),
            parse_study(ROOT / "studies" / "digits.toml"),
        )
        assert replace(template, name=digits.name, space=digits.space, base=digits.base) == digits
        assert (TEMPLATES / "space.py").read_bytes() == (ROOT / "search_spaces" / "digits.py").read_bytes()


class TestUserFiles:
    def test_a_file_is_executed_once_and_again_when_edited(self, tmp_path: Path) -> None:
        path = tmp_path / "user.py"
        path.write_text("token = object()\ndef f(): return token\n")
        first = load_function("user.py:f", tmp_path)
        assert load_function(str(path) + ":f", Path("/")) is first
        path.write_text("token = 1\ndef f(): return token\n")
        assert load_function("user.py:f", tmp_path)() == 1

    def test_files_of_one_name_and_their_neighbours_do_not_mix(self, tmp_path: Path) -> None:
        functions = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "neighbour_of_user.py").write_text(f"name = {name!r}\n")
            (tmp_path / name / "user.py").write_text(
                "from neighbour_of_user import name\ndef f(): return name\n"
            )
            functions.append(load_function("user.py:f", tmp_path / name))
        assert [f() for f in functions] == ["one", "two"]

    def test_a_neighbour_never_shadows_the_standard_library_afterwards(self, tmp_path: Path) -> None:
        (tmp_path / "wave.py").write_text("mine = True\n")
        (tmp_path / "user.py").write_text("def f(): ...\n")
        load_function("user.py:f", tmp_path)
        import wave

        assert not hasattr(wave, "mine")

    @pytest.mark.parametrize(
        ("source", "says"),
        [
            ("x = 1\n1 / 0\n", r"user\.py:2: cannot be imported: ZeroDivisionError"),
            ("import sys\nsys.exit(0)\n", r"user\.py:2: cannot be imported: SystemExit"),
            ("x = 1\ny = = 2\n", r"user\.py:2: cannot be imported: SyntaxError"),
            ("def g():\n    raise KeyError('k')\n\ng()\n", r"user\.py:2: cannot be imported: KeyError"),
            (
                "from naskd.spec.design import TrainingSpec\nx = TrainingSpec(optimizer='adamv')\n",
                r"user\.py:2: cannot be imported: unknown optimizer 'adamv' in TrainingSpec; known: .*"
                r"adamw.*; did you mean 'adam",
            ),
            (
                "from naskd.spec.design import TrainingSpec\nx = TrainingSpec(epoch=1)\n",
                r"user\.py:2: .*: TrainingSpec has no field 'epoch'; known: .*; did you mean 'epochs'",
            ),
            (
                "from naskd.spec.design import TrainingSpec\nx = TrainingSpec(epochs=-3)\n",
                r"user\.py:2: .*: TrainingSpec: epochs: got -3; Input should be greater than or equal to 1$",
            ),
            ("import no_such_module_at_all\n", r"user\.py:1: .*no_such_module_at_all"),
            (
                "def functon(): ...\n",
                r"defines no function 'function'; there: functon; did you mean 'functon'",
            ),
            ("function = 3\n", "defines no function 'function'"),
        ],
    )
    def test_what_is_wrong_is_said_with_its_line(self, tmp_path: Path, source: str, says: str) -> None:
        (tmp_path / "user.py").write_text(source)
        before = set(sys.modules)
        with pytest.raises(ValueError, match=says):
            load_function("user.py:function", tmp_path)
        assert not {m for m in set(sys.modules) - before if "user" in m} or "cannot be imported" not in says

    def test_missing_files_and_malformed_references(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="does not exist"):
            import_file(tmp_path / "none.py")
        for reference in ("file.py", ":f", "file:f", "file.py:", "file.py:a b"):
            with pytest.raises(ValueError, match=r"path/to/file\.py:function"):
                load_function(reference, tmp_path)

    def test_content_id_follows_the_files_that_are_imported(self, tmp_path: Path) -> None:
        (tmp_path / "space.py").write_text("import json\nfrom parts import a\n")
        (tmp_path / "parts.py").write_text("import deeper\na = 1\n")
        (tmp_path / "deeper.py").write_text("b = 1\n")
        (tmp_path / "other.py").write_text("c = 1\n")
        first = file_content_id(tmp_path / "space.py")
        (tmp_path / "other.py").write_text("c = 2\n")
        assert file_content_id(tmp_path / "space.py") == first
        (tmp_path / "deeper.py").write_text("b = 2\n")
        assert file_content_id(tmp_path / "space.py") != first
        shutil.copytree(tmp_path, tmp_path.with_name("moved"))
        assert file_content_id(tmp_path.with_name("moved") / "space.py") == file_content_id(
            tmp_path / "space.py"
        )

    def test_foreign_code_follows_the_files_of_registered_classes(self, tmp_path: Path) -> None:
        """Of naskd itself nothing is read, and what has no file cannot be told apart."""
        file = tmp_path / "mine.py"
        found = []
        for text in ("class Loss: a = 1", "class Loss: a = 2"):
            file.write_text(text)
            loss = import_file(file).Loss
            found.append(
                foreign_code(["naskd.knowledge.relation.rkd:RkdLoss", loss, f"{loss.__module__}:Loss"])
            )
            assert found[-1] == [code_id(file)]
        assert found[0] != found[1]
        assert foreign_code(["naskd.knowledge.relation.rkd:RkdLoss"]) == []
        typed: dict[str, Any] = {"__name__": "typed"}
        exec("class Loss: ...", typed)
        for nowhere in (typed["Loss"], "not_installed:Loss", "builtins:int"):
            assert foreign_code([loss, nowhere]) is None


@pytest.mark.parametrize(
    ("mean", "std", "words"),
    [
        (
            "[123.675, 116.28, 103.53]",
            "[58.395, 57.12, 57.375]",
            "Divided by 255 it is [0.485, 0.456, 0.406]",
        ),
        (
            "[123.675, 116.28, 103.53]",
            "[1.0, 1.0, 1.0]",
            "Divided by 255 it is [0.003922, 0.003922, 0.003922]",
        ),
        ("[0.5, 0.5, 0.5]", "[127.5, 127.5, 127.5]", "Divided by 255 it is [0.5, 0.5, 0.5]"),
        ("[-0.5, 0.5, 0.5]", "[0.5, 0.5, 0.5]", "numbers from 0 to 1"),
    ],
)
def test_a_normalisation_on_another_scale_is_refused_with_the_right_numbers(folder, mean, std, words):
    text = GOOD + f"[teacher]\ntorchvision = 'resnet18'\nmean = {mean}\nstd = {std}\n"
    with pytest.raises(StudyFileError) as caught:
        parse(folder, text)
    assert words in str(caught.value)
    assert all(problem.key in ("teacher.mean", "teacher.std") for problem in caught.value.problems)


@pytest.mark.parametrize(
    ("keys", "key", "allowed"),
    [
        ("depth = 1000000000000000000, width = 8", "depth", "a whole number in [1, 1000]"),
        ("depth = 1, width = 1000000000", "width", "a whole number in [1, 65536]"),
        ("depth = 1, width = 8, expansion = 1e30", "expansion", "a number in (0, 1000]"),
    ],
)
def test_a_network_that_nobody_can_build_is_refused(folder, keys, key, allowed):
    text = GOOD + f"[teacher.architecture]\nstages = [{{block = 'basic', {keys}}}]\n"
    with pytest.raises(StudyFileError) as caught:
        parse(folder, text)
    (problem,) = caught.value.problems
    assert problem.key == f"teacher.architecture.stages[0].{key}"
    assert allowed in problem.allowed


# --- one mistake is told once ---------------------------------------------------------------------------------------

FOREIGN = "[teacher]\ntorchvision = 'resnet18'\n"


@pytest.mark.parametrize("std", ["[0.0, 0.5, 0.5]", "[0.5, 'a', 0.5]", "[0.5, 0.5, -1]"])
def test_a_list_with_one_wrong_value_is_wrong_once(folder: Path, std: str) -> None:
    text = GOOD + FOREIGN + f"mean = [0.5, 0.5, 0.5]\nstd = {std}\n"
    (key,) = problems(folder, text)
    assert key.startswith("teacher.std[")


def test_a_wrong_name_of_a_teacher_is_no_name_of_another(folder: Path) -> None:
    more = "[[teachers]]\ntorchvision = 'resnet18'\nname = {}\n"
    assert set(problems(folder, GOOD + FOREIGN + more.format("'a b'"))) == {"teachers[0].name"}
    both = more.format("'a b'") + more.format("'two'") + more.format("'two'")
    assert set(problems(folder, GOOD + FOREIGN + both)) == {f"teachers[{i}].name" for i in range(3)}
    assert set(problems(folder, GOOD + FOREIGN + more.format("'teacher'"))) == {
        "teacher.name",
        "teachers[0].name",
    }


def test_a_file_that_no_line_of_is_wrong_names_none(folder: Path) -> None:
    (folder / "space.py").write_bytes(b"def joint(trial): ...\n\0")
    assert "None" not in problems(folder, GOOD)["space"]


def test_a_key_of_the_file_below_a_table_is_not_taken_for_one_of_another_table(tmp_path: Path) -> None:
    """`epochs` is a key of the file, and of [retrain]: that it is meant there is a guess."""
    study = tmp_path / "study.toml"
    study.write_text('name = "s"\nspace = "space.py:joint"\n[limits]\nepochs = 3\n')
    with pytest.raises(StudyFileError) as caught:
        parse_study(study)
    problem = next(p for p in caught.value.problems if p.key == "limits.epochs")
    assert problem.hint == "'epochs' belongs above the first [table]"
