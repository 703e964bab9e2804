"""The study of the parts that train."""

import argparse
import dataclasses
from typing import Any

from naskd.spec.parse import parse_study
from naskd.spec.study import StudySpec


def digits(args: argparse.Namespace, **changes: Any) -> StudySpec:
    spec = parse_study(args.study)
    execution = dataclasses.replace(spec.execution, device="cpu", threads=1, **changes.pop("execution", {}))
    return dataclasses.replace(spec, execution=execution, **changes)
