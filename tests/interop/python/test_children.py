"""Sub-orchestrations."""

import threading
from datetime import timedelta

from durabletask import task
from durabletask.client import OrchestrationStatus

from support.raw import kind


def test_a_child_gives_its_result_to_its_parent(worker, run, caller):
    def double(ctx: task.OrchestrationContext, number):
        return number * 2
        yield

    def parent(ctx: task.OrchestrationContext, number):
        return (yield ctx.call_sub_orchestrator(double, input=number))

    worker(orchestrators=[parent, double])
    state = run(parent, 21)
    assert state.get_output() == 42
    child_id = f"{state.instance_id}:0001"
    child = caller.get(child_id)
    assert child.name == "double"
    assert child.parentInstanceId.value == state.instance_id
    created = next(event for event in caller.history(state.instance_id)
                   if kind(event) == "subOrchestrationInstanceCreated")
    assert created.eventId == 1
    assert created.subOrchestrationInstanceCreated.instanceId == child_id
    assert created.subOrchestrationInstanceCreated.name == "double"
    assert created.subOrchestrationInstanceCreated.input.value == "21"
    ended = next(event for event in caller.history(state.instance_id)
                 if kind(event) == "subOrchestrationInstanceCompleted")
    assert ended.subOrchestrationInstanceCompleted.taskScheduledId == 1
    assert ended.subOrchestrationInstanceCompleted.result.value == "42"


def test_a_child_knows_its_parent(worker, run, caller):
    def who(ctx: task.OrchestrationContext, _):
        return ctx.parent_instance_id
        yield

    def parent(ctx: task.OrchestrationContext, _):
        yield ctx.create_timer(timedelta(0))
        return (yield ctx.call_sub_orchestrator(who))

    worker(orchestrators=[parent, who])
    state = run(parent)
    assert state.get_output() == state.instance_id
    started = caller.history(f"{state.instance_id}:0002")[1].executionStarted
    parents = caller.history(state.instance_id)[1].executionStarted
    assert started.parentInstance.taskScheduledId == 2
    assert started.parentInstance.name.value == "parent"
    assert started.parentInstance.orchestrationInstance.instanceId == state.instance_id
    assert started.parentInstance.orchestrationInstance.executionId.value == \
        parents.orchestrationInstance.executionId.value
    assert not parents.HasField("parentInstance")


def test_fifty_children_and_their_grandchildren(worker, run):
    def grandchild(ctx: task.OrchestrationContext, number):
        return number
        yield

    def middle(ctx: task.OrchestrationContext, number):
        pair = yield task.when_all([ctx.call_sub_orchestrator(grandchild, input=number + step) for step in (0, 1)])
        return sum(pair)

    def top(ctx: task.OrchestrationContext, width):
        return (yield task.when_all([ctx.call_sub_orchestrator(middle, input=number) for number in range(width)]))

    worker(orchestrators=[top, middle, grandchild])
    assert run(top, 50).get_output() == [2 * number + 1 for number in range(50)]


def test_an_id_can_be_chosen(worker, run, client, unique):
    def named_child(ctx: task.OrchestrationContext, _):
        return ctx.instance_id
        yield

    def parent(ctx: task.OrchestrationContext, id):
        return (yield ctx.call_sub_orchestrator(named_child, instance_id=id))

    worker(orchestrators=[parent, named_child])
    chosen = unique("chosen")
    assert run(parent, chosen).get_output() == chosen
    assert client.get_orchestration_state(chosen).get_output() == chosen
    # Its end frees the id for the next.
    assert run(parent, chosen).get_output() == chosen


def test_a_child_under_an_id_that_is_live_fails_for_its_parent(worker, run, client, unique):
    def waiting(ctx: task.OrchestrationContext, _):
        return (yield ctx.wait_for_external_event("end"))

    def parent(ctx: task.OrchestrationContext, id):
        try:
            yield ctx.call_sub_orchestrator(waiting, instance_id=id)
        except task.TaskFailedError as error:
            return error.details.message
        return "no failure"

    worker(orchestrators=[parent, waiting])
    taken = client.schedule_new_orchestration(waiting, instance_id=unique("taken"))
    client.wait_for_orchestration_start(taken, timeout=30)
    message = run(parent, taken).get_output()
    assert message and message != "no failure"
    # The one that was there is untouched.
    assert client.get_orchestration_state(taken).runtime_status is OrchestrationStatus.RUNNING
    client.raise_orchestration_event(taken, "end", data="well")
    assert client.wait_for_orchestration_completion(taken, timeout=30).get_output() == "well"


def test_a_childs_failure_arrives_unchanged(worker, run, caller):
    def explode(ctx, _):
        raise KeyError("the innermost")

    def child(ctx: task.OrchestrationContext, _):
        yield ctx.call_activity(explode)

    def parent(ctx: task.OrchestrationContext, _):
        yield ctx.call_sub_orchestrator(child)

    worker(orchestrators=[parent, child], activities=[explode])
    state = run(parent)
    assert state.runtime_status is OrchestrationStatus.FAILED
    assert "Sub-orchestration task #1 failed: " in state.failure_details.message
    assert "Activity task #1 failed: " in state.failure_details.message
    failed = next(event for event in caller.history(state.instance_id)
                  if kind(event) == "subOrchestrationInstanceFailed")
    own = caller.get(f"{state.instance_id}:0001").failureDetails
    assert failed.subOrchestrationInstanceFailed.failureDetails == own
    assert own.innerFailure.errorType.endswith("KeyError")


def test_a_retried_child_runs_under_the_same_id(worker, run, caller):
    attempts = []

    def child(ctx: task.OrchestrationContext, _):
        if not ctx.is_replaying:
            attempts.append(ctx.instance_id)
        if len(attempts) < 3:
            raise RuntimeError(f"attempt {len(attempts)}")
        return "at last"
        yield

    policy = task.RetryPolicy(first_retry_interval=timedelta(milliseconds=50), max_number_of_attempts=4)

    def parent(ctx: task.OrchestrationContext, _):
        return (yield ctx.call_sub_orchestrator(child, retry_policy=policy))

    worker(orchestrators=[parent, child])
    state = run(parent)
    assert state.get_output() == "at last"
    assert attempts == [f"{state.instance_id}:0001"] * 3
    events = caller.history(state.instance_id)
    created = [event for event in events if kind(event) == "subOrchestrationInstanceCreated"]
    assert [event.eventId for event in created] == [1, 1, 1]
    assert len([event for event in events if kind(event) == "subOrchestrationInstanceFailed"]) == 2


def test_an_unknown_child_fails_for_its_parent(worker, run):
    def parent(ctx: task.OrchestrationContext, _):
        try:
            yield ctx.call_sub_orchestrator("nobody_knows_this_child")
        except task.TaskFailedError as error:
            return error.details.error_type

    worker(orchestrators=[parent])
    assert "OrchestratorNotRegisteredError" in run(parent).get_output()


def test_default_ids_come_again_after_continue_as_new(worker, run, client):
    def child(ctx: task.OrchestrationContext, number):
        return [ctx.instance_id, number]
        yield

    def parent(ctx: task.OrchestrationContext, generation):
        result = yield ctx.call_sub_orchestrator(child, input=generation)
        if generation < 4:
            ctx.continue_as_new(generation + 1)
            return
        return result

    worker(orchestrators=[parent, child])
    state = run(parent, 1)
    assert state.get_output() == [f"{state.instance_id}:0001", 4]
    assert client.get_orchestration_state(f"{state.instance_id}:0001").get_output() == [
        f"{state.instance_id}:0001", 4]


def test_a_terminated_child_fails_for_its_parent(worker, client, unique):
    waiting = threading.Event()

    def note(ctx, _):
        waiting.set()

    def child(ctx: task.OrchestrationContext, _):
        yield ctx.call_activity(note)
        yield ctx.wait_for_external_event("never")

    def parent(ctx: task.OrchestrationContext, _):
        try:
            yield ctx.call_sub_orchestrator(child)
        except task.TaskFailedError:
            return "it was ended"
        return "it ended"

    worker(orchestrators=[parent, child], activities=[note])
    instance = client.schedule_new_orchestration(parent, instance_id=unique())
    assert waiting.wait(30)
    client.terminate_orchestration(f"{instance}:0001")
    state = client.wait_for_orchestration_completion(instance, timeout=30)
    assert state.get_output() == "it was ended"
