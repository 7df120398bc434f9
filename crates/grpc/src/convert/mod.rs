//! Conversions between the messages of the protocol and the core's vocabulary, and nothing else.
//!
//! What comes from outside is checked: it is converted, or a [`WireError`] says what is wrong with it. What goes out
//! always can. Texts that mean "nothing" in the core, such as an empty version, are absent fields outside.
//!
//! The protocol has no words for some things that only Rust programs can ask for: detached children, priorities and
//! timeouts of activities, traces of events, what came before a rewind. They are lost on the way out, and never come in.

mod actions;
mod activities;
mod answered;
mod entities;
mod error;
mod failure;
mod history;
mod received;
mod scalars;
mod state;
mod work;

pub use actions::turn_answer;
pub use activities::{activity_outcome, activity_request};
pub use answered::{Inexpressible, entity_response, turn_response};
pub use entities::{entity_id, entity_prefix, operation_request, received_entity};
pub use error::WireError;
pub use failure::{failure_from_wire, failure_to_wire};
pub use history::{HistoryWriter, Whose, event_from_wire, history_from_wire, history_to_wire};
pub use received::{ReceivedTurn, activity_response, received_activity, received_batch, received_turn};
pub use scalars::{
    MAX_ID_CHARACTERS, MAX_NAME_BYTES, execution_id, name, new_instance_id, optional_payload, page_size,
    payload, payload_to_wire, tags, tags_to_wire, time_range, timestamp, timestamp_to_wire, trace,
    trace_to_wire,
};
pub use state::{orchestration_state, received_state, shown_status, status, status_to_wire, statuses};
pub use work::{activity_item, entity_answer, entity_item, turn_item, work_filters};
