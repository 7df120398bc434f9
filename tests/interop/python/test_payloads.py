"""Large payloads, inline and stored outside."""

import pytest

from durabletask import entities, task
from durabletask.client import OrchestrationStatus, TaskHubGrpcClient
from durabletask.entities import EntityInstanceId
from durabletask.grpc_options import GrpcChannelOptions
from durabletask.payload.store import LargePayloadStorageOptions, PayloadStore

from support.raw import complete, schedule

MEBIBYTE = 1 << 20


def test_as_much_as_one_message_may_have(worker, client, run):
    """3.9 MB is the most that this SDK takes in with its default of 4 MiB for a message."""
    size = 3_900_000

    def measure(ctx, text):
        return len(text)

    def long(ctx, length):
        return "y" * length

    def one_way(ctx: task.OrchestrationContext, text):
        return len(text)
        yield

    def through_activities(ctx: task.OrchestrationContext, length):
        text = yield ctx.call_activity(long, input=length)
        return [len(text), text[:1]]

    def event(ctx: task.OrchestrationContext, _):
        text = yield ctx.wait_for_external_event("text")
        return len(text)

    def give(ctx: task.OrchestrationContext, length):
        return "z" * length
        yield

    worker(orchestrators=[one_way, through_activities, event, give], activities=[measure, long])
    assert run(one_way, "x" * size).get_output() == size
    assert run(through_activities, size).get_output() == [size, "y"]
    assert run(give, size).get_output() == "z" * size
    instance = client.schedule_new_orchestration(event)
    client.raise_orchestration_event(instance, "text", data="e" * size)
    assert client.wait_for_orchestration_completion(instance, timeout=60).get_output() == size


def test_fifteen_mebibytes_with_a_limit_that_the_client_raised(server, worker):
    def echo(ctx: task.OrchestrationContext, text):
        ctx.set_custom_status("s" * MEBIBYTE)
        return text
        yield

    unlimited = GrpcChannelOptions(max_receive_message_length=-1, max_send_message_length=-1)
    worker(orchestrators=[echo], channel_options=unlimited)
    text = "x" * (15 * MEBIBYTE)
    with TaskHubGrpcClient(host_address=server.address, channel_options=unlimited) as client:
        instance = client.schedule_new_orchestration(echo, input=text)
        state = client.wait_for_orchestration_completion(instance, timeout=60)
        assert state.runtime_status is OrchestrationStatus.COMPLETED
        assert state.get_output() == text
        assert len(state.get_custom_status()) == MEBIBYTE


def test_a_large_activity_result_over_the_wire(caller, raw_worker, unique):
    instance = caller.start("large", unique())
    worker = raw_worker()
    worker.answer(worker.turn(instance), schedule(1, "give"))
    text = '"' + "x" * (8 * MEBIBYTE) + '"'
    worker.perform(worker.activity(instance), text)
    turn = worker.turn(instance)
    assert turn.orchestratorRequest.newEvents[1].taskCompleted.result.value == text
    worker.answer(turn, complete(2, text))
    assert caller.wait(instance).output.value == text


def test_state_of_an_entity(worker, run, client, unique):
    def blob(ctx: entities.EntityContext, length):
        if ctx.operation == "grow":
            ctx.set_state("b" * length)
        return len(ctx.get_state(str, ""))

    def use(ctx: task.OrchestrationContext, request):
        return (yield ctx.call_entity(EntityInstanceId.parse(request[0]), request[1], request[2]))

    worker(orchestrators=[use], entities=[blob])
    id = EntityInstanceId("blob", unique())
    assert run(use, [str(id), "grow", 2 * MEBIBYTE]).get_output() == 2 * MEBIBYTE
    assert run(use, [str(id), "get", None]).get_output() == 2 * MEBIBYTE
    assert len(client.get_entity(id).get_typed_state()) == 2 * MEBIBYTE


class Memory(PayloadStore):
    """Keeps payloads in this process; what is durable of them is a token."""

    def __init__(self):
        self.kept: dict[str, bytes] = {}
        self._options = LargePayloadStorageOptions(threshold_bytes=1000, enable_compression=False)

    @property
    def options(self):
        return self._options

    def upload(self, data, *, instance_id=None):
        token = f"blob:v1:memory:{len(self.kept)}"
        self.kept[token] = data
        return token

    async def upload_async(self, data, *, instance_id=None):
        return self.upload(data, instance_id=instance_id)

    def download(self, token):
        return self.kept[token]

    async def download_async(self, token):
        return self.kept[token]

    def is_known_token(self, value):
        return value.startswith("blob:v1:memory:")


def test_payloads_that_the_sdk_keeps_outside(server, new_worker, caller):
    """Tokens travel like any text, and the worker's announcement of the capability is no obstacle."""
    store = Memory()

    def grow(ctx, text):
        return text * 2

    def outside(ctx: task.OrchestrationContext, text):
        return (yield ctx.call_activity(grow, input=text))

    new_worker(server, orchestrators=[outside], activities=[grow], payload_store=store)
    with TaskHubGrpcClient(host_address=server.address, payload_store=store) as client:
        instance = client.schedule_new_orchestration(outside, input="p" * 5000)
        state = client.wait_for_orchestration_completion(instance, timeout=30)
        assert state.get_output() == "p" * 10000
        assert state.get_input() == "p" * 5000
    raw = caller.get(instance)
    assert raw.input.value.startswith("blob:v1:memory:")
    assert raw.output.value.startswith("blob:v1:memory:")


@pytest.mark.parametrize("status", [None, "", '""', "null"], ids=repr)
def test_custom_status_is_kept_to_the_letter(caller, raw_worker, unique, status):
    from support.raw import text
    instance = caller.start("letters", unique())
    worker = raw_worker()
    worker.answer(worker.turn(instance), complete(1), customStatus=text(status))
    state = caller.wait(instance)
    assert (state.customStatus.value if state.HasField("customStatus") else None) in (
        [status] if status else [None, ""])
