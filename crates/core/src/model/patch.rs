//! Patches: changes of an orchestration's code that instances under way can live with.

use std::collections::BTreeMap;

use smol_str::SmolStr;

use super::context::OrchestrationContext;

/// What an execution has decided about its patches.
#[derive(Debug, Default)]
pub(crate) struct Patches {
    /// What the code was told, by the patch's id.
    told: BTreeMap<SmolStr, bool>,
    /// Patches that the turn being replayed recorded.
    pub(crate) recorded: Vec<SmolStr>,
    /// Patches that were taken and that no event records yet.
    pub(crate) taken: Vec<SmolStr>,
    /// The code says that no execution without this patch is left, and this one is without.
    pub(crate) outdated: Option<SmolStr>,
}

impl Patches {
    fn is_taken(&mut self, id: &str, replaying: bool) -> bool {
        if let Some(told) = self.told.get(id) {
            return *told;
        }
        let id = SmolStr::new(id);
        let taken = !replaying || self.recorded.contains(&id);
        if taken && !replaying {
            self.taken.push(id.clone());
        }
        self.told.insert(id, taken);
        taken
    }
}

impl OrchestrationContext {
    /// Whether this execution takes a changed path, for changes of code with which instances under way must go on.
    ///
    /// True for executions that come to this point for the first time with the changed code; that is written into the
    /// history, so it stays true. False for those that were past this point before the change; it stays false
    /// for the rest of the execution. Each id is decided once in an execution, and continuing as new begins afresh.
    ///
    /// ```
    /// # use steadfast_core::model::{ActivityName, OrchestrationContext};
    /// # const CHECK: ActivityName<u32, bool> = ActivityName::new("check");
    /// # const SHIP: ActivityName<u32, ()> = ActivityName::new("ship");
    /// # type Result<T> = steadfast_core::Result<T>;
    /// async fn order(ctx: OrchestrationContext, number: u32) -> Result<()> {
    ///     // Added later. Orders that were already shipped at that time are not checked any more.
    ///     if ctx.patched("check-before-shipping") && !ctx.call(CHECK, number).await? {
    ///         return Ok(());
    ///     }
    ///     Ok(ctx.call(SHIP, number).await?)
    /// }
    /// ```
    ///
    /// A patch uses no action number. So when all executions without it have ended, the old path can be removed, and the
    /// call replaced by [`Self::deprecate_patch`] or dropped.
    pub fn patched(&self, id: &str) -> bool {
        let mut state = self.state.borrow_mut();
        let replaying = state.replaying;
        state.patches.is_taken(id, replaying)
    }

    /// Says that the old path of a patch is gone from the code. An execution that took it fails with a
    /// [`NON_DETERMINISM`](crate::failure::kinds::NON_DETERMINISM) failure that names the patch, instead of one about
    /// whatever happens to differ first.
    pub fn deprecate_patch(&self, id: &str) {
        let mut state = self.state.borrow_mut();
        let replaying = state.replaying;
        if !state.patches.is_taken(id, replaying) {
            state.patches.outdated.get_or_insert_with(|| SmolStr::new(id));
        }
    }
}
