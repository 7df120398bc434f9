//! Histories as JSON in the Durable Task event vocabulary: for people, for tools, and for replay tests.
//!
//! [`write()`] prints what other Durable Task backends print: an array of objects with `EventId`, `EventType`, `Timestamp`
//! (ISO 8601 with seven fractional digits) and the fields of that type. What the vocabulary has no word for has a field
//! of its own, so that [`read`] gives back exactly what was written. [`read`] also takes dumps of others: types may be
//! names or numbers, field names may begin with small letters, unknown fields are passed over, payloads may be JSON
//! values instead of texts, and events may be nested under the name of their type as protobuf's JSON does it.
//!
//! ```
//! use steadfast_core::{history_json, EventKind, HistoryEvent, InstanceId, Timestamp};
//! let id = InstanceId::parse("order-17").unwrap();
//! let events = [HistoryEvent::message(Timestamp::from_micros(1), EventKind::OrchestratorStarted)];
//! let text = history_json::write(&id, &events);
//! assert_eq!(
//!     text,
//!     "[\n  {\"EventId\":-1,\"EventType\":\"OrchestratorStarted\",\"Timestamp\":\"1970-01-01T00:00:00.0000010Z\"}\n]\n"
//! );
//! assert_eq!(history_json::read(&text).unwrap().events, events);
//! ```

mod entities;
mod fields;
mod lifecycle;
mod read;
mod write;

pub use read::{HistoryDump, HistoryJsonError, read};
pub use write::write;
