//! One admin request and its answer, and how the parts of an answer are read.

use std::{
    ffi::{CStr, c_char},
    slice,
    time::Duration,
};

use rdkafka::{
    client::{Client, ClientContext},
    types::{RDKafkaErrorCode as Code, RDKafkaRespErr},
};
use rdkafka_sys as rd;

/// Longer than the request's own bound, by which librdkafka answers with the reason.
const GRACE: Duration = Duration::from_secs(2);

/// An answer, or why there is none.
pub(super) type Answer<T> = Result<T, (Code, String)>;

/// Asks with `send`, waits for the answer, and hands its event to `read`. Any broker answers what is not about a group; librdkafka would
/// ask the controller, which may be the one that is away, unless `broker` names another.
///
/// # Safety
/// `send` makes one admin request of the kind `op` with what it is given; `read` keeps nothing of the event.
pub(super) unsafe fn ask<C: ClientContext, T>(
    client: &Client<C>,
    op: rd::rd_kafka_admin_op_t,
    broker: Option<i32>,
    timeout: Duration,
    send: impl FnOnce(
        *mut rd::rd_kafka_t,
        *const rd::rd_kafka_AdminOptions_t,
        *mut rd::rd_kafka_queue_t,
    ),
    read: impl FnOnce(*mut rd::rd_kafka_event_t) -> T,
) -> Answer<T> {
    let rk = client.native_ptr();
    // SAFETY: the client is alive. Queue, options and event are ours, each destroyed once, after their last use; librdkafka keeps its own
    // reference to the queue of a request whose answer did not come. The buffer of errors has the size given.
    unsafe {
        let queue = rd::rd_kafka_queue_new(rk);
        let options = rd::rd_kafka_AdminOptions_new(rk, op);
        let mut error = [0_u8; 256];
        rd::rd_kafka_AdminOptions_set_request_timeout(
            options,
            millis(timeout),
            error.as_mut_ptr().cast(),
            error.len(),
        );
        if let Some(broker) = broker {
            rd::rd_kafka_AdminOptions_set_broker(
                options,
                broker,
                error.as_mut_ptr().cast(),
                error.len(),
            );
        }
        // Not every request has it; one that has not says so, and that is all.
        let no_rights = rd::rd_kafka_AdminOptions_set_include_authorized_operations(options, 1);
        if !no_rights.is_null() {
            rd::rd_kafka_error_destroy(no_rights);
        }
        send(rk, options, queue);
        rd::rd_kafka_AdminOptions_destroy(options);
        let event = rd::rd_kafka_queue_poll(queue, millis(timeout + GRACE));
        rd::rd_kafka_queue_destroy(queue);
        if event.is_null() {
            return Err((Code::OperationTimedOut, "no answer in time".to_owned()));
        }
        let code = rd::rd_kafka_event_error(event);
        let answer = match code {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(read(event)),
            _ => Err(said(code, text(rd::rd_kafka_event_error_string(event)))),
        };
        rd::rd_kafka_event_destroy(event);
        answer
    }
}

/// # Safety
/// `error` is null or alive.
pub(super) unsafe fn failure(error: *const rd::rd_kafka_error_t) -> Option<(Code, String)> {
    if error.is_null() {
        return None;
    }
    // SAFETY: the caller's promise; the text is copied.
    let (code, said) = unsafe {
        let code = rd::rd_kafka_error_code(error);
        (code, text(rd::rd_kafka_error_string(error)))
    };
    (code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| self::said(code, said))
}

/// Some answers have a code and no words, or only the request's name before a colon.
fn said(code: RDKafkaRespErr, words: String) -> (Code, String) {
    let code = Code::from(code);
    match words.trim_end() {
        "" => (code, code.to_string()),
        known if known.ends_with(':') => (code, format!("{known} {code}")),
        _ => (code, words),
    }
}

/// # Safety
/// `data` is null or NUL-terminated and alive.
pub(super) unsafe fn text(data: *const c_char) -> String {
    if data.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(data) }
        .to_string_lossy()
        .into_owned()
}

/// # Safety
/// `first` is null or the first of `count`, which outlive `'a`.
pub(super) unsafe fn array<'a, T>(first: *const T, count: usize) -> &'a [T] {
    if first.is_null() || count == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { slice::from_raw_parts(first, count) }
}

pub(super) fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}
