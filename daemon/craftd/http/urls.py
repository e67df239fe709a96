"""Where an image is found."""

from __future__ import annotations

from starlette.requests import Request

from craftd.images.image import Image


def url_of(request: Request, image: Image) -> str:
    """Where everybody finds it."""
    return f"{_base(request)}/image/{image.id}"


def own_url_of(request: Request, image: Image) -> str:
    """Where its owner's key finds it."""
    return f"{_base(request)}/images/{image.id}"


def _base(request: Request) -> str:
    """The configured public URL, else what the caller called us."""
    public_url: str = request.app.state.services.settings.http.public_url
    return public_url.rstrip("/") or f"{request.url.scheme}://{request.url.netloc}"
