//! Which record of a batch is the one that its broker refused as invalid, by the settings of its topic.
//!
//! Pure. A broker names the guilty ones (KIP-467), but librdkafka 2.12.1 reports all of the batch alike when it is one, and frees the broker's words
//! before a report is read (`rd_kafka_message_produce_errstr`).

use super::limits::Settings;
use crate::{
    failure::{Failure, Reason},
    record::Record,
};

/// What is wrong with a record, if it is known to be.
pub(super) fn of(settings: &Settings, record: &Record, now: i64) -> Option<Failure> {
    let setting = |name: &str| settings.get(name).map(String::as_str);
    let is_compacted = setting("cleanup.policy").is_some_and(|policy| policy.contains("compact"));
    let topic = &record.topic;
    if record.key.is_none() && is_compacted {
        return Some(invalid(
            record,
            format!(
                "Kafka refused the record: topic {topic:?} is compacted, and takes none without a key"
            ),
        ));
    }
    // With the other type the broker stamps records itself.
    let is_ours = setting("message.timestamp.type").is_none_or(|kind| kind == "CreateTime");
    let timestamp = record.timestamp.filter(|_| is_ours)?;
    let (name, distance) = match timestamp > now {
        true => (
            "message.timestamp.after.max.ms",
            timestamp.saturating_sub(now),
        ),
        false => (
            "message.timestamp.before.max.ms",
            now.saturating_sub(timestamp),
        ),
    };
    let longest: i64 = setting(name)?.parse().ok()?;
    (distance > longest).then(|| {
        invalid(record, format!(
            "Kafka refused the record: its timestamp is {distance} ms from now, and topic {topic:?} allows {longest} ({name})"
        ))
    })
}

fn invalid(record: &Record, message: String) -> Failure {
    Failure::not_persisted(Reason::InvalidRecord, message).with_metadata("topic", &record.topic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_guilty_by_its_topics_settings() {
        const NOW: i64 = 1_000_000;
        let record = |key: Option<&'static [u8]>, timestamp| Record {
            topic: "t".to_owned(),
            key: key.map(Into::into),
            timestamp,
            ..Record::default()
        };
        let keyed = |timestamp| record(Some(b""), Some(timestamp));
        let after = ("message.timestamp.after.max.ms", "1000");
        let before = ("message.timestamp.before.max.ms", "5000");
        let stamped = ("message.timestamp.type", "LogAppendTime");
        let rows = [
            (vec![], record(None, Some(0)), None),
            (vec![("cleanup.policy", "delete")], record(None, None), None),
            (vec![("cleanup.policy", "compact")], keyed(0), None),
            (
                vec![("cleanup.policy", "compact")],
                record(None, None),
                Some("without a key"),
            ),
            (
                vec![("cleanup.policy", "compact,delete")],
                record(None, None),
                Some("without a key"),
            ),
            (vec![after, before], record(None, None), None),
            (vec![after, before], keyed(NOW + 1000), None),
            (
                vec![after, before],
                keyed(NOW + 1001),
                Some("1001 ms from now"),
            ),
            (vec![after, before], keyed(NOW - 5000), None),
            (
                vec![after, before],
                keyed(NOW - 5001),
                Some("5001 ms from now"),
            ),
            (vec![after, before, stamped], keyed(0), None),
            (vec![after], keyed(0), None),
        ];
        for (settings, record, expected) in rows {
            let owned = settings
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            let failure = of(&owned.collect(), &record, NOW);
            match expected {
                None => assert_eq!(failure, None, "{settings:?}"),
                Some(words) => {
                    let failure = failure.unwrap();
                    assert_eq!(failure.reason, Reason::InvalidRecord);
                    assert!(failure.message.contains(words), "{failure}");
                }
            }
        }
    }
}
