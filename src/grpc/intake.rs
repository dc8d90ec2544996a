//! Reads what is published no faster than there is room for it.
//!
//! Before a message is read past its head it takes room for its whole length (`publish::Intake`); what follows waits in HTTP/2, within the stream's
//! window (`body`). One that has waited for `publish.max_wait` is refused: a call unread; a stream's is read, in a room apart for such messages alone,
//! since only what was read can be answered. Other services' requests pass.

mod body;
mod count;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response};
use tower::Service;

use self::{
    body::{Bound, Read},
    count::Request as Records,
};
use super::deadline;
use crate::{
    failure::Failure,
    publish::{Intake, Publisher},
    record::Usage,
};

const UNARY: &str = "/outrigger.v1.PublisherService/Publish";
const STREAM: &str = "/outrigger.v1.PublisherService/PublishStream";

/// The layer.
#[derive(Clone)]
pub(super) struct Bounded<S> {
    pub(super) service: S,
    pub(super) rooms: Rooms,
}

/// Where room comes from.
#[derive(Clone)]
pub(super) struct Rooms {
    intake: Intake,
    /// For what has waited for too long and is read to be refused.
    late: Intake,
    /// How long a message waits for room at most.
    max_wait: Duration,
    /// What a call is told that has waited for so long.
    no_room: Arc<dyn Fn() -> Failure + Send + Sync>,
    /// Longer messages are refused when they are decoded.
    max_message_bytes: usize,
    /// What may be in flight: a message that holds more is not decoded.
    most: Usage,
}

impl Rooms {
    pub(super) fn new(publisher: Publisher, max_message_bytes: usize) -> Self {
        Self {
            intake: publisher.intake().clone(),
            late: Intake::new(max_message_bytes as u64),
            max_wait: publisher.max_wait(),
            most: publisher.in_flight().1,
            no_room: Arc::new(move || publisher.no_room()),
            max_message_bytes,
        }
    }
}

/// What this layer tells the handler of a call.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading(Arc<Told>);

#[derive(Debug, Default)]
struct Told {
    /// When its caller is to be answered, counted from when the call came.
    answer_by: Option<Instant>,
    most: Usage,
    /// How long the messages that a stream gets now have waited for room, in milliseconds.
    waited: AtomicU64,
    /// Whether there is a large message, for the path of every small one.
    is_large: AtomicBool,
    /// The large message in whose place the decoder gets an empty one.
    large: Mutex<Option<Bytes>>,
}

impl Reading {
    /// Of a call that came through this layer.
    pub(super) fn of(extensions: &http::Extensions) -> Self {
        extensions.get().cloned().unwrap_or_default()
    }

    fn new(answer_by: Option<Instant>, most: Usage) -> Self {
        Self(Arc::new(Told {
            answer_by,
            most,
            ..Told::default()
        }))
    }

    /// The caller's deadline runs while its message waits for room, which is before its handler is called.
    pub(super) fn answer_by(&self) -> Option<Instant> {
        self.0.answer_by
    }

    pub(super) fn waited(&self) -> Duration {
        Duration::from_millis(self.0.waited.load(Ordering::Relaxed))
    }

    /// The message that the decoder's one stands for: itself, or a large one.
    pub(super) fn message<M: Records>(&self, decoded: M) -> Result<M, Failure> {
        if !self.0.is_large.swap(false, Ordering::AcqRel) {
            return Ok(decoded);
        }
        let large = self.large().take();
        large.map_or(Ok(decoded), |large| count::decode(large, self.0.most))
    }

    fn give(&self, large: Option<Bytes>) {
        *self.large() = large;
        self.0.is_large.store(true, Ordering::Release);
    }

    fn large(&self) -> MutexGuard<'_, Option<Bytes>> {
        self.0.large.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S, B, R> Service<Request<B>> for Bounded<S>
where
    S: Service<Request<Read<B>>, Response = Response<R>>,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let answer_by = deadline::answer_by(request.headers());
        let reading = Reading::new(answer_by, self.rooms.most);
        request.extensions_mut().insert(reading.clone());
        let bound = match request.uri().path() {
            UNARY => {
                let longest = Instant::now() + self.rooms.max_wait;
                let until = answer_by.map_or(longest, |deadline| deadline.min(longest));
                Some(Bound::new(&self.rooms, reading, Some(until.into())))
            }
            STREAM => Some(Bound::new(&self.rooms, reading, None)),
            _ => None,
        };
        self.service.call(request.map(|body| Read { body, bound }))
    }
}
