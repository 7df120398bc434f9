"""The protocol without an SDK's worker: work items are taken and answered one by one."""

import queue
import threading
import time
from datetime import datetime, timedelta, timezone
from typing import Any, Callable

import grpc
from google.protobuf import timestamp_pb2, wrappers_pb2

import durabletask.internal.orchestrator_service_pb2 as pb
import durabletask.internal.orchestrator_service_pb2_grpc as stubs

from .server import Server

PATIENCE = 30


def text(value: str | None) -> wrappers_pb2.StringValue | None:
    return None if value is None else wrappers_pb2.StringValue(value=value)


def timestamp(value: datetime) -> timestamp_pb2.Timestamp:
    stamp = timestamp_pb2.Timestamp()
    stamp.FromDatetime(value)
    return stamp


def now() -> datetime:
    return datetime.now(timezone.utc)


def after(seconds: float) -> datetime:
    return now() + timedelta(seconds=seconds)


def nanoseconds(stamp: timestamp_pb2.Timestamp) -> int:
    return stamp.ToNanoseconds()


def kind(event: pb.HistoryEvent) -> str:
    return event.WhichOneof("eventType")


def kinds(events) -> list[str]:
    return [kind(event) for event in events]


# What a turn asks for.

def schedule(id: int, name: str, input: str | None = None, **fields: Any) -> pb.OrchestratorAction:
    return pb.OrchestratorAction(id=id, scheduleTask=pb.ScheduleTaskAction(name=name, input=text(input), **fields))


def timer(id: int, fire_at: datetime) -> pb.OrchestratorAction:
    return pb.OrchestratorAction(id=id, createTimer=pb.CreateTimerAction(fireAt=timestamp(fire_at)))


def child(id: int, name: str, instance_id: str = "", input: str | None = None, **fields: Any) -> pb.OrchestratorAction:
    return pb.OrchestratorAction(id=id, createSubOrchestration=pb.CreateSubOrchestrationAction(
        name=name, instanceId=instance_id, input=text(input), **fields))


def send_event(id: int, target: str, name: str, data: str | None = None) -> pb.OrchestratorAction:
    return pb.OrchestratorAction(id=id, sendEvent=pb.SendEventAction(
        instance=pb.OrchestrationInstance(instanceId=target), name=name, data=text(data)))


def complete(id: int, result: str | None = None, status: int = pb.ORCHESTRATION_STATUS_COMPLETED,
             **fields: Any) -> pb.OrchestratorAction:
    return pb.OrchestratorAction(id=id, completeOrchestration=pb.CompleteOrchestrationAction(
        orchestrationStatus=status, result=text(result), **fields))


def fail(id: int, error_type: str = "Broken", message: str = "it broke") -> pb.OrchestratorAction:
    return complete(id, status=pb.ORCHESTRATION_STATUS_FAILED, failureDetails=pb.TaskFailureDetails(
        errorType=error_type, errorMessage=message))


def continue_as_new(id: int, input: str, **fields: Any) -> pb.OrchestratorAction:
    return complete(id, input, pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW, **fields)


def call(id: int, entity: str, operation: str, request_id: str, parent: str,
         input: str | None = None) -> pb.OrchestratorAction:
    return pb.OrchestratorAction(id=id, sendEntityMessage=pb.SendEntityMessageAction(
        entityOperationCalled=pb.EntityOperationCalledEvent(
            requestId=request_id, operation=operation, input=text(input),
            parentInstanceId=text(parent), targetInstanceId=text(entity))))


def signal(id: int, entity: str, operation: str, request_id: str, input: str | None = None,
           at: datetime | None = None) -> pb.OrchestratorAction:
    return pb.OrchestratorAction(id=id, sendEntityMessage=pb.SendEntityMessageAction(
        entityOperationSignaled=pb.EntityOperationSignaledEvent(
            requestId=request_id, operation=operation, input=text(input), targetInstanceId=text(entity),
            scheduledTime=None if at is None else timestamp(at))))


def lock(id: int, entities: list[str], section: str, parent: str) -> pb.OrchestratorAction:
    return pb.OrchestratorAction(id=id, sendEntityMessage=pb.SendEntityMessageAction(
        entityLockRequested=pb.EntityLockRequestedEvent(
            criticalSectionId=section, lockSet=sorted(entities), position=0, parentInstanceId=text(parent))))


def unlock(id: int, entity: str, section: str, parent: str) -> pb.OrchestratorAction:
    return pb.OrchestratorAction(id=id, sendEntityMessage=pb.SendEntityMessageAction(
        entityUnlockSent=pb.EntityUnlockSentEvent(
            criticalSectionId=section, parentInstanceId=text(parent), targetInstanceId=text(entity))))


# What an entity's operations come to.

def done(result: str | None = None) -> pb.OperationResult:
    return pb.OperationResult(success=pb.OperationResultSuccess(
        result=text(result), startTimeUtc=timestamp(now()), endTimeUtc=timestamp(now())))


def broken(message: str = "it broke") -> pb.OperationResult:
    return pb.OperationResult(failure=pb.OperationResultFailure(
        failureDetails=pb.TaskFailureDetails(errorType="Broken", errorMessage=message),
        startTimeUtc=timestamp(now()), endTimeUtc=timestamp(now())))


class Caller:
    """The client's half of the protocol."""

    def __init__(self, server: Server):
        self._channel = server.channel()
        self.stub = stubs.TaskHubSidecarServiceStub(self._channel)

    def start(self, name: str, instance_id: str = "", input: str | None = None, **fields: Any) -> str:
        request = pb.CreateInstanceRequest(instanceId=instance_id, name=name, input=text(input), **fields)
        return self.stub.StartInstance(request, timeout=PATIENCE).instanceId

    def get(self, instance_id: str, payloads: bool = True) -> pb.OrchestrationState | None:
        response = self.stub.GetInstance(
            pb.GetInstanceRequest(instanceId=instance_id, getInputsAndOutputs=payloads), timeout=PATIENCE)
        return response.orchestrationState if response.exists else None

    def wait(self, instance_id: str) -> pb.OrchestrationState:
        response = self.stub.WaitForInstanceCompletion(
            pb.GetInstanceRequest(instanceId=instance_id, getInputsAndOutputs=True), timeout=PATIENCE)
        assert response.exists
        return response.orchestrationState

    def history(self, instance_id: str, **fields: Any) -> list[pb.HistoryEvent]:
        request = pb.StreamInstanceHistoryRequest(instanceId=instance_id, **fields)
        chunks = self.stub.StreamInstanceHistory(request, timeout=PATIENCE)
        return [event for chunk in chunks for event in chunk.events]

    def raise_event(self, instance_id: str, name: str, input: str | None = None) -> None:
        self.stub.RaiseEvent(pb.RaiseEventRequest(instanceId=instance_id, name=name, input=text(input)),
                             timeout=PATIENCE)

    def signal(self, entity: str, operation: str, input: str | None = None, at: datetime | None = None) -> None:
        self.stub.SignalEntity(pb.SignalEntityRequest(
            instanceId=entity, name=operation, input=text(input), requestId=f"{entity}/{time.monotonic_ns()}",
            scheduledTime=None if at is None else timestamp(at)), timeout=PATIENCE)

    def entity(self, entity: str, state: bool = True) -> pb.EntityMetadata | None:
        response = self.stub.GetEntity(pb.GetEntityRequest(instanceId=entity, includeState=state), timeout=PATIENCE)
        return response.entity if response.exists else None

    def close(self) -> None:
        self._channel.close()


class RawWorker:
    """A worker that does nothing by itself. Items that a test does not ask for stay with it, unanswered."""

    def __init__(self, server: Server, **request: Any):
        self._channel = server.channel()
        self.stub = stubs.TaskHubSidecarServiceStub(self._channel)
        self._arrived: "queue.Queue[pb.WorkItem | None]" = queue.Queue()
        self._set_aside: list[pb.WorkItem] = []
        self.pings: list[float] = []
        self.ended_with: grpc.RpcError | None = None
        self._stream = self.stub.GetWorkItems(pb.GetWorkItemsRequest(**request))
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            for item in self._stream:
                if item.WhichOneof("request") == "healthPing":
                    self.pings.append(time.monotonic())
                else:
                    self._arrived.put(item)
        except grpc.RpcError as error:
            self.ended_with = error
        self._arrived.put(None)

    def take(self, wanted: Callable[[pb.WorkItem], bool], what: str, seconds: float = PATIENCE) -> pb.WorkItem:
        for item in self._set_aside:
            if wanted(item):
                self._set_aside.remove(item)
                return item
        limit = time.monotonic() + seconds
        while True:
            try:
                item = self._arrived.get(timeout=max(0, limit - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"{what} did not arrive; what did: {self._set_aside}") from None
            assert item is not None, f"the stream ended before {what} arrived: {self.ended_with}"
            if wanted(item):
                return item
            self._set_aside.append(item)

    def turn(self, instance_id: str, seconds: float = PATIENCE) -> pb.WorkItem:
        item = self.take(
            lambda item: item.HasField("orchestratorRequest") and item.orchestratorRequest.instanceId == instance_id,
            f"a turn of {instance_id}", seconds)
        # What holds for every turn: it begins with its time, and the times of turns do not go back.
        events = list(item.orchestratorRequest.pastEvents) + list(item.orchestratorRequest.newEvents)
        assert kind(item.orchestratorRequest.newEvents[0]) == "orchestratorStarted"
        times = [event.timestamp.ToNanoseconds() for event in events if kind(event) == "orchestratorStarted"]
        assert times == sorted(times)
        assert now() - timedelta(minutes=10) < item.orchestratorRequest.newEvents[0].timestamp.ToDatetime(
            timezone.utc) <= now(), item.orchestratorRequest.newEvents[0]
        assert all(event.timestamp.ToNanoseconds() > 0 for event in events)
        return item

    def activity(self, instance_id: str, task_id: int | None = None, seconds: float = PATIENCE) -> pb.WorkItem:
        return self.take(
            lambda item: item.HasField("activityRequest")
            and item.activityRequest.orchestrationInstance.instanceId == instance_id
            and task_id in (None, item.activityRequest.taskId),
            f"activity {task_id} of {instance_id}", seconds)

    def batch(self, entity: str, seconds: float = PATIENCE) -> pb.WorkItem:
        """The entity's operations, as entityRequestV2."""
        item = self.take(
            lambda item: item.HasField("entityRequestV2") and item.entityRequestV2.instanceId == entity
            or item.HasField("entityRequest") and item.entityRequest.instanceId == entity,
            f"a batch of {entity}", seconds)
        assert item.HasField("entityRequestV2"), "entities are served by the second version of their request"
        return item

    def arrived(self) -> list[pb.WorkItem]:
        """Everything that is here and was not taken."""
        while True:
            try:
                item = self._arrived.get_nowait()
            except queue.Empty:
                return list(self._set_aside)
            if item is not None:
                self._set_aside.append(item)

    def answer(self, item: pb.WorkItem, *actions: pb.OrchestratorAction, **fields: Any) -> None:
        self.stub.CompleteOrchestratorTask(pb.OrchestratorResponse(
            instanceId=item.orchestratorRequest.instanceId, actions=actions,
            completionToken=item.completionToken, **fields), timeout=PATIENCE)

    def perform(self, item: pb.WorkItem, result: str | None = None, **fields: Any) -> None:
        request = item.activityRequest
        self.stub.CompleteActivityTask(pb.ActivityResponse(
            instanceId=request.orchestrationInstance.instanceId, taskId=request.taskId, result=text(result),
            completionToken=item.completionToken, **fields), timeout=PATIENCE)

    def operate(self, item: pb.WorkItem, *results: pb.OperationResult, state: str | None = None,
                **fields: Any) -> None:
        self.stub.CompleteEntityTask(pb.EntityBatchResult(
            results=results, entityState=text(state), completionToken=item.completionToken,
            operationInfos=infos(item), **fields), timeout=PATIENCE)

    def wait_for_end(self) -> grpc.RpcError | None:
        """Waits until the server ends the stream, and says how; None is a graceful end."""
        self._reader.join(PATIENCE)
        assert not self._reader.is_alive(), "the stream goes on"
        return self.ended_with

    def end(self) -> None:
        """Ends the stream, as a worker that stops does. The connection stays, for late answers."""
        self._stream.cancel()
        self._reader.join(PATIENCE)

    def close(self) -> None:
        self._stream.cancel()
        self._channel.close()
        self._reader.join(PATIENCE)


def operations(item: pb.WorkItem) -> list[str]:
    """The names of a batch's operations, in order."""
    names = []
    for event in item.entityRequestV2.operationRequests:
        operation = getattr(event, kind(event))
        names.append(operation.operation)
    return names


def infos(item: pb.WorkItem) -> list[pb.OperationInfo]:
    """What SDKs echo with the results of a batch."""
    echoed = []
    for event in item.entityRequestV2.operationRequests:
        operation = getattr(event, kind(event))
        info = pb.OperationInfo(requestId=operation.requestId)
        if kind(event) == "entityOperationCalled":
            # Python leaves the execution empty.
            info.responseDestination.CopyFrom(pb.OrchestrationInstance(
                instanceId=operation.parentInstanceId.value, executionId=text("")))
        echoed.append(info)
    return echoed


def named(orchestrations=(), activities=(), entities=()) -> pb.WorkItemFilters:
    """Filters by name; what is not given is not wanted."""
    return pb.WorkItemFilters(
        orchestrations=[pb.OrchestrationFilter(name=name) for name in orchestrations],
        activities=[pb.ActivityFilter(name=name) for name in activities],
        entities=[pb.EntityFilter(name=name) for name in entities])
