//! The power goes at any moment: what was durable is there afterwards, whatever becomes of the rest.
//!
//! A process works on a store while `disk.c` keeps a journal of what it does to the files. From the journal it is known what a
//! disk may hold at any moment, since only a synchronisation is a promise.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod disk;
mod random;
mod work;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use self::disk::{Journal, LOSSES, Loss};
use self::random::Random;
use self::work::{PROGRESS, Progress, ROUNDS};

/// How often the power goes, and then again while the store is opened: that often, at several moments each.
const LOSSES_BEFORE_OPENING: u64 = 2;
const LOSSES_WHILE_OPENING: u64 = 2;

/// sled's segments. What has been written and not synchronised must be less, see `src/database.rs`.
const SEGMENT_BYTES: usize = 4 << 20;

/// How often the power goes, unless this variable says otherwise.
const LOSSES_OF_POWER: u64 = 24;
const MORE: &str = "STEADFAST_POWER_LOSSES";

/// Tells the process how many rounds it shall do.
const ROUNDS_ASKED: &str = "STEADFAST_POWER_ROUNDS";

/// Works until all rounds are done.
#[test]
fn child_works() {
    let Some(folder) = std::env::var_os(disk::FOLDER) else { return };
    let rounds = std::env::var(ROUNDS_ASKED).unwrap().parse().unwrap();
    work::work(&work::open(Path::new(&folder)).unwrap(), Path::new(&folder), rounds);
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// A hub, a copy of what it was when the journal began, and what is left of it when the power goes.
struct Hub {
    hub: PathBuf,
    before: PathBuf,
    after: PathBuf,
    journal: Journal,
}

impl Hub {
    /// Works on a hub for so many rounds, after which what it was is in `before`.
    fn work(folder: &Path, library: &Path, progress: Progress, rounds: u64) -> Self {
        let (hub, before, after) = (folder.join("hub"), folder.join("before"), folder.join("after"));
        fs::write(hub.join(PROGRESS), progress.to_bytes()).unwrap();
        copy(&hub, &before);
        let journal = folder.join("journal");
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_works"])
            .env(ROUNDS_ASKED, rounds.to_string())
            .env(disk::FOLDER, &hub)
            .env(disk::JOURNAL, &journal)
            .env("LD_PRELOAD", library)
            .status();
        assert!(child.unwrap().success());
        Self { hub, before, after, journal: Journal::read(&journal) }
    }

    /// Takes the power away before entry `end` of the journal. Says how far the process had got.
    fn lose_power(&self, end: usize, loss: Loss, random: &mut Random) -> Progress {
        // The files that are not in the journal are written while the store is opened.
        let opened = self.journal.last_sync("data/snap").is_some_and(|synced| synced < end);
        copy(if opened { &self.hub } else { &self.before }, &self.after);
        self.journal.lose_power(end, loss, random, &self.before, &self.after);
        let progress = self.journal.last_write(PROGRESS, end).map(Progress::parse);
        progress.unwrap_or_else(|| Progress::parse(&fs::read(self.before.join(PROGRESS)).unwrap()))
    }

    fn check(&self, progress: Progress) -> Result<(), String> {
        let store = work::open(&self.after).map_err(|error| error.to_string())?;
        work::check(&store, progress)
    }
}

#[test]
fn what_was_durable_survives_a_loss_of_power() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().canonicalize().unwrap();
    let library = disk::library(&folder);
    drop(work::open(&folder.join("hub")).unwrap());
    let hub = Hub::work(&folder, &library, Progress::default(), ROUNDS);
    let losses = std::env::var(MORE).map_or(LOSSES_OF_POWER, |losses| losses.parse().unwrap());
    let mut random = Random(1);
    let mut failures = Vec::new();
    for nth in 0..losses {
        let end = random.below(hub.journal.len() as u64) as usize;
        let loss = LOSSES[nth as usize % LOSSES.len()];
        let progress = hub.lose_power(end, loss, &mut random);
        if let Err(problem) = hub.check(progress) {
            failures.push(format!("{loss:?} at {end} of {}, {progress:?}: {problem}", hub.journal.len()));
        }
    }
    assert!(failures.is_empty(), "{} of {losses}: {failures:#?}", failures.len());
    for name in ["data/db", "log/db"] {
        let most = hub.journal.most_unsynced(name);
        assert!(most < SEGMENT_BYTES, "{name}: {most} bytes between two synchronisations");
    }
    for nth in 0..LOSSES_BEFORE_OPENING {
        let end = random.below(hub.journal.len() as u64) as usize;
        let progress = hub.lose_power(end, LOSSES[nth as usize % LOSSES.len()], &mut random);
        let again = folder.join("again");
        copy(&hub.after, &again.join("hub"));
        let hub = Hub::work(&again, &library, progress, 1);
        for loss in (0..LOSSES_WHILE_OPENING).flat_map(|_| LOSSES) {
            let end = random.below(hub.journal.opened() as u64) as usize;
            let progress = hub.lose_power(end, loss, &mut random);
            if let Err(problem) = hub.check(progress) {
                failures.push(format!(
                    "{loss:?} again at {end} of {}, {progress:?}: {problem}",
                    hub.journal.opened()
                ));
            }
        }
        fs::remove_dir_all(again).unwrap();
    }
    assert!(failures.is_empty(), "while the store is opened: {failures:#?}");
}
