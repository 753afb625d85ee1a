"""The study file's JSON schema, for editors: `python -m study.config.json_schema` writes `study.schema.json`."""

import json
from pathlib import Path
from typing import Any

from study.config.schema import StudySpec

SCHEMA = Path(__file__).parents[1] / "study.schema.json"


def make_schema() -> dict[str, Any]:
    """Return the schema of what a file may say; names that refer to each other are checked by `study plan`."""
    schema = StudySpec.model_json_schema(mode="validation")
    _shorthands(schema["$defs"])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Study"}


def _shorthands(definitions: dict[str, Any]) -> None:
    """Add what validators turn into the long form: a stage's name, one baseline, factors by dotted path, kinds."""
    link = definitions["Link"]
    definitions["Link"] = {"anyOf": [{"type": "string"}, dict(link)], "description": link["description"]}
    compare = definitions["Compare"]
    factors = compare["properties"].pop("factors")
    compare["patternProperties"] = {r"\.": factors["additionalProperties"]}
    rules = compare["properties"]["baseline"]
    rules["anyOf"] = [rules["items"], {"type": "array", "items": rules.pop("items")}]
    del rules["type"]
    for definition in definitions.values():
        for tag in ("task", "source"):
            if "const" in definition.get("properties", {}).get(tag, {}):
                definition["required"] = [tag, *definition.get("required", [])]


def written() -> str:
    """Return the schema as the file holds it."""
    return json.dumps(make_schema(), indent=1) + "\n"


if __name__ == "__main__":
    SCHEMA.write_text(written(), encoding="utf-8")
