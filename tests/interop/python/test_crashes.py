"""Workers and servers that are killed, and what goes on afterwards."""

import json
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import grpc
import pytest

import durabletask.internal.orchestrator_service_pb2 as pb
from durabletask import entities, task
from durabletask.client import OrchestrationStatus, TaskHubGrpcClient
from durabletask.entities import EntityInstanceId

from conftest import CLIENT_LOGGER
from support import until
from support.raw import (Caller, RawWorker, after, call, complete, done, kind, kinds, lock, named, now, operations,
                         schedule, timer, unlock)


@pytest.fixture
def doomed(server):
    """A worker in another process, and a line of what it says at a time."""
    process = subprocess.Popen(
        [sys.executable, "-m", "support.worker_process", server.address], cwd=Path(__file__).parent,
        stdout=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.wait()


def one_step(ctx: task.OrchestrationContext, input):
    return (yield ctx.call_activity("stuck", input=input))


def test_an_activity_of_a_killed_worker_is_done_by_another(doomed, worker, client, caller, unique):
    instance = client.schedule_new_orchestration(one_step, input=7, instance_id=unique())
    assert doomed.stdout.readline() == f"begun {instance}\n"
    doomed.kill()

    def stuck(ctx, input):
        return input * 2

    worker(orchestrators=[one_step], activities=[stuck], filters="registered")
    state = client.wait_for_orchestration_completion(instance, timeout=60)
    assert state.get_output() == 14
    assert kinds(caller.history(instance)).count("taskScheduled") == 1
    assert kinds(caller.history(instance)).count("taskCompleted") == 1


def test_a_turn_of_a_killed_worker_is_taken_by_another(doomed, worker, client, unique):
    instance = client.schedule_new_orchestration("stuck_turn", instance_id=unique())
    assert doomed.stdout.readline() == f"begun {instance}\n"
    doomed.kill()

    def stuck_turn(ctx: task.OrchestrationContext, _):
        return "taken over"
        yield

    worker(orchestrators=[stuck_turn], filters="registered")
    assert client.wait_for_orchestration_completion(instance, timeout=60).get_output() == "taken over"


def test_a_batch_of_a_killed_worker_is_run_by_another(doomed, worker, client, unique):
    entity = EntityInstanceId("stuck_entity", unique())
    client.signal_entity(entity, "op", 1)
    assert doomed.stdout.readline() == f"begun {entity}\n"
    doomed.kill()

    def stuck_entity(ctx: entities.EntityContext, input):
        ctx.set_state(ctx.get_state(int, 0) + 1)

    worker(entities=[stuck_entity], filters="registered")
    until(lambda: client.get_entity(entity))
    assert client.get_entity(entity).get_typed_state() == 1


def test_a_worker_that_stops_ends_what_it_has_begun(worker, client, caller, unique):
    begun, release = threading.Event(), threading.Event()
    runs = []

    def slow(ctx, _):
        runs.append(1)
        begun.set()
        release.wait(30)
        return "done"

    def leaving(ctx: task.OrchestrationContext, _):
        return (yield ctx.call_activity(slow))

    first = worker(orchestrators=[leaving], activities=[slow])
    instance = client.schedule_new_orchestration(leaving, instance_id=unique())
    assert begun.wait(30)
    stopping = threading.Thread(target=first.stop)
    stopping.start()
    release.set()
    stopping.join(60)
    assert not stopping.is_alive()
    worker(orchestrators=[leaving], activities=[slow])
    assert client.wait_for_orchestration_completion(instance, timeout=60).get_output() == "done"
    assert kinds(caller.history(instance)).count("taskCompleted") == 1
    assert len(runs) in (1, 2)


class Everything:
    """Code that is under way when the server dies."""

    def __init__(self):
        self.reached = threading.Semaphore(0)

    def register(self):
        everything = self

        def reach(ctx, what):
            everything.reached.release()
            return what

        def waits_for_event(ctx: task.OrchestrationContext, _):
            before = yield ctx.call_activity(reach, input="before")
            event = yield ctx.wait_for_external_event("go")
            after = yield ctx.call_activity(reach, input="after")
            return [before, event, after]

        def waits_for_timer(ctx: task.OrchestrationContext, _):
            began = ctx.current_utc_datetime
            yield ctx.call_activity(reach)
            yield ctx.create_timer(began + timedelta(seconds=3))
            return (ctx.current_utc_datetime - began).total_seconds()

        def parent(ctx: task.OrchestrationContext, _):
            return (yield ctx.call_sub_orchestrator(waits_for_event, instance_id=f"{ctx.instance_id}-child"))

        def holds_lock(ctx: task.OrchestrationContext, id):
            account = EntityInstanceId.parse(id)
            with (yield ctx.lock_entities([account])):
                before = yield ctx.call_entity(account, "get")
                yield ctx.call_activity(reach)
                yield ctx.wait_for_external_event("go")
                yield ctx.call_entity(account, "set", before + 10)
            return before

        def adds(ctx: task.OrchestrationContext, id):
            return (yield ctx.call_entity(EntityInstanceId.parse(id), "add", 1))

        def account(ctx: entities.EntityContext, input):
            value = ctx.get_state(int, 0)
            if ctx.operation == "add":
                value += input
            elif ctx.operation == "set":
                value = input
            ctx.set_state(value)
            return value

        def generations(ctx: task.OrchestrationContext, number):
            yield ctx.call_activity(quiet, input=number)
            if number < 60:
                ctx.continue_as_new(number + 1)
                return
            return number

        def quiet(ctx, input):
            return input

        def wide(ctx: task.OrchestrationContext, width):
            return sum((yield task.when_all([ctx.call_activity(quiet, input=number) for number in range(width)])))

        return {
            "orchestrators": [waits_for_event, waits_for_timer, parent, holds_lock, adds, generations, wide],
            "activities": [reach, quiet], "entities": [account]}


def test_a_server_that_is_killed_goes_on_where_it_was(own_server, new_worker, unique):
    """Orchestrations, children, timers, entities, locks, signals and waits are under way; worker and clients stay."""
    code = Everything()
    new_worker(own_server, **code.register())
    account = EntityInstanceId("account", unique())
    with TaskHubGrpcClient(host_address=own_server.address, logger=CLIENT_LOGGER) as client:
        start = client.schedule_new_orchestration
        client.signal_entity(account, "add", 5)
        waits = [start("waits_for_event", instance_id=f"event{number}") for number in range(10)]
        timers = [start("waits_for_timer", instance_id=f"timer{number}") for number in range(5)]
        parent = start("parent", instance_id="parent")
        holder = start("holds_lock", input=str(account), instance_id="holder")
        for _ in range(len(waits) + len(timers) + 2):
            assert code.reached.acquire(timeout=30)
        adders = [start("adds", input=str(account), instance_id=f"adder{number}") for number in range(10)]
        scheduled = start("wide", input=10, instance_id="scheduled", start_at=after(3))
        client.signal_entity(account, "add", 100, signal_time=after(3))
        client.raise_orchestration_event(waits[0], "go", data="before the crash")
        generations = start("generations", input=1, instance_id="generations")
        wide = start("wide", input=100, instance_id="wide")
        request = pb.GetInstanceRequest(instanceId=parent)
        caller = Caller(own_server)
        waiting = caller.stub.WaitForInstanceCompletion.future(request)

        for _ in range(3):
            own_server.kill()
            own_server.start()

        with pytest.raises(grpc.RpcError) as lost:
            waiting.result(timeout=30)
        assert lost.value.code() is grpc.StatusCode.UNAVAILABLE
        caller.close()
        caller = Caller(own_server)
        for instance in waits[1:]:
            caller.raise_event(instance, "go", f'"to {instance}"')
        caller.raise_event(f"{parent}-child", "go", '"child"')
        caller.raise_event(holder, "go")
        outcomes = {instance: caller.stub.WaitForInstanceCompletion.future(
            pb.GetInstanceRequest(instanceId=instance, getInputsAndOutputs=True))
            for instance in [*waits, *timers, parent, holder, *adders, scheduled, generations, wide]}
        outputs = {}
        for instance, outcome in outcomes.items():
            state = outcome.result(timeout=90).orchestrationState
            assert state.orchestrationStatus == OrchestrationStatus.COMPLETED.value, (instance, state)
            outputs[instance] = state.output.value
    outputs = {instance: json.loads(output) for instance, output in outputs.items()}
    assert outputs[waits[0]] == ["before", "before the crash", "after"]
    for instance in waits[1:]:
        assert outputs[instance] == ["before", f"to {instance}", "after"]
    assert all(3 <= outputs[instance] < 60 for instance in timers)
    assert outputs[parent] == ["before", "child", "after"]
    assert outputs[holder] == 5
    assert outputs[generations] == 60
    assert outputs[wide] == sum(range(100))
    assert outputs[scheduled] == sum(range(10))
    # Each added once, after the owner of the lock had set what it read and ten more.
    values = {outputs[instance] for instance in adders}
    assert len(values) == 10 and all(16 <= value <= 125 for value in values)
    until(lambda: caller.entity(str(account)).serializedState.value == "125")
    assert not caller.entity(str(account)).HasField("lockedBy")
    for instance in outputs:
        events = caller.history(instance)
        assert kinds(events)[-1] == "executionCompleted"
        ids = [event.eventId for event in events if event.eventId >= 0]
        assert ids == sorted(set(ids)), instance
    caller.close()


def test_a_server_that_is_killed_again_and_again_under_load_loses_nothing(own_server, new_worker, unique):
    def step(ctx, number):
        return number + 1

    def steps(ctx: task.OrchestrationContext, number):
        for _ in range(3):
            number = yield ctx.call_activity(step, input=number)
        return number

    new_worker(own_server, orchestrators=[steps], activities=[step])
    acknowledged = []
    stop = threading.Event()
    caller = Caller(own_server)

    def load():
        number = 0
        while not stop.is_set():
            number += 1
            try:
                acknowledged.append((caller.start("steps", f"load{number}", str(number)), number))
            except grpc.RpcError as error:
                assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED), error
                # Whether it was started is open, and its id is not used again.

    loading = threading.Thread(target=load)
    loading.start()
    try:
        for round in range(1, 5):
            until(lambda: len(acknowledged) >= 40 * round, seconds=60)
            own_server.kill()
            own_server.start()
        until(lambda: len(acknowledged) >= 200, seconds=60)
    finally:
        stop.set()
        loading.join()
    last = Caller(own_server)
    for instance, number in acknowledged:
        state = last.stub.WaitForInstanceCompletion(
            pb.GetInstanceRequest(instanceId=instance, getInputsAndOutputs=True), timeout=60).orchestrationState
        assert (state.orchestrationStatus, state.output.value) == (
            OrchestrationStatus.COMPLETED.value, str(number + 3)), instance
    for channel in (caller, last):
        channel.close()


def test_what_is_past_is_the_same_after_a_restart(own_server):
    """To the nanosecond: ids that code makes are derived from the times of its turns."""
    worker, caller = RawWorker(own_server), Caller(own_server)
    instance = caller.start("exact", "exact")
    first = worker.turn(instance)
    worker.answer(first, schedule(1, "work"), timer(2, after(3600)))
    worker.perform(worker.activity(instance), '"x"')
    second = worker.turn(instance)
    worker.answer(second, schedule(3, "work"))
    # A worker's answer is taken before it is durable; what a client is shown is durable.
    until(lambda: kinds(caller.history(instance)).count("taskScheduled") == 2)
    history = caller.history(instance)
    own_server.kill()
    own_server.start()
    worker, caller = RawWorker(own_server), Caller(own_server)
    assert caller.history(instance) == history
    worker.perform(worker.activity(instance, 3), '"y"')
    third = worker.turn(instance).orchestratorRequest
    assert list(third.pastEvents) == history
    assert third.executionId == first.orchestratorRequest.executionId
    assert third.newEvents[0].timestamp.ToNanoseconds() >= history[-1].timestamp.ToNanoseconds()
    worker.close()
    caller.close()


def test_items_that_were_out_come_again_after_a_restart(own_server):
    worker, caller = RawWorker(own_server), Caller(own_server)
    instance, entity = caller.start("out", "out"), "@box@out"
    turn = worker.turn(instance)
    worker.answer(turn, schedule(1, "work"), call(2, entity, "op", "request", instance))
    # Both are handed out because the turn is durable.
    activity, batch = worker.activity(instance), worker.batch(entity)
    other = caller.start("out", "other")
    stale = worker.turn(other)
    own_server.kill()
    own_server.start()
    fresh, caller = RawWorker(own_server), Caller(own_server)
    assert kinds(fresh.turn(other).orchestratorRequest.newEvents) == ["orchestratorStarted", "executionStarted"]
    again = fresh.activity(instance)
    assert again.activityRequest == activity.activityRequest
    assert operations(fresh.batch(entity)) == ["op"]
    # What was handed out before the restart is not known any more, and is taken all the same.
    fresh.perform(activity, '"stale"')
    fresh.operate(batch, done('"stale"'), state='"stale"')
    fresh.answer(stale, complete(1, '"stale"'))
    fresh.perform(again, '"fresh"')
    item = fresh.turn(instance)
    results = [event for event in item.orchestratorRequest.newEvents if kind(event) == "taskCompleted"]
    assert [event.taskCompleted.result.value for event in results] in (['"fresh"'], ['"stale"'])
    assert len(results) == 1
    for one in (worker, fresh, caller):
        one.close()


def test_locks_outlive_a_restart(own_server):
    worker, caller = RawWorker(own_server), Caller(own_server)
    a, owner = "@box@a", caller.start("owner", "owner")
    other = caller.start("other", "other")
    worker.answer(worker.turn(owner), lock(1, [a], "section", owner))
    granted = worker.turn(owner)
    assert "entityLockGranted" in kinds(granted.orchestratorRequest.newEvents)
    worker.answer(granted)
    worker.answer(worker.turn(other), call(1, a, "by other", "request", other))
    # As above.
    until(lambda: "entityOperationCalled" in kinds(caller.history(other)))
    own_server.kill()
    own_server.start()
    worker.close()
    worker, caller = RawWorker(own_server), Caller(own_server)
    assert caller.entity(a).lockedBy.value == owner
    caller.raise_event(owner, "go")
    item = worker.turn(owner)
    assert not [item for item in worker.arrived() if item.HasField("entityRequestV2")]
    worker.answer(item, unlock(2, a, "section", owner), complete(3))
    batch = worker.batch(a)
    assert operations(batch) == ["by other"]
    worker.operate(batch, done('"x"'), state="1")
    item = worker.turn(other)
    assert item.orchestratorRequest.newEvents[1].entityOperationCompleted.output.value == '"x"'
    worker.close()
    caller.close()


def test_a_clean_stop_keeps_everything_too(own_server, new_raw_worker):
    caller = Caller(own_server)
    instance = caller.start("kept", "kept", "1")
    at = after(2)
    caller.signal("@box@later", "late", at=at)
    assert own_server.stop() == 0
    own_server.start()
    worker = new_raw_worker(own_server, workItemFilters=named(["kept"], entities=["box"]))
    worker.answer(worker.turn(instance), complete(1, '"kept"'))
    caller = Caller(own_server)
    assert caller.wait(instance).output.value == '"kept"'
    assert operations(worker.batch("@box@later")) == ["late"]
    assert now() >= at
    caller.close()
