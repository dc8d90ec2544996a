//! Reads what is published no faster than there is room for it.
//!
//! Before a message is read past its head it takes room for its whole length (`publish::Intake`); what follows waits in HTTP/2, within the stream's
//! window. The room is kept until the message was decoded and is charged where it goes on. One that has waited for `publish.max_wait` is refused: a call
//! unread; a stream's is read, in a room apart for such messages alone, since only what was read can be answered. A message that comes to no
//! end would keep its room from the others, so its time is bounded. Other services' requests pass.
//!
//! tonic's decoder holds on to the memory of the last message until more comes. So the first bytes of a head, from which it learns nothing, are
//! passed on at once, while the last message still lives: then it takes new memory for them, and a stream that waits holds no message.

use std::{
    error::Error,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Sleep;
use tower::Service;

use super::{
    deadline,
    framing::{HEAD, Heads},
    status::status,
};
use crate::{
    failure::{Failure, Reason},
    publish::{Intake, Place, Publisher},
    record::Record,
};

/// How long a message may take from its head to its end.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// Messages whose memory is worth a thought.
const LARGE: u64 = 64 * 1024;

/// The first bytes of a head, which do not tell the length yet.
const FIRST: usize = 4;

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
    publisher: Publisher,
    /// For what has waited for too long and is read to be refused.
    late: Intake,
    /// Longer messages are refused when they are decoded.
    max_message_bytes: usize,
}

impl Rooms {
    pub(super) fn new(publisher: Publisher, max_message_bytes: usize) -> Self {
        Self {
            publisher,
            late: Intake::new(max_message_bytes as u64),
            max_message_bytes,
        }
    }
}

/// What this layer and the handler of a call tell each other.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading(Arc<Told>);

#[derive(Debug, Default)]
struct Told {
    /// How long the messages that a stream gets now have waited for room, in milliseconds.
    waited: AtomicU64,
    /// Whether their memory is worth a thought.
    large: AtomicBool,
    /// Keeps the memory of the last one alive.
    last: Mutex<Option<Bytes>>,
}

impl Reading {
    /// Of a call that came through this layer.
    pub(super) fn of(extensions: &http::Extensions) -> Self {
        extensions.get().cloned().unwrap_or_default()
    }

    pub(super) fn waited(&self) -> Duration {
        Duration::from_millis(self.0.waited.load(Ordering::Relaxed))
    }

    /// Takes note of what was decoded.
    pub(super) fn decoded(&self, records: &[Record]) {
        if self.0.large.load(Ordering::Relaxed) {
            let mut values = records.iter().filter_map(|record| record.value.as_ref());
            *self.last() = values.find(|value| !value.is_empty()).cloned();
        }
    }

    fn last(&self) -> MutexGuard<'_, Option<Bytes>> {
        self.0.last.lock().unwrap_or_else(PoisonError::into_inner)
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
        let reading = Reading::default();
        request.extensions_mut().insert(reading.clone());
        let until = match request.uri().path() {
            UNARY => {
                let longest = Instant::now() + self.rooms.publisher.max_wait();
                let deadline = deadline::answer_by(request.headers());
                Some(deadline.map_or(longest, |deadline| deadline.min(longest)))
            }
            _ => None,
        };
        let is_bounded = matches!(request.uri().path(), UNARY | STREAM);
        let bound = is_bounded.then(|| Bound {
            rooms: self.rooms.clone(),
            place: self.rooms.publisher.intake().place(),
            late: self.rooms.late.place(),
            reading,
            heads: Heads::default(),
            open: 0,
            held_back: None,
            until,
            timer: None,
        });
        self.service.call(request.map(|body| Read { body, bound }))
    }
}

/// The body of a request.
pub(super) struct Read<B> {
    body: B,
    bound: Option<Bound>,
}

struct Bound {
    rooms: Rooms,
    place: Place,
    late: Place,
    reading: Reading,
    heads: Heads,
    /// The length of the message that was passed on in part.
    open: u64,
    held_back: Option<HeldBack>,
    /// When a call is refused whose message finds no room; absent for a stream.
    until: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

/// What was read and waits for room, for the messages that begin in it.
struct HeldBack {
    data: Bytes,
    /// How much of a head it begins with; 0 if it does not begin with a whole one.
    head: usize,
    has_room: bool,
    since: Instant,
    wanted: u64,
    /// Of the last one, if it does not end there.
    open: u64,
}

type Failed = Box<dyn Error + Send + Sync>;

impl Bound {
    /// Cuts off what belongs to the message before; the rest waits for room.
    fn hold_back(&mut self, mut data: Bytes) -> Option<Bytes> {
        let before = data.split_to(self.heads.left().min(data.len()));
        self.heads.pass(&before, |_| ());
        if !data.is_empty() {
            let head = if self.heads.is_head(&data) { HEAD } else { 0 };
            let (mut wanted, mut open) = (0, 0);
            let most = self.rooms.max_message_bytes;
            self.heads.pass(&data, |length| {
                open = if length <= most { length as u64 } else { 0 };
                wanted += open;
            });
            if self.heads.left() == 0 {
                open = 0;
            }
            self.held_back = Some(HeldBack {
                data,
                head,
                has_room: false,
                since: Instant::now(),
                wanted,
                open,
            });
        }
        if self.heads.left() == 0 || self.held_back.is_some() {
            self.open = 0;
            self.timer = None;
        }
        (!before.is_empty()).then_some(before)
    }

    /// What was held back, once there is room for it.
    fn poll_held_back(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failed>>> {
        let Some(held_back) = &mut self.held_back else {
            return Poll::Ready(None);
        };
        if self.reading.0.large.load(Ordering::Relaxed) {
            if held_back.head == HEAD {
                held_back.head -= FIRST;
                return Poll::Ready(Some(Ok(held_back.data.split_to(FIRST))));
            }
            // The decoder has let go of it.
            *self.reading.last() = None;
        }
        let (wanted, since) = (held_back.wanted, held_back.since);
        if !held_back.has_room {
            if wanted > 0 && self.place.poll_take(wanted, context).is_pending() {
                let publisher = &self.rooms.publisher;
                let until = self.until.unwrap_or_else(|| since + publisher.max_wait());
                ready!(self.poll_timer(until, context));
                if self.until.is_some() {
                    let failure = self.rooms.publisher.no_room();
                    return Poll::Ready(Some(Err(Box::new(status(&failure)))));
                }
                ready!(self.late.poll_take(wanted, context));
                // It waits there no more.
                self.place = self.rooms.publisher.intake().place();
            }
            self.timer = None;
            self.open = wanted;
            let told = &self.reading.0;
            let waited = since.elapsed().as_millis() as u64;
            told.waited.store(waited, Ordering::Relaxed);
            told.large.store(wanted > LARGE, Ordering::Relaxed);
        }
        let Some(held_back) = &mut self.held_back else {
            return Poll::Ready(None);
        };
        held_back.has_room = true;
        // By itself: then the decoder takes memory for the message and not for what it has of it already, too.
        let head = std::mem::take(&mut held_back.head);
        if head > 0 && wanted > LARGE {
            return Poll::Ready(Some(Ok(held_back.data.split_to(head))));
        }
        Poll::Ready(self.held_back.take().map(|held_back| {
            self.open = held_back.open;
            Ok(held_back.data)
        }))
    }

    /// More of a message is to come, and none has come.
    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<Failed> {
        if self.open == 0 {
            return Poll::Pending;
        }
        ready!(self.poll_timer(Instant::now() + MESSAGE_TIMEOUT, context));
        let failure = Failure::not_persisted(
            Reason::InvalidRequest,
            format!("a message did not come to its end within {MESSAGE_TIMEOUT:?}"),
        );
        Poll::Ready(Box::new(status(&failure)))
    }

    fn poll_timer(&mut self, until: Instant, context: &mut Context<'_>) -> Poll<()> {
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until.into())));
        timer.as_mut().poll(context)
    }
}

impl<B> Body for Read<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Failed>,
{
    type Data = Bytes;
    type Error = Failed;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failed>>> {
        let Self { body, bound } = &mut *self;
        let Some(bound) = bound else {
            let frame = ready!(Pin::new(body).poll_frame(context));
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        };
        // Who asks a stream for more has decoded all that it could, and charged it. The message of a call is charged when the body is dropped.
        if bound.until.is_none() {
            bound.place.keep(bound.open);
            bound.late.keep(bound.open);
        }
        loop {
            if let Some(data) = ready!(bound.poll_held_back(context)) {
                return Poll::Ready(Some(data.map(Frame::data)));
            }
            let frame = match Pin::new(&mut *body).poll_frame(context) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    let late = ready!(bound.poll_late(context));
                    return Poll::Ready(Some(Err(late)));
                }
            };
            let frame = match frame {
                Some(Ok(frame)) => frame.into_data(),
                other => return Poll::Ready(other.map(|frame| frame.map_err(Into::into))),
            };
            match frame {
                Err(other) => return Poll::Ready(Some(Ok(other))),
                Ok(data) => {
                    if let Some(before) = bound.hold_back(data) {
                        return Poll::Ready(Some(Ok(Frame::data(before))));
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let is_held_back = |bound: &Bound| bound.held_back.is_some();
        !self.bound.as_ref().is_some_and(is_held_back) && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.bound {
            None => self.body.size_hint(),
            // What is held back is not counted there.
            Some(_) => SizeHint::default(),
        }
    }
}
