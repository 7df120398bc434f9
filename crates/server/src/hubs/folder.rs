//! The data folder: who uses it, which hubs are in it, and where each is.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use steadfast_grpc::HubName;

const HUBS: &str = "hubs";
const DELETED: &str = "deleted";
const LOCK: &str = "server.lock";

/// The data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FolderError {
    #[error(
        "the data folder {path:?} is in use by the steadfast process {process}; stop it, or use another --data-dir"
    )]
    InUse { path: PathBuf, process: String },
    #[error(
        "{path:?} is itself a task hub, made by a program with the library; move it to 'hubs/NAME' in a new data folder, and \
         it is served as hub NAME"
    )]
    IsHub { path: PathBuf },
    #[error("there is no data folder {path:?}; say with --data-dir where it is")]
    Missing { path: PathBuf },
    #[error("task hub '{hub}' exists already")]
    Exists { hub: HubName },
    #[error("there is no task hub '{hub}' in {path:?}")]
    NotFound { hub: HubName, path: PathBuf },
    #[error("{doing} {path:?} failed")]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
}

fn failed<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> FolderError + 'a {
    move |source| FolderError::Io { doing, path: path.to_owned(), source }
}

/// A data folder that this process alone uses.
#[derive(Debug)]
pub(crate) struct DataFolder {
    path: PathBuf,
    /// The lock lasts as long as the file is open.
    _lock: File,
}

impl DataFolder {
    /// Takes the folder for this process, and creates it if there is none. What was being deleted when a process died is
    /// removed.
    pub(crate) fn take(path: &Path) -> Result<Self, FolderError> {
        // A hub that the library made has its databases here.
        if path.join("log").is_dir() && path.join("data").is_dir() {
            return Err(FolderError::IsHub { path: path.to_owned() });
        }
        fs::create_dir_all(path.join(HUBS)).map_err(failed("creating", path))?;
        let lock = lock(path)?;
        let folder = Self { path: path.to_owned(), _lock: lock };
        let deleted = folder.path.join(DELETED);
        match fs::remove_dir_all(&deleted) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("removing", &deleted)(error)),
            _ => Ok(folder),
        }
    }

    /// Takes a folder that exists.
    pub(crate) fn take_existing(path: &Path) -> Result<Self, FolderError> {
        if path.join(HUBS).is_dir() {
            Self::take(path)
        } else {
            Err(FolderError::Missing { path: path.to_owned() })
        }
    }

    pub(crate) fn hub(&self, hub: &HubName) -> PathBuf {
        self.path.join(HUBS).join(hub.as_str())
    }

    pub(crate) fn exists(&self, hub: &HubName) -> bool {
        self.hub(hub).is_dir()
    }

    /// The hubs that there are, by name.
    pub(crate) fn list(&self) -> Result<Vec<HubName>, FolderError> {
        let hubs = self.path.join(HUBS);
        let mut names = Vec::new();
        for entry in fs::read_dir(&hubs).map_err(failed("listing", &hubs))? {
            let name = entry.map_err(failed("listing", &hubs))?.file_name();
            // Whatever else somebody put there is no hub.
            names.extend(name.to_str().and_then(|name| name.parse::<HubName>().ok()));
        }
        names.sort();
        Ok(names)
    }

    /// Deletes a hub that is not open: it is gone at once, and its files soon after, or at the next start.
    pub(crate) fn delete(&self, hub: &HubName) -> Result<(), FolderError> {
        let (from, deleted) = (self.hub(hub), self.path.join(DELETED));
        if !from.is_dir() {
            return Err(FolderError::NotFound { hub: hub.clone(), path: self.path.clone() });
        }
        fs::create_dir_all(&deleted).map_err(failed("creating", &deleted))?;
        // One of that name may have been deleted before, and its files still be there.
        let number = getrandom::u64().map_err(|error| failed("moving", &from)(error.into()))?;
        let to = deleted.join(format!("{hub}-{number:016x}"));
        fs::rename(&from, &to).map_err(failed("moving", &from))?;
        sync(&self.path.join(HUBS))?;
        sync(&deleted)?;
        fs::remove_dir_all(&to).map_err(failed("removing", &to))
    }
}

/// Makes it durable which names are in a folder.
fn sync(path: &Path) -> Result<(), FolderError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(failed("synchronising", path))
}

fn lock(folder: &Path) -> Result<File, FolderError> {
    let path = folder.join(LOCK);
    let opened = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
    let mut file = opened.map_err(failed("opening", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut process = String::new();
            // Who has it is said as far as it is known.
            let _ = file.read_to_string(&mut process);
            let process = process.trim().to_owned();
            return Err(FolderError::InUse { path: folder.to_owned(), process });
        }
        Err(TryLockError::Error(error)) => return Err(failed("locking", &path)(error)),
    }
    let written =
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(failed("writing", &path))?;
    Ok(file)
}
