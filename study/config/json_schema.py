"""The JSON schema of a study file, for editors: `python -m study.config.json_schema` writes `study.schema.json`."""

import json
from pathlib import Path
from typing import Any

from study.config.schema import StudySpec

SCHEMA = Path(__file__).parents[1] / "study.schema.json"


def make_schema() -> dict[str, Any]:
    """Return the JSON schema of a study file. References between sections are checked by `study plan` only."""
    schema = StudySpec.model_json_schema(mode="validation")
    _add_short_forms(schema["$defs"])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Study"}


def _add_short_forms(definitions: dict[str, Any]) -> None:
    """Add the short forms that validators accept: a stage name, a single baseline, dotted factors; require the tags."""
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
    """Return the content of the schema file."""
    return json.dumps(make_schema(), indent=1) + "\n"


if __name__ == "__main__":
    SCHEMA.write_text(written(), encoding="utf-8")
