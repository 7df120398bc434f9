"""Entities: operations, signals, calls, failures, and how clients see them."""

from datetime import timedelta

import pytest

from durabletask import entities, task
from durabletask.client import EntityQuery, OrchestrationStatus
from durabletask.entities import EntityInstanceId

from support import until
from support.raw import after, kind, now


def counter(ctx: entities.EntityContext, input):
    value = ctx.get_state(int, 0)
    if ctx.operation == "add":
        value += input
        ctx.set_state(value)
    elif ctx.operation == "reset":
        ctx.set_state(0)
        value = 0
    elif ctx.operation == "delete":
        ctx.set_state(None)
        return None
    elif ctx.operation == "add and fail":
        ctx.set_state(value + input)
        ctx.signal_entity(EntityInstanceId("counter", "never"), "add", 1)
        raise ArithmeticError(f"not {input}")
    elif ctx.operation != "get":
        raise ValueError(f"there is no {ctx.operation}")
    return value


class Journal(entities.DurableEntity):
    """Remembers what it is told, in order."""

    def note(self, line):
        lines = self.get_state(list, [])
        lines.append(line)
        self.set_state(lines)
        return len(lines)

    def read(self):
        return self.get_state(list, [])

    def tell(self, request):
        self.signal_entity(EntityInstanceId.parse(request["to"]), "note", request["line"])

    def tell_later(self, request):
        self.signal_entity(EntityInstanceId.parse(request["to"]), "note", request["line"],
                           signal_time=after(request["seconds"]))

    def start(self, request):
        return self.schedule_new_orchestration("announce", request["input"], instance_id=request.get("id"))


def ask(ctx: task.OrchestrationContext, request):
    id, operation, input = request
    return (yield ctx.call_entity(EntityInstanceId.parse(id), operation, input))


@pytest.fixture
def call(run):
    """Calls an entity by an orchestration, which waits behind everything that was sent to it before."""

    def call(entity, operation, input=None):
        state = run(ask, [str(entity), operation, input])
        assert state.runtime_status is OrchestrationStatus.COMPLETED, state.failure_details
        return state.get_output()

    return call


@pytest.fixture
def entity(unique):
    return lambda name="counter", key="one": EntityInstanceId(name, unique(key))


@pytest.fixture(autouse=True)
def workers(worker):
    def announce(ctx: task.OrchestrationContext, input):
        return [ctx.instance_id, input]
        yield

    worker(orchestrators=[ask, announce, pair, fire_and_forget, many_calls], entities=[counter, Journal],
           filters="registered")


def pair(ctx: task.OrchestrationContext, request):
    id, operation, input = request
    try:
        yield ctx.call_entity(EntityInstanceId.parse(id), operation, input)
    except Exception as error:
        return [type(error).__name__, str(error)]
    return ["no error", ""]


def fire_and_forget(ctx: task.OrchestrationContext, request):
    id, count, seconds = request
    at = ctx.current_utc_datetime + timedelta(seconds=seconds) if seconds else None
    for number in range(count):
        ctx.signal_entity(EntityInstanceId.parse(id), "note", number, signal_time=at)
    return "sent"
    yield


def many_calls(ctx: task.OrchestrationContext, request):
    id, count = request
    return (yield task.when_all([ctx.call_entity(EntityInstanceId.parse(id), "add", 1) for _ in range(count)]))


def test_signals_of_a_client_make_an_entity_and_change_it(client, call, entity):
    one = entity()
    assert client.get_entity(one) is None
    before = now()
    for number in range(1, 11):
        client.signal_entity(one, "add", number)
    assert call(one, "get") == 55
    metadata = client.get_entity(one)
    assert metadata.get_state() == "55"
    assert metadata.get_typed_state(int) == 55
    assert metadata.id == one
    assert metadata.backlog_queue_size == 0
    assert metadata.get_locked_by() is None
    assert before - timedelta(milliseconds=1) <= metadata.last_modified <= now()
    bare = client.get_entity(one, include_state=False)
    assert not bare.includes_state and bare.get_state() is None


def test_operations_of_a_class_run_in_the_order_of_their_signals(client, call, entity):
    journal = entity("Journal")
    for number in range(50):
        client.signal_entity(journal, "note", number)
    assert call(journal, "read") == list(range(50))


def test_calls_give_results(call, entity):
    one = entity()
    assert [call(one, "add", 2), call(one, "add", 3), call(one, "get")] == [2, 5, 5]


def test_calls_of_one_orchestration_are_in_order(run, entity):
    one = entity()
    assert run(many_calls, [str(one), 100]).get_output() == list(range(1, 101))


def test_names_of_entities_are_in_lower_case(call, client, unique):
    upper, lower = EntityInstanceId("COUNTER", unique()), EntityInstanceId("counter", unique())
    call(upper, "add", 1)
    assert call(lower, "add", 1) == 2
    assert client.get_entity(lower).id == upper


def test_a_failed_operation_leaves_no_trace_and_the_rest_stands(client, run, call, entity):
    one = entity()
    client.signal_entity(one, "add", 1)
    client.signal_entity(one, "add and fail", 10)
    client.signal_entity(one, "add", 2)
    assert call(one, "get") == 3
    assert client.get_entity(EntityInstanceId("counter", "never")) is None
    error, message = run(pair, [str(one), "add and fail", 7]).get_output()
    assert error in ("EntityOperationFailedException", "TaskFailedError")
    assert "not 7" in message
    assert call(one, "get") == 3


def test_unknown_operations_and_unknown_entities_fail_their_callers(worker, run, entity):
    error, message = run(pair, [str(entity()), "fly", None]).get_output()
    assert "there is no fly" in message
    # A worker without filters gets entities that it does not know.
    worker(orchestrators=[pair], entities=[counter])
    error, message = run(pair, [str(entity("nobody_knows_this")), "get", None]).get_output()
    assert error != "no error" and message


def test_a_call_is_confirmed_in_the_history(run, caller, entity):
    one = entity()
    state = run(ask, [str(one), "add", 4])
    events = caller.history(state.instance_id)
    called = next(event for event in events if kind(event) == "entityOperationCalled")
    assert called.eventId == 1
    assert called.entityOperationCalled.targetInstanceId.value == str(one)
    assert called.entityOperationCalled.operation == "add"
    assert called.entityOperationCalled.input.value == "4"
    answered = next(event for event in events if kind(event) == "entityOperationCompleted")
    assert answered.entityOperationCompleted.requestId == called.entityOperationCalled.requestId
    assert answered.entityOperationCompleted.output.value == "4"


@pytest.mark.parametrize("state", [0, False, "", [], {}], ids=repr)
def test_states_that_are_falsy_are_states(worker, client, run, unique, state):
    def keeper(ctx, input):
        ctx.set_state(input)

    worker(entities=[keeper], filters="registered")
    id = EntityInstanceId("keeper", unique())
    run(ask, [str(id), "keep", state])
    assert client.get_entity(id).get_typed_state() == state


def test_a_deleted_entity_does_not_exist(client, call, entity):
    one = entity()
    assert call(one, "add", 5) == 5
    assert client.get_entity(one) is not None
    call(one, "delete")
    assert client.get_entity(one) is None
    assert call(one, "get") == 0
    assert client.get_entity(one) is None
    assert call(one, "add", 2) == 2


def test_reading_makes_no_entity(client, call, entity):
    one = entity()
    assert call(one, "get") == 0
    assert client.get_entity(one) is None


def test_signals_of_an_orchestration(client, run, call, entity):
    journal = entity("Journal")
    assert run(fire_and_forget, [str(journal), 20, 0]).get_output() == "sent"
    assert call(journal, "read") == list(range(20))


def test_a_delayed_signal_of_a_client(client, call, entity, unique):
    """What the signal does is to start an orchestration, whose end can be waited for."""
    journal = entity("Journal")
    at = after(1.5)
    started = unique("delayed")
    client.signal_entity(journal, "start", {"input": 1, "id": started}, signal_time=at)
    # It makes nothing exist before its time, and holds nobody up.
    assert client.get_entity(journal) is None
    assert call(journal, "note", "before") == 1
    assert client.get_orchestration_state(started) is None
    state = client.wait_for_orchestration_completion(started, timeout=30)
    assert now() >= at
    assert state.get_output() == [started, 1]


def test_a_delayed_signal_of_an_orchestration(client, run, call, entity):
    journal = entity("Journal")
    began = now()
    assert run(fire_and_forget, [str(journal), 2, 1]).get_output() == "sent"
    assert client.get_entity(journal) is None
    until(lambda: client.get_entity(journal))
    assert now() - began >= timedelta(seconds=1)
    assert sorted(call(journal, "read")) == [0, 1]


def test_a_signal_whose_time_has_passed_is_due(client, call, entity):
    one = entity()
    client.signal_entity(one, "add", 3, signal_time=after(-60))
    until(lambda: client.get_entity(one))
    assert call(one, "get") == 3


def test_entities_signal_entities(client, call, entity):
    sender, receiver = entity("Journal", "sender"), entity("Journal", "receiver")
    for number in range(5):
        call(sender, "tell", {"to": str(receiver), "line": number})
    until(lambda: call(receiver, "read") == [0, 1, 2, 3, 4])
    # Also later, and to itself.
    call(sender, "tell_later", {"to": str(sender), "line": "later", "seconds": 1})
    asked = now()
    until(lambda: call(sender, "read") == ["later"])
    assert now() - asked >= timedelta(seconds=0.9)


def test_entities_start_orchestrations(client, call, entity, unique):
    journal = entity("Journal")
    given = unique("started")
    assert call(journal, "start", {"input": "x", "id": given}) == given
    state = client.wait_for_orchestration_completion(given, timeout=30)
    assert (state.name, state.get_output()) == ("announce", [given, "x"])
    made = call(journal, "start", {"input": "y"})
    assert made and made != given
    assert client.wait_for_orchestration_completion(made, timeout=30).get_output() == [made, "y"]
    # A finished one under the same id is replaced.
    assert call(journal, "start", {"input": "z", "id": given}) == given
    until(lambda: client.get_orchestration_state(given).get_input() == "z")
    assert client.wait_for_orchestration_completion(given, timeout=30).get_output() == [given, "z"]


def test_clients_query_entities(client, call, entity, unique):
    before = now()
    keys = [entity(key=f"k{number}") for number in range(7)]
    for number, one in enumerate(keys):
        call(one, "add", number)
    other = entity("Journal", "k0")
    call(other, "note", "x")
    after_all = now()

    def found(**query):
        return {str(metadata.id): metadata for metadata in client.get_all_entities(EntityQuery(
            last_modified_from=before, last_modified_to=after_all, **query))}

    every = {str(one) for one in keys} | {str(other)}
    assert set(found()) == every
    assert set(found(page_size=2)) == every
    assert set(found(instance_id_starts_with="@counter@")) == {str(one) for one in keys}
    assert set(found(instance_id_starts_with="@counter@k3")) == {str(keys[3])}
    assert set(found(instance_id_starts_with="@counter@no")) == set()
    states = {id: metadata.get_typed_state() for id, metadata in found(instance_id_starts_with="@counter").items()}
    assert states == {str(one): number for number, one in enumerate(keys)}
    assert all(metadata.get_state() is None for metadata in found(include_state=False).values())
    assert client.get_all_entities(EntityQuery(last_modified_to=before, instance_id_starts_with="@counter@k")) == []


def test_empty_entities_leave_nothing_to_clean(client, call, entity):
    for number in range(3):
        one = entity(key=f"gone{number}")
        call(one, "add", 1)
        call(one, "delete")
    result = client.clean_entity_storage()
    assert (result.empty_entities_removed, result.orphaned_locks_released) == (0, 0)


def test_many_orchestrations_call_one_entity(client, call, entity):
    one = entity()
    instances = [client.schedule_new_orchestration(ask, input=[str(one), "add", 1]) for _ in range(100)]
    results = [client.wait_for_orchestration_completion(instance, timeout=60).get_output() for instance in instances]
    assert sorted(results) == list(range(1, 101))
    assert call(one, "get") == 100
