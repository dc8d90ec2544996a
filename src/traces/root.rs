//! Whether a request that is in no trace yet begins one: decided once, before anything is prepared for its spans.
//!
//! Most requests are not sampled, and a span that is built to be dropped costs more than all else that a small request does here. A trace
//! id is drawn and shown to the sampler; the spans that are started while the [`Root`] lives take that id, so they are sampled too.

use std::{cell::Cell, marker::PhantomData, sync::OnceLock};

use opentelemetry::trace::{SpanId, SpanKind, TraceId};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SamplingDecision, ShouldSample};

thread_local! {
    static CHOSEN: Cell<Option<TraceId>> = const { Cell::new(None) };
}

/// The process's sampler, as the environment names it.
pub(super) static SAMPLER: OnceLock<Box<dyn ShouldSample>> = OnceLock::new();

/// A new trace. Root spans that this thread starts before it is dropped are in it.
pub(super) struct Root(PhantomData<*const ()>);

impl Root {
    /// Begins a trace, if the sampler wants it.
    pub(super) fn sampled() -> Option<Self> {
        Self::by(SAMPLER.get()?.as_ref())
    }

    fn by(sampler: &dyn ShouldSample) -> Option<Self> {
        let id = RandomIdGenerator::default().new_trace_id();
        let result = sampler.should_sample(None, id, "", &SpanKind::Server, &[], &[]);
        (result.decision == SamplingDecision::RecordAndSample).then(|| {
            CHOSEN.set(Some(id));
            Self(PhantomData)
        })
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        CHOSEN.set(None);
    }
}

/// Random ids, and that of the [`Root`] where there is one.
#[derive(Debug, Default)]
pub(super) struct Ids(RandomIdGenerator);

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        CHOSEN.get().unwrap_or_else(|| self.0.new_trace_id())
    }

    fn new_span_id(&self) -> SpanId {
        self.0.new_span_id()
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_sdk::trace::Sampler;

    use super::*;

    #[test]
    fn a_share_of_requests_is_sampled_and_all_spans_of_one_are_in_its_trace() {
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(0.1)));
        let ids = Ids::default();
        let mut sampled = 0;
        for _ in 0..10_000 {
            let Some(root) = Root::by(&sampler) else {
                continue;
            };
            sampled += 1;
            let id = ids.new_trace_id();
            assert_eq!(ids.new_trace_id(), id);
            let again = sampler.should_sample(None, id, "", &SpanKind::Client, &[], &[]);
            assert_eq!(again.decision, SamplingDecision::RecordAndSample);
            drop(root);
            assert_ne!(ids.new_trace_id(), id);
        }
        // The standard deviation is 30.
        assert!((800..1200).contains(&sampled), "{sampled}");
    }

    #[test]
    fn nothing_is_sampled_that_shall_not_be() {
        assert!(Root::by(&Sampler::AlwaysOff).is_none());
        assert!(Root::by(&Sampler::AlwaysOn).is_some());
        assert!(CHOSEN.get().is_none());
    }
}
