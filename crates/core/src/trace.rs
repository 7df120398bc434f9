//! W3C trace contexts: read, written, and continued.

use smol_str::{SmolStr, format_smolstr};
use uuid::Uuid;

use crate::event::TraceContext;
use crate::ids::ExecutionId;

/// A longer `tracestate` is dropped.
const STATE_BYTES_MAX: usize = 513;

impl TraceContext {
    /// Reads the headers `traceparent` and `tracestate`; none when the first is not one.
    ///
    /// ```
    /// use steadfast_core::TraceContext;
    /// let trace = TraceContext::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "").unwrap();
    /// assert_eq!(trace.trace_id(), "0af7651916cd43dd8448eb211c80319c");
    /// assert_eq!(trace.span_id(), "b7ad6b7169203331");
    /// assert!(trace.is_sampled());
    /// assert!(TraceContext::parse("no trace", "").is_none());
    /// ```
    pub fn parse(traceparent: &str, tracestate: &str) -> Option<Self> {
        let parts: Vec<_> = traceparent.split('-').collect();
        let hex = |at: usize, len: usize| {
            let part: &str = parts.get(at).copied().unwrap_or("");
            part.len() == len && part.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'))
        };
        let zero = |at: usize| parts[at].bytes().all(|it| it == b'0');
        // Later versions may add parts; version 00 has four, and ff is none.
        let parts_fit = parts.len() == 4 || parts.len() > 4 && parts[0] != "00";
        let valid = parts_fit && hex(0, 2) && hex(1, 32) && hex(2, 16) && hex(3, 2);
        if !valid || parts[0] == "ff" || zero(1) || zero(2) {
            return None;
        }
        let state = if tracestate.len() > STATE_BYTES_MAX { "" } else { tracestate };
        Some(Self { parent: traceparent.into(), state: state.into() })
    }

    /// A sampled context of a trace and a span; a zero, which is no id, becomes one.
    pub fn new(trace_id: u128, span_id: u64) -> Self {
        let (trace_id, span_id) = (trace_id.max(1), span_id.max(1));
        Self { parent: format_smolstr!("00-{trace_id:032x}-{span_id:016x}-01"), state: SmolStr::default() }
    }

    /// The trace's id, 32 digits; empty when the text is none that [`TraceContext::parse`] takes.
    pub fn trace_id(&self) -> &str {
        self.parent.get(3..35).unwrap_or("")
    }

    /// The id of the span that is the parent of what happens in this context, 16 digits.
    pub fn span_id(&self) -> &str {
        self.parent.get(36..52).unwrap_or("")
    }

    /// Whether the trace is recorded.
    pub fn is_sampled(&self) -> bool {
        let flags = self.parent.get(53..55).and_then(|flags| u8::from_str_radix(flags, 16).ok());
        flags.is_some_and(|flags| flags & 1 == 1)
    }

    /// The context of a span within this one. Its id follows from the execution, the purpose and the ordinal, so that each
    /// replay names it alike.
    pub fn child(&self, execution: ExecutionId, purpose: &str, ordinal: i32) -> Self {
        let (span_id, _) = execution.derive(purpose, ordinal).uuid().as_u64_pair();
        self.with_span(span_id)
    }

    /// The context of a span of that id within this one.
    pub fn with_span(&self, span_id: u64) -> Self {
        match (self.parent.get(..36), self.parent.get(52..)) {
            (Some(head), Some(flags)) => Self {
                parent: format_smolstr!("{head}{:016x}{flags}", span_id.max(1)),
                state: self.state.clone(),
            },
            _ => self.clone(),
        }
    }

    /// The context of a span within this one, in a place that has no execution. Its id follows from this one's.
    pub fn below(&self, purpose: &str, ordinal: i32) -> Self {
        let id = |text: &str| u64::from_str_radix(text, 16).unwrap_or_default();
        let (trace, span) = (id(self.trace_id().get(16..).unwrap_or("")), id(self.span_id()));
        self.child(ExecutionId::new(Uuid::from_u64_pair(trace, span)), purpose, ordinal)
    }

    /// The span of an entity's operation that was asked for in this context.
    pub fn of_operation(&self) -> Self {
        self.below("operation", 0)
    }

    /// The beginning of a new trace for an execution that is to have one of its own; equal at each replay.
    pub fn root_of(execution: ExecutionId) -> Self {
        let (span_id, _) = execution.derive("root span", 0).uuid().as_u64_pair();
        Self::new(execution.derive("trace", 0).uuid().as_u128(), span_id)
    }

    /// The span of an execution that was started in this context.
    pub(crate) fn of_execution(&self, execution: ExecutionId) -> Self {
        self.child(execution, "orchestration", 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_that_are_none_are_not_read() {
        for text in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        ] {
            assert_eq!(TraceContext::parse(text, ""), None, "{text}");
        }
        let later = "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x";
        assert!(TraceContext::parse(later, "").is_some());
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
        assert!(!TraceContext::parse(good, "").unwrap().is_sampled());
        assert_eq!(TraceContext::parse(good, &"s".repeat(514)).unwrap().state, "");
    }

    #[test]
    fn children_keep_the_trace_and_follow_from_the_execution() {
        let root =
            TraceContext::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "a=b").unwrap();
        let execution = ExecutionId::new(Uuid::from_u128(7));
        let child = root.child(execution, "activity", 3);
        assert_eq!(child, root.child(execution, "activity", 3));
        assert_ne!(child, root.child(execution, "activity", 4));
        assert_eq!((child.trace_id(), child.state.as_str()), (root.trace_id(), "a=b"));
        assert_ne!(child.span_id(), root.span_id());
        assert!(TraceContext::parse(&child.parent, &child.state).is_some() && child.is_sampled());
        let operation = child.of_operation();
        assert_eq!((operation.trace_id(), &operation), (root.trace_id(), &child.of_operation()));
        assert!(![child.span_id(), root.of_operation().span_id()].contains(&operation.span_id()));
        let own = TraceContext::root_of(execution);
        assert_eq!(own, TraceContext::root_of(execution));
        assert!(TraceContext::parse(&own.parent, "").is_some());
        let damaged = TraceContext { parent: "x".into(), state: "".into() };
        assert_eq!((damaged.child(execution, "a", 0), damaged.span_id()), (damaged.clone(), ""));
    }
}
