//! Which waiting activity begins next, and which running one has taken too long.

use std::sync::Arc;
use std::time::Duration;

use steadfast_core::dispatch::{
    ActivityLimit, Deadlines, LimitState, NextActivity, RateLimit, Refusal, WaitingActivities,
};
use steadfast_core::failure::kinds;
use steadfast_core::model::CancelReason;
use steadfast_core::partition::ActivityTask;
use steadfast_core::{ActivityId, ActivityOptions, ExecutionId, InstanceId, Payload, Timestamp};
use uuid::Uuid;

fn task(id: u64, instance: &str, name: &str, priority: i32) -> Arc<ActivityTask> {
    let options = ActivityOptions { priority, ..ActivityOptions::default() };
    Arc::new(ActivityTask {
        id: ActivityId(id),
        instance: InstanceId::from_trusted(instance),
        execution: ExecutionId::new(Uuid::nil()),
        task_id: 0,
        name: name.into(),
        version: "".into(),
        instance_version: "".into(),
        input: Payload::null(),
        options: (priority != 0).then(|| Box::new(options)),
        cancelled: None,
    })
}

/// Takes all that may begin, and says which.
fn drain(waiting: &mut WaitingActivities, mut permit: impl FnMut(&str) -> bool) -> Vec<u64> {
    let mut taken = Vec::new();
    while let Some(NextActivity { task, .. }) = waiting.pop(|name| permit(name).then_some(())) {
        taken.push(task.id.0);
    }
    taken
}

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(1_000_000 + micros)
}

fn second(seconds: f64) -> Timestamp {
    at((seconds * 1e6) as i64)
}

#[test]
fn instances_take_turns_so_that_a_crowd_of_one_does_not_starve_another() {
    let mut waiting = WaitingActivities::new([]);
    for n in 0..100_000 {
        waiting.push(task(n, "crowd", "work", 0), 0);
    }
    waiting.push(task(100_000, "single", "work", 0), 0);
    waiting.push(task(100_001, "pair", "work", 0), 0);
    waiting.push(task(100_002, "pair", "work", 0), 0);
    assert_eq!(waiting.len(), 100_003);
    let order = drain(&mut waiting, |_| true);
    assert_eq!(order[..6], [0, 100_000, 100_001, 1, 100_002, 2]);
    assert!(order[5..].is_sorted_by_key(|id| if *id < 100_000 { *id } else { 0 }));
    assert_eq!(order.len(), 100_003);
    assert!(waiting.is_empty());
}

#[test]
fn a_greater_priority_goes_first_and_the_order_of_one_instance_is_kept_within_a_priority() {
    let mut waiting = WaitingActivities::new([]);
    for (id, instance, priority) in [
        (0, "a", 0),
        (1, "a", -5),
        (2, "b", 7),
        (3, "a", 7),
        (4, "a", 7),
        (5, "b", i32::MIN),
        (6, "b", i32::MAX),
    ] {
        waiting.push(task(id, instance, "work", priority), 0);
    }
    assert_eq!(drain(&mut waiting, |_| true), [6, 2, 3, 4, 0, 1, 5]);
}

#[test]
fn activities_for_which_there_is_a_place_go_straight_and_those_behind_them_wait_in_turn() {
    let mut waiting = WaitingActivities::new([]);
    for id in 0..4 {
        waiting.push(task(id, "a", "work", 0), 2);
    }
    waiting.push(task(4, "b", "work", 0), 2);
    // Two had a place. Behind them instances take turns.
    assert_eq!(drain(&mut waiting, |_| true), [0, 1, 2, 4, 3]);
}

#[test]
fn a_name_without_a_free_place_holds_up_no_other_name() {
    let mut waiting = WaitingActivities::new(["scarce".into()]);
    waiting.push(task(0, "a", "scarce", 9), 10);
    waiting.push(task(1, "a", "scarce", 0), 10);
    waiting.push(task(2, "a", "common", 0), 0);
    waiting.push(task(3, "a", "common", 0), 0);
    assert_eq!(drain(&mut waiting, |_| false), [2, 3]);
    assert_eq!(waiting.len(), 2);
    let mut places = 1;
    let one = |name: &str| {
        assert_eq!(name, "scarce");
        places -= 1;
        places >= 0
    };
    assert_eq!(drain(&mut waiting, one), [0]);
    assert_eq!(waiting.tasks().map(|task| task.id.0).collect::<Vec<_>>(), [1]);
    waiting.clear();
    assert!(waiting.is_empty());
    assert_eq!(drain(&mut waiting, |_| true), Vec::<u64>::new());
}

#[test]
fn names_with_equal_priorities_take_turns() {
    let mut waiting = WaitingActivities::new(["x".into(), "y".into()]);
    for id in 0..3 {
        waiting.push(task(10 + id, "a", "x", 0), 0);
        waiting.push(task(20 + id, "a", "y", 0), 0);
        waiting.push(task(30 + id, "a", "z", 0), 0);
    }
    let order = drain(&mut waiting, |_| true);
    for round in order.chunks(3) {
        let mut names: Vec<_> = round.iter().map(|id| id / 10).collect();
        names.sort_unstable();
        assert_eq!(names, [1, 2, 3], "{order:?}");
    }
}

#[test]
fn a_concurrency_limit_lets_so_many_run_and_one_more_for_each_that_ends() {
    let mut limit = LimitState::new(ActivityLimit::concurrency(2), at(0));
    assert_eq!([limit.begin(at(0)), limit.begin(at(0))], [Ok(()), Ok(())]);
    assert_eq!(limit.begin(at(1_000_000_000)), Err(Refusal::Full));
    limit.end();
    assert_eq!(limit.begin(at(0)), Ok(()));
    assert_eq!(limit.running(), 2);
}

#[test]
fn a_rate_limit_lets_a_burst_begin_and_then_one_each_interval() {
    let mut limit = LimitState::new(ActivityLimit::rate(4.0, 3), at(0));
    for _ in 0..3 {
        assert_eq!(limit.begin(at(0)), Ok(()));
    }
    let mut now = at(0);
    for nth in 1..=1000 {
        let Err(Refusal::Until(next)) = limit.begin(now) else { panic!("number {nth} began too early") };
        assert_eq!(next, second(f64::from(nth) * 0.25), "{nth}");
        now = next;
        assert_eq!(limit.begin(now), Ok(()), "{nth}");
    }
    // A long pause earns a burst and no more; a clock that goes back earns nothing.
    now = now.after(Duration::from_secs(3600));
    assert_eq!([limit.begin(now), limit.begin(now), limit.begin(now)], [Ok(()); 3]);
    assert!(matches!(limit.begin(at(0)), Err(Refusal::Until(next)) if next > now));
}

#[test]
fn limits_that_could_never_be_met_are_named() {
    let rate =
        |per_second, burst| ActivityLimit { rate: Some(RateLimit { per_second, burst }), concurrency: None };
    for limit in [ActivityLimit::concurrency(0), rate(0.0, 1), rate(-1.0, 1), rate(f64::NAN, 1), rate(1.0, 0)]
    {
        assert!(limit.problem().is_some(), "{limit:?}");
    }
    for limit in [ActivityLimit::default(), ActivityLimit::concurrency(1), rate(0.001, 1)] {
        assert_eq!(limit.problem(), None, "{limit:?}");
    }
}

fn timeouts(start_to_close: Option<u64>, heartbeat: Option<u64>) -> ActivityOptions {
    let seconds = |seconds: Option<u64>| seconds.map(Duration::from_secs);
    ActivityOptions {
        start_to_close: seconds(start_to_close),
        heartbeat: seconds(heartbeat),
        ..ActivityOptions::default()
    }
}

#[test]
fn an_attempt_expires_at_its_start_to_close_timeout_whatever_its_heartbeats() {
    let mut deadlines = Deadlines::default();
    deadlines.begin(ActivityId(1), &timeouts(Some(10), Some(2)), second(0.0));
    for now in 0..10 {
        let alive = |_| Some(second(f64::from(now)));
        assert_eq!(deadlines.expire(second(f64::from(now)), alive), []);
    }
    assert_eq!(deadlines.next_due(), Some(second(10.0)));
    let expired = deadlines.expire(second(10.0), |_| Some(second(10.0)));
    assert_eq!(expired.len(), 1);
    assert_eq!((expired[0].id, expired[0].reason), (ActivityId(1), CancelReason::TimedOut));
    let failure = expired[0].failure();
    assert_eq!(failure.error_type, kinds::ACTIVITY_TIMED_OUT);
    assert!(!failure.non_retriable && failure.message.contains("10s"), "{failure}");
    assert_eq!(deadlines.next_due(), None);
}

#[test]
fn an_attempt_without_a_heartbeat_expires_and_one_that_gives_them_does_not() {
    let mut deadlines = Deadlines::default();
    for id in [1, 2] {
        deadlines.begin(ActivityId(id), &timeouts(None, Some(5)), second(0.0));
    }
    let beaten = |id| (id == ActivityId(2)).then(|| second(4.0));
    let expired = deadlines.expire(second(5.0), beaten);
    assert_eq!(expired.iter().map(|expired| expired.id.0).collect::<Vec<_>>(), [1]);
    assert_eq!(expired[0].failure().error_type, kinds::HEARTBEAT_TIMED_OUT);
    assert_eq!(deadlines.next_due(), Some(second(9.0)));
    assert_eq!(deadlines.expire(second(8.9), beaten), []);
    assert_eq!(deadlines.expire(second(9.0), beaten)[0].reason, CancelReason::HeartbeatTimedOut);
}

#[test]
fn attempts_without_timeouts_and_those_that_ended_are_not_looked_at() {
    let mut deadlines = Deadlines::default();
    deadlines.begin(ActivityId(1), &timeouts(None, None), second(0.0));
    deadlines.begin(ActivityId(2), &timeouts(Some(1), None), second(0.0));
    deadlines.end(ActivityId(2));
    deadlines.end(ActivityId(3));
    assert_eq!(deadlines.next_due(), None);
    assert_eq!(deadlines.expire(Timestamp::MAX, |_| None), []);
}
