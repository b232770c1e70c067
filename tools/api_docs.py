"""Write docs/reference/api.md from crds/; with --check, only say whether it is up to date."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
CRDS = ROOT / "crds"
PAGE = ROOT / "docs" / "reference" / "api.md"
ORDER = ("gangjobs", "queues", "pools", "fairnesspolicies", "nodetopologies", "queueviews")
SKIPPED = ("apiVersion", "kind", "metadata")
HEAD = """# The API: fairlead.dev/v1alpha1

Written from `crds/` by `tools/api_docs.py`; do not edit by hand. `kubectl explain gangjob.spec` says the same.

A field marked *not supported yet* is refused by name when it is set; no field is accepted and then ignored. Times are
UTC; a name that ends in `Ms` is milliseconds. `[]` marks the items of a list, `{}` the values of a map.

| kind | short name | scope | who writes it |
|---|---|---|---|
| GangJob | gj | namespaced | tenants; status by the operator |
| Queue | fq | cluster | queue admins; status by the operator |
| Pool | none | cluster | the platform team; status by the operator |
| FairnessPolicy | fp | cluster | the platform team |
| NodeTopology | nt | cluster | the node agent, status too |
| QueueView | qv | namespaced | the operator; tenants read it |

Every kind is in the category `fairlead`: `kubectl get fairlead`. Submitting to a queue needs the RBAC verb `use` on it.
"""


def load(folder: Path = CRDS) -> list[dict[str, Any]]:
    """Read the CRDs in the order of the page; a file that ORDER does not name comes last."""
    found = sorted(path.stem for path in folder.glob("*.yaml"))
    names = [name for name in ORDER if name in found] + [name for name in found if name not in ORDER]
    return [yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8")) for name in names]


def schema_of(crd: dict[str, Any]) -> dict[str, Any]:
    """Return the only version's openAPIV3Schema."""
    (version,) = crd["spec"]["versions"]
    schema: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return schema


def fields(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Walk a schema in its own order; yield (path, schema, required) for each field, list item and map value."""
    required = schema.get("required", [])
    for name, child in schema.get("properties", {}).items():
        if not path and name in SKIPPED:
            continue
        here = f"{path}.{name}" if path else name
        yield here, child, name in required
        yield from fields(child, here)
    if "items" in schema:
        yield f"{path}[]", schema["items"], False
        yield from fields(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield f"{path}{{}}", schema["additionalProperties"], False
        yield from fields(schema["additionalProperties"], f"{path}{{}}")


def rules(schema: dict[str, Any]) -> Iterator[str]:
    """Yield the sentence of every CEL rule, the schema's own first."""
    for rule in schema.get("x-kubernetes-validations", []):
        yield rule["message"]
    for _, child, _ in fields(schema):
        for rule in child.get("x-kubernetes-validations", []):
            yield rule["message"]


def _bounds(field: dict[str, Any]) -> str:
    """Say in a few words what values the schema takes."""
    said = []
    if "enum" in field:
        said.append(" \\| ".join(f"`{value}`" for value in field["enum"]))
    least, most = field.get("minimum"), field.get("maximum")
    if least is not None and most is not None:
        said.append(f"{least} to {most}")
    elif least is not None:
        said.append(f"at least {least}")
    for key, word in (("maxLength", "characters"), ("maxItems", "items"), ("maxProperties", "entries")):
        if key in field:
            said.append(f"up to {field[key]} {word}")
    if "default" in field and field["default"] != {}:
        said.append(f"default `{json.dumps(field['default']).strip(chr(34))}`")
    return "; ".join(said)


def _section(crd: dict[str, Any]) -> str:
    """Render one kind: what it is, a table of its fields, its columns and its rules."""
    names, schema = crd["spec"]["names"], schema_of(crd)
    (version,) = crd["spec"]["versions"]
    lines = [f"## {names['kind']}", "", schema["description"], ""]
    lines += ["| field | type | values | meaning |", "|---|---|---|---|"]
    for path, field, required in fields(schema):
        kind = f"{field['type']}, required" if required else field["type"]
        lines.append(f"| `{path}` | {kind} | {_bounds(field)} | {field['description']} |")
    columns = version["additionalPrinterColumns"]
    shown = ", ".join(column["name"] for column in columns if not column.get("priority"))
    wide = ", ".join(column["name"] for column in columns if column.get("priority"))
    also = f" With `-o wide` also: {wide}." if wide else ""
    lines += ["", f"Columns of `kubectl get {names['plural']}`: {shown}.{also}"]
    messages = list(rules(schema))
    if messages:
        lines += ["", "Refused at submission with one of these sentences:", ""]
        lines += [f"- {message}" for message in messages]
    return "\n".join(lines) + "\n"


def render(crds: list[dict[str, Any]]) -> str:
    """Render the whole page, ending with one newline."""
    return "\n".join([HEAD, *(_section(crd) for crd in crds)])


def main(arguments: list[str]) -> int:
    """Run; return 0 when the page is up to date, 1 when --check found that it is not, 2 for wrong usage."""
    if arguments not in ([], ["--check"]):
        print("usage: api_docs.py [--check]", file=sys.stderr)
        return 2
    page = render(load())
    if not arguments:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(page, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page:
        print("docs/reference/api.md is out of date: run tools/api_docs.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
