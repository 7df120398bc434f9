//! The protocol's messages, its service and its client, compiled from the files in `proto/`.

// Code that others generate is not held to our lints.
#![allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/_.rs"));

/// All messages and the service as an encoded `google.protobuf.FileDescriptorSet`.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The extension for Rust programs, which SDKs do not know.
pub mod extension {
    include!(concat!(env!("OUT_DIR"), "/steadfast.worker.v1.rs"));
    include!(concat!(env!("OUT_DIR"), "/steadfast.calls.v1.rs"));
}
