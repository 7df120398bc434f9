//! Histories written by hand, and what the replay tester says of them.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use steadfast_core::model::{
    ActivityName, OrchestrationContext, OrchestrationDefinition, OrchestrationName, orchestration,
};
use steadfast_core::{EventKind, OrchestrationStatus, Result};
use steadfast_testkit::{HistoryBuilder, ReplayError, ReplayedEnd, check_history, replay};

fn greet() -> ActivityName<String, String> {
    ActivityName::dynamic("greet")
}

async fn greet_all(ctx: OrchestrationContext, cities: Vec<String>) -> Result<Vec<String>> {
    let mut greetings = Vec::new();
    for city in cities {
        greetings.push(ctx.call(greet(), city).await?);
    }
    Ok(greetings)
}

fn greet_both() -> OrchestrationDefinition<Vec<String>, Vec<String>> {
    orchestration("greet_both", greet_all)
}

fn first_greeting() -> (HistoryBuilder, i32) {
    let mut history = HistoryBuilder::new("greet_both", &["Tokyo", "Seattle"]);
    let first = history.task_scheduled("greet", "Tokyo");
    (history, first)
}

#[test]
fn a_history_that_is_cut_off_shows_what_the_code_asks_for_next() {
    let (mut history, first) = first_greeting();
    history.task_completed(first, "Hello, Tokyo!");
    let outcome = replay(greet_both(), &history.build_open()).unwrap();
    let [EventKind::TaskScheduled { name, input, .. }] = &outcome.next[..] else { panic!("{outcome:?}") };
    assert_eq!((name.as_str(), input.as_str()), ("greet", "\"Seattle\""));
    assert_eq!(outcome.end, None);
}

#[test]
fn a_history_that_waits_asks_for_nothing() {
    let (history, _) = first_greeting();
    let outcome = replay(greet_both(), &history.build()).unwrap();
    assert!(outcome.next.is_empty() && outcome.end.is_none());
}

#[test]
fn a_whole_history_ends_as_it_says() {
    let (mut history, first) = first_greeting();
    history.task_completed(first, "Hello, Tokyo!");
    let second = history.task_scheduled("greet", "Seattle");
    history.task_completed(second, "Hello, Seattle!").completed(&["Hello, Tokyo!", "Hello, Seattle!"]);
    check_history(&history.build()).unwrap();
    let outcome = replay(greet_both(), &history.build()).unwrap();
    let Some(ReplayedEnd::Completed { status, output, .. }) = outcome.end else { panic!("{outcome:?}") };
    assert_eq!(status, OrchestrationStatus::Completed);
    assert_eq!(output.unwrap().as_str(), r#"["Hello, Tokyo!","Hello, Seattle!"]"#);
}

#[test]
fn code_that_asks_for_something_else_is_not_deterministic() {
    let mut history = HistoryBuilder::new("greet_both", &["Tokyo"]);
    history.timer_created(Duration::from_secs(1));
    let error = replay(greet_both(), &history.build()).unwrap_err();
    assert!(matches!(error, ReplayError::NonDeterminism(_)));
    let text = error.to_string();
    assert!(text.contains("#0") && text.contains("a timer") && text.contains("activity 'greet'"), "{text}");
}

#[test]
fn code_that_goes_on_where_the_history_ends_differs() {
    let (mut history, first) = first_greeting();
    history.task_completed(first, "Hello, Tokyo!").completed(&["Hello, Tokyo!"]);
    let error = replay(greet_both(), &history.build()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the history ends with status Completed, but the code now asks for activity 'greet'"
    );
}

#[test]
fn code_that_ends_where_the_history_goes_on_is_not_deterministic() {
    let mut history = HistoryBuilder::new("greet_both", &["Tokyo"]);
    let first = history.task_scheduled("greet", "Tokyo");
    history.task_completed(first, "Hello, Tokyo!");
    let second = history.task_scheduled("greet", "Seattle");
    history.task_completed(second, "Hello, Seattle!");
    assert!(matches!(replay(greet_both(), &history.build()), Err(ReplayError::NonDeterminism(_))));
}

#[test]
fn failures_of_activities_and_children_reach_the_code() {
    let with_child = orchestration("with_child", |ctx: OrchestrationContext, (): ()| async move {
        let child: OrchestrationName<u32, u32> = OrchestrationName::dynamic("child");
        let failed = ctx.call_orchestration(child, 1).await.unwrap_err();
        let greeting = ctx.call(greet(), failed.details.message).await.unwrap_err();
        Result::<_>::Ok(greeting.details.message)
    });
    let mut history = HistoryBuilder::new("with_child", &());
    let child = history.sub_orchestration_created("child", &1);
    history.sub_orchestration_failed(child, "no child");
    let call = history.task_scheduled("greet", "no child");
    history.task_failed(call, "nobody").completed("nobody");
    assert!(replay(with_child, &history.build()).unwrap().end.is_some());
}

#[test]
fn timers_events_and_suspensions_replay() {
    let waits = orchestration("waits", |ctx: OrchestrationContext, (): ()| async move {
        ctx.timer(Duration::from_secs(60)).await;
        let started = ctx.now();
        let answer: u32 = ctx.wait_for_event("answer").await?;
        ctx.raise_event("listener", "answered", &answer)?;
        ctx.continue_as_new(&())?;
        Result::<_>::Ok(started.as_micros() as u32)
    });
    let mut history = HistoryBuilder::new("waits", &());
    let began = history.now();
    let timer = history.timer_created(Duration::from_secs(60));
    history.timer_fired(timer);
    assert_eq!(history.now().since(began), Duration::from_secs(60));
    history.end_turn_and_wait(Duration::from_secs(3600)).suspended("for a while");
    history.event_raised("answer", &42).resumed("again");
    history.event_sent("listener", "answered", &42);
    history.continued_as_new(&());
    check_history(&history.build()).unwrap();
    let outcome = replay(waits, &history.build()).unwrap();
    assert!(matches!(outcome.end, Some(ReplayedEnd::ContinuedAsNew { .. })));
}

#[test]
fn a_terminated_history_replays() {
    let (mut history, _) = first_greeting();
    history.terminated("enough");
    let outcome = replay(greet_both(), &history.build()).unwrap();
    let Some(ReplayedEnd::Completed { status, .. }) = outcome.end else { panic!("{outcome:?}") };
    assert_eq!(status, OrchestrationStatus::Terminated);
}

#[test]
fn a_history_of_unknown_code_and_one_without_a_start_are_refused() {
    let (history, _) = first_greeting();
    let other = orchestration("other", greet_all);
    assert!(matches!(replay(other, &history.build()), Err(ReplayError::NotRegistered(_))));
    assert_eq!(replay(greet_both(), &[]), Err(ReplayError::NoStart));
}

#[test]
fn malformed_histories_are_told_apart() {
    let problem = |change: fn(&mut Vec<steadfast_core::HistoryEvent>)| {
        let (mut history, first) = first_greeting();
        history.task_completed(first, "Hello, Tokyo!").completed(&());
        let mut events = history.build();
        check_history(&events).unwrap();
        change(&mut events);
        check_history(&events).unwrap_err().problem
    };
    assert!(problem(|events| drop(events.pop())).contains("no end"));
    assert!(problem(|events| drop(events.remove(0))).contains("between two turns"));
    assert!(problem(|events| drop(events.remove(2))).contains("nothing asked for #0"));
    assert!(problem(|events| events.insert(6, events[5].clone())).contains("answered twice"));
    assert!(problem(|events| events[6].event_id = 0).contains("does not ascend"));
    assert!(problem(|events| events[4].timestamp = Default::default()).contains("goes back"));
    assert!(problem(|events| events.insert(7, events[2].clone())).contains("after the end"));
}
