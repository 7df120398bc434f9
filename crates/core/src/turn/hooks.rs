//! Where middleware is called around a turn.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::execution::Execution;
use crate::action::Completion;
use crate::event::ExecutionStarted;
use crate::failure::FailureDetails;
use crate::ids::InstanceId;
use crate::model::{Middleware, Properties, TurnContext, TurnOutcome};
use crate::time::Timestamp;

/// An execution comes into memory.
pub(super) fn begin(middleware: &Middleware, instance: &InstanceId, execution: &Execution) {
    if middleware.turns.is_empty() {
        return;
    }
    let mut properties = Properties::default();
    begin_with(middleware, instance, &execution.started, &mut properties);
    execution.context.borrow_mut().properties = Some(Box::new(properties));
}

/// Lets all middleware put in what an execution is to have.
pub(super) fn begin_with(
    middleware: &Middleware,
    instance: &InstanceId,
    started: &ExecutionStarted,
    properties: &mut Properties,
) {
    for one in &middleware.turns {
        let began = catch_unwind(AssertUnwindSafe(|| one.begin(instance, started, properties)));
        if let Err(panic) = began {
            // A replay cannot fail for it; the code goes on without what was to be put in.
            let problem = FailureDetails::from_panic(&*panic);
            tracing::error!(%instance, %problem, "middleware panicked when an execution came into memory");
        }
    }
}

/// A turn begins. True when middleware refused it: then the execution has failed.
pub(super) fn before(
    middleware: &Middleware,
    instance: &InstanceId,
    execution: &mut Execution,
    is_first: bool,
) -> bool {
    execution.middleware_passed = 0;
    for one in &middleware.turns {
        let mut failure = None;
        with_context(instance, execution, is_first, |turn| failure = call(|| one.before(turn)).err());
        if let Some(failure) = failure {
            execution.fail(failure);
            return true;
        }
        execution.middleware_passed += 1;
    }
    false
}

/// A turn is done: middleware sees its outcome, the innermost first, and may change it. `completion` is how the execution
/// ends in this turn.
pub(super) fn after(
    middleware: &Middleware,
    instance: &InstanceId,
    execution: &mut Execution,
    completion: &mut Option<Completion>,
) {
    let passed = std::mem::take(&mut execution.middleware_passed);
    let is_first = std::mem::take(&mut execution.first_turn);
    let (mut custom_status, actions) = {
        let mut context = execution.context.borrow_mut();
        (context.custom_status.take(), std::mem::take(&mut context.actions))
    };
    let actions = Vec::from(actions);
    let waits = completion.is_none();
    for one in middleware.turns[..passed.min(middleware.turns.len())].iter().rev() {
        let mut outcome = TurnOutcome { completion, custom_status: &mut custom_status, actions: &actions };
        let mut failure = None;
        with_context(instance, execution, is_first, |turn| {
            failure = call(|| {
                one.after(turn, &mut outcome);
                Ok(())
            })
            .err();
        });
        if let Some(failure) = failure {
            outcome.fail(failure);
        }
    }
    if waits && let Some(Completion::Failed(failure)) = completion {
        // The code is not done, and never will be.
        let failure = (**failure).clone();
        execution.fail(failure);
        execution.completion = None;
    }
    let mut context = execution.context.borrow_mut();
    context.custom_status = custom_status;
    context.actions = actions.into();
}

/// A panic in middleware fails the execution, like one in its code.
pub(super) fn call(hook: impl FnOnce() -> Result<(), FailureDetails>) -> Result<(), FailureDetails> {
    catch_unwind(AssertUnwindSafe(hook)).unwrap_or_else(|panic| Err(FailureDetails::from_panic(&*panic)))
}

fn with_context(
    instance: &InstanceId,
    execution: &Execution,
    is_first: bool,
    hook: impl FnOnce(&mut TurnContext<'_>),
) {
    // The hook must find the context free: it may hold nothing of it, but what it drops may.
    let (mut properties, now): (Box<Properties>, Timestamp) = {
        let mut context = execution.context.borrow_mut();
        (context.properties.take().unwrap_or_default(), context.now)
    };
    hook(&mut TurnContext {
        instance,
        started: &execution.started,
        now,
        is_first,
        properties: &mut properties,
    });
    execution.context.borrow_mut().properties = Some(properties);
}
