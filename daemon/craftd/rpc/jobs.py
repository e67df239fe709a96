"""The Jobs service."""

from __future__ import annotations

from collections.abc import AsyncIterator

from craft_protos import jobs_pb2 as pb

from craftd.jobs.service import JobService
from craftd.rpc import mapping
from craftd.rpc.guard import Context
from craftd.rpc.page import cut

LOCAL_OWNER = "local"  # whoever reaches the socket


class Jobs:
    def __init__(self, service: JobService) -> None:
        self._service = service

    async def CreateJob(self, request: pb.CreateJobRequest, _: Context) -> pb.Job:
        return mapping.job(await self._service.create(LOCAL_OWNER, mapping.job_request(request)))

    async def PlanJob(self, request: pb.CreateJobRequest, _: Context) -> pb.JobPlan:
        return mapping.plan(await self._service.plan(mapping.job_request(request)))

    async def GetJob(self, request: pb.GetJobRequest, _: Context) -> pb.Job:
        return mapping.job(await self._service.get(request.id))

    async def ListJobs(self, request: pb.ListJobsRequest, _: Context) -> pb.ListJobsResponse:
        states = mapping.states(list(request.states))
        found = await self._service.list(request.page_size, request.page_token, states)
        jobs, token = cut([(seq, mapping.job(view)) for seq, view in found], request.page_size)
        return pb.ListJobsResponse(jobs=jobs, next_page_token=token)

    async def CancelJob(self, request: pb.CancelJobRequest, _: Context) -> pb.Job:
        return mapping.job(await self._service.cancel(request.id))

    async def WatchJob(self, request: pb.WatchJobRequest, _: Context) -> AsyncIterator[pb.JobEvent]:
        async for event in self._service.watch(request.id, request.preview_every):
            yield mapping.event(event)
