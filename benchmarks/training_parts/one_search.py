"""One search with whichever naskd ``PYTHONPATH`` names: ``one_search.py STUDY OUT TRIALS [KEY=VALUE ...]``.

A process of ``digits.py``; it keeps to what both revisions have. Prints one line of JSON.
"""

import json
import sys
import time
from pathlib import Path

import optuna

import naskd
from naskd.spec.design import TrialConfig
from naskd.study.storage import open_storage


def main() -> None:
    study, out, trials, *settings = sys.argv[1:]
    began = time.perf_counter()
    run = naskd.search(study, trials=int(trials), out=out, settings=settings)
    seconds = time.perf_counter() - began
    shown = [trial for trial in run.trials() if trial["state"] in ("COMPLETE", "FAIL")]
    recorded = optuna.load_study(study_name=run.spec.name, storage=open_storage(run.spec.storage, Path(out)))
    done = [
        trial for trial in recorded.get_trials(deepcopy=False) if trial.state.name in ("COMPLETE", "FAIL")
    ]
    first = min(trial.datetime_start for trial in done if trial.datetime_start is not None)
    last = max(trial.datetime_complete for trial in done if trial.datetime_complete is not None)
    found = {
        "package": naskd.__file__,
        "seconds": seconds,
        "first_to_last": (last - first).total_seconds(),
        "trials": len(shown),
        "failed": sum(trial["state"] == "FAIL" for trial in shown),
        "trial_seconds": sum(trial["wall_seconds"] for trial in shown),
        "designs": [TrialConfig.from_dict(trial["config"]).config_id for trial in shown],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
