//! Rights: what this client may do, as the brokers themselves say it (KIP-430), beside what it needs. Nothing is tried out.

use super::{
    super::{
        Topic,
        principal::principal,
        report::{Category, Report},
    },
    Asked,
};
use crate::kafka::inspect::{Denial, Operation, TopicFacts, denial};

impl Asked<'_> {
    pub(super) fn rights(&self, report: &mut Report, topic: &Topic, facts: &TopicFacts) {
        const CATEGORY: Category = Category::Acls;
        let check = format!("topic {}", topic.name);
        let kind = format!("--topic {}", topic.name);
        match &facts.error {
            Some((code, _)) if denial(*code) == Denial::Forbidden => {
                let needed = topic.operations();
                let words = "this client may do nothing with it, not even see whether it exists";
                report.failed(CATEGORY, check, words, self.grant(&needed, &kind));
            }
            Some(_) => report.skipped(CATEGORY, check, "the topic is not there"),
            None => self.compare(
                report,
                &check,
                &kind,
                &topic.operations(),
                facts.may.as_deref(),
            ),
        }
    }

    pub(super) fn compare(
        &self,
        report: &mut Report,
        check: &str,
        kind: &str,
        needed: &[Operation],
        may: Option<&[Operation]>,
    ) {
        const CATEGORY: Category = Category::Acls;
        let Some(may) = may else {
            let why = "the broker does not tell what this client may do (Kafka before 2.3)";
            return report.skipped(CATEGORY, check, why);
        };
        let (held, missing): (Vec<Operation>, Vec<Operation>) =
            needed.iter().partition(|operation| may.contains(operation));
        if missing.is_empty() {
            return report.ok(
                CATEGORY,
                check,
                format!("this client may {}", verbs(&held, " and ")),
            );
        }
        let words = format!("this client may not {}", verbs(&missing, " or "));
        report.failed(CATEGORY, check, words, self.grant(&missing, kind));
    }

    /// The command that gives the rights.
    pub(super) fn grant(&self, operations: &[Operation], kind: &str) -> String {
        let operations: Vec<String> = operations
            .iter()
            .map(|operation| format!("--operation {operation:?}"))
            .collect();
        format!(
            "Grant it: kafka-acls.sh --bootstrap-server {} --add --allow-principal '{}' {} {kind}",
            self.config.kafka.bootstrap_servers,
            principal(&self.config.kafka),
            operations.join(" ")
        )
    }
}

fn verbs(operations: &[Operation], between: &str) -> String {
    let verbs: Vec<&str> = operations
        .iter()
        .map(|operation| match operation {
            Operation::Read => "read",
            Operation::Write => "write",
            Operation::DescribeConfigs => "read settings",
        })
        .collect();
    verbs.join(between)
}
