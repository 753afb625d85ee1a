"""The private names of Ray that this package depends on.

Ray may change them in any release, so pyproject.toml bounds its version from above.
`tests/cluster/test_ray_internals.py` fails where a private name is used that is not listed here, or a listed name does
not exist in the installed Ray.
"""

from dataclasses import dataclass

RAY_VERSION = "2.60.0"


@dataclass(frozen=True, kw_only=True)
class PrivateName:
    """A name of Ray that is neither documented nor annotated as public or developer API.

    Args:
        name: Import path; `function(argument)` for a private argument; otherwise the text that Ray understands.
        members: Attributes, methods or keys that are used of it.
        used_for: Why no public name serves.
        seen_in: Version of Ray in which it was seen.
        if_absent: What happens in a version without it.
    """

    name: str
    members: tuple[str, ...] = ()
    used_for: str
    if_absent: str
    seen_in: str = RAY_VERSION


PRIVATE_NAMES = (
    PrivateName(
        name="ray._raylet.AuthenticationTokenLoader",
        members=("instance", "reset_cache", "has_token", "get_raw_token"),
        used_for="a new token for each local cluster (Ray keeps the first that it reads); reading the token to send",
        if_absent="ImportError when a local cluster starts, and in `study submit`, `logs` and `stop`",
    ),
    PrivateName(
        name="ray._private.ray_constants.ENABLE_RAY_CLUSTER",
        used_for="servers of a local cluster on the loopback interface; on Linux `ray.init` has no option for it",
        if_absent="AttributeError when a local cluster starts",
    ),
    PrivateName(
        name="ray._private.worker._global_node",
        members=("kill_monitor", "kill_dashboard"),
        used_for="ending the autoscaler and the dashboard of a local cluster, which Ray starts in any case",
        if_absent="both keep running: the shutdown takes a second longer, and metrics are served on loopback",
    ),
    PrivateName(
        name="ray.init(_temp_dir)",
        used_for="the files of a local cluster in a folder that only this user can open",
        if_absent="RuntimeError when a local cluster starts",
    ),
    PrivateName(
        name="ray.init(_system_config)",
        members=(
            "enable_metrics_collection",
            "idle_worker_killing_memory_threshold_bytes",
            "idle_worker_killing_time_threshold_ms",
            "preload_python_modules",
        ),
        used_for="workers that have imported torch before their first stage, and no metrics",
        if_absent="RuntimeError when a local cluster starts; with an unknown key Ray's processes do not start",
    ),
    PrivateName(
        name="ray.job_submission.JobSubmissionClient",
        members=("_do_request",),
        used_for="time limits and no redirects for requests to a dashboard",
        if_absent="every command with --address ends with an error",
    ),
    PrivateName(
        name="ray._private.runtime_env.packaging",
        used_for="name of a logger that prints every upload",
        if_absent="`study submit` prints Ray's messages",
    ),
    PrivateName(
        name="ray.dashboard.modules.dashboard_sdk",
        used_for="name of a logger that prints every upload",
        if_absent="`study submit` prints Ray's messages",
    ),
    PrivateName(
        name="ray.dashboard.modules.job.sdk",
        used_for="name of a logger that prints every upload",
        if_absent="`study submit` prints Ray's messages",
    ),
    PrivateName(
        name="node:__internal_head__",
        used_for="placing a trial that only waits for its workers on the head; resource of Ray's head node",
        if_absent="stages with several workers never start",
    ),
    PrivateName(
        name="ray.tune.execution.tune_controller.RayActorManager",
        members=("_actor_task_failed",),
        used_for="retrying a stage whose worker was killed out of memory; Tune ends the run at that error",
        if_absent="AttributeError before the first stage; without the method, an out-of-memory kill ends the run",
    ),
    PrivateName(
        name="ray.tune.execution.tune_controller._ActorClassCache",
        used_for="reusing the idle workers of a local cluster; Tune gives its actors an environment of their own",
        if_absent="AttributeError before the first stage",
    ),
    PrivateName(
        name="ray.train._internal.base_worker_group.BaseWorkerGroup",
        members=("execute_single",),
        used_for="torch's TCP store on the loopback interface; a backend receives its workers as this class",
        if_absent="stages with several workers fail",
    ),
    PrivateName(
        name="ray.train.v2._internal.exceptions.WorkerHealthCheckFailedError",
        members=("health_check_failure",),
        used_for="restarting the workers of a stage after one was lost, but not after an error of the stage",
        if_absent="ImportError at the first stage with several workers",
    ),
    PrivateName(
        name="ray.train.v2._internal.exceptions.WorkerHealthCheckTimeoutError",
        used_for="restarting the workers of a stage after one stopped responding",
        if_absent="ImportError at the first stage with several workers",
    ),
)
