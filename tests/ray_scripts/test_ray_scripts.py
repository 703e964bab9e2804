"""The files of scripts/ray: what can be said of them without a cloud, and the two shell scripts run for real on this
machine. In place of `naskd` stands a search that connects as the real one does and says what it found."""

import copy
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray_heads import (
    REPOSITORY,
    accepts,
    clean_environment,
    free_ports,
    processes_of,
    running_head,
    short_folder,
    wait_until,
)

SCRIPTS = REPOSITORY / "scripts"
SHELL = [SCRIPTS / "ray" / "submit_job", SCRIPTS / "ray" / "search.sbatch"]
CLUSTER = yaml.safe_load((SCRIPTS / "ray" / "cluster.yaml").read_text())
RAY_JOB = yaml.safe_load((SCRIPTS / "ray" / "rayjob.yaml").read_text())
SHELLCHECK = Path(sys.executable).with_name("shellcheck")

SEARCH = f"""#!{sys.executable}
import json, os, sys, time
from pathlib import Path
from naskd.executors.ray.connect import connect
address = sys.argv[sys.argv.index("--address") + 1] if "--address" in sys.argv else None
started = connect(address)
import ray
end = time.monotonic() + 60
while len(ray.nodes()) < int(os.environ.get("NODES", "1")) and time.monotonic() < end:
    time.sleep(0.1)
study = next(argument for argument in sys.argv if argument.endswith(".toml"))
found = {{"argv": sys.argv[1:], "started": started, "nodes": len(ray.nodes()), "cpus": ray.cluster_resources()["CPU"]}}
print("SEARCH", json.dumps({{**found, "study": Path(study).read_text(), "home": str(Path.home())}}), flush=True)
time.sleep(float(os.environ.get("LINGER", "0")))
"""


def write_program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def found_by_search(output: str) -> dict[str, Any]:
    lines = [line for line in output.splitlines() if line.startswith("SEARCH ")]
    assert lines, output
    return dict(json.loads(lines[-1].removeprefix("SEARCH ")))


# --- the cluster launcher ----------------------------------------------------------------------------------


def validate_as_ray_does(config: dict[str, Any]) -> dict[str, Any]:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return dict(prepared)


def test_the_cluster_file_passes_ray_s_own_validator() -> None:
    prepared = validate_as_ray_does(CLUSTER)
    assert any("ray start --head" in command for command in prepared["head_start_ray_commands"])
    assert set(prepared["available_node_types"]) == {"head", "gpu"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"idle_timeout": 3}, "Additional properties"),
        ({"max_workers": "many"}, "is not of type 'integer'"),
        ({"head_node_type": "nobody"}, "must be one of `available_node_types`"),
        ({"docker": {"image": "x"}}, "Must provide a container"),
    ],
)
def test_ray_s_validator_would_notice_a_mistake(change: dict[str, Any], words: str) -> None:
    with pytest.raises(Exception, match=words):
        validate_as_ray_does({**CLUSTER, **change})


def test_the_nodes_have_the_tested_ray_and_the_token() -> None:
    tested = re.search(r"^ray==(\S+)$", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)
    assert tested is not None
    assert CLUSTER["docker"]["image"].startswith(f"rayproject/ray:{tested[1]}-")
    assert RAY_JOB["spec"]["rayClusterSpec"]["rayVersion"] == tested[1]
    assert any("RAY_AUTH_MODE=token" in option for option in CLUSTER["docker"]["run_options"])
    assert CLUSTER["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"
    assert RAY_JOB["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}


# --- Kubernetes --------------------------------------------------------------------------------------------

# The documented fields: KubeRay's API reference (docs/reference/api.md of ray-project/kuberay, and
# https://docs.ray.io/en/master/kuberay/references/api.html), and of Kubernetes what the file uses.
RAY_JOB_SPEC = {
    *("activeDeadlineSeconds", "backoffLimit", "rayClusterSpec", "submitterPodTemplate", "metadata"),
    *("clusterSelector", "submitterConfig", "managedBy", "deletionStrategy", "entrypoint", "runtimeEnvYAML"),
    *("jobId", "submissionMode", "entrypointResources", "entrypointNumCpus", "entrypointNumGpus"),
    *("ttlSecondsAfterFinished", "shutdownAfterJobFinishes", "suspend"),
}
RAY_CLUSTER_SPEC = {
    *("authOptions", "suspend", "managedBy", "autoscalerOptions", "headServiceAnnotations"),
    *(
        "enableInTreeAutoscaling",
        "gcsFaultToleranceOptions",
        "headGroupSpec",
        "rayVersion",
        "workerGroupSpecs",
    ),
}
HEAD_GROUP_SPEC = {"template", "headService", "enableIngress", "rayStartParams", "serviceType"}
WORKER_GROUP_SPEC = {
    *("suspend", "groupName", "replicas", "minReplicas", "maxReplicas", "idleTimeoutSeconds"),
    *("rayStartParams", "template", "scaleStrategy", "numOfHosts"),
}
CONTAINER = {"name", "image", "env", "resources"}
QUANTITY = r"\d+(\.\d+)?(m|[KMGT]i?)?"


def test_the_ray_job_has_documented_fields_only() -> None:
    assert set(RAY_JOB) == {"apiVersion", "kind", "metadata", "spec"}
    assert (RAY_JOB["apiVersion"], RAY_JOB["kind"]) == ("ray.io/v1", "RayJob")
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,45}[a-z0-9])?", RAY_JOB["metadata"]["name"])
    spec = RAY_JOB["spec"]
    assert set(spec) <= RAY_JOB_SPEC
    cluster = spec["rayClusterSpec"]
    assert set(cluster) <= RAY_CLUSTER_SPEC
    assert set(cluster["headGroupSpec"]) <= HEAD_GROUP_SPEC
    assert cluster["workerGroupSpecs"]
    for group in cluster["workerGroupSpecs"]:
        assert set(group) <= WORKER_GROUP_SPEC
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        # Kubernetes refuses numbers here: the values are strings.
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        (container,) = group["template"]["spec"]["containers"]
        assert set(container) <= CONTAINER
        assert set(container["resources"]) == {"requests", "limits"}
        for quantities in container["resources"].values():
            assert all(re.fullmatch(QUANTITY, str(quantity)) for quantity in quantities.values())
        for variable in container.get("env", []):
            assert "value" not in variable, "passwords belong into a Secret"
    # Without this, the cluster is kept and ttlSecondsAfterFinished means nothing.
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["ttlSecondsAfterFinished"] > 0


def test_the_ray_job_keeps_nothing_that_matters_in_its_pods() -> None:
    words = RAY_JOB["spec"]["entrypoint"].split()
    assert words[:2] == ["naskd", "search"]
    assert (REPOSITORY / words[2]).is_file()
    settings = dict(word.split("=", 1) for word in words if "=" in word)
    assert settings["storage"].startswith("postgresql://")
    assert settings["execution.checkpoints"].startswith("s3://")
    assert int(settings["execution.checkpoint_every"]) > 0


# --- shell -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script", [*SHELL, SCRIPTS / "setup", SCRIPTS / "test", SCRIPTS / "quickstart"], ids=lambda p: p.name
)
def test_shell_scripts_are_clean(script: Path) -> None:
    assert os.access(script, os.X_OK)
    assert script.read_text().startswith("#!/usr/bin/env bash\n")
    subprocess.run(["bash", "-n", script], check=True)
    checked = subprocess.run([SHELLCHECK, script], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


def test_no_script_ends_what_it_did_not_start() -> None:
    for file in (SCRIPTS / "ray").iterdir():
        assert not re.search(r"ray stop|pkill|killall", file.read_text()), file.name


def test_submitting_wants_a_study_of_this_folder(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text("")
    for arguments in ([], ["absent.toml"], [str(tmp_path / "s.toml")]):
        done = subprocess.run([SHELL[0], *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 2
        assert done.stderr.startswith("usage: ")


@pytest.mark.slow
def test_a_submitted_search_runs_on_the_head_and_keeps_its_run_there(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp_cors", reason="ray[default] has the job server")
    programs, study = tmp_path / "bin", tmp_path / "work" / "studies" / "my study.toml"
    programs.mkdir()
    study.parent.mkdir(parents=True)
    study.write_text("# mine")
    write_program(programs / "naskd", SEARCH)
    heads = clean_environment(tmp_path, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="c" * 48)
    heads["PATH"] = f"{programs}:{heads['PATH']}"
    port, dashboard = free_ports(2)
    options = (f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1", "--include-dashboard=true")
    with short_folder() as folder, running_head(folder, port, heads, *options):
        wait_until(lambda: accepts(dashboard))
        env = {
            **heads,
            "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
            "HOME": str(tmp_path / "elsewhere"),
        }
        command = [SHELL[0], "studies/my study.toml", "--trials", "3", "--set", "budget.seconds=9 9"]
        done = subprocess.run(
            command, cwd=tmp_path / "work", env=env, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert accepts(port), "the job must leave the cluster running"
    found = found_by_search(done.stdout)
    assert found["study"] == "# mine"
    assert found["started"] is False, "the job must use the cluster that it was submitted to"
    out = ["--out", f"{tmp_path}/naskd-runs/my study"]
    rest = ["studies/my study.toml", "--trials", "3", "--set", "budget.seconds=9 9"]
    assert found["argv"] == ["search", "--executor", "ray", *out, *rest]


@pytest.mark.slow
def test_the_slurm_job_has_a_ray_of_its_own_on_all_its_nodes_and_takes_it_down(tmp_path: Path) -> None:
    """Slurm's commands are stood in for: both nodes are this machine. The job is cancelled while it searches."""
    programs = tmp_path / "bin"
    programs.mkdir()
    write_program(programs / "naskd", SEARCH)
    write_program(programs / "scontrol", "#!/bin/sh\nprintf 'node1\\nnode2\\n'\n")
    write_program(
        programs / "srun",
        '#!/bin/bash\necho "$*" >>srun.log\nwhile [[ $1 == --* ]]; do shift; done\nexec "$@"\n',
    )
    (tmp_path / "study.toml").write_text("# mine")
    job = next(n for n in range(os.getpid(), os.getpid() + 100) if not accepts(20000 + n % 3000 * 10))
    folder = Path(f"/tmp/naskd-ray-{job}")
    env = clean_environment(
        tmp_path,
        SLURM_JOB_ID=str(job),
        SLURM_JOB_NODELIST="node[1-2]",
        SLURM_CPUS_PER_TASK="2",
        NODES="2",
        LINGER="100",
        RAY_ADDRESS="10.9.9.9:6379",  # of another cluster, which is not this job's business
    )
    env["PATH"] = f"{programs}:{env['PATH']}"
    with (
        open(tmp_path / "out", "w") as out,
        subprocess.Popen(
            [SHELL[1], "study.toml", "--trials", "3"], cwd=tmp_path, env=env, stdout=out, stderr=out
        ) as batch,
    ):
        try:
            wait_until(lambda: batch.poll() is not None or "SEARCH" in (tmp_path / "out").read_text(), 120)
            found = found_by_search((tmp_path / "out").read_text())
            assert (found["nodes"], found["cpus"], found["started"]) == (2, 4.0, False)
            address = found["argv"][found["argv"].index("--address") + 1]
            assert address.endswith(f":{20000 + job % 3000 * 10}")
            assert found["argv"][:5] == ["search", "study.toml", "--trials", "3", "--executor"]
            assert "a token" in refused(address, clean_environment(tmp_path / "elsewhere"))
            batch.terminate()
            assert batch.wait(timeout=60) == 143
        finally:
            batch.kill()
            left, kept = processes_of(folder), folder.exists()
            for process in left:
                os.kill(process, signal.SIGKILL)
            shutil.rmtree(folder, ignore_errors=True)
    assert (left, kept) == ([], False)
    first, last = (tmp_path / "srun.log").read_text().splitlines()
    assert first.startswith("--nodes=1 --ntasks=1 --exclude=node1 ray start --block")
    assert last.startswith("--nodes=2 --ntasks=2 rm -rf")


def refused(address: str, env: dict[str, str]) -> str:
    """What somebody without the token is told."""
    code = "import sys; from naskd.executors.ray.connect import connect; connect(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, address], env=env, capture_output=True, text=True)
    assert done.returncode != 0
    return done.stderr.splitlines()[-1]


def test_the_page_on_clusters_names_files_that_exist() -> None:
    page = (REPOSITORY / "docs" / "guides" / "cluster.md").read_text()
    named = set(re.findall(r"\b(?:scripts|studies)/[\w./]*\w", page))
    assert {"scripts/ray/cluster.yaml", "scripts/ray/submit_job", "scripts/ray/search.sbatch"} <= named
    assert [name for name in sorted(named) if not (REPOSITORY / name).exists()] == []
    headings = {
        re.sub(r"[^\w ]", "", line).strip().lower().replace(" ", "-")
        for line in page.splitlines()
        if line.startswith("## ")
    }
    assert set(re.findall(r"\]\(#([\w-]+)\)", page)) <= headings
