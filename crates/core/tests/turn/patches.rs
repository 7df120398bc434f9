//! In-code patches: executions under way go on as they were, others take the new path.

use steadfast_core::model::{ActivityName, OrchestrationContext, Registry};
use steadfast_core::{EventKind, OrchestrationStatus};

use crate::support::{Driver, code, done, raised, resumed, scenario, short, suspended};

const OLD: ActivityName<u32, u32> = ActivityName::new("old");
const NEW: ActivityName<u32, u32> = ActivityName::new("new");

fn before() -> Registry {
    code(|ctx: OrchestrationContext, (): ()| async move {
        let first = ctx.call(OLD, 1).await?;
        Ok(first + ctx.call(OLD, 2).await?)
    })
}

fn patched() -> Registry {
    code(|ctx: OrchestrationContext, (): ()| async move {
        let first = if ctx.patched("new-first") { ctx.call(NEW, 1).await? } else { ctx.call(OLD, 1).await? };
        let second =
            if ctx.patched("new-second") { ctx.call(NEW, 2).await? } else { ctx.call(OLD, 2).await? };
        Ok(first + second)
    })
}

/// The old paths are gone.
fn after() -> Registry {
    code(|ctx: OrchestrationContext, (): ()| async move {
        ctx.deprecate_patch("new-first");
        let first = ctx.call(NEW, 1).await?;
        ctx.deprecate_patch("new-second");
        Ok(first + ctx.call(NEW, 2).await?)
    })
}

fn patches(run: &Driver) -> Vec<String> {
    let id = |event: &steadfast_core::HistoryEvent| match &event.kind {
        EventKind::PatchApplied { id } => Some(id.to_string()),
        _ => None,
    };
    run.history.iter().filter_map(id).collect()
}

#[test]
fn a_new_execution_takes_the_new_path_and_records_each_patch_once() {
    let run = scenario(patched(), |run| {
        run.start(());
        run.expect(["call #0 new 1"]);
        run.send([done(0, 10)]);
        run.expect(["call #1 new 2"]);
        run.send([done(1, 5)]);
    });
    assert_eq!(
        (run.output::<u32>(), patches(&run)),
        (15, vec!["new-first".to_owned(), "new-second".to_owned()])
    );
}

#[test]
fn an_execution_under_way_keeps_what_it_has_passed_and_takes_the_new_path_from_there_on() {
    let run = scenario(before(), |run| {
        run.start(());
        run.deploy(patched());
        run.send([done(0, 10)]);
        run.expect(["call #1 new 2"]);
        run.send([done(1, 5)]);
    });
    assert_eq!((run.output::<u32>(), patches(&run)), (15, vec!["new-second".to_owned()]));
}

#[test]
fn an_execution_that_was_past_both_points_never_takes_the_new_path() {
    let run = scenario(before(), |run| {
        run.start(());
        run.send([done(0, 10)]);
        run.deploy(patched());
        run.send([raised("noise", ())]);
        run.send([done(1, 5)]);
    });
    assert_eq!((run.output::<u32>(), patches(&run).len()), (15, 0));
}

#[test]
fn what_an_execution_was_told_stays_so_wherever_it_asks_again() {
    let asks = |patched: bool| {
        code(move |ctx: OrchestrationContext, (): ()| async move {
            let mut told = Vec::new();
            for _ in 0..3 {
                if patched {
                    told.push(ctx.patched("p"));
                    told.push(ctx.patched("p"));
                }
                ctx.wait_for_event::<()>("go").await?;
            }
            Ok(told)
        })
    };
    for begins_patched in [true, false] {
        let run = scenario(asks(begins_patched), |run| {
            run.start(());
            run.deploy(asks(true));
            for _ in 0..3 {
                run.send([raised("go", ())]);
            }
        });
        assert_eq!(run.output::<Vec<bool>>(), [begins_patched; 6]);
        assert_eq!(patches(&run).len(), usize::from(begins_patched));
    }
}

#[test]
fn a_patch_that_was_taken_just_before_a_suspension_is_recorded_although_nothing_is_emitted() {
    let run = scenario(patched(), |run| {
        run.start(());
        run.send([done(0, 10), suspended()]);
        run.expect([]);
        run.send([raised("noise", ())]);
        run.send([resumed()]);
        run.expect(["call #1 new 2"]);
        run.send([done(1, 5)]);
    });
    assert_eq!(
        (run.output::<u32>(), patches(&run)),
        (15, vec!["new-first".to_owned(), "new-second".to_owned()])
    );
}

#[test]
fn continuing_as_new_decides_anew() {
    let asks = |patched: bool| {
        code(move |ctx: OrchestrationContext, n: u32| async move {
            if patched && ctx.patched("p") {
                return Ok("patched".to_owned());
            }
            ctx.wait_for_event::<()>("go").await?;
            ctx.continue_as_new(&n)?;
            Ok("not patched".to_owned())
        })
    };
    let run = scenario(asks(false), |run| {
        run.start(1);
        run.deploy(asks(true));
        run.send([raised("go", ())]);
        run.next_generation([]);
    });
    assert_eq!(run.output::<String>(), "patched");
}

#[test]
fn when_the_old_path_is_gone_patched_executions_go_on_and_others_fail_with_the_name_of_the_patch() {
    let goes_on = scenario(patched(), |run| {
        run.start(());
        run.deploy(after());
        run.send([done(0, 10)]);
        run.send([done(1, 5)]);
    });
    assert_eq!(goes_on.output::<u32>(), 15);
    let fails = scenario(before(), |run| {
        run.start(());
        run.deploy(after());
        run.send([done(0, 10)]);
    });
    assert_eq!(
        (fails.status(), fails.failure().error_type.as_str()),
        (Some(OrchestrationStatus::Failed), "NonDeterminism")
    );
    assert!(fails.failure().message.contains("patch 'new-first'"), "{}", fails.failure());
    let begins = scenario(after(), |run| {
        run.start(());
        run.send([done(0, 10)]);
        run.send([done(1, 5)]);
    });
    assert_eq!(begins.output::<u32>(), 15);
    // Code without any mention of the patch runs the histories that have it.
    let plain = || {
        code(|ctx: OrchestrationContext, (): ()| async move {
            let first = ctx.call(NEW, 1).await?;
            Ok(first + ctx.call(NEW, 2).await?)
        })
    };
    let cleaned = scenario(patched(), |run| {
        run.start(());
        run.deploy(plain());
        run.send([done(0, 10)]);
        run.send([done(1, 5)]);
    });
    assert_eq!(cleaned.output::<u32>(), 15, "{:?}", cleaned.history.iter().map(short).collect::<Vec<_>>());
}
