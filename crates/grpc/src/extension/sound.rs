//! Whether what a worker reports can be: its bytes say what they like, and ids and locks have rules.

use steadfast_core::model::EntityAction;
use steadfast_core::turn::TurnAnswer;
use steadfast_core::{ActionKind, EntityId, InstanceId};
use steadfast_engine::EntityAnswer;

use super::message::Report;

/// Whether all ids of a report are ids, and locks are asked for in the order in which everybody takes them.
pub(super) fn is_sound(report: &Report) -> bool {
    match report {
        Report::Turn { answer, .. } => is_sound_answer(answer),
        Report::Entity { answer, .. } => is_sound_batch(answer),
        Report::Activity { .. }
        | Report::GivenBack { .. }
        | Report::NeedsHistory { .. }
        | Report::Heartbeat { .. } => true,
    }
}

fn is_sound_answer(answer: &TurnAnswer) -> bool {
    let actions = answer.actions.iter().all(|action| match &action.kind {
        ActionKind::CreateSubOrchestration(created) => is_instance(&created.instance),
        ActionKind::SendEvent { instance, .. } => is_instance(instance),
        ActionKind::SignalEntity(operation) | ActionKind::CallEntity(operation) => {
            operation.target.as_ref().is_some_and(is_entity)
        }
        ActionKind::LockEntities(request) => {
            request.position == 0
                && !request.lock_set.is_empty()
                && request.lock_set.is_sorted_by(|left, right| left < right)
                && request.lock_set.iter().all(is_entity)
        }
        ActionKind::UnlockEntity(unlock) => {
            unlock.target.as_ref().is_some_and(is_entity) && unlock.then.iter().all(is_entity)
        }
        ActionKind::ScheduleTask { name, .. } => !name.is_empty(),
        ActionKind::CreateTimer { .. } => true,
        // The end has a field of its own.
        ActionKind::Complete(_) => false,
    });
    actions && answer.terminations.iter().all(|(id, ..)| is_instance(id))
}

fn is_sound_batch(answer: &EntityAnswer) -> bool {
    answer.actions.iter().all(|action| match action {
        EntityAction::Signal { target, .. } => is_entity(target),
        EntityAction::Start { instance, name, .. } => is_instance(instance) && !name.is_empty(),
    })
}

fn is_instance(id: &InstanceId) -> bool {
    InstanceId::parse(id.as_str()).is_ok()
}

fn is_entity(id: &EntityId) -> bool {
    EntityId::parse(id.instance_id().as_str()).is_ok_and(|parsed| parsed == *id)
}
