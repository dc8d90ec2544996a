//! Counts what a message holds before it is decoded: an empty record is two bytes of it, and a hundred times as many in memory.
//!
//! It reads what the generated code would, and keeps nothing.

use bytes::Buf;
use prost::{
    Message,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};

use crate::{
    failure::{Failure, Reason},
    grpc::proto,
    record::{Header, RECORD_OVERHEAD, Usage},
};

/// A message that carries records.
pub(in crate::grpc) trait Request: Message + Default {
    /// The tags that lead to its records, and on to their headers.
    const HEADERS: &'static [u32];
}

impl Request for proto::PublishRequest {
    const HEADERS: &'static [u32] = &[1, 5];
}

impl Request for proto::PublishStreamRequest {
    const HEADERS: &'static [u32] = &[2, 2, 5];
}

#[derive(Debug, Default, PartialEq)]
struct Count {
    records: u64,
    headers: u64,
}

/// Decodes a message, unless it holds more than may be in flight.
pub(super) fn decode<M: Request>(message: bytes::Bytes, most: Usage) -> Result<M, Failure> {
    let malformed = || Failure::invalid(Reason::InvalidRequest, "message", "is not well-formed");
    let mut count = Count::default();
    count.pass(&message, M::HEADERS).ok_or_else(malformed)?;
    let Count { records, headers } = count;
    let least = Usage {
        records,
        bytes: records * RECORD_OVERHEAD as u64 + headers * size_of::<Header>() as u64,
    };
    if !Usage::default().fits(least, most) {
        return Err(Failure::invalid(
            Reason::InvalidRequest,
            "records",
            format!(
                "{records} records with {headers} headers never fit the {} records and {} bytes that may be in flight; send fewer at once",
                most.records, most.bytes
            ),
        ));
    }
    M::decode(message).map_err(|_| malformed())
}

impl Count {
    /// Counts what is found at the end of `path`, and one step before it. Nothing for what is malformed.
    fn pass(&mut self, mut message: &[u8], path: &[u32]) -> Option<()> {
        let Some((&wanted, path)) = path.split_first() else {
            return Some(());
        };
        while message.has_remaining() {
            let (tag, wire_type) = decode_key(&mut message).ok()?;
            if tag != wanted || wire_type != WireType::LengthDelimited {
                skip_field(wire_type, tag, &mut message, DecodeContext::default()).ok()?;
                continue;
            }
            let length = decode_varint(&mut message).ok()?;
            let (field, rest) = message.split_at_checked(length.try_into().ok()?)?;
            message = rest;
            match path.len() {
                0 => self.headers += 1,
                1 => self.records += 1,
                _ => {}
            }
            self.pass(field, path)?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const MOST: Usage = Usage {
        records: 10,
        bytes: 10_000,
    };

    fn count<M: Request>(message: &[u8]) -> Option<Count> {
        let mut count = Count::default();
        count.pass(message, M::HEADERS).map(|()| count)
    }

    fn records(headers: &[usize]) -> Vec<proto::Record> {
        let record = |&count| proto::Record {
            topic: "topic".to_owned(),
            value: Some(Bytes::from_static(&[8; 40])),
            headers: vec![Default::default(); count],
            ..Default::default()
        };
        headers.iter().map(record).collect()
    }

    fn requests(headers: &[usize]) -> [Vec<u8>; 2] {
        let records = records(headers);
        let batch = proto::PublishBatch {
            sequence: 7,
            records: records.clone(),
            ack_level: 1,
        };
        let message = proto::publish_stream_request::Message::Batch(batch);
        let batch = proto::PublishStreamRequest {
            message: Some(message),
        };
        let call = proto::PublishRequest {
            records,
            ack_level: 1,
        };
        [call.encode_to_vec(), batch.encode_to_vec()]
    }

    fn decoded(request: &proto::PublishRequest) -> Count {
        let headers = |record: &proto::Record| record.headers.len() as u64;
        Count {
            records: request.records.len() as u64,
            headers: request.records.iter().map(headers).sum(),
        }
    }

    proptest! {
        #[test]
        fn what_is_sent_is_counted(headers in vec(0_usize..5, 0..20)) {
            let [call, batch] = requests(&headers);
            let expected = Count {
                records: headers.len() as u64,
                headers: headers.iter().sum::<usize>() as u64,
            };
            for counted in [count::<proto::PublishRequest>(&call), count::<proto::PublishStreamRequest>(&batch)] {
                prop_assert_eq!(counted.as_ref(), Some(&expected));
            }
        }

        // Small numbers are the keys and lengths of what is looked for.
        #[test]
        fn whatever_can_be_decoded_is_counted_as_it_is_decoded(bytes in vec(prop_oneof![0_u8..60, any::<u8>()], 0..80)) {
            if let Ok(request) = proto::PublishRequest::decode(&bytes[..]) {
                prop_assert_eq!(count::<proto::PublishRequest>(&bytes), Some(decoded(&request)));
            }
        }
    }

    #[test]
    fn what_could_never_be_in_flight_is_not_decoded() {
        // By records, and by the bytes of headers.
        for (headers, fits) in [
            ([0; 10].as_slice(), true),
            (&[0; 11], false),
            (&[100], true),
            (&[200], false),
        ] {
            let [call, batch] = requests(headers).map(Bytes::from);
            let refused = [
                decode::<proto::PublishRequest>(call, MOST).err(),
                decode::<proto::PublishStreamRequest>(batch, MOST).err(),
            ];
            for refused in refused {
                assert_eq!(refused.is_none(), fits, "{headers:?}: {refused:?}");
                assert!(refused.is_none_or(|failure| failure.message.contains("send fewer")));
            }
        }
    }

    #[test]
    fn a_record_that_is_longer_than_what_holds_it_is_malformed() {
        // A batch of four bytes, in which a record of a hundred begins.
        let mut message = vec![2 << 3 | 2, 4, 2 << 3 | 2, 100, 0, 0];
        message.resize(200, 0);
        let refused = decode::<proto::PublishStreamRequest>(message.into(), MOST).unwrap_err();
        assert!(refused.message.contains("well-formed"));
    }
}
