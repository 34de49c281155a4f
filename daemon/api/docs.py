"""`/docs`: the API on one page, made from its OpenAPI document.

FastAPI's own page loads a script of 1.5 MB from a public network. This one is plain HTML without scripts, so it works
in any browser, and on machines without Internet access. To try requests from a page, load `/openapi.json` into another
tool.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from fastapi import FastAPI, Response

from visaged.daemon.http.browsers.headers import SAFE

# As all answers have it (`SAFE`), but with the style of this page.
_HEADERS = {"Content-Security-Policy": f"style-src 'unsafe-inline'; {SAFE['Content-Security-Policy']}"}

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
section { border-top: 1px solid #8886; margin-top: 2rem; }
h2 { font: 600 1.1rem ui-monospace, monospace; }
b { background: #2463; border-radius: .3rem; padding: .1rem .5rem; margin-right: .5rem; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0; }
pre { background: #8882; padding: .6rem; overflow-x: auto; }
:root { color-scheme: light dark; }
"""

_METHODS = ("get", "put", "post", "delete", "options", "head", "patch")


def install_docs(app: FastAPI, with_keys: bool) -> None:
    """Add `/docs` to an application that was made with `docs_url=None`.

    Args:
        app: The application; its `/openapi.json` is not changed.
        with_keys: Whether requests must have an API key.
    """

    @app.get("/docs", include_in_schema=False, response_class=Response)
    def docs() -> Response:
        return Response(page(app.openapi(), with_keys), media_type="text/html", headers=_HEADERS)


def page(api: dict[str, Any], with_keys: bool) -> str:
    """Return the HTML page of an OpenAPI document.

    Args:
        api: The document.
        with_keys: Whether requests must have an API key.
    """
    info = api["info"]
    title = f"{escape(info['title'])} {escape(info['version'])}"
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1>",
        _paragraphs(info.get("summary")),
        _paragraphs(info.get("description")),
        '<p>For programs: <a href="openapi.json">openapi.json</a>.</p>',
    ]
    if with_keys:
        parts.append(
            "<p>Requests need an API key, as <code>Authorization: Bearer KEY</code> or <code>X-API-Key: KEY</code>; "
            "<code>visaged key NAME</code> makes one.</p>"
        )
    for path, operations in api["paths"].items():
        for method in _METHODS:
            if method in operations:
                parts.append(_operation(path, method, operations[method], with_keys))
    return "\n".join([*parts, "</body></html>"])


def _operation(path: str, method: str, operation: dict[str, Any], with_keys: bool) -> str:
    parts = [
        f"<section><h2><b>{method.upper()}</b>{escape(path)}</h2>",
        _paragraphs(operation.get("summary")),
        _paragraphs(operation.get("description")),
    ]
    rows = [
        (_code(p["name"]), f"{p['in']}{', required' if p.get('required') else ''}", _kind(p), escape(_text(p)))
        for p in operation.get("parameters", [])
    ]
    parts.append(_table(("Parameter", "In", "Values", ""), rows))
    body = operation.get("requestBody")
    if body is not None:
        types = ", ".join(_code(name) for name in body["content"])
        parts.append(f"<p>Body: {escape(body.get('description', ''))} {types}</p>")
    answers = [
        (_code(status), ", ".join(_code(name) for name in answer.get("content", {})), escape(answer["description"]))
        for status, answer in operation.get("responses", {}).items()
    ]
    parts.append(_table(("Status", "Type", ""), answers))
    if not any(p["in"] == "path" for p in operation.get("parameters", [])):
        parts.append(f"<pre>{escape(_curl(path, method, body, with_keys))}</pre>")
    return "\n".join([*parts, "</section>"])


def _curl(path: str, method: str, body: dict[str, Any] | None, with_keys: bool) -> str:
    """Return a curl command for the request; the shell variable `$VISAGED` stands for the server's address."""
    words = ["curl"]
    if with_keys:
        words.append('-H "X-API-Key: $KEY"')
    types = list(body["content"]) if body is not None else []
    if "application/json" in types:
        words += ["-H 'Content-Type: application/json'", "--data @request.json"]
    elif types:
        words.append("--data-binary @picture.jpg")
    elif method != "get":
        words.append(f"-X {method.upper()}")
    return " ".join([*words, f'"$VISAGED{path}"'])


def _kind(parameter: dict[str, Any]) -> str:
    schema = parameter.get("schema", {})
    choices = [choice for choice in [schema, *schema.get("anyOf", [])] if choice.get("type") != "null"]
    told = []
    for choice in choices:
        if "enum" in choice:
            told.append(" | ".join(str(value) for value in choice["enum"]))
        elif "type" in choice:
            bounds = [f"{sign} {choice[key]:g}" for key, sign in (("minimum", "≥"), ("maximum", "≤")) if key in choice]
            told.append(" ".join([choice["type"], *bounds]))
    default = f"; default {schema['default']}" if "default" in schema else ""
    return escape(" or ".join(told) + default)


def _text(parameter: dict[str, Any]) -> str:
    return str(parameter.get("description") or parameter.get("schema", {}).get("description") or "")


def _code(text: object) -> str:
    return f"<code>{escape(str(text))}</code>"


def _paragraphs(text: str | None) -> str:
    return "\n".join(f"<p>{escape(part)}</p>" for part in (text or "").split("\n\n") if part.strip())


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Return a table as HTML; empty if there are no rows. The cells must be HTML already."""
    if not rows:
        return ""
    lines = ["<table><tr>" + "".join(f"<th>{escape(head)}</th>" for head in heads) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows]
    return "\n".join([*lines, "</table>"])
