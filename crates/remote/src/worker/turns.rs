//! The threads on which orchestrations run: their futures stay where they were made.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::sync::mpsc;
use std::thread;

use steadfast_core::InstanceId;

use super::sessions::Sessions;

type Job = Box<dyn FnOnce(&mut Sessions) + Send>;

/// Threads that take turns. An instance always has the same one. They end when this is dropped.
pub(super) struct Turns {
    threads: Vec<mpsc::Sender<Job>>,
}

impl Turns {
    /// So many threads, which keep so many sessions together.
    pub(super) fn start(count: usize, sessions: usize) -> io::Result<Self> {
        let sessions = sessions.div_ceil(count);
        let threads = (0..count).map(|nth| {
            let (sender, jobs) = mpsc::channel::<Job>();
            thread::Builder::new().name(format!("steadfast-turns-{nth}")).spawn(move || {
                // Sessions stay on the thread that made them.
                let mut sessions = Sessions::new(sessions);
                for job in jobs {
                    job(&mut sessions);
                }
            })?;
            Ok(sender)
        });
        Ok(Self { threads: threads.collect::<io::Result<_>>()? })
    }

    /// Runs `job` on the instance's thread. There are as many jobs as the worker has places, at most.
    pub(super) fn run(&self, instance: &InstanceId, job: impl FnOnce(&mut Sessions) + Send + 'static) {
        let mut hasher = DefaultHasher::new();
        instance.as_str().hash(&mut hasher);
        let count = self.threads.len() as u64;
        let nth = usize::try_from(hasher.finish() % count).unwrap_or_default();
        // A thread ends only with this.
        let _ = self.threads[nth].send(Box::new(job));
    }
}
