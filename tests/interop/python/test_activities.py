"""Activities: sequences, fan-out, failures and retries."""

import threading
from datetime import timedelta

import pytest

from durabletask import task
from durabletask.client import OrchestrationStatus

from support.raw import kind, kinds


def hello(ctx: task.ActivityContext, name: str) -> str:
    return f"Hello, {name}!"


def test_activities_run_one_after_the_other(worker, run):
    def sequence(ctx: task.OrchestrationContext, cities):
        greetings = []
        for city in cities:
            greetings.append((yield ctx.call_activity(hello, input=city)))
        return greetings

    worker(orchestrators=[sequence], activities=[hello])
    state = run(sequence, ["Tokyo", "Seattle", "London"])
    assert state.runtime_status is OrchestrationStatus.COMPLETED
    assert state.get_output() == ["Hello, Tokyo!", "Hello, Seattle!", "Hello, London!"]
    assert state.get_input() == ["Tokyo", "Seattle", "London"]
    assert state.name == "sequence"
    assert state.failure_details is None
    assert state.serialized_custom_status is None


def test_an_orchestration_may_end_without_waiting_for_anything(worker, run):
    def empty(ctx, _):
        return None

    worker(orchestrators=[empty])
    state = run(empty)
    assert state.runtime_status is OrchestrationStatus.COMPLETED
    assert state.serialized_input is None
    assert state.serialized_output is None


def test_an_activity_is_told_who_asks(worker, run):
    def who(ctx: task.ActivityContext, _):
        return [ctx.orchestration_id, ctx.task_id]

    def ask(ctx: task.OrchestrationContext, _):
        first = yield ctx.call_activity(who)
        second = yield ctx.call_activity(who)
        return [ctx.instance_id, first, second]

    worker(orchestrators=[ask], activities=[who])
    state = run(ask)
    assert state.get_output() == [state.instance_id, [state.instance_id, 1], [state.instance_id, 2]]


@pytest.mark.parametrize("value", [
    None, 0, False, "", [], {}, -1.5, 2**53, "snow ☃ and 😀", {"nested": [{"a": None}, ["b"]]}, '"quoted\\"', "\u2028",
], ids=repr)
def test_values_arrive_as_they_were_sent(worker, run, value):
    def echo(ctx, input):
        return [input]

    def pass_on(ctx: task.OrchestrationContext, input):
        result = yield ctx.call_activity(echo, input=input)
        return {"got": input, "back": result}

    worker(orchestrators=[pass_on], activities=[echo])
    assert run(pass_on, value).get_output() == {"got": value, "back": [value]}


def test_two_hundred_activities_in_parallel(worker, run):
    def square(ctx, number):
        return number * number

    def fan_out(ctx: task.OrchestrationContext, width):
        squares = yield task.when_all([ctx.call_activity(square, input=number) for number in range(width)])
        return squares

    worker(orchestrators=[fan_out], activities=[square])
    assert run(fan_out, 200).get_output() == [number * number for number in range(200)]


def test_the_first_of_several_wins(worker, run):
    gate = threading.Event()

    def fast(ctx, _):
        return "fast"

    def slow(ctx, _):
        gate.wait(30)
        return "slow"

    def race(ctx: task.OrchestrationContext, _):
        slow_task = ctx.call_activity(slow)
        fast_task = ctx.call_activity(fast)
        winner = yield task.when_any([slow_task, fast_task])
        return "fast" if winner is fast_task else "slow"

    worker(orchestrators=[race], activities=[fast, slow])
    try:
        assert run(race).get_output() == "fast"
    finally:
        gate.set()


def test_an_activity_that_fails_fails_its_orchestration(worker, run):
    def divide(ctx, by):
        raise ZeroDivisionError(f"nothing is divided by {by}")

    def calculate(ctx: task.OrchestrationContext, _):
        yield ctx.call_activity(divide, input=0)

    worker(orchestrators=[calculate], activities=[divide])
    state = run(calculate)
    assert state.runtime_status is OrchestrationStatus.FAILED
    assert state.serialized_output is None
    details = state.failure_details
    assert details.error_type.endswith("TaskFailedError")
    assert "Activity task #1 failed: nothing is divided by 0" in details.message
    assert details.inner_failure.error_type == "ZeroDivisionError" or \
        details.inner_failure.error_type.endswith(".ZeroDivisionError")
    assert details.inner_failure.message == "nothing is divided by 0"
    assert details.inner_failure.stack_trace is not None and "divide" in details.inner_failure.stack_trace


def test_a_failure_can_be_caught(worker, run):
    def flaky(ctx, _):
        raise ValueError("not today")

    def careful(ctx: task.OrchestrationContext, _):
        try:
            yield ctx.call_activity(flaky)
        except task.TaskFailedError as error:
            return [error.details.is_caused_by(ValueError), error.details.message]

    worker(orchestrators=[careful], activities=[flaky])
    state = run(careful)
    assert state.runtime_status is OrchestrationStatus.COMPLETED
    assert state.get_output() == [True, "not today"]


def test_retries_reuse_the_number_of_their_activity(worker, run, caller):
    attempts = []

    def third_time(ctx: task.ActivityContext, _):
        attempts.append(ctx.task_id)
        if len(attempts) < 3:
            raise RuntimeError(f"attempt {len(attempts)}")
        return len(attempts)

    policy = task.RetryPolicy(first_retry_interval=timedelta(milliseconds=50), max_number_of_attempts=5)

    def persistent(ctx: task.OrchestrationContext, _):
        return (yield ctx.call_activity(third_time, retry_policy=policy))

    worker(orchestrators=[persistent], activities=[third_time])
    state = run(persistent)
    assert state.get_output() == 3
    assert attempts == [1, 1, 1]
    events = caller.history(state.instance_id)
    assert [event.eventId for event in events if kind(event) == "taskScheduled"] == [1, 1, 1]
    assert [event.taskFailed.failureDetails.errorMessage for event in events if kind(event) == "taskFailed"] == [
        "attempt 1", "attempt 2"]
    created = [event.timerCreated.fireAt for event in events if kind(event) == "timerCreated"]
    assert created == [event.timerFired.fireAt for event in events if kind(event) == "timerFired"]
    assert len(created) == 2


def test_retries_end(worker, run):
    attempts = []

    def hopeless(ctx, _):
        attempts.append(1)
        raise RuntimeError("never")

    policy = task.RetryPolicy(first_retry_interval=timedelta(milliseconds=20), max_number_of_attempts=3)

    def persistent(ctx: task.OrchestrationContext, _):
        yield ctx.call_activity(hopeless, retry_policy=policy)

    worker(orchestrators=[persistent], activities=[hopeless])
    state = run(persistent)
    assert state.runtime_status is OrchestrationStatus.FAILED
    assert "Activity task #1 failed: never" in state.failure_details.message
    assert len(attempts) == 3


def test_retries_of_many_activities_do_not_mix(worker, run):
    attempts: dict[int, int] = {}
    lock = threading.Lock()

    def second_time(ctx, number):
        with lock:
            attempts[number] = attempts.get(number, 0) + 1
            if attempts[number] < 2:
                raise RuntimeError("again")
        return number

    policy = task.RetryPolicy(first_retry_interval=timedelta(milliseconds=20), max_number_of_attempts=3)

    def many(ctx: task.OrchestrationContext, _):
        return (yield task.when_all([
            ctx.call_activity(second_time, input=number, retry_policy=policy) for number in range(20)]))

    worker(orchestrators=[many], activities=[second_time])
    assert run(many).get_output() == list(range(20))
    assert attempts == {number: 2 for number in range(20)}


def test_an_unknown_activity_fails_and_an_unknown_orchestration_fails(worker, run):
    def hopeful(ctx: task.OrchestrationContext, _):
        yield ctx.call_activity("nobody_knows_this")

    worker(orchestrators=[hopeful])
    state = run(hopeful)
    assert state.runtime_status is OrchestrationStatus.FAILED
    assert "ActivityNotRegisteredError" in state.failure_details.inner_failure.error_type
    state = run("nobody_knows_this_either")
    assert state.runtime_status is OrchestrationStatus.FAILED
    assert "OrchestratorNotRegisteredError" in state.failure_details.error_type


def test_input_that_is_no_json_fails_its_instance_and_no_other(worker, run, caller, unique):
    def parse(ctx: task.OrchestrationContext, input):
        return (yield ctx.call_activity(hello, input=str(input)))

    worker(orchestrators=[parse], activities=[hello])
    poisoned = caller.start("parse", unique("poison"), input="{this is no JSON")
    failed = caller.wait(poisoned)
    assert failed.orchestrationStatus == OrchestrationStatus.FAILED.value
    assert failed.input.value == "{this is no JSON"
    assert failed.failureDetails.errorMessage
    assert run(parse, "you").get_output() == "Hello, you!"


def test_code_that_changed_under_an_instance_fails_it(worker, client, unique):
    instance = unique("changed")
    waiting = threading.Event()

    def note(ctx, _):
        waiting.set()

    def original(ctx: task.OrchestrationContext, _):
        yield ctx.call_activity(note)
        yield ctx.wait_for_external_event("go")

    def changed(ctx: task.OrchestrationContext, _):
        yield ctx.create_timer(timedelta(seconds=1))
        yield ctx.wait_for_external_event("go")

    original.__name__ = changed.__name__ = "shifting"
    first = worker(orchestrators=[original], activities=[note])
    client.schedule_new_orchestration("shifting", instance_id=instance)
    assert waiting.wait(30)
    first.stop()
    worker(orchestrators=[changed], activities=[note])
    client.raise_orchestration_event(instance, "go")
    state = client.wait_for_orchestration_completion(instance, timeout=30)
    assert state.runtime_status is OrchestrationStatus.FAILED
    assert "NonDeterminismError" in state.failure_details.error_type


def test_a_thousand_orchestrations_at_once(worker, client):
    def greet(ctx: task.OrchestrationContext, number):
        return (yield ctx.call_activity(hello, input=str(number)))

    worker(orchestrators=[greet], activities=[hello])
    instances = [client.schedule_new_orchestration(greet, input=number) for number in range(1000)]
    for number, instance in enumerate(instances):
        state = client.wait_for_orchestration_completion(instance, timeout=90)
        assert state.runtime_status is OrchestrationStatus.COMPLETED
        assert state.get_output() == f"Hello, {number}!"


def test_two_workers_share_the_work(worker, client):
    def sharing(ctx: task.OrchestrationContext, _):
        return (yield ctx.call_activity("where"))

    # Both must hold an item at the same time before either goes on.
    both = threading.Barrier(2, timeout=30)

    def at(place):
        def where(ctx, _):
            both.wait()
            return place
        return where

    from durabletask.worker import ConcurrencyOptions
    one_at_a_time = ConcurrencyOptions(maximum_concurrent_activity_work_items=1)
    for place in ("here", "there"):
        worker(orchestrators=[sharing], activities=[at(place)], concurrency_options=one_at_a_time)
    instances = [client.schedule_new_orchestration(sharing) for _ in range(10)]
    places = [client.wait_for_orchestration_completion(instance, timeout=60).get_output() for instance in instances]
    assert sorted(places) == ["here"] * 5 + ["there"] * 5


def test_the_history_of_a_sequence_is_exact(worker, run, caller):
    def sequence(ctx: task.OrchestrationContext, _):
        for city in ("Tokyo", "Seattle", "London"):
            yield ctx.call_activity(hello, input=city)
        return "done"

    worker(orchestrators=[sequence], activities=[hello])
    state = run(sequence, 5)
    events = caller.history(state.instance_id)
    assert kinds(events) == [
        "orchestratorStarted", "executionStarted", "taskScheduled",
        "orchestratorStarted", "taskCompleted", "taskScheduled",
        "orchestratorStarted", "taskCompleted", "taskScheduled",
        "orchestratorStarted", "taskCompleted", "executionCompleted",
    ]
    assert [event.eventId for event in events] == [-1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4]
    assert [event.taskCompleted.taskScheduledId for event in events if kind(event) == "taskCompleted"] == [1, 2, 3]
    assert all(event.timestamp.ToNanoseconds() > 0 for event in events)
    turns = [event.timestamp.ToNanoseconds() for event in events if kind(event) == "orchestratorStarted"]
    assert turns == sorted(turns)
    started = events[1].executionStarted
    assert (started.name, started.input.value) == ("sequence", "5")
    assert started.orchestrationInstance.instanceId == state.instance_id
    assert not started.HasField("parentInstance")
    ended = events[-1].executionCompleted
    assert (ended.orchestrationStatus, ended.result.value) == (OrchestrationStatus.COMPLETED.value, '"done"')
    assert not ended.HasField("failureDetails")
