"""Critical sections: several entities for one orchestration alone."""

import threading

import pytest

from durabletask import entities, task
from durabletask.client import OrchestrationStatus
from durabletask.entities import EntityInstanceId

from support import until
from support.raw import kind


def account(ctx: entities.EntityContext, amount):
    balance = ctx.get_state(int, 0)
    if ctx.operation == "deposit":
        balance += amount
        ctx.set_state(balance)
    return balance


def ids(texts):
    return [EntityInstanceId.parse(text) for text in texts]


def read(ctx: task.OrchestrationContext, id):
    return (yield ctx.call_entity(EntityInstanceId.parse(id), "get"))


def transfer(ctx: task.OrchestrationContext, request):
    source, target = ids(request[:2])
    with (yield ctx.lock_entities([source, target])):
        has = yield ctx.call_entity(source, "get")
        gets = yield ctx.call_entity(target, "get")
        # What is between reading and writing would be lost without the lock.
        yield ctx.call_activity("pause")
        yield ctx.call_entity(source, "deposit", -request[2])
        yield ctx.call_entity(target, "deposit", request[2])
    return [has, gets]


def hold(ctx: task.OrchestrationContext, request):
    """Takes the locks, says so, waits, and ends as it is told."""
    with (yield ctx.lock_entities(ids(request["entities"]))):
        yield ctx.call_activity("locked", input=ctx.instance_id)
        how = yield ctx.wait_for_external_event("go")
        if how == "fail":
            raise RuntimeError("failed while it held the lock")
        if how == "continue":
            ctx.continue_as_new({"entities": request["others"], "others": []})
            return
        yield ctx.call_entity(ids(request["entities"])[0], "deposit", 100)
    return "done"


@pytest.fixture
def locked():
    """Instances that hold their locks, by id."""

    class Locked:
        def __init__(self):
            self.changed = threading.Condition()
            self.ids: list[str] = []

        def note(self, id):
            with self.changed:
                self.ids.append(id)
                self.changed.notify_all()

        def wait(self, id, times=1):
            with self.changed:
                assert self.changed.wait_for(lambda: self.ids.count(id) >= times, timeout=30), self.ids

    return Locked()


@pytest.fixture(autouse=True)
def workers(worker, locked):
    def pause(ctx, _):
        return None

    def locked_(ctx, id):
        locked.note(id)

    locked_.__name__ = "locked"
    worker(orchestrators=[read, transfer, hold], activities=[pause, locked_], entities=[account],
           filters="registered")


@pytest.fixture
def accounts(unique):
    return [str(EntityInstanceId("account", unique(key))) for key in ("a", "b", "c")]


@pytest.fixture
def holding(client, locked, unique):
    def holding(accounts, name="holder", others=()):
        instance = client.schedule_new_orchestration(
            hold, input={"entities": list(accounts), "others": list(others)}, instance_id=unique(name))
        locked.wait(instance)
        return instance
    return holding


def test_transfers_do_not_mix(client, run, accounts):
    a, b, c = accounts
    client.signal_entity(EntityInstanceId.parse(a), "deposit", 1000)
    pairs = [(a, b), (b, c), (c, a), (b, a), (a, c), (c, b)] * 4
    instances = [client.schedule_new_orchestration(transfer, input=[source, target, 1]) for source, target in pairs]
    for instance in instances:
        state = client.wait_for_orchestration_completion(instance, timeout=60)
        assert state.runtime_status is OrchestrationStatus.COMPLETED, state.failure_details
    balances = [run(read, id).get_output() for id in accounts]
    assert balances == [1000, 0, 0]
    assert all(client.get_entity(EntityInstanceId.parse(id)).get_locked_by() is None for id in accounts)


def test_a_lock_keeps_others_out_until_it_is_released(client, caller, holding, accounts, unique):
    a, b, c = accounts
    owner = holding([b, a])
    assert caller.entity(a).lockedBy.value == owner
    assert caller.entity(b).lockedBy.value == owner
    assert caller.entity(c) is None
    # A signal and a call wait; an entity that is not locked does not.
    client.signal_entity(EntityInstanceId.parse(a), "deposit", 1)
    other = client.schedule_new_orchestration(read, input=a, instance_id=unique("other"))
    free = client.schedule_new_orchestration(read, input=c, instance_id=unique("free"))
    assert client.wait_for_orchestration_completion(free, timeout=30).get_output() == 0
    with pytest.raises(TimeoutError):
        client.wait_for_orchestration_completion(other, timeout=1)
    until(lambda: caller.entity(a).backlogQueueSize == 2)
    client.raise_orchestration_event(owner, "go", data="end")
    assert client.wait_for_orchestration_completion(owner, timeout=30).get_output() == "done"
    # The owner's deposit went to b.
    assert client.wait_for_orchestration_completion(other, timeout=30).get_output() == 1
    assert not caller.entity(a).HasField("lockedBy")
    assert caller.entity(a).backlogQueueSize == 0


def test_the_events_of_a_critical_section(client, run, caller, accounts):
    a, b, _ = accounts
    state = run(transfer, [b, a, 5])
    assert state.get_output() == [0, 0]
    events = [event for event in caller.history(state.instance_id) if kind(event).startswith("entity")]
    assert [kind(event) for event in events] == (
        ["entityLockRequested", "entityLockGranted"] + ["entityOperationCalled", "entityOperationCompleted"] * 4
        + ["entityUnlockSent"] * 2)
    requested = events[0].entityLockRequested
    assert list(requested.lockSet) == sorted([a, b])
    assert requested.parentInstanceId.value == state.instance_id
    assert events[1].entityLockGranted.criticalSectionId == requested.criticalSectionId
    assert {event.entityUnlockSent.criticalSectionId for event in events[-2:]} == {requested.criticalSectionId}
    assert {event.entityUnlockSent.targetInstanceId.value for event in events[-2:]} == {a, b}


@pytest.mark.parametrize("way", ["end", "fail", "continue", "terminate"])
def test_locks_are_free_however_their_owner_ends(client, caller, locked, holding, accounts, unique, way):
    a, b, c = accounts
    owner = holding([a, b], name=f"owner-{way}", others=[c])
    waiting = client.schedule_new_orchestration(
        hold, input={"entities": [a, b], "others": []}, instance_id=unique(f"next-{way}"))
    if way == "terminate":
        client.terminate_orchestration(owner, recursive=False)
    else:
        client.raise_orchestration_event(owner, "go", data=way)
    locked.wait(waiting)
    client.raise_orchestration_event(waiting, "go", data="end")
    assert client.wait_for_orchestration_completion(waiting, timeout=30).get_output() == "done"
    if way == "continue":
        locked.wait(owner, times=2)
        client.raise_orchestration_event(owner, "go", data="end")
    ended = client.wait_for_orchestration_completion(owner, timeout=30)
    assert ended.runtime_status is {
        "end": OrchestrationStatus.COMPLETED, "fail": OrchestrationStatus.FAILED,
        "continue": OrchestrationStatus.COMPLETED, "terminate": OrchestrationStatus.TERMINATED}[way]
    for id in accounts:
        metadata = caller.entity(id)
        assert metadata is None or not metadata.HasField("lockedBy"), id


def test_locks_are_granted_in_the_order_of_the_requests(client, locked, holding, accounts, unique):
    a = accounts[0]
    owner = holding([a])
    following = []
    for number in range(5):
        instance = client.schedule_new_orchestration(
            hold, input={"entities": [a], "others": []}, instance_id=unique(f"queue{number}"))
        # Its request is on its way when its first turn is over; the next one starts after that.
        client.wait_for_orchestration_start(instance, timeout=30)
        until(lambda: len(client.get_orchestration_history(instance)) == 3)
        following.append(instance)
    client.raise_orchestration_event(owner, "go", data="end")
    for instance in following:
        locked.wait(instance)
        client.raise_orchestration_event(instance, "go", data="end")
        client.wait_for_orchestration_completion(instance, timeout=30)
    assert locked.ids == [owner] + following


def test_overlapping_sections_make_no_deadlock(client, run, accounts):
    a, b, c = accounts
    pairs = [(a, b), (b, a), (b, c), (c, b), (c, a), (a, c)] * 3
    instances = [client.schedule_new_orchestration(transfer, input=[source, target, 0]) for source, target in pairs]
    for instance in instances:
        state = client.wait_for_orchestration_completion(instance, timeout=60)
        assert state.runtime_status is OrchestrationStatus.COMPLETED


def test_misuse_of_a_lock_fails_the_orchestration_and_frees_it(worker, client, run, accounts, caller):
    a, b, _ = accounts

    def outside(ctx: task.OrchestrationContext, request):
        with (yield ctx.lock_entities(ids([request[0]]))):
            yield ctx.call_entity(ids([request[1]])[0], "get")

    worker(orchestrators=[outside], filters="registered")
    state = run(outside, [a, b])
    assert state.runtime_status is OrchestrationStatus.FAILED
    assert "locked entities" in state.failure_details.message
    assert run(read, a).get_output() == 0
