"""Timers and scheduled starts."""

import threading
from datetime import datetime, timedelta, timezone

from durabletask import task
from durabletask.client import OrchestrationStatus

from support.raw import after, kind, kinds, now


def test_a_timer_fires_and_not_early(worker, run, caller):
    def nap(ctx: task.OrchestrationContext, seconds):
        before = ctx.current_utc_datetime
        yield ctx.create_timer(timedelta(seconds=seconds))
        return (ctx.current_utc_datetime - before).total_seconds()

    worker(orchestrators=[nap])
    state = run(nap, 1.2)
    assert 1.2 <= state.get_output() < 20
    assert state.last_updated_at - state.created_at >= timedelta(seconds=1.2)
    events = caller.history(state.instance_id)
    assert kinds(events) == [
        "orchestratorStarted", "executionStarted", "timerCreated",
        "orchestratorStarted", "timerFired", "executionCompleted"]
    created, started, fired = events[2], events[3], events[4]
    assert created.eventId == 1
    assert fired.timerFired.timerId == 1
    assert fired.timerFired.fireAt == created.timerCreated.fireAt
    # The turn is not earlier than the timer that it is about.
    assert started.timestamp.ToNanoseconds() >= fired.timerFired.fireAt.ToNanoseconds()


def test_a_timer_in_the_past_fires_at_once(worker, run):
    def impatient(ctx: task.OrchestrationContext, _):
        yield ctx.create_timer(timedelta(0))
        yield ctx.create_timer(ctx.current_utc_datetime - timedelta(days=400))
        return "now"

    worker(orchestrators=[impatient])
    assert run(impatient).get_output() == "now"


def test_timers_fire_in_the_order_of_their_times(worker, run):
    def staggered(ctx: task.OrchestrationContext, _):
        delays = {ctx.create_timer(timedelta(milliseconds=delay)): delay for delay in (900, 300, 600)}
        order = []
        while delays:
            first = yield task.when_any(list(delays))
            order.append(delays.pop(first))
        return order

    worker(orchestrators=[staggered])
    assert run(staggered).get_output() == [300, 600, 900]


def test_a_long_timer_is_split(worker, run, caller):
    def patient(ctx: task.OrchestrationContext, _):
        before = ctx.current_utc_datetime
        yield ctx.create_timer(timedelta(seconds=1.5))
        return (ctx.current_utc_datetime - before).total_seconds()

    worker(orchestrators=[patient], maximum_timer_interval=timedelta(seconds=0.4))
    state = run(patient)
    assert 1.5 <= state.get_output() < 20
    events = caller.history(state.instance_id)
    created = [event.timerCreated.fireAt.ToNanoseconds() for event in events if kind(event) == "timerCreated"]
    fired = [event.timerFired.fireAt.ToNanoseconds() for event in events if kind(event) == "timerFired"]
    assert created == fired
    assert 3 <= len(created) <= 4
    started = next(event for event in events if kind(event) == "executionStarted")
    assert created[-1] - created[0] > 0 and created == sorted(created)
    assert started.timestamp.ToNanoseconds() < created[0]


def test_a_cancelled_timer_that_fires_is_no_matter(worker, run, caller):
    def go(ctx, _):
        return None

    def cancelling(ctx: task.OrchestrationContext, _):
        short = ctx.create_timer(timedelta(seconds=0.4))
        activity = ctx.call_activity(go)
        yield task.when_any([short, activity])
        short.cancel()
        yield ctx.create_timer(timedelta(seconds=1))
        return short.is_cancelled

    worker(orchestrators=[cancelling], activities=[go])
    state = run(cancelling)
    assert state.runtime_status is OrchestrationStatus.COMPLETED
    assert state.get_output() is True


def test_an_instance_ends_while_a_timer_of_it_runs(worker, run):
    def leaving(ctx: task.OrchestrationContext, _):
        ctx.create_timer(timedelta(days=1000))
        return "gone"
        yield

    worker(orchestrators=[leaving])
    assert run(leaving).get_output() == "gone"


def test_a_start_in_the_future_waits(worker, client, caller, unique):
    seen = threading.Event()

    def due(ctx: task.OrchestrationContext, _):
        if not ctx.is_replaying:
            seen.set()
        return ctx.current_utc_datetime.isoformat()
        yield

    worker(orchestrators=[due])
    at = after(2)
    instance = client.schedule_new_orchestration(due, instance_id=unique(), start_at=at)
    state = client.get_orchestration_state(instance)
    assert state.runtime_status is OrchestrationStatus.PENDING
    raw = caller.get(instance)
    assert raw.scheduledStartTimestamp.ToDatetime(timezone.utc) == at
    state = client.wait_for_orchestration_start(instance, timeout=30)
    assert state.runtime_status is not OrchestrationStatus.PENDING
    assert now() >= at
    state = client.wait_for_orchestration_completion(instance, timeout=30)
    assert datetime.fromisoformat(state.get_output()).replace(tzinfo=timezone.utc) >= at
    started = caller.history(instance)[0]
    assert kind(started) == "orchestratorStarted"
    assert started.timestamp.ToDatetime(timezone.utc) >= at


def test_a_start_in_the_past_is_a_start_now(worker, client, caller, unique):
    def late(ctx: task.OrchestrationContext, _):
        before = ctx.current_utc_datetime
        yield ctx.create_timer(timedelta(seconds=0.5))
        return [before.isoformat(), (ctx.current_utc_datetime - before).total_seconds()]

    worker(orchestrators=[late])
    for at in (datetime(1970, 1, 1, tzinfo=timezone.utc), after(-3600)):
        asked = now()
        instance = unique(f"late-{at.year}")
        # The SDK leaves an epoch out, as it is false; JavaScript's sends it.
        from support.raw import timestamp
        caller.start("late", instance, scheduledStartTimestamp=timestamp(at))
        state = client.wait_for_orchestration_completion(instance, timeout=30)
        before, waited = state.get_output()
        assert datetime.fromisoformat(before).replace(tzinfo=timezone.utc) >= asked - timedelta(milliseconds=1)
        assert waited >= 0.5
        started = caller.history(instance)[0].timestamp.ToDatetime(timezone.utc)
        assert started >= asked - timedelta(milliseconds=1)


def test_time_does_not_go_back(worker, run, caller):
    def step(ctx, _):
        return None

    def ticking(ctx: task.OrchestrationContext, _):
        times = [ctx.current_utc_datetime]
        for _ in range(5):
            yield ctx.call_activity(step)
            times.append(ctx.current_utc_datetime)
            yield ctx.create_timer(timedelta(milliseconds=20))
            times.append(ctx.current_utc_datetime)
        return [times == sorted(times), len(set(times))]

    worker(orchestrators=[ticking], activities=[step])
    state = run(ticking)
    assert state.get_output() == [True, 11]
    turns = [event.timestamp.ToNanoseconds() for event in caller.history(state.instance_id)
             if kind(event) == "orchestratorStarted"]
    assert turns == sorted(turns)
