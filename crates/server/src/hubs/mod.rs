//! The hubs of a data folder: a folder for each, and which of them are open.

mod folder;
mod open;

pub(crate) use folder::{DataFolder, FolderError};
pub(crate) use open::{HubSettings, OpenHubs};
