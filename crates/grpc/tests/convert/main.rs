//! Conversions between the protocol's messages and the core's vocabulary: what goes out comes back, what SDKs rely on is
//! where they look for it, and what cannot be understood is refused with a reason.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod actions;
mod bad_input;
mod events;
mod round_trip;
mod state;
mod worker;

use steadfast_core::{ExecutionId, InstanceId, Payload, Timestamp};
use steadfast_grpc::convert::Whose;
use uuid::Uuid;

fn whose() -> Whose {
    let execution = ExecutionId::new(Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef));
    Whose { instance: InstanceId::parse("order-17").unwrap(), execution }
}

fn json(text: &str) -> Payload {
    Payload::from_json(text)
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(1_700_000_000_000_000 + seconds * 1_000_000)
}

fn wire_at(seconds: i64) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds: 1_700_000_000 + seconds, nanos: 0 })
}
