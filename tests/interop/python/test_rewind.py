"""Rewinding: failed work is done again, finished work is kept."""

import re
import threading

import grpc
import pytest

from durabletask import task
from durabletask.client import OrchestrationStatus

from support.raw import kinds


class Weather:
    """An activity that fails until it is told not to, and one that counts its runs."""

    def __init__(self):
        self.bad = threading.Event()
        self.bad.set()
        self.counted: list[str] = []
        weather = self

        def flaky(ctx, name):
            if weather.bad.is_set():
                raise RuntimeError(f"{name} failed")
            return f"{name} is well"

        def steady(ctx, name):
            weather.counted.append(name)
            return name

        self.activities = [flaky, steady]


@pytest.fixture
def weather():
    return Weather()


def careful(ctx: task.OrchestrationContext, name):
    before = yield ctx.call_activity("steady", input=f"{name} before")
    result = yield ctx.call_activity("flaky", input=name)
    after = yield ctx.call_activity("steady", input=f"{name} after")
    return [before, result, after]


def family(ctx: task.OrchestrationContext, names):
    results = []
    for name in names:
        results.append((yield ctx.call_sub_orchestrator(careful, input=name, instance_id=f"{ctx.instance_id}-{name}")))
    return results


def test_failed_work_is_done_again_and_finished_work_is_not(worker, run, client, caller, weather):
    worker(orchestrators=[careful], activities=weather.activities)
    failed = run(careful, "one")
    assert failed.runtime_status is OrchestrationStatus.FAILED
    old = caller.get(failed.instance_id)
    weather.bad.clear()
    client.rewind_orchestration(failed.instance_id, reason="the weather is good")
    # What was there is gone when the call returns.
    state = client.wait_for_orchestration_completion(failed.instance_id, timeout=30)
    assert state.runtime_status is OrchestrationStatus.COMPLETED
    assert state.get_output() == ["one before", "one is well", "one after"]
    assert state.failure_details is None
    assert weather.counted == ["one before", "one after"]
    new = caller.get(failed.instance_id)
    assert re.fullmatch("[0-9a-f]{32}", new.executionId.value)
    assert new.executionId.value != old.executionId.value
    assert new.createdTimestamp == old.createdTimestamp
    names = kinds(caller.history(failed.instance_id))
    assert "executionRewound" in names
    assert "taskFailed" not in names
    assert names.count("taskScheduled") == 3
    assert names.count("executionCompleted") == 1


def test_rewinding_twice(worker, run, client, weather):
    worker(orchestrators=[careful], activities=weather.activities)
    instance = run(careful, "two").instance_id
    for _ in range(2):
        client.rewind_orchestration(instance, reason="hope")
        state = client.wait_for_orchestration_completion(instance, timeout=30)
        assert state.runtime_status is OrchestrationStatus.FAILED
        assert "two failed" in state.failure_details.message
    weather.bad.clear()
    client.rewind_orchestration(instance)
    state = client.wait_for_orchestration_completion(instance, timeout=30)
    assert state.get_output() == ["two before", "two is well", "two after"]
    assert weather.counted == ["two before", "two after"]


def test_failed_children_are_rewound_with_their_parent(worker, run, client, caller, weather):
    worker(orchestrators=[family, careful], activities=weather.activities)
    weather.bad.clear()
    first = run(careful, "warm-up")
    assert first.runtime_status is OrchestrationStatus.COMPLETED
    weather.counted.clear()
    weather.bad.set()
    failed = run(family, ["ann", "bob"])
    assert failed.runtime_status is OrchestrationStatus.FAILED
    child = f"{failed.instance_id}-ann"
    assert client.get_orchestration_state(child).runtime_status is OrchestrationStatus.FAILED
    weather.bad.clear()
    client.rewind_orchestration(failed.instance_id)
    state = client.wait_for_orchestration_completion(failed.instance_id, timeout=30)
    assert state.runtime_status is OrchestrationStatus.COMPLETED, state.failure_details
    assert state.get_output() == [
        [f"{name} before", f"{name} is well", f"{name} after"] for name in ("ann", "bob")]
    assert weather.counted == ["ann before", "ann after", "bob before", "bob after"]
    assert client.get_orchestration_state(child).runtime_status is OrchestrationStatus.COMPLETED
    # The child belongs to the parent's new execution.
    started = next(event for event in caller.history(child) if event.HasField("executionStarted")).executionStarted
    assert started.parentInstance.orchestrationInstance.executionId.value == \
        caller.get(failed.instance_id).executionId.value


def test_a_purged_child_is_made_anew(worker, run, client, weather):
    worker(orchestrators=[family, careful], activities=weather.activities)
    failed = run(family, ["carl"])
    child = f"{failed.instance_id}-carl"
    assert client.purge_orchestration(child).deleted_instance_count == 1
    weather.bad.clear()
    client.rewind_orchestration(failed.instance_id)
    state = client.wait_for_orchestration_completion(failed.instance_id, timeout=30)
    assert state.runtime_status is OrchestrationStatus.COMPLETED, state.failure_details
    assert state.get_output() == [["carl before", "carl is well", "carl after"]]
    # Nothing of the purged one is left, so its first step is done again.
    assert weather.counted == ["carl before", "carl before", "carl after"]
    assert client.get_orchestration_state(child).runtime_status is OrchestrationStatus.COMPLETED


def test_an_orchestration_that_failed_by_itself(worker, run, client, weather):
    def moody(ctx: task.OrchestrationContext, _):
        before = yield ctx.call_activity("steady", input="moody")
        if weather.bad.is_set():
            raise ValueError("a bad day")
        return before

    worker(orchestrators=[moody], activities=weather.activities)
    failed = run(moody)
    assert failed.runtime_status is OrchestrationStatus.FAILED
    weather.bad.clear()
    client.rewind_orchestration(failed.instance_id)
    state = client.wait_for_orchestration_completion(failed.instance_id, timeout=30)
    assert (state.runtime_status, state.get_output()) == (OrchestrationStatus.COMPLETED, "moody")
    assert weather.counted == ["moody"]


def test_several_failures_are_all_done_again(worker, run, client, weather):
    def wide(ctx: task.OrchestrationContext, _):
        tasks = [ctx.call_activity("flaky", input=str(number)) for number in range(5)]
        yield task.when_any([task.when_all(tasks)])
        return (yield task.when_all(tasks))

    worker(orchestrators=[wide], activities=weather.activities)
    failed = run(wide)
    assert failed.runtime_status is OrchestrationStatus.FAILED
    weather.bad.clear()
    client.rewind_orchestration(failed.instance_id)
    state = client.wait_for_orchestration_completion(failed.instance_id, timeout=30)
    assert state.get_output() == [f"{number} is well" for number in range(5)]


def test_what_cannot_be_rewound(worker, run, client, unique, weather):
    with pytest.raises(grpc.RpcError) as error:
        client.rewind_orchestration(unique("nobody"))
    assert error.value.code() is grpc.StatusCode.NOT_FOUND

    def waiting(ctx: task.OrchestrationContext, _):
        yield ctx.wait_for_external_event("end")

    worker(orchestrators=[waiting])
    instance = client.schedule_new_orchestration(waiting, instance_id=unique())
    client.wait_for_orchestration_start(instance, timeout=30)
    with pytest.raises(grpc.RpcError) as error:
        client.rewind_orchestration(instance)
    assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert re.search("not allow|precondition|running", error.value.details(), re.IGNORECASE)
    client.raise_orchestration_event(instance, "end")
    client.wait_for_orchestration_completion(instance, timeout=30)
    with pytest.raises(grpc.RpcError) as error:
        client.rewind_orchestration(instance)
    assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
