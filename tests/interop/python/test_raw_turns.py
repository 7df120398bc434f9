"""Turns to the letter: which events a worker gets, and how its actions come back in the history."""

import re

import pytest

import durabletask.internal.orchestrator_service_pb2 as pb

from support import until
from support.raw import (PATIENCE, after, call, child, complete, continue_as_new, fail, kind, kinds, lock, now, schedule,
                         send_event, signal, text, timer, timestamp, unlock)

HEX = re.compile("[0-9a-f]{32}")


@pytest.fixture
def worker(raw_worker):
    return raw_worker()


def bare(events):
    """Events without what the server chooses."""
    stripped = []
    for event in events:
        copy = pb.HistoryEvent()
        copy.CopyFrom(event)
        copy.ClearField("timestamp")
        stripped.append(copy)
    return stripped


def test_the_first_turn(caller, worker, unique):
    trace = pb.TraceContext(
        traceParent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", spanID="b7ad6b7169203331")
    asked = now()
    instance = caller.start("first", unique(), '"in"', version=text("1.2"), tags={"k": "v"}, parentTraceContext=trace)
    item = worker.turn(instance)
    request = item.orchestratorRequest
    assert item.completionToken
    assert list(request.pastEvents) == []
    assert kinds(request.newEvents) == ["orchestratorStarted", "executionStarted"]
    assert [event.eventId for event in request.newEvents] == [-1, -1]
    assert asked <= request.newEvents[0].timestamp.ToDatetime(asked.tzinfo) <= now()
    assert not request.requiresHistoryStreaming
    started = request.newEvents[1].executionStarted
    assert (started.name, started.version.value, started.input.value) == ("first", "1.2", '"in"')
    assert dict(started.tags) == {"k": "v"}
    assert started.parentTraceContext.traceParent == trace.traceParent
    assert started.parentTraceContext.spanID == trace.spanID
    assert started.orchestrationInstance.instanceId == instance
    assert started.orchestrationInstance.executionId.value == request.executionId.value
    assert HEX.fullmatch(request.executionId.value)
    assert request.newEvents[1].timestamp.ToNanoseconds() > 0
    worker.answer(item, complete(1))
    assert caller.get(instance).executionId == request.executionId


def test_input_that_is_absent_and_input_that_is_empty(caller, worker, unique):
    for input in (None, ""):
        instance = caller.start("input", unique(f"in-{input}"), input)
        item = worker.turn(instance)
        assert item.orchestratorRequest.newEvents[1].executionStarted.input.value == ""
        worker.answer(item, complete(1))
        assert caller.wait(instance).input.value == ""


def test_every_kind_of_action_is_confirmed_by_its_event(caller, worker, unique):
    """In the order of the actions, with their numbers, before the next turn begins; and no other event comes."""
    instance = caller.start("asking", unique())
    entity, other = f"@box@{unique()}", f"@box@{unique('other')}"
    fire_at = after(3600)
    trace = pb.TraceContext(
        traceParent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", spanID="b7ad6b7169203331")
    actions = [
        schedule(1, "work", '"a"', version=text("2"), tags={"t": "u"}, parentTraceContext=trace),
        timer(2, fire_at),
        child(3, "below", unique("child"), '"c"', version=text("3"), tags={"x": "y"}, parentTraceContext=trace),
        send_event(4, unique("nobody"), "Event", '"e"'),
        call(5, entity, "op", unique("request"), instance, '"o"'),
        signal(6, entity, "sig", unique("signal"), '"s"'),
        lock(7, [other], unique("section"), instance),
        unlock(8, other, unique("section"), instance),
    ]
    first = worker.turn(instance)
    worker.answer(first, *actions)
    caller.raise_event(instance, "next", "1")
    # Its children and entities may come in between; only turns of the instance matter.
    second = worker.turn(instance)
    past = list(second.orchestratorRequest.pastEvents)
    assert past[:2] == list(first.orchestratorRequest.newEvents)
    called = past[6].entityOperationCalled
    # Where the answer goes to may be filled in by the server.
    assert called.parentExecutionId.value in ("", first.orchestratorRequest.executionId.value)
    called.ClearField("parentExecutionId")
    assert bare(past[2:]) == [
        pb.HistoryEvent(eventId=1, taskScheduled=pb.TaskScheduledEvent(
            name="work", version=text("2"), input=text('"a"'), tags={"t": "u"}, parentTraceContext=trace)),
        pb.HistoryEvent(eventId=2, timerCreated=pb.TimerCreatedEvent(fireAt=timestamp(fire_at))),
        pb.HistoryEvent(eventId=3, subOrchestrationInstanceCreated=pb.SubOrchestrationInstanceCreatedEvent(
            instanceId=unique("child"), name="below", version=text("3"), input=text('"c"'), tags={"x": "y"},
            parentTraceContext=trace)),
        pb.HistoryEvent(eventId=4, eventSent=pb.EventSentEvent(
            instanceId=unique("nobody"), name="Event", input=text('"e"'))),
        pb.HistoryEvent(eventId=5, entityOperationCalled=actions[4].sendEntityMessage.entityOperationCalled),
        pb.HistoryEvent(eventId=6, entityOperationSignaled=actions[5].sendEntityMessage.entityOperationSignaled),
        pb.HistoryEvent(eventId=7, entityLockRequested=actions[6].sendEntityMessage.entityLockRequested),
        pb.HistoryEvent(eventId=8, entityUnlockSent=actions[7].sendEntityMessage.entityUnlockSent),
    ]
    assert all(event.timestamp.ToNanoseconds() > 0 for event in past)
    assert kind(second.orchestratorRequest.newEvents[0]) == "orchestratorStarted"
    assert all(event.eventId == -1 for event in second.orchestratorRequest.newEvents)
    worker.answer(second, complete(9, "1"))
    caller.wait(instance)


def test_what_is_past_is_what_was_new_to_the_nanosecond(caller, worker, unique):
    instance = caller.start("exact", unique())
    known = []
    for number in range(1, 6):
        item = worker.turn(instance)
        request = item.orchestratorRequest
        assert list(request.pastEvents[:len(known)]) == known
        assert len(request.pastEvents) == len(known) + (1 if number > 1 else 0)
        known = list(request.pastEvents) + list(request.newEvents)
        worker.answer(item, timer(number, after(0.01)))
    item = worker.turn(instance)
    worker.answer(item, complete(6))
    caller.wait(instance)
    full = caller.history(instance)
    assert full[:len(known)] == known
    turns = [event.timestamp.ToNanoseconds() for event in full if kind(event) == "orchestratorStarted"]
    assert turns == sorted(turns)
    for started, fired in zip(full, full[1:]):
        if kind(fired) == "timerFired":
            assert kind(started) == "orchestratorStarted"
            assert started.timestamp.ToNanoseconds() >= fired.timerFired.fireAt.ToNanoseconds()


def test_a_timer_keeps_its_time(caller, worker, unique):
    instance = caller.start("nano", unique())
    first = worker.turn(instance)
    fire_at = timestamp(now())
    fire_at.nanos = fire_at.nanos // 1000 * 1000 + 400  # .NET counts hundreds of nanoseconds
    worker.answer(first, pb.OrchestratorAction(id=1, createTimer=pb.CreateTimerAction(fireAt=fire_at)))
    request = worker.turn(instance).orchestratorRequest
    assert request.pastEvents[2].timerCreated.fireAt == request.newEvents[1].timerFired.fireAt
    assert 0 <= request.newEvents[1].timerFired.fireAt.ToNanoseconds() - fire_at.ToNanoseconds() < 1000


def test_results_of_activities(caller, worker, unique):
    details = pb.TaskFailureDetails(
        errorType="Outer", errorMessage="outer message", stackTrace=text("at line 1"), isNonRetriable=True,
        innerFailure=pb.TaskFailureDetails(errorType="Inner", errorMessage="inner message"))
    details.properties["code"].number_value = 42
    details.properties["list"].list_value.values.add().string_value = "x"
    instance = caller.start("results", unique())
    trace = pb.TraceContext(
        traceParent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", spanID="b7ad6b7169203331",
        traceState=text("vendor=1"))
    worker.answer(
        worker.turn(instance), schedule(1, "full", '"in"', version=text("7"), tags={"a": "b"},
                                        parentTraceContext=trace),
        schedule(2, "none"), schedule(3, "failing"), schedule(4, "empty"))
    full = worker.activity(instance, 1)
    request = full.activityRequest
    assert full.completionToken
    assert (request.name, request.version.value, request.input.value, request.taskId) == ("full", "7", '"in"', 1)
    assert dict(request.tags) == {"a": "b"}
    assert request.parentTraceContext == trace
    assert request.orchestrationInstance.instanceId == instance
    assert HEX.fullmatch(request.orchestrationInstance.executionId.value)
    none = worker.activity(instance, 2)
    assert not none.activityRequest.HasField("input")
    events = []

    def result_of(complete_it):
        complete_it()
        # Each result wakes a turn of its own, because the one before is answered.
        item = worker.turn(instance)
        events.append(item.orchestratorRequest.newEvents[1])
        worker.answer(item)

    result_of(lambda: worker.perform(full, '"out"'))
    result_of(lambda: worker.perform(none))
    failing = worker.activity(instance, 3)
    result_of(lambda: worker.perform(failing, failureDetails=details))
    # What tells a failure is that there are details, not what they say.
    result_of(lambda: worker.perform(worker.activity(instance, 4), failureDetails=pb.TaskFailureDetails()))
    assert bare(events[:1]) == [pb.HistoryEvent(eventId=-1, taskCompleted=pb.TaskCompletedEvent(
        taskScheduledId=1, result=text('"out"')))]
    assert kind(events[1]) == "taskCompleted"
    assert (events[1].taskCompleted.taskScheduledId, events[1].taskCompleted.result.value) == (2, "")
    assert bare(events[2:3]) == [pb.HistoryEvent(eventId=-1, taskFailed=pb.TaskFailedEvent(
        taskScheduledId=3, failureDetails=details))]
    assert (kind(events[3]), events[3].taskFailed.taskScheduledId) == ("taskFailed", 4)


def test_a_failed_child_passes_its_details_on_unchanged(caller, worker, unique):
    details = pb.TaskFailureDetails(
        errorType="My.Error", errorMessage="mine", stackTrace=text("trace"),
        innerFailure=pb.TaskFailureDetails(errorType="Inner", errorMessage="inner"))
    details.properties["code"].number_value = 1
    instance, below = caller.start("parent", unique()), unique("below")
    worker.answer(worker.turn(instance), child(1, "child", below))
    worker.answer(worker.turn(below), complete(1, status=pb.ORCHESTRATION_STATUS_FAILED, failureDetails=details))
    failed = worker.turn(instance).orchestratorRequest.newEvents[1]
    assert failed.subOrchestrationInstanceFailed == pb.SubOrchestrationInstanceFailedEvent(
        taskScheduledId=1, failureDetails=details)
    state = caller.get(below)
    assert state.orchestrationStatus == pb.ORCHESTRATION_STATUS_FAILED
    assert state.failureDetails == details


def test_a_childs_start_tells_its_parent(caller, worker, unique):
    trace = pb.TraceContext(
        traceParent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", spanID="b7ad6b7169203331")
    instance = caller.start("parent", unique())
    first = worker.turn(instance)
    # An empty id is made by the server; Go leaves it to the server.
    worker.answer(first, child(26, "child", input="1", parentTraceContext=trace, version=text("4")))
    made = f"{instance}:001a"
    started = worker.turn(made).orchestratorRequest.newEvents[1].executionStarted
    parent = started.parentInstance
    assert (parent.name.value, parent.taskScheduledId) == ("parent", 26)
    assert parent.orchestrationInstance.instanceId == instance
    assert parent.orchestrationInstance.executionId == first.orchestratorRequest.executionId
    assert started.parentTraceContext.traceParent == trace.traceParent
    assert started.version.value == "4"
    assert caller.get(made).parentInstanceId.value == instance
    created = next(event for event in caller.history(instance) if kind(event) == "subOrchestrationInstanceCreated")
    assert created.subOrchestrationInstanceCreated.instanceId == made


def test_actions_beside_the_end_are_done_whatever_their_order(caller, worker, unique):
    target = caller.start("target", unique("target"))
    entity = f"@box@{unique()}"
    instance = caller.start("ending", unique())
    worker.answer(
        worker.turn(instance), complete(5, '"end"'), signal(2, entity, "told", unique("s")),
        send_event(3, target, "Told", '"event"'), schedule(4, "in vain"))
    state = caller.wait(instance)
    assert (state.orchestrationStatus, state.output.value) == (pb.ORCHESTRATION_STATUS_COMPLETED, '"end"')
    assert kinds(caller.history(instance))[-1] == "executionCompleted"
    raised = []
    while not raised:
        item = worker.turn(target)
        raised = [event for event in item.orchestratorRequest.newEvents if kind(event) == "eventRaised"]
        worker.answer(item)
    assert (raised[0].eventRaised.name, raised[0].eventRaised.input.value) == ("Told", '"event"')
    assert [kind(event) for event in worker.batch(entity).entityRequestV2.operationRequests] == [
        "entityOperationSignaled"]


def test_continuing_as_new(caller, worker, unique):
    instance = caller.start("renewing", unique(), "1", tags={"a": "b"}, version=text("1"))
    first = worker.turn(instance)
    worker.answer(first, schedule(1, "late"), timer(2, after(0.2)), customStatus=text('"old"'))
    late = worker.activity(instance, 1)
    caller.raise_event(instance, "renew")
    second = worker.turn(instance)
    # An event that arrives while the turn is under way follows what is carried over.
    caller.raise_event(instance, "while", '"w"')
    carried = pb.HistoryEvent(eventId=-1, timestamp=timestamp(now()), eventRaised=pb.EventRaisedEvent(
        name="kept", input=text('"k"')))
    worker.answer(second, continue_as_new(3, "2", carryoverEvents=[carried]))
    item = worker.turn(instance)
    renewed = item.orchestratorRequest
    assert list(renewed.pastEvents) == []
    names = kinds(renewed.newEvents)
    assert names[:3] == ["orchestratorStarted", "executionStarted", "eventRaised"]
    assert [(event.eventRaised.name, event.eventRaised.input.value) for event in renewed.newEvents
            if kind(event) == "eventRaised"] == [("kept", '"k"'), ("while", '"w"')]
    assert "timerFired" not in names
    started = renewed.newEvents[1].executionStarted
    assert (started.name, started.input.value, started.version.value, dict(started.tags)) == (
        "renewing", "2", "1", {"a": "b"})
    assert HEX.fullmatch(renewed.executionId.value)
    assert renewed.executionId != first.orchestratorRequest.executionId
    assert started.orchestrationInstance.executionId == renewed.executionId
    worker.answer(item, timer(1, after(3600)))
    until(lambda: caller.get(instance).executionId == renewed.executionId)
    state = caller.get(instance)
    assert (state.orchestrationStatus, state.input.value) == (pb.ORCHESTRATION_STATUS_RUNNING, "2")
    assert not state.HasField("customStatus")
    # The old generation's result is too late; the answer is taken all the same.
    worker.perform(late, '"too late"')


def test_the_version_of_the_next_generation_can_be_changed(caller, worker, unique):
    instance = caller.start("renewing", unique(), "1", version=text("1"))
    worker.answer(worker.turn(instance), continue_as_new(1, "2", newVersion=text("2")))
    item = worker.turn(instance)
    assert item.orchestratorRequest.newEvents[1].executionStarted.version.value == "2"
    worker.answer(item, complete(1))
    assert caller.wait(instance).version.value == "2"


def test_late_results_of_an_old_generation_are_dropped(caller, worker, unique):
    instance = caller.start("renewing", unique())
    worker.answer(worker.turn(instance), schedule(1, "old"), timer(2, after(0.3)))
    late = worker.activity(instance, 1)
    caller.raise_event(instance, "renew")
    worker.answer(worker.turn(instance), continue_as_new(3, "2"))
    worker.answer(worker.turn(instance), schedule(1, "new"), timer(2, after(0.8)))
    worker.perform(late, '"old"')
    fresh = worker.activity(instance, 1)
    assert fresh.activityRequest.name == "new"
    events = []
    worker.perform(fresh, '"new"')
    while "timerFired" not in kinds(events):
        item = worker.turn(instance)
        events += item.orchestratorRequest.newEvents
        worker.answer(item)
    results = [event.taskCompleted.result.value for event in events if kind(event) == "taskCompleted"]
    assert results == ['"new"']
    assert kinds(events).count("timerFired") == 1


def test_failure_by_an_action_without_number(caller, worker, unique):
    """So workers tell that code could not be run at all."""
    instance = caller.start("impossible", unique())
    worker.answer(worker.turn(instance), fail(-1, "Impossible", "there is no such code"))
    state = caller.wait(instance)
    assert state.orchestrationStatus == pb.ORCHESTRATION_STATUS_FAILED
    assert (state.failureDetails.errorType, state.failureDetails.errorMessage) == (
        "Impossible", "there is no such code")
    assert kinds(caller.history(instance))[-1] == "executionCompleted"


def test_termination_is_an_event_that_the_worker_answers(caller, worker, unique):
    instance = caller.start("ended", unique())
    worker.answer(worker.turn(instance))
    caller.stub.TerminateInstance(pb.TerminateRequest(instanceId=instance, output=text('"why"'), recursive=True))
    state = caller.get(instance)
    if state.orchestrationStatus != pb.ORCHESTRATION_STATUS_TERMINATED:
        item = worker.turn(instance)
        ended = item.orchestratorRequest.newEvents[1]
        assert (kind(ended), ended.executionTerminated.input.value, ended.executionTerminated.recurse) == (
            "executionTerminated", '"why"', True)
        worker.answer(item, complete(1, '"why"', pb.ORCHESTRATION_STATUS_TERMINATED), schedule(2, "pending"))
    state = caller.wait(instance)
    assert (state.orchestrationStatus, state.output.value) == (pb.ORCHESTRATION_STATUS_TERMINATED, '"why"')


def test_an_instance_that_has_not_begun_is_terminated_without_a_worker(own_server):
    from support.raw import Caller
    caller = Caller(own_server)
    instance = caller.start("never run", "id")
    caller.stub.TerminateInstance(pb.TerminateRequest(instanceId=instance, output=text("1")))
    state = caller.wait(instance)
    assert (state.orchestrationStatus, state.output.value) == (pb.ORCHESTRATION_STATUS_TERMINATED, "1")
    caller.close()


def test_trace_contexts_are_echoed_within_an_execution(caller, worker, unique):
    instance = caller.start("traced", unique())
    first = worker.turn(instance)
    assert not first.orchestratorRequest.orchestrationTraceContext.spanID.value
    context = pb.OrchestrationTraceContext(spanID=text("b7ad6b7169203331"), spanStartTime=timestamp(now()))
    worker.answer(first, orchestrationTraceContext=context)
    caller.raise_event(instance, "next")
    second = worker.turn(instance)
    assert second.orchestratorRequest.orchestrationTraceContext == context
    worker.answer(second, continue_as_new(1, "2"), orchestrationTraceContext=context)
    third = worker.turn(instance)
    assert not third.orchestratorRequest.orchestrationTraceContext.spanID.value


def test_a_custom_status_that_is_absent_is_none(caller, worker, unique):
    instance = caller.start("status", unique())
    worker.answer(worker.turn(instance), customStatus=text('"one"'))
    assert caller.get(instance).customStatus.value == '"one"'
    caller.raise_event(instance, "next")
    worker.answer(worker.turn(instance))
    assert not caller.get(instance).HasField("customStatus")


def test_an_answer_in_parts(caller, worker, unique):
    """.NET splits answers that are too long: the parts are one answer."""
    from google.protobuf import wrappers_pb2
    instance = caller.start("parts", unique())
    item = worker.turn(instance)
    worker.answer(item, schedule(1, "a"), isPartial=True, chunkIndex=wrappers_pb2.Int32Value(value=0))
    worker.answer(item, schedule(2, "b"), isPartial=True, chunkIndex=wrappers_pb2.Int32Value(value=1),
                  numEventsProcessed=wrappers_pb2.Int32Value(value=0))
    assert kinds(caller.history(instance)) in ([], ["orchestratorStarted", "executionStarted"])
    worker.answer(item, schedule(3, "c"), chunkIndex=wrappers_pb2.Int32Value(value=2),
                  numEventsProcessed=wrappers_pb2.Int32Value(value=0))
    assert sorted(worker.activity(instance).activityRequest.name for _ in range(3)) == ["a", "b", "c"]
    assert [event.eventId for event in caller.history(instance) if kind(event) == "taskScheduled"] == [1, 2, 3]


def test_a_rewind_by_the_letter(caller, worker, unique):
    instance = caller.start("rewound", unique())
    first = worker.turn(instance)
    worker.answer(first, schedule(1, "work"))
    worker.perform(worker.activity(instance, 1), failureDetails=pb.TaskFailureDetails(errorType="E", errorMessage="m"))
    worker.answer(worker.turn(instance), fail(2))
    caller.wait(instance)
    full = caller.history(instance)
    # It is answered when a worker has rewritten the history, so that nobody who looks afterwards sees the old failure.
    rewind = caller.stub.RewindInstance.future(
        pb.RewindInstanceRequest(instanceId=instance, reason=text("again")), timeout=PATIENCE)
    item = worker.turn(instance)
    request = item.orchestratorRequest
    assert list(request.pastEvents) == full
    assert kinds(request.newEvents) == ["orchestratorStarted", "executionRewound"]
    assert request.newEvents[1].executionRewound.reason.value == "again"
    renewed = "f" * 32
    history = []
    for event in list(request.pastEvents) + list(request.newEvents):
        if kind(event) in ("taskScheduled", "taskFailed", "executionCompleted"):
            continue
        if kind(event) == "executionStarted":
            event.executionStarted.orchestrationInstance.executionId.value = renewed
        history.append(event)
    worker.answer(item, pb.OrchestratorAction(
        id=-1, rewindOrchestration=pb.RewindOrchestrationAction(newHistory=history)))
    rewind.result()
    state = caller.get(instance)
    assert (state.orchestrationStatus, state.executionId.value) == (pb.ORCHESTRATION_STATUS_RUNNING, renewed)
    assert not state.HasField("output") and not state.HasField("failureDetails")
    item = worker.turn(instance)
    request = item.orchestratorRequest
    assert request.executionId.value == renewed
    for event in request.pastEvents:
        event.DiscardUnknownFields()  # what the server's own workers are told besides
    assert list(request.pastEvents) == history
    assert kinds(request.newEvents)[0] == "orchestratorStarted"
    assert "executionRewound" not in kinds(request.newEvents)
    worker.answer(item, schedule(1, "work"))
    worker.perform(worker.activity(instance, 1), "1")
    item = worker.turn(instance)
    assert kinds(item.orchestratorRequest.newEvents) == ["orchestratorStarted", "taskCompleted"]
    worker.answer(item, complete(2, "1"))
    state = caller.wait(instance)
    assert (state.orchestrationStatus, state.executionId.value) == (pb.ORCHESTRATION_STATUS_COMPLETED, renewed)


def test_running_is_shown_from_the_first_answer_on(caller, worker, unique):
    instance = caller.start("status", unique())
    assert caller.get(instance).orchestrationStatus == pb.ORCHESTRATION_STATUS_PENDING
    wait = caller.stub.WaitForInstanceStart.future(pb.GetInstanceRequest(instanceId=instance))
    worker.answer(worker.turn(instance), timer(1, after(3600)))
    assert wait.result(timeout=30).orchestrationState.orchestrationStatus == pb.ORCHESTRATION_STATUS_RUNNING


def test_details_of_failure_are_absent_unless_it_failed(caller, worker, unique):
    instance = caller.start("fine", unique())
    worker.answer(worker.turn(instance), complete(1, "1"))
    assert not caller.wait(instance).HasField("failureDetails")


def test_a_history_for_a_work_item_is_what_is_past(caller, worker, unique):
    instance = caller.start("past", unique())
    worker.answer(worker.turn(instance), timer(1, after(0)))
    item = worker.turn(instance)
    assert caller.history(instance, forWorkItemProcessing=True) == list(item.orchestratorRequest.pastEvents)
    worker.answer(item, complete(2))
    until(lambda: kinds(caller.history(instance))[-1] == "executionCompleted")
