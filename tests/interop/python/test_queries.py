"""Queries, pages and lists."""

import pytest
from google.protobuf import wrappers_pb2

import durabletask.internal.orchestrator_service_pb2 as pb
from durabletask import task
from durabletask.client import OrchestrationQuery, OrchestrationStatus
from durabletask.entities import EntityInstanceId

from support.raw import PATIENCE, now, text, timestamp


def mixed(ctx: task.OrchestrationContext, input):
    if input == "fail":
        raise RuntimeError("as asked")
    if input == "wait":
        yield ctx.wait_for_external_event("end")
    return input


@pytest.fixture
def prefix(unique):
    return unique("query") + "-"


@pytest.fixture
def population(worker, client, prefix):
    """Instances of four statuses; which are which, and when they were made."""
    worker(orchestrators=[mixed])
    before = now()
    made: dict[OrchestrationStatus, list[str]] = {}
    for number in range(4):
        for input, status in (("well", OrchestrationStatus.COMPLETED), ("fail", OrchestrationStatus.FAILED),
                              ("wait", OrchestrationStatus.RUNNING), ("wait", OrchestrationStatus.TERMINATED)):
            id = client.schedule_new_orchestration(
                mixed, input=input, instance_id=f"{prefix}{number}-{status.name.lower()}")
            made.setdefault(status, []).append(id)
    for id in made[OrchestrationStatus.TERMINATED]:
        client.terminate_orchestration(id)
    for status in (OrchestrationStatus.COMPLETED, OrchestrationStatus.FAILED, OrchestrationStatus.TERMINATED):
        for id in made[status]:
            client.wait_for_orchestration_completion(id, timeout=30)
    for id in made[OrchestrationStatus.RUNNING]:
        client.wait_for_orchestration_start(id, timeout=30)
    return made, before, now()


def ids(states):
    return [state.instance_id for state in states]


def test_queries_by_status_prefix_and_time(client, population, prefix):
    made, before, after = population
    everything = sorted(id for ids in made.values() for id in ids)
    found = client.get_all_orchestration_states(OrchestrationQuery(instance_id_prefix=prefix))
    assert sorted(ids(found)) == everything
    for status, expected in made.items():
        found = client.get_all_orchestration_states(OrchestrationQuery(
            instance_id_prefix=prefix, runtime_status=[status]))
        assert sorted(ids(found)) == sorted(expected), status
        assert {state.runtime_status for state in found} == {status}
    found = client.get_all_orchestration_states(OrchestrationQuery(
        created_time_from=before, created_time_to=after, runtime_status=[
            OrchestrationStatus.FAILED, OrchestrationStatus.COMPLETED]))
    assert sorted(ids(found)) == sorted(made[OrchestrationStatus.FAILED] + made[OrchestrationStatus.COMPLETED])
    assert client.get_all_orchestration_states(OrchestrationQuery(created_time_to=before, instance_id_prefix=prefix)) \
        == []
    assert client.get_all_orchestration_states(OrchestrationQuery(instance_id_prefix=prefix + "none")) == []


def test_bounds_of_time_are_inclusive_below_and_exclusive_above(caller, population):
    made, _, _ = population
    one = made[OrchestrationStatus.COMPLETED][1]
    created = caller.get(one).createdTimestamp

    def found(**bounds):
        response = caller.stub.QueryInstances(pb.QueryInstancesRequest(query=pb.InstanceQuery(
            instanceIdPrefix=text(one), maxInstanceCount=10, **bounds)), timeout=PATIENCE)
        return [state.instanceId for state in response.orchestrationState]

    assert found(createdTimeFrom=created) == [one]
    assert found(createdTimeTo=created) == []


def test_payloads_come_only_when_asked_for(client, population, prefix):
    states = client.get_all_orchestration_states(OrchestrationQuery(
        instance_id_prefix=prefix, runtime_status=[OrchestrationStatus.COMPLETED], fetch_inputs_and_outputs=True))
    assert [(state.get_input(), state.get_output()) for state in states] == [("well", "well")] * 4
    states = client.get_all_orchestration_states(OrchestrationQuery(
        instance_id_prefix=prefix, runtime_status=[OrchestrationStatus.COMPLETED]))
    assert [(state.serialized_input, state.serialized_output) for state in states] == [(None, None)] * 4


def test_pages_cover_everything_once_and_end(caller, population, prefix):
    made, _, _ = population
    seen, tokens, token = [], [], None
    while True:
        response = caller.stub.QueryInstances(pb.QueryInstancesRequest(query=pb.InstanceQuery(
            instanceIdPrefix=text(prefix), maxInstanceCount=3, continuationToken=token)), timeout=PATIENCE)
        page = [state.instanceId for state in response.orchestrationState]
        assert len(page) <= 3
        seen += page
        if not response.HasField("continuationToken") or not response.continuationToken.value:
            break
        assert response.continuationToken.value != "0"
        assert response.continuationToken.value not in tokens
        tokens.append(response.continuationToken.value)
        token = wrappers_pb2.StringValue(value=response.continuationToken.value)
    assert len(seen) == len(set(seen))
    assert sorted(seen) == sorted(id for ids in made.values() for id in ids)
    # The same order again: pages are stable.
    response = caller.stub.QueryInstances(pb.QueryInstancesRequest(query=pb.InstanceQuery(
        instanceIdPrefix=text(prefix), maxInstanceCount=2**31 - 1)), timeout=PATIENCE)
    assert [state.instanceId for state in response.orchestrationState] == seen
    assert not response.continuationToken.value


def test_the_sdk_walks_the_pages(client, population, prefix):
    made, _, _ = population
    found = client.get_all_orchestration_states(OrchestrationQuery(instance_id_prefix=prefix, max_instance_count=5))
    assert sorted(ids(found)) == sorted(id for ids in made.values() for id in ids)


def test_entities_are_no_orchestrations(worker, client, run, unique):
    def box(ctx, input):
        ctx.set_state(input)

    def fill(ctx: task.OrchestrationContext, id):
        yield ctx.call_entity(EntityInstanceId.parse(id), "set", 1)

    worker(orchestrators=[fill], entities=[box])
    entity = EntityInstanceId("box", unique())
    run(fill, str(entity))
    assert client.get_entity(entity) is not None
    assert not [state for state in client.get_all_orchestration_states() if state.instance_id.startswith("@")]
    assert not [id for id in client.list_instance_ids().items if id.startswith("@")]


def test_lists_of_finished_instances(client, population, prefix, caller):
    made, before, after = population
    finished = sorted(id for status, ids in made.items() if status is not OrchestrationStatus.RUNNING for id in ids)

    def listed(**filters):
        page = client.list_instance_ids(completed_time_from=before, **filters)
        assert page.continuation_token is None
        return sorted(id for id in page.items if id.startswith(prefix))

    assert listed() == finished
    assert listed(runtime_status=[OrchestrationStatus.FAILED]) == sorted(made[OrchestrationStatus.FAILED])
    assert listed(completed_time_to=before) == []
    # In the order of completion.
    items = [id for id in client.list_instance_ids(completed_time_from=before).items if id.startswith(prefix)]
    completed = [caller.get(id).completedTimestamp.ToNanoseconds() for id in items]
    assert completed == sorted(completed)
    # Exactly at a completion: inclusive below, exclusive above.
    at = caller.get(items[0]).completedTimestamp
    response = caller.stub.ListInstanceIds(pb.ListInstanceIdsRequest(completedTimeFrom=at), timeout=PATIENCE)
    assert items[0] in response.instanceIds
    response = caller.stub.ListInstanceIds(pb.ListInstanceIdsRequest(completedTimeTo=at), timeout=PATIENCE)
    assert items[0] not in response.instanceIds


def test_lists_in_pages(client, population, prefix):
    made, before, after = population
    finished = sorted(id for status, ids in made.items() if status is not OrchestrationStatus.RUNNING for id in ids)
    seen, token, tokens = [], None, []
    while True:
        page = client.list_instance_ids(
            completed_time_from=before, completed_time_to=after, page_size=5, continuation_token=token)
        assert len(page.items) <= 5
        seen += page.items
        token = page.continuation_token
        if token is None:
            break
        assert token not in tokens
        tokens.append(token)
        # A cursor names an instance of its page.
        assert any(id in token for id in page.items)
    assert sorted(seen) == finished
    assert len(seen) == len(set(seen))


def test_histories(client, population, caller, unique):
    made, _, _ = population
    done = made[OrchestrationStatus.COMPLETED][0]
    events = client.get_orchestration_history(done)
    assert [type(event).__name__ for event in events] == [
        "OrchestratorStartedEvent", "ExecutionStartedEvent", "ExecutionCompletedEvent"]
    execution = caller.get(done).executionId
    assert caller.history(done, executionId=execution) == caller.history(done)
    try:
        assert client.get_orchestration_history(unique("nobody")) == []
    except Exception as error:
        assert error.code().name == "NOT_FOUND"


def test_a_long_history_comes_in_chunks(worker, run, caller):
    def blob(ctx, _):
        return "x" * 100_000

    def many(ctx: task.OrchestrationContext, _):
        yield task.when_all([ctx.call_activity(blob) for _ in range(60)])

    # More than the 4 MiB that one message may have for this SDK's client.
    from durabletask.grpc_options import GrpcChannelOptions
    worker(orchestrators=[many], activities=[blob],
           channel_options=GrpcChannelOptions(max_receive_message_length=64 << 20))
    state = run(many)
    assert state.runtime_status is OrchestrationStatus.COMPLETED
    request = pb.StreamInstanceHistoryRequest(instanceId=state.instance_id)
    chunks = list(caller.stub.StreamInstanceHistory(request, timeout=PATIENCE))
    assert len(chunks) > 1
    assert all(chunk.ByteSize() < 4 << 20 for chunk in chunks)
    results = [event for chunk in chunks for event in chunk.events if event.HasField("taskCompleted")]
    assert len(results) == 60
