"""Continue-as-new: generations, what is carried over, and what is dropped."""

import re
import threading
from datetime import timedelta

from durabletask import task
from durabletask.client import OrchestrationStatus

from support import until
from support.raw import kind, kinds


def test_a_hundred_generations(worker, run, caller):
    def step(ctx, number):
        return number + 1

    def counting(ctx: task.OrchestrationContext, number):
        following = yield ctx.call_activity(step, input=number)
        if following < 100:
            ctx.continue_as_new(following)
            return
        return following

    worker(orchestrators=[counting], activities=[step])
    state = run(counting, 0)
    assert state.runtime_status is OrchestrationStatus.COMPLETED
    assert state.get_output() == 100
    assert state.get_input() == 99
    assert kinds(caller.history(state.instance_id)) == [
        "orchestratorStarted", "executionStarted", "taskScheduled",
        "orchestratorStarted", "taskCompleted", "executionCompleted"]


def test_events_in_flight_reach_a_later_generation(worker, client, unique):
    def eating(ctx: task.OrchestrationContext, eaten):
        eaten.append((yield ctx.wait_for_external_event("food")))
        if len(eaten) < 100:
            ctx.continue_as_new(eaten, save_events=True)
            return
        return eaten

    worker(orchestrators=[eating])
    instance = client.schedule_new_orchestration(eating, input=[], instance_id=unique())
    for number in range(100):
        client.raise_orchestration_event(instance, "food", data=number)
    state = client.wait_for_orchestration_completion(instance, timeout=60)
    assert state.get_output() == list(range(100))


def test_an_old_generation_leaves_nothing_behind(worker, client, caller, unique):
    """Ids begin anew, so a timer or a result of the old generation would be taken for one of the new."""
    release = threading.Event()

    def slow(ctx, generation):
        if generation == 1:
            release.wait(30)
        return f"of generation {generation}"

    def renewing(ctx: task.OrchestrationContext, generation):
        if generation == 1:
            ctx.call_activity(slow, input=1)
            ctx.create_timer(timedelta(milliseconds=300))
            yield ctx.wait_for_external_event("renew")
            ctx.continue_as_new(2)
            return
        pending = ctx.call_activity(slow, input=2)
        timer = ctx.create_timer(timedelta(milliseconds=900))
        before = ctx.current_utc_datetime
        result = yield pending
        yield timer
        return [result, (ctx.current_utc_datetime - before).total_seconds()]

    worker(orchestrators=[renewing], activities=[slow])
    instance = client.schedule_new_orchestration(renewing, input=1, instance_id=unique())
    client.wait_for_orchestration_start(instance, timeout=30)
    client.raise_orchestration_event(instance, "renew")
    try:
        until(lambda: client.get_orchestration_state(instance).get_input() == 2)
    finally:
        release.set()
    state = client.wait_for_orchestration_completion(instance, timeout=30)
    result, waited = state.get_output()
    assert result == "of generation 2"
    assert waited >= 0.9
    fired = [event for event in caller.history(instance) if kind(event) == "timerFired"]
    assert [event.timerFired.timerId for event in fired] == [2]


def test_what_a_generation_keeps_and_what_it_renews(worker, client, caller, unique):
    first_seen = threading.Event()

    def note(ctx, _):
        first_seen.set()

    def renewing(ctx: task.OrchestrationContext, generation):
        if generation == 1:
            ctx.set_custom_status("first")
            yield ctx.call_activity(note)
            yield ctx.wait_for_external_event("renew")
            ctx.continue_as_new(2)
            return
        yield ctx.wait_for_external_event("end")
        return generation

    worker(orchestrators=[renewing], activities=[note])
    instance = client.schedule_new_orchestration(
        renewing, input=1, instance_id=unique(), tags={"team": "red"}, version="1.5")
    assert first_seen.wait(30)
    before = caller.get(instance)
    client.raise_orchestration_event(instance, "renew")
    until(lambda: caller.get(instance).input.value == "2")
    after = caller.get(instance)
    assert after.orchestrationStatus == OrchestrationStatus.RUNNING.value
    assert not after.HasField("customStatus")
    assert after.createdTimestamp == before.createdTimestamp
    assert dict(after.tags) == {"team": "red"}
    assert (after.name, after.version.value) == ("renewing", "1.5")
    assert re.fullmatch("[0-9a-f]{32}", before.executionId.value)
    assert re.fullmatch("[0-9a-f]{32}", after.executionId.value)
    assert after.executionId.value != before.executionId.value
    client.raise_orchestration_event(instance, "end")
    assert client.wait_for_orchestration_completion(instance, timeout=30).get_output() == 2
    started = caller.history(instance)[1].executionStarted
    assert started.orchestrationInstance.executionId.value == after.executionId.value
    assert started.version.value == "1.5"
    assert dict(started.tags) == {"team": "red"}


def test_a_child_that_continues_as_new_still_answers_its_parent(worker, run):
    def child(ctx: task.OrchestrationContext, number):
        if number < 5:
            ctx.continue_as_new(number + 1)
            return
        return number
        yield

    def parent(ctx: task.OrchestrationContext, _):
        return (yield ctx.call_sub_orchestrator(child, input=1))

    worker(orchestrators=[parent, child])
    assert run(parent).get_output() == 5


def test_ids_made_by_an_orchestration_are_its_own_and_stay(worker, run):
    def note(ctx, _):
        return None

    def making(ctx: task.OrchestrationContext, known):
        first = ctx.new_uuid()
        yield ctx.call_activity(note)
        second = ctx.new_uuid()
        if not known:
            ctx.continue_as_new([first, second])
            return
        yield ctx.call_activity(note)
        return known + [first, second]

    worker(orchestrators=[making], activities=[note])
    ids = run(making, []).get_output()
    assert len(ids) == 4 and len(set(ids)) == 4
