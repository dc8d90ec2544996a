//! Queues of a consumer: its events, and each partition's records.

use std::{
    ffi::{CString, c_void},
    mem::MaybeUninit,
    ptr::{self, NonNull},
    slice,
    thread::Thread,
};

use rdkafka::{
    TopicPartitionList,
    client::{Client, ClientContext},
    types::{RDKafkaErrorCode as Code, RDKafkaRespErr},
};
use rdkafka_sys as rd;

use super::message;
use crate::record::Consumed;

/// The queue of a consumer's events. It must be dropped before its consumer.
pub(in crate::kafka) struct EventQueue(NonNull<rd::rd_kafka_queue_t>);

// SAFETY: the queue is internally locked.
unsafe impl Send for EventQueue {}

impl EventQueue {
    /// The queue that `client` is polled on; `None` for one without a group.
    pub(in crate::kafka) fn of<C: ClientContext>(client: &Client<C>) -> Option<Self> {
        // SAFETY: the client is alive; the answer is a reference of our own, or null.
        NonNull::new(unsafe { rd::rd_kafka_queue_get_consumer(client.native_ptr()) }).map(Self)
    }

    /// Whether nothing waits.
    pub(in crate::kafka) fn is_empty(&self) -> bool {
        // SAFETY: the queue is ours.
        unsafe { rd::rd_kafka_queue_length(self.0.as_ptr()) == 0 }
    }

    /// Begins to commit; the result arrives on this queue, as an offset-commit event. The crate's asynchronous commit asks for no reply,
    /// and librdkafka then only tells a callback that the crate does not set.
    pub(in crate::kafka) fn commit<C: ClientContext>(
        &self,
        client: &Client<C>,
        commits: &TopicPartitionList,
    ) -> Result<(), Code> {
        // SAFETY: the client, the list and the queue are alive; librdkafka copies the list.
        let code = unsafe {
            rd::rd_kafka_commit_queue(
                client.native_ptr(),
                commits.ptr(),
                self.0.as_ptr(),
                None,
                ptr::null_mut(),
            )
        };
        match code {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
            code => Err(code.into()),
        }
    }
}

/// What stands beside each offset of a list, as it is: others may have written it, and the crate panics on what is not UTF-8.
pub(in crate::kafka) fn metadata(list: &TopicPartitionList) -> Vec<Vec<u8>> {
    // SAFETY: the list is alive; its array has the length that it says, and each element's metadata the size that it says, or is null.
    unsafe {
        let list = &*list.ptr();
        let length = usize::try_from(list.cnt).unwrap_or(0);
        (0..length)
            .map(|index| {
                let element = &*list.elems.add(index);
                match element.metadata.is_null() {
                    true => Vec::new(),
                    false => slice::from_raw_parts(element.metadata.cast(), element.metadata_size)
                        .to_vec(),
                }
            })
            .collect()
    }
}

impl Drop for EventQueue {
    fn drop(&mut self) {
        // SAFETY: our reference, given back once.
        unsafe { rd::rd_kafka_queue_destroy(self.0.as_ptr()) }
    }
}

/// The fetch queue of one partition, split from the consumer's main queue. It must be dropped before its consumer.
pub(in crate::kafka) struct PartitionQueue {
    queue: NonNull<rd::rd_kafka_queue_t>,
    /// Read by the callback; freed after the callback is switched off.
    wake: *mut Thread,
}

// SAFETY: the queue is internally locked, and the thread handle is only read.
unsafe impl Send for PartitionQueue {}

impl PartitionQueue {
    /// Splits the queue of a partition, and unparks `wake` when it becomes non-empty. To be exact it must come before the
    /// assignment: messages that were forwarded earlier come out of the main queue.
    pub(in crate::kafka) fn split<C: ClientContext>(
        client: &Client<C>,
        topic: &str,
        partition: i32,
        wake: Thread,
    ) -> Option<Self> {
        let topic = CString::new(topic).ok()?;
        // SAFETY: the client is alive, the name is NUL-terminated; the answer is a reference of our own, or null.
        let queue = unsafe {
            rd::rd_kafka_queue_get_partition(client.native_ptr(), topic.as_ptr(), partition)
        };
        let queue = NonNull::new(queue)?;
        let wake = Box::into_raw(Box::new(wake));
        // SAFETY: the queue is ours; the opaque lives until `drop` has switched the callback off.
        unsafe {
            rd::rd_kafka_queue_forward(queue.as_ptr(), ptr::null_mut());
            rd::rd_kafka_queue_cb_event_enable(queue.as_ptr(), Some(unpark), wake.cast());
        }
        Some(Self { queue, wake })
    }

    /// Whether nothing waits.
    pub(in crate::kafka) fn is_empty(&self) -> bool {
        // SAFETY: the queue is ours.
        unsafe { rd::rd_kafka_queue_length(self.queue.as_ptr()) == 0 }
    }

    /// Takes up to `max` records that are waiting and hands each to `take`; never blocks. Returns how many there were.
    pub(in crate::kafka) fn take(
        &self,
        max: usize,
        mut take: impl FnMut(Result<Consumed, (Code, String)>),
    ) -> usize {
        const MOST: usize = 256;
        let mut messages = [const { MaybeUninit::<*mut rd::rd_kafka_message_t>::uninit() }; MOST];
        // SAFETY: the array has room for what is asked for; the timeout of 0 makes the call return at once.
        let count = unsafe {
            rd::rd_kafka_consume_batch_queue(
                self.queue.as_ptr(),
                0,
                messages.as_mut_ptr().cast(),
                max.min(MOST),
            )
        };
        let count = usize::try_from(count).unwrap_or(0);
        for taken in &messages[..count] {
            // SAFETY: librdkafka wrote the first `count` entries; each message is ours until it is destroyed, once, here.
            unsafe {
                let taken = taken.assume_init();
                take(message::read(&*taken));
                rd::rd_kafka_message_destroy(taken);
            }
        }
        count
    }
}

impl Drop for PartitionQueue {
    fn drop(&mut self) {
        // SAFETY: librdkafka calls back under the queue's lock, which switching off takes too: afterwards nobody reads `wake`.
        unsafe {
            rd::rd_kafka_queue_cb_event_enable(self.queue.as_ptr(), None, ptr::null_mut());
            rd::rd_kafka_queue_destroy(self.queue.as_ptr());
            drop(Box::from_raw(self.wake));
        }
    }
}

unsafe extern "C" fn unpark(_: *mut rd::rd_kafka_t, wake: *mut c_void) {
    // SAFETY: the opaque is the `Thread` that `split` boxed, alive while the callback is on.
    unsafe { &*wake.cast::<Thread>() }.unpark();
}
