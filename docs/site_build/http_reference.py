"""The reference of the HTTP endpoints, made from the description that a server gives of itself at `/openapi.json`."""

import json
import re
from typing import Any

from sefa_runtime.server.http.openapi import REFUSALS, describe
from sefa_runtime.server.settings import Settings

PAGE = "reference/http.md"
# In the page, the endpoints take this line's place.
ENDPOINTS_HERE = "<!-- The endpoints, in the site. -->"
DONE = {"200": "Done.", "304": "The image is the one that `If-None-Match` names; nothing was run."}


def endpoints() -> str:
    """Return the endpoints, as Markdown: what each takes, with examples, and its statuses."""
    document = describe([], Settings())
    lines: list[str] = []
    groups: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            (group,) = operation["tags"]
            groups.setdefault(group, []).extend(_endpoint(path, method, operation, document["components"]["schemas"]))
    for group, members in groups.items():
        lines += [f"## {group}", "", *members]
    lines += ["## Statuses", "", "| status | means |", "|---|---|"]
    lines += [f"| {status} | {text} |" for status, text in (DONE | REFUSALS).items()]
    return "\n".join(lines)


def _endpoint(path: str, method: str, operation: dict[str, Any], schemas: dict[str, Any]) -> list[str]:
    lines = [f"### {method.upper()} {path}", ""]
    described = operation.get("description")
    # The images' summaries are their functions' names.
    lines += [operation["summary"], ""] if not described or path.startswith("/v2") else []
    lines += [described, ""] if described else []
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "query":
            lines += _field(parameter["name"], parameter["schema"])
    for content in operation.get("requestBody", {}).get("content", {}).values():
        schema = _referred(content["schema"], schemas)
        lines += ["The body is JSON:", ""]
        for name, field in schema["properties"].items():
            lines += _field(name, field, required=name in schema.get("required", ()))
            for inner in (_referred(one, schemas) for one in field.get("anyOf", ())):
                for part, its_schema in inner.get("properties", {}).items():
                    lines += _field(f"{name}.{part}", its_schema, required=part in inner.get("required", ()))
        for title, example in content["examples"].items():
            text = json.dumps(example["value"])
            lines += [f"{title}:", "", "```json", text if len(text) < 120 else _shortened(example["value"]), "```", ""]
    statuses = sorted(operation["responses"].items())
    answers = ", ".join(f"`{kind}`" for _, answer in statuses[:1] for kind in answer.get("content", {}))
    lines += [f"Answers {answers}; status {', '.join(status for status, _ in statuses)}.", ""]
    return lines


def _referred(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """Return the schema that another one refers to; an empty one if it refers to none."""
    found: dict[str, Any] = schemas.get(schema.get("$ref", "").rpartition("/")[2], {})
    return found


def _field(name: str, schema: dict[str, Any], required: bool = False) -> list[str]:
    """Return the lines of a parameter or a field of a body: its name, and what it means."""
    default = schema.get("default")
    remarks = [
        schema.get("description", ""),
        "Required." if required else "",
        f"{schema['minimum']} to {schema['maximum']}." if "minimum" in schema and "maximum" in schema else "",
        f"One of {', '.join(f'`{choice}`' for choice in schema['enum'])}." if "enum" in schema else "",
        f"Default: `{default}`." if default not in (None, False) else "",
    ]
    text = " ".join(filter(None, remarks)).replace("[", "\\[")
    return [f"`{name}`", f":   {text or schema.get('title', name)}", ""]


def _shortened(value: dict[str, Any]) -> str:
    """Return an example with the middle of its long lists left out."""

    def cut(one: Any) -> Any:
        if isinstance(one, dict):
            return {key: cut(inner) for key, inner in one.items()}
        if isinstance(one, list) and len(one) > 4 and not isinstance(one[0], dict):
            return [*one[:2], "...", one[-1]]
        return [cut(inner) for inner in one] if isinstance(one, list) else one

    text = json.dumps(cut(value), indent=1).replace('"..."', "...")
    return re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda match: f"[{' '.join(match[1].split())}]", text)
