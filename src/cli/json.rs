//! A record as one line of JSON: what `subscribe --json` prints and `publish --json` takes.
//!
//! Keys, values and header values are strings where they are UTF-8, else `{"base64": "…"}`; null is a null key, a tombstone or a null
//! header. `topic` and `offset` are printed and, on the way back, passed over; `message_id` is for the way there: Kafka does not keep it.

use anyhow::Context;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::grpc::proto;

/// See the module.
#[derive(Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    partition: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    offset: Option<i64>,
    /// Milliseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timestamp: Option<i64>,
    #[serde(default)]
    key: Option<Text>,
    #[serde(default)]
    value: Option<Text>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    headers: Vec<Header>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    message_id: String,
}

#[derive(Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Header {
    name: String,
    #[serde(default)]
    value: Option<Text>,
}

#[derive(Debug, Deserialize, Serialize, PartialEq)]
#[serde(
    untagged,
    expecting = "key, value and header values are a string, null or {\"base64\": \"…\"}"
)]
enum Text {
    Plain(String),
    Binary(Binary),
}

#[derive(Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Binary {
    base64: String,
}

impl Text {
    fn of(bytes: &Bytes) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Plain(text.to_owned()),
            Err(_) => Self::Binary(Binary {
                base64: STANDARD.encode(bytes),
            }),
        }
    }

    fn bytes(self) -> anyhow::Result<Bytes> {
        match self {
            Self::Plain(text) => Ok(text.into()),
            Self::Binary(Binary { base64 }) => Ok(STANDARD
                .decode(&base64)
                .with_context(|| format!("{base64:?} is not base64"))?
                .into()),
        }
    }
}

impl Line {
    pub(super) fn of(record: &proto::Record, offset: i64) -> Self {
        Self {
            topic: Some(record.topic.clone()),
            partition: record.partition,
            offset: Some(offset),
            timestamp: record
                .timestamp
                .map(|time| time.seconds * 1000 + i64::from(time.nanos) / 1_000_000),
            key: record.key.as_ref().map(Text::of),
            value: record.value.as_ref().map(Text::of),
            headers: record
                .headers
                .iter()
                .map(|header| Header {
                    name: header.name.clone(),
                    value: header.value.as_ref().map(Text::of),
                })
                .collect(),
            message_id: record.message_id.clone(),
        }
    }

    /// The record, for `topic`, and for `partition` if one is given.
    pub(super) fn into_record(
        self,
        topic: &str,
        partition: Option<i32>,
    ) -> anyhow::Result<proto::Record> {
        let bytes = |text: Option<Text>| text.map(Text::bytes).transpose();
        Ok(proto::Record {
            topic: topic.to_owned(),
            partition: partition.or(self.partition),
            key: bytes(self.key)?,
            value: bytes(self.value)?,
            headers: self
                .headers
                .into_iter()
                .map(|header| {
                    Ok(proto::Header {
                        name: header.name,
                        value: bytes(header.value)?,
                    })
                })
                .collect::<anyhow::Result<_>>()?,
            timestamp: self.timestamp.map(|millis| prost_types::Timestamp {
                seconds: millis.div_euclid(1000),
                nanos: (millis.rem_euclid(1000) * 1_000_000) as i32,
            }),
            message_id: self.message_id,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_the_journey_through_a_line() {
        let record = proto::Record {
            topic: "t".into(),
            partition: Some(3),
            key: Some(Bytes::from_static(b"\xff\x00")),
            value: None,
            headers: vec![
                proto::Header {
                    name: "a".into(),
                    value: Some(Bytes::from_static(b"text")),
                },
                proto::Header {
                    name: "a".into(),
                    value: None,
                },
            ],
            timestamp: Some(prost_types::Timestamp {
                seconds: 1_700_000_000,
                nanos: 123_000_000,
            }),
            message_id: "id".into(),
        };
        let line = serde_json::to_string(&Line::of(&record, 7)).unwrap();
        let back: Line = serde_json::from_str(&line).unwrap();
        assert_eq!(back.into_record("t", None).unwrap(), record);
    }

    #[test]
    fn absent_null_and_empty_keep_apart() {
        let read = |line: &str| {
            let line: Line = serde_json::from_str(line).unwrap();
            let record = line.into_record("t", None).unwrap();
            (record.key, record.value)
        };
        assert_eq!(read("{}"), (None, None));
        assert_eq!(
            read(r#"{"key": null, "value": ""}"#),
            (None, Some("".into()))
        );
        assert_eq!(
            read(r#"{"key": {"base64": ""}, "value": {"base64": "/wA="}}"#),
            (Some("".into()), Some(Bytes::from_static(b"\xff\0")))
        );
    }

    #[test]
    fn a_value_of_another_kind_says_what_is_expected() {
        for line in [r#"{"value": 5}"#, r#"{"value": {"base64": "", "x": 1}}"#] {
            let error = serde_json::from_str::<Line>(line).unwrap_err();
            assert!(error.to_string().contains("base64"), "{error}");
        }
        let line: Line = serde_json::from_str(r#"{"value": {"base64": "%"}}"#).unwrap();
        assert!(line.into_record("t", None).is_err());
    }

    #[test]
    fn a_key_with_a_typing_mistake_is_an_error() {
        assert!(serde_json::from_str::<Line>(r#"{"valeu": "x"}"#).is_err());
    }
}
