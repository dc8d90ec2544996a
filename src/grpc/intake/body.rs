//! The body of a request to publish: passed on message by message, as there is room.
//!
//! The room of a message is kept until it was decoded, and is charged where it goes on. A message that comes to no end would keep its room from the
//! others, and so would a call whose message is whole and that does not end, so their time is bounded. A stream's first message opens it and carries nothing to publish: it is small, and waits for no room, or in an outage
//! streams could not even be opened.
//!
//! tonic's decoder keeps the memory of the largest message for as long as a stream lives, and decodes a message whatever is in it. So large messages are
//! collected here, and given to the handler apart (`Reading`), which counts their records first; the decoder gets an empty one in the place of each.

use std::{
    error::Error,
    pin::Pin,
    sync::atomic::Ordering,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::{Reading, Rooms};
use crate::{
    failure::{Failure, Reason},
    grpc::{framing::HEAD, listen::FRAME, status::status},
    publish::Place,
};

/// How long a message may take from its head to its end.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest message that opens a stream.
const OPENING: usize = 16 * 1024;

/// What is longer is not left to the decoder.
const LARGE: usize = FRAME as usize;

/// What the decoder gets in the place of a large message: one without a byte.
const EMPTY: [u8; HEAD] = [0; HEAD];

/// The body of a request.
pub(in crate::grpc) struct Read<B> {
    pub(super) body: B,
    pub(super) bound: Option<Bound>,
}

pub(super) struct Bound {
    rooms: Rooms,
    reading: Reading,
    /// When a call is refused whose message finds no room; absent for a stream.
    until: Option<Instant>,
    /// Whether the message that opens a stream is still to come.
    opening: bool,
    /// Whether the one message of a call has begun.
    begun: bool,
    /// The first bytes of a head, until the others come.
    cut: Bytes,
    /// What is still to come of the message that has begun.
    left: usize,
    /// What has come of it, if it is a large one.
    large: Option<BytesMut>,
    /// The room that it keeps until its end.
    open: u64,
    held_back: Option<HeldBack>,
    place: Place,
    late: Place,
    /// Whether what is held back has waited for too long.
    is_late: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

/// What was read and waits for room, for the messages that begin in it. It begins with a head.
struct HeldBack {
    data: Bytes,
    wanted: u64,
    since: Instant,
    /// The last one, if it does not end there: where it begins, and its length.
    last: Option<(usize, usize)>,
}

type Failed = Box<dyn Error + Send + Sync>;

impl Bound {
    pub(super) fn new(rooms: &Rooms, reading: Reading, until: Option<Instant>) -> Self {
        Self {
            reading,
            until,
            opening: until.is_none(),
            begun: false,
            cut: Bytes::new(),
            left: 0,
            large: None,
            open: 0,
            held_back: None,
            place: rooms.intake.place(),
            late: rooms.late.place(),
            is_late: false,
            timer: None,
            rooms: rooms.clone(),
        }
    }

    /// Takes what has come; says what of it needs no room any more. The rest is held back.
    fn take(&mut self, data: Bytes) -> Result<Option<Bytes>, Failed> {
        let mut data = match self.cut.is_empty() {
            true => data,
            false => [std::mem::take(&mut self.cut), data].concat().into(),
        };
        if self.opening && data.len() >= HEAD {
            self.opening = false;
            let length = length(&data);
            if length > OPENING {
                return Err(invalid(format!(
                    "the first message must open the stream, in {OPENING} bytes at most"
                )));
            }
            self.left = HEAD + length;
        }
        let before = data.split_to(self.left.min(data.len()));
        self.left -= before.len();
        self.hold_back(data)?;
        // What comes of a call after its message is not its end, and gives it no more time.
        if self.held_back.is_some() || self.left == 0 && self.open > 0 {
            self.open = 0;
            self.timer = None;
        }
        Ok(self.pass(before))
    }

    /// Holds back what begins with a head, or with a part of one.
    fn hold_back(&mut self, mut data: Bytes) -> Result<(), Failed> {
        let (mut at, mut wanted, mut last) = (0, 0, None);
        while let Some(next) = data.get(at..).filter(|next| next.len() >= HEAD) {
            if self.until.is_some() && std::mem::replace(&mut self.begun, true) {
                return Err(invalid("a call has one message".to_owned()));
            }
            let length = length(next);
            // One that is too long is refused when it is decoded.
            if length <= self.rooms.max_message_bytes {
                wanted += length as u64;
            }
            if HEAD + length > next.len() {
                last = Some((at, length));
            }
            at += HEAD + length;
        }
        if at < data.len() {
            self.cut = Bytes::copy_from_slice(&data.split_off(at));
        }
        if !data.is_empty() {
            self.held_back = Some(HeldBack {
                data,
                wanted,
                since: Instant::now(),
                last,
            });
        }
        Ok(())
    }

    /// Lets go of what was held back, now that there is room for it.
    fn release(&mut self) -> Option<Bytes> {
        let HeldBack {
            mut data,
            since,
            last,
            ..
        } = self.held_back.take()?;
        self.timer = None;
        let waited = since.elapsed().as_millis() as u64;
        self.reading.0.waited.store(waited, Ordering::Relaxed);
        let Some((at, length)) = last else {
            return Some(data);
        };
        self.left = at + HEAD + length - data.len();
        if length <= self.rooms.max_message_bytes {
            self.open = length as u64;
            // One that says it is compressed is the decoder's, which refuses it.
            if length > LARGE && data[at] == 0 {
                let begun = data.split_off(at);
                let mut large = BytesMut::with_capacity(length);
                large.extend_from_slice(&begun[HEAD..]);
                self.large = Some(large);
            }
        }
        (!data.is_empty()).then_some(data)
    }

    /// Passes on what belongs to the message that has begun.
    fn pass(&mut self, data: Bytes) -> Option<Bytes> {
        let Some(large) = &mut self.large else {
            return (!data.is_empty()).then_some(data);
        };
        large.extend_from_slice(&data);
        if self.left > 0 {
            return None;
        }
        let whole = self.large.take().map(BytesMut::freeze);
        self.reading.give(whole);
        Some(Bytes::from_static(&EMPTY))
    }

    /// Room for what is held back, or the refusal of a call.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        let Some(HeldBack { wanted, since, .. }) = self.held_back else {
            return Poll::Ready(Ok(()));
        };
        if !self.is_late {
            if self.place.poll_take(wanted, context).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let until = self.until.unwrap_or_else(|| since + self.rooms.max_wait);
            ready!(self.poll_timer(until, context));
            // Its turn is the next one's, now and not when the call is over.
            self.place = self.rooms.intake.place();
            if self.until.is_some() {
                return Poll::Ready(Err(Box::new(status(&(self.rooms.no_room)()))));
            }
            self.is_late = true;
        }
        ready!(self.late.poll_take(wanted, context));
        self.is_late = false;
        Poll::Ready(Ok(()))
    }

    /// More of a message is to come, or the end of a call, and nothing has come.
    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<Failed> {
        let what = match (self.open, self.until) {
            (0, None) => return Poll::Pending,
            // Its handler is not called before that.
            (0, Some(_)) => "the call",
            _ => "a message",
        };
        ready!(self.poll_timer(Instant::now() + MESSAGE_TIMEOUT, context));
        Poll::Ready(invalid(format!(
            "{what} did not come to its end within {MESSAGE_TIMEOUT:?}"
        )))
    }

    fn poll_timer(&mut self, until: Instant, context: &mut Context<'_>) -> Poll<()> {
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        timer.as_mut().poll(context)
    }

    fn is_between_messages(&self) -> bool {
        self.left == 0 && self.cut.is_empty() && self.held_back.is_none()
    }
}

/// The length of the message whose head this is.
fn length(head: &[u8]) -> usize {
    match head {
        [_, a, b, c, d, ..] => u32::from_be_bytes([*a, *b, *c, *d]) as usize,
        _ => 0,
    }
}

fn invalid(what: String) -> Failed {
    let failure = Failure::not_persisted(Reason::InvalidRequest, what);
    Box::new(status(&failure))
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
            if bound.held_back.is_some() {
                ready!(bound.poll_room(context))?;
                if let Some(data) = bound.release() {
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
            }
            let frame = match Pin::new(&mut *body).poll_frame(context) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    let late = ready!(bound.poll_late(context));
                    return Poll::Ready(Some(Err(late)));
                }
            };
            let data = match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None if bound.is_between_messages() => return Poll::Ready(None),
                None => {
                    let failed = invalid("the last message does not come to its end".to_owned());
                    return Poll::Ready(Some(Err(failed)));
                }
            };
            if let Some(data) = bound.take(data)? {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let is_done = |bound: &Bound| bound.is_between_messages();
        self.bound.as_ref().is_none_or(is_done) && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.bound {
            None => self.body.size_hint(),
            // What is held back is not counted there.
            Some(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, sync::Arc, task::Waker};

    use tokio::time::advance;

    use super::*;
    use crate::{grpc::framing::tests::message, publish::Intake, record::Usage};

    const BOUND: u64 = 100_000;
    const WAIT: Duration = Duration::from_secs(30);

    fn rooms() -> Rooms {
        Rooms {
            intake: Intake::new(BOUND),
            late: Intake::new(BOUND),
            max_wait: WAIT,
            no_room: Arc::new(|| {
                Failure::not_persisted(Reason::PublishBufferFull, "no room".to_owned())
            }),
            max_message_bytes: BOUND as usize,
            most: Usage::default(),
        }
    }

    /// What has come of a body, and whether that is all.
    #[derive(Default)]
    struct Fed {
        frames: VecDeque<Bytes>,
        is_ended: bool,
    }

    impl Body for Fed {
        type Data = Bytes;
        type Error = Failed;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Failed>>> {
            match self.frames.pop_front() {
                Some(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
                None if self.is_ended => Poll::Ready(None),
                None => Poll::Pending,
            }
        }
    }

    /// A body that is read by hand.
    struct Caller(Read<Fed>);

    impl Caller {
        fn new(rooms: &Rooms, until: Option<Instant>) -> Self {
            Self(Read {
                body: Fed::default(),
                bound: Some(Bound::new(rooms, Reading::default(), until)),
            })
        }

        /// A stream that is open.
        fn stream(rooms: &Rooms) -> Self {
            let mut stream = Self::new(rooms, None);
            stream.sends(&message(3));
            assert_eq!(stream.read(), Some(message(3)));
            stream
        }

        fn call(rooms: &Rooms) -> Self {
            Self::new(rooms, Some(Instant::now() + WAIT))
        }

        fn sends(&mut self, data: &[u8]) {
            self.0.body.frames.push_back(Bytes::copy_from_slice(data));
        }

        fn poll(&mut self) -> Poll<Option<Result<Vec<u8>, String>>> {
            let context = &mut Context::from_waker(Waker::noop());
            let frame = ready!(Pin::new(&mut self.0).poll_frame(context));
            Poll::Ready(frame.map(|frame| match frame {
                Ok(frame) => Ok(frame.into_data().expect("data").to_vec()),
                Err(error) => Err(error.to_string()),
            }))
        }

        /// What it is given now, if anything.
        fn read(&mut self) -> Option<Vec<u8>> {
            match self.poll() {
                Poll::Ready(Some(read)) => Some(read.expect("it goes on")),
                Poll::Ready(None) => panic!("it is over"),
                Poll::Pending => None,
            }
        }

        fn refusal(&mut self) -> String {
            match self.poll() {
                Poll::Ready(Some(Err(error))) => error,
                other => panic!("{other:?}"),
            }
        }

        fn large(&self) -> Option<Bytes> {
            let bound = self.0.bound.as_ref().expect("it is bound");
            bound.reading.large().take()
        }

        fn waited(&self) -> Duration {
            self.0.bound.as_ref().expect("it is bound").reading.waited()
        }
    }

    /// Takes all there is.
    fn fill(intake: &Intake) -> Place {
        let mut place = intake.place();
        let context = &mut Context::from_waker(Waker::noop());
        assert!(place.poll_take(BOUND, context).is_ready(), "some is held");
        place
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_opens_whatever_waits() {
        let rooms = rooms();
        let full = fill(&rooms.intake);
        for cut in [1, 4, 5, 7, 8, 20] {
            let mut stream = Caller::new(&rooms, None);
            for data in [message(3), message(50)].concat().chunks(cut) {
                stream.sends(data);
            }
            let mut read = Vec::new();
            while let Some(data) = stream.read() {
                read.extend(data);
            }
            assert_eq!(read, message(3), "cut to {cut}");
        }
        drop(full);
    }

    #[tokio::test(start_paused = true)]
    async fn what_opens_a_stream_is_small() {
        let mut stream = Caller::new(&rooms(), None);
        stream.sends(&message(OPENING + 1)[..100]);
        assert!(stream.refusal().contains("must open the stream"));
    }

    #[tokio::test(start_paused = true)]
    async fn messages_are_passed_on_however_they_are_cut() {
        let rooms = rooms();
        let several = [message(0), message(3), message(300), message(0), message(9)].concat();
        let until = Some(Instant::now() + WAIT);
        for (until, bytes) in [(None, several), (until, message(300)), (until, message(0))] {
            for size in 1..=bytes.len() {
                let mut caller = Caller::new(&rooms, until);
                for data in bytes.chunks(size) {
                    caller.sends(data);
                }
                let mut read = Vec::new();
                while let Some(data) = caller.read() {
                    read.extend(data);
                }
                assert_eq!(read, bytes, "cut to {size}");
                caller.0.body.is_ended = true;
                assert!(matches!(caller.poll(), Poll::Ready(None)));
                drop(caller);
                drop(fill(&rooms.intake));
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_message_of_a_stream_is_given_apart_and_in_its_place() {
        let rooms = rooms();
        let bytes = [message(7), message(LARGE + 1), message(8)].concat();
        for size in [1, 3, 14, 1000, 16_384] {
            let mut stream = Caller::stream(&rooms);
            for data in bytes.chunks(size) {
                stream.sends(data);
            }
            let mut read = Vec::new();
            let mut large = None;
            while let Some(data) = stream.read() {
                read.extend(data);
                if let Some(whole) = stream.large() {
                    assert_eq!(read, [message(7), EMPTY.to_vec()].concat());
                    large = Some(whole);
                }
            }
            let large = large.expect("it was given");
            assert_eq!(large, message(LARGE + 1)[HEAD..], "cut to {size}");
            assert!(large.is_unique(), "nobody else keeps it");
            assert_eq!(read, [message(7), message(0), message(8)].concat());
            // All was decoded when more was asked for.
            drop(fill(&rooms.intake));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_is_read_when_there_is_room_for_the_whole() {
        let rooms = rooms();
        let [mut first, mut second] = std::array::from_fn(|_| Caller::stream(&rooms));
        first.sends(&message(60_000)[..10_000]);
        second.sends(&message(60_000)[..10_000]);
        assert_eq!(first.read(), None, "it is collected");
        assert_eq!(second.read(), None);
        second.sends(&message(60_000)[10_000..]);
        assert_eq!(second.read(), None, "it has no room");
        first.sends(&message(60_000)[10_000..]);
        assert_eq!(first.read(), Some(EMPTY.to_vec()));
        assert_eq!(second.read(), None, "the first is not decoded yet");
        assert_eq!(first.read(), None);
        assert_eq!(second.read(), Some(EMPTY.to_vec()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_refused_unread_and_leaves_its_turn() {
        let rooms = rooms();
        let full = fill(&rooms.intake);
        let mut call = Caller::call(&rooms);
        call.sends(&message(50_000)[..100]);
        assert_eq!(call.read(), None);
        let mut next = Caller::stream(&rooms);
        next.sends(&message(50));
        assert_eq!(next.read(), None);
        advance(WAIT + Duration::from_secs(1)).await;
        assert!(call.refusal().contains("no room"));
        drop(full);
        assert_eq!(next.read(), Some(message(50)));
        assert_eq!(next.read(), None);
        drop(fill(&rooms.intake));
    }

    #[tokio::test(start_paused = true)]
    async fn a_streams_message_that_waited_for_too_long_is_read_in_a_room_apart() {
        let rooms = rooms();
        let full = fill(&rooms.intake);
        let late = fill(&rooms.late);
        let mut stream = Caller::stream(&rooms);
        stream.sends(&message(50));
        assert_eq!(stream.read(), None);
        advance(WAIT + Duration::from_secs(1)).await;
        assert_eq!(stream.read(), None, "there is no room either");
        drop(full);
        drop(fill(&rooms.intake));
        drop(late);
        assert_eq!(stream.read(), Some(message(50)));
        assert_eq!(stream.read(), None);
        drop(fill(&rooms.late));

        // The next one waits like any other.
        let full = fill(&rooms.intake);
        stream.sends(&message(50));
        assert_eq!(stream.read(), None);
        drop(full);
        assert_eq!(stream.read(), Some(message(50)));
        assert!(stream.waited() < WAIT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_must_come_to_its_end_and_gives_its_room_back() {
        let rooms = rooms();
        for begun in [
            vec![],
            message(3)[..2].to_vec(),
            message(0),
            message(60_000),
        ] {
            let mut call = Caller::call(&rooms);
            for data in begun.chunks(10_000) {
                call.sends(data);
            }
            while call.read().is_some() {}
            advance(MESSAGE_TIMEOUT / 2).await;
            // Nor does it by frames without a byte.
            call.sends(&[]);
            assert_eq!(call.read(), None);
            advance(MESSAGE_TIMEOUT / 2 + Duration::from_secs(1)).await;
            assert!(call.refusal().contains("the call did not come to its end"));
            drop(call);
            drop(fill(&rooms.intake));
        }
        let mut stream = Caller::stream(&rooms);
        assert_eq!(stream.read(), None);
        advance(MESSAGE_TIMEOUT * 2).await;
        assert_eq!(stream.read(), None, "it may wait between its messages");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_has_one_message() {
        for bytes in [[message(3), message(3)], [message(3), message(60_000)]] {
            let mut call = Caller::call(&rooms());
            call.sends(&bytes[0]);
            assert_eq!(call.read(), Some(bytes[0].clone()));
            call.sends(&bytes[1][..HEAD]);
            assert!(call.refusal().contains("one message"));
            let mut call = Caller::call(&rooms());
            call.sends(&bytes.concat());
            assert!(call.refusal().contains("one message"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_must_come_to_its_end() {
        let rooms = rooms();
        let begun = |length| {
            let mut stream = Caller::stream(&rooms);
            stream.sends(&message(length)[..20]);
            assert_eq!(stream.read().is_some(), length == 50);
            assert_eq!(stream.read(), None);
            stream
        };
        let lengths = [50, 40_000];
        for mut ended in lengths.map(begun) {
            ended.0.body.is_ended = true;
            assert!(ended.refusal().contains("does not come to its end"));
        }
        let slow = lengths.map(begun);
        advance(MESSAGE_TIMEOUT + Duration::from_secs(1)).await;
        for mut slow in slow {
            assert!(slow.refusal().contains("within 30s"));
        }
        drop(fill(&rooms.intake));
    }
}
