//! Producing: topic handles and header lists.

use std::{
    ffi::{CString, c_char, c_void},
    ptr::{self, NonNull},
};

use bytes::Bytes;
use rdkafka::{
    TopicPartitionList,
    client::{Client, ClientContext},
    types::{RDKafkaErrorCode as Code, RDKafkaRespErr},
};
use rdkafka_sys as rd;

use crate::record::{Header, Record};

/// No partition chosen: the partitioner decides (`RD_KAFKA_PARTITION_UA`).
const UNASSIGNED: i32 = -1;

/// A librdkafka topic handle of one client. `_client` keeps that client alive, since a handle must be destroyed before it.
pub(in crate::kafka) struct Topic<K> {
    handle: NonNull<rd::rd_kafka_topic_t>,
    _client: K,
}

// SAFETY: librdkafka's handles are reference-counted and internally locked; they may be used from any thread.
unsafe impl<K: Send> Send for Topic<K> {}
// SAFETY: as above.
unsafe impl<K: Sync> Sync for Topic<K> {}

impl<K> Topic<K> {
    /// Opens the handle of `name`, with topic properties of its own; `keep` must own the client behind `client`. A handle that is open
    /// already is opened again as it is.
    pub(in crate::kafka) fn open<C: ClientContext>(
        client: &Client<C>,
        keep: K,
        name: &str,
        properties: &[(&str, String)],
    ) -> Result<Self, Code> {
        let name = CString::new(name).map_err(|_| Code::InvalidTopic)?;
        let rk = client.native_ptr();
        let text = |text: &str| CString::new(text).map_err(|_| Code::InvalidArgument);
        let properties = properties
            .iter()
            .map(|(property, value)| Ok((text(property)?, text(value)?)))
            .collect::<Result<Vec<_>, Code>>()?;
        let configuration = match properties.as_slice() {
            [] => ptr::null_mut(),
            // SAFETY: the client is alive; the copy is ours until it is handed over below.
            _ => unsafe { rd::rd_kafka_default_topic_conf_dup(rk) },
        };
        for (property, value) in &properties {
            let mut error = [0_u8; 256];
            let (text, size) = (error.as_mut_ptr().cast(), error.len());
            let (property, value) = (property.as_ptr(), value.as_ptr());
            // SAFETY: the configuration is alive, texts are NUL-terminated and copied, the buffer of errors has the size given.
            let set =
                unsafe { rd::rd_kafka_topic_conf_set(configuration, property, value, text, size) };
            if set != rd::rd_kafka_conf_res_t::RD_KAFKA_CONF_OK {
                let said = String::from_utf8_lossy(&error);
                tracing::error!(topic = ?name, "a setting of the topic is not taken: {}", said.trim_end_matches('\0'));
            }
        }
        // SAFETY: the client is alive for the call, the name is NUL-terminated; a null configuration means the default one, another is
        // librdkafka's from here on, whatever comes of it.
        let handle = unsafe { rd::rd_kafka_topic_new(rk, name.as_ptr(), configuration) };
        match NonNull::new(handle) {
            Some(handle) => Ok(Self {
                handle,
                _client: keep,
            }),
            // SAFETY: reads this thread's last error.
            None => Err(unsafe { rd::rd_kafka_last_error() }.into()),
        }
    }

    /// Copies the record into librdkafka's queue. `opaque` comes back with its delivery report, exactly once, if this is `Ok`.
    /// A record without a timestamp is stamped by librdkafka now.
    pub(in crate::kafka) fn produce<C: ClientContext>(
        &self,
        client: &Client<C>,
        record: &Record,
        opaque: usize,
    ) -> Result<(), Code> {
        let headers = Headers::build(&record.headers)?;
        let (value, value_length) = raw(&record.value);
        let (key, key_length) = raw(&record.key);
        let arguments = [
            argument(rd::rd_kafka_vtype_t::RD_KAFKA_VTYPE_RKT, |u| {
                u.rkt = self.handle.as_ptr()
            }),
            argument(rd::rd_kafka_vtype_t::RD_KAFKA_VTYPE_PARTITION, |u| {
                u.i32_ = record.partition.unwrap_or(UNASSIGNED)
            }),
            argument(rd::rd_kafka_vtype_t::RD_KAFKA_VTYPE_MSGFLAGS, |u| {
                u.i = rd::RD_KAFKA_MSG_F_COPY
            }),
            argument(rd::rd_kafka_vtype_t::RD_KAFKA_VTYPE_VALUE, |u| {
                u.mem = rd::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 {
                    ptr: value,
                    size: value_length,
                }
            }),
            argument(rd::rd_kafka_vtype_t::RD_KAFKA_VTYPE_KEY, |u| {
                u.mem = rd::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 {
                    ptr: key,
                    size: key_length,
                }
            }),
            argument(rd::rd_kafka_vtype_t::RD_KAFKA_VTYPE_OPAQUE, |u| {
                u.ptr = opaque as *mut c_void
            }),
            argument(rd::rd_kafka_vtype_t::RD_KAFKA_VTYPE_TIMESTAMP, |u| {
                u.i64_ = record.timestamp.unwrap_or(0)
            }),
            argument(rd::rd_kafka_vtype_t::RD_KAFKA_VTYPE_HEADERS, |u| {
                u.headers = headers.as_ptr()
            }),
        ];
        // Without headers the last argument is left out.
        let count = arguments.len() - usize::from(headers.is_empty());
        // SAFETY: every pointer among the arguments lives through the call, and COPY makes librdkafka keep none of them
        // but the headers, which it owns from a success on.
        let error =
            unsafe { rd::rd_kafka_produceva(client.native_ptr(), arguments.as_ptr(), count) };
        if error.is_null() {
            headers.release();
            return Ok(());
        }
        // SAFETY: the error is ours to read once and destroy.
        let code = unsafe {
            let code = rd::rd_kafka_error_code(error);
            rd::rd_kafka_error_destroy(error);
            code
        };
        Err(code.into())
    }
}

impl<K> Drop for Topic<K> {
    fn drop(&mut self) {
        // SAFETY: opened by `open`, destroyed once, and the client is still alive in `_client`.
        unsafe { rd::rd_kafka_topic_destroy(self.handle.as_ptr()) }
    }
}

fn argument(
    vtype: rd::rd_kafka_vtype_t,
    set: impl FnOnce(&mut rd::rd_kafka_vu_s__bindgen_ty_1),
) -> rd::rd_kafka_vu_t {
    // The padding member covers the whole union; what `set` does not write is never read by librdkafka.
    let mut u = rd::rd_kafka_vu_s__bindgen_ty_1 { _pad: [0; 64] };
    set(&mut u);
    rd::rd_kafka_vu_t { vtype, u }
}

/// Null for an absent value; not null, with length 0, for an empty one.
fn raw(bytes: &Option<Bytes>) -> (*mut c_void, usize) {
    match bytes {
        None => (ptr::null_mut(), 0),
        Some(bytes) => (bytes.as_ptr() as *mut c_void, bytes.len()),
    }
}

/// A librdkafka header list that is ours until a produce call succeeds.
struct Headers(*mut rd::rd_kafka_headers_t);

impl Headers {
    fn build(headers: &[Header]) -> Result<Self, Code> {
        if headers.is_empty() {
            return Ok(Self(ptr::null_mut()));
        }
        // SAFETY: allocates a list; freed by `drop` or handed over by `release`.
        let list = Self(unsafe { rd::rd_kafka_headers_new(headers.len()) });
        for header in headers {
            let (value, length) = raw(&header.value);
            // SAFETY: librdkafka copies the name and the value; their lengths are given, so no terminator is needed.
            let code = unsafe {
                rd::rd_kafka_header_add(
                    list.0,
                    header.name.as_ptr().cast::<c_char>(),
                    header.name.len() as isize,
                    value,
                    length as isize,
                )
            };
            if code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                return Err(code.into());
            }
        }
        Ok(list)
    }

    fn is_empty(&self) -> bool {
        self.0.is_null()
    }

    fn as_ptr(&self) -> *mut rd::rd_kafka_headers_t {
        self.0
    }

    fn release(mut self) {
        self.0 = ptr::null_mut();
    }
}

impl Drop for Headers {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: still ours, destroyed once.
            unsafe { rd::rd_kafka_headers_destroy(self.0) }
        }
    }
}

/// Throws away what is queued and in flight; each record gets its report (`rd_kafka_purge`).
pub(in crate::kafka) fn purge<C: ClientContext>(client: &Client<C>) {
    purge_what(
        client,
        rd::RD_KAFKA_PURGE_F_QUEUE | rd::RD_KAFKA_PURGE_F_INFLIGHT,
    );
}

/// Throws away what is queued, what was never sent and what waits to be sent again. Does not wait for it: threads of librdkafka's may be busy.
pub(in crate::kafka) fn purge_queue<C: ClientContext>(client: &Client<C>) {
    purge_what(
        client,
        rd::RD_KAFKA_PURGE_F_QUEUE | rd::RD_KAFKA_PURGE_F_NON_BLOCKING,
    );
}

fn purge_what<C: ClientContext>(client: &Client<C>, what: i32) {
    // SAFETY: the client is alive for the call.
    let code = unsafe { rd::rd_kafka_purge(client.native_ptr(), what) };
    if code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
        tracing::warn!(error = %Code::from(code), "the producer could not be purged");
    }
}

/// Sends no more of these partitions until they go on; what is unanswered stays so, and what waits for too long fails as ever.
/// Waits for librdkafka's main thread.
pub(in crate::kafka) fn pause<C: ClientContext>(
    client: &Client<C>,
    partitions: &TopicPartitionList,
) {
    // SAFETY: the client and the list are alive for the call; what is said of each partition is not needed.
    unsafe { rd::rd_kafka_pause_partitions(client.native_ptr(), partitions.ptr()) };
}

/// Goes on with these partitions, at once. Waits for librdkafka's main thread.
pub(in crate::kafka) fn resume<C: ClientContext>(
    client: &Client<C>,
    partitions: &TopicPartitionList,
) {
    // SAFETY: as above. The threads of brokers may sleep for up to a second: it is a flush that wakes them, and one without any time
    // does nothing else.
    unsafe {
        rd::rd_kafka_resume_partitions(client.native_ptr(), partitions.ptr());
        rd::rd_kafka_flush(client.native_ptr(), 0);
    }
}
