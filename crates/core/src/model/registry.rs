//! The registry: which code runs under which name and version.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;

use foldhash::fast::FixedState;
use serde::Serialize;
use serde::de::DeserializeOwned;
use smol_str::SmolStr;

use super::activity::ActivityContext;
use super::context::OrchestrationContext;
use super::converter::Converter;
use super::entity::EntityFn;
use super::handle::{ActivityName, OrchestrationName};
use super::middleware::Middleware;
use crate::error::Error;
use crate::event::ExecutionStarted;
use crate::failure::{FailureDetails, kinds};
use crate::payload::Payload;
use crate::version::{VersionFailure, VersionOptions, compare_versions};

/// The outcome of user code in the form that a history keeps.
pub(crate) type Outcome = std::result::Result<Payload, FailureDetails>;
/// An orchestration under way; it stays on its partition's thread.
pub type LocalFuture = Pin<Box<dyn Future<Output = Outcome>>>;
/// An activity under way.
pub type SendFuture = Pin<Box<dyn Future<Output = Outcome> + Send>>;
/// An orchestration's code with its types erased.
pub type OrchestrationFn = Arc<dyn Fn(OrchestrationContext, &Payload) -> LocalFuture + Send + Sync>;
/// An activity's code with its types erased.
pub type ActivityFn = Arc<dyn Fn(ActivityContext, &Payload) -> SendFuture + Send + Sync>;

/// A name and version is taken already.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} '{name}' version '{version}' is registered twice; give one of them another name or version")]
pub struct DuplicateRegistration {
    /// "orchestration" or "activity".
    pub what: &'static str,
    /// The name.
    pub name: SmolStr,
    /// The version.
    pub version: SmolStr,
}

/// Which code runs under which name and version, and which versions of instances it takes.
///
/// Code that is registered without a version runs for every version that has no registration of its own under that
/// name. So an orchestration can be registered once and look at [`OrchestrationContext::version`], or once for each
/// version, or both.
#[derive(Default, Clone)]
pub struct Registry {
    orchestrations: ByVersion<OrchestrationFn>,
    activities: ByVersion<ActivityFn>,
    versions: VersionOptions,
    entities: HashMap<SmolStr, EntityFn, FixedState>,
    other_entities: Option<EntityFn>,
    /// Entities that may block their thread.
    blocking: HashSet<SmolStr, FixedState>,
    nondeterminism: OnNonDeterminism,
    pub(super) converter: Converter,
    pub(crate) middleware: Middleware,
}

/// What becomes of an instance when replay shows that its code disagrees with its history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnNonDeterminism {
    /// It fails, which tells whoever awaits it.
    #[default]
    Fail,
    /// It waits, unchanged, until the hub is started with code that agrees: a deployment that is taken back loses
    /// nothing. It can be terminated meanwhile.
    Park,
}

/// What a [`Registry`] holds: see [`Registry::registered`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registered {
    /// The orchestrations, with their versions.
    pub orchestrations: Vec<(SmolStr, Vec<SmolStr>)>,
    /// The activities, with their versions.
    pub activities: Vec<(SmolStr, Vec<SmolStr>)>,
    /// The entities.
    pub entities: Vec<SmolStr>,
}

/// Something that can be put into a [`Registry`]: what the attributes make, and what [`orchestration`] and
/// [`activity`] return.
pub trait Register {
    /// Puts it in.
    ///
    /// # Errors
    /// When its name and version is taken.
    fn register(self, registry: &mut Registry) -> Result<(), DuplicateRegistration>;
}

impl Registry {
    /// Registers an orchestration's code.
    ///
    /// # Errors
    /// When the name and version is taken.
    pub fn add_orchestration(
        &mut self,
        name: SmolStr,
        version: SmolStr,
        code: OrchestrationFn,
    ) -> Result<(), DuplicateRegistration> {
        add("orchestration", &mut self.orchestrations, name, version, code)
    }

    /// Registers an activity's code.
    ///
    /// # Errors
    /// When the name and version is taken.
    pub fn add_activity(
        &mut self,
        name: SmolStr,
        version: SmolStr,
        code: ActivityFn,
    ) -> Result<(), DuplicateRegistration> {
        add("activity", &mut self.activities, name, version, code)
    }

    /// Registers an entity's code under a name in lower case.
    ///
    /// # Errors
    /// When the name is taken.
    pub fn add_entity(&mut self, name: SmolStr, code: EntityFn) -> Result<(), DuplicateRegistration> {
        if self.entities.contains_key(&name) {
            return Err(DuplicateRegistration { what: "entity", name, version: SmolStr::default() });
        }
        self.entities.insert(name, code);
        Ok(())
    }

    /// Says that the code of an entity may block its thread, so that it is run where that harms nobody.
    pub fn set_entity_blocking(&mut self, name: SmolStr) {
        self.blocking.insert(name);
    }

    /// Whether the code of an entity, whose name is in lower case, may block its thread.
    pub fn is_entity_blocking(&self, name: &str) -> bool {
        !self.blocking.is_empty() && self.blocking.contains(name)
    }

    /// The code that runs the entities of that name, which is in lower case.
    pub fn find_entity(&self, name: &str) -> Option<&EntityFn> {
        self.entities.get(name).or(self.other_entities.as_ref())
    }

    /// Whether entities of that name, which is in lower case, are registered here.
    pub fn has_entity(&self, name: &str) -> bool {
        self.entities.contains_key(name)
    }

    /// Replaces the data converter.
    pub fn set_converter(&mut self, converter: Converter) {
        self.converter = converter;
    }

    /// How values become payloads.
    pub fn converter(&self) -> &Converter {
        &self.converter
    }

    /// Sets which versions of instances are taken.
    pub fn set_versions(&mut self, versions: VersionOptions) {
        self.versions = versions;
    }

    /// Which versions of instances are taken.
    pub fn versions(&self) -> &VersionOptions {
        &self.versions
    }

    /// Sets what becomes of instances whose code disagrees with their history.
    pub fn set_on_nondeterminism(&mut self, nondeterminism: OnNonDeterminism) {
        self.nondeterminism = nondeterminism;
    }

    /// What becomes of instances whose code disagrees with their history.
    pub fn on_nondeterminism(&self) -> OnNonDeterminism {
        self.nondeterminism
    }

    /// The orchestration of that name and version, or else the one without version; an empty version means the one
    /// without version, or else the greatest one.
    pub fn find_orchestration(&self, name: &str, version: &str) -> Option<&OrchestrationFn> {
        find(&self.orchestrations, name, version)
    }

    /// The activity of that name and version, or else the one without version; an empty version means the one without
    /// version, or else the greatest one.
    pub fn find_activity(&self, name: &str, version: &str) -> Option<&ActivityFn> {
        find(&self.activities, name, version)
    }

    /// The activity for a call by an instance of version `inherited`. A call that names a version gets that of
    /// [`Registry::find_activity`]. One that names none gets the activity of the instance's version, or else the one
    /// without version, or else the greatest one.
    pub fn find_activity_for(&self, name: &str, version: &str, inherited: &str) -> Option<&ActivityFn> {
        let versions = self.activities.get(name)?;
        let inherited = if version.is_empty() { versions.get(inherited) } else { None };
        inherited.or_else(|| find_in(versions, version))
    }

    /// The version under which an instance begins that is to run `name`:
    ///
    /// 1. the version asked for, whether or not it is registered;
    /// 2. else that of its parent, if `name` is registered under it or without version;
    /// 3. else [`VersionOptions::default_version`], on the same condition;
    /// 4. else the greatest that is registered, which may be none.
    pub fn resolve_version(&self, name: &str, asked: &str, inherited: &str) -> SmolStr {
        if !asked.is_empty() {
            return asked.into();
        }
        let Some(versions) = self.orchestrations.get(name) else { return inherited.into() };
        let runs = |version: &&str| {
            !version.is_empty() && (versions.contains_key(*version) || versions.contains_key(""))
        };
        let preferred = [inherited, &self.versions.default_version].into_iter().find(runs);
        let greatest = || greatest(versions).map_or_else(SmolStr::default, |(version, _)| version.clone());
        preferred.map_or_else(greatest, SmolStr::from)
    }

    /// The version under which a start begins.
    pub fn version_of(&self, started: &ExecutionStarted) -> SmolStr {
        match (started.version_inherited, &started.version) {
            (false, version) if !version.is_empty() => version.clone(),
            (true, inherited) => self.resolve_version(&started.name, "", inherited),
            (false, _) => self.resolve_version(&started.name, "", ""),
        }
    }

    /// Whether the code of an execution is here, and its version one that is taken or that fails here.
    pub fn runs(&self, started: &ExecutionStarted) -> bool {
        let version = self.version_of(started);
        let is_taken = || {
            self.versions.failure_strategy == VersionFailure::Fail || self.versions.check(&version).is_ok()
        };
        self.find_orchestration(&started.name, &version).is_some() && is_taken()
    }

    /// Sets what runs entities that are not registered here.
    pub fn set_other_entities(&mut self, code: EntityFn) {
        self.other_entities = Some(code);
    }

    /// What is registered, by kind: the names, sorted, with their versions; what has no version has the empty one.
    pub fn registered(&self) -> Registered {
        fn listed<F>(map: &ByVersion<F>) -> Vec<(SmolStr, Vec<SmolStr>)> {
            let versions = |by_version: &BTreeMap<SmolStr, F>| by_version.keys().cloned().collect();
            let mut names: Vec<_> = map.iter().map(|(name, by)| (name.clone(), versions(by))).collect();
            names.sort();
            names
        }
        let mut entities: Vec<_> = self.entities.keys().cloned().collect();
        entities.sort();
        Registered {
            orchestrations: listed(&self.orchestrations),
            activities: listed(&self.activities),
            entities,
        }
    }

    /// The names of the registered orchestrations, sorted.
    pub fn orchestration_names(&self) -> Vec<SmolStr> {
        let mut names: Vec<_> = self.orchestrations.keys().cloned().collect();
        names.sort();
        names
    }
}

type ByVersion<F> = HashMap<SmolStr, BTreeMap<SmolStr, F>, FixedState>;

fn add<F>(
    what: &'static str,
    map: &mut ByVersion<F>,
    name: SmolStr,
    version: SmolStr,
    code: F,
) -> Result<(), DuplicateRegistration> {
    let versions = map.entry(name.clone()).or_default();
    if versions.contains_key(&version) {
        return Err(DuplicateRegistration { what, name, version });
    }
    versions.insert(version, code);
    Ok(())
}

fn find<'a, F>(map: &'a ByVersion<F>, name: &str, version: &str) -> Option<&'a F> {
    find_in(map.get(name)?, version)
}

fn find_in<'a, F>(versions: &'a BTreeMap<SmolStr, F>, version: &str) -> Option<&'a F> {
    match versions.get(version) {
        None if version.is_empty() => greatest(versions).map(|(_, code)| code),
        None => versions.get(""),
        found => found,
    }
}

fn greatest<F>(versions: &BTreeMap<SmolStr, F>) -> Option<(&SmolStr, &F)> {
    // Versions that compare as equal, such as 1 and 1.0, are told apart by their text.
    versions
        .iter()
        .max_by(|(left, _), (right, _)| compare_versions(left, right).then_with(|| left.cmp(right)))
}

macro_rules! definition {
    ($(#[$doc:meta])* $name:ident, $handle:ident, $code:ident, $add:ident) => {
        $(#[$doc])*
        pub struct $name<I, O> {
            name: SmolStr,
            version: SmolStr,
            code: $code,
            types: PhantomData<fn(I) -> O>,
        }

        impl<I, O> $name<I, O> {
            /// The same definition under a version.
            pub fn version(self, version: impl Into<SmolStr>) -> Self {
                Self { version: version.into(), ..self }
            }

            /// A handle to call it by.
            pub fn handle(&self) -> $handle<I, O> {
                $handle::dynamic(self.name.clone()).version(self.version.clone())
            }
        }

        impl<I, O> Register for $name<I, O> {
            fn register(self, registry: &mut Registry) -> Result<(), DuplicateRegistration> {
                registry.$add(self.name, self.version, self.code)
            }
        }
    };
}

definition! {
    /// An orchestration ready to be registered, made by [`orchestration`].
    OrchestrationDefinition, OrchestrationName, OrchestrationFn, add_orchestration
}
definition! {
    /// An activity ready to be registered, made by [`activity`].
    ActivityDefinition, ActivityName, ActivityFn, add_activity
}

/// Makes an orchestration of a name and a function or closure.
///
/// ```
/// use steadfast_core::model::{OrchestrationContext, Register, Registry, orchestration};
/// let double = orchestration("double", |_ctx: OrchestrationContext, n: u32| async move {
///     Ok::<_, steadfast_core::Error>(n * 2)
/// });
/// let mut registry = Registry::default();
/// double.register(&mut registry).unwrap();
/// assert!(registry.find_orchestration("double", "").is_some());
/// ```
pub fn orchestration<I, O, E, F, Fut>(name: impl Into<SmolStr>, code: F) -> OrchestrationDefinition<I, O>
where
    F: Fn(OrchestrationContext, I) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = std::result::Result<O, E>> + 'static,
    I: DeserializeOwned + 'static,
    O: Serialize + 'static,
    E: Into<Error> + 'static,
{
    let code: OrchestrationFn = Arc::new(move |context, input| {
        let converter = context.converter();
        match decode_input::<I>(&converter, input) {
            Ok(input) => {
                let future = code(context, input);
                Box::pin(async move { encode_outcome(&converter, future.await) })
            }
            Err(failure) => Box::pin(std::future::ready(Err(failure))),
        }
    });
    OrchestrationDefinition { name: name.into(), version: SmolStr::default(), code, types: PhantomData }
}

/// Makes an activity of a name and a function or closure.
///
/// ```
/// use steadfast_core::model::{ActivityContext, activity};
/// let greet = activity("greet", |_ctx: ActivityContext, city: String| async move {
///     Ok::<_, steadfast_core::Error>(format!("Hello, {city}!"))
/// });
/// let handle = greet.handle();
/// ```
pub fn activity<I, O, E, F, Fut>(name: impl Into<SmolStr>, code: F) -> ActivityDefinition<I, O>
where
    F: Fn(ActivityContext, I) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = std::result::Result<O, E>> + Send + 'static,
    I: DeserializeOwned + 'static,
    O: Serialize + 'static,
    E: Into<Error> + 'static,
{
    let code: ActivityFn = Arc::new(move |context, input| {
        let converter = context.converter();
        match decode_input::<I>(&converter, input) {
            Ok(input) => {
                let future = code(context, input);
                Box::pin(async move { encode_outcome(&converter, future.await) })
            }
            Err(failure) => Box::pin(std::future::ready(Err(failure))),
        }
    });
    ActivityDefinition { name: name.into(), version: SmolStr::default(), code, types: PhantomData }
}

pub(super) fn decode_input<I: DeserializeOwned>(
    converter: &Converter,
    input: &Payload,
) -> std::result::Result<I, FailureDetails> {
    converter.decode(input).map_err(|error| {
        let expected = std::any::type_name::<I>();
        FailureDetails::new(kinds::INVALID_PAYLOAD, format!("the input is not a {expected}: {error}"))
            .non_retriable()
    })
}

pub(super) fn encode_outcome<O: Serialize, E: Into<Error>>(
    converter: &Converter,
    outcome: std::result::Result<O, E>,
) -> Outcome {
    let output = outcome.map_err(|error| error.into().into_details())?;
    converter.encode(&output).map_err(|error| {
        FailureDetails::new(kinds::INVALID_PAYLOAD, format!("the result has no form as a payload: {error}"))
            .non_retriable()
    })
}
