//! What a disk holds after a loss of power, worked out from a journal of everything that was done to files.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::random::Random;

/// The variables that tell `disk.c` where to keep the journal and below which folder files are watched.
pub(crate) const JOURNAL: &str = "STEADFAST_POWER_JOURNAL";
pub(crate) const FOLDER: &str = "STEADFAST_POWER_FOLDER";

/// The unit in which a write may reach the disk in part.
const PAGE: usize = 4096;

/// Compiles `disk.c` (with what Rust itself calls to link) into a library to be preloaded.
pub(crate) fn library(folder: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/power/disk.c");
    let library = folder.join("disk.so");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).args(["-ldl", "-lpthread"]);
    assert!(compiler.status().expect("cc is there: Rust links with it").success(), "cc failed");
    library
}

/// What becomes of writes that were not synchronised when the power went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// None of them is left.
    All,
    /// Those within the length that the file had are left: the device keeps what it was given, and the file system had not yet
    /// noted that the file became longer.
    Growth,
    /// Each is left or lost.
    Writes,
    /// Each page of each is left or lost.
    Pages,
}

pub(crate) const LOSSES: [Loss; 4] = [Loss::All, Loss::Growth, Loss::Writes, Loss::Pages];

enum Event {
    Write { offset: usize, bytes: Range<usize> },
    Length(usize),
    SyncBegins(u64),
    SyncEnds(u64),
}

struct Entry {
    file: u64,
    event: Event,
}

pub(crate) struct Journal {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    names: BTreeMap<u64, String>,
}

impl Journal {
    pub(crate) fn read(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap();
        let (mut entries, mut names, mut at) = (Vec::new(), BTreeMap::new(), 0);
        // The last entry may be incomplete.
        while let Some(head) = bytes.get(at..at + 32) {
            let number = |nth: usize| u64::from_ne_bytes(head[nth * 8..][..8].try_into().unwrap());
            let (kind, file, offset, length) = (number(0), number(1), number(2), number(3) as usize);
            let stored = at + 32..at + 32 + if kind <= 1 { length } else { 0 };
            let Some(content) = bytes.get(stored.clone()) else { break };
            at = stored.end;
            let event = match kind {
                0 => {
                    let name = String::from_utf8(content.to_vec()).unwrap();
                    names.insert(file, name.trim_start_matches('/').to_owned());
                    continue;
                }
                1 => Event::Write { offset: offset as usize, bytes: stored },
                2 => Event::Length(length),
                3 => Event::SyncBegins(offset),
                _ => Event::SyncEnds(offset),
            };
            entries.push(Entry { file, event });
        }
        Self { bytes, entries, names }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// What was written last to a file, as far as the process got before `end`.
    pub(crate) fn last_write(&self, name: &str, end: usize) -> Option<&[u8]> {
        self.entries[..end].iter().rev().find_map(|entry| match &entry.event {
            Event::Write { bytes, .. } if self.names[&entry.file] == name => Some(&self.bytes[bytes.clone()]),
            _ => None,
        })
    }

    /// Where the last synchronisation of a file ends whose name begins like this.
    pub(crate) fn last_sync(&self, name: &str) -> Option<usize> {
        let is_it = |entry: &Entry| {
            matches!(entry.event, Event::SyncEnds(_)) && self.names[&entry.file].starts_with(name)
        };
        self.entries.iter().rposition(is_it)
    }

    /// How many entries there are until the process, which has opened its files, first says how far it got.
    pub(crate) fn opened(&self) -> usize {
        let says = |entry: &Entry| self.names[&entry.file] == crate::work::PROGRESS;
        self.entries.iter().position(says).unwrap_or(self.entries.len())
    }

    /// The most that was written to a file and not synchronised, from its first synchronisation on: until then it is being opened.
    pub(crate) fn most_unsynced(&self, name: &str) -> usize {
        let of_it = self.entries.iter().filter(|entry| self.names[&entry.file] == name);
        let work = of_it.skip_while(|entry| !matches!(entry.event, Event::SyncBegins(_)));
        let (mut most, mut unsynced, mut covered) = (0, 0, BTreeMap::new());
        for entry in work {
            match &entry.event {
                Event::Write { bytes, .. } => unsynced += bytes.len(),
                // It covers what was written until now, once it has ended.
                Event::SyncBegins(sync) => {
                    covered.insert(*sync, unsynced);
                }
                Event::SyncEnds(sync) => {
                    let gone = covered.remove(sync).unwrap_or(0);
                    unsynced -= gone;
                    // Another one that is under way covers that much less.
                    covered.values_mut().for_each(|others| *others = others.saturating_sub(gone));
                }
                Event::Length(_) => {}
            }
            most = most.max(unsynced);
        }
        most
    }

    /// Writes to `to` what is left of the files in `from` (their state before the journal) when the power goes before entry `end`.
    pub(crate) fn lose_power(&self, end: usize, loss: Loss, random: &mut Random, from: &Path, to: &Path) {
        for (file, name) in &self.names {
            let Ok(mut content) = fs::read(from.join(name)) else { continue };
            let durable = self.durable(*file, end);
            let of_it = |range: Range<usize>| self.entries[range].iter().filter(|entry| entry.file == *file);
            for entry in of_it(0..durable) {
                match &entry.event {
                    Event::Write { offset, bytes } => put(&mut content, *offset, &self.bytes[bytes.clone()]),
                    Event::Length(length) => content.resize(*length, 0),
                    _ => {}
                }
            }
            let length = content.len();
            for entry in of_it(durable..end) {
                let Event::Write { offset, bytes } = &entry.event else { continue };
                let bytes = &self.bytes[bytes.clone()];
                match loss {
                    Loss::All => {}
                    Loss::Growth => {
                        let kept = bytes.len().min(length.saturating_sub(*offset));
                        put(&mut content, *offset, &bytes[..kept]);
                    }
                    Loss::Writes if random.below(2) == 0 => put(&mut content, *offset, bytes),
                    Loss::Writes => {}
                    Loss::Pages => {
                        let mut at = 0;
                        while at < bytes.len() {
                            let next = (at + PAGE - (offset + at) % PAGE).min(bytes.len());
                            if random.below(2) == 0 {
                                put(&mut content, offset + at, &bytes[at..next]);
                            }
                            at = next;
                        }
                    }
                }
            }
            fs::write(to.join(name), content).unwrap();
        }
    }

    /// Up to which entry everything done to a file is durable when the power goes before entry `end`.
    fn durable(&self, file: u64, end: usize) -> usize {
        let of_it = |entry: &&Entry| entry.file == file;
        // They are numbered as they begin; one that began before may end later.
        let ended = self.entries[..end].iter().filter(of_it).filter_map(|entry| match entry.event {
            Event::SyncEnds(sync) => Some(sync),
            _ => None,
        });
        let ended = ended.max();
        let begins = |entry: &Entry| matches!(entry.event, Event::SyncBegins(sync) if Some(sync) == ended);
        self.entries[..end].iter().rposition(begins).unwrap_or(0)
    }
}

fn put(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}
