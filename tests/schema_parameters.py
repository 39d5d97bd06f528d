"""The pipeline's parameters as nextflow_schema.json has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SCHEMA: dict[str, Any] = json.loads((Path(__file__).parents[1] / "nextflow_schema.json").read_text())
#: In the schema's order, each with its title and properties.
GROUPS: list[dict[str, Any]] = list(SCHEMA["$defs"].values())
#: Parameter -> its rule.
PROPERTIES: dict[str, dict[str, Any]] = {name: rule for group in GROUPS for name, rule in group["properties"].items()}
