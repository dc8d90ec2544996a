//! New epochs of a producer: a partition begins none while a record waits there that brokers may have written.
//!
//! librdkafka numbers the records of a producer under an epoch, by which brokers know again what is sent twice. What it cannot number on (a batch
//! that is refused, a gap) lets it begin a new epoch, in every partition of the client; what waited for a lost answer goes out under it as if it
//! were new, and is in its topic twice (confluentinc/librdkafka#4953, open in 2.12.1). No option prevents that. So functions of librdkafka's are
//! wrapped by the linker (`build.rs`), all of which run on its brokers' threads:
//!
//! - `rd_kafka_toppar_retry_msgq` puts a batch back into its partition's queue: if it may be written, the partition is remembered;
//! - `rd_kafka_toppar_pid_change` lets a partition begin an epoch: if it is remembered, the client fails for good instead, and nothing is sent any
//!   more; then each record is answered by what is known of it (`producer/replace`);
//! - `rd_kafka_toppar_leader_unavailable` comes before a batch is put back that a broker refused because it does not lead: it may have ceased to
//!   only after it had appended it, so that is not taken for not written, as librdkafka does;
//! - `rd_kafka_bufq_purge` ends the requests of a connection. One that was broken off because a queue was thrown away is a broken connection:
//!   librdkafka takes what was sent and not answered for not written;
//! - `rd_kafka_idemp_inflight_toppar_add` tells which client a thread is of.
//!
//! What always holds: a partition where nothing was put back since its client began takes new epochs as ever. A partition is remembered for its
//! client's life, also when all is written later: that costs a client its life at worst, and no record the truth.

#![cfg_attr(
    not(target_os = "linux"),
    expect(dead_code, reason = "elsewhere linkers do not wrap")
)]

use std::{
    collections::{HashMap, HashSet},
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
};

use rdkafka::client::{Client, ClientContext};

/// The address of a client.
type Address = usize;

#[derive(Default)]
struct Watched {
    clients: HashSet<Address>,
    /// Partitions, by librdkafka's address of each, where something was put back that may be written; and whose they are.
    unsure: HashMap<usize, Address>,
}

static WATCHED: LazyLock<Mutex<Watched>> = LazyLock::new(Mutex::default);

fn watched() -> MutexGuard<'static, Watched> {
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A client that is watched as long as this lives. It has to go before its client does, whose address another may get.
pub(in crate::kafka) struct Epochs(Address);

impl Epochs {
    /// Watches a client that was sent nothing yet.
    pub(in crate::kafka) fn of<C: ClientContext>(client: &Client<C>) -> Self {
        let address = client.native_ptr().expose_provenance();
        watched().clients.insert(address);
        Self(address)
    }
}

impl Drop for Epochs {
    fn drop(&mut self) {
        let mut watched = watched();
        watched.clients.remove(&self.0);
        watched.unsure.retain(|_, client| *client != self.0);
    }
}

/// The text of a fatal error without what librdkafka puts before that of ours.
pub(in crate::kafka) fn said(text: &str) -> &str {
    text.strip_prefix("test_fatal_error: ").unwrap_or(text)
}

#[cfg(target_os = "linux")]
mod wrapped {
    use std::{
        cell::Cell,
        ffi::{c_char, c_int, c_void},
        ptr,
    };

    use rdkafka_sys::{self as rd, rd_kafka_msg_status_t as Status, rd_kafka_resp_err_t as Code};

    use super::watched;

    // librdkafka's own are integers, and what a broker says need not be one of them.
    const NOT_PERSISTED: c_int = Status::RD_KAFKA_MSG_STATUS_NOT_PERSISTED as c_int;
    const POSSIBLY_PERSISTED: c_int = Status::RD_KAFKA_MSG_STATUS_POSSIBLY_PERSISTED as c_int;
    const TRANSPORT: c_int = Code::RD_KAFKA_RESP_ERR__TRANSPORT as c_int;
    const PURGE_QUEUE: c_int = Code::RD_KAFKA_RESP_ERR__PURGE_QUEUE as c_int;

    /// `rd_kafka_pid_t`.
    #[repr(C)]
    struct ProducerId {
        id: i64,
        epoch: i16,
    }

    thread_local! {
        /// The client whose thread this is, once it has sent something.
        static CLIENT: Cell<*mut rd::rd_kafka_t> = const { Cell::new(ptr::null_mut()) };
        /// The next batch that this thread puts back was refused by a broker that may have written it.
        static IS_UNSURE: Cell<bool> = const { Cell::new(false) };
    }

    unsafe extern "C" {
        fn __real_rd_kafka_idemp_inflight_toppar_add(
            client: *mut rd::rd_kafka_t,
            partition: *mut c_void,
        );
        fn __real_rd_kafka_toppar_leader_unavailable(
            partition: *mut c_void,
            request: *const c_char,
            error: c_int,
        );
        fn __real_rd_kafka_toppar_retry_msgq(
            partition: *mut c_void,
            queue: *mut c_void,
            counted: c_int,
            status: c_int,
        ) -> c_int;
        fn __real_rd_kafka_toppar_pid_change(
            partition: *mut c_void,
            id: ProducerId,
            first: u64,
        ) -> c_int;
        fn __real_rd_kafka_bufq_purge(broker: *mut c_void, queue: *mut c_void, error: c_int);
    }

    // SAFETY, of all that follow: each is called by librdkafka in the place of its own function, and calls that one with what it was called with,
    // but for what is said there.

    #[unsafe(no_mangle)]
    unsafe extern "C" fn __wrap_rd_kafka_idemp_inflight_toppar_add(
        client: *mut rd::rd_kafka_t,
        partition: *mut c_void,
    ) {
        CLIENT.set(client);
        // SAFETY: see above.
        unsafe { __real_rd_kafka_idemp_inflight_toppar_add(client, partition) }
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn __wrap_rd_kafka_toppar_leader_unavailable(
        partition: *mut c_void,
        request: *const c_char,
        error: c_int,
    ) {
        // Of a connection that breaks librdkafka itself knows whether it was sent.
        IS_UNSURE.set(error != TRANSPORT);
        // SAFETY: see above.
        unsafe { __real_rd_kafka_toppar_leader_unavailable(partition, request, error) }
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn __wrap_rd_kafka_toppar_retry_msgq(
        partition: *mut c_void,
        queue: *mut c_void,
        counted: c_int,
        mut status: c_int,
    ) -> c_int {
        if IS_UNSURE.take() && status == NOT_PERSISTED {
            status = POSSIBLY_PERSISTED;
        }
        if status != NOT_PERSISTED {
            let mut watched = watched();
            let client = CLIENT.get().addr();
            if watched.clients.contains(&client) {
                watched.unsure.insert(partition.addr(), client);
            }
        }
        // SAFETY: see above; any status may be given.
        unsafe { __real_rd_kafka_toppar_retry_msgq(partition, queue, counted, status) }
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn __wrap_rd_kafka_toppar_pid_change(
        partition: *mut c_void,
        id: ProducerId,
        first: u64,
    ) -> c_int {
        let client = watched().unsure.get(&partition.addr()).copied();
        let Some(client) = client else {
            // SAFETY: see above.
            return unsafe { __real_rd_kafka_toppar_pid_change(partition, id, first) };
        };
        let reason = c"records may be written whose answers were lost, and would be written again under the producer's next epoch";
        let code = Code::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
        let client = ptr::with_exposed_provenance_mut(client);
        // SAFETY: the client whose thread this is is alive, and no lock of it is held here; it copies the text. `PREV_IN_PROGRESS`: it has
        // failed already.
        let _ = unsafe { rd::rd_kafka_test_fatal_error(client, code, reason.as_ptr()) };
        // Not changed: who asked sends nothing of the partition now, and asks for a fatal error before it sends anything else.
        0
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn __wrap_rd_kafka_bufq_purge(
        broker: *mut c_void,
        queue: *mut c_void,
        error: c_int,
    ) {
        let error = if error == PURGE_QUEUE {
            TRANSPORT
        } else {
            error
        };
        // SAFETY: see above; a broken connection is what this mostly tells.
        unsafe { __real_rd_kafka_bufq_purge(broker, queue, error) }
    }
}
