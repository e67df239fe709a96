"""The page at /docs, made from the OpenAPI schema: one file, no scripts, nothing from elsewhere."""

from __future__ import annotations

from html import escape
from typing import Any

Schema = dict[str, Any]

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 2.5rem; } section { border-top: 1px solid #8886; padding: .5rem 0 1rem; }
h3, code, td:first-child { font-family: ui-monospace, monospace; } h3 b { display: inline-block; min-width: 4.5rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th { text-align: left; } td, th { padding: .2rem .8rem .2rem 0; vertical-align: top; border-bottom: 1px solid #8883; }
"""


def page_of(schema: Schema) -> str:
    """HTML."""
    title = escape(f"{schema['info']['title']} {schema['info']['version']}: HTTP")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body><main><h1>{title}</h1>'
        f"<p>{escape(schema['info'].get('description', ''))} A key comes as <code>X-API-Key</code>,"
        " <code>Authorization: Bearer</code>, the password of Basic, or the body's <code>token</code>."
        ' The same as <a href="openapi.json">OpenAPI</a>.</p>'
        f"{''.join(_group(tag, schema) for tag in _tags(schema))}</main></body></html>"
    )


def _tags(schema: Schema) -> list[str]:
    return list(dict.fromkeys(tag for _, _, operation in _operations(schema) for tag in operation.get("tags", [""])))


def _operations(schema: Schema) -> list[tuple[str, str, Schema]]:
    return [(path, method, one) for path, methods in schema["paths"].items() for method, one in methods.items()]


def _group(tag: str, schema: Schema) -> str:
    chosen = [each for each in _operations(schema) if tag in each[2].get("tags", [""])]
    inside = [_operation(path, method, one, schema) for path, method, one in chosen]
    return f"<h2>{escape(tag or 'Other')}</h2>{''.join(inside)}"


def _operation(path: str, method: str, one: Schema, schema: Schema) -> str:
    key = " <small>needs a key</small>" if one.get("security") else ""
    return (
        f"<section><h3><b>{method.upper()}</b> {escape(path)}</h3><p>{escape(one.get('description', ''))}{key}</p>"
        f"{_table('Parameter', [_parameter(each) for each in one.get('parameters', [])])}"
        f"{_table('Field', _fields(one, schema))}{_table('Status', _statuses(one))}</section>"
    )


def _table(head: str, rows: list[tuple[str, str, str]]) -> str:
    if not rows:
        return ""
    cells = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr><th>{head}</th><th></th><th></th></tr></thead><tbody>{cells}</tbody></table>"


def _parameter(one: Schema) -> tuple[str, str, str]:
    return one["name"], _kind(one.get("schema", {})), one.get("description", "")


def _fields(one: Schema, schema: Schema) -> list[tuple[str, str, str]]:
    content = one.get("requestBody", {}).get("content", {}).get("application/json", {})
    body = _resolved(content.get("schema", {}), schema)
    required = body.get("required", [])
    return [
        (name, _kind(_resolved(field, schema)) + (", required" if name in required else ""), _about(field))
        for name, field in body.get("properties", {}).items()
    ]


def _about(field: Schema) -> str:
    default = field.get("default")
    return " ".join([field.get("description", ""), f"({default})" if default not in (None, "", [], {}) else ""]).strip()


def _statuses(one: Schema) -> list[tuple[str, str, str]]:
    return [(status, answer.get("description", ""), "") for status, answer in sorted(one["responses"].items())]


def _resolved(part: Schema, schema: Schema) -> Schema:
    name = part.get("$ref", "").rpartition("/")[2]
    found: Schema = schema["components"]["schemas"][name] if name else part
    return found


def _kind(part: Schema) -> str:
    if "anyOf" in part:
        return " or ".join(_kind(each) for each in part["anyOf"] if each.get("type") != "null")
    if "enum" in part or "const" in part:
        return ", ".join(str(value) for value in part.get("enum", [part.get("const")]))
    limits = [
        f"from {part['minimum']}" if "minimum" in part else "",
        f"to {part['maximum']}" if "maximum" in part else "",
    ]
    return " ".join([part.get("type", "object"), *filter(None, limits)])
