"""The Images service."""

from __future__ import annotations

from collections.abc import AsyncIterator

from craft_protos import images_pb2 as pb

from craftd.images.service import ImageService
from craftd.keys.caller import Caller
from craftd.rpc import mapping
from craftd.rpc.page import cut


class Images:
    def __init__(self, service: ImageService) -> None:
        self._service = service

    async def GetImage(self, request: pb.GetImageRequest, caller: Caller) -> AsyncIterator[pb.GetImageResponse]:
        image = await self._service.get(request.id, caller.scope)
        yield pb.GetImageResponse(image=mapping.image(image))
        if not request.metadata_only:
            async for chunk in self._service.chunks(image):
                yield pb.GetImageResponse(chunk=chunk)

    async def ListImages(self, request: pb.ListImagesRequest, caller: Caller) -> pb.ListImagesResponse:
        found = await self._service.list(request.page_size, request.page_token, request.job_id, caller.scope)
        images, token = cut([(seq, mapping.image(image)) for seq, image in found], request.page_size)
        return pb.ListImagesResponse(images=images, next_page_token=token)

    async def DeleteImage(self, request: pb.DeleteImageRequest, caller: Caller) -> pb.DeleteImageResponse:
        await self._service.delete(request.id, caller.scope)
        return pb.DeleteImageResponse()
