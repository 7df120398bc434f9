"""How clients and workers connect, wait, and leave."""

import asyncio
import threading

import grpc
import pytest
from google.protobuf import empty_pb2

import durabletask.internal.orchestrator_service_pb2 as pb
from durabletask import task
from durabletask.azuremanaged.client import DurableTaskSchedulerClient
from durabletask.azuremanaged.worker import DurableTaskSchedulerWorker
from durabletask.client import AsyncTaskHubGrpcClient, OrchestrationStatus, TaskHubGrpcClient

from support.raw import PATIENCE


def hello(ctx: task.OrchestrationContext, name):
    return f"Hello, {name}!"
    yield


def test_hello(caller):
    assert caller.stub.Hello(empty_pb2.Empty(), timeout=PATIENCE) == empty_pb2.Empty()


@pytest.mark.parametrize("form", ["{}", "http://{}", "grpc://{}", "localhost"])
def test_forms_of_an_address(server, worker, form):
    worker(orchestrators=[hello])
    address = f"localhost:{server.port}" if form == "localhost" else form.format(server.address)
    with TaskHubGrpcClient(host_address=address) as client:
        instance = client.schedule_new_orchestration(hello, input="you")
        assert client.wait_for_orchestration_completion(instance, timeout=30).get_output() == "Hello, you!"


def test_the_schedulers_flavour(server):
    """It sends `taskhub` and other metadata with each call."""
    worker = DurableTaskSchedulerWorker(
        host_address=server.address, taskhub="default", token_credential=None, secure_channel=False)
    worker.add_orchestrator(hello)
    worker.start()
    client = DurableTaskSchedulerClient(
        host_address=server.address, taskhub="default", token_credential=None, secure_channel=False)
    try:
        instance = client.schedule_new_orchestration(hello, input="hub")
        assert client.wait_for_orchestration_completion(instance, timeout=30).get_output() == "Hello, hub!"
    finally:
        client.close()
        worker.stop()


def test_the_asynchronous_client(server, worker):
    def gather(ctx: task.OrchestrationContext, _):
        return (yield ctx.wait_for_external_event("data"))

    worker(orchestrators=[gather])

    async def use():
        async with AsyncTaskHubGrpcClient(host_address=server.address) as client:
            instances = [await client.schedule_new_orchestration(gather) for _ in range(20)]
            waits = [asyncio.create_task(client.wait_for_orchestration_completion(instance, timeout=30))
                     for instance in instances]
            for number, instance in enumerate(instances):
                await client.raise_orchestration_event(instance, "data", data=number)
            return [state.get_output() for state in await asyncio.gather(*waits)]

    assert asyncio.run(use()) == list(range(20))


def test_waits_that_nobody_waits_for_any_more(server, worker, client, caller, unique):
    """Clients that go away, cancel, or run out of time leave nothing behind that holds others up."""
    def gather(ctx: task.OrchestrationContext, _):
        return (yield ctx.wait_for_external_event("data"))

    worker(orchestrators=[gather])
    instance = client.schedule_new_orchestration(gather, instance_id=unique())
    request = pb.GetInstanceRequest(instanceId=instance, getInputsAndOutputs=True)
    with server.channel() as channel:
        import durabletask.internal.orchestrator_service_pb2_grpc as stubs
        stub = stubs.TaskHubSidecarServiceStub(channel)
        calls = [stub.WaitForInstanceCompletion.future(request) for _ in range(300)]
        for call in calls[:150]:
            call.cancel()
        assert calls[0].cancelled()
    # The rest went with their connection. One that stays has no deadline, and gets its answer.
    staying = caller.stub.WaitForInstanceCompletion.future(request)
    with pytest.raises(TimeoutError):
        client.wait_for_orchestration_completion(instance, timeout=0.3)
    assert not staying.done()
    client.raise_orchestration_event(instance, "data", data=7)
    response = staying.result(timeout=PATIENCE)
    assert response.exists
    assert response.orchestrationState.orchestrationStatus == OrchestrationStatus.COMPLETED.value
    assert response.orchestrationState.output.value == "7"


def test_many_wait_for_one(worker, client, caller, unique):
    def gather(ctx: task.OrchestrationContext, _):
        return (yield ctx.wait_for_external_event("data"))

    instance = client.schedule_new_orchestration(gather, instance_id=unique())
    request = pb.GetInstanceRequest(instanceId=instance)
    starts = [caller.stub.WaitForInstanceStart.future(request) for _ in range(50)]
    ends = [caller.stub.WaitForInstanceCompletion.future(request) for _ in range(200)]
    assert not any(call.done() for call in starts)
    worker(orchestrators=[gather])
    for call in starts:
        assert call.result(timeout=PATIENCE).orchestrationState.orchestrationStatus == \
            OrchestrationStatus.RUNNING.value
    assert not any(call.done() for call in ends)
    client.raise_orchestration_event(instance, "data", data=1)
    for call in ends:
        state = call.result(timeout=PATIENCE).orchestrationState
        assert state.orchestrationStatus == OrchestrationStatus.COMPLETED.value
        # Payloads were not asked for.
        assert not state.HasField("output")


def test_a_worker_that_comes_late_finds_everything(client, worker, unique):
    instances = [client.schedule_new_orchestration(hello, input=str(number), instance_id=unique(f"late{number}"))
                 for number in range(50)]
    assert {client.get_orchestration_state(instance).runtime_status for instance in instances} == {
        OrchestrationStatus.PENDING}
    worker(orchestrators=[hello])
    outputs = [client.wait_for_orchestration_completion(instance, timeout=30).get_output() for instance in instances]
    assert outputs == [f"Hello, {number}!" for number in range(50)]


def test_a_stop_of_the_server_ends_streams_with_unavailable(own_server, new_raw_worker):
    worker = new_raw_worker(own_server)
    # The stream is there when an item comes through it.
    from support.raw import Caller
    caller = Caller(own_server)
    instance = caller.start("something")
    worker.turn(instance)
    wait = caller.stub.WaitForInstanceCompletion.future(pb.GetInstanceRequest(instanceId=instance))
    assert own_server.stop() == 0
    ended = worker.wait_for_end()
    assert ended is not None and ended.code() is grpc.StatusCode.UNAVAILABLE
    with pytest.raises(grpc.RpcError) as error:
        wait.result(timeout=PATIENCE)
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    caller.close()


def test_a_task_hub_can_be_made_and_reset(caller):
    """Test set-ups reset a hub; a server may not serve that, and then says so."""
    for ask in (lambda: caller.stub.CreateTaskHub(pb.CreateTaskHubRequest(), timeout=PATIENCE),):
        try:
            ask()
        except grpc.RpcError as error:
            assert error.code() in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.ALREADY_EXISTS)


def test_messages_that_make_no_sense_harm_nobody(server, caller, worker, client, run):
    with server.channel() as channel:
        for method in ("StartInstance", "GetInstance", "CompleteOrchestratorTask", "GetWorkItems", "QueryInstances"):
            call = channel.unary_stream(
                f"/TaskHubSidecarService/{method}",
                request_serializer=lambda bytes: bytes, response_deserializer=lambda bytes: bytes)
            with pytest.raises(grpc.RpcError) as error:
                list(call(b"\xff\xff\xff\xff\xff", timeout=PATIENCE))
            assert error.value.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT), method
        call = channel.unary_unary(
            "/TaskHubSidecarService/NoSuchMethod",
            request_serializer=lambda bytes: bytes, response_deserializer=lambda bytes: bytes)
        with pytest.raises(grpc.RpcError) as error:
            call(b"", timeout=PATIENCE)
        assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED
    worker(orchestrators=[hello])
    assert run(hello, "again").get_output() == "Hello, again!"


def test_a_hundred_workers_at_once(server, new_raw_worker, client, unique, caller):
    workers = [new_raw_worker(server) for _ in range(100)]
    instances = [caller.start("spread", unique(f"spread{number}")) for number in range(300)]
    seen = threading.Event()
    assert not seen.is_set()
    from support import until
    # Fair: with equal work for everybody, everybody has some, and nothing is given twice.
    got = until(lambda: [items for items in [[item for worker in workers for item in worker.arrived()]]
                         if len(items) >= len(instances)])[0]
    mine = [item.orchestratorRequest.instanceId for item in got
            if item.orchestratorRequest.instanceId in set(instances)]
    assert sorted(mine) == sorted(instances)
    assert sum(1 for worker in workers if worker.arrived()) >= 90
