"""A name and the options of its card, in a study file and in Python."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from naskd.spec.datasets import DataSpec
from naskd.spec.errors import UnknownNameError
from naskd.spec.identity import identity_difference
from naskd.spec.option import Option, canonical_options, option_problems
from naskd.spec.parse import StudyFileError, parse_study
from naskd.spec.samplers import SAMPLERS, SamplerCard
from naskd.spec.study import ExecutionSpec, SamplerSpec, StoppingSpec, StudySpec
from naskd.spec.tables import spec_problems

HEAD = 'name = "one"\nspace = "space.py:joint"\n'
TAIL = "[data]\nkind = 'digits'\n[budget]\ntrials = 3\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "space.py").write_text("def joint(trial): ...\n")
    return tmp_path


def parse(folder: Path, text: str, *settings: str) -> StudySpec:
    (folder / "study.toml").write_text(HEAD + text)
    return parse_study(folder / "study.toml", settings)


def problems(folder: Path, text: str, *settings: str) -> dict[str, str]:
    with pytest.raises(StudyFileError) as caught:
        parse(folder, text, *settings)
    found = {problem.key: str(problem) for problem in caught.value.problems}
    assert len(found) == len(caught.value.problems), "each key is reported once"
    return found


class TestOptionsOfACard:
    def test_are_keys_of_the_table_and_hold_their_default_where_they_are_left_out(self, folder: Path) -> None:
        spec = parse(folder, TAIL + "[sampler]\nmultivariate = false\nstartup_trials = 10\n")
        assert spec.sampler == SamplerSpec("tpe", (("multivariate", False),)), (
            "what is at its default is left out"
        )
        assert spec.sampler.option("multivariate") is False
        assert spec.sampler.settings() == {"startup_trials": 10, "multivariate": False}

    def test_are_in_the_order_of_their_names_and_of_their_own_type(self, folder: Path) -> None:
        execution = "[execution]\nexecutor = 'ray'\ndevice = 'cpu'\nworkers = 2\ncpus_per_trial = 1\n"
        spec = parse(folder, TAIL + execution)
        assert spec.execution.options == (("cpus_per_trial", 1.0), ("workers", 2))
        assert isinstance(spec.execution.option("cpus_per_trial"), float)
        assert spec.execution.option("gpus_per_trial") is None
        assert spec.execution.device == "cpu"
        assert StudySpec.from_dict(spec.to_dict()) == spec

    @pytest.mark.parametrize(
        ("table", "key", "says"),
        [
            ("sampler]\nstartup_trials = 0", "sampler.startup_trials", "allowed: a whole number at least 1"),
            ("sampler]\nstartup_trials = 2.0", "sampler.startup_trials", "got 2.0; allowed: a whole number"),
            ("sampler]\nmultivariate = 1", "sampler.multivariate", "allowed: true or false"),
            ("sampler]\nstartup_trails = 3", "sampler.startup_trails", "did you mean 'startup_trials'?"),
            ("sampler]\noptions = []", "sampler.options", "allowed: the keys name, startup_trials, multivariate"),
            ("sampler]\nname = 'random'\npopulation_size = 3", "sampler.population_size", "'nsga2' or 'nsga3'"),
            ("stopping]\nname = 'non'", "stopping.name", "did you mean 'none'?"),
            ("stopping]\nmin_epochs = 3", "stopping.min_epochs", "allowed: only with 'front' or 'mo_asha'"),
            ("execution]\naddress = 'x'", "execution.address", "only with 'ray'"),
            ("execution]\nexecutor = 'processes'\naddress = 'x'", "execution.address", "only with 'ray'"),
            ("execution]\nworkers = 2", "execution.workers", "only with 'processes', 'ray' or 'replay'"),
            ("execution]\nexecutor = 'ray'\nmps = true", "execution.mps", "only with 'processes'"),
            ("execution]\nexecutor = 'ray'\ngpus_per_trial = 1.5", "execution.gpus_per_trial", "at most 1"),
            ("execution]\nexecutor = 'ray'\ngpus_per_trial = -1", "execution.gpus_per_trial", "at least 0"),
            ("execution]\nexecutor = 'ray'\ncpus_per_trial = 0", "execution.cpus_per_trial", "above 0"),
            ("execution]\nexecutor = 'ray'\ncpus_per_trial = inf", "execution.cpus_per_trial", "a number"),
            (
                "execution]\nexecutor = 'processes'\ndevice = 'cpu'\nworkers = 3\ntrials_per_device = 2",
                "execution.workers",
                "at most execution.trials_per_device = 2: the CPU is one device",
            ),
            ("execution]\ncallbacks = ['tensorbord']", "execution.callbacks[0]", "did you mean 'tensorboard'?"),
        ],
    )  # fmt: skip
    def test_a_mistake_is_the_only_problem_reported(
        self, folder: Path, table: str, key: str, says: str
    ) -> None:
        found = problems(folder, f"{TAIL}[{table}\n")
        assert list(found) == [key]
        assert says in found[key]

    def test_of_a_name_that_is_wrong_only_those_that_nobody_reads_are_reported(self, folder: Path) -> None:
        table = "[sampler]\nname = 'tpee'\npopulation_size = 'x'\npopulation = 3\n"
        assert set(problems(folder, TAIL + table)) == {"sampler.name", "sampler.population"}
        assert set(problems(folder, TAIL + "[sampler]\nname = 3\npopulation_size = 3\n")) == {"sampler.name"}

    def test_a_key_at_the_wrong_place_is_led_to_its_table(self, folder: Path) -> None:
        assert (
            "did you mean sampler.population_size?"
            in problems(folder, "population_size = 3\n" + TAIL)["population_size"]
        )
        assert (
            "did you mean budget.trials?"
            in problems(folder, TAIL + "[execution]\ntrials = 3\n")["execution.trials"]
        )

    def test_the_command_line_is_held_to_the_same(self, folder: Path) -> None:
        found = problems(folder, TAIL, "execution.workers=2")
        assert list(found) == ["execution.workers"]

    def test_a_missing_kind_lists_those_that_are_known(self, folder: Path) -> None:
        found = problems(folder, TAIL.replace("kind = 'digits'", "max_train = 20"))
        assert found == {
            "data.kind": 'data.kind: got nothing; allowed: "digits", "cifar10", "image_folder", "torchvision", "npz", '
            '"csv", "parquet", "huggingface", "webdataset" or "python"'
        }


class TestModules:
    CODE = """
from naskd.spec.datasets import DATASETS, DataCard
from naskd.spec.executors import EXECUTORS, ExecutorCard
from naskd.spec.loggers import LOGGERS, LoggerCard
from naskd.spec.option import Option
from naskd.spec.samplers import SAMPLERS, SamplerCard
from naskd.spec.stopping import STOPPING_RULES, StoppingCard

SAMPLERS.register(SamplerCard("mine", "", "", "x:y", {"kept": Option(0.5, "share", low=0.0, high=1.0)}))
STOPPING_RULES.register(StoppingCard("early", "", "", "x:y", {"patience": Option(3, "epochs", low=1)}))
EXECUTORS.register(ExecutorCard("farm", "", "", "x:y", {"queue": Option(None, "name", kind=str, pattern="[a-z]+")}))
LOGGERS.register(LoggerCard("paper", "", "", "x:y"))
DATASETS.register(DataCard("arrays", "", "", "x:y", {"file": Option(None, "an .npz", kind=str, required=True)}))
"""
    NAMES = """modules = ["mine.py"]
[data]
kind = "arrays"
file = "a.npz"
[budget]
trials = 3
[sampler]
name = "mine"
kept = 0.25
[stopping]
name = "early"
patience = 5
[execution]
executor = "farm"
queue = "night"
callbacks = ["paper"]
"""

    def run(self, folder: Path, code: str) -> str:
        """In a process of its own: what a module registers stays."""
        (folder / "mine.py").write_text(self.CODE)
        (folder / "study.toml").write_text(HEAD + self.NAMES)
        head = "from pathlib import Path\nfrom naskd.spec.parse import parse_study\nimport sys\n"
        command = [sys.executable, "-c", head + code]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def test_are_imported_before_any_name_is_looked_up_and_torch_is_not(self, folder: Path) -> None:
        out = self.run(
            folder,
            "spec = parse_study(Path('study.toml'))\n"
            "print(spec.data.option('file'), spec.sampler.options, spec.stopping.options, spec.execution.options)\n"
            "assert spec.identity()['stopping'] == {'name': 'early', 'patience': 5}\n"
            "assert not {'torch', 'optuna', 'ray'} & set(sys.modules)\n",
        )
        assert out == "a.npz (('kept', 0.25),) (('patience', 5),) (('queue', 'night'),)\n"

    def test_their_options_are_checked_with_all_others(self, folder: Path) -> None:
        settings = [
            "sampler.kept=2",
            "stopping.patience=0",
            "execution.queue='N'",
            "data.file=3",
            "epochs=0",
        ]
        out = self.run(
            folder,
            f"try: parse_study(Path('study.toml'), {settings!r})\n"
            "except ValueError as error: print(error)\n"
            "text = Path('study.toml').read_text()\n"
            "Path('study.toml').write_text(text.replace('file = \"a.npz\"', ''))\n"
            "try: parse_study(Path('study.toml'))\n"
            "except ValueError as error: print(error)\n",
        )
        for line in (
            "4 problems",
            "epochs: got 0",
            "sampler.kept: got 2; allowed: a number in [0, 1]",
            "stopping.patience: got 0; allowed: a whole number at least 1",
            'execution.queue: got "N"; allowed: a string of the form [a-z]+',
            "1 problem\n  data.file: got nothing; allowed: a string: an .npz",
        ):
            assert line in out

    def test_one_that_cannot_be_imported_is_one_problem_with_its_line(self, folder: Path) -> None:
        (folder / "broken.py").write_text("x = 1\ny = x / 0\n")
        found = problems(folder, "modules = ['broken.py']\nepochs = 0\n" + TAIL)
        assert set(found) == {"modules[0]", "epochs"}
        assert "broken.py:2: cannot be imported: ZeroDivisionError" in found["modules[0]"]


class TestInPython:
    def test_names_are_looked_up_late(self) -> None:
        assert DataSpec("of_a_module").kind == "of_a_module"
        spec = SamplerSpec("of_a_module", (("b", 1), ("a", 2)))
        assert spec.options == (("a", 2), ("b", 1))
        with pytest.raises(UnknownNameError, match="unknown sampler 'of_a_module'"):
            spec.option("a")

    def test_another_executor_reads_its_own_options(self) -> None:
        assert ExecutionSpec().settings("processes") == {
            "workers": None, "trials_per_device": None, "mps": True
        }  # fmt: skip

    def test_a_study_from_no_file_is_checked_by_the_cards_too(self, folder: Path) -> None:
        spec = parse(folder, TAIL)
        assert spec_problems(spec) == []
        wrong = replace(
            spec,
            data=DataSpec("image_folder", root="nowhere"),
            sampler=SamplerSpec("tpe", (("startup_trials", 0),)),
            stopping=StoppingSpec("never"),
            execution=ExecutionSpec("serial", options=(("workers", 2),), callbacks=("x",)),
        )
        found = "\n".join(spec_problems(wrong))
        for part in (
            "option 'startup_trials' of sampler 'tpe' is 0; allowed: finite and at least 1",
            "executor 'serial' has no option 'workers'",
            'stopping.name: got "never"',
            'execution.callbacks[0]: got "x"',
        ):
            assert part in found
        assert "an existing folder" in spec_problems(replace(spec, data=wrong.data))[0]

    def test_who_must_know_costs_before_training_is_told_by_the_file_alone(self, folder: Path) -> None:
        """With all other mistakes, and of a study from no file likewise."""
        late = "objectives = ['val_accuracy', 'macs', 'train_macs']\n" + TAIL
        chosen = "[sampler]\nname = 'ehvi'\n[stopping]\nname = 'mo_asha'\n"
        found = problems(folder, "epochs = 0\n" + late + chosen)
        assert set(found) == {"epochs", "sampler.name", "stopping.name"}
        assert found["sampler.name"].startswith(
            "sampler.name: got \"ehvi\"; allowed: 'tpe', 'nsga2', 'nsga3', 'gp', 'random', 'akd' or 'n2n': this one "
            "needs objectives that are known before training, and train_macs is not"
        )
        assert "allowed: 'none': this one" in found["stopping.name"]
        spec = replace(parse(folder, late), sampler=SamplerSpec("ehvi"), stopping=StoppingSpec("mo_asha"))
        assert spec_problems(spec) == [found["sampler.name"], found["stopping.name"]]

    def test_the_identity_has_options_beside_the_name(self, folder: Path) -> None:
        plain = parse(folder, TAIL).identity()
        assert plain["sampler"] == {"name": "tpe"}
        assert "stopping" not in plain
        changed = parse(
            folder, TAIL, "sampler.startup_trials=20", "execution.executor=processes", "execution.workers=2"
        )
        assert identity_difference(plain, changed.identity()) == ["sampler.startup_trials: 10 -> 20"]


class TestAnotherMethodBySet:
    STUDY = TAIL + "[sampler]\nname = 'ehvi'\nstartup_trials = 8\n"

    @pytest.mark.parametrize("name", ["random", "nsga2", "nsga3"])
    def test_leaves_out_the_options_of_the_one_in_the_file(self, folder: Path, name: str) -> None:
        assert parse(folder, self.STUDY, f"sampler.name={name}").sampler == SamplerSpec(name)

    def test_keeps_those_that_both_read(self, folder: Path) -> None:
        wanted = SamplerSpec("tpe", (("startup_trials", 8),))
        assert parse(folder, self.STUDY, "sampler.name=tpe").sampler == wanted

    def test_refuses_what_is_set_beside_it_and_what_no_method_reads(self, folder: Path) -> None:
        found = problems(folder, self.STUDY, "sampler.name=random", "sampler.startup_trials=4")
        assert "only with" in found["sampler.startup_trials"]
        assert "sampler.no_such" in problems(folder, self.STUDY + "no_such = 3\n", "sampler.name=random")
        # The file's own mistake is not hidden: the method that it names does not read that option.
        found = problems(folder, self.STUDY + "population_size = 9\n", "sampler.name=random")
        assert "only with" in found["sampler.population_size"]

    def test_holds_for_every_table_that_names_a_method(self, folder: Path) -> None:
        study = TAIL + "[execution]\nexecutor = 'ray'\naddress = 'auto'\nworkers = 3\n"
        study += "[stopping]\nname = 'front'\nmin_epochs = 2\n"
        spec = parse(folder, study, "execution.executor=processes", "stopping.name=none")
        assert spec.execution.options == (("workers", 3),)
        assert spec.stopping == StoppingSpec("none")


class TestOption:
    def test_without_a_default_it_states_its_kind(self) -> None:
        with pytest.raises(TypeError, match="must state its kind"):
            Option(None, "which")
        with pytest.raises(TypeError, match="must be of its kind"):
            Option(1, "which", kind=float)
        assert Option(None, "which", kind=float).problem(3) == ""
        assert Option(None, "which", kind=float).problem("3") == "is '3'; allowed: float"

    def test_bounds_patterns_and_choices(self) -> None:
        share = Option(0.5, "", above=0, high=1)
        assert [share.fits(value) for value in (0, 0.0, 0.1, 1, 1.5, float("nan"), True, "1")] == [
            False, False, True, True, False, False, False, False
        ]  # fmt: skip
        assert share.allowed == "a number in (0, 1]"
        assert Option("a", "", choices=("a", "b")).allowed == '"a" or "b"'
        name = Option("ab", "", pattern="[a-z]+")
        assert (name.fits("xyz"), name.fits("x1"), name.fits("x\n")) == (True, False, False)
        assert "of the form [a-z]+" in name.problem("x1")

    def test_what_is_required_is_missed(self) -> None:
        known = {"file": Option(None, "where", kind=str, required=True)}
        assert option_problems(known, (), "data 'x'") == ["data 'x' needs option 'file': where"]
        assert option_problems(known, (("file", "a"),), "data 'x'") == []
        assert canonical_options(known, (("file", "a"),)) == (("file", "a"),)


def test_every_option_of_a_shipped_card_says_what_it_means() -> None:
    assert isinstance(SAMPLERS["tpe"], SamplerCard)
    for spec in (DataSpec, SamplerSpec, StoppingSpec, ExecutionSpec):
        for card in spec.CARDS:
            assert card.title
            assert all(option.meaning for option in card.options.values())
