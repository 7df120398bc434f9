"""An instance's life: custom status, suspension, termination, restart, purge, and the reuse of its id."""

import threading
from datetime import timedelta

import grpc
import pytest

import durabletask.internal.orchestrator_service_pb2 as pb
from durabletask import task
from durabletask.client import OrchestrationStatus

from support.raw import kind, now


def until_event(ctx: task.OrchestrationContext, input):
    got = yield ctx.wait_for_external_event("end")
    return [input, got]


def refused(code: grpc.StatusCode):
    class Refused:
        def __enter__(self):
            self.raises = pytest.raises(grpc.RpcError)
            self.error = self.raises.__enter__()
            return self.error

        def __exit__(self, *details):
            caught = self.raises.__exit__(*details)
            assert self.error.value.code() is code, self.error.value
            return caught

    return Refused()


@pytest.fixture
def waiting(worker, client, unique):
    """An instance that waits for the event "end"."""
    worker(orchestrators=[until_event], filters="registered")
    instance = client.schedule_new_orchestration(until_event, input="in", instance_id=unique("waiting"))
    client.wait_for_orchestration_start(instance, timeout=30)
    return instance


def test_a_custom_status_is_seen_while_it_holds(worker, client, unique):
    reached = [threading.Event(), threading.Event()]

    def note(ctx, step):
        reached[step].set()

    def telling(ctx: task.OrchestrationContext, _):
        ctx.set_custom_status({"step": "one"})
        yield ctx.call_activity(note, input=0)
        yield ctx.wait_for_external_event("next")
        ctx.set_custom_status("two")
        yield ctx.call_activity(note, input=1)
        yield ctx.wait_for_external_event("next")
        ctx.set_custom_status("")
        return "done"

    worker(orchestrators=[telling], activities=[note])
    instance = client.schedule_new_orchestration(telling, instance_id=unique())
    assert reached[0].wait(30)
    assert client.get_orchestration_state(instance).get_custom_status() == {"step": "one"}
    client.raise_orchestration_event(instance, "next")
    assert reached[1].wait(30)
    assert client.get_orchestration_state(instance).get_custom_status() == "two"
    client.raise_orchestration_event(instance, "next")
    state = client.wait_for_orchestration_completion(instance, timeout=30)
    assert state.serialized_custom_status == '""'


def test_an_unknown_instance_does_not_exist(client, unique):
    assert client.get_orchestration_state(unique("nobody")) is None


def test_a_wait_for_an_unknown_instance_is_one_for_its_coming(worker, client, unique):
    def quick(ctx, _):
        return "came"

    instance = unique("to-come")
    with pytest.raises(TimeoutError):
        client.wait_for_orchestration_completion(instance, timeout=0.5)
    with pytest.raises(TimeoutError):
        client.wait_for_orchestration_start(instance, timeout=0.5)
    got = []
    waiter = threading.Thread(
        target=lambda: got.append(client.wait_for_orchestration_completion(instance, timeout=60)))
    waiter.start()
    worker(orchestrators=[quick])
    client.schedule_new_orchestration(quick, instance_id=instance)
    waiter.join(60)
    assert got[0].get_output() == "came"


def test_payloads_can_be_left_out(worker, run, client):
    def echo(ctx: task.OrchestrationContext, input):
        ctx.set_custom_status("done")
        return input
        yield

    worker(orchestrators=[echo])
    state = run(echo, "text")
    bare = client.get_orchestration_state(state.instance_id, fetch_payloads=False)
    assert (bare.serialized_input, bare.serialized_output) == (None, None)
    assert bare.runtime_status is OrchestrationStatus.COMPLETED
    assert client.get_orchestration_state(state.instance_id).get_output() == "text"


def test_times_of_a_state(worker, client, caller, unique):
    def quick(ctx, _):
        return None

    worker(orchestrators=[quick])
    before = now()
    instance = client.schedule_new_orchestration(quick, instance_id=unique())
    state = caller.wait(instance)
    after = now()
    created = state.createdTimestamp.ToDatetime(before.tzinfo)
    completed = state.completedTimestamp.ToDatetime(before.tzinfo)
    assert before.replace(microsecond=before.microsecond // 1000 * 1000) <= created <= completed <= after
    assert state.lastUpdatedTimestamp.ToNanoseconds() >= state.completedTimestamp.ToNanoseconds()
    first = caller.history(instance)[0]
    assert created <= first.timestamp.ToDatetime(before.tzinfo)


def test_suspending_holds_an_instance_and_resuming_lets_it_go(client, caller, waiting):
    client.suspend_orchestration(waiting, reason="a break")
    assert client.get_orchestration_state(waiting).runtime_status is OrchestrationStatus.SUSPENDED
    client.raise_orchestration_event(waiting, "end", data=1)
    with pytest.raises(TimeoutError):
        client.wait_for_orchestration_completion(waiting, timeout=1)
    assert client.get_orchestration_state(waiting).runtime_status is OrchestrationStatus.SUSPENDED
    client.resume_orchestration(waiting, reason="it goes on")
    state = client.wait_for_orchestration_completion(waiting, timeout=30)
    assert state.runtime_status is OrchestrationStatus.COMPLETED
    assert state.get_output() == ["in", 1]
    events = caller.history(waiting)
    suspended = [event.executionSuspended.input.value for event in events if kind(event) == "executionSuspended"]
    resumed = [event.executionResumed.input.value for event in events if kind(event) == "executionResumed"]
    assert suspended[0] == "a break"
    assert resumed == ["it goes on"]


def test_what_is_repeated_is_no_event(client, caller, waiting):
    """A second suspension among its events makes the SDK run for ever when the resumption comes."""
    client.resume_orchestration(waiting)
    client.suspend_orchestration(waiting)
    client.suspend_orchestration(waiting)
    client.raise_orchestration_event(waiting, "end", data=1)
    client.suspend_orchestration(waiting)
    client.resume_orchestration(waiting)
    client.resume_orchestration(waiting)
    assert client.wait_for_orchestration_completion(waiting, timeout=30).get_output() == ["in", 1]
    names = [kind(event) for event in caller.history(waiting)]
    assert names.count("executionSuspended") <= 1
    assert names.count("executionResumed") <= 1


def test_suspension_is_immediate_without_any_worker(client, unique):
    instance = client.schedule_new_orchestration("nobody_runs_this", instance_id=unique())
    client.suspend_orchestration(instance)
    assert client.get_orchestration_state(instance).runtime_status is OrchestrationStatus.SUSPENDED
    client.resume_orchestration(instance)
    assert client.get_orchestration_state(instance).runtime_status in (
        OrchestrationStatus.PENDING, OrchestrationStatus.RUNNING)
    client.terminate_orchestration(instance)


def test_suspending_what_is_not_live(worker, client, run, unique):
    for change in (client.suspend_orchestration, client.resume_orchestration):
        with refused(grpc.StatusCode.NOT_FOUND):
            change(unique("nobody"))

    def quick(ctx, _):
        return "done"

    worker(orchestrators=[quick])
    state = run(quick)
    client.suspend_orchestration(state.instance_id)
    client.resume_orchestration(state.instance_id)
    assert client.get_orchestration_state(state.instance_id).runtime_status is OrchestrationStatus.COMPLETED


def test_timers_and_results_wait_for_the_resumption(worker, client, unique):
    started, release = threading.Event(), threading.Event()

    def slow(ctx, _):
        started.set()
        release.wait(30)
        return "result"

    def busy(ctx: task.OrchestrationContext, _):
        timer = ctx.create_timer(timedelta(milliseconds=100))
        result = yield ctx.call_activity(slow)
        yield timer
        return result

    worker(orchestrators=[busy], activities=[slow])
    instance = client.schedule_new_orchestration(busy, instance_id=unique())
    assert started.wait(30)
    client.suspend_orchestration(instance)
    release.set()
    with pytest.raises(TimeoutError):
        client.wait_for_orchestration_completion(instance, timeout=1)
    client.resume_orchestration(instance)
    assert client.wait_for_orchestration_completion(instance, timeout=30).get_output() == "result"


def test_terminating_ends_an_instance_with_the_output_given(client, caller, waiting):
    client.terminate_orchestration(waiting, output={"why": "enough"})
    state = client.wait_for_orchestration_completion(waiting, timeout=30)
    assert state.runtime_status is OrchestrationStatus.TERMINATED
    assert state.get_output() == {"why": "enough"}
    assert state.failure_details is None
    events = caller.history(waiting)
    ended = next(event.executionTerminated for event in events if kind(event) == "executionTerminated")
    assert ended.input.value == '{"why": "enough"}' or ended.input.value == '{"why":"enough"}'
    assert kind(events[-1]) == "executionCompleted"
    # Once more is no error, and changes nothing.
    client.terminate_orchestration(waiting, output="again")
    assert client.get_orchestration_state(waiting).get_output() == {"why": "enough"}


def test_terminating_what_is_not_there(client, unique):
    with refused(grpc.StatusCode.NOT_FOUND):
        client.terminate_orchestration(unique("nobody"))


def test_terminating_a_suspended_instance(client, waiting):
    client.suspend_orchestration(waiting)
    client.terminate_orchestration(waiting, output="over")
    state = client.wait_for_orchestration_completion(waiting, timeout=30)
    assert (state.runtime_status, state.get_output()) == (OrchestrationStatus.TERMINATED, "over")


def test_terminating_wins_over_generations(worker, client, unique):
    def endless(ctx: task.OrchestrationContext, number):
        yield ctx.create_timer(timedelta(milliseconds=1))
        ctx.continue_as_new(number + 1)

    worker(orchestrators=[endless])
    instance = client.schedule_new_orchestration(endless, input=0, instance_id=unique())
    client.wait_for_orchestration_start(instance, timeout=30)
    client.terminate_orchestration(instance, output="stopped")
    state = client.wait_for_orchestration_completion(instance, timeout=30)
    assert (state.runtime_status, state.get_output()) == (OrchestrationStatus.TERMINATED, "stopped")


@pytest.mark.parametrize("recursive", [True, False])
def test_terminating_children_with_their_parent(worker, client, unique, recursive):
    all_wait = threading.Barrier(3, timeout=30)

    def note(ctx, _):
        all_wait.wait()

    def leaf(ctx: task.OrchestrationContext, _):
        yield ctx.call_activity(note)
        return (yield ctx.wait_for_external_event("end"))

    def branch(ctx: task.OrchestrationContext, _):
        return (yield ctx.call_sub_orchestrator(leaf, instance_id=f"{ctx.instance_id}-leaf"))

    def tree(ctx: task.OrchestrationContext, _):
        return (yield task.when_all([
            ctx.call_sub_orchestrator(branch, instance_id=f"{ctx.instance_id}-{side}") for side in ("left", "right")]))

    worker(orchestrators=[tree, branch, leaf], activities=[note])
    root = client.schedule_new_orchestration(tree, instance_id=unique(f"tree-{recursive}"))
    all_wait.wait()
    below = [f"{root}-{side}{leaf}" for side in ("left", "right") for leaf in ("", "-leaf")]
    client.terminate_orchestration(root, output="cut", recursive=recursive)
    state = client.wait_for_orchestration_completion(root, timeout=30)
    assert state.runtime_status is OrchestrationStatus.TERMINATED
    if recursive:
        for instance in below:
            state = client.wait_for_orchestration_completion(instance, timeout=30)
            assert state.runtime_status is OrchestrationStatus.TERMINATED, instance
    else:
        for side in ("left", "right"):
            client.raise_orchestration_event(f"{root}-{side}-leaf", "end", data="grown")
        for instance in below:
            state = client.wait_for_orchestration_completion(instance, timeout=30)
            assert (state.runtime_status, state.get_output()) == (OrchestrationStatus.COMPLETED, "grown"), instance


def test_restarting_under_the_same_id(worker, client, run, caller):
    runs = []

    def again(ctx: task.OrchestrationContext, input):
        if not ctx.is_replaying:
            runs.append(input)
        return [input, ctx.version]
        yield

    worker(orchestrators=[again])
    first = run(again, "in", tags={"a": "b"}, version="2.0")
    before = caller.get(first.instance_id)
    assert client.restart_orchestration(first.instance_id) == first.instance_id
    # What was there is gone when the call returns.
    now_there = caller.get(first.instance_id)
    assert now_there.executionId.value != before.executionId.value
    state = client.wait_for_orchestration_completion(first.instance_id, timeout=30)
    assert state.get_output() == ["in", "2.0"]
    assert runs == ["in", "in"]
    assert dict(caller.get(first.instance_id).tags) == {"a": "b"}


def test_restarting_under_a_new_id_even_while_it_runs(client, waiting):
    renewed = client.restart_orchestration(waiting, restart_with_new_instance_id=True)
    assert renewed and renewed != waiting
    client.wait_for_orchestration_start(renewed, timeout=30)
    for instance in (waiting, renewed):
        client.raise_orchestration_event(instance, "end", data=instance)
        state = client.wait_for_orchestration_completion(instance, timeout=30)
        assert state.get_output() == ["in", instance]
        assert state.name == "until_event"


def test_restarting_what_cannot_be(client, waiting, unique):
    with refused(grpc.StatusCode.NOT_FOUND):
        client.restart_orchestration(unique("nobody"))
    with refused(grpc.StatusCode.FAILED_PRECONDITION):
        client.restart_orchestration(waiting)
    client.terminate_orchestration(waiting)


def test_purging_one(worker, client, run, unique):
    def quick(ctx, _):
        return None

    worker(orchestrators=[quick])
    state = run(quick)
    result = client.purge_orchestration(state.instance_id)
    assert (result.deleted_instance_count, result.is_complete) == (1, True)
    assert client.get_orchestration_state(state.instance_id) is None
    result = client.purge_orchestration(state.instance_id)
    assert (result.deleted_instance_count, result.is_complete) == (0, True)
    assert client.purge_orchestration(unique("nobody")).deleted_instance_count == 0


def test_a_live_instance_is_not_purged(client, waiting):
    assert client.purge_orchestration(waiting).deleted_instance_count == 0
    assert client.get_orchestration_state(waiting).runtime_status is OrchestrationStatus.RUNNING
    client.raise_orchestration_event(waiting, "end")
    client.wait_for_orchestration_completion(waiting, timeout=30)
    assert client.purge_orchestration(waiting).deleted_instance_count == 1


@pytest.mark.parametrize("recursive", [True, False])
def test_purging_children_with_their_parent(worker, client, run, recursive):
    def leaf(ctx, _):
        return None

    def branch(ctx: task.OrchestrationContext, _):
        yield ctx.call_sub_orchestrator(leaf)

    def tree(ctx: task.OrchestrationContext, _):
        yield ctx.call_sub_orchestrator(branch)

    worker(orchestrators=[tree, branch, leaf])
    root = run(tree).instance_id
    below = [f"{root}:0001", f"{root}:0001:0001"]
    result = client.purge_orchestration(root, recursive=recursive)
    assert result.deleted_instance_count == (3 if recursive else 1)
    assert result.is_complete is True
    assert client.get_orchestration_state(root) is None
    for instance in below:
        assert (client.get_orchestration_state(instance) is None) == recursive, instance


def test_purging_by_filter(worker, client, run, unique):
    def quick(ctx, fails):
        if fails:
            raise RuntimeError("as asked")

    worker(orchestrators=[quick, until_event])
    before = now()
    well = [run(quick, False).instance_id for _ in range(3)]
    broken = [run(quick, True).instance_id for _ in range(2)]
    live = client.schedule_new_orchestration(until_event, instance_id=unique("live"))
    client.wait_for_orchestration_start(live, timeout=30)
    after = now()
    later = run(quick, False).instance_id

    result = client.purge_orchestrations_by(before, after, [OrchestrationStatus.FAILED])
    assert (result.deleted_instance_count, result.is_complete) == (2, True)
    assert all(client.get_orchestration_state(instance) is None for instance in broken)
    assert all(client.get_orchestration_state(instance) is not None for instance in well)
    result = client.purge_orchestrations_by(before, after, timeout=timedelta(seconds=30))
    assert (result.deleted_instance_count, result.is_complete) == (3, True)
    assert all(client.get_orchestration_state(instance) is None for instance in well)
    assert client.get_orchestration_state(live).runtime_status is OrchestrationStatus.RUNNING
    assert client.get_orchestration_state(later) is not None
    client.terminate_orchestration(live)


def test_an_id_in_use_is_refused(client, waiting):
    with refused(grpc.StatusCode.ALREADY_EXISTS):
        client.schedule_new_orchestration(until_event, instance_id=waiting)
    client.raise_orchestration_event(waiting, "end", data=1)
    assert client.wait_for_orchestration_completion(waiting, timeout=30).get_output() == ["in", 1]
    # Finished ones as well, unless the client says otherwise, and an empty policy says nothing.
    with refused(grpc.StatusCode.ALREADY_EXISTS):
        client.schedule_new_orchestration(until_event, instance_id=waiting)
    with refused(grpc.StatusCode.ALREADY_EXISTS):
        client.schedule_new_orchestration(
            until_event, instance_id=waiting, reuse_id_policy=pb.OrchestrationIdReusePolicy())


def test_an_id_that_may_be_reused(client, caller, waiting):
    finished = pb.OrchestrationIdReusePolicy(replaceableStatus=[pb.ORCHESTRATION_STATUS_COMPLETED])
    with refused(grpc.StatusCode.ALREADY_EXISTS):
        client.schedule_new_orchestration(until_event, instance_id=waiting, reuse_id_policy=finished)
    client.raise_orchestration_event(waiting, "end", data=1)
    client.wait_for_orchestration_completion(waiting, timeout=30)
    old = caller.get(waiting)
    assert client.schedule_new_orchestration(
        until_event, input="second", instance_id=waiting, reuse_id_policy=finished) == waiting
    replaced = caller.get(waiting)
    assert replaced.orchestrationStatus in (pb.ORCHESTRATION_STATUS_PENDING, pb.ORCHESTRATION_STATUS_RUNNING)
    assert replaced.executionId.value != old.executionId.value
    client.raise_orchestration_event(waiting, "end", data=2)
    assert client.wait_for_orchestration_completion(waiting, timeout=30).get_output() == ["second", 2]


def test_a_live_instance_that_may_be_replaced(client, caller, waiting):
    anything = pb.OrchestrationIdReusePolicy(replaceableStatus=[
        pb.ORCHESTRATION_STATUS_RUNNING, pb.ORCHESTRATION_STATUS_PENDING, pb.ORCHESTRATION_STATUS_SUSPENDED,
        pb.ORCHESTRATION_STATUS_TERMINATED, pb.ORCHESTRATION_STATUS_COMPLETED, pb.ORCHESTRATION_STATUS_FAILED])
    old = caller.get(waiting)
    client.schedule_new_orchestration(until_event, input="new", instance_id=waiting, reuse_id_policy=anything)
    replaced = caller.get(waiting)
    assert replaced.executionId.value != old.executionId.value
    assert replaced.input.value == '"new"'
    assert replaced.orchestrationStatus in (pb.ORCHESTRATION_STATUS_PENDING, pb.ORCHESTRATION_STATUS_RUNNING)
    client.raise_orchestration_event(waiting, "end", data=2)
    assert client.wait_for_orchestration_completion(waiting, timeout=30).get_output() == ["new", 2]


def test_live_ones_cannot_be_replaced_without_terminated_ones(client, unique):
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as error:
        client.schedule_new_orchestration(until_event, instance_id=unique(), reuse_id_policy=(
            pb.OrchestrationIdReusePolicy(replaceableStatus=[pb.ORCHESTRATION_STATUS_RUNNING])))
    assert "Invalid reusable statuses: cannot exclude 'Terminated' while also allowing reuse of running instances" \
        in error.value.details()


def test_ids_have_a_greatest_length(client, run, worker):
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as error:
        client.schedule_new_orchestration(until_event, instance_id="x" * 101)
    assert "length" in error.value.details()

    def quick(ctx, _):
        return "long enough"

    worker(orchestrators=[quick])
    assert run(quick, instance_id="y" * 100).get_output() == "long enough"


def test_an_id_is_made_where_none_is_given(client, caller, worker):
    def quick(ctx, _):
        return None

    worker(orchestrators=[quick])
    instance = caller.start("quick")
    assert instance
    assert caller.wait(instance).instanceId == instance


def test_tags_and_version_are_kept(worker, run, caller):
    def quick(ctx, _):
        return None

    worker(orchestrators=[quick])
    state = run(quick, tags={"team": "red", "empty": ""}, version="3.1")
    raw = caller.get(state.instance_id)
    assert dict(raw.tags) == {"team": "red", "empty": ""}
    assert raw.version.value == "3.1"
    started = caller.history(state.instance_id)[1].executionStarted
    assert dict(started.tags) == {"team": "red", "empty": ""}
    assert started.version.value == "3.1"
