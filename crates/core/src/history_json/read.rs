//! Reading a history, our own or that of another Durable Task backend.

use serde_json::{Map, Value};
use smol_str::{SmolStr, ToSmolStr};
use uuid::Uuid;

use super::entities;
use super::fields::{EVENT_TYPES, STATUSES, parse_duration, parse_time};
use super::lifecycle;
use crate::event::{
    ActivityOptions, CarriedEvent, EventKind, EventVersions, ExecutionStarted, HistoryEvent, NO_EVENT_ID,
    ParentInstance, SubOrchestrationCreated, Tags, TraceContext,
};
use crate::failure::{FailureDetails, kinds};
use crate::ids::{ExecutionId, InstanceId};
use crate::payload::Payload;
use crate::state::OrchestrationStatus;
use crate::time::Timestamp;

/// A history that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryDump {
    /// Whose history it is, if it says so.
    pub instance: Option<InstanceId>,
    /// Its events.
    pub events: Vec<HistoryEvent>,
}

/// A text is not the history of an execution.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistoryJsonError {
    /// It is not JSON.
    #[error("the history is not JSON: {problem}")]
    NotJson {
        /// What is wrong, and where.
        problem: String,
    },
    /// It is neither an array of events nor an object that holds one.
    #[error("the history is not an array of events, nor an object with one named 'events' or 'history'")]
    NotAnArray,
    /// An event is of a type that replay knows nothing of.
    #[error("event {at} is of the unknown type '{event_type}'; remove it if replay does not depend on it")]
    UnknownType {
        /// Its place, counted from 0.
        at: usize,
        /// What it says it is.
        event_type: String,
    },
    /// A field that an event needs is missing or is something else.
    #[error("event {at} ({event_type}) has no usable field '{field}'")]
    BadField {
        /// Its place, counted from 0.
        at: usize,
        /// Its type.
        event_type: &'static str,
        /// The field.
        field: &'static str,
    },
}

/// Reads a history from JSON.
///
/// # Errors
/// When the text is not JSON, not an array of events, or an event lacks what replay needs.
pub fn read(text: &str) -> Result<HistoryDump, HistoryJsonError> {
    let value: Value = serde_json::from_str(text)
        .map_err(|error| HistoryJsonError::NotJson { problem: error.to_string() })?;
    let events = match value {
        Value::Array(events) => events,
        Value::Object(object) => {
            let mut object = Fields::new(object);
            match object
                .take("events")
                .or_else(|| object.take("history"))
                .or_else(|| object.take("historyevents"))
            {
                Some(Value::Array(events)) => events,
                _ => return Err(HistoryJsonError::NotAnArray),
            }
        }
        _ => return Err(HistoryJsonError::NotAnArray),
    };
    let mut dump = HistoryDump { instance: None, events: Vec::with_capacity(events.len()) };
    for (at, event) in events.into_iter().enumerate() {
        let Value::Object(object) = event else {
            return Err(HistoryJsonError::UnknownType { at, event_type: event.to_string() });
        };
        let event = Reader::new(at, object)?.event(&mut dump.instance)?;
        dump.events.push(event);
    }
    Ok(dump)
}

impl HistoryDump {
    /// Moves the ids of actions so that the first is 0, as ours are: those of some SDKs begin at 1.
    pub fn begin_at_zero(&mut self) {
        let scheduled = self.events.iter().filter(|event| is_scheduled(&event.kind));
        let first = scheduled.map(|event| event.event_id).min();
        if let Some(first) = first.filter(|first| *first > 0) {
            self.events.iter_mut().for_each(|event| shift(event, first));
        }
    }
}

fn is_scheduled(kind: &EventKind) -> bool {
    matches!(
        kind,
        EventKind::TaskScheduled { .. }
            | EventKind::TimerCreated { .. }
            | EventKind::SubOrchestrationInstanceCreated(_)
            | EventKind::EventSent { .. }
            | EventKind::EntityOperationSignaled(_)
            | EventKind::EntityOperationCalled(_)
            | EventKind::EntityLockRequested(_)
            | EventKind::EntityUnlockSent(_)
    )
}

fn shift(event: &mut HistoryEvent, by: i32) {
    if event.event_id >= by {
        event.event_id -= by;
    }
    match &mut event.kind {
        EventKind::TaskCompleted { task_scheduled_id: id, .. }
        | EventKind::TaskFailed { task_scheduled_id: id, .. }
        | EventKind::SubOrchestrationInstanceCompleted { task_scheduled_id: id, .. }
        | EventKind::SubOrchestrationInstanceFailed { task_scheduled_id: id, .. }
        | EventKind::TimerFired { timer_id: id, .. } => *id = id.saturating_sub(by),
        _ => {}
    }
}

fn known_types() -> impl Iterator<Item = &'static str> {
    EVENT_TYPES.into_iter().chain(entities::EVENT_TYPES).chain(lifecycle::EVENT_TYPES)
}

/// An object's fields by their names in small letters without underscores: writers differ in them.
pub(super) struct Fields(pub(super) Map<String, Value>);

impl Fields {
    fn new(object: Map<String, Value>) -> Self {
        let plain = |name: String| name.chars().filter(|it| *it != '_').collect::<String>().to_lowercase();
        Self(object.into_iter().map(|(name, value)| (plain(name), value)).collect())
    }

    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    pub(super) fn object(&mut self, name: &str) -> Option<Fields> {
        match self.take(name)? {
            Value::Object(object) => Some(Self::new(object)),
            _ => None,
        }
    }

    pub(super) fn text(&mut self, name: &str) -> Option<SmolStr> {
        match self.take(name)? {
            Value::String(text) => Some(text.into()),
            // Protobuf's wrapped strings, when they are printed by hand.
            Value::Object(mut wrapped) => Some(wrapped.remove("value")?.as_str()?.into()),
            Value::Number(number) => Some(number.to_smolstr()),
            _ => None,
        }
    }

    /// Numbers may be printed as texts.
    pub(super) fn number(&mut self, name: &str) -> Option<i64> {
        match self.take(name)? {
            Value::Number(number) => number.as_i64(),
            Value::String(text) => text.parse().ok(),
            _ => None,
        }
    }

    fn id(&mut self, name: &str) -> Option<i32> {
        self.number(name).and_then(|number| i32::try_from(number).ok())
    }

    pub(super) fn flag(&mut self, name: &str) -> bool {
        matches!(self.take(name), Some(Value::Bool(true)))
    }

    pub(super) fn time(&mut self, name: &str) -> Option<Timestamp> {
        parse_time(&self.text(name)?)
    }

    /// A payload is a text with JSON in it. Some writers print that JSON itself.
    pub(super) fn payload(&mut self, name: &str) -> Option<Payload> {
        Some(Payload::from_json(match self.take(name)? {
            Value::String(text) => SmolStr::from(text),
            Value::Object(wrapped)
                if wrapped.len() == 1 && wrapped.get("value").is_some_and(Value::is_string) =>
            {
                SmolStr::from(wrapped["value"].as_str().unwrap_or_default())
            }
            other => other.to_smolstr(),
        }))
    }

    fn tags(&mut self) -> Tags {
        self.map("tags")
    }

    fn map(&mut self, name: &str) -> Tags {
        let Some(Value::Object(tags)) = self.take(name) else { return Tags::new() };
        let text = |value: Value| match value {
            Value::String(text) => SmolStr::from(text),
            other => other.to_smolstr(),
        };
        tags.into_iter().map(|(key, value)| (key.into(), text(value))).collect()
    }

    pub(super) fn trace(&mut self) -> Option<TraceContext> {
        let mut trace = self.object("parenttracecontext")?;
        Some(TraceContext {
            parent: trace.text("traceparent")?,
            state: trace.text("tracestate").unwrap_or_default(),
        })
    }

    fn failure(&mut self) -> Option<FailureDetails> {
        let mut links = Vec::new();
        let mut next = self.object("failuredetails");
        while let Some(mut failure) = next {
            next = failure.object("innerfailure");
            let properties = failure.map("properties");
            links.push(FailureDetails {
                error_type: failure.text("errortype").unwrap_or(SmolStr::new_static(kinds::MESSAGE)),
                message: failure.text("errormessage").unwrap_or_default().into(),
                stack_trace: failure.text("stacktrace").map(Into::into),
                cause: None,
                non_retriable: failure.flag("isnonretriable"),
                properties,
            });
        }
        links.into_iter().rev().reduce(|cause, failure| failure.caused_by(cause))
    }

    /// The failure of an operation, also as old backends print it.
    pub(super) fn failure_or_reason(&mut self) -> FailureDetails {
        let (reason, details) = (self.text("reason"), self.text("details"));
        self.failure().unwrap_or_else(|| {
            let mut failure = FailureDetails::new(kinds::MESSAGE, reason.unwrap_or_default());
            failure.stack_trace = details.map(Into::into);
            failure
        })
    }
}

pub(super) struct Reader {
    at: usize,
    pub(super) event_type: &'static str,
    event_id: i32,
    timestamp: Timestamp,
    pub(super) fields: Fields,
}

impl Reader {
    fn new(at: usize, object: Map<String, Value>) -> Result<Self, HistoryJsonError> {
        let mut fields = Fields::new(object);
        let named = match fields.take("eventtype").or_else(|| fields.take("type")) {
            Some(Value::Number(number)) => {
                let known = number.as_u64().and_then(|number| EVENT_TYPES.get(usize::try_from(number).ok()?));
                known.map_or_else(|| number.to_string(), |name| (*name).to_owned())
            }
            Some(Value::String(name)) => name,
            _ => String::new(),
        };
        let plain = |name: &str| name.chars().filter(|it| it.is_ascii_alphanumeric()).collect::<String>();
        let wanted = plain(&named);
        let mut found = known_types().find(|name| name.eq_ignore_ascii_case(&wanted));
        let event_id = fields.id("eventid").unwrap_or(NO_EVENT_ID);
        let timestamp = fields.time("timestamp");
        if found.is_none() {
            // Protobuf's JSON: the type is the name of the field that holds the rest.
            found = known_types().find(|name| fields.0.contains_key(&name.to_lowercase()));
            if let Some(nested) = found.and_then(|name| fields.object(&name.to_lowercase())) {
                fields = nested;
            }
        }
        let event_type = found.ok_or(HistoryJsonError::UnknownType { at, event_type: named })?;
        let bad = HistoryJsonError::BadField { at, event_type, field: "Timestamp" };
        Ok(Self { at, event_type, event_id, timestamp: timestamp.ok_or(bad)?, fields })
    }

    pub(super) fn need<T>(&self, field: &'static str, found: Option<T>) -> Result<T, HistoryJsonError> {
        found.ok_or(HistoryJsonError::BadField { at: self.at, event_type: self.event_type, field })
    }

    fn name(&mut self) -> Result<SmolStr, HistoryJsonError> {
        // Durable Functions print the name of the function instead.
        let name = self.fields.text("name").or_else(|| self.fields.text("functionname"));
        self.need("Name", name)
    }

    fn version(&mut self) -> SmolStr {
        self.fields.text("version").unwrap_or_default()
    }

    fn payload(&mut self, name: &str) -> Payload {
        self.fields.payload(name).unwrap_or(Payload::null())
    }

    fn reference(&mut self) -> Result<i32, HistoryJsonError> {
        let id = self.fields.id("taskscheduledid");
        self.need("TaskScheduledId", id)
    }

    fn time(&mut self, name: &'static str) -> Result<Timestamp, HistoryJsonError> {
        let time = self.fields.time(&name.to_lowercase());
        self.need(name, time)
    }

    fn event(mut self, whose: &mut Option<InstanceId>) -> Result<HistoryEvent, HistoryJsonError> {
        let kind = self.kind(whose)?;
        Ok(HistoryEvent { event_id: self.event_id, timestamp: self.timestamp, kind })
    }

    fn kind(&mut self, whose: &mut Option<InstanceId>) -> Result<EventKind, HistoryJsonError> {
        Ok(match self.event_type {
            "ExecutionStarted" => EventKind::ExecutionStarted(Box::new(self.execution_started(whose)?)),
            "ExecutionCompleted" | "ExecutionFailed" => self.execution_completed()?,
            "ExecutionTerminated" => EventKind::ExecutionTerminated {
                reason: self.fields.text("input").or_else(|| self.fields.text("reason")).unwrap_or_default(),
                recurse: self.fields.flag("recurse"),
            },
            "TaskScheduled" => EventKind::TaskScheduled {
                name: self.name()?,
                version: self.version(),
                input: self.payload("input"),
                options: self.activity_options().map(Box::new),
            },
            "TaskCompleted" => EventKind::TaskCompleted {
                task_scheduled_id: self.reference()?,
                result: self.payload("result"),
            },
            "TaskFailed" => EventKind::TaskFailed {
                task_scheduled_id: self.reference()?,
                failure: Box::new(self.fields.failure_or_reason()),
            },
            "SubOrchestrationInstanceCreated" => {
                EventKind::SubOrchestrationInstanceCreated(Box::new(self.sub_orchestration()?))
            }
            "SubOrchestrationInstanceCompleted" => EventKind::SubOrchestrationInstanceCompleted {
                task_scheduled_id: self.reference()?,
                result: self.payload("result"),
            },
            "SubOrchestrationInstanceFailed" => EventKind::SubOrchestrationInstanceFailed {
                task_scheduled_id: self.reference()?,
                failure: Box::new(self.fields.failure_or_reason()),
            },
            "TimerCreated" => EventKind::TimerCreated { fire_at: self.time("FireAt")? },
            "TimerFired" => {
                let timer_id = self.fields.id("timerid");
                let timer_id = self.need("TimerId", timer_id)?;
                EventKind::TimerFired {
                    timer_id,
                    fire_at: self.fields.time("fireat").unwrap_or(self.timestamp),
                }
            }
            "OrchestratorStarted" => EventKind::OrchestratorStarted,
            "OrchestratorCompleted" => EventKind::OrchestratorCompleted,
            "EventSent" => {
                let instance = self.fields.text("instanceid");
                EventKind::EventSent {
                    instance: InstanceId::from_trusted(self.need("InstanceId", instance)?),
                    name: self.name()?,
                    input: self.payload("input"),
                }
            }
            "EventRaised" => {
                let versions = EventVersions {
                    sender: self.fields.text("senderversion").unwrap_or_default(),
                    receiver: self.fields.text("receiverversion"),
                };
                let (name, input) = (self.name()?, self.payload("input"));
                EventKind::raised(name, input, self.fields.trace().map(Box::new), Some(versions))
            }
            "ContinueAsNew" => {
                let input = self.fields.payload("result").or_else(|| self.fields.payload("input"));
                EventKind::ContinueAsNew { input: input.unwrap_or(Payload::null()) }
            }
            "GenericEvent" => EventKind::GenericEvent { data: self.fields.text("data").unwrap_or_default() },
            "ExecutionSuspended" => EventKind::ExecutionSuspended { reason: self.reason() },
            "ExecutionResumed" => EventKind::ExecutionResumed { reason: self.reason() },
            other => match entities::read(self)?
                .map_or_else(|| lifecycle::read(self), |kind| Ok(Some(kind)))?
            {
                Some(kind) => kind,
                None => {
                    return Err(HistoryJsonError::UnknownType { at: self.at, event_type: other.to_owned() });
                }
            },
        })
    }

    fn reason(&mut self) -> SmolStr {
        self.fields.text("reason").or_else(|| self.fields.text("input")).unwrap_or_default()
    }

    fn execution_completed(&mut self) -> Result<EventKind, HistoryJsonError> {
        let status = match self.fields.take("orchestrationstatus") {
            Some(Value::Number(number)) => {
                number.as_u64().and_then(|number| STATUSES.get(usize::try_from(number).ok()?)).copied()
            }
            Some(Value::String(name)) => {
                let name = name.trim_start_matches("ORCHESTRATION_STATUS_").replace('_', "");
                STATUSES.iter().copied().find(|status| status.to_string().eq_ignore_ascii_case(&name))
            }
            _ if self.event_type == "ExecutionFailed" => Some(OrchestrationStatus::Failed),
            _ => None,
        };
        let status = self.need("OrchestrationStatus", status)?;
        let output = self.fields.payload("result");
        let failure = self.fields.failure().map(Box::new);
        Ok(EventKind::ExecutionCompleted { status, output, failure })
    }

    pub(super) fn execution_started(
        &mut self,
        whose: &mut Option<InstanceId>,
    ) -> Result<ExecutionStarted, HistoryJsonError> {
        let own = self.fields.object("orchestrationinstance").map(execution).unwrap_or_default();
        if let Some(instance) = own.0 {
            *whose = Some(instance);
        }
        let parent = self.fields.object("parentinstance").and_then(|mut parent| {
            let (instance, execution) = execution(parent.object("orchestrationinstance")?);
            let id = parent.id("taskscheduleid").or_else(|| parent.id("taskscheduledid"));
            Some(ParentInstance {
                instance: instance?,
                execution: execution.unwrap_or(nil()),
                task_scheduled_id: id.unwrap_or(NO_EVENT_ID),
                name: parent.text("name").unwrap_or_default(),
            })
        });
        let scheduled =
            self.fields.time("scheduledstarttime").or_else(|| self.fields.time("scheduledstarttimestamp"));
        let (name, version, input) = (self.name()?, self.version(), self.payload("input"));
        let started = ExecutionStarted {
            parent,
            tags: self.fields.tags(),
            scheduled_start: scheduled,
            generation: self.fields.number("generation").and_then(|it| u32::try_from(it).ok()).unwrap_or(0),
            carried_events: self.carried_events()?,
            trace: self.fields.trace().map(Box::new),
            ..ExecutionStarted::new(name, version, input, own.1.unwrap_or(nil()))
        };
        Ok(lifecycle::read_lineage(&mut self.fields, started))
    }

    fn carried_events(&mut self) -> Result<Vec<CarriedEvent>, HistoryJsonError> {
        let Some(Value::Array(events)) = self.fields.take("carryoverevents") else { return Ok(Vec::new()) };
        let read = |event| match event {
            Value::Object(object) => {
                let mut event = Fields::new(object);
                let name = event.text("name");
                Ok(CarriedEvent {
                    name: self.need("CarryoverEvents", name)?,
                    input: event.payload("input").unwrap_or(Payload::null()),
                    timestamp: event.time("timestamp").unwrap_or(self.timestamp),
                    trace: event.trace().map(Box::new),
                    versions: None,
                })
            }
            _ => self.need("CarryoverEvents", None),
        };
        events.into_iter().map(read).collect()
    }

    fn sub_orchestration(&mut self) -> Result<SubOrchestrationCreated, HistoryJsonError> {
        let instance = self.fields.text("instanceid");
        let instance = InstanceId::from_trusted(self.need("InstanceId", instance)?);
        let execution = self.fields.text("executionid").map(|id| execution_id(&id));
        // The .NET SDK marks a child that nobody awaits by a tag, and prints no execution.
        let mut tags = self.fields.tags();
        let marked = execution.is_none() && tags.remove("FireAndForget").is_some();
        Ok(SubOrchestrationCreated {
            name: self.name()?,
            version: self.version(),
            execution: execution.unwrap_or_else(|| execution_id(instance.as_str())),
            instance,
            input: self.payload("input"),
            detached: self.fields.flag("fireandforget") || marked,
            tags,
            trace: self.fields.trace().map(Box::new),
        })
    }

    fn activity_options(&mut self) -> Option<ActivityOptions> {
        let (tags, trace) = (self.fields.tags(), self.fields.trace());
        let own = self.fields.object("options");
        if own.is_none() && tags.is_empty() && trace.is_none() {
            return None;
        }
        let mut own = own.unwrap_or(Fields(Map::new()));
        let mut duration = |name| own.text(name).and_then(|text| parse_duration(&text));
        Some(ActivityOptions {
            tags,
            trace,
            start_to_close: duration("starttocloseseconds"),
            heartbeat: duration("heartbeatseconds"),
            priority: own.id("priority").unwrap_or(0),
            last_heartbeat: own.payload("lastheartbeat"),
        })
    }
}

fn execution(mut fields: Fields) -> (Option<InstanceId>, Option<ExecutionId>) {
    let instance = fields.text("instanceid").map(InstanceId::from_trusted);
    (instance, fields.text("executionid").map(|id| execution_id(&id)))
}

/// Others use any text as an execution's id; ours are UUIDs.
pub(super) fn execution_id(text: &str) -> ExecutionId {
    ExecutionId::new(
        Uuid::parse_str(text).unwrap_or_else(|_| Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes())),
    )
}

fn nil() -> ExecutionId {
    ExecutionId::new(Uuid::nil())
}
