//! What is in the messages of the extension: items and reports, in the encoding of records.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use steadfast_core::codec::{self, DecodeError};
use steadfast_core::model::CancelReason;
use steadfast_core::partition::ActivityTask;
use steadfast_core::turn::TurnAnswer;
use steadfast_core::{FailureDetails, HistoryEvent, InstanceId, Payload};
use steadfast_engine::{EntityAnswer, EntityWork, NameFilter, PerKind, WorkFilters, WorkItem, WorkerProfile};

/// The version of the content: of these messages, and of the encoding of what is in them. The first part is raised whenever a
/// type changes that is in them and not in records, such as [`TurnAnswer`].
pub const FORMAT: u32 = (1 << 8) | codec::FORMAT_VERSION as u32;

/// What a worker says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// How it calls itself.
    pub name: SmolStr,
    /// How many orchestrations, activities and entities it takes at once.
    pub places: [u32; 3],
    /// The orchestrations that it takes, with their versions; any version when there is none.
    pub orchestrations: Vec<(SmolStr, Vec<SmolStr>)>,
    /// The activities, likewise.
    pub activities: Vec<(SmolStr, Vec<SmolStr>)>,
    /// The entities.
    pub entities: Vec<SmolStr>,
}

/// Something for a worker to do, or to know.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub enum Item {
    /// Take a turn.
    Turn {
        /// Stands for the item.
        token: String,
        /// Whose turn.
        instance: InstanceId,
        /// The history so far.
        past: Past,
        /// What the turn adds to it before the code runs.
        new: Vec<HistoryEvent>,
    },
    /// Run an activity.
    Activity {
        /// Stands for the item.
        token: String,
        /// The activity.
        task: ActivityTask,
    },
    /// Run an entity's operations.
    Entity {
        /// Stands for the item.
        token: String,
        /// The operations.
        batch: EntityWork,
    },
    /// Nobody waits for an activity any more.
    Cancelled {
        /// The token of the activity.
        token: String,
        /// Why not.
        reason: CancelReason,
    },
}

/// The history up to a turn.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub enum Past {
    /// All of it.
    Whole(Vec<HistoryEvent>),
    /// What came after a turn that the worker took.
    After {
        /// The token of that turn.
        token: String,
        /// What came after it; often nothing.
        events: Vec<HistoryEvent>,
    },
}

/// An [`Item`] on its way out.
#[derive(Serialize)]
enum ItemOut<'a> {
    Turn { token: &'a str, instance: &'a InstanceId, past: PastOut<'a>, new: &'a [HistoryEvent] },
    Activity { token: &'a str, task: &'a ActivityTask },
    Entity { token: &'a str, batch: &'a EntityWork },
    Cancelled { token: &'a str, reason: CancelReason },
}

#[derive(Serialize)]
enum PastOut<'a> {
    Whole(&'a [HistoryEvent]),
    After { token: &'a str, events: &'a [HistoryEvent] },
}

/// What a worker says of an item.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub enum Report {
    /// A turn's answer.
    Turn {
        /// The item's token.
        token: String,
        /// The answer.
        answer: Box<TurnAnswer>,
    },
    /// What became of an activity.
    Activity {
        /// The item's token.
        token: String,
        /// Its result, or its failure.
        outcome: Result<Payload, FailureDetails>,
    },
    /// The answer to a batch of an entity's operations.
    Entity {
        /// The item's token.
        token: String,
        /// The answer.
        answer: EntityAnswer,
    },
    /// The worker does not do it.
    GivenBack {
        /// The item's token.
        token: String,
    },
    /// The worker has not the session of the turn any more, and needs the whole history.
    NeedsHistory {
        /// The item's token.
        token: String,
    },
    /// An activity is alive.
    Heartbeat {
        /// The item's token.
        token: String,
        /// How far it has come.
        detail: Payload,
    },
}

impl From<Profile> for WorkerProfile {
    fn from(profile: Profile) -> Self {
        let [orchestrations, activities, entities] =
            profile.places.map(|count| usize::try_from(count).unwrap_or(usize::MAX));
        let filters = |names: Vec<(SmolStr, Vec<SmolStr>)>| {
            names.into_iter().map(|(name, versions)| NameFilter { name, versions }).collect()
        };
        Self {
            name: profile.name,
            places: PerKind { orchestrations, activities, entities },
            filters: Some(WorkFilters {
                orchestrations: filters(profile.orchestrations),
                activities: filters(profile.activities),
                entities: profile.entities,
            }),
            extended: true,
        }
    }
}

/// Appends an item. A worker that has the session is given only what it does not know.
pub fn encode_item(item: &WorkItem, content: &mut Vec<u8>) {
    let out = match item {
        WorkItem::Turn { token, turn, resident } => {
            let known = resident.as_ref().and_then(|known| Some((known, turn.past.get(known.events..)?)));
            let past = match known {
                Some((known, events)) => PastOut::After { token: &known.after, events },
                None => PastOut::Whole(&turn.past),
            };
            ItemOut::Turn { token, instance: &turn.instance, past, new: &turn.new }
        }
        WorkItem::Activity { token, task } => ItemOut::Activity { token, task },
        WorkItem::Entity { token, batch } => ItemOut::Entity { token, batch },
        WorkItem::Cancelled { token, reason } => ItemOut::Cancelled { token, reason: *reason },
    };
    codec::encode(&out, content);
}

/// The items of a message.
///
/// # Errors
/// When it cannot be understood.
pub fn decode_items(content: &[u8]) -> Result<Vec<Item>, DecodeError> {
    codec::decode_many(content)
}

/// Appends a report.
pub fn encode_report(report: &Report, content: &mut Vec<u8>) {
    codec::encode(report, content);
}

/// The reports of a message.
///
/// # Errors
/// When it cannot be understood.
pub fn decode_reports(content: &[u8]) -> Result<Vec<Report>, DecodeError> {
    codec::decode_many(content)
}

/// What a worker says of itself, as content.
pub fn encode_profile(profile: &Profile) -> Vec<u8> {
    codec::encode_to_vec(profile)
}

/// What a worker says of itself.
///
/// # Errors
/// When it cannot be understood.
pub fn decode_profile(content: &[u8]) -> Result<Profile, DecodeError> {
    codec::decode_all(content)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use steadfast_core::turn::RemoteTurn;
    use steadfast_core::{
        ActivityId, EntityId, EventKind, ExecutionId, ExecutionStarted, NO_EVENT_ID, Timestamp,
    };
    use steadfast_engine::Resident;
    use uuid::Uuid;

    use super::*;

    fn events(count: i64) -> Vec<HistoryEvent> {
        let at = Timestamp::from_micros;
        let event = |nth| HistoryEvent {
            event_id: NO_EVENT_ID,
            timestamp: at(nth),
            kind: EventKind::OrchestratorStarted,
        };
        (0..count).map(event).collect()
    }

    fn decoded(item: &WorkItem) -> Item {
        let mut content = Vec::new();
        encode_item(item, &mut content);
        let mut items = decode_items(&content).unwrap();
        assert_eq!(items.len(), 1);
        items.remove(0)
    }

    #[test]
    fn items_arrive_as_they_were_sent_and_a_session_is_given_only_what_is_new() {
        let (token, execution) = ("token".to_owned(), ExecutionId::new(Uuid::from_u128(7)));
        let instance = InstanceId::parse("order-1").unwrap();
        let started = ExecutionStarted::new("order".into(), "".into(), Payload::null(), execution);
        let turn = RemoteTurn {
            instance: instance.clone(),
            started: Arc::new(started),
            past: Arc::new(events(5)),
            new: events(2).into(),
            keepsake: None,
        };
        let past_of = |resident| {
            let (token, turn) = (token.clone(), turn.clone());
            match decoded(&WorkItem::Turn { token, turn, resident }) {
                Item::Turn { past, new, .. } if new == events(2) => past,
                item => panic!("{item:?}"),
            }
        };
        let after = |events| Some(Resident { after: "before".to_owned(), events });
        assert_eq!(past_of(None), Past::Whole(events(5)));
        let token_before = "before".to_owned();
        assert_eq!(
            past_of(after(3)),
            Past::After { token: token_before.clone(), events: events(5)[3..].to_vec() }
        );
        assert_eq!(past_of(after(5)), Past::After { token: token_before, events: Vec::new() });
        assert_eq!(past_of(after(6)), Past::Whole(events(5)), "no session knows more than there is");

        let task = ActivityTask {
            id: ActivityId(3),
            instance,
            execution,
            task_id: 4,
            name: "greet".into(),
            version: "1".into(),
            instance_version: "2".into(),
            input: Payload::from_json("[1]"),
            options: None,
            cancelled: Some(CancelReason::Ended),
        };
        let item = WorkItem::Activity { token: token.clone(), task: Arc::new(task.clone()) };
        assert_eq!(decoded(&item), Item::Activity { token: token.clone(), task });
        let batch = EntityWork {
            entity: EntityId::new("counter", "a").unwrap(),
            state: None,
            operations: Vec::new(),
            now: Timestamp::from_micros(9),
        };
        let item = WorkItem::Entity { token: token.clone(), batch: Arc::new(batch.clone()) };
        assert_eq!(decoded(&item), Item::Entity { token: token.clone(), batch });
        let reason = CancelReason::TimedOut;
        let item = WorkItem::Cancelled { token: token.clone(), reason };
        assert_eq!(decoded(&item), Item::Cancelled { token, reason });
    }
}
