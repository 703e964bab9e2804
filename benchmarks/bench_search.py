"""Searches on recorded tables: who needs least training for the same front, and whether joint search pays.

    python benchmarks/bench_search.py --table runs/tables/cifar10/table --json search.json

Parts:

- ``reach``: ``train_macs`` until an arm has the hypervolume of NSGA-II after 200 full trials, as a share of NSGA-II's;
- ``stopping``: the same designs with a stopping rule and without;
- ``predict``: how well the model of ``ehvi`` predicts designs that were left out;
- ``ask``: time of a proposal with 1,000 finished and 8 pending trials;
- ``bias``: how much too good the accuracies of a front are, with one training of each of its designs and with more;
- ``luck``: how many seeds and validation images a front needs, by the noise that two seeds show;
- ``warm``: a search that is warm-started from an earlier run of other accuracies, and from a useless one;
- ``claims``: joint search against undistilled search, and against architectures first, then distillation.

A sampler and a rule of your own take part: ``--module own.py --arm mine=my_sampler,my_rule``. So do other frameworks,
in interpreters of their own: ``--foreign syne-tune=envs/syne-tune/bin/python``. ``--plot reach.svg`` draws the
hypervolume of each arm against the training it took.
"""

import sys
from pathlib import Path

from harness import machine, parts
from harness.arguments import parser


def main() -> int:
    from search_parts import asking, bias, claims, luck, predicting, reach, stopping, warm
    from search_parts.arms import ARMS, named_arm
    from search_parts.curves import draw, picture
    from search_parts.outside import FRAMEWORKS, chosen, foreign_arms

    known = {
        "reach": reach,
        "stopping": stopping,
        "predict": predicting,
        "ask": asking,
        "bias": bias,
        "luck": luck,
        "warm": warm,
        "claims": claims,
    }
    given = parser(__doc__)
    given.add_argument("--table", type=Path, required=True, help="folder of a recorded table")
    given.add_argument("--repetitions", type=int, default=100)
    given.add_argument("--jobs", type=int, default=2, help="processes")
    given.add_argument(
        "--arms", nargs="*", default=list(ARMS), choices=list(ARMS), help="of those that are known"
    )
    given.add_argument(
        "--module", type=Path, action="append", default=[], help="file that registers methods of yours"
    )
    given.add_argument("--arm", action="append", default=[], metavar="NAME=SAMPLER[,RULE]", help="one more")
    given.add_argument(
        "--foreign",
        action="append",
        default=[],
        metavar="FRAMEWORK=PYTHON",
        help=f"arms of another framework ({', '.join(FRAMEWORKS)}) in its interpreter; NAME=PYTHON,DRIVER for your own",
    )
    given.add_argument("--foreign-arms", nargs="*", metavar="ARM", help="only these of them; default: all")
    given.add_argument("--part", nargs="+", default=list(known), choices=list(known))
    given.add_argument(
        "--plot", type=picture, metavar="FILE", help="picture of the part reach, .svg or .png; see --resume"
    )
    args = given.parse_args()
    if args.plot and "reach" not in args.part:
        given.error(f"--plot draws the part reach; --part has {', '.join(args.part)} alone")
    args.arms = {**{name: ARMS[name] for name in args.arms}, **dict(map(named_arm, args.arm))}
    args.arms |= chosen({arm: made for text in args.foreign for arm, made in foreign_arms(text).items()},
                        args.foreign_arms)  # fmt: skip
    args.module = [file.resolve() for file in args.module]
    then = {"reach": lambda rows: draw(rows, args.plot)} if args.plot else {}
    return parts.run(known, args, machine.facts(("optuna", "scikit-learn")), then)


if __name__ == "__main__":
    sys.exit(main())
