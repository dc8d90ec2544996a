//! The group: its coordinator, and whether our consumers could join.

use super::{
    super::report::{Category, Report},
    Asked, counted, named,
};
use crate::{
    config::GroupProtocol,
    kafka::inspect::{Answers, Denial, GroupFacts, Operation, denial},
};

/// How our consumers share partitions out.
const ASSIGNOR: &str = "cooperative-sticky";

impl Asked<'_> {
    pub(super) fn group(&self, report: &mut Report, answers: &Answers) {
        let (Some(name), Some(answer)) = (self.group, &answers.group) else {
            return;
        };
        let check = format!("group {name}");
        let kind = format!("--group {name}");
        let facts = match answer {
            Ok(facts) => facts,
            Err(words) => {
                report.skipped(
                    Category::Acls,
                    check,
                    "the group's coordinator does not answer",
                );
                return report.failed(
                    Category::Group,
                    name,
                    format!("its coordinator does not answer: {words}"),
                    "Look whether all brokers are up and whether the topic __consumer_offsets has leaders.",
                );
            }
        };
        match &facts.error {
            Some((code, _)) if denial(*code) == Denial::Forbidden => {
                let words = "this client may not use it";
                report.failed(
                    Category::Acls,
                    check,
                    words,
                    self.grant(&[Operation::Read], &kind),
                );
                report.skipped(
                    Category::Group,
                    name,
                    "this client may not see it (see ACLs)",
                );
            }
            Some((code, _)) if denial(*code) == Denial::Unknown => {
                let why = "these brokers do not describe groups";
                report.skipped(Category::Acls, check, why);
                report.skipped(Category::Group, name, why);
            }
            Some((_, words)) => {
                report.skipped(
                    Category::Acls,
                    check,
                    "the coordinator does not describe the group",
                );
                report.failed(
                    Category::Group,
                    name,
                    words,
                    "Run the check again; if it stays so, look into the coordinator's log.",
                );
            }
            None => {
                self.compare(
                    report,
                    &check,
                    &kind,
                    &[Operation::Read],
                    facts.may.as_deref(),
                );
                let protocol = self.config.consume.group_protocol;
                state(report, name, facts, protocol);
            }
        }
    }
}

fn state(report: &mut Report, name: &str, facts: &GroupFacts, protocol: GroupProtocol) {
    const CATEGORY: Category = Category::Group;
    let coordinator = facts.coordinator.as_ref().map(named).unwrap_or_default();
    if facts.state == "Dead" {
        let detail = format!(
            "it does not exist yet; its first subscriber makes it, at broker {coordinator}"
        );
        return report.ok(CATEGORY, name, detail);
    }
    let detail = format!(
        "{}, {}, led by broker {coordinator}",
        facts.state,
        counted(facts.members, "member")
    );
    if facts.is_classic && facts.members > 0 && protocol == GroupProtocol::Consumer {
        return report.failed(
            CATEGORY,
            name,
            format!("{detail}; they are of the classic protocol, and may not let one in that is of the consumer protocol"),
            "Use another group, or stop those members first: brokers take a group over from Java's own assignors, but not from librdkafka's cooperative-sticky.",
        );
    }
    if facts.is_classic
        && facts.members > 0
        && !facts.assignor.is_empty()
        && facts.assignor != ASSIGNOR
    {
        return report.failed(
            CATEGORY,
            name,
            format!("{detail}; its members share partitions by \"{}\", and would not let one in that does so by \"{ASSIGNOR}\"", facts.assignor),
            "Use another group, or stop those members first; members of librdkafka or Java that are meant to stay need partition.assignment.strategy with cooperative-sticky.",
        );
    }
    report.ok(CATEGORY, name, detail);
}

#[cfg(test)]
mod tests {
    use super::{super::super::report::Status, *};

    fn status(state: &'static str, members: usize, assignor: &str, is_classic: bool) -> Status {
        with(GroupProtocol::Classic, state, members, assignor, is_classic)
    }

    fn with(
        protocol: GroupProtocol,
        state: &'static str,
        members: usize,
        assignor: &str,
        is_classic: bool,
    ) -> Status {
        let facts = GroupFacts {
            error: None,
            state,
            is_classic,
            assignor: assignor.into(),
            members,
            coordinator: None,
            may: None,
        };
        let mut report = Report::default();
        super::state(&mut report, "g", &facts, protocol);
        report.rows()[0].status
    }

    #[test]
    fn only_members_that_would_not_let_ours_in_are_a_failure() {
        assert_eq!(status("Stable", 2, "range", true), Status::Failed);
        assert_eq!(status("Stable", 2, ASSIGNOR, true), Status::Ok);
        assert_eq!(status("Empty", 0, "", true), Status::Ok);
        assert_eq!(status("Dead", 0, "", true), Status::Ok);
        // Of the newer protocol (KIP-848): brokers translate between the two unless told not to.
        assert_eq!(status("Stable", 2, "uniform", false), Status::Ok);
        let consumer = GroupProtocol::Consumer;
        assert_eq!(with(consumer, "Stable", 2, ASSIGNOR, true), Status::Failed);
        assert_eq!(with(consumer, "Empty", 0, "", true), Status::Ok);
        assert_eq!(with(consumer, "Stable", 2, "uniform", false), Status::Ok);
    }
}
