"""External events, from clients and from other orchestrations."""

import threading
from datetime import timedelta

import grpc
import pytest

from durabletask import task
from durabletask.client import OrchestrationStatus

from support.raw import after, kind


def one(ctx: task.OrchestrationContext, name):
    return (yield ctx.wait_for_external_event(name))


def test_an_event_that_is_waited_for(worker, client, unique):
    waiting = threading.Event()

    def note(ctx, _):
        waiting.set()

    def expecting(ctx: task.OrchestrationContext, _):
        yield ctx.call_activity(note)
        return (yield ctx.wait_for_external_event("approved"))

    worker(orchestrators=[expecting], activities=[note])
    instance = client.schedule_new_orchestration(expecting, instance_id=unique())
    assert waiting.wait(30)
    client.raise_orchestration_event(instance, "approved", data={"by": "me"})
    assert client.wait_for_orchestration_completion(instance, timeout=30).get_output() == {"by": "me"}


def test_events_before_the_first_turn_wait_behind_the_start(worker, client, caller, unique):
    def collecting(ctx: task.OrchestrationContext, _):
        second = yield ctx.wait_for_external_event("second")
        first = yield ctx.wait_for_external_event("first")
        return [first, second]

    instance = client.schedule_new_orchestration(collecting, instance_id=unique())
    client.raise_orchestration_event(instance, "first", data=1)
    client.raise_orchestration_event(instance, "second", data=2)
    assert client.get_orchestration_state(instance).runtime_status is OrchestrationStatus.PENDING
    worker(orchestrators=[collecting])
    assert client.wait_for_orchestration_completion(instance, timeout=30).get_output() == [1, 2]
    names = [kind(event) for event in caller.history(instance)]
    assert names[:2] == ["orchestratorStarted", "executionStarted"]


def test_names_of_events_match_in_any_case_and_are_kept(worker, client, caller, unique):
    worker(orchestrators=[one])
    instance = client.schedule_new_orchestration(one, input="AppROVED", instance_id=unique())
    client.raise_orchestration_event(instance, "aPProved", data="yes")
    assert client.wait_for_orchestration_completion(instance, timeout=30).get_output() == "yes"
    raised = [event.eventRaised for event in caller.history(instance) if kind(event) == "eventRaised"]
    assert [(event.name, event.input.value) for event in raised] == [("aPProved", '"yes"')]


def test_many_events_arrive_in_order(worker, client, unique):
    def gathering(ctx: task.OrchestrationContext, count):
        got = []
        for _ in range(count):
            got.append((yield ctx.wait_for_external_event("number")))
        return got

    worker(orchestrators=[gathering])
    instance = client.schedule_new_orchestration(gathering, input=100, instance_id=unique())
    for number in range(100):
        client.raise_orchestration_event(instance, "number", data=number)
    assert client.wait_for_orchestration_completion(instance, timeout=60).get_output() == list(range(100))


def test_an_event_without_data(worker, client, unique):
    worker(orchestrators=[one])
    instance = client.schedule_new_orchestration(one, input="bare", instance_id=unique())
    client.raise_orchestration_event(instance, "bare")
    state = client.wait_for_orchestration_completion(instance, timeout=30)
    assert state.runtime_status is OrchestrationStatus.COMPLETED
    assert state.get_output() is None


@pytest.mark.parametrize("raised", [True, False])
def test_an_event_against_a_timer(worker, client, unique, raised):
    def decide(ctx: task.OrchestrationContext, seconds):
        decision = ctx.wait_for_external_event("decision")
        deadline = ctx.create_timer(timedelta(seconds=seconds))
        winner = yield task.when_any([decision, deadline])
        return decision.get_result() if winner is decision else "too late"

    worker(orchestrators=[decide])
    instance = client.schedule_new_orchestration(decide, input=3600 if raised else 0.5, instance_id=unique())
    if raised:
        client.raise_orchestration_event(instance, "decision", data="yes")
    state = client.wait_for_orchestration_completion(instance, timeout=30)
    assert state.get_output() == ("yes" if raised else "too late")


def test_an_event_for_nobody_is_refused_and_one_for_a_finished_instance_dropped(worker, client, run, caller, unique):
    with pytest.raises(grpc.RpcError) as refused:
        client.raise_orchestration_event(unique("nobody"), "anything")
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND

    def quick(ctx, _):
        return "done"

    worker(orchestrators=[quick])
    state = run(quick)
    before = caller.history(state.instance_id)
    client.raise_orchestration_event(state.instance_id, "late", data=1)
    assert caller.history(state.instance_id) == before
    assert client.get_orchestration_state(state.instance_id).runtime_status is OrchestrationStatus.COMPLETED


def test_orchestrations_send_events_exactly_once(worker, client, caller, unique):
    receiver_id = unique("receiver")

    def sending(ctx: task.OrchestrationContext, target):
        ctx.send_event(target, "word", data="first")
        # More turns: a confirmation that is missing sends the event again.
        yield ctx.create_timer(timedelta(milliseconds=10))
        yield ctx.create_timer(timedelta(milliseconds=10))
        ctx.send_event(target, "word", data="second")
        ctx.send_event(unique("missing"), "word", data="nobody")
        yield ctx.create_timer(timedelta(milliseconds=10))
        ctx.send_event(target, "word", data="last")
        return "sent"

    def receiving(ctx: task.OrchestrationContext, _):
        words = []
        while not words or words[-1] != "last":
            words.append((yield ctx.wait_for_external_event("word")))
        return words

    worker(orchestrators=[sending, receiving])
    client.schedule_new_orchestration(receiving, instance_id=receiver_id)
    sender = client.schedule_new_orchestration(sending, input=receiver_id, instance_id=unique("sender"))
    assert client.wait_for_orchestration_completion(sender, timeout=30).get_output() == "sent"
    state = client.wait_for_orchestration_completion(receiver_id, timeout=30)
    assert state.get_output() == ["first", "second", "last"]
    sent = [event for event in caller.history(sender) if kind(event) == "eventSent"]
    assert [(event.eventSent.instanceId, event.eventSent.name, event.eventSent.input.value) for event in sent] == [
        (receiver_id, "word", '"first"'), (receiver_id, "word", '"second"'),
        (unique("missing"), "word", '"nobody"'), (receiver_id, "word", '"last"')]


def test_an_event_waits_for_a_scheduled_start(worker, client, unique):
    worker(orchestrators=[one])
    instance = client.schedule_new_orchestration(one, input="early", instance_id=unique(), start_at=after(1))
    client.raise_orchestration_event(instance, "early", data="kept")
    assert client.wait_for_orchestration_completion(instance, timeout=30).get_output() == "kept"
