"""Latency predicted from operators: what they do, what a profile file says, and what it refuses."""

import dataclasses
import json
from pathlib import Path

import pytest
from torch import nn

from naskd.networks.student import design_operators
from naskd.nn.tracing import operators_of
from naskd.spec.design import ArchitectureSpec, StageSpec
from naskd.spec.errors import InputError
from naskd.spec.latency import NETWORK, HeldOutStudent, LatencyProfile, read_profile, work_of
from naskd.spec.operators import Buffer, Operator, OperatorGraph
from naskd.spec.parse import StudyFileError, parse_study

PROFILE = LatencyProfile(
    device="onnxruntime",
    options={"threads": 1},
    hardware="a processor",
    runtime="onnxruntime 1",
    date="2026-01-02",
    in_channels=3,
    resolution=8,
    n_classes=5,
    space="space.py:joint",
    n_students=30,
    rounds=3,
    noise=0.01,
    block=1,
    milliseconds={NETWORK: {"runs": 0.5}, "add": {"runs": 0.25, "read": 0.001, "written": 0.0}},
    held_out=(HeldOutStudent(1000, 2.0, 2.1), HeldOutStudent(2000, 4.0, 3.0)),
)
ADD = Operator("add", (0, 1), (2,), (1, 4, 8, 8), (1, 4, 8, 8))


def graph(*operators: Operator) -> OperatorGraph:
    return OperatorGraph(operators, (Buffer(256, 32),) * 3, 0, (2,))


# --- what operators do -------------------------------------------------------------------------------------------


def conv(
    channels: tuple[int, int], kernel: int = 3, stride: int = 1, size: int = 4, **changes: object
) -> Operator:
    made = -(-size // stride)
    return Operator(
        "convolution",
        (0,),
        (1,),
        (1, channels[0], size, size),
        (1, channels[1], made, made),
        n_weights=7,
        kernel=(kernel,) * 2,
        stride=(stride,) * 2,
        padding=(kernel // 2,) * 2,
        **changes,  # type: ignore[arg-type]
    )


def work(operator: Operator, block: int) -> dict[str, dict[str, float]]:
    read = operator.given[1] * operator.given[2] * operator.given[3]
    written = operator.made[1] * operator.made[2] * operator.made[3]
    found = work_of(OperatorGraph((operator,), (Buffer(read, 32), Buffer(written, 32)), 0, (1,)), block)
    assert found.pop(NETWORK) == {"runs": 1.0}
    return found


def test_a_convolution_is_counted_in_filled_blocks_and_without_what_lies_outside_of_the_map() -> None:
    # 4 columns of which a kernel of 3 lies within 2, and has two columns on the map at the other 2: 10 in all.
    assert work(conv((20, 10)), 16) == {
        "convolution 3x3, stride 1, channels of 4": {
            "runs": 1.0,
            "read": 32 * 16,
            "written": 16 * 16,
            "weights": 7,
            "inner macs": 16 * 32 * 10 * 6,
            "border macs": 16 * 32 * 10 * 4,
            "left over": 10 * 16,
        }
    }


def test_without_blocks_the_macs_are_those_on_the_map() -> None:
    ((_, amounts),) = work(conv((4, 8), kernel=1), 1).items()
    assert amounts["inner macs"] == 4 * 8 * 16
    assert amounts["border macs"] == amounts["left over"] == 0


@pytest.mark.parametrize(
    ("operator", "kind"),
    [
        (conv((3, 8)), "convolution 3x3, stride 1, few channels"),
        (conv((18, 8)), "convolution 3x3, stride 1, odd channels"),
        (conv((16, 8), kernel=5, stride=2), "convolution 5x5, stride 2, channels of 4"),
        (
            conv((16, 8), bits=4),
            "convolution 3x3, stride 1, channels of 4, weights of 4 bits, maps of 32",
        ),
    ],
)
def test_convolutions_that_run_otherwise_are_kinds_of_their_own(operator: Operator, kind: str) -> None:
    assert list(work(operator, 16)) == [kind]


def test_depthwise_convolutions_do_not_mix_channels() -> None:
    operator = dataclasses.replace(conv((6, 6)), kind="depthwise")
    ((kind, amounts),) = work(operator, 16).items()
    assert kind == "depthwise 3x3, stride 1, odd channels"
    assert amounts["inner macs"] + amounts["border macs"] == 16 * 10 * 10


@pytest.mark.parametrize(("groups", "kind"), [(8, "channels of 4"), (16, "odd channels")])
def test_a_convolution_of_groups_is_a_kind_of_its_own_with_the_macs_of_its_groups(groups, kind) -> None:
    layer = nn.Conv2d(32, 64, 3, padding=1, groups=groups)
    (operator,) = operators_of(layer, 32, 4).operators
    ((found, amounts),) = work(operator, 16).items()
    assert found == f"grouped convolution 3x3, stride 1, {kind}"
    assert amounts["inner macs"] + amounts["border macs"] == 64 * (32 // groups) * 10 * 10
    assert amounts["read"] == 32 * 16
    assert amounts["written"] == 64 * 16
    (pointwise,) = operators_of(nn.Conv2d(32, 64, 1, groups=groups), 32, 4).operators
    assert next(iter(work(pointwise, 16))) == f"grouped pointwise 1x1, stride 1, {kind}"


def test_a_dilated_convolution_is_a_kind_of_its_own_with_the_places_where_it_lies_on_the_map() -> None:
    (operator,) = operators_of(nn.Conv2d(4, 8, 3, padding=2, dilation=2), 4, 8).operators
    ((found, amounts),) = work(operator, 1).items()
    assert found == "convolution 3x3, stride 1, dilation 2, channels of 4"
    places = 2 * 2 + 4 * 3 + 2 * 2
    assert amounts["inner macs"] + amounts["border macs"] == 8 * 4 * places * places
    assert amounts["inner macs"] == 8 * 4 * places * 4 * 3


def test_work_of_a_network_is_the_sum_over_its_operators() -> None:
    spec = ArchitectureSpec((StageSpec("basic", 2, 16),), stem_width=16)
    found = work_of(design_operators(spec, 3, 5, 8), 16)
    assert found["convolution 3x3, stride 1, channels of 4"]["runs"] == 4
    assert found["add"]["runs"] == 2
    assert found["add"]["read"] == 2 * 2 * 16 * 64


# --- profiles ----------------------------------------------------------------------------------------------------


def test_a_prediction_is_linear_in_the_work() -> None:
    assert PROFILE.predict(graph(ADD), 3, 8, 5) == pytest.approx(0.5 + 0.25 + 0.512)
    assert PROFILE.predict(graph(ADD, ADD), 3, 8, 5) == pytest.approx(0.5 + 2 * (0.25 + 0.512))


@pytest.mark.parametrize("images", [(1, 8, 5), (3, 9, 5), (3, 8, 6)])
def test_other_images_than_the_profiles_are_refused(images: tuple[int, int, int]) -> None:
    with pytest.raises(InputError, match="of images of 3 channels, 8x8 pixels and 5 classes, not of"):
        PROFILE.predict(graph(ADD), *images)


def test_an_operator_that_was_never_timed_is_refused() -> None:
    with pytest.raises(InputError, match="no student of the profile had an operator like this: gelu"):
        PROFILE.predict(graph(ADD, dataclasses.replace(ADD, kind="gelu")), 3, 8, 5)


def test_what_an_operator_did_in_no_student_is_refused_by_what_it_is() -> None:
    full, other = conv((32, 32)), conv((32, 40))
    kind = "convolution 3x3, stride 1, channels of 4"
    known = {what: 0.001 for what, amount in work(full, 32)[kind].items() if amount}
    profile = dataclasses.replace(PROFILE, block=32, milliseconds={NETWORK: {"runs": 0.5}, kind: known})
    assert profile.predict(graph(full), 3, 8, 5) > 0.5
    with pytest.raises(InputError, match=f"like this: {kind}, with channels that are no multiple of 32$"):
        profile.predict(graph(other), 3, 8, 5)
    written = dataclasses.replace(profile, milliseconds={NETWORK: {"runs": 0.5}, kind: {"runs": 0.1}})
    with pytest.raises(InputError, match=f"{kind}, which does this: read"):
        written.predict(graph(full), 3, 8, 5)


def test_errors_are_shares_of_the_measured_latency() -> None:
    assert PROFILE.errors == pytest.approx([0.05, 0.25])


def test_a_profile_is_read_as_it_was_written_and_named_by_its_content(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    file.write_text(json.dumps(PROFILE.to_dict()))
    assert read_profile(file) == PROFILE
    assert read_profile(file).profile_id == PROFILE.profile_id
    assert dataclasses.replace(PROFILE, noise=0.02).profile_id != PROFILE.profile_id


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "no JSON at all"),
        ("[]", "is no latency profile"),
        ('{"format": 2}', "of format 2; this version reads 1"),
        (json.dumps({**PROFILE.to_dict(), "noise": -1}), "noise: Input should be greater than or equal to 0"),
        (json.dumps({**PROFILE.to_dict(), "batch": 2}), "batch"),
        (None, "cannot be read"),
    ],
)
def test_what_is_no_profile_is_said_in_a_line(text: str | None, says: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "p.json").write_text(text)
    with pytest.raises(InputError, match=says):
        read_profile(tmp_path / "p.json")


# --- studies -----------------------------------------------------------------------------------------------------

STUDY = """\
name = "x"
space = "space.py:joint"
{top}
[data]
kind = "digits"
[budget]
trials = 1
{tables}
"""


def problems(folder: Path, top: str = "", tables: str = "", **given: object) -> list[str]:
    (folder / "space.py").write_text("def joint(trial): ...\n")
    (folder / "study.toml").write_text(STUDY.format(top=top, tables=tables))
    try:
        parse_study(folder / "study.toml", **given)  # type: ignore[arg-type]
    except StudyFileError as error:
        return [str(problem) for problem in error.problems]
    return []


OBJECTIVE, LIMIT = 'objectives = ["val_accuracy", "latency_ms"]', "[limits.max]\nlatency_ms = 2"


def test_a_study_that_asks_for_latency_names_a_profile(tmp_path: Path) -> None:
    for given in ({"top": OBJECTIVE}, {"tables": LIMIT}):
        (found,) = problems(tmp_path, **given)
        assert found.startswith(
            "latency.profile: got nothing; allowed: path of a .json file that naskd profile writes"
        )
        assert found.endswith("; latency_ms is computed from it")
        assert problems(tmp_path, lacking=("latency.profile",), **given) == []
    named = '[latency]\nprofile = "p.json"'
    (found,) = problems(tmp_path, OBJECTIVE, named)
    assert "an existing file" in found
    (tmp_path / "p.json").write_text("{}")
    (found,) = problems(tmp_path, OBJECTIVE, named)
    assert "a file that naskd profile has written" in found
    (tmp_path / "p.json").write_text(json.dumps(PROFILE.to_dict()))
    assert problems(tmp_path, OBJECTIVE, named) == []


def test_studies_without_a_profile_are_named_as_before(tmp_path: Path) -> None:
    problems(tmp_path)
    assert "latency" not in parse_study(tmp_path / "study.toml").identity()
