//! Calls that come many in a message: how the answers are said.

use std::collections::HashMap;

use tonic::Status;
use tonic::metadata::{KeyAndValueRef, MetadataMap};

use crate::framing::PREFIX_BYTES;
use crate::service::Answered;
use crate::wire::extension::Answer;

/// Larger messages are sent by themselves: others would have to wait behind them.
pub const BATCHED_MESSAGE_BYTES_MAX: usize = 32 << 10;

/// The answer to a call, but for its number.
pub(crate) fn acceptance(Answered { framed, metadata }: Answered) -> Answer {
    Answer { message: framed.slice(PREFIX_BYTES..), metadata: texts(&metadata), ..Answer::default() }
}

fn texts(metadata: &MetadataMap) -> HashMap<String, String> {
    metadata
        .iter()
        .filter_map(|entry| match entry {
            KeyAndValueRef::Ascii(key, value) => Some((key.to_string(), value.to_str().ok()?.to_owned())),
            KeyAndValueRef::Binary(..) => None,
        })
        .collect()
}

/// The answer to a call that failed, but for its number.
pub(crate) fn refusal(status: &Status) -> Answer {
    Answer { code: status.code().into(), problem: status.message().to_owned(), ..Answer::default() }
}
