//! Failures.

use std::collections::{BTreeMap, HashMap};

use prost_types::value::Kind;
use serde_json::Value;
use smol_str::SmolStr;
use steadfast_core::FailureDetails;
use steadfast_core::failure::MAX_CHAIN;

use super::scalars::text_to_wire;
use crate::wire;

/// A failure from outside; of a chain of more than [`MAX_CHAIN`] causes the deepest are dropped.
pub fn failure_from_wire(failure: wire::TaskFailureDetails) -> FailureDetails {
    let mut links = Vec::new();
    let mut next = Some(Box::new(failure));
    while let Some(failure) = next {
        let wire::TaskFailureDetails {
            error_type,
            error_message,
            stack_trace,
            inner_failure,
            is_non_retriable,
            properties,
        } = *failure;
        let mut link = FailureDetails::new(error_type, error_message);
        link.stack_trace = stack_trace.filter(|trace| !trace.is_empty());
        link.non_retriable = is_non_retriable;
        link.properties = properties
            .into_iter()
            .map(|(name, value)| (name.into(), json_of(value).to_string().into()))
            .collect();
        links.push(link);
        next = inner_failure.filter(|_| links.len() < MAX_CHAIN);
    }
    let chain = links.into_iter().rev().reduce(|cause, mut failure| {
        failure.cause = Some(Box::new(cause));
        failure
    });
    chain.unwrap_or_else(|| FailureDetails::new("", ""))
}

fn properties_to_wire(properties: &BTreeMap<SmolStr, SmolStr>) -> HashMap<String, prost_types::Value> {
    let convert = |(name, value): (&SmolStr, &SmolStr)| {
        // Rust code may give plain text.
        let json = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value.as_str()));
        (name.to_string(), value_of(json))
    };
    properties.iter().map(convert).collect()
}

/// How deep is nested what a property may hold; the decoder of messages allows about as much.
const MAX_DEPTH: usize = 100;

/// A property's value as JSON. A number that JSON does not have is null.
fn json_of(value: prost_types::Value) -> Value {
    json_below(value, MAX_DEPTH)
}

fn json_below(value: prost_types::Value, depth: usize) -> Value {
    let Some(depth) = depth.checked_sub(1) else { return Value::Null };
    match value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => Value::Bool(value),
        Some(Kind::NumberValue(value)) => number(value),
        Some(Kind::StringValue(text)) => Value::String(text),
        Some(Kind::ListValue(list)) => {
            list.values.into_iter().map(|value| json_below(value, depth)).collect()
        }
        Some(Kind::StructValue(fields)) => {
            fields.fields.into_iter().map(|(name, value)| (name, json_below(value, depth))).collect()
        }
    }
}

/// Whole numbers are printed as such: the protocol has no others than floating ones.
fn number(value: f64) -> Value {
    const WHOLE: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() <= WHOLE { Value::from(value as i64) } else { Value::from(value) }
}

fn value_of(value: Value) -> prost_types::Value {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(value),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or(f64::NAN)),
        Value::String(text) => Kind::StringValue(text),
        Value::Array(values) => {
            Kind::ListValue(prost_types::ListValue { values: values.into_iter().map(value_of).collect() })
        }
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(name, value)| (name, value_of(value))).collect();
            Kind::StructValue(prost_types::Struct { fields })
        }
    };
    prost_types::Value { kind: Some(kind) }
}

/// A failure on its way out, unchanged: SDKs match its type and print its message.
pub fn failure_to_wire(failure: &FailureDetails) -> wire::TaskFailureDetails {
    let links: Vec<_> = failure.chain().collect();
    let mut inner = None;
    for link in links.into_iter().rev() {
        inner = Some(Box::new(wire::TaskFailureDetails {
            error_type: link.error_type.to_string(),
            error_message: link.message.clone(),
            stack_trace: link.stack_trace.as_deref().and_then(text_to_wire),
            inner_failure: inner,
            is_non_retriable: link.non_retriable,
            properties: properties_to_wire(&link.properties),
        }));
    }
    inner.map(|failure| *failure).unwrap_or_default()
}
