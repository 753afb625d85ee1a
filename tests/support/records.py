"""Finished stages that consist of records only."""

from study.planning.graph import Plan
from study.store.store import WEIGHTS, Store, score_files


def publish_record(store: Store, plan: Plan, digest: str, **fields: object) -> None:
    """Publish a planned stage with the record that training would write, updated by `fields`."""
    node, draft = plan.nodes[digest], store.work(digest) / "draft"
    draft.mkdir(parents=True)
    (draft / WEIGHTS).write_bytes(bytes(1000))
    (draft / "history.parquet").write_bytes(bytes(100))
    for name in (name for key in plan.scorings.get(digest, {}) for name in score_files(key)):
        (draft / name).touch()
    step = node.step
    record = {
        "architecture": step.architecture,
        "backbone": step.backbone,
        "settings": step.settings.model_dump(mode="json", by_alias=True),
        "image": step.image.model_dump(mode="json"),
        "link": step.link.model_dump(mode="json"),
        "data": {"train": len(plan.views[node.selection.data].stage_rows(node.selection).train)},
        "updates": 1,
        "parameters": 250,
        "seconds": 1.0,
        "cpus": 1,
        "workers": 1,
        "device": "cpu",
        "gpu_memory": None,
    }
    assert store.publish(digest, draft, record | fields)
