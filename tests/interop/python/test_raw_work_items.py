"""The life of work items: tokens, redelivery, abandoning, limits and filters."""

import time

import pytest

import durabletask.internal.orchestrator_service_pb2 as pb

from support import until
from support.raw import (PATIENCE, after, call, complete, done, kind, kinds, named, operations, schedule, text, timer)


def test_no_limits_given_means_the_servers_limits(caller, raw_worker, unique):
    instance, entity = caller.start("unlimited", unique()), f"@box@{unique()}"
    worker = raw_worker(maxConcurrentOrchestrationWorkItems=0, maxConcurrentActivityWorkItems=0,
                        maxConcurrentEntityWorkItems=0)
    worker.answer(worker.turn(instance), schedule(1, "work"), call(2, entity, "op", unique("r"), instance))
    worker.perform(worker.activity(instance), "1")
    worker.operate(worker.batch(entity), done("2"), state="1")
    events = []
    while not {"taskCompleted", "entityOperationCompleted"} <= set(kinds(events)):
        item = worker.turn(instance)
        events += item.orchestratorRequest.newEvents
        worker.answer(item)


def test_limits_hold_and_are_freed_by_answers(caller, raw_worker, unique):
    limited = raw_worker(maxConcurrentActivityWorkItems=2, workItemFilters=named(activities=[unique("work")]))
    turns = raw_worker(workItemFilters=named(orchestrations=[unique("wide")]))
    instance = caller.start(unique("wide"), unique())
    turns.answer(turns.turn(instance), *[schedule(number, unique("work")) for number in range(1, 7)])
    first, second = limited.activity(instance), limited.activity(instance)
    assert limited.arrived() == []
    limited.perform(first, "1")
    limited.activity(instance)
    assert limited.arrived() == []
    limited.perform(second, "2")
    limited.activity(instance)
    assert limited.arrived() == []
    # Another worker takes what this one may not have.
    other = raw_worker(workItemFilters=named(activities=[unique("work")]))
    taken = {other.activity(instance).activityRequest.taskId for _ in range(2)}
    assert len(taken) == 2
    assert limited.arrived() == []


def test_one_turn_of_an_instance_at_a_time(caller, raw_worker, unique):
    workers = [raw_worker(workItemFilters=named(orchestrations=[unique("single")])) for _ in range(2)]
    instance = caller.start(unique("single"), unique())
    got = until(lambda: [(worker, item) for worker in workers for item in worker.arrived()])
    for number in range(20):
        caller.raise_event(instance, "event", str(number))
    assert sum(len(worker.arrived()) for worker in workers) == 1
    worker, item = got[0]
    worker.turn(instance)
    worker.answer(item)
    # All that arrived meanwhile is one batch, in order.
    worker, item = until(lambda: [(worker, item) for worker in workers for item in worker.arrived()])[0]
    raised = [event.eventRaised.input.value for event in item.orchestratorRequest.newEvents
              if kind(event) == "eventRaised"]
    assert raised == [str(number) for number in range(20)]


def test_answers_to_items_that_nobody_knows_are_taken(caller, raw_worker, unique):
    worker = raw_worker()
    stub = worker.stub
    for token in ("nonsense", "", "0", "1234567", "☃" * 1000):
        stub.CompleteOrchestratorTask(pb.OrchestratorResponse(
            instanceId=unique("nobody"), completionToken=token, actions=[complete(1)]), timeout=PATIENCE)
        stub.CompleteActivityTask(pb.ActivityResponse(
            instanceId=unique("nobody"), taskId=1, completionToken=token), timeout=PATIENCE)
        stub.CompleteEntityTask(pb.EntityBatchResult(completionToken=token), timeout=PATIENCE)
        stub.AbandonTaskActivityWorkItem(pb.AbandonActivityTaskRequest(completionToken=token), timeout=PATIENCE)
        stub.AbandonTaskOrchestratorWorkItem(
            pb.AbandonOrchestrationTaskRequest(completionToken=token), timeout=PATIENCE)
        stub.AbandonTaskEntityWorkItem(pb.AbandonEntityTaskRequest(completionToken=token), timeout=PATIENCE)


def test_a_second_answer_changes_nothing(caller, raw_worker, unique):
    worker = raw_worker()
    instance = caller.start("twice", unique())
    first = worker.turn(instance)
    worker.answer(first, schedule(1, "work"))
    worker.answer(first, complete(1, '"stale"'))
    activity = worker.activity(instance)
    worker.perform(activity, '"first"')
    worker.perform(activity, '"second"')
    item = worker.turn(instance)
    results = [event.taskCompleted.result.value for event in item.orchestratorRequest.newEvents
               if kind(event) == "taskCompleted"]
    assert results == ['"first"']
    worker.answer(item, complete(2, '"end"'))
    worker.perform(activity, '"third"')
    worker.answer(item, complete(2, '"other end"'))
    state = caller.wait(instance)
    assert state.output.value == '"end"'
    assert kinds(caller.history(instance)).count("taskCompleted") == 1


def test_a_worker_without_tokens_is_understood(caller, raw_worker, unique):
    """Go echoes neither token nor execution; its instance and number say what it answers."""
    worker = raw_worker()
    instance = caller.start("tokenless", unique())
    worker.turn(instance)
    worker.stub.CompleteOrchestratorTask(pb.OrchestratorResponse(
        instanceId=instance, actions=[schedule(1, "work")]), timeout=PATIENCE)
    worker.activity(instance)
    worker.stub.CompleteActivityTask(pb.ActivityResponse(
        instanceId=instance, taskId=1, result=text('"done"')), timeout=PATIENCE)
    item = worker.turn(instance)
    assert item.orchestratorRequest.newEvents[1].taskCompleted.result.value == '"done"'
    worker.stub.CompleteOrchestratorTask(pb.OrchestratorResponse(
        instanceId=instance, actions=[complete(2, '"end"')]), timeout=PATIENCE)
    assert caller.wait(instance).output.value == '"end"'


def test_items_of_a_stream_that_ended_are_given_to_others(caller, raw_worker, unique):
    filters = named([unique("orphan")], [unique("work")], ["box"])
    instance, entity = caller.start(unique("orphan"), unique()), f"@box@{unique()}"
    leaving = raw_worker(workItemFilters=filters)
    turn = leaving.turn(instance)
    leaving.end()
    staying = raw_worker(workItemFilters=filters)
    again = staying.turn(instance)
    assert again.orchestratorRequest == turn.orchestratorRequest or \
        kinds(again.orchestratorRequest.newEvents) == kinds(turn.orchestratorRequest.newEvents)
    assert again.completionToken != turn.completionToken
    staying.answer(again, schedule(1, unique("work")), call(2, entity, "op", unique("r"), instance, '"x"'))
    activity, batch = staying.activity(instance), staying.batch(entity)
    staying.end()
    last = raw_worker(workItemFilters=filters)
    assert last.activity(instance).activityRequest == activity.activityRequest
    assert operations(last.batch(entity)) == operations(batch) == ["op"]


def test_a_worker_may_answer_after_its_stream_has_ended(caller, raw_worker, unique):
    """So workers stop: the stream first, then what is under way is answered. The first answer counts."""
    filters = named([unique("graceful")], [unique("work")])
    instance = caller.start(unique("graceful"), unique())
    leaving = raw_worker(workItemFilters=filters)
    leaving.answer(leaving.turn(instance), schedule(1, unique("work")))
    activity = leaving.activity(instance)
    leaving.end()
    leaving.perform(activity, '"from the one that left"')
    staying = raw_worker(workItemFilters=filters)
    item = staying.turn(instance)
    assert [event.taskCompleted.result.value for event in item.orchestratorRequest.newEvents
            if kind(event) == "taskCompleted"] == ['"from the one that left"']
    staying.answer(item, complete(2))
    caller.wait(instance)
    assert kinds(caller.history(instance)).count("taskCompleted") == 1


def test_of_two_that_have_an_item_the_first_answer_counts(caller, raw_worker, unique):
    filters = named([unique("fenced")], [unique("work")])
    instance = caller.start(unique("fenced"), unique())
    leaving = raw_worker(workItemFilters=filters)
    leaving.answer(leaving.turn(instance), schedule(1, unique("work")))
    old = leaving.activity(instance)
    leaving.end()
    staying = raw_worker(workItemFilters=filters)
    new = staying.activity(instance)
    staying.perform(new, '"second"')
    leaving.perform(old, '"first"')
    item = staying.turn(instance)
    results = [event.taskCompleted.result.value for event in item.orchestratorRequest.newEvents
               if kind(event) == "taskCompleted"]
    assert results == ['"second"']
    # The same with a turn: the late answer must not be applied to a later turn.
    staying.end()
    last = raw_worker(workItemFilters=filters)
    again = last.turn(instance)
    last.answer(again, timer(2, after(3600)))
    staying.answer(item, complete(2, '"stale"'))
    caller.raise_event(instance, "go")
    item = last.turn(instance)
    assert kinds(item.orchestratorRequest.newEvents) == ["orchestratorStarted", "eventRaised"]
    last.answer(item, complete(3, '"end"'))
    assert caller.wait(instance).output.value == '"end"'


def test_an_abandoned_item_comes_again_later_and_elsewhere(caller, raw_worker, unique):
    filters = named([unique("abandoned")], [unique("work")], ["box"])
    instance = caller.start(unique("abandoned"), unique())
    worker = raw_worker(workItemFilters=filters)
    item = worker.turn(instance)
    abandoned = time.monotonic()
    worker.stub.AbandonTaskOrchestratorWorkItem(
        pb.AbandonOrchestrationTaskRequest(completionToken=item.completionToken), timeout=PATIENCE)
    again = worker.turn(instance)
    # A worker that rejects a version would get the item again at once, and at once again.
    assert time.monotonic() - abandoned > 0.05
    assert again.completionToken != item.completionToken
    assert caller.get(instance).orchestrationStatus == pb.ORCHESTRATION_STATUS_PENDING
    entity = f"@box@{unique()}"
    worker.answer(again, schedule(1, unique("work")), call(2, entity, "op", unique("r"), instance))
    worker.stub.AbandonTaskActivityWorkItem(pb.AbandonActivityTaskRequest(
        completionToken=worker.activity(instance).completionToken), timeout=PATIENCE)
    worker.stub.AbandonTaskEntityWorkItem(pb.AbandonEntityTaskRequest(
        completionToken=worker.batch(entity).completionToken), timeout=PATIENCE)
    worker.perform(worker.activity(instance), "1")
    worker.operate(worker.batch(entity), done("2"), state="1")
    seen = []
    while not {"taskCompleted", "entityOperationCompleted"} <= set(seen):
        item = worker.turn(instance)
        seen += kinds(item.orchestratorRequest.newEvents)
        worker.answer(item)


def test_filters_that_are_there_and_empty_want_nothing(caller, raw_worker, unique):
    nothing = raw_worker(workItemFilters=pb.WorkItemFilters())
    only_activities = raw_worker(workItemFilters=named(activities=[unique("work")]))
    instance = caller.start(unique("wanted"), unique())
    worker = raw_worker(workItemFilters=named([unique("wanted")]))
    worker.answer(worker.turn(instance), schedule(1, unique("work")))
    only_activities.perform(only_activities.activity(instance), "1")
    worker.answer(worker.turn(instance), complete(2))
    caller.wait(instance)
    assert nothing.arrived() == only_activities.arrived() == []


def test_an_activity_is_matched_by_the_version_of_its_orchestration(caller, raw_worker, unique):
    def filters(version):
        return pb.WorkItemFilters(
            orchestrations=[pb.OrchestrationFilter(name=unique("versioned"))],
            activities=[pb.ActivityFilter(name=unique("work"), versions=[version])])

    three = raw_worker(workItemFilters=filters("3.0.0"))
    instance = caller.start(unique("versioned"), unique(), version=text("3.0.0"))
    three.answer(three.turn(instance), schedule(1, unique("work")), schedule(2, unique("work"), version=text("4")))
    item = three.activity(instance)
    assert item.activityRequest.taskId == 1
    assert three.arrived() == []
    four = raw_worker(workItemFilters=filters("4"))
    assert four.activity(instance).activityRequest.taskId == 2
    # What is recorded is what the code asked for.
    scheduled = [event.taskScheduled for event in caller.history(instance) if kind(event) == "taskScheduled"]
    assert [event.version.value for event in scheduled] == ["", "4"]


def test_a_worker_that_is_slow_to_read_holds_up_nobody_else(caller, raw_worker, server, unique):
    """Its stream is full, and others get what comes after."""
    with server.channel() as channel:
        import durabletask.internal.orchestrator_service_pb2_grpc as stubs
        stalled = stubs.TaskHubSidecarServiceStub(channel).GetWorkItems(pb.GetWorkItemsRequest(
            maxConcurrentOrchestrationWorkItems=1, workItemFilters=named([unique("busy")])))
        worker = raw_worker(workItemFilters=named([unique("busy")]))
        instances = [caller.start(unique("busy"), unique(f"busy{number}"), '"' + "x" * 10_000 + '"')
                     for number in range(100)]
        taken = set()
        for _ in range(99):
            item = worker.take(lambda item: item.HasField("orchestratorRequest"), "a turn")
            worker.answer(item, complete(1))
            taken.add(item.orchestratorRequest.instanceId)
        assert len(taken) == 99 and taken < set(instances)
        stalled.cancel()
        item = worker.take(lambda item: item.HasField("orchestratorRequest"), "the last turn")
        worker.answer(item, complete(1))
    for instance in instances:
        assert caller.wait(instance).orchestrationStatus == pb.ORCHESTRATION_STATUS_COMPLETED


def test_history_streaming_is_only_for_those_who_announce_it(caller, raw_worker, unique):
    """Python and JavaScript need the whole history in the item, however long it is."""
    instance = caller.start("long", unique())
    worker = raw_worker()
    blob = '"' + "x" * 500_000 + '"'
    worker.answer(worker.turn(instance), *[schedule(number, "blob") for number in range(1, 9)])
    for number in range(1, 9):
        worker.perform(worker.activity(instance, number), blob)
    known = 0
    while known < 8:
        item = worker.turn(instance)
        assert not item.orchestratorRequest.requiresHistoryStreaming
        events = list(item.orchestratorRequest.pastEvents) + list(item.orchestratorRequest.newEvents)
        known = kinds(events).count("taskCompleted")
        assert kind(events[1]) == "executionStarted"
        worker.answer(item)
    worker.end()
    caller.raise_event(instance, "once more")
    streaming = raw_worker(capabilities=[pb.WORKER_CAPABILITY_HISTORY_STREAMING])
    item = streaming.turn(instance)
    past = list(item.orchestratorRequest.pastEvents)
    if item.orchestratorRequest.requiresHistoryStreaming:
        assert past == []
        past = caller.history(instance, forWorkItemProcessing=True)
    assert kinds(past).count("taskCompleted") == 8
    assert kinds(past)[:2] == ["orchestratorStarted", "executionStarted"]


@pytest.mark.parametrize("workers", [1, 4])
def test_nothing_is_lost_or_done_twice_while_streams_come_and_go(caller, raw_worker, unique, workers):
    filters = named([unique("churn")])
    instances = [caller.start(unique("churn"), unique(f"churn{number}")) for number in range(60)]
    for _ in range(5):
        # Each has a part of the items, so that none is left without.
        leaving = [raw_worker(workItemFilters=filters, maxConcurrentOrchestrationWorkItems=5) for _ in range(workers)]
        for worker in leaving:
            item = worker.take(lambda item: item.HasField("orchestratorRequest"), "a turn")
            worker.answer(item, complete(1, '"done"'))
            worker.end()
    last = raw_worker(workItemFilters=filters)
    for _ in range(60 - 5 * workers):
        item = last.take(lambda item: item.HasField("orchestratorRequest"), "a turn")
        last.answer(item, complete(1, '"done"'))
    for instance in instances:
        assert caller.wait(instance).output.value == '"done"'
        assert kinds(caller.history(instance)) == ["orchestratorStarted", "executionStarted", "executionCompleted"]
