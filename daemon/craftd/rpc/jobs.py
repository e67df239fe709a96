"""The Jobs service."""

from __future__ import annotations

from collections.abc import AsyncIterator

from craft_protos import jobs_pb2 as pb

from craftd.jobs.service import JobService
from craftd.keys.caller import Caller
from craftd.rpc import mapping
from craftd.rpc.page import cut


class Jobs:
    def __init__(self, service: JobService) -> None:
        self._service = service

    async def CreateJob(self, request: pb.CreateJobRequest, caller: Caller) -> pb.Job:
        return mapping.job(await self._service.create(caller, mapping.job_request(request)))

    async def PlanJob(self, request: pb.CreateJobRequest, caller: Caller) -> pb.JobPlan:
        return mapping.plan(await self._service.plan(caller, mapping.job_request(request), learns=True))

    async def GetJob(self, request: pb.GetJobRequest, caller: Caller) -> pb.Job:
        return mapping.job(await self._service.get(caller, request.id))

    async def ListJobs(self, request: pb.ListJobsRequest, caller: Caller) -> pb.ListJobsResponse:
        states = mapping.states(list(request.states))
        found = await self._service.list(caller, request.page_size, request.page_token, states)
        jobs, token = cut([(seq, mapping.job(view)) for seq, view in found], request.page_size)
        return pb.ListJobsResponse(jobs=jobs, next_page_token=token)

    async def CancelJob(self, request: pb.CancelJobRequest, caller: Caller) -> pb.Job:
        return mapping.job(await self._service.cancel(caller, request.id))

    async def WatchJob(self, request: pb.WatchJobRequest, caller: Caller) -> AsyncIterator[pb.JobEvent]:
        async for event in self._service.watch(caller, request.id, request.preview_every):
            yield mapping.event(event)
