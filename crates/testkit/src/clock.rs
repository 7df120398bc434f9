//! Virtual time for a hub: it stands still until a test moves it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use steadfast_core::Timestamp;
use steadfast_engine::Clock;

type Wake = Arc<dyn Fn() + Send + Sync>;

/// A clock for [`HubBuilder::clock`](steadfast_engine::HubBuilder::clock) that only moves when it is told to. Clones show
/// the same time, so a test hands one to the hub and keeps another.
///
/// ```
/// use std::time::Duration;
/// use steadfast_engine::Clock;
/// use steadfast_testkit::VirtualClock;
/// let clock = VirtualClock::default();
/// let before = clock.now();
/// clock.advance(Duration::from_secs(30 * 86_400));
/// assert_eq!(clock.now().since(before).as_secs(), 2_592_000);
/// ```
#[derive(Clone, Default)]
pub struct VirtualClock {
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    now: Timestamp,
    wakes: Vec<Wake>,
}

impl Default for Shared {
    fn default() -> Self {
        // Any moment would do; this one looks like a date.
        Self { now: Timestamp::from_micros(1_800_000_000_000_000), wakes: Vec::new() }
    }
}

impl VirtualClock {
    /// Lets time pass, and tells the hubs that have this clock.
    pub fn advance(&self, duration: Duration) {
        let wakes = {
            let mut shared = self.shared.lock();
            shared.now = shared.now.after(duration);
            shared.wakes.clone()
        };
        wakes.iter().for_each(|wake| wake());
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        self.shared.lock().now
    }

    fn on_jump(&self, wake: Box<dyn Fn() + Send + Sync>) -> bool {
        self.shared.lock().wakes.push(wake.into());
        true
    }
}
