//! The service's methods, as far as they differ before their message is read.

use super::access::Role::{self, Admin, Read, Worker, Write};
use crate::wire::extension::worker_link_server::SERVICE_NAME as EXTENSION_NAME;

/// How long a method may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// It ends by itself, soon.
    Short,
    /// It waits for something that may never happen.
    Wait,
    /// It waits in a stream, for work items.
    WorkItems,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Method {
    pub(super) name: &'static str,
    /// The roles of which the caller needs one. None: whoever is known may call it.
    pub(super) any_of: &'static [Role],
    pub(super) length: Length,
}

impl Method {
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
    method("StreamInstanceHistory", &[Read, Worker], Length::Short),
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
/// The one method of the extension.
pub(super) const WORK: &str = "Work";
const EXTENSION: Method = method(WORK, &[Worker], Length::WorkItems);

pub(super) const DELETE_TASK_HUB: &str = "DeleteTaskHub";

/// The method of a path such as `/TaskHubSidecarService/Hello`.
pub(super) fn method_of(path: &str) -> Option<Method> {
    let (service, name) = path.rsplit_once('/')?;
    if service.strip_prefix('/') == Some(EXTENSION_NAME) {
        return Some(EXTENSION).filter(|method| method.name == name);
    }
    METHODS.iter().find(|method| method.name == name).copied()
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
}
