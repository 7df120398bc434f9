"""Entities to the letter: batches, routing of results, locks, and what entities ask for."""

import pytest

import durabletask.internal.orchestrator_service_pb2 as pb

from support import until
from support.raw import (PATIENCE, after, broken, call, complete, continue_as_new, done, fail, kind, kinds, lock, now, operations,
                         signal, text, timer, timestamp, unlock)


@pytest.fixture
def worker(raw_worker):
    return raw_worker()


@pytest.fixture
def entity(unique):
    return f"@box@{unique()}"


def answers(worker, instance, wanted):
    """Answers the instance's turns until this many results of entities are there."""
    events = []
    while len(events) < wanted:
        item = worker.turn(instance)
        events += [event for event in item.orchestratorRequest.newEvents
                   if kind(event) in ("entityOperationCompleted", "entityOperationFailed")]
        worker.answer(item)
    return events


def test_a_batch_carries_operations_in_order_and_what_they_are(caller, worker, entity, unique):
    caller.signal(entity, "first", '"1"')
    batch = worker.batch(entity)
    request = batch.entityRequestV2
    assert batch.completionToken
    assert request.instanceId == entity
    assert not request.HasField("entityState")
    assert operations(batch) == ["first"]
    signaled = request.operationRequests[0].entityOperationSignaled
    assert signaled.input.value == '"1"' and signaled.requestId
    # One batch is under way; what comes meanwhile is the next.
    instance = caller.start("asking", unique())
    turn = worker.turn(instance)
    worker.answer(turn, call(1, entity, "asked", unique("r"), instance, '"2"'),
                  signal(2, entity, "told", unique("s"), '"3"'))
    caller.signal(entity, "last")
    assert not [item for item in worker.arrived() if item.HasField("entityRequestV2")]
    worker.operate(batch, done(), state='{"n":1}')
    names = []
    state = '{"n":1}'
    while len(names) < 3:
        batch = worker.batch(entity)
        assert batch.entityRequestV2.entityState.value == state
        names += operations(batch)
        for event in batch.entityRequestV2.operationRequests:
            if kind(event) == "entityOperationCalled":
                called = event.entityOperationCalled
                assert (called.requestId, called.input.value) == (unique("r"), '"2"')
                assert called.parentInstanceId.value == instance
                assert called.parentExecutionId.value in ("", turn.orchestratorRequest.executionId.value)
        state = f'{{"n":{len(names) + 1}}}'
        worker.operate(batch, *[done('"answer"') for _ in batch.entityRequestV2.operationRequests], state=state)
    # What one sender sends stays in its order; between two senders there is none.
    assert sorted(names) == ["asked", "last", "told"] and names.index("asked") < names.index("told")
    result, = answers(worker, instance, 1)
    assert result.entityOperationCompleted.requestId == unique("r")
    assert result.entityOperationCompleted.output.value == '"answer"'
    assert result.eventId == -1
    assert caller.entity(entity).serializedState.value == state


def test_results_are_routed_by_the_servers_own_record(caller, worker, entity, unique):
    """SDKs leave out, or empty, what they echo of where a result goes to."""
    first, second = caller.start("asking", unique("a")), caller.start("asking", unique("b"))
    for instance in (first, second):
        worker.answer(worker.turn(instance), call(1, entity, "op", f"{instance}-request", instance))
    served = 0
    while served < 2:
        batch = worker.batch(entity)
        results = [done(f'"for {event.entityOperationCalled.parentInstanceId.value}"')
                   for event in batch.entityRequestV2.operationRequests]
        served += len(results)
        worker.stub.CompleteEntityTask(pb.EntityBatchResult(
            results=results, entityState=text("1"), completionToken=batch.completionToken), timeout=PATIENCE)
    for instance in (first, second):
        result, = answers(worker, instance, 1)
        assert result.entityOperationCompleted.output.value == f'"for {instance}"'
        assert result.entityOperationCompleted.requestId == f"{instance}-request"


def test_each_operation_has_its_own_outcome(caller, worker, entity, unique):
    instance = caller.start("asking", unique())
    requests = [unique(f"r{number}") for number in range(3)]
    worker.answer(worker.turn(instance), *[
        call(number + 1, entity, f"op{number}", request, instance) for number, request in enumerate(requests)])
    outcomes = {"op0": done('"0"'), "op1": broken("no"), "op2": done('"2"')}
    names = []
    while len(names) < 3:
        batch = worker.batch(entity)
        names += operations(batch)
        worker.operate(batch, *[outcomes[name] for name in operations(batch)], state="1")
    events = {}
    for event in answers(worker, instance, 3):
        result = getattr(event, kind(event))
        events[result.requestId] = event
    assert events[requests[0]].entityOperationCompleted.output.value == '"0"'
    assert events[requests[1]].entityOperationFailed.failureDetails == pb.TaskFailureDetails(
        errorType="Broken", errorMessage="no")
    assert events[requests[2]].entityOperationCompleted.output.value == '"2"'


def test_a_batch_that_failed_as_a_whole_is_tried_again(caller, worker, entity):
    caller.signal(entity, "op", "1")
    worker.operate(worker.batch(entity), done(), state='"kept"')
    caller.signal(entity, "again", "2")
    worker.operate(worker.batch(entity), failureDetails=pb.TaskFailureDetails(errorType="E", errorMessage="m"))
    batch = worker.batch(entity)
    assert operations(batch) == ["again"]
    assert batch.entityRequestV2.entityState.value == '"kept"'
    worker.operate(batch, done(), state='"after"')
    until(lambda: caller.entity(entity).serializedState.value == '"after"')


def test_operations_without_a_result_come_again(caller, worker, entity):
    caller.signal(entity, "hold")
    held = worker.batch(entity)
    for number in range(4):
        caller.signal(entity, f"op{number}")
    worker.operate(held, done(), state='"0"')
    batch = worker.batch(entity)
    assert operations(batch) == ["op0", "op1", "op2", "op3"]
    worker.operate(batch, done(), done(), state='"2"')
    batch = worker.batch(entity)
    assert operations(batch) == ["op2", "op3"]
    assert batch.entityRequestV2.entityState.value == '"2"'
    worker.operate(batch, done(), done(), state='"4"')
    until(lambda: caller.entity(entity).serializedState.value == '"4"')


def test_no_state_is_no_entity(caller, worker, entity):
    caller.signal(entity, "make")
    worker.operate(worker.batch(entity), done(), state="0")
    assert until(lambda: caller.entity(entity)).serializedState.value == "0"
    caller.signal(entity, "delete")
    worker.operate(worker.batch(entity), done(), state=None)
    until(lambda: caller.entity(entity) is None)


def test_an_entity_shows_what_waits_for_it(caller, worker, entity):
    caller.signal(entity, "make")
    worker.operate(worker.batch(entity), done(), state="0")
    caller.signal(entity, "hold")
    held = worker.batch(entity)
    for _ in range(3):
        caller.signal(entity, "wait")
    metadata = caller.entity(entity)
    assert metadata.backlogQueueSize in (3, 4)
    assert metadata.serializedState.value == "0"
    worker.operate(held, done(), state="1")
    batch = worker.batch(entity)
    worker.operate(batch, done(), done(), done(), state="2")
    until(lambda: caller.entity(entity).backlogQueueSize == 0)


def test_what_an_entity_asks_for_is_done_once_with_its_state(caller, worker, entity, unique):
    other, later = f"@box@{unique('other')}", f"@box@{unique('later')}"
    at = after(1)
    actions = [
        pb.OperationAction(id=1, sendSignal=pb.SendSignalAction(
            instanceId=other, name="told", input=text('"s"'))),
        pb.OperationAction(id=2, sendSignal=pb.SendSignalAction(
            instanceId=later, name="told later", scheduledTime=timestamp(at))),
        pb.OperationAction(id=3, startNewOrchestration=pb.StartNewOrchestrationAction(
            instanceId=unique("new"), name="made", input=text('"i"'), version=text("2"))),
        pb.OperationAction(id=4, startNewOrchestration=pb.StartNewOrchestrationAction(name="made nameless")),
        pb.OperationAction(id=5, startNewOrchestration=pb.StartNewOrchestrationAction(
            instanceId=unique("scheduled"), name="made later", scheduledTime=timestamp(at))),
    ]
    caller.signal(entity, "act")
    batch = worker.batch(entity)
    worker.operate(batch, done(), state="1", actions=actions)
    worker.operate(batch, done(), state="2", actions=actions)
    told = worker.batch(other)
    assert operations(told) == ["told"]
    assert told.entityRequestV2.operationRequests[0].entityOperationSignaled.input.value == '"s"'
    made = worker.turn(unique("new")).orchestratorRequest.newEvents[1].executionStarted
    assert (made.name, made.input.value, made.version.value) == ("made", '"i"', "2")
    nameless = worker.take(
        lambda item: item.HasField("orchestratorRequest")
        and item.orchestratorRequest.newEvents[1].executionStarted.name == "made nameless", "the nameless one")
    assert nameless.orchestratorRequest.instanceId
    assert caller.get(unique("scheduled")).orchestrationStatus == pb.ORCHESTRATION_STATUS_PENDING
    # A signal that is not due makes nothing exist.
    assert caller.entity(later) is None
    assert operations(worker.batch(later)) == ["told later"]
    assert now() >= at
    worker.turn(unique("scheduled"))
    assert now() >= at
    assert caller.entity(entity).serializedState.value == "1"
    assert not [item for item in worker.arrived() if item.HasField("orchestratorRequest")
                and item.orchestratorRequest.newEvents[1].executionStarted.name == "made nameless"]


def test_a_delayed_signal_of_a_turn(caller, worker, entity, unique):
    instance = caller.start("telling", unique())
    at = after(1)
    worker.answer(worker.turn(instance), signal(1, entity, "late", unique("s"), at=at),
                  signal(2, entity, "soon", unique("t")), complete(3))
    batch = worker.batch(entity)
    assert operations(batch) == ["soon"]
    worker.operate(batch, done(), state=None)
    until(lambda: caller.entity(entity) is None)
    batch = worker.batch(entity)
    assert operations(batch) == ["late"]
    assert now() >= at


def granted(worker, instance):
    while True:
        item = worker.turn(instance)
        events = [event for event in item.orchestratorRequest.newEvents if kind(event) == "entityLockGranted"]
        worker.answer(item)
        if events:
            return events[0].entityLockGranted


def test_a_lock_by_the_letter(caller, worker, unique):
    a, b = f"@box@{unique('a')}", f"@box@{unique('b')}"
    owner, other = caller.start("owner", unique("owner")), caller.start("other", unique("other"))
    # What was there before the lock runs before it is granted.
    caller.signal(a, "before")
    before = worker.batch(a)
    worker.answer(worker.turn(owner), lock(1, [a, b], unique("section"), owner))
    worker.answer(worker.turn(other), call(1, b, "by other", unique("r2"), other))
    worker.operate(before, done(), state="1")
    grant = None
    seen = []
    # The other's call to b may come first, or wait: which was first at b is open.
    while grant is None:
        arrived = worker.take(
            lambda item: item.HasField("entityRequestV2") and item.entityRequestV2.instanceId == b
            or item.HasField("orchestratorRequest") and item.orchestratorRequest.instanceId == owner,
            "the grant, or the other's call")
        if arrived.HasField("entityRequestV2"):
            seen += operations(arrived)
            worker.operate(arrived, done(), state="1")
        else:
            grant = arrived
    events = grant.orchestratorRequest.newEvents
    assert kinds(events) == ["orchestratorStarted", "entityLockGranted"]
    assert events[1].entityLockGranted.criticalSectionId == unique("section")
    assert caller.entity(a).lockedBy.value == owner
    assert caller.entity(b).lockedBy.value == owner
    # The owner's calls run, others' wait.
    caller.signal(a, "by client")
    worker.answer(grant, call(2, a, "by owner", unique("r1"), owner))
    batch = worker.batch(a)
    assert operations(batch) == ["by owner"]
    worker.operate(batch, done('"x"'), state="2")
    item = worker.turn(owner)
    assert kinds(item.orchestratorRequest.newEvents) == ["orchestratorStarted", "entityOperationCompleted"]
    assert not [item for item in worker.arrived() if item.HasField("entityRequestV2")
                and item.entityRequestV2.instanceId in (a, b)]
    worker.answer(item, unlock(3, a, unique("section"), owner), unlock(4, b, unique("section"), owner), complete(5))
    batch = worker.batch(a)
    assert operations(batch) == ["by client"]
    assert batch.entityRequestV2.entityState.value == "2"
    if not seen:
        assert operations(worker.batch(b)) == ["by other"]
    caller.wait(owner)
    until(lambda: not caller.entity(a).HasField("lockedBy"))


@pytest.mark.parametrize("end", ["complete", "fail", "continue", "terminate"])
def test_locks_end_with_their_owner_even_without_its_unlocks(caller, worker, unique, end):
    a = f"@box@{unique('a')}"
    owner = caller.start("owner", unique("owner"))
    worker.answer(worker.turn(owner), lock(1, [a], unique("section"), owner))
    item = worker.turn(owner)
    assert kinds(item.orchestratorRequest.newEvents) == ["orchestratorStarted", "entityLockGranted"]
    caller.signal(a, "waiting")
    following = caller.start("following", unique("following"))
    worker.answer(worker.turn(following), lock(1, [a], unique("next"), following))
    assert caller.entity(a).lockedBy.value == owner
    if end == "terminate":
        worker.answer(item)
        caller.stub.TerminateInstance(pb.TerminateRequest(instanceId=owner))
        if caller.get(owner).orchestrationStatus != pb.ORCHESTRATION_STATUS_TERMINATED:
            worker.answer(worker.turn(owner), complete(2, status=pb.ORCHESTRATION_STATUS_TERMINATED))
    else:
        worker.answer(item, {"complete": complete(2), "fail": fail(2), "continue": continue_as_new(2, "2")}[end])
    batch = worker.batch(a)
    assert operations(batch) == ["waiting"]
    worker.operate(batch, done(), state="1")
    item = worker.turn(following)
    assert kinds(item.orchestratorRequest.newEvents) == ["orchestratorStarted", "entityLockGranted"]
    assert caller.entity(a).lockedBy.value == following


def test_a_lock_that_is_still_wanted_goes_with_its_owner(caller, worker, unique):
    """The one that waits for the second of its locks is ended: both are free for others."""
    a, b = f"@box@{unique('a')}", f"@box@{unique('b')}"
    holder, waiting, third = (caller.start("owner", unique(name)) for name in ("holder", "waiting", "third"))
    worker.answer(worker.turn(holder), lock(1, [b], unique("one"), holder))
    item = worker.turn(holder)
    worker.answer(worker.turn(waiting), lock(1, [a, b], unique("two"), waiting))
    until(lambda: (caller.entity(a) or pb.EntityMetadata()).lockedBy.value == waiting)
    caller.stub.TerminateInstance(pb.TerminateRequest(instanceId=waiting))
    if caller.get(waiting).orchestrationStatus != pb.ORCHESTRATION_STATUS_TERMINATED:
        worker.answer(worker.turn(waiting), complete(2, status=pb.ORCHESTRATION_STATUS_TERMINATED))
    worker.answer(worker.turn(third), lock(1, [a, b], unique("three"), third))
    worker.answer(item, unlock(2, b, unique("one"), holder), complete(3))
    assert granted(worker, third).criticalSectionId == unique("three")


def test_entity_ids_have_a_greatest_length(caller):
    import grpc
    with pytest.raises(grpc.RpcError) as error:
        caller.signal("@box@" + "k" * 96, "op")
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "length" in error.value.details()
    caller.signal("@box@" + "k" * 95, "op")


def test_pages_of_entities(caller, worker, unique):
    prefix = f"@page{unique().replace('-', '')}@"
    names = [f"{prefix}{number}" for number in range(7)]
    for name in names:
        caller.signal(name, "make")
        worker.operate(worker.batch(name), done(), state='"s"')
    until(lambda: all(caller.entity(name) for name in names))
    from google.protobuf import wrappers_pb2
    seen, tokens, token = [], [], None
    while True:
        response = caller.stub.QueryEntities(pb.QueryEntitiesRequest(query=pb.EntityQuery(
            instanceIdStartsWith=text(prefix), includeState=True, pageSize=wrappers_pb2.Int32Value(value=3),
            continuationToken=token)), timeout=PATIENCE)
        assert len(response.entities) <= 3
        seen += [(entity.instanceId, entity.serializedState.value) for entity in response.entities]
        if not response.continuationToken.value:
            break
        assert response.continuationToken.value != "0" and response.continuationToken.value not in tokens
        tokens.append(response.continuationToken.value)
        token = wrappers_pb2.StringValue(value=response.continuationToken.value)
    assert sorted(seen) == [(name, '"s"') for name in names]


def test_transient_entities_are_hidden_unless_wanted(caller, worker, unique):
    """One that is locked and has no state is transient."""
    name = f"@box@{unique('transient')}"
    owner = caller.start("owner", unique("owner"))
    worker.answer(worker.turn(owner), lock(1, [name], unique("section"), owner))
    item = worker.turn(owner)

    def found(transient):
        response = caller.stub.QueryEntities(pb.QueryEntitiesRequest(query=pb.EntityQuery(
            instanceIdStartsWith=text(name), includeTransient=transient)), timeout=PATIENCE)
        return [entity.instanceId for entity in response.entities]

    assert found(True) == [name]
    assert found(False) == []
    worker.answer(item, complete(2))
    until(lambda: found(True) == [])


def test_a_result_is_delivered_once(caller, worker, entity, unique):
    """Python fails an orchestration that gets a result that it does not wait for."""
    instance = caller.start("asking", unique())
    worker.answer(worker.turn(instance), call(1, entity, "op", unique("r"), instance))
    batch = worker.batch(entity)
    worker.operate(batch, done('"once"'), state="1")
    worker.operate(batch, done('"twice"'), state="2")
    result, = answers(worker, instance, 1)
    assert result.entityOperationCompleted.output.value == '"once"'
    caller.raise_event(instance, "next")
    item = worker.turn(instance)
    assert kinds(item.orchestratorRequest.newEvents) == ["orchestratorStarted", "eventRaised"]
    assert caller.entity(entity).serializedState.value == "1"


def test_results_for_a_generation_that_is_over_are_dropped(caller, worker, entity, unique):
    instance = caller.start("asking", unique())
    worker.answer(worker.turn(instance), call(1, entity, "op", unique("r"), instance))
    batch = worker.batch(entity)
    caller.raise_event(instance, "renew")
    worker.answer(worker.turn(instance), continue_as_new(2, "2"))
    worker.answer(worker.turn(instance), timer(1, after(0.5)))
    worker.operate(batch, done('"late"'), state="1")
    item = worker.turn(instance)
    assert kinds(item.orchestratorRequest.newEvents) == ["orchestratorStarted", "timerFired"]
