//! New epochs of a producer: none while a record waits to be sent again that brokers may have written.
//!
//! librdkafka numbers the records of a producer under an epoch, by which brokers know again what is sent twice. What it cannot number on (a batch
//! that is refused, a gap) lets it begin a new epoch, for every partition of the client; what waited for a lost answer goes out under it as if it
//! were new, and is in its topic twice (confluentinc/librdkafka#4953, open in 2.12.1). No option prevents that. So three of librdkafka's functions
//! are wrapped by the linker (`build.rs`). Two tell that a batch which may be written goes back into its queue, one of them for what librdkafka
//! takes for not written: a broker that ceases to lead answers so for what it has appended, too. The third would begin the epoch, and fails the
//! client for good instead when it has seen such batches; then each record is answered by what is known of it (`producer/replace`).
//!
//! What always holds: a client that has never put such a batch back begins epochs as ever. Which client a batch is of is not known here, so
//! batches of all of them count; that costs a client its life at worst, and no record the truth.

#![cfg_attr(
    not(target_os = "linux"),
    expect(dead_code, reason = "elsewhere linkers do not wrap")
)]

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rdkafka::client::{Client, ClientContext};
use rdkafka_sys as rd;

/// How many batches that may be written went back into their queues, of all clients.
static PUT_BACK: AtomicU64 = AtomicU64::new(0);

/// What that was when a client began, by its address.
static WATCHED: Mutex<BTreeMap<usize, u64>> = Mutex::new(BTreeMap::new());

fn watched() -> MutexGuard<'static, BTreeMap<usize, u64>> {
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A client that is watched as long as this lives. It has to go before its client does, whose address another may get.
pub(in crate::kafka) struct Epochs(usize);

impl Epochs {
    /// Watches a client that was sent nothing yet.
    pub(in crate::kafka) fn of<C: ClientContext>(client: &Client<C>) -> Self {
        let address = client.native_ptr().addr();
        watched().insert(address, PUT_BACK.load(Ordering::Acquire));
        Self(address)
    }
}

impl Drop for Epochs {
    fn drop(&mut self) {
        watched().remove(&self.0);
    }
}

/// The text of a fatal error without what librdkafka puts before that of ours.
pub(in crate::kafka) fn said(text: &str) -> &str {
    text.strip_prefix("test_fatal_error: ").unwrap_or(text)
}

/// Whether a record may wait to be sent again that was written. Not of a client that is not watched: a bench's, or one of the tests.
fn may_have_written(client: *mut rd::rd_kafka_t) -> bool {
    let began = watched().get(&client.addr()).copied();
    began.is_some_and(|began| began != PUT_BACK.load(Ordering::Acquire))
}

#[cfg(target_os = "linux")]
mod wrapped {
    use std::{
        cell::Cell,
        ffi::{c_char, c_int, c_void},
        sync::atomic::Ordering,
    };

    use rdkafka_sys as rd;

    use super::{PUT_BACK, may_have_written};

    type Status = rd::rd_kafka_msg_status_t;

    thread_local! {
        /// The next batch that this thread puts back was refused by a broker that may have written it.
        static IS_UNSURE: Cell<bool> = const { Cell::new(false) };
    }

    unsafe extern "C" {
        fn __real_rd_kafka_toppar_leader_unavailable(
            partition: *mut c_void,
            request: *const c_char,
            error: rd::rd_kafka_resp_err_t,
        );

        fn __real_rd_kafka_toppar_retry_msgq(
            partition: *mut c_void,
            queue: *mut c_void,
            counted: c_int,
            status: Status,
        ) -> c_int;

        fn __real_rd_kafka_idemp_drain_epoch_bump0(
            client: *mut rd::rd_kafka_t,
            may_abort: u8,
            error: rd::rd_kafka_resp_err_t,
            format: *const c_char,
            ...
        );
    }

    /// Called instead of librdkafka's function of that name, on a broker's thread, when a request shows that another broker leads. If that is one
    /// to write, its records go back into their queue next.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn __wrap_rd_kafka_toppar_leader_unavailable(
        partition: *mut c_void,
        request: *const c_char,
        error: rd::rd_kafka_resp_err_t,
    ) {
        // Of a connection that breaks librdkafka itself knows whether it was sent.
        let is_refused = error != rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__TRANSPORT;
        IS_UNSURE.set(is_refused);
        // SAFETY: what was called, with what it was called with.
        unsafe { __real_rd_kafka_toppar_leader_unavailable(partition, request, error) }
    }

    /// Called instead of librdkafka's function of that name, on a broker's thread, when the records of a request go back into their queue.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn __wrap_rd_kafka_toppar_retry_msgq(
        partition: *mut c_void,
        queue: *mut c_void,
        counted: c_int,
        status: Status,
    ) -> c_int {
        let mut status = status;
        if IS_UNSURE.take() && status == Status::RD_KAFKA_MSG_STATUS_NOT_PERSISTED {
            status = Status::RD_KAFKA_MSG_STATUS_POSSIBLY_PERSISTED;
        }
        if status != Status::RD_KAFKA_MSG_STATUS_NOT_PERSISTED {
            PUT_BACK.fetch_add(1, Ordering::AcqRel);
        }
        // SAFETY: what was called, with what it was called with or another status.
        unsafe { __real_rd_kafka_toppar_retry_msgq(partition, queue, counted, status) }
    }

    /// Called instead of librdkafka's function of that name, on a broker's thread without a lock, when a client is to begin a new epoch. What
    /// follows `_format` in the call is for a line of its debug log, and left where it is: who is called does not clean it up.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn __wrap_rd_kafka_idemp_drain_epoch_bump0(
        client: *mut rd::rd_kafka_t,
        may_abort: u8,
        error: rd::rd_kafka_resp_err_t,
        _format: *const c_char,
    ) {
        if may_have_written(client) {
            // From here on no thread of the client's sends: none has seen the new epoch yet, and all look for this before they send.
            let reason = c"records may be written whose answers were lost, and would be written again under the producer's next epoch";
            let code = rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
            // SAFETY: the client is alive, it calls this; it copies the text. `PREV_IN_PROGRESS`: it has failed already.
            let _ = unsafe { rd::rd_kafka_test_fatal_error(client, code, reason.as_ptr()) };
        } else {
            // SAFETY: what was called, with a text of the same meaning.
            unsafe {
                __real_rd_kafka_idemp_drain_epoch_bump0(
                    client,
                    may_abort,
                    error,
                    c"a batch failed, or records are missing".as_ptr(),
                );
            }
        }
    }
}
