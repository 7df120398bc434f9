//! `steadfast hub`: the hubs of a data folder that no server uses.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use steadfast_core::Result;
use steadfast_grpc::HubName;
use steadfast_store_sled::{SledOptions, SledStore};

use super::print;
use crate::hubs::{DataFolder, FolderError};
use crate::settings::DATA_DIR;

/// Works on the hubs of a data folder. No server may be using it; a server that runs makes and deletes hubs by the rpcs
/// CreateTaskHub and DeleteTaskHub.
#[derive(Debug, Subcommand)]
pub(crate) enum HubCommand {
    /// Print the names of all hubs, a line each.
    List(Folder),
    /// Make a new hub.
    Create {
        /// Its name: letters, digits, `-` and `_`, at most 64.
        name: HubName,
        /// How many partitions it gets: as many cores can work for it. It cannot be changed later.
        #[arg(long, env = "STEADFAST_PARTITIONS", value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
        partitions: u16,
        #[command(flatten)]
        folder: Folder,
    },
    /// Delete a hub with everything in it.
    Delete {
        /// Its name.
        name: HubName,
        #[command(flatten)]
        folder: Folder,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Folder {
    /// The folder of all task hubs.
    #[arg(long, env = "STEADFAST_DATA_DIR", value_name = "DIR", default_value = DATA_DIR)]
    data_dir: PathBuf,
}

impl HubCommand {
    pub(crate) fn run(self) -> Result<()> {
        match self {
            Self::List(folder) => {
                for name in DataFolder::take_existing(&folder.data_dir)?.list()? {
                    print(name)?;
                }
                Ok(())
            }
            Self::Create { name, partitions, folder } => {
                let folder = DataFolder::take(&folder.data_dir)?;
                if folder.exists(&name) {
                    return Err(FolderError::Exists { hub: name }.into());
                }
                let options = SledOptions { partitions: Some(partitions), ..SledOptions::default() };
                Ok(SledStore::open(folder.hub(&name), options).map(drop)?)
            }
            Self::Delete { name, folder } => Ok(DataFolder::take_existing(&folder.data_dir)?.delete(&name)?),
        }
    }
}
