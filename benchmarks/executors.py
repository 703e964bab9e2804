"""What running trials at once costs, and what it brings.

    python benchmarks/executors.py --part a b c d --json executors.json

Parts, each with options of its own (``--help``):

- ``a``: overhead of a trial that returns at once. naskd's Ray executor on a run's journal file against Ray's ``Tuner``
  with ``OptunaSearch``, with its defaults and with ``reuse_actors=True``, its study in memory (the default) and in the
  same journal file; same sampler, space and objectives. All arms on one private cluster, in turns.
- ``b``: 2 workers against 1 on trainings of ``studies/digits.toml``: the same designs, drawn at random, in turns.
- ``c``: how many workers one driver keeps busy. A fake clock drives the real ``Study``; what asking and telling really
  take is charged to it. Beside it Optuna's bare ask and tell with the same sampler, storage and history.
- ``d``: ``studies/digits.toml`` from its beginning, serially and on a cluster of two raylets that share no cache: the
  hypervolume of the fronts, several seeds.

Prints one Markdown table a part; ``--json`` keeps every single measurement, and with ``--resume`` parts that it has are
not measured again.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

from executor_parts import fronts, overhead, scale, speedup
from harness import machine, parts
from harness.arguments import parser
from harness.setting import ROOT
from naskd.study.storage import quiet

PARTS: dict[str, parts.Part] = {"a": overhead, "b": speedup, "c": scale, "d": fronts}


def main() -> int:
    given = parser(__doc__)
    given.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    given.add_argument("--study", type=Path, default=ROOT / "studies/digits.toml", help="of parts b and d")
    part = given.add_argument_group("a")
    part.add_argument("--overhead-trials", type=int, default=200)
    part.add_argument(
        "--cold-trials", type=int, default=30, help="of the defaults, which take over a second each"
    )
    part.add_argument("--overhead-rounds", type=int, default=3)
    part.add_argument("--overhead-samplers", nargs="+", default=["tpe", "random"])
    part = given.add_argument_group("b")
    part.add_argument("--speedup-trials", type=int, default=30)
    part.add_argument("--speedup-rounds", type=int, default=3)
    part = given.add_argument_group("c")
    part.add_argument("--samplers", nargs="+", default=["random", "nsga2", "tpe", "gp"])
    part.add_argument("--parameters", nargs="+", type=int, default=[20, 100])
    part.add_argument("--history", nargs="+", type=int, default=[100, 1000], help="complete trials")
    part.add_argument("--gp-history", type=int, default=100, help="gp asks for seconds: no more than this")
    part.add_argument("--gp-parameters", type=int, default=20, help="no more than this for gp")
    part.add_argument("--storages", nargs="+", choices=("journal", "memory", "sqlite"), default=["journal"])
    part.add_argument(
        "--window", type=int, default=40, help="trials that are told and asked for in a measurement"
    )
    part.add_argument(
        "--window-seconds", type=float, default=8.0, help="a window ends, after 2 trials at least"
    )
    part = given.add_argument_group("d")
    part.add_argument("--seeds", type=int, default=3)
    part.add_argument("--front-trials", type=int, default=40)
    args = given.parse_args()
    quiet()
    return parts.run(PARTS, args, machine.facts(("optuna", "ray", "torch")))


if __name__ == "__main__":
    raise SystemExit(main())
