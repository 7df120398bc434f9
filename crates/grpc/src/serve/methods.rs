//! The service's methods, as far as they differ before their message is read.

use super::access::Role::{self, Admin, Read, Worker, Write};
use crate::wire::extension::call_link_server::SERVICE_NAME as CALL_LINK;
use crate::wire::extension::worker_link_server::SERVICE_NAME as WORKER_LINK;

/// How long a method may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// It ends by itself, soon.
    Short,
    /// It waits for something that may never happen.
    Wait,
    /// It waits in a stream, for work items.
    WorkItems,
    /// It is a stream of calls, each with a length of its own.
    Calls,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Method {
    pub(super) name: &'static str,
    /// The roles of which the caller needs one. None: whoever is known may call it.
    pub(super) any_of: &'static [Role],
    pub(super) length: Length,
}

impl Method {
    /// Whether the caller sends one message, and no more.
    pub(super) fn is_one_message(&self) -> bool {
        self.length != Length::Calls && self.name != WORK
    }

    /// Whether it is also answered with one message.
    pub(super) fn is_unary(&self) -> bool {
        matches!(self.length, Length::Short | Length::Wait) && self.name != STREAM_HISTORY
    }

    /// Whether a worker says by it how its work went.
    pub(super) fn brings_results(&self) -> bool {
        self.length == Length::Short && self.any_of == [Worker]
    }
}

const fn method(name: &'static str, any_of: &'static [Role], length: Length) -> Method {
    Method { name, any_of, length }
}

const METHODS: &[Method] = &[
    method("Hello", &[], Length::Short),
    method("StartInstance", &[Write], Length::Short),
    method("GetInstance", &[Read], Length::Short),
    method("RewindInstance", &[Write], Length::Short),
    method("RestartInstance", &[Write], Length::Short),
    method("WaitForInstanceStart", &[Read], Length::Wait),
    method("WaitForInstanceCompletion", &[Read], Length::Wait),
    method("RaiseEvent", &[Write], Length::Short),
    method("TerminateInstance", &[Write], Length::Short),
    method("SuspendInstance", &[Write], Length::Short),
    method("ResumeInstance", &[Write], Length::Short),
    method("QueryInstances", &[Read], Length::Short),
    method("ListInstanceIds", &[Read], Length::Short),
    method("PurgeInstances", &[Write], Length::Short),
    method("GetWorkItems", &[Worker], Length::WorkItems),
    method("CompleteActivityTask", &[Worker], Length::Short),
    method("CompleteOrchestratorTask", &[Worker], Length::Short),
    method("CompleteEntityTask", &[Worker], Length::Short),
    // Workers that announce it fetch long histories by it.
    method(STREAM_HISTORY, &[Read, Worker], Length::Short),
    method(CREATE_TASK_HUB, &[Admin], Length::Short),
    method(DELETE_TASK_HUB, &[Admin], Length::Short),
    method("SignalEntity", &[Write], Length::Short),
    method("GetEntity", &[Read], Length::Short),
    method("QueryEntities", &[Read], Length::Short),
    method("CleanEntityStorage", &[Write], Length::Short),
    method("AbandonTaskActivityWorkItem", &[Worker], Length::Short),
    method("AbandonTaskOrchestratorWorkItem", &[Worker], Length::Short),
    method("AbandonTaskEntityWorkItem", &[Worker], Length::Short),
    method("SkipGracefulOrchestrationTerminations", &[Write], Length::Short),
];

pub(super) const CREATE_TASK_HUB: &str = "CreateTaskHub";
pub(super) const DELETE_TASK_HUB: &str = "DeleteTaskHub";
const STREAM_HISTORY: &str = "StreamInstanceHistory";
/// The two methods of the extension.
pub(super) const WORK: &str = "Work";
pub(super) const CALLS: &str = "Calls";

/// The method of a path such as `/TaskHubSidecarService/Hello`.
pub(super) fn method_of(path: &str) -> Option<Method> {
    let (service, name) = path.rsplit_once('/')?;
    match (service.strip_prefix('/')?, name) {
        (WORKER_LINK, WORK) => Some(method(WORK, &[Worker], Length::WorkItems)),
        // What may be called is asked of each call.
        (CALL_LINK, CALLS) => Some(method(CALLS, &[], Length::Calls)),
        (WORKER_LINK | CALL_LINK, _) => None,
        _ => METHODS.iter().find(|method| method.name == name).copied(),
    }
}

/// A method that may be called many in a message: all of clients that are answered with one message.
pub(super) fn method_of_clients(name: &str) -> Option<Method> {
    let of_client = |method: &Method| method.any_of == [Read] || method.any_of == [Write];
    METHODS.iter().find(|method| method.name == name && of_client(method)).copied()
}

/// The name of the method of a path, if it may be called many in a message.
pub fn batched_method(path: &str) -> Option<&'static str> {
    let (_, name) = path.rsplit_once('/')?;
    method_of_clients(name).map(|method| method.name)
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::wire::FILE_DESCRIPTOR_SET;

    #[test]
    fn every_method_of_the_protocol_has_its_roles() {
        let files = prost_types::FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
        let services = files.file.iter().flat_map(|file| &file.service);
        let mut described: Vec<&str> =
            services.flat_map(|service| &service.method).map(|method| method.name()).collect();
        let mut known: Vec<&str> = METHODS.iter().map(|method| method.name).collect();
        described.sort_unstable();
        known.sort_unstable();
        assert_eq!(known, described);
    }

    #[test]
    fn unary_methods_are_those_that_the_protocol_describes_so() {
        let files = prost_types::FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
        for method in files.file.iter().flat_map(|file| &file.service).flat_map(|service| &service.method) {
            let known = METHODS.iter().find(|known| known.name == method.name()).unwrap();
            assert_eq!(known.is_unary(), !method.server_streaming(), "{}", method.name());
            assert!(known.is_one_message() && !method.client_streaming(), "{}", method.name());
            let batched = batched_method(&format!("/TaskHubSidecarService/{}", method.name()));
            assert!(batched.is_none() || known.is_unary(), "{}", method.name());
        }
    }
}
