"""The page at /: three plain files of this package, which load nothing from anywhere else."""

from collections.abc import Awaitable, Callable
from importlib import resources

from fastapi import FastAPI
from starlette.responses import Response

PAGE = {"/": ("index.html", "text/html"), "/page.css": ("page.css", "text/css"), "/page.js": ("page.js", "text/javascript")}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # the link keeps the prompt
    "Cache-Control": "no-cache",
}


def add_page(api: FastAPI) -> None:
    """The page's files at their paths."""
    folder = resources.files("irm_lite.serve.http") / "static"
    for path, (name, kind) in PAGE.items():
        api.add_api_route(path, _serve((folder / name).read_bytes(), kind), include_in_schema=False)


def _serve(data: bytes, kind: str) -> Callable[[], Awaitable[Response]]:
    async def file() -> Response:
        return Response(data, media_type=kind, headers=_HEADERS)

    return file
