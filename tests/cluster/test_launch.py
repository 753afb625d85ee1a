"""Files that start clusters: parsed, held against what reads them, and against each other."""

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
def test_ray_up_takes_the_file(name: str) -> None:
    from ray.autoscaler._private.util import fillout_defaults, validate_config

    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text(encoding="utf-8"))
    (config,) = documents(name)
    validate(config, schema)
    validate_config(fillout_defaults(config))


@pytest.mark.parametrize("name", CLOUDS)
def test_clouds_start_nothing_that_a_token_does_not_guard(name: str) -> None:
    (config,) = documents(name)
    starts = [
        line for role in ("head", "worker") for line in config[f"{role}_start_ray_commands"] if "ray start" in line
    ]
    assert len(starts) == 2
    assert all(line.startswith("export RAY_AUTH_MODE=token;") for line in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert config["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}
    assert config["setup_commands"] == []  # the launcher's default fetches some Ray


@pytest.mark.parametrize("name", CLOUDS)
def test_workers_of_clouds_are_spot_and_have_a_gpu_and_one_is_there_from_the_start(name: str) -> None:
    (config,) = documents(name)
    head, worker = config["available_node_types"][config["head_node_type"]], config["available_node_types"]["gpu"]
    assert head["resources"] == {"CPU": 0}
    assert worker["resources"]["GPU"] == 1
    assert 1 <= worker["min_workers"] < worker["max_workers"] <= config["max_workers"]
    assert "spot" in json.dumps(worker["node_config"]).lower()
    assert "spot" not in json.dumps(head["node_config"]).lower()


@pytest.mark.parametrize("name", KUBERNETES)
def test_kubernetes_manifests_have_what_the_operator_requires(name: str) -> None:
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
def test_kubernetes_has_the_token_on_and_no_root(name: str) -> None:
    cluster = ray_cluster(name)
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
    for group in groups(cluster):
        spec = group["template"]["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert all(not each["securityContext"]["allowPrivilegeEscalation"] for each in spec["containers"])


@pytest.mark.parametrize("name", KUBERNETES)
def test_all_pods_share_one_storage(name: str) -> None:
    for group in groups(ray_cluster(name)):
        spec = group["template"]["spec"]
        assert CLAIM in spec["volumes"]
        assert {"name": "storage", "mountPath": "/storage"} in spec["containers"][0]["volumeMounts"]
        mounted = {mount["name"] for each in spec["containers"] for mount in each["volumeMounts"]}
        assert mounted == {volume["name"] for volume in spec["volumes"]}
    (claim,) = [each for each in documents("kuberay-cluster") if each["kind"] == "PersistentVolumeClaim"]
    assert claim["metadata"]["name"] == CLAIM["persistentVolumeClaim"]["claimName"]  # type: ignore[index]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


@pytest.mark.parametrize("name", KUBERNETES)
def test_kubernetes_runs_the_ray_that_is_pinned(name: str) -> None:
    assert ray_cluster(name)["rayVersion"] == version("ray")


def test_a_ray_job_runs_a_study_on_the_shared_storage_and_goes_when_it_ends() -> None:
    (job,) = documents("kuberay-job")
    assert job["kind"] == "RayJob"
    assert job["spec"]["entrypoint"] == "python -m study run /study/study.yaml --address auto --storage /storage/runs"
    assert job["spec"]["shutdownAfterJobFinishes"] is True


def instructions() -> Iterator[tuple[str, str]]:
    """Yield the instructions of the Dockerfile with what they say, lines that go on joined."""
    text = (LAUNCH / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        if line and not line.startswith("#"):
            word, _, rest = line.partition(" ")
            yield word, rest


def test_the_image_installs_the_lock_and_all_packages_and_is_not_run_as_root() -> None:
    found = list(instructions())
    assert {word for word, _ in found} <= {"ARG", "FROM", "RUN", "COPY", "USER", "WORKDIR", "ENV", "CMD"}
    assert [rest for word, rest in found if word == "FROM"] == ["python:${PYTHON}-slim"]
    sources = [source for word, rest in found if word == "COPY" for source in rest.split()[:-1]]
    assert {"requirements.lock", "pyproject.toml", "study", "models", "datasets", "cluster", "results"} <= set(sources)
    assert all((ROOT / source).exists() for source in sources)
    ran = [rest for word, rest in found if word == "RUN"]
    assert any("--requirement /tmp/requirements.lock" in rest for rest in ran)
    assert any("--no-deps /src" in rest for rest in ran)
    assert [word for word, _ in found].index("USER") > max(at for at, (word, _) in enumerate(found) if word == "RUN")
    assert ("USER", "1000") in found


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_each_file_begins_with_three_commands_that_the_readme_has_too(file: Path) -> None:
    readme = (ROOT / "cluster" / "README.md").read_text(encoding="utf-8")
    head = re.match(r"(#!.*\n)?((#.*\n)+)", file.read_text(encoding="utf-8"))
    assert head
    commands = [
        line.partition("   #")[0].strip("# ") for line in re.findall(r"^#   \S.*$", head[2], flags=re.MULTILINE)
    ]
    assert len(commands[:3]) == 3
    assert file.name == "Dockerfile" or all(command.partition("       ")[0] in readme for command in commands[:3])


def test_the_page_shows_commands_with_options_they_have() -> None:
    text = (ROOT / "cluster" / "README.md").read_text(encoding="utf-8").replace("\n", " ")
    commands = {each.name or each.callback.__name__: each.callback for each in app.registered_commands if each.callback}
    shown = re.findall(r"\bstudy (submit|logs|status|stop|table|run) (.*?)(?=\bstudy |`)", text)
    assert {name for name, _ in shown} >= {"submit", "logs", "status", "stop"}
    for name, rest in shown:
        asked = re.findall(r"(?<=\s)--(\w+)", f" {rest}")
        assert set(asked) <= inspect.signature(commands[name]).parameters.keys(), (name, asked)


def test_the_slurm_script_is_a_sound_script() -> None:
    script = LAUNCH / "slurm.sh"
    checked = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "export RAY_AUTH_MODE=token" in script.read_text(encoding="utf-8")


SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do case $1 in --nodelist=*) node=${1#*=};; esac; shift; done
exec "${@/--temp-dir=*/--temp-dir=$HOME/$node}"
"""
"""A node is a folder of this machine."""


def test_a_slurm_job_ends_where_ray_does_not_start_on_a_node(tmp_path: Path) -> None:
    words = {
        "srun": '[[ "$*" == *hostname* ]] && echo 127.0.0.1 || exit 1',
        "scontrol": "echo a",
        "ray": "[ $1 != health-check ]",
    }
    for name, line in words.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{line}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_ID": "1", "SLURM_JOB_NODELIST": "a", "SLURM_CPUS_PER_TASK": "1", "HOME": str(tmp_path)}
    environment = os.environ | slurm | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    script = ["bash", str(LAUNCH / "slurm.sh"), "study.yaml", "runs"]
    ended = subprocess.run(script, env=environment, check=False, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert ended.stderr.endswith("Ray did not start on every node; see the lines above\n")


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_a_slurm_job_runs_a_study_on_its_nodes_and_ends_well_when_it_is_told_to(tmp_path: Path) -> None:
    home = Path(tempfile.mkdtemp(prefix="s-", dir="/tmp"))
    for name, text in {"srun": SRUN, "scontrol": "#!/bin/bash\nprintf '%s\\n' a b\n"}.items():
        (home / name).write_text(text)
        (home / name).chmod(0o755)
    path = f"{home}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    slurm = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "[a-b]", "SLURM_CPUS_PER_TASK": "1"}
    environment = os.environ | slurm | {"HOME": str(home), "PATH": path, "OMP_NUM_THREADS": "1"}
    words = ["bash", str(LAUNCH / "slurm.sh"), str(written(tiny(), tmp_path)), str(tmp_path / "runs")]

    def start() -> subprocess.Popen[bytes]:
        with (tmp_path / "log").open("ab") as log:
            return subprocess.Popen(words, env=environment, stdout=log, stderr=log, start_new_session=True)

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
        end_processes_of(home)
        shutil.rmtree(home, ignore_errors=True)


def end_processes_of(home: Path) -> None:
    """Ray's nodes drain for a while when they are told to end."""
    for process in psutil.process_iter(["cmdline"]):
        if any(f"{home}/" in word for word in process.info["cmdline"] or ()):
            process.kill()
