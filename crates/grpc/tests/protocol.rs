//! The compiled protocol is the one that the SDKs speak: every message, field, number, type and method, compared with
//! `protocol.txt`, which was taken from an installed SDK. Of our own are the version in
//! `CreateInstanceResponse` and the fields from 100 on, which SDKs pass over.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};
use steadfast_grpc::wire::FILE_DESCRIPTOR_SET;

/// A type's name as the table has it: without the leading dot and the package of the well-known types.
fn short(name: &str) -> &str {
    name.trim_start_matches('.').trim_start_matches("google.protobuf.")
}

fn scalar(field: &FieldDescriptorProto) -> String {
    match field.r#type() {
        Type::String => "string".to_owned(),
        Type::Int32 => "int32".to_owned(),
        Type::Bool => "bool".to_owned(),
        Type::Message | Type::Enum => short(field.type_name()).to_owned(),
        other => panic!("the protocol has no fields of type {other:?}: {}", field.name()),
    }
}

fn describe_field(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let (number, name, scalar) = (field.number(), field.name(), scalar(field));
    if field.label() == Label::Repeated {
        // A map is a repeated entry of a message that the compiler makes.
        let entry = |nested: &&DescriptorProto| {
            let is_map = nested.options.as_ref().is_some_and(|options| options.map_entry());
            is_map && field.type_name() == format!(".{}.{}", message.name(), nested.name())
        };
        return match message.nested_type.iter().find(entry) {
            Some(map) => {
                let types = [&map.field[0], &map.field[1]].map(self::scalar);
                format!("    {number} map<{},{}> {name}", types[0], types[1])
            }
            None => format!("    {number} [{scalar}] {name}"),
        };
    }
    match field.oneof_index {
        Some(index) => {
            let oneof = &message.oneof_decl[usize::try_from(index).unwrap()];
            format!("    {number} {scalar} {name} of {}", oneof.name())
        }
        None => format!("    {number} {scalar} {name}"),
    }
}

/// The compiled protocol in the form of the table.
fn describe(set: &FileDescriptorSet) -> Vec<String> {
    let ours: Vec<_> = set.file.iter().filter(|file| !file.name().starts_with("google/")).collect();
    assert!(ours.iter().all(|file| file.package().is_empty()), "paths begin with the service's name");
    let mut lines = Vec::new();
    let mut messages: Vec<_> = ours.iter().flat_map(|file| &file.message_type).collect();
    messages.sort_by_key(|message| message.name().to_owned());
    for message in messages {
        lines.push(format!("message {}", message.name()));
        let mut fields: Vec<_> = message.field.iter().collect();
        fields.sort_by_key(|field| field.number());
        lines.extend(fields.into_iter().map(|field| describe_field(message, field)));
    }
    let mut enums: Vec<_> = ours.iter().flat_map(|file| &file.enum_type).collect();
    enums.sort_by_key(|values| values.name().to_owned());
    for values in enums {
        lines.push(format!("enum {}", values.name()));
        lines.extend(values.value.iter().map(|value| format!("    {} {}", value.number(), value.name())));
    }
    let services: Vec<_> = ours.iter().flat_map(|file| &file.service).collect();
    assert_eq!(services.iter().map(|service| service.name()).collect::<Vec<_>>(), ["TaskHubSidecarService"]);
    let mut methods: Vec<_> = services[0].method.iter().collect();
    methods.sort_by_key(|method| method.name().to_owned());
    for method in methods {
        assert!(!method.client_streaming(), "{}", method.name());
        let stream = if method.server_streaming() { "stream " } else { "" };
        let (input, output) = (short(method.input_type()), short(method.output_type()));
        lines.push(format!("rpc {}: {input} -> {stream}{output}", method.name()));
    }
    lines
}

#[test]
fn every_message_field_number_type_and_method_is_that_of_the_sdks() {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let expected: Vec<_> = include_str!("protocol.txt").lines().collect();
    assert!(expected.iter().filter(|line| line.starts_with("rpc ")).count() == 29, "the table is whole");
    let found = describe(&set);
    let differs = expected.iter().zip(&found).position(|(expected, found)| expected != found);
    let at = differs.unwrap_or(expected.len().min(found.len()));
    assert_eq!((expected.get(at).copied(), expected.len()), (found.get(at).map(String::as_str), found.len()));
}

#[test]
fn the_descriptors_that_servers_hand_out_are_whole_and_without_comments() {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let names: Vec<_> = set.file.iter().map(|file| file.name()).collect();
    for file in &set.file {
        assert!(file.source_code_info.is_none(), "{}", file.name());
        for needed in &file.dependency {
            assert!(names.contains(&needed.as_str()), "{} needs {needed}", file.name());
        }
    }
}
