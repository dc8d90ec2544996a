//! A producer's events: its delivery reports, as many as librdkafka has put together, and what it says beside them.

use std::{
    ffi::{CStr, c_char},
    marker::PhantomData,
    ptr::{self, NonNull},
    time::Duration,
};

use rdkafka::{
    client::{Client, ClientContext},
    config::RDKafkaLogLevel as Level,
    error::KafkaError,
    types::{RDKafkaErrorCode as Code, RDKafkaRespErr},
};
use rdkafka_sys as rd;

use super::message;
use crate::{failure::Persistence, record::Record};

/// The queue of a producer's events. It must be dropped before its producer.
pub(in crate::kafka) struct Events(NonNull<rd::rd_kafka_queue_t>);

// SAFETY: the queue is internally locked.
unsafe impl Send for Events {}
// SAFETY: as above.
unsafe impl Sync for Events {}

impl Events {
    pub(in crate::kafka) fn of<C: ClientContext>(client: &Client<C>) -> Self {
        // SAFETY: the client is alive; the answer is a reference of our own.
        let queue = unsafe { rd::rd_kafka_queue_get_main(client.native_ptr()) };
        Self(NonNull::new(queue).expect("every client has a main queue"))
    }

    /// Waits for the next event, for so long at most: delivery reports are returned, all else is told to `context`.
    pub(in crate::kafka) fn wait(
        &self,
        longest: Duration,
        context: &impl ClientContext,
    ) -> Option<DeliveryReports> {
        let millis = i32::try_from(longest.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the queue is ours.
        let event = unsafe { rd::rd_kafka_queue_poll(self.0.as_ptr(), millis) };
        let event = Event(NonNull::new(event)?);
        // SAFETY: the event is alive through each of these; texts and bytes are its own, and read before it is given back.
        unsafe {
            let raw = event.0.as_ptr();
            match rd::rd_kafka_event_type(raw) {
                rd::RD_KAFKA_EVENT_DR => return Some(DeliveryReports(event)),
                rd::RD_KAFKA_EVENT_ERROR => {
                    let error = KafkaError::Global(rd::rd_kafka_event_error(raw).into());
                    context.error(error, text(rd::rd_kafka_event_error_string(raw)).trim());
                }
                rd::RD_KAFKA_EVENT_STATS => {
                    let json = CStr::from_ptr(rd::rd_kafka_event_stats(raw));
                    context.stats_raw(json.to_bytes());
                }
                rd::RD_KAFKA_EVENT_LOG => {
                    let (mut facility, mut message, mut level) = (ptr::null(), ptr::null(), 0);
                    if rd::rd_kafka_event_log(raw, &mut facility, &mut message, &mut level) == 0 {
                        context.log(severity(level), &text(facility), text(message).trim());
                    }
                }
                _ => {}
            }
        }
        None
    }

    /// Ends a wait, now or the next one.
    pub(in crate::kafka) fn wake(&self) {
        // SAFETY: the queue is ours.
        unsafe { rd::rd_kafka_queue_yield(self.0.as_ptr()) }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        // SAFETY: our reference, given back once.
        unsafe { rd::rd_kafka_queue_destroy(self.0.as_ptr()) }
    }
}

/// The levels of syslog, as librdkafka has them.
fn severity(level: i32) -> Level {
    match level {
        ..=0 => Level::Emerg,
        1 => Level::Alert,
        2 => Level::Critical,
        3 => Level::Error,
        4 => Level::Warning,
        5 => Level::Notice,
        6 => Level::Info,
        7.. => Level::Debug,
    }
}

/// # Safety
/// `text` is NUL-terminated and alive for the call, or null.
unsafe fn text(text: *const c_char) -> String {
    match text.is_null() {
        true => String::new(),
        // SAFETY: the caller's promise.
        false => unsafe { CStr::from_ptr(text) }
            .to_string_lossy()
            .into_owned(),
    }
}

struct Event(NonNull<rd::rd_kafka_event_t>);

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: ours, given back once.
        unsafe { rd::rd_kafka_event_destroy(self.0.as_ptr()) }
    }
}

/// Reports that arrived together: of one partition, in its order.
pub(in crate::kafka) struct DeliveryReports(Event);

impl DeliveryReports {
    /// The next report, each once.
    pub(in crate::kafka) fn next(&mut self) -> Option<DeliveryReport<'_>> {
        // SAFETY: the event is alive, and what it answers lives as long.
        let message = unsafe { rd::rd_kafka_event_message_next(self.0.0.as_ptr()) };
        NonNull::new(message.cast_mut()).map(|message| DeliveryReport {
            message,
            event: PhantomData,
        })
    }
}

/// What became of one record.
pub(in crate::kafka) struct DeliveryReport<'a> {
    message: NonNull<rd::rd_kafka_message_t>,
    event: PhantomData<&'a mut DeliveryReports>,
}

impl DeliveryReport<'_> {
    fn message(&self) -> &rd::rd_kafka_message_t {
        // SAFETY: alive as long as its event.
        unsafe { self.message.as_ref() }
    }

    /// What the record was produced with.
    pub(in crate::kafka) fn opaque(&self) -> usize {
        self.message()._private as usize
    }

    /// Why it was not delivered, if so.
    pub(in crate::kafka) fn error(&self) -> Option<Code> {
        match self.message().err {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => None,
            error => Some(error.into()),
        }
    }

    pub(in crate::kafka) fn partition(&self) -> i32 {
        self.message().partition
    }

    pub(in crate::kafka) fn offset(&self) -> i64 {
        self.message().offset
    }

    /// In milliseconds since the epoch, as it stands in the log.
    pub(in crate::kafka) fn timestamp(&self) -> Option<i64> {
        let mut kind = rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is alive, `kind` is a valid place to write to.
        let millis = unsafe { rd::rd_kafka_message_timestamp(self.message.as_ptr(), &mut kind) };
        (kind != rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE && millis >= 0)
            .then_some(millis)
    }

    pub(in crate::kafka) fn topic(&self) -> &str {
        // SAFETY: a message that was produced has its topic, whose name is NUL-terminated and lives as long.
        let name = unsafe { CStr::from_ptr(rd::rd_kafka_topic_name(self.message().rkt)) };
        // We gave it, as a text.
        name.to_str().unwrap_or_default()
    }

    /// What librdkafka knows of a record whose delivery failed (`rd_kafka_message_status`).
    pub(in crate::kafka) fn persistence(&self) -> Persistence {
        // SAFETY: the message is alive.
        match unsafe { rd::rd_kafka_message_status(self.message.as_ptr()) } {
            rd::rd_kafka_msg_status_t::RD_KAFKA_MSG_STATUS_NOT_PERSISTED => {
                Persistence::NotPersisted
            }
            _ => Persistence::PossiblyPersisted,
        }
    }

    /// Copies the record, to be sent again: to the partition that was chosen for it, if one was.
    pub(in crate::kafka) fn record(&self) -> Record {
        // SAFETY: the message is alive, and nobody else looks at it.
        unsafe { message::sent(self.message.as_ptr(), self.topic()) }
    }
}
