//! Handles: how code names what it calls, with types.

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;
use smol_str::SmolStr;

/// Names an activity and its types. The attribute `#[activity]` makes one of a function; [`ActivityName`] is one
/// made by hand.
pub trait ActivityHandle {
    /// What it takes.
    type Input: Serialize + DeserializeOwned + 'static;
    /// What it returns.
    type Output: Serialize + DeserializeOwned + 'static;

    /// The name it is registered under.
    fn name(&self) -> SmolStr;

    /// The version asked for, empty for whichever is registered.
    fn version(&self) -> SmolStr {
        SmolStr::new_static("")
    }
}

/// Names an orchestration and its types. The attribute `#[orchestration]` makes one of a function;
/// [`OrchestrationName`] is one made by hand.
pub trait OrchestrationHandle {
    /// What it takes.
    type Input: Serialize + DeserializeOwned + 'static;
    /// What it returns.
    type Output: Serialize + DeserializeOwned + 'static;

    /// The name it is registered under.
    fn name(&self) -> SmolStr;

    /// The version asked for, empty for whichever is registered.
    fn version(&self) -> SmolStr {
        SmolStr::new_static("")
    }
}

macro_rules! handle_by_name {
    ($(#[$doc:meta])* $name:ident, $handle:ident) => {
        $(#[$doc])*
        pub struct $name<I, O> {
            name: SmolStr,
            version: SmolStr,
            types: PhantomData<fn(I) -> O>,
        }

        impl<I, O> $name<I, O> {
            /// A handle for a name that is known when the program is compiled.
            pub const fn new(name: &'static str) -> Self {
                Self { name: SmolStr::new_static(name), version: SmolStr::new_static(""), types: PhantomData }
            }

            /// A handle for a name that is known only when the program runs.
            pub fn dynamic(name: impl Into<SmolStr>) -> Self {
                Self { name: name.into(), version: SmolStr::new_static(""), types: PhantomData }
            }

            /// The same handle, asking for one version.
            pub fn version(self, version: impl Into<SmolStr>) -> Self {
                Self { version: version.into(), ..self }
            }
        }

        impl<I, O> Clone for $name<I, O> {
            fn clone(&self) -> Self {
                Self { name: self.name.clone(), version: self.version.clone(), types: PhantomData }
            }
        }

        impl<I, O> $handle for $name<I, O>
        where
            I: Serialize + DeserializeOwned + 'static,
            O: Serialize + DeserializeOwned + 'static,
        {
            type Input = I;
            type Output = O;

            fn name(&self) -> SmolStr {
                self.name.clone()
            }

            fn version(&self) -> SmolStr {
                self.version.clone()
            }
        }

        impl<I, O> $handle for &$name<I, O>
        where
            I: Serialize + DeserializeOwned + 'static,
            O: Serialize + DeserializeOwned + 'static,
        {
            type Input = I;
            type Output = O;

            fn name(&self) -> SmolStr {
                self.name.clone()
            }

            fn version(&self) -> SmolStr {
                self.version.clone()
            }
        }
    };
}

handle_by_name! {
    /// An activity named by hand.
    ///
    /// ```
    /// use steadfast_core::model::ActivityName;
    /// const GREET: ActivityName<String, String> = ActivityName::new("greet");
    /// ```
    ActivityName, ActivityHandle
}

handle_by_name! {
    /// An orchestration named by hand.
    ///
    /// ```
    /// use steadfast_core::model::OrchestrationName;
    /// const HELLO: OrchestrationName<Vec<String>, Vec<String>> = OrchestrationName::new("hello");
    /// ```
    OrchestrationName, OrchestrationHandle
}
