"""Versions, and which worker gets which items."""

import grpc
import pytest

from durabletask import task
from durabletask.client import OrchestrationStatus, TaskHubGrpcClient
from durabletask.worker import (ActivityWorkItemFilter, EntityWorkItemFilter, OrchestrationWorkItemFilter,
                                VersionFailureStrategy, VersioningOptions, VersionMatchStrategy, WorkItemFilters)
from durabletask.entities import EntityInstanceId


def versioned(ctx: task.OrchestrationContext, _):
    return ctx.version
    yield


def options(version, match, failure, default=None):
    return VersioningOptions(version=version, default_version=default, match_strategy=match, failure_strategy=failure)


def test_a_version_travels_to_the_code(worker, run):
    worker(orchestrators=[versioned])
    assert run(versioned, version="1.2.3").get_output() == "1.2.3"
    assert run(versioned).get_output() is None


def test_a_clients_default_version(worker, server):
    worker(orchestrators=[versioned])
    with TaskHubGrpcClient(host_address=server.address, default_version="7.0") as client:
        instance = client.schedule_new_orchestration(versioned)
        assert client.wait_for_orchestration_completion(instance, timeout=30).get_output() == "7.0"
        instance = client.schedule_new_orchestration(versioned, version="8.0")
        assert client.wait_for_orchestration_completion(instance, timeout=30).get_output() == "8.0"


def test_a_childs_version_is_the_workers_default_or_the_one_asked_for(worker, run, caller):
    def parent(ctx: task.OrchestrationContext, _):
        default = yield ctx.call_sub_orchestrator(versioned)
        given = yield ctx.call_sub_orchestrator(versioned, version="9.1")
        return [ctx.version, default, given]

    worker(orchestrators=[parent, versioned], versioning=options(
        "5.0", VersionMatchStrategy.NONE, VersionFailureStrategy.FAIL, default="4.4"))
    state = run(parent, version="3.0")
    assert state.get_output() == ["3.0", "4.4", "9.1"]
    assert caller.get(f"{state.instance_id}:0001").version.value == "4.4"


@pytest.mark.parametrize("match, asked, fits", [
    (VersionMatchStrategy.STRICT, "2.0", True),
    (VersionMatchStrategy.STRICT, "1.0", False),
    (VersionMatchStrategy.STRICT, None, False),
    (VersionMatchStrategy.CURRENT_OR_OLDER, "1.9", True),
    (VersionMatchStrategy.CURRENT_OR_OLDER, "2.0", True),
    (VersionMatchStrategy.CURRENT_OR_OLDER, None, True),
    (VersionMatchStrategy.CURRENT_OR_OLDER, "10.0", False),
    (VersionMatchStrategy.NONE, "99", True),
], ids=str)
def test_a_worker_that_fails_what_does_not_fit(worker, run, match, asked, fits):
    worker(orchestrators=[versioned], versioning=options("2.0", match, VersionFailureStrategy.FAIL))
    state = run(versioned, version=asked)
    if fits:
        assert (state.runtime_status, state.get_output()) == (OrchestrationStatus.COMPLETED, asked)
    else:
        assert state.runtime_status is OrchestrationStatus.FAILED
        assert state.failure_details.error_type == "VersionMismatch"


def test_a_worker_that_rejects_leaves_the_instance_for_another(worker, client, unique):
    worker(orchestrators=[versioned], versioning=options(
        "1.0", VersionMatchStrategy.STRICT, VersionFailureStrategy.REJECT))
    instance = client.schedule_new_orchestration(versioned, instance_id=unique(), version="2.0")
    with pytest.raises(TimeoutError):
        client.wait_for_orchestration_completion(instance, timeout=2)
    assert client.get_orchestration_state(instance).runtime_status is OrchestrationStatus.PENDING
    # Others are not held up by it.
    other = client.schedule_new_orchestration(versioned, instance_id=unique("other"), version="1.0")
    assert client.wait_for_orchestration_completion(other, timeout=30).get_output() == "1.0"
    worker(orchestrators=[versioned], versioning=options(
        "2.0", VersionMatchStrategy.STRICT, VersionFailureStrategy.REJECT))
    assert client.wait_for_orchestration_completion(instance, timeout=60).get_output() == "2.0"


def greet(ctx: task.OrchestrationContext, _):
    return (yield ctx.call_activity("place"))


def at(name):
    def place(ctx, _):
        return name
    return place


def test_filters_by_name(worker, client, unique):
    def other(ctx: task.OrchestrationContext, _):
        return "other"
        yield

    waiting = client.schedule_new_orchestration(greet, instance_id=unique("greet"))
    worker(orchestrators=[other], filters="registered")
    state = client.wait_for_orchestration_completion(
        client.schedule_new_orchestration(other, instance_id=unique("other")), timeout=30)
    assert state.get_output() == "other"
    assert client.get_orchestration_state(waiting).runtime_status is OrchestrationStatus.PENDING
    # The orchestration gets a worker, its activity not yet: an empty list of a kind means nothing of that kind.
    worker(orchestrators=[greet], filters="registered")
    client.wait_for_orchestration_start(waiting, timeout=30)
    with pytest.raises(TimeoutError):
        client.wait_for_orchestration_completion(waiting, timeout=1)
    worker(activities=[at("activities only")], filters="registered")
    assert client.wait_for_orchestration_completion(waiting, timeout=30).get_output() == "activities only"


def test_filters_by_version_and_the_inherited_version_of_activities(worker, client, unique):
    def for_version(version):
        return WorkItemFilters(
            orchestrations=[OrchestrationWorkItemFilter("greet", [version])],
            activities=[ActivityWorkItemFilter("place", [version])])

    worker(orchestrators=[greet], activities=[at("old")], filters=for_version("1.0.0"))
    worker(orchestrators=[greet], activities=[at("new")], filters=for_version("3.0.0"))
    instances = {version: client.schedule_new_orchestration(
        greet, instance_id=unique(f"v{version}"), version=version) for version in ("1.0.0", "2.0.0", "3.0.0")}
    unversioned = client.schedule_new_orchestration(greet, instance_id=unique("none"))
    assert client.wait_for_orchestration_completion(instances["1.0.0"], timeout=30).get_output() == "old"
    assert client.wait_for_orchestration_completion(instances["3.0.0"], timeout=30).get_output() == "new"
    for instance in (instances["2.0.0"], unversioned):
        assert client.get_orchestration_state(instance).runtime_status is OrchestrationStatus.PENDING
    # An empty list of versions is any.
    worker(orchestrators=[greet], activities=[at("any")], filters="registered")
    assert client.wait_for_orchestration_completion(instances["2.0.0"], timeout=30).get_output() == "any"
    assert client.wait_for_orchestration_completion(unversioned, timeout=30).get_output() == "any"


def test_an_item_without_version_has_the_empty_version(worker, client, unique):
    worker(orchestrators=[versioned], filters=WorkItemFilters(
        orchestrations=[OrchestrationWorkItemFilter("versioned", [""])]))
    numbered = client.schedule_new_orchestration(versioned, instance_id=unique("numbered"), version="1")
    bare = client.schedule_new_orchestration(versioned, instance_id=unique("bare"))
    state = client.wait_for_orchestration_completion(bare, timeout=30)
    assert state.runtime_status is OrchestrationStatus.COMPLETED
    assert client.get_orchestration_state(numbered).runtime_status is OrchestrationStatus.PENDING
    client.terminate_orchestration(numbered)


def test_filters_of_entities(worker, client, unique):
    def ask(ctx: task.OrchestrationContext, id):
        return (yield ctx.call_entity(EntityInstanceId.parse(id), "where"))

    def Here(ctx, _):
        return "here"

    def There(ctx, _):
        return "there"

    worker(orchestrators=[ask], filters="registered")
    worker(entities=[Here], filters=WorkItemFilters(entities=[EntityWorkItemFilter("Here")]))
    worker(entities=[There], filters=WorkItemFilters(entities=[EntityWorkItemFilter("There")]))
    for name in ("Here", "There"):
        instance = client.schedule_new_orchestration(
            ask, input=str(EntityInstanceId(name, unique())), instance_id=unique(name))
        assert client.wait_for_orchestration_completion(instance, timeout=30).get_output() == name.lower()
