"""`/`: the page for people, and its files.

The page holds no data: everything it shows comes from the HTTP API, with the viewer's own rights. So it is open without
a key, and the same for everybody. Its files are read once, at the start, into a table; a path that is not in the table
is not looked for.

The page names its files below a folder whose name changes with any of them. So browsers keep them for ever, ask for
nothing but `/` at the next visit, and never mix the files of two versions.
"""

from __future__ import annotations

import gzip
import hashlib
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from fastapi import FastAPI, Request, Response

from visaged.daemon.http.problems import Problem

_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_INDEX, _ICON, _STYLE = "index.html", "icon.svg", "style.css"
_MAIN, _CODE = "js/main.js", "page.js"
_LINK = b'<link rel="stylesheet" href="page/'
# How the page's modules are written: all that they import and export has a name and stands at the start of a line.
_IMPORT = re.compile(r'^import \{ (.+) \} from "(\.[^"]+)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export ((?:async )?(?:class|function\*?|const) (\w+))", re.MULTILINE)

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), clipboard-write=(self)",
    "Vary": "Accept-Encoding",
}
_ASK_AGAIN = "no-cache"
_KEEP = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class PageFile:
    """A file of the page.

    Attributes:
        media_type: Its type, with the character set of texts.
        plain: Its bytes.
        packed: Its bytes, compressed with gzip.
        tag: Changes when the bytes do.
    """

    media_type: str
    plain: bytes
    packed: bytes
    tag: str


def read_files() -> dict[str, PageFile]:
    """Return the files of the page by their paths below the page's folder, such as `js/main.js`."""
    return {path: _file(path, entry.read_bytes()) for path, entry in _walk(files("visaged.daemon") / "page", "")}


def version_of(table: Mapping[str, PageFile]) -> str:
    """Return a word that changes with any of the files."""
    tags = "".join(f"{path} {file.tag} " for path, file in sorted(table.items()))
    return hashlib.sha256(tags.encode()).hexdigest()[:16]


def joined_styles(table: Mapping[str, PageFile]) -> tuple[bytes, bytes]:
    """Return the page with one style sheet in place of all that it names, and that sheet.

    Browsers ask for six files at a time, and a first visit waits for the last of them.
    """
    before, *links = table[_INDEX].plain.split(_LINK)
    names, rest = [], b""
    for link in links:
        name, _, rest = link.partition(b'">\n')
        names.append(name.decode())
    style = b"".join(table[name].plain for name in names)
    return before + _LINK + _STYLE.encode() + b'">\n' + rest, style


def joined_modules(table: Mapping[str, PageFile]) -> bytes:
    """Return the page's modules as one: each is a function that is called once and returns what the module exports.

    For twenty-seven modules a browser with its six connections asks five times, one after another: on a busy machine
    that was most of the time until the first picture. No two modules may import each other.
    """
    names: dict[str, str] = {}
    parts: list[str] = []

    def add(path: str) -> str:
        if path not in names:
            text = table[path].plain.decode()
            body = _IMPORT.sub(
                lambda found: f"const {{ {found[1].replace(' as ', ': ')} }} = {add(_beside(path, found[2]))};\n", text
            )
            exports = ", ".join(found[2] for found in _EXPORT.finditer(text))
            names[path] = f"module{len(names)}"
            body = _EXPORT.sub(r"\1", body)
            parts.append(f"// {path}\nconst {names[path]} = (() => {{\n{body}return {{ {exports} }};\n}})();\n")
        return names[path]

    add(_MAIN)
    return "".join(parts).encode()


def _beside(path: str, name: str) -> str:
    """Return the path that a module means by a relative name."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), name))


def _walk(folder: Traversable, prefix: str) -> list[tuple[str, Traversable]]:
    found = []
    for entry in folder.iterdir():
        if entry.is_dir():
            found += _walk(entry, f"{prefix}{entry.name}/")
        elif entry.name.rpartition(".")[2] in _TYPES:
            found.append((prefix + entry.name, entry))
    return found


def _file(path: str, data: bytes) -> PageFile:
    media_type = _TYPES[path.rpartition(".")[2]]
    return PageFile(media_type, data, gzip.compress(data, mtime=0), hashlib.sha256(data).hexdigest()[:16])


def install_page(app: FastAPI) -> None:
    """Add the page at `/`, its files below `/page/`, and its icon where browsers look for one unasked."""
    table = read_files()
    markup, style = joined_styles(table)
    markup = markup.replace(_MAIN.encode(), _CODE.encode())
    table |= {_STYLE: _file(_STYLE, style), _CODE: _file(_CODE, joined_modules(table))}
    version = version_of(table)
    start = _file(_INDEX, markup.replace(b'"page/', f'"page/{version}/'.encode()))
    options: dict[str, Any] = {"include_in_schema": False, "response_class": Response}

    # All is in memory: on the event loop, a first visit waits for no thread.

    @app.get("/", **options)
    async def index(request: Request) -> Response:
        return _answer(start, request, _ASK_AGAIN)

    @app.get("/favicon.ico", **options)
    async def favicon(request: Request) -> Response:
        return _answer(table[_ICON], request, _ASK_AGAIN)

    @app.get("/page/{path:path}", **options)
    async def part(request: Request, path: str) -> Response:
        folder, _, below = path.partition("/")
        kept = folder == version
        path = below if kept else path
        if path not in table:
            raise Problem(HTTPStatus.NOT_FOUND, "not-found", "the page has no such file; the page itself is at /")
        return _answer(table[path], request, _KEEP if kept else _ASK_AGAIN)


def _answer(file: PageFile, request: Request, caching: str) -> Response:
    packed = _takes_gzip(request.headers.get("accept-encoding", ""))
    tag = f'"{file.tag}{"-gz" if packed else ""}"'
    headers = _HEADERS | {"ETag": tag, "Cache-Control": caching}
    known = [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]
    if tag in known or "*" in known:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    if packed:
        headers["Content-Encoding"] = "gzip"
    return Response(file.packed if packed else file.plain, headers=headers, media_type=file.media_type)


def _takes_gzip(accepted: str) -> bool:
    for one in accepted.lower().split(","):
        name, _, weight = one.partition(";")
        if name.strip() == "gzip":
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
