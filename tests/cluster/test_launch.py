"""Files that start clusters: valid for the programs that read them, and consistent with each other."""

import inspect
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
import yaml
from jsonschema import validate

from study.cli.main import app
from study.monitoring.status import status
from tests.support.command import histories
from tests.support.tiny import tiny, written

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "cluster" / "launch"
FILES = sorted(path for path in LAUNCH.iterdir())
CLOUDS = ("aws", "gcp")
KUBERNETES = ("kuberay-cluster", "kuberay-job")
CLAIM = {"name": "storage", "persistentVolumeClaim": {"claimName": "study-storage"}}


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((LAUNCH / f"{name}.yaml").read_text(encoding="utf-8")))


def ray_cluster(name: str) -> dict[str, Any]:
    """Return the specification of the Ray cluster in a Kubernetes manifest."""
    spec: dict[str, Any] = documents(name)[-1]["spec"]
    cluster: dict[str, Any] = spec.get("rayClusterSpec", spec)
    return cluster


def groups(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


@pytest.mark.parametrize("name", CLOUDS)
def test_ray_up_accepts_the_file(name: str) -> None:
    from ray.autoscaler._private.util import fillout_defaults, validate_config

    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text(encoding="utf-8"))
    (config,) = documents(name)
    validate(config, schema)
    validate_config(fillout_defaults(config))


@pytest.mark.parametrize("name", CLOUDS)
def test_cloud_clusters_require_the_token(name: str) -> None:
    (config,) = documents(name)
    starts = [
        line for role in ("head", "worker") for line in config[f"{role}_start_ray_commands"] if "ray start" in line
    ]
    assert len(starts) == 2
    assert all(line.startswith("export RAY_AUTH_MODE=token;") for line in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert config["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}
    assert config["setup_commands"] == []  # the default installs another version of Ray


@pytest.mark.parametrize("name", CLOUDS)
def test_cloud_workers_are_spot_instances_with_a_gpu_and_one_starts_immediately(name: str) -> None:
    (config,) = documents(name)
    head, worker = config["available_node_types"][config["head_node_type"]], config["available_node_types"]["gpu"]
    assert head["resources"] == {"CPU": 0}
    assert worker["resources"]["GPU"] == 1
    assert 1 <= worker["min_workers"] < worker["max_workers"] <= config["max_workers"]
    assert "spot" in json.dumps(worker["node_config"]).lower()
    assert "spot" not in json.dumps(head["node_config"]).lower()


@pytest.mark.parametrize("name", KUBERNETES)
def test_kubernetes_manifests_have_the_fields_required_by_the_operator(name: str) -> None:
    for document in documents(name):
        assert {"apiVersion", "kind", "metadata", "spec"} <= document.keys()
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", document["metadata"]["name"])
    cluster = ray_cluster(name)
    for group in groups(cluster):
        assert "rayStartParams" in group
        for container in group["template"]["spec"]["containers"]:
            assert {"name", "image", "resources"} <= container.keys()
            assert container["resources"]["limits"] == container["resources"]["requests"]
    for group in cluster["workerGroupSpecs"]:
        assert group["groupName"]
        assert 1 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        assert group["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


@pytest.mark.parametrize("name", KUBERNETES)
def test_kubernetes_requires_the_token_and_does_not_run_as_root(name: str) -> None:
    cluster = ray_cluster(name)
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
    for group in groups(cluster):
        spec = group["template"]["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert all(not container["securityContext"]["allowPrivilegeEscalation"] for container in spec["containers"])


@pytest.mark.parametrize("name", KUBERNETES)
def test_all_pods_share_one_storage(name: str) -> None:
    for group in groups(ray_cluster(name)):
        spec = group["template"]["spec"]
        assert CLAIM in spec["volumes"]
        assert {"name": "storage", "mountPath": "/storage"} in spec["containers"][0]["volumeMounts"]
        mounted = {mount["name"] for container in spec["containers"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in spec["volumes"]}
    (claim,) = [document for document in documents("kuberay-cluster") if document["kind"] == "PersistentVolumeClaim"]
    assert claim["metadata"]["name"] == CLAIM["persistentVolumeClaim"]["claimName"]  # type: ignore[index]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


@pytest.mark.parametrize("name", KUBERNETES)
def test_kubernetes_runs_the_pinned_version_of_ray(name: str) -> None:
    assert ray_cluster(name)["rayVersion"] == version("ray")


def test_ray_job_runs_a_study_on_the_shared_storage_and_shuts_down() -> None:
    (job,) = documents("kuberay-job")
    assert job["kind"] == "RayJob"
    assert job["spec"]["entrypoint"] == "python -m study run /study/study.yaml --address auto --storage /storage/runs"
    assert job["spec"]["shutdownAfterJobFinishes"] is True


def instructions() -> Iterator[tuple[str, str]]:
    """Yield the instructions of the Dockerfile and their arguments, with continued lines joined."""
    text = (LAUNCH / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, _, arguments = line.partition(" ")
            yield name, arguments


def test_image_installs_the_lock_file_and_all_packages_and_does_not_run_as_root() -> None:
    steps = list(instructions())
    assert {name for name, _ in steps} <= {"ARG", "FROM", "RUN", "COPY", "USER", "WORKDIR", "ENV", "CMD"}
    assert [arguments for name, arguments in steps if name == "FROM"] == ["python:${PYTHON}-slim"]
    sources = [source for name, arguments in steps if name == "COPY" for source in arguments.split()[:-1]]
    assert {"requirements.lock", "pyproject.toml", "study", "models", "datasets", "cluster", "results"} <= set(sources)
    assert all((ROOT / source).exists() for source in sources)
    commands = [arguments for name, arguments in steps if name == "RUN"]
    assert any("--requirement /tmp/requirements.lock" in arguments for arguments in commands)
    assert any("--no-deps /src" in arguments for arguments in commands)
    assert [name for name, _ in steps].index("USER") > max(
        position for position, (name, _) in enumerate(steps) if name == "RUN"
    )
    assert ("USER", "1000") in steps


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_each_file_starts_with_three_commands_from_the_readme(file: Path) -> None:
    readme = (ROOT / "cluster" / "README.md").read_text(encoding="utf-8")
    head = re.match(r"(#!.*\n)?((#.*\n)+)", file.read_text(encoding="utf-8"))
    assert head
    commands = [
        line.partition("   #")[0].strip("# ") for line in re.findall(r"^#   \S.*$", head[2], flags=re.MULTILINE)
    ]
    assert len(commands[:3]) == 3
    assert file.name == "Dockerfile" or all(command.partition("       ")[0] in readme for command in commands[:3])


def test_readme_shows_existing_options_of_commands() -> None:
    text = (ROOT / "cluster" / "README.md").read_text(encoding="utf-8").replace("\n", " ")
    commands = {
        command.name or command.callback.__name__: command.callback
        for command in app.registered_commands
        if command.callback
    }
    shown = re.findall(r"\bstudy (submit|logs|status|stop|table|run) (.*?)(?=\bstudy |`)", text)
    assert {name for name, _ in shown} >= {"submit", "logs", "status", "stop"}
    for name, arguments in shown:
        options = re.findall(r"(?<=\s)--(\w+)", f" {arguments}")
        assert set(options) <= inspect.signature(commands[name]).parameters.keys(), (name, options)


def test_slurm_script_has_valid_syntax() -> None:
    script = LAUNCH / "slurm.sh"
    result = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert "export RAY_AUTH_MODE=token" in script.read_text(encoding="utf-8")


SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do case $1 in --nodelist=*) node=${1#*=};; esac; shift; done
exec "${@/--temp-dir=*/--temp-dir=$HOME/$node}"
"""
"""In place of Slurm's srun: each node is a folder on this machine."""


def test_slurm_job_fails_if_ray_does_not_start_on_a_node(tmp_path: Path) -> None:
    programs = {
        "srun": '[[ "$*" == *hostname* ]] && echo 127.0.0.1 || exit 1',
        "scontrol": "echo a",
        "ray": "[ $1 != health-check ]",
    }
    for name, body in programs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_ID": "1", "SLURM_JOB_NODELIST": "a", "SLURM_CPUS_PER_TASK": "1", "HOME": str(tmp_path)}
    environment = os.environ | slurm | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = ["bash", str(LAUNCH / "slurm.sh"), "study.yaml", "runs"]
    result = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert result.stderr.endswith("Ray did not start on every node; see the lines above\n")


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_slurm_job_runs_a_study_on_its_nodes_and_stops_on_sigterm(tmp_path: Path) -> None:
    home = Path(tempfile.mkdtemp(prefix="s-", dir="/tmp"))
    for name, text in {"srun": SRUN, "scontrol": "#!/bin/bash\nprintf '%s\\n' a b\n"}.items():
        (home / name).write_text(text)
        (home / name).chmod(0o755)
    path = f"{home}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    slurm = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "[a-b]", "SLURM_CPUS_PER_TASK": "1"}
    environment = os.environ | slurm | {"HOME": str(home), "PATH": path, "OMP_NUM_THREADS": "1"}
    command = ["bash", str(LAUNCH / "slurm.sh"), str(written(tiny(), tmp_path)), str(tmp_path / "runs")]

    def start() -> subprocess.Popen[bytes]:
        with (tmp_path / "log").open("ab") as log:
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)

    def state() -> str:
        return str(status(tmp_path / "runs", "tiny")["state"])

    try:
        first = start()
        while not histories(tmp_path / "runs"):
            assert first.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.2)
        first.terminate()
        assert first.wait() == 128 + signal.SIGTERM, (tmp_path / "log").read_text()
        published = histories(tmp_path / "runs")
        assert state() == "stopped"
        assert start().wait() == 0, (tmp_path / "log").read_text()
        assert published.items() <= histories(tmp_path / "runs").items()
        assert state() == "finished"
    finally:
        kill_processes_of(home)
        shutil.rmtree(home, ignore_errors=True)


def kill_processes_of(home: Path) -> None:
    """Kill the processes of a home folder; Ray nodes take a while to drain after SIGTERM."""
    for process in psutil.process_iter(["cmdline"]):
        if any(f"{home}/" in argument for argument in process.info["cmdline"] or ()):
            process.kill()
