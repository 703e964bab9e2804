import ast
import math
import re
import time
import tomllib
import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import optuna
import pytest
import torch
from optuna.distributions import BaseDistribution

from naskd.knowledge import KNOWLEDGE
from naskd.networks import BLOCKS, FAMILIES
from naskd.networks.fields import receptive_fields
from naskd.networks.simplified import problems as start_problems
from naskd.networks.student import build_student, design_cost
from naskd.nn.cost import network_cost
from naskd.nn.merging import merged
from naskd.schemes import SCHEMES
from naskd.spaces import (
    BlockChoice,
    KnowledgeChoice,
    StageChoice,
    Trial,
    canonical,
    resnet_like,
    suggest_architecture,
    suggest_chain,
    suggest_distillation,
    suggest_simplified,
    suggest_training,
    suggest_transformer,
)
from naskd.spec.design import (
    ArchitectureSpec,
    AssistantSpec,
    DistillationSpec,
    KnowledgeTerm,
    StageSpec,
    TrainingSpec,
    TrialConfig,
)
from naskd.spec.errors import InputError
from naskd.spec.userfile import import_file
from naskd.teachings import TEACHINGS

ROOT = Path(__file__).parents[1]
FILES = ["digits", "cifar", "from_teacher", "integers", "blocks", "images_96", "images_224", "small"]
FUNCTIONS = ["joint", "architecture_only", "distillation_only"]
N = 300

Space = Callable[[Trial], TrialConfig]


def load(name: str) -> ModuleType:
    return import_file(ROOT / "search_spaces" / f"{name}.py")


def draws(space: Space, n: int = N) -> Iterator[tuple[optuna.Trial, TrialConfig]]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for _ in range(n):
        trial = study.ask()
        yield trial, space(trial)


@cache
def sample(file: str, function: str) -> list[tuple[optuna.Trial, TrialConfig]]:
    return list(draws(getattr(load(file), function)))


def distributions(space: Space) -> dict[str, BaseDistribution]:
    return next(draws(space, 1))[0].distributions


def fixed(space: Space, params: dict[str, Any]) -> TrialConfig:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Optuna warns of a value outside a parameter's range
        return space(optuna.trial.FixedTrial(params))


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("file", FILES)
class TestEverySpace:
    def test_every_trial_suggests_the_same_parameters_with_the_same_ranges(
        self, file: str, function: str
    ) -> None:
        space = getattr(load(file), function)
        first = distributions(space)
        assert len(first) >= 10 or function == "distillation_only"
        assert all(trial.distributions == first for trial, _ in sample(file, function))

    def test_names_have_no_slash(self, file: str, function: str) -> None:
        assert not [name for name in distributions(getattr(load(file), function)) if "/" in name]

    def test_designs_are_canonical_and_survive_json(self, file: str, function: str) -> None:
        for _, config in sample(file, function):
            assert canonical(config) == config
            assert canonical(config, knowledge=KNOWLEDGE, blocks=BLOCKS) == config, (
                "the space knows what its blocks and losses read"
            )
            assert TrialConfig.from_dict(config.to_dict()) == config

    def test_designs_name_registered_methods_that_work(self, file: str, function: str) -> None:
        for _, config in sample(file, function)[:100]:
            for stage in config.architecture.stages:
                assert stage.block in BLOCKS
            stages, batch = len(config.architecture.stages), config.training.batch_size
            for term in config.distillation.terms:
                assert KNOWLEDGE[term.kind].problems(term, n_stages=stages, batch_size=batch) == []

    def test_equal_values_give_equal_designs(self, file: str, function: str) -> None:
        space = getattr(load(file), function)
        for trial, config in sample(file, function)[:50]:
            assert fixed(space, trial.params) == config
            assert fixed(space, trial.params).config_id == config.config_id

    def test_active_values_give_different_designs(self, file: str, function: str) -> None:
        ids = [config.config_id for _, config in sample(file, function)]
        # A learning rate has three digits: without distillation two students of one architecture may be one.
        assert len(set(ids)) > 0.9 * N

    def test_is_fast(self, file: str, function: str) -> None:
        space = getattr(load(file), function)
        params = next(draws(space, 1))[0].params
        fastest = math.inf
        for _ in range(20):  # the minimum is not disturbed by whatever else the machine does
            start = time.perf_counter()
            space(Replay(params))
            fastest = min(fastest, time.perf_counter() - start)
        assert fastest < 1e-3

    def test_without_distillation_there_is_no_teacher(self, file: str, function: str) -> None:
        taught = [bool(config.distillation.terms) for _, config in sample(file, function)]
        if function == "architecture_only":
            assert not any(taught)
        else:
            assert 0 < sum(not t for t in taught) < 0.5 * N, "none is a choice among others"


class Replay:
    """Given values, without Optuna's own time."""

    def __init__(self, params: dict[str, Any]) -> None:
        self.params = params

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        return int(self.params[name])

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        return float(self.params[name])

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        return self.params[name]


@pytest.mark.parametrize("file", FILES)
class TestFile:
    def test_joint_is_the_union_of_its_parts_with_equal_ranges(self, file: str) -> None:
        module = load(file)
        architecture, distillation = (
            distributions(module.architecture_only),
            distributions(module.distillation_only),
        )
        assert {**architecture, **distillation} == distributions(module.joint)
        assert {**distillation, **architecture} == distributions(module.joint)
        assert set(architecture) & set(distillation) == {"train.adamw.learning_rate"}

    def test_imports_nothing_heavy(self, file: str) -> None:
        tree = ast.parse((ROOT / "search_spaces" / f"{file}.py").read_text())
        modules = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        assert modules <= {"naskd.config", "naskd.spaces", "dataclasses"}
        assert not [n for n in ast.walk(tree) if isinstance(n, ast.Import)]

    def test_everything_that_its_preset_offers_occurs(self, file: str) -> None:
        module = load(file)
        preset = TEACHINGS[module.TEACHING]
        configs = [config for _, config in sample(file, "distillation_only")]
        found = {frozenset(term.kind for term in c.distillation.terms) for c in configs}
        responses = [{response.kind} for response in preset.responses]
        features = [{feature.kind} for feature in preset.features]
        assert found == {frozenset(a | b) for a in [set(), *responses] for b in [set(), *features]}
        taught = [c.distillation for c in configs if c.distillation.terms]
        assert {d.teacher_state for d in taught} == {1.0, *preset.states}
        assert not any(d.assistants for d in taught), "an assistant has a training of its own to pay"

    def test_the_student_of_distillation_only_can_be_chosen(self, file: str) -> None:
        module = load(file)
        student = ArchitectureSpec((StageSpec("basic", 1, 8),))
        space = module.make_distillation_only(student)
        assert all(config.architecture == student for _, config in draws(space, 20))
        assert distributions(space) == distributions(module.distillation_only)

    def test_span_of_macs(self, file: str) -> None:
        channels, resolution, low, high = {
            "digits": (1, 8, 1e4, 1e6),
            "cifar": (3, 32, 3e5, 4e7),
            "from_teacher": (3, 32, 8e5, 6e6),
            "integers": (1, 8, 1e4, 1e6),
            "blocks": (3, 32, 3e5, 4e7),
            "images_96": (3, 96, 1e6, 1.5e8),
            "images_224": (3, 224, 1e7, 1e9),
            "small": (3, 32, 3e6, 1e8),
        }[file]
        module = load(file)
        macs = sorted(
            design_cost(c.architecture, channels, 10, resolution).macs
            for _, c in sample(file, "architecture_only")
        )
        assert macs[N // 20] < low, "the cheap end"
        assert macs[-N // 50] > high, "the rich end"
        medium = design_cost(module.MEDIUM, channels, 10, resolution).macs
        assert macs[N // 4] < medium < macs[3 * N // 4 + N // 10]
        if file == "digits":
            assert 2 * medium < design_cost(module.ASSISTANT.architecture, channels, 10, resolution).macs


class TestInactiveParameters:
    @pytest.mark.parametrize(
        ("active", "inactive"),
        [
            ({"stages": 1}, {"stage2.width": 40, "stage2.depth": 2, "stage2.stride": 2, "stage3.width": 60}),
            ({"stages": 2}, {"stage3.bits": 4}),
            (
                {"block": "basic"},
                {"block.bottleneck.expansion": 0.5, "block.inverted_residual.expansion": 4.0},
            ),
            ({"block": "bottleneck"}, {"block.inverted_residual.squeeze_excitation": True}),
            ({"kd.response": "none"}, {"kd.share": 0.3, "kd.temperature": 5.0}),
            ({"kd.feature": "none"}, {"kd.hint.weight": 2.9}),
        ],
    )
    def test_changing_them_changes_no_design(self, active: dict[str, Any], inactive: dict[str, Any]) -> None:
        for file in FILES:
            space = load(file).joint
            known = distributions(space)
            if not {*active, *inactive} <= set(known):
                continue  # a constant there
            if any(value not in getattr(known[name], "choices", (value,)) for name, value in active.items()):
                continue
            for trial, _ in draws(space, 20):
                params = {**trial.params, **active}
                changed = {**params, **inactive}
                assert fixed(space, params).config_id == fixed(space, changed).config_id

    @pytest.mark.parametrize(
        ("active", "change"),
        [
            ({"stages": 2}, {"stage2.width": 40}),
            ({"block": "bottleneck"}, {"block.bottleneck.expansion": 0.5}),
            ({"block": "inverted_residual"}, {"block.inverted_residual.squeeze_excitation": True}),
            ({"kd.response": "logits"}, {"kd.temperature": 5.5}),
            ({"kd.response": "logits"}, {"kd.share": 0.7}),
            ({"kd.response": "dist"}, {"kd.share": 0.2}),
        ],
    )
    def test_they_matter_when_active(self, active: dict[str, Any], change: dict[str, Any]) -> None:
        space = load("digits").joint
        bases = [{**trial.params, **active} for trial, _ in draws(space, 20)]
        assert any(fixed(space, base) != fixed(space, {**base, **change}) for base in bases)


def design(
    *terms: KnowledgeTerm, stages: tuple[StageSpec, ...] = (StageSpec("basic", 1, 8),) * 3
) -> TrialConfig:
    return TrialConfig(ArchitectureSpec(stages), DistillationSpec(terms))


class TestCanonical:
    def test_with_cards_settings_that_are_not_read_are_reset(self) -> None:
        config = design(
            KnowledgeTerm("rkd", temperature=2.0, pairs="all"),
            KnowledgeTerm("hint", temperature=2.0, pairs="all"),
            KnowledgeTerm("logits", temperature=2.0, pairs="all"),
            stages=(
                StageSpec("basic", 1, 8, expansion=3.0, squeeze_excitation=True),
                StageSpec("bottleneck", 1, 8, expansion=0.5, squeeze_excitation=True),
                StageSpec("inverted_residual", 1, 8, expansion=2.0, squeeze_excitation=True),
            ),
        )
        found = canonical(config, knowledge=KNOWLEDGE, blocks=BLOCKS)
        assert found.distillation.terms == (
            KnowledgeTerm("hint", pairs="all"),
            KnowledgeTerm("logits", temperature=2.0),
            KnowledgeTerm("rkd"),
        )
        assert found.architecture.stages == (
            StageSpec("basic", 1, 8),
            StageSpec("bottleneck", 1, 8, expansion=0.5),
            StageSpec("inverted_residual", 1, 8, expansion=2.0, squeeze_excitation=True),
        )

    @pytest.mark.parametrize("n_stages", [1, 2, 3, 4])
    def test_equal_pairs_are_written_equally(self, n_stages: int) -> None:
        from naskd.knowledge.pairing import pair_stages
        from naskd.nn.taps import TapShape, TapShapes

        shapes = TapShapes(
            10,
            tuple(TapShape(8, (2 ** (6 - i),) * 2, "map", (i + 1) / n_stages) for i in range(n_stages)),
            (),
            8,
        )
        stages = (StageSpec("basic", 1, 8),) * n_stages
        meant, written = {}, {}
        for pairs in ("first", "middle", "last", "all"):
            config = canonical(design(KnowledgeTerm("hint", pairs=pairs), stages=stages))
            meant[pairs] = pair_stages(shapes, shapes, pairs)
            written[pairs] = config.config_id
        assert all((meant[a] == meant[b]) == (written[a] == written[b]) for a in meant for b in meant)

    def test_unknown_names_are_left_for_others_to_report(self) -> None:
        config = design(
            KnowledgeTerm("mine", temperature=2.0), stages=(StageSpec("my_block", 1, 8, expansion=3.0),)
        )
        assert canonical(config, knowledge=KNOWLEDGE, blocks=BLOCKS) == config


def test_the_documented_example_runs(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "guides" / "own-space.md").read_text()
    (tmp_path / "space.py").write_text(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0])
    space = import_file(tmp_path / "space.py").joint
    assert len({config.config_id for _, config in draws(space, 10)}) == 10


class TestParts:
    def test_weight_zero_is_no_distillation(self) -> None:
        kinds = [KnowledgeChoice("rkd", weight=(0.0, 0.0))]
        taught = [c.distillation for _, c in draws(lambda t: design_with(suggest_distillation(t, kinds)), 20)]
        assert set(taught) == {DistillationSpec()}

    def test_own_block_for_each_stage(self) -> None:
        def space(trial: Trial) -> TrialConfig:
            return TrialConfig(
                suggest_architecture(
                    trial,
                    [StageChoice((8, 8), depth=(1, 1)), StageChoice((8, 64), multiple=8)],
                    blocks=[BlockChoice("basic"), BlockChoice("inverted_residual", (2.0, 4.0), True)],
                    kernels=(3, 5, 7),
                    shared_block=False,
                )
            )

        assert set(distributions(space)) == {
            "stem.width",
            "stage2.width",
            "stage2.depth",
            *(
                f"stage{i}.{n}"
                for i in (1, 2)
                for n in (
                    "block",
                    "kernel",
                    "block.inverted_residual.expansion",
                    "block.inverted_residual.squeeze_excitation",
                )
            ),
        }
        designs = [config.architecture for _, config in draws(space)]
        assert all(len(d.stages) == 2 and d.stages[1].width % 8 == 0 for d in designs)
        assert {d.stages[1].width for d in designs} == set(range(8, 72, 8))
        assert any(d.stages[0].block != d.stages[1].block for d in designs)
        assert all(
            s.expansion == 1.0 and not s.squeeze_excitation
            for d in designs
            for s in d.stages
            if s.block == "basic"
        )

    def test_training_has_one_learning_rate_for_each_optimizer(self) -> None:
        def space(trial: Trial) -> TrialConfig:
            training = suggest_training(
                trial,
                TrainingSpec(epochs=7),
                learning_rates={"adamw": (1e-3, 1e-2), "sgd": (0.05, 0.5)},
                weight_decay=(1e-4, 1e-1),
                batch_sizes=(32, 64),
                augmentations=("none", "flip"),
            )
            return TrialConfig(ArchitectureSpec((StageSpec("basic", 1, 8),)), training=training)

        for _, config in draws(space, 50):
            training = config.training
            assert training.epochs == 7
            assert (training.learning_rate >= 0.05) == (training.optimizer == "sgd")
        assert len({(c.training.batch_size, c.training.augmentation) for _, c in draws(space, 50)}) == 4

    def test_values_stay_in_their_range_with_three_digits(self) -> None:
        kinds = [KnowledgeChoice("logits", weight=(0.1, 10.0), temperature=(1.0, 8.0), weighting="paper")]
        for _, config in draws(lambda t: design_with(suggest_distillation(t, kinds)), 200):
            for term in config.distillation.terms:
                assert 0.1 <= term.weight <= 10
                assert 1 <= term.temperature <= 8
                assert float(f"{term.weight:.3g}") == term.weight
                assert term.weighting == "paper"

    def test_assistants_by_name(self) -> None:
        small, large = (AssistantSpec(ArchitectureSpec((StageSpec("basic", 1, w),))) for w in (8, 16))
        kinds = [KnowledgeChoice("rkd")]

        def space(trial: Trial) -> TrialConfig:
            return design_with(
                suggest_distillation(trial, kinds, assistants={"small": small, "large": large})
            )

        params = {"kd.rkd.use": True, "kd.rkd.weight": 1.0}
        chains = {
            name: fixed(space, {**params, "kd.assistant": name}).distillation.assistants
            for name in ("none", "small", "large")
        }
        assert chains == {"none": (), "small": (small,), "large": (large,)}


def design_with(distillation: DistillationSpec) -> TrialConfig:
    return TrialConfig(ArchitectureSpec((StageSpec("basic", 1, 8),)), distillation)


class TestSlots:
    KINDS = (
        KnowledgeChoice("logits", temperature=(2.0, 4.0)),
        KnowledgeChoice("hint", pairs=("all", "learned")),
        KnowledgeChoice("label_smoothing", weight=(1.0, 1.0), ranges=(("epsilon", (0.05, 0.2)),)),
        KnowledgeChoice("rkd", weight=(0.5, 20.0)),
    )

    def teach(self, trial: Trial) -> DistillationSpec:
        return suggest_distillation(trial, self.KINDS, slots=2)

    def test_parameters_do_not_depend_on_what_is_chosen(self) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        seen = set()
        trials = [study.ask() for _ in range(200)]
        for trial in trials:
            spec = self.teach(trial)
            seen.add(tuple(term.kind for term in spec.terms))
            assert len(spec.terms) <= 2
            for term in spec.terms:
                choice = next(c for c in self.KINDS if c.kind == term.kind)
                assert choice.weight[0] <= term.weight <= choice.weight[1]
                assert choice.temperature is None or (
                    choice.temperature[0] <= term.temperature <= choice.temperature[1]
                )
                assert term.pairs in choice.pairs
        assert all(trial.distributions == trials[0].distributions for trial in trials)
        names = {"none", *(choice.kind for choice in self.KINDS)}
        assert set(trials[0].distributions["kd.1.kind"].choices) == names
        # 1 without, 4 alone, 6 pairs
        assert len(seen) == 11

    def test_a_kind_twice_is_once_and_the_first_slot_speaks(self) -> None:
        params = {
            **{"kd.1.kind": "rkd", "kd.1.weight": 2.0, "kd.1.pairs": "all", "kd.1.temperature": 3.0},
            **{"kd.2.kind": "rkd", "kd.2.weight": 9.0, "kd.2.pairs": "last", "kd.2.temperature": 2.5},
            "kd.label_smoothing.epsilon": 0.1,
        }
        (term,) = self.teach(optuna.trial.FixedTrial(params)).terms
        assert (term.kind, term.weight, term.pairs) == ("rkd", 2.0, "last")

    def test_a_searched_option_reaches_the_term(self) -> None:
        params = {
            **{"kd.1.kind": "none", "kd.1.weight": 2.0, "kd.1.pairs": "all", "kd.1.temperature": 3.0},
            **{"kd.2.kind": "label_smoothing", "kd.2.weight": 9.0, "kd.2.pairs": "all"},
            **{"kd.2.temperature": 2.5, "kd.label_smoothing.epsilon": 0.12},
        }
        (term,) = self.teach(optuna.trial.FixedTrial(params)).terms
        assert (term.weight, term.options) == (1.0, (("epsilon", 0.12),))


class TestSchemeOptions:
    KINDS = (KnowledgeChoice("logits", temperature=(2.0, 4.0)),)
    SCHEMES = ("offline", "rco", "parameter_sharing")
    OPTIONS: ClassVar = {
        "rco": {"anchors": (2, 8)},
        "parameter_sharing": {"hint": (0.01, 0.1), "depth": (1, 2, 4)},
    }

    def teach(self, trial: Trial, **changes: Any) -> DistillationSpec:
        given = {"schemes": self.SCHEMES, "scheme_options": self.OPTIONS} | changes
        return suggest_distillation(trial, self.KINDS, **given)

    def trials(self, n: int = 50, **changes: Any) -> list[tuple[optuna.Trial, DistillationSpec]]:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        return [(trial, self.teach(trial, **changes)) for trial in (study.ask() for _ in range(n))]

    def test_they_are_suggested_always_and_kept_for_their_scheme(self) -> None:
        found = self.trials()
        assert all(trial.distributions == found[0][0].distributions for trial, _ in found)
        assert {spec.scheme for _, spec in found} == set(self.SCHEMES)
        for trial, spec in found:
            expected = self.OPTIONS.get(spec.scheme, {})
            assert dict(spec.scheme_options).keys() == expected.keys()
            for name, value in spec.scheme_options:
                assert value == pytest.approx(trial.params[f"kd.{spec.scheme}.{name}"], rel=1e-2)
            assert not SCHEMES[spec.scheme].problems(spec, n_stages=2)

    def test_ranges_and_choices(self) -> None:
        distributions = self.trials(1)[0][0].distributions
        anchors, hint = distributions["kd.rco.anchors"], distributions["kd.parameter_sharing.hint"]
        assert (anchors.low, anchors.high, anchors.log) == (2, 8, False)
        assert (hint.low, hint.high, hint.log) == (0.01, 0.1, True)
        assert distributions["kd.parameter_sharing.depth"].choices == (1, 2, 4)

    def test_a_scheme_that_stands_alone_gets_no_terms(self) -> None:
        found = self.trials(alone=("rco",), ce_weight=0.3)
        assert all(trial.distributions == found[0][0].distributions for trial, _ in found)
        taught = {scheme: [spec for _, spec in found if spec.scheme == scheme] for scheme in self.SCHEMES}
        assert not any(spec.terms for spec in taught["rco"])
        assert all(any(spec.terms for spec in taught[name]) for name in ("offline", "parameter_sharing"))

    def test_without_them_a_space_is_what_it_was(self) -> None:
        ((trial, spec),) = self.trials(1, scheme_options=None)
        names = ["kd.logits.use", "kd.logits.weight", "kd.logits.temperature", "kd.scheme"]
        assert list(trial.distributions) == names
        assert spec.scheme_options == ()

    def test_what_cannot_be_meant_is_refused(self) -> None:
        with pytest.raises(InputError, match="names 'rcoo'; the schemes to choose from are offline, rco"):
            self.trials(1, scheme_options={"rcoo": {"anchors": (2, 8)}})
        with pytest.raises(
            InputError, match="alone names 'dafl'; the schemes to choose from are offline, rco"
        ):
            self.trials(1, alone=("dafl",))
        with pytest.raises(
            InputError, match=r"kd\.logits\.weight is a parameter of the knowledge 'logits' already"
        ):
            self.trials(1, schemes=("offline", "logits"), scheme_options={"logits": {"weight": (0.1, 1.0)}})


def test_the_catalogue_offers_every_kind_and_scheme() -> None:
    space = load("digits").catalogue
    first = distributions(space)
    assert set(first["kd.1.kind"].choices) == {"none", *KNOWLEDGE.names()}
    # Classes in tasks are another question: a search by accuracy answers it before it begins. Without its options an
    # order of compression is `offline`. Students whose stages fit into the teacher's places are a space of their own.
    left_out = {"lwf", "compression_order", "progressive_blockwise", "head_first"}
    assert set(first["kd.scheme"].choices) == set(SCHEMES.names()) - left_out
    drawn = sample("digits", "catalogue")
    assert all(trial.distributions == first for trial, _ in drawn)
    assert {term.kind for _, config in drawn for term in config.distillation.terms} == set(KNOWLEDGE.names())
    for _, config in drawn:
        for term in config.distillation.terms:
            stages = max(2, len(config.architecture.stages))
            assert not KNOWLEDGE[term.kind].problems(term, n_stages=stages, batch_size=64)


TEACHER = ArchitectureSpec(
    (StageSpec("basic", 1, 24), StageSpec("basic", 3, 50, stride=2), StageSpec("basic", 2, 96, stride=2)),
    stem_width=24,
    stem_stride=2,
)


class TestSimplified:
    def test_all_of_them_can_start_from_the_teacher(self) -> None:
        for strides in ((), (1, 2)):
            space = partial(suggest_simplified, teacher=TEACHER, strides=strides)
            found = [design for _, design in draws(space, 200)]
            assert not [reason for student in found for reason in start_problems(student, TEACHER)]
            assert len(set(found)) > 150
            assert TEACHER.stages[1].width in {student.stages[1].width for student in found}
            assert min(student.stages[2].width for student in found) == 24
            assert {student.stem_stride for student in found} == {2}

    def test_the_whole_teacher_is_one_of_them(self) -> None:
        values = {"stem.width": 24, "stage1.width": 24, "stage2.width": 50, "stage3.width": 96}
        values |= {"stage1.depth": 1, "stage2.depth": 3, "stage3.depth": 2}
        assert suggest_simplified(optuna.trial.FixedTrial(values), TEACHER) == TEACHER

    def test_a_teacher_without_stages_is_refused(self) -> None:
        vit = ArchitectureSpec(family="vit")
        for suggest in (suggest_simplified, partial(suggest_chain, training=TrainingSpec())):
            with pytest.raises(InputError, match="a teacher of the family 'vit' has none; allowed"):
                suggest(optuna.trial.FixedTrial({}), vit)

    def test_a_stage_may_have_other_blocks_and_one_keeps_the_teachers(self) -> None:
        blocks = (BlockChoice("basic"), BlockChoice("inverted_residual", (2.0, 4.0), squeeze_excitation=True))
        space = partial(suggest_simplified, teacher=TEACHER, blocks=blocks)
        found = [design for _, design in draws(space, 200)]
        assert not [reason for student in found for reason in start_problems(student, TEACHER)]
        kinds = [tuple(stage.block == "basic" for stage in student.stages) for student in found]
        assert len(set(kinds)) == 7, "all but those of no stage of the teacher's"
        assert kinds.count((True, False, False)) > 30, "which the first stage then keeps"
        others = {s for student in found for s in student.stages if s.block != "basic"}
        assert {(s.expansion, s.squeeze_excitation) for s in others} == {
            (expansion, gate) for expansion in (2.0, 4.0) for gate in (False, True)
        }
        kept = {s for student in found for s in student.stages if s.block == "basic"}
        assert {(s.expansion, s.squeeze_excitation) for s in kept} == {(1.0, False)}
        names = {name for name, _ in distributions(space).items() if name.startswith("stage2.")}
        assert names == {
            "stage2.width",
            "stage2.depth",
            "stage2.block",
            "stage2.block.inverted_residual.expansion",
            "stage2.block.inverted_residual.squeeze_excitation",
        }

    def test_two_convolutions_stand_for_a_block_of_two_so_that_each_stage_sees_as_far(self) -> None:
        blocks = (
            BlockChoice("inverted_residual", (2.0,), repeats=2),
            BlockChoice("depthwise_separable", repeats=2),
        )
        space = partial(suggest_simplified, teacher=TEACHER, blocks=blocks, fewer_blocks=False)
        found = [design for _, design in draws(space, 50)]
        assert {receptive_fields(student) for student in found} == {receptive_fields(TEACHER)}
        assert len({stage.block for student in found for stage in student.stages}) == 3
        assert not any(name.endswith("depth") for name in distributions(space))

    def test_those_of_a_published_resnet(self) -> None:
        teacher = resnet_like("resnet50")
        found = [s for _, s in draws(partial(suggest_simplified, teacher=teacher, multiple=8), 50)]
        assert not [reason for student in found for reason in start_problems(student, teacher)]
        assert {(s.stem_kernel, s.stem_stride, s.stem_pool) for s in found} == {(7, 2, True)}

    def test_widths_end_where_it_is_said(self) -> None:
        space = partial(suggest_simplified, teacher=TEACHER, least=0.25, most=0.5, multiple=1)
        found = [student for _, student in draws(space, 200)]
        for number, stage in enumerate(TEACHER.stages):
            widths = [student.stages[number].width for student in found]
            assert (min(widths), max(widths)) == (stage.width // 4, stage.width // 2)
        assert max(student.stem_width for student in found) == TEACHER.stem_width // 2

    @pytest.mark.parametrize(("least", "most"), [(0.0, 1.0), (-1.0, 1.0), (0.5, 1.5), (0.5, 0.25)])
    def test_a_share_that_is_none_is_refused(self, least: float, most: float) -> None:
        with pytest.raises(InputError, match="allowed: above 0 and at most 1, and least no more than most"):
            suggest_simplified(optuna.trial.FixedTrial({}), TEACHER, least=least, most=most)


class TestBits:
    """A choice of each stage where it is given, and no parameter where it is not."""

    def test_each_stage_has_its_own(self) -> None:
        found = [config.architecture for _, config in sample("integers", "joint")]
        assert {stage.bits for student in found for stage in student.stages} == {32, 8, 4}
        assert any(len({stage.bits for stage in student.stages}) == 3 for student in found)
        assert {name for name in distributions(load("integers").joint) if name.endswith(".bits")} == {
            "stage1.bits",
            "stage2.bits",
            "stage3.bits",
        }

    def test_without_them_a_space_is_what_it_was(self) -> None:
        for file in ("digits", "cifar", "from_teacher"):
            assert not any("bits" in name for name in distributions(load(file).joint))
            assert not any(config.architecture.is_quantized for _, config in sample(file, "joint"))
        bits = {name for name in distributions(load("integers").joint) if name.endswith("bits")}
        assert set(distributions(load("integers").architecture_only)) - bits == {
            name
            for name in distributions(load("digits").architecture_only)
            if not name.endswith("squeeze_excitation")
        }

    def test_a_simplified_teacher_of_integers_can_start_from_it(self) -> None:
        found = [
            student for _, student in draws(partial(suggest_simplified, teacher=TEACHER, bits=(8, 4)), 50)
        ]
        assert {stage.bits for student in found for stage in student.stages} == {8, 4}
        assert not [reason for student in found for reason in start_problems(student, TEACHER)]


class TestBlocks:
    """Every block, transformers, and choices of the whole network."""

    def test_every_choice_occurs_and_one_that_changes_nothing_is_not_written(self) -> None:
        found = [config.architecture for _, config in sample("blocks", "architecture_only")]
        stages = [stage for student in found for stage in student.stages]
        assert {stage.block for stage in stages} == set(BLOCKS.names())
        assert {stage.activation for stage in stages} == {"own", "hardswish"}
        assert {stage.downsampling for stage in stages} == {"strided", "average_pooling", "max_pooling"}
        assert {student.stem for student in found} == {"convolution", "patches"}
        assert {student.resolution for student in found} == {None, 24}
        assert {student.stem_activation for student in found} == {"relu", "hardswish"}
        assert not [s for s in stages if s.stride == 1 and s.downsampling != "strided"]
        assert not any(
            {"activation", "downsampling", "stem.form", "resolution"} & set(distributions(load(file).joint))
            for file in ("digits", "cifar", "from_teacher", "integers")
        )

    def test_its_students_are_what_their_closed_forms_say(self) -> None:
        module = load("blocks")
        for space, counted in ((module.architecture_only, 8), (module.transformers, 4)):
            for number, (_, config) in enumerate(draws(space, 50)):
                with torch.device("meta"):
                    student = build_student(config.architecture, 3, 10, (0.0,) * 3, (1.0,) * 3)
                found = design_cost(config.architecture, 3, 10, 32)
                leaving = merged(student)
                assert found.n_params == sum(parameter.numel() for parameter in leaving.parameters())
                assert number >= counted or found == network_cost(student, 3, 32)

    def test_transformers_are_written_in_one_way(self) -> None:
        for _, config in draws(load("blocks").transformers, 50):
            assert config.architecture.family == "vit"
            assert FAMILIES["vit"].problems(config.architecture) == []
            assert FAMILIES["vit"].n_stages(config.architecture) <= 3
        shallow = fixed(
            partial(suggest_transformer, depth=(1, 4)),  # type: ignore[arg-type]
            {"vit.depth": 2, "vit.heads": 3, "vit.head_width": 16, "vit.mlp_ratio": 2.0},
        )
        assert dict(shallow.options) == {  # type: ignore[attr-defined]
            **{"depth": 2, "heads": 3, "mlp_ratio": 2.0, "patch": 4, "stages": 2, "width": 48}
        }


class TestFromTeacher:
    """Students that are simplified versions of the study's teacher."""

    @pytest.mark.parametrize(
        ("space", "study"),
        [("from_teacher", "image_folder"), ("small", "cifar10_small"), ("small", "cifar100_small")],
    )
    def test_it_is_of_the_teacher_of_its_study(self, space: str, study: str) -> None:
        given = tomllib.loads((ROOT / "studies" / f"{study}.toml").read_text())["teacher"]["architecture"]
        stages = tuple(StageSpec(**stage) for stage in given.pop("stages"))
        assert ArchitectureSpec(stages, **given) == load(space).TEACHER

    @pytest.mark.parametrize("space", ["from_teacher", "small"])
    def test_every_student_may_begin_with_its_weights(self, space: str) -> None:
        module = load(space)
        found = [config for _, config in sample(space, "joint")]
        assert {config.training.start for config in found} == {"scratch", "teacher"}
        assert not [r for config in found for r in start_problems(config.architecture, module.TEACHER)]

    def test_from_scratch_is_the_rest_of_it(self) -> None:
        """The same parameters but for the start, and no student begins with anything."""
        module = load("from_teacher")
        with_start, without = distributions(module.joint), distributions(module.from_scratch)
        assert {*with_start} - {*without} == {"train.start"}
        assert all(with_start[name] == without[name] for name in without)
        assert {config.training.start for _, config in draws(module.from_scratch, 20)} == {"scratch"}
