//! The cluster, and the topics and the group that were asked for: that they are there, and what this client may do with them.

mod acls;
mod group;
mod topics;

use super::{
    Topic,
    report::{Category, Report},
};
use crate::{
    config::Config,
    kafka::inspect::{ClusterFacts, Node, Survey},
};

/// What was asked for, beside what was found.
pub(super) struct Asked<'a> {
    pub(super) config: &'a Config,
    pub(super) topics: &'a [Topic],
    pub(super) group: Option<&'a str>,
}

impl Asked<'_> {
    pub(super) fn rows(&self, report: &mut Report, survey: &Survey) {
        self.not_asked(report);
        let why = match &survey.cluster {
            Some(facts) => {
                cluster(report, facts);
                "no broker that the cluster tells of can be used from here"
            }
            None => {
                let why = "no broker let this client in";
                report.skipped(Category::Cluster, "brokers", why);
                why
            }
        };
        match &survey.answers {
            Some(answers) => {
                let brokers = survey.cluster.as_ref().map(|facts| facts.brokers.len());
                self.topics(report, answers, brokers.unwrap_or(0));
                self.group(report, answers);
            }
            None => self.nobody(report, why),
        }
    }

    fn nobody(&self, report: &mut Report, why: &str) {
        for topic in self.topics {
            report.skipped(Category::Topics, &topic.name, why);
            report.skipped(Category::Acls, format!("topic {}", topic.name), why);
        }
        if let Some(group) = self.group {
            report.skipped(Category::Acls, format!("group {group}"), why);
            report.skipped(Category::Group, group, why);
        }
    }

    /// Nothing is guessed: without a name there is nothing to look at.
    fn not_asked(&self, report: &mut Report) {
        if self.topics.is_empty() {
            report.skipped(Category::Topics, "topics", "none is named; use --topic");
        }
        if self.topics.is_empty() && self.group.is_none() {
            report.skipped(
                Category::Acls,
                "rights",
                "neither a topic nor a group is named",
            );
        }
        if self.group.is_none() {
            report.skipped(Category::Group, "group", "none is named; use --group");
        }
    }
}

fn cluster(report: &mut Report, facts: &ClusterFacts) {
    let brokers: Vec<String> = facts.brokers.iter().map(named).collect();
    report.ok(
        Category::Cluster,
        "brokers",
        format!(
            "{} in cluster {}: {}",
            counted(facts.brokers.len(), "broker"),
            facts.id.as_deref().unwrap_or("without an id"),
            brokers.join(", ")
        ),
    );
}

fn named(node: &Node) -> String {
    format!("{} at {}:{}", node.id, node.host, node.port)
}

fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}
