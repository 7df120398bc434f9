//! Synchronises the file of a database: when somebody waits for it, on their thread; when only so much was written, on a thread
//! of its own, so that more can be written meanwhile.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::database::SEGMENT_BYTES;
use crate::options::DataSync;

/// With so many bytes written since the last synchronisation began, the next one begins.
const WRITTEN_MAX: usize = UNSYNCED_MAX / 2;

/// With so many bytes not synchronised, writers wait for the synchronisation under way. Well below [`SEGMENT_BYTES`], for what is
/// written before this is noticed; the reason is with [`Database`](crate::database::Database).
const UNSYNCED_MAX: usize = SEGMENT_BYTES / 8 * 3;

/// The synchronisations of one file. After one has failed all others fail: what it should have saved may be lost.
pub(crate) struct Syncer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    file: File,
    data_sync: Arc<dyn DataSync>,
    state: Mutex<State>,
    /// One was asked for, or it is the end.
    wanted: Condvar,
    /// One that was under way has ended.
    ended: Condvar,
}

#[derive(Default)]
struct State {
    /// How much was written since the last synchronisation began.
    written: usize,
    /// How much the one covers that is under way on our thread.
    under_way: Option<usize>,
    /// How many of those have ended.
    ended: u64,
    /// How much those cover that somebody waits for.
    waited_for: usize,
    /// How the first one that failed did so.
    failure: Option<(io::ErrorKind, String)>,
    closed: bool,
}

impl Syncer {
    /// For a file that nobody else synchronises.
    pub(crate) fn start(file: File, data_sync: Arc<dyn DataSync>) -> io::Result<Self> {
        let state = Mutex::new(State::default());
        let shared =
            Arc::new(Shared { file, data_sync, state, wanted: Condvar::new(), ended: Condvar::new() });
        let thread = thread::Builder::new().name("steadfast-sync".to_owned()).spawn({
            let shared = shared.clone();
            move || shared.run()
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Takes note that so many bytes were written. Begins a synchronisation when it is time, and waits when there is too much that
    /// none has covered.
    pub(crate) fn note_written(&self, bytes: usize) -> io::Result<()> {
        let mut state = self.shared.state.lock();
        state.written += bytes;
        self.shared.ended.wait_while(&mut state, |state| {
            let covered = state.under_way.unwrap_or(0) + state.waited_for;
            covered > 0 && covered + state.written >= UNSYNCED_MAX
        });
        if state.under_way.is_none() && state.written >= WRITTEN_MAX {
            state.under_way = Some(std::mem::take(&mut state.written));
            self.shared.wanted.notify_one();
        }
        state.outcome()
    }

    /// Makes everything durable that was written before.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let mut state = self.shared.state.lock();
        let covered = std::mem::take(&mut state.written);
        state.waited_for += covered;
        MutexGuard::unlocked(&mut state, || self.shared.sync());
        state.waited_for -= covered;
        self.shared.ended.notify_all();
        // The operating system reports a failure once: perhaps to one on our thread. One that begins later does not matter.
        let ended = state.ended;
        self.shared.ended.wait_while(&mut state, |state| state.under_way.is_some() && state.ended == ended);
        state.outcome()
    }

    /// Whether one has failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.shared.state.lock().failure.is_some()
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.shared.state.lock().closed = true;
        self.shared.wanted.notify_one();
        if let Some(thread) = self.thread.take() {
            // It catches what panics.
            let _ = thread.join();
        }
    }
}

impl State {
    fn outcome(&self) -> io::Result<()> {
        match &self.failure {
            None => Ok(()),
            Some((kind, problem)) => Err(io::Error::new(*kind, problem.clone())),
        }
    }
}

impl Shared {
    fn run(&self) {
        let mut state = self.state.lock();
        loop {
            self.wanted.wait_while(&mut state, |state| state.under_way.is_none() && !state.closed);
            if state.under_way.is_none() {
                return;
            }
            MutexGuard::unlocked(&mut state, || self.sync());
            state.under_way = None;
            state.ended += 1;
            self.ended.notify_all();
        }
    }

    fn sync(&self) {
        self.grow_to_whole_segments();
        // A panic would leave writers waiting for ever.
        let outcome = catch_unwind(AssertUnwindSafe(|| self.data_sync.sync(&self.file)));
        let outcome = outcome.unwrap_or_else(|_| Err(io::Error::other("the synchronisation panicked")));
        if let Err(error) = outcome {
            let mut state = self.state.lock();
            state.failure.get_or_insert_with(|| (error.kind(), error.to_string()));
        }
    }

    /// Gives the file the length of whole segments. As long as a write makes the file longer, each synchronisation has
    /// to write the file's length, too, which takes a third of the time of a small one. The zeros at the end look
    /// to sled like the rest of a segment that nothing was written to yet. Only for speed, so errors don't matter:
    /// a full disk says so when something is really written.
    fn grow_to_whole_segments(&self) {
        // Asking for the metadata would make Linux give the next write a new time, which has to be written as well.
        let Ok(length) = (&self.file).seek(SeekFrom::End(0)) else { return };
        let whole = length.next_multiple_of(SEGMENT_BYTES as u64);
        if length < whole {
            // Unlike setting the length, this never shortens a file that has grown in the meantime.
            let _ = rustix::fs::fallocate(&self.file, rustix::fs::FallocateFlags::empty(), 0, whole);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    const PART: usize = 100 << 10;

    /// A disk that takes its time, and knows how much of what was written it has.
    #[derive(Default)]
    struct SlowDisk {
        written: AtomicUsize,
        durable: AtomicUsize,
    }

    impl DataSync for SlowDisk {
        fn sync(&self, _: &File) -> io::Result<()> {
            let written = self.written.load(Ordering::SeqCst);
            (0..100).for_each(|_| thread::yield_now());
            self.durable.fetch_max(written, Ordering::SeqCst);
            Ok(())
        }
    }

    fn start(data_sync: Arc<dyn DataSync>) -> Syncer {
        Syncer::start(tempfile::tempfile().unwrap(), data_sync).unwrap()
    }

    #[test]
    fn however_slow_the_disk_is_only_so_much_is_not_durable() {
        let disk = Arc::new(SlowDisk::default());
        let syncer = start(disk.clone());
        let write_all = || {
            for part in 1..=2000 {
                let written = disk.written.fetch_add(PART, Ordering::SeqCst) + PART;
                syncer.note_written(PART).unwrap();
                let unsynced = written - disk.durable.load(Ordering::SeqCst);
                assert!(unsynced < UNSYNCED_MAX + PART, "{unsynced} bytes after {part} parts");
                if part % 77 == 0 {
                    syncer.sync().unwrap();
                    assert_eq!(disk.durable.load(Ordering::SeqCst), written);
                }
            }
        };
        thread::scope(|scope| {
            let writer = scope.spawn(write_all);
            // Somebody else makes it durable, too, and does not wait for the writer's end.
            while !writer.is_finished() {
                let written = disk.written.load(Ordering::SeqCst);
                syncer.sync().unwrap();
                assert!(disk.durable.load(Ordering::SeqCst) >= written);
            }
        });
    }

    /// Waits in the midst of a synchronisation until it is told how that ends.
    struct Gate {
        entered: mpsc::Sender<()>,
        outcome: Mutex<mpsc::Receiver<io::Result<()>>>,
    }

    impl DataSync for Gate {
        fn sync(&self, _: &File) -> io::Result<()> {
            self.entered.send(()).unwrap();
            self.outcome.lock().recv().unwrap()
        }
    }

    #[test]
    fn more_is_written_while_a_synchronisation_is_under_way_and_its_failure_is_everybodys() {
        let ((entered, is_in), (end, outcome)) = (mpsc::channel(), mpsc::channel());
        let syncer = start(Arc::new(Gate { entered, outcome: Mutex::new(outcome) }));
        syncer.note_written(WRITTEN_MAX).unwrap();
        is_in.recv().unwrap();
        // It has begun and cannot end, and this returns.
        syncer.note_written(UNSYNCED_MAX - WRITTEN_MAX - 1).unwrap();
        assert!(!syncer.has_failed());
        end.send(Err(io::Error::other("scripted"))).unwrap();
        end.send(Ok(())).unwrap();
        // Whichever of the two was told, both know.
        assert_eq!(syncer.sync().unwrap_err().to_string(), "scripted");
        assert!(syncer.note_written(1).is_err() && syncer.has_failed());
    }

    #[test]
    fn a_synchronisation_that_panics_leaves_nobody_waiting() {
        struct Panics;
        impl DataSync for Panics {
            fn sync(&self, _: &File) -> io::Result<()> {
                panic!("scripted");
            }
        }
        let syncer = start(Arc::new(Panics));
        // Waits for the one before, or comes after it.
        while syncer.note_written(UNSYNCED_MAX).is_ok() {}
        assert!(syncer.sync().is_err());
    }
}
