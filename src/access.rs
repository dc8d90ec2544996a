//! Who a caller is, and what the rules let it do.
//!
//! Pure. Not here: how a caller proves who it is (`grpc::identity`). What always holds: without a rule everybody may do everything that is
//! not administration from afar; with any rule, only what a rule allows.

use std::sync::Arc;

use crate::{
    config::{Operation, Rule, matches, matches_any},
    failure::{Failure, Reason},
};

/// A caller, as far as it has proved who it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// `uid:1000`, `certificate:CN=orders`, `token:orders`; none for a stranger.
    pub names: Vec<String>,
    /// It came over the Unix socket or loopback.
    pub is_local: bool,
    /// Which connection it came by.
    pub connection: u64,
    /// It runs as the sidecar's own user, or as root, on this machine.
    pub is_owner: bool,
}

/// The rules of the process; a cheap handle.
#[derive(Clone, Debug)]
pub struct Access(Arc<[Rule]>);

impl Access {
    /// What `rules` allow.
    pub fn new(rules: &[Rule]) -> Self {
        Self(rules.into())
    }

    /// Whether everybody may do everything.
    pub fn is_open(&self) -> bool {
        self.0.is_empty()
    }

    /// May the caller write to the topic?
    pub fn publish(&self, caller: &Caller, topic: &str) -> Result<(), Failure> {
        let allows = |rule: &Rule| matches_any(&rule.topics, topic);
        match self.allows(caller, Operation::Publish, allows) {
            true => Ok(()),
            false => Err(Failure::not_persisted(
                Reason::NotAllowed,
                format!(
                    "{} may not publish to topic {topic:?} (access.rules)",
                    caller.shown()
                ),
            )
            .with_metadata("topic", topic)),
        }
    }

    /// May the caller read the topic as the group? A regular expression may mean any topic, whatever it looks like, so only who may read every
    /// topic may use one.
    pub fn subscribe(&self, caller: &Caller, group: &str, topic: &str) -> Result<(), Failure> {
        let may_read = |rule: &Rule| match topic.starts_with('^') {
            false => matches_any(&rule.topics, topic),
            true => rule.topics.iter().any(|pattern| pattern == "*"),
        };
        let allows = |rule: &Rule| may_read(rule) && matches_any(&rule.groups, group);
        match self.allows(caller, Operation::Subscribe, allows) {
            true => Ok(()),
            false => Err(Failure::new(
                Reason::NotAllowed,
                format!(
                    "{} may not subscribe to topic {topic:?} as group {group:?} (access.rules)",
                    caller.shown()
                ),
            )
            .with_metadata("topic", topic)
            .with_metadata("group", group)),
        }
    }

    /// May the caller be in the group at all, to read any topic?
    pub fn belong(&self, caller: &Caller, group: &str) -> Result<(), Failure> {
        let allows = |rule: &Rule| matches_any(&rule.groups, group);
        match self.allows(caller, Operation::Subscribe, allows) {
            true => Ok(()),
            false => Err(Failure::new(
                Reason::NotAllowed,
                format!(
                    "{} may not subscribe as group {group:?} (access.rules)",
                    caller.shown()
                ),
            )
            .with_metadata("group", group)),
        }
    }

    /// May the caller look at the sidecar's state, drain it and change its log? Never from afar; the sidecar's own user always.
    pub fn admin(&self, caller: &Caller) -> Result<(), Failure> {
        if caller.is_local && (caller.is_owner || self.allows(caller, Operation::Admin, |_| true)) {
            return Ok(());
        }
        let why = match caller.is_local {
            true => "may not use AdminService (access.rules)",
            false => "may not use AdminService: it is served on the Unix socket and loopback only",
        };
        Err(Failure::new(
            Reason::NotAllowed,
            format!("{} {why}", caller.shown()),
        ))
    }

    fn allows(&self, caller: &Caller, operation: Operation, what: impl Fn(&Rule) -> bool) -> bool {
        self.is_open()
            || self.0.iter().any(|rule| {
                rule.operations.contains(&operation)
                    && rule.principals.iter().any(|principal| caller.is(principal))
                    && what(rule)
            })
    }
}

impl Caller {
    fn is(&self, principal: &str) -> bool {
        match principal {
            "*" => true,
            "anonymous" => self.names.is_empty(),
            pattern => self.names.iter().any(|name| matches(pattern, name)),
        }
    }

    fn shown(&self) -> String {
        match self.names.as_slice() {
            [] => "an anonymous caller".to_owned(),
            names => names.join(" and "),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn caller(name: &str) -> Caller {
        Caller {
            names: vec![name.to_owned()],
            is_local: true,
            ..Caller::default()
        }
    }

    fn rule(principal: &str, operation: Operation, topics: &[&str], groups: &[&str]) -> Rule {
        let all = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Rule {
            principals: vec![principal.to_owned()],
            operations: vec![operation],
            topics: all(topics),
            groups: all(groups),
        }
    }

    #[test]
    fn without_rules_all_is_allowed_but_administration_from_afar() {
        let access = Access::new(&[]);
        let stranger = Caller::default();
        assert!(access.publish(&stranger, "t").is_ok());
        assert!(access.subscribe(&stranger, "g", "t").is_ok());
        assert_eq!(
            access.admin(&stranger).unwrap_err().reason,
            Reason::NotAllowed
        );
        let local = Caller {
            is_local: true,
            ..Caller::default()
        };
        assert!(access.admin(&local).is_ok());
    }

    #[test]
    fn with_a_rule_only_what_it_allows_is_allowed() {
        let access = Access::new(&[rule("uid:1", Operation::Publish, &["orders.*"], &[])]);
        assert!(access.publish(&caller("uid:1"), "orders.new").is_ok());
        assert!(access.publish(&caller("uid:1"), "orders").is_err());
        assert!(access.publish(&caller("uid:10"), "orders.new").is_err());
        assert!(
            access
                .subscribe(&caller("uid:1"), "g", "orders.new")
                .is_err()
        );
        assert!(access.admin(&caller("uid:1")).is_err());
        let owner = Caller {
            is_owner: true,
            ..caller("uid:5")
        };
        assert!(access.admin(&owner).is_ok() && access.publish(&owner, "orders.new").is_err());
    }

    #[test]
    fn a_topic_and_a_group_are_allowed_by_one_rule_together() {
        let access = Access::new(&[
            rule("*", Operation::Subscribe, &["a"], &["ga"]),
            rule("*", Operation::Subscribe, &["b"], &["gb"]),
        ]);
        assert!(access.subscribe(&Caller::default(), "ga", "a").is_ok());
        let failure = access.subscribe(&Caller::default(), "gb", "a").unwrap_err();
        assert!(
            failure.message.contains("\"a\"") && failure.message.contains("\"gb\""),
            "{failure}"
        );
    }

    #[test]
    fn a_regular_expression_is_for_who_may_read_every_topic() {
        let may = |topics: &[&str], topic: &str| {
            let access = Access::new(&[rule("*", Operation::Subscribe, topics, &["g"])]);
            access.subscribe(&Caller::default(), "g", topic).is_ok()
        };
        assert!(may(&["a", "*"], "^secret|a"));
        assert!(!may(&["*a"], "^secret|a"));
        assert!(!may(&["^*", "a"], "^a"));
        assert!(!may(&["**"], "^a"), "only what is plainly every topic");
    }

    #[test]
    fn a_star_is_everybody_and_anonymous_only_who_has_no_name() {
        let anonymous = Access::new(&[rule("anonymous", Operation::Publish, &["*"], &[])]);
        assert!(anonymous.publish(&Caller::default(), "t").is_ok());
        assert!(anonymous.publish(&caller("token:x"), "t").is_err());
        let certificates = Access::new(&[rule(
            "certificate:*,O=acme",
            Operation::Publish,
            &["*"],
            &[],
        )]);
        assert!(
            certificates
                .publish(&caller("certificate:CN=a,O=acme"), "t")
                .is_ok()
        );
        assert!(
            certificates
                .publish(&caller("certificate:CN=a,O=other"), "t")
                .is_err()
        );
    }

    proptest! {
        #[test]
        fn a_pattern_matches_what_its_stars_can_stand_for(parts in proptest::collection::vec("[ab.]{0,3}", 1..5), fill in "[ab.]{0,4}") {
            let text = parts.join(&fill);
            let pattern = parts.join("*");
            prop_assert!(matches(&pattern, &text));
        }

        #[test]
        fn a_pattern_agrees_with_the_slow_definition(pattern in "[ab*]{0,6}", text in "[ab]{0,8}") {
            fn slow(pattern: &[u8], text: &[u8]) -> bool {
                match pattern.split_first() {
                    None => text.is_empty(),
                    Some((b'*', rest)) => (0..=text.len()).any(|at| slow(rest, &text[at..])),
                    Some((byte, rest)) => text.first() == Some(byte) && slow(rest, &text[1..]),
                }
            }
            prop_assert_eq!(matches(&pattern, &text), slow(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
