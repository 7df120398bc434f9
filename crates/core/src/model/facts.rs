//! Facts and deterministic helpers of the orchestration context.

use std::sync::Arc;

use smol_str::{SmolStr, format_smolstr};
use tracing::Level;
use uuid::Uuid;

use super::context::OrchestrationContext;
use super::converter::Converter;
use crate::event::{ParentInstance, Tags, TraceContext};
use crate::ids::{ExecutionId, InstanceId};
use crate::time::Timestamp;

/// Namespace of the UUIDs that [`OrchestrationContext::new_uuid`] makes, the one that the .NET SDK uses.
const UUID_NAMESPACE: Uuid = Uuid::from_u128(0x9e95_2958_5e33_4daf_827f_2fa1_2937_b875);

impl OrchestrationContext {
    /// The time at which the current turn began: the same at every replay, and never going back.
    pub fn now(&self) -> Timestamp {
        self.state.borrow().now
    }

    /// A UUID that is the same at every replay (version 5, of the instance, its generation, the time and a counter).
    pub fn new_uuid(&self) -> Uuid {
        let mut state = self.state.borrow_mut();
        let counter = state.uuids;
        state.uuids += 1;
        // The .NET SDK's recipe prints the time with seven fractional digits. It has no generation; but the counter
        // begins anew with each, and two generations may begin at the same time.
        let time = state.now.to_string();
        let generation = match state.started.generation {
            0 => SmolStr::default(),
            generation => format_smolstr!(":{generation}"),
        };
        let name =
            format_smolstr!("{}{generation}_{}0Z_{counter}", state.instance, time.trim_end_matches('Z'));
        Uuid::new_v5(&UUID_NAMESPACE, name.as_bytes())
    }

    /// A random number that is the same at every replay: SplitMix64 seeded with the execution's id.
    pub fn random(&self) -> u64 {
        let mut state = self.state.borrow_mut();
        state.randoms = state.randoms.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let (high, low) = state.started.root_execution().uuid().as_u64_pair();
        let mut mixed = high ^ low.rotate_left(32) ^ state.randoms;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Writes a log line, except while replaying.
    pub fn log(&self, level: Level, message: &str) {
        let state = self.state.borrow();
        if state.replaying {
            return;
        }
        let (instance, name) = (&state.instance, &state.started.name);
        match level {
            Level::ERROR => {
                tracing::error!(target: "steadfast::orchestration", %instance, %name, "{message}")
            }
            Level::WARN => tracing::warn!(target: "steadfast::orchestration", %instance, %name, "{message}"),
            Level::INFO => tracing::info!(target: "steadfast::orchestration", %instance, %name, "{message}"),
            Level::DEBUG => {
                tracing::debug!(target: "steadfast::orchestration", %instance, %name, "{message}")
            }
            _ => tracing::trace!(target: "steadfast::orchestration", %instance, %name, "{message}"),
        }
    }

    /// Whether the code is being run again over what already happened. Must not influence what the code does.
    pub fn is_replaying(&self) -> bool {
        self.state.borrow().replaying
    }

    /// The instance's id.
    pub fn instance_id(&self) -> InstanceId {
        self.state.borrow().instance.clone()
    }

    /// The execution's id. After a rewind it is still that of the first attempt, so that code does the same with it at
    /// every replay.
    pub fn execution_id(&self) -> ExecutionId {
        self.state.borrow().started.root_execution()
    }

    /// The orchestration's name.
    pub fn name(&self) -> SmolStr {
        self.state.borrow().started.name.clone()
    }

    /// The instance's version, empty for none. It is part of the instance's identity and does not change while the
    /// execution lasts, whatever is registered meanwhile; so code may branch on it, see [`crate::compare_versions`].
    pub fn version(&self) -> SmolStr {
        self.state.borrow().started.version.clone()
    }

    /// The version of the worker that runs this turn ([`crate::VersionOptions::version`]), empty for none. The next turn, or
    /// a replay, may be run by another worker: so it is something to report, and must not influence what the code does.
    pub fn worker_version(&self) -> SmolStr {
        self.state.borrow().worker_version.clone()
    }

    /// The instance's tags.
    pub fn tags(&self) -> Tags {
        self.state.borrow().started.tags.clone()
    }

    pub(super) fn converter(&self) -> Converter {
        self.state.borrow().converter()
    }

    /// What middleware put in for this execution, by its type.
    pub fn property<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.state.borrow().properties.as_ref()?.get()
    }

    /// The trace context of this execution: what it causes elsewhere belongs below it. None when it is not traced.
    pub fn trace_context(&self) -> Option<TraceContext> {
        let state = self.state.borrow();
        state.started.trace.as_deref().map(|trace| trace.of_execution(state.started.execution))
    }

    /// Who awaits this orchestration, if anybody.
    pub fn parent(&self) -> Option<ParentInstance> {
        self.state.borrow().started.parent.clone()
    }

    /// How many executions of this instance came before this one by continue-as-new.
    pub fn generation(&self) -> u32 {
        self.state.borrow().started.generation
    }
}
