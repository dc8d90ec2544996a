//! Topics: that they are there, that every partition can be written, and what their settings mean for what is published.

use super::{
    super::report::{Category, Report},
    Asked, counted,
};
use crate::{
    config::Publish,
    kafka::inspect::{Answers, Denial, TopicFacts, denial},
};

/// What a batch of one record adds to its key, value and headers at least.
const BATCH: usize = 128;

impl Asked<'_> {
    pub(super) fn topics(&self, report: &mut Report, answers: &Answers, brokers: usize) {
        let found = match &answers.topics {
            Ok(found) => found,
            Err(words) => {
                for topic in self.topics {
                    report.failed(
                        Category::Topics,
                        &topic.name,
                        format!("the cluster does not answer for it: {words}"),
                        "Run the check again; if it stays so, look into the broker's log.",
                    );
                    let check = format!("topic {}", topic.name);
                    report.skipped(Category::Acls, check, "the cluster does not answer");
                }
                return;
            }
        };
        for topic in self.topics {
            if let Some(facts) = found.iter().find(|facts| facts.name == topic.name) {
                self.topic(report, facts, answers, brokers);
                self.rights(report, topic, facts);
            }
        }
    }

    fn topic(
        &self,
        report: &mut Report,
        facts: &TopicFacts,
        answers: &Answers,
        count_of_brokers: usize,
    ) {
        const CATEGORY: Category = Category::Topics;
        let name = &facts.name;
        let brokers = &self.config.kafka.bootstrap_servers;
        if let Some((code, words)) = &facts.error {
            match denial(*code) {
                Denial::Missing if self.config.kafka.allow_auto_create_topics => report.warning(
                    CATEGORY,
                    name,
                    "it does not exist; its first use creates it, where the brokers allow that",
                    format!("Create it, to choose its partitions and replicas: kafka-topics.sh --bootstrap-server {brokers} --create --topic {name}"),
                ),
                Denial::Missing => report.failed(
                    CATEGORY,
                    name,
                    "it does not exist",
                    format!("Correct the name, or create it: kafka-topics.sh --bootstrap-server {brokers} --create --topic {name} --partitions … --replication-factor …"),
                ),
                Denial::Forbidden => report.skipped(CATEGORY, name, "this client may not see it (see ACLs)"),
                Denial::Unknown | Denial::Other => report.failed(
                    CATEGORY,
                    name,
                    words,
                    "Correct the name; if it is right, run the check again and look into the broker's log.",
                ),
            }
            return;
        }
        let count = facts.partitions.len();
        let numbers = |wanted: &dyn Fn(usize) -> bool| -> String {
            let all = (0..count).filter(|place| wanted(*place));
            let all: Vec<String> = all
                .map(|place| facts.partitions[place].partition.to_string())
                .collect();
            all.join(", ")
        };
        let leaderless = numbers(&|place| !facts.partitions[place].has_leader);
        if !leaderless.is_empty() {
            return report.failed(
                CATEGORY,
                name,
                format!("no broker leads partition {leaderless} of {count}"),
                "Start the brokers that hold replicas of it: until one leads it, nothing is published to it or read from it.",
            );
        }
        let settings = answers.settings.get(name);
        let setting = |key: &str| settings.and_then(|found| found.get(key)?.parse::<usize>().ok());
        let (min, max) = (setting("min.insync.replicas"), setting("max.message.bytes"));
        let asked = self.topics.iter().find(|topic| topic.name == *name);
        if let Some(min) = min
            && asked.is_none_or(|topic| topic.writes)
        {
            let short = numbers(&|place| facts.partitions[place].in_sync < min);
            if !short.is_empty() {
                return report.failed(
                    CATEGORY,
                    name,
                    format!("fewer than min.insync.replicas={min} replicas of partition {short} are in sync"),
                    "Start the brokers that hold the other replicas: until then nothing is published to it.",
                );
            }
        }
        let replicas = facts
            .partitions
            .iter()
            .map(|one| one.replicas)
            .min()
            .unwrap_or(0);
        let detail = format!(
            "{}, {}{}",
            counted(count, "partition"),
            counted(replicas, "replica"),
            readable(min, max)
        );
        let is_one_broker = count_of_brokers < 2;
        match concern(&self.config.publish, replicas, min, max, is_one_broker) {
            Some((words, hint)) => {
                report.warning(CATEGORY, name, format!("{detail}; {words}"), hint);
            }
            None => report.ok(CATEGORY, name, detail),
        }
    }
}

/// What to think about with a topic that works.
fn concern(
    publish: &Publish,
    replicas: usize,
    min: Option<usize>,
    max: Option<usize>,
    is_one_broker: bool,
) -> Option<(String, String)> {
    if let Some(max) = max
        && max < publish.max_record_bytes.saturating_add(BATCH)
    {
        return Some((
            format!("records of up to publish.max_record_bytes={} are accepted, and the topic refuses the largest of them", publish.max_record_bytes),
            "Raise the topic's max.message.bytes, or lower publish.max_record_bytes, so that a record that is too large is told at once.".to_owned(),
        ));
    }
    if is_one_broker {
        return None;
    }
    if replicas < 2 {
        return Some((
            "a broker that is lost takes records with it".to_owned(),
            "Give the topic more replicas (kafka-reassign-partitions.sh), three for what must not be lost.".to_owned(),
        ));
    }
    if min == Some(1) {
        return Some((
            "a record counts as published when one broker alone has it".to_owned(),
            "Set the topic's min.insync.replicas to 2, so that a published record survives the loss of a broker.".to_owned(),
        ));
    }
    None
}

fn readable(min: Option<usize>, max: Option<usize>) -> String {
    match (min, max) {
        (Some(min), Some(max)) => format!(", min.insync.replicas={min}, max.message.bytes={max}"),
        _ => "; its settings are not readable for this client (DescribeConfigs)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{
        super::super::report::{Row, Status},
        *,
    };
    use crate::{
        config::{Config, Sources, load},
        kafka::inspect::PartitionFacts,
    };

    fn config() -> Config {
        let sources = Sources {
            flags: vec![("kafka.bootstrap_servers".into(), "localhost:1".into())],
            ..Sources::default()
        };
        load(&sources).unwrap().config
    }

    /// The row of a topic of two partitions in a cluster of three brokers.
    fn row(has_leader: bool, replicas: usize, in_sync: usize, settings: &[(&str, &str)]) -> Row {
        let partitions = [0, 1].map(|partition| PartitionFacts {
            partition,
            has_leader: has_leader || partition == 0,
            replicas,
            in_sync,
        });
        let facts = TopicFacts {
            name: "orders".into(),
            error: None,
            partitions: partitions.into(),
            may: None,
        };
        let settings: BTreeMap<String, String> = settings
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let answers = Answers {
            topics: Ok(Vec::new()),
            settings: [("orders".to_owned(), settings)].into(),
            group: None,
        };
        let config = config();
        let asked = Asked {
            config: &config,
            topics: &[],
            group: None,
        };
        let mut report = Report::default();
        asked.topic(&mut report, &facts, &answers, 3);
        report.rows().remove(0)
    }

    #[test]
    fn a_topic_to_which_nothing_can_be_published_has_failed() {
        let safe = [
            ("min.insync.replicas", "2"),
            ("max.message.bytes", "1048588"),
        ];
        assert_eq!(row(true, 3, 3, &safe).status, Status::Ok);
        let leaderless = row(false, 3, 3, &safe);
        assert_eq!(leaderless.status, Status::Failed);
        assert!(leaderless.detail.contains("partition 1 of 2"));
        let short = row(true, 3, 1, &safe);
        assert_eq!(short.status, Status::Failed);
        assert!(short.detail.contains("min.insync.replicas=2"), "{short:?}");
    }

    #[test]
    fn a_topic_that_may_lose_or_refuse_records_is_a_warning() {
        for (replicas, min, max, words) in [
            (1, "1", "1048588", "lost"),
            (3, "1", "1048588", "one broker alone"),
            (3, "2", "1000000", "refuses the largest"),
        ] {
            let settings = [("min.insync.replicas", min), ("max.message.bytes", max)];
            let row = row(true, replicas, replicas, &settings);
            assert_eq!(row.status, Status::Warning, "{row:?}");
            assert!(row.detail.contains(words), "{row:?}");
        }
        // What cannot be read is not guessed.
        let unread = row(true, 3, 3, &[]);
        assert_eq!(unread.status, Status::Ok);
        assert!(unread.detail.contains("not readable"), "{unread:?}");
    }
}
