"""Where a public image is found."""

from __future__ import annotations

from starlette.requests import Request

from craftd.images.image import Image


def url_of(request: Request, image: Image) -> str:
    """Below the configured public URL, else below what the caller called us."""
    public_url: str = request.app.state.services.settings.http.public_url
    base = public_url.rstrip("/") or f"{request.url.scheme}://{request.url.netloc}"
    return f"{base}/image/{image.id}"
