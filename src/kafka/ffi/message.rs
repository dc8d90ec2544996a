//! Messages: copies of what librdkafka has fetched.

use std::{
    ffi::{CStr, c_void},
    ptr, slice,
    sync::Arc,
};

use bytes::Bytes;
use rdkafka::types::{RDKafkaErrorCode as Code, RDKafkaRespErr};
use rdkafka_sys as rd;

use crate::record::{Consumed, Header, Record, TimestampKind};

/// Copies a message out of librdkafka's fetch buffer, which would else be pinned as long as one record of it is held.
///
/// # Safety
/// `message` is alive and came from a consumer.
pub(super) unsafe fn read(message: &rd::rd_kafka_message_t) -> Result<Consumed, (Code, String)> {
    if message.err != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
        // SAFETY: the text belongs to the message and is copied here.
        let text = unsafe { CStr::from_ptr(rd::rd_kafka_message_errstr(message)) };
        return Err((message.err.into(), text.to_string_lossy().into_owned()));
    }
    // SAFETY: librdkafka gives pointer and length of what it holds; null means absent.
    let (key, value) = unsafe {
        (
            view(message.key, message.key_len),
            view(message.payload, message.len),
        )
    };
    let mut kind = rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
    // SAFETY: the message is alive, `kind` is a valid place to write to.
    let millis = unsafe { rd::rd_kafka_message_timestamp(message, &mut kind) };
    let timestamp = match kind {
        rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_CREATE_TIME => {
            Some((millis, TimestampKind::Create))
        }
        rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME => {
            Some((millis, TimestampKind::LogAppend))
        }
        _ => None,
    };
    // SAFETY: the message is alive.
    let headers = unsafe { headers(message) };
    Ok(Consumed::new(
        message.offset,
        timestamp,
        join(key.unwrap_or_default(), value.unwrap_or_default()),
        // Kafka's own lengths are 32 bits long.
        key.map(|key| key.len() as u32),
        value.is_some(),
        headers,
    ))
}

/// Copies a record out of its delivery report.
///
/// # Safety
/// `message` is alive, and nobody else looks at it.
pub(super) unsafe fn sent(message: *mut rd::rd_kafka_message_t, topic: &str) -> Record {
    // SAFETY: the caller's promise; librdkafka gives pointer and length of what it holds, null means absent, and all is copied.
    unsafe {
        let timestamp = timestamp_of_failed(message);
        let raw = &*message;
        Record {
            topic: topic.to_owned(),
            partition: Some(raw.partition).filter(|partition| *partition >= 0),
            key: view(raw.key, raw.key_len).map(Bytes::copy_from_slice),
            value: view(raw.payload, raw.len).map(Bytes::copy_from_slice),
            headers: headers(raw),
            timestamp,
            // Whoever needs to know it has been told it before.
            message_id: String::new(),
        }
    }
}

/// The timestamp that a record was sent with. Of a message with an error librdkafka tells none (`rd_kafka_message_timestamp`), so the error is
/// taken off while it is asked.
///
/// # Safety
/// `message` is alive, and nobody else looks at it.
unsafe fn timestamp_of_failed(message: *mut rd::rd_kafka_message_t) -> Option<i64> {
    let mut kind = rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
    // SAFETY: as above; `kind` is a valid place to write to.
    let millis = unsafe {
        let error = (*message).err;
        (*message).err = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
        let millis = rd::rd_kafka_message_timestamp(message, &mut kind);
        (*message).err = error;
        millis
    };
    (kind == rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_CREATE_TIME).then_some(millis)
}

fn join(key: &[u8], value: &[u8]) -> Arc<[u8]> {
    let mut joined = Arc::<[u8]>::new_uninit_slice(key.len() + value.len());
    let (first, second) = Arc::get_mut(&mut joined)
        .expect("nobody else has it yet")
        .split_at_mut(key.len());
    first.write_copy_of_slice(key);
    second.write_copy_of_slice(value);
    // SAFETY: both parts were just written, and there is no third.
    unsafe { joined.assume_init() }
}

/// # Safety
/// `message` is alive.
unsafe fn headers(message: &rd::rd_kafka_message_t) -> Vec<Header> {
    let mut list = ptr::null_mut();
    // SAFETY: the list stays the message's own.
    let code = unsafe { rd::rd_kafka_message_headers(message, &mut list) };
    let mut headers = Vec::new();
    if code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
        return headers;
    }
    loop {
        let (mut name, mut value, mut length) = (ptr::null(), ptr::null(), 0);
        // SAFETY: the index runs until librdkafka says that there is no more.
        let code = unsafe {
            rd::rd_kafka_header_get_all(list, headers.len(), &mut name, &mut value, &mut length)
        };
        if code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return headers;
        }
        // SAFETY: the name is NUL-terminated, the value has the given length; both are copied.
        let (name, value) = unsafe { (CStr::from_ptr(name), view(value, length)) };
        headers.push(Header {
            name: name.to_string_lossy().into_owned(),
            value: value.map(Bytes::copy_from_slice),
        });
    }
}

/// # Safety
/// `data` is null or points to `length` bytes that outlive `'a`.
unsafe fn view<'a>(data: *const c_void, length: usize) -> Option<&'a [u8]> {
    if data.is_null() {
        None
    } else {
        // SAFETY: the caller's promise.
        Some(unsafe { slice::from_raw_parts(data.cast(), length) })
    }
}
