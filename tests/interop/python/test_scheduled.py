"""Scheduled tasks: an entity of the SDK that signals itself later and starts orchestrations."""

from datetime import timedelta

import pytest

from durabletask import task
from durabletask.client import OrchestrationQuery, OrchestrationStatus
from durabletask.scheduled import (ScheduleCreationOptions, ScheduledTaskClient, ScheduleQuery, ScheduleStatus,
                                   ScheduleUpdateOptions)

from support import until
from support.raw import after, now


def chore(ctx: task.OrchestrationContext, input):
    return input
    yield


@pytest.fixture
def schedules(worker, client):
    worker(orchestrators=[chore], schedules=True)
    return ScheduledTaskClient(client, operation_timeout=30)


@pytest.fixture
def runs(client):
    """The orchestrations that a schedule has started."""
    return lambda id: client.get_all_orchestration_states(OrchestrationQuery(
        instance_id_prefix=f"{id}-", fetch_inputs_and_outputs=True))


def test_a_schedule_runs_again_and_again(schedules, client, runs, unique):
    id = unique("every-second")
    before = now()
    schedule = schedules.create_schedule(ScheduleCreationOptions(
        schedule_id=id, orchestration_name="chore", interval=timedelta(seconds=1), orchestration_input={"n": 1},
        start_immediately_if_late=True, start_at=before))
    until(lambda: len([run for run in runs(id) if run.runtime_status is OrchestrationStatus.COMPLETED]) >= 3)
    assert now() - before >= timedelta(seconds=2)
    assert {run.get_output()["n"] for run in runs(id) if run.serialized_output} == {1}
    described = schedule.describe()
    assert described.status is ScheduleStatus.ACTIVE
    assert described.interval == timedelta(seconds=1)
    assert described.last_run_at is not None and described.next_run_at > described.last_run_at
    schedule.delete()
    assert schedules.get_schedule(id) is None


def test_a_paused_schedule_rests(schedules, runs, unique):
    id = unique("resting")
    schedule = schedules.create_schedule(ScheduleCreationOptions(
        schedule_id=id, orchestration_name="chore", interval=timedelta(hours=1)))
    assert schedule.describe().status is ScheduleStatus.ACTIVE
    schedule.pause()
    assert schedule.describe().status is ScheduleStatus.PAUSED
    schedule.update(ScheduleUpdateOptions(orchestration_input="changed"))
    assert schedule.describe().orchestration_input == "changed"
    schedule.update(ScheduleUpdateOptions(start_at=now(), start_immediately_if_late=True))
    assert runs(id) == []
    schedule.resume()
    until(lambda: [run.get_output() for run in runs(id)] == ["changed"])
    schedule.delete()


def test_an_invalid_change_is_refused(schedules, unique):
    schedule = schedules.get_schedule_client(unique("missing"))
    with pytest.raises(RuntimeError):
        schedule.pause()


def test_schedules_are_listed(schedules, unique):
    ids = [unique(f"list{number}") for number in range(3)]
    for id in ids:
        schedules.create_schedule(ScheduleCreationOptions(
            schedule_id=id, orchestration_name="chore", interval=timedelta(hours=1), start_at=after(3600)))
    schedules.get_schedule_client(ids[0]).pause()
    listed = schedules.list_schedules(ScheduleQuery(schedule_id_prefix="list", page_size=2))
    assert sorted(schedule.schedule_id for schedule in listed) == sorted(ids)
    paused = schedules.list_schedules(ScheduleQuery(schedule_id_prefix="list", status=ScheduleStatus.PAUSED))
    assert [schedule.schedule_id for schedule in paused] == [ids[0]]
    for id in ids:
        schedules.get_schedule_client(id).delete()
    assert schedules.list_schedules(ScheduleQuery(schedule_id_prefix="list")) == []


def test_a_schedule_ends_by_itself(schedules, unique):
    id = unique("short")
    schedules.create_schedule(ScheduleCreationOptions(
        schedule_id=id, orchestration_name="chore", interval=timedelta(seconds=1), end_at=after(1.5)))
    until(lambda: schedules.get_schedule(id) is None)
