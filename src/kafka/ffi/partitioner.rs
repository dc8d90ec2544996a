//! librdkafka's partitioners: which partition a key goes to.

use std::{ffi::c_void, ptr};

use rdkafka_sys as rd;

/// One that looks at keys (librdkafka's `partitioner`). Those that end with `_random` differ only for records without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kafka) enum Partitioner {
    Crc32,
    Murmur2,
    Fnv1a,
}

impl Partitioner {
    /// By the value of the property; absent for one that does not look at keys.
    pub(in crate::kafka) fn named(name: &str) -> Option<Self> {
        match name {
            "consistent" | "consistent_random" => Some(Self::Crc32),
            "murmur2" | "murmur2_random" => Some(Self::Murmur2),
            "fnv1a" | "fnv1a_random" => Some(Self::Fnv1a),
            _ => None,
        }
    }

    /// Where a key goes, of `count` partitions, which must be at least one.
    pub(in crate::kafka) fn partition(self, key: &[u8], count: i32) -> i32 {
        let of = match self {
            Self::Crc32 => rd::rd_kafka_msg_partitioner_consistent,
            Self::Murmur2 => rd::rd_kafka_msg_partitioner_murmur2,
            Self::Fnv1a => rd::rd_kafka_msg_partitioner_fnv1a,
        };
        let (topic, nothing) = (ptr::null(), ptr::null_mut());
        let (key, length) = (key.as_ptr().cast::<c_void>(), key.len());
        // SAFETY: these three read the key, which lives through the call, and the count; they look at no topic and no opaque.
        unsafe { of(topic, key, length, count.max(1), nothing, nothing) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_where_kafkas_other_clients_send_them() {
        // Kafka's own test vectors of murmur2: the hash of the key, its sign bit cleared.
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("abc", 479_470_107),
        ] {
            let expected = (hash & i32::MAX) % 100;
            assert_eq!(
                Partitioner::Murmur2.partition(key.as_bytes(), 100),
                expected
            );
        }
        assert_eq!(
            Partitioner::Crc32.partition(b"123456789", i32::MAX),
            (0xcbf4_3926_u32 % i32::MAX as u32) as i32
        );
    }
}
