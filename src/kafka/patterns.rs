//! Topics by regular expression: which are taken, and which topics they mean.
//!
//! Pure. With the classic protocol librdkafka matches them against what it knows of the cluster, with `group.protocol=consumer` brokers do;
//! here is what is decided before.

use super::ffi::Regex;
use crate::record::topic_problem;

/// The longest expression, in bytes.
const LONGEST: usize = 1000;

/// Kafka's own topics: an expression never means them. A name does.
pub(super) const INTERNAL: [&str; 3] = [
    "__consumer_offsets",
    "__transaction_state",
    "__share_group_state",
];

/// Whether a topic of a subscription is an expression. No topic can have such a name.
pub fn is_pattern(topic: &str) -> bool {
    topic.starts_with('^')
}

/// Why a topic of a subscription, a name or an expression, is not taken.
pub fn problem(topic: &str) -> Option<String> {
    if !is_pattern(topic) {
        return topic_problem(topic).map(str::to_owned);
    }
    if topic.len() > LONGEST {
        return Some(format!("must not be longer than {LONGEST} bytes"));
    }
    // Either may take the C library any amount of memory or time.
    let has_reference = topic
        .as_bytes()
        .windows(2)
        .any(|two| two[0] == b'\\' && two[1].is_ascii_digit());
    if topic.contains('{') || has_reference {
        return Some("may hold neither counts in braces nor back-references".to_owned());
    }
    let error = Regex::compile(topic).err()?;
    Some(format!("is not a regular expression: {error}"))
}

/// Whether a subscription to `topics` means the topic of this name.
pub fn mean(topics: &[String], name: &str) -> bool {
    topics.iter().any(|topic| match is_pattern(topic) {
        false => topic == name,
        true => {
            !INTERNAL.contains(&name)
                && Regex::compile(topic).is_ok_and(|regex| regex.matches(name))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_means_what_it_matches_from_its_beginning_on() {
        let topics = ["^orders[.-](eu|us)".to_owned(), "plain".to_owned()];
        for name in ["orders.eu", "orders-us", "orders.eu.old", "plain"] {
            assert!(mean(&topics, name), "{name}");
        }
        for name in ["orders.asia", "my.orders.eu", "plainer", "orders_eu", ""] {
            assert!(!mean(&topics, name), "{name}");
        }
    }

    #[test]
    fn kafkas_own_topics_are_meant_by_name_alone() {
        let [everything, name] = ["^.*", "__consumer_offsets"].map(|topic| vec![topic.to_owned()]);
        assert!(mean(&everything, "orders"));
        assert!(INTERNAL.iter().all(|name| !mean(&everything, name)));
        assert!(mean(&name, "__consumer_offsets"));
    }

    #[test]
    fn what_does_not_parse_or_may_cost_anything_is_not_taken() {
        for good in ["^a", "^", r"^a\.b$", "^(a|b)+[0-9]*", "plain"] {
            assert_eq!(problem(good), None, "{good}");
        }
        let long = format!("^{}", "a".repeat(1000));
        for (bad, why) in [
            ("^(a", "not a regular expression: Unmatched ("),
            ("^[a", "not a regular expression"),
            ("^a\0", "NUL"),
            ("^((a{1,255}){1,255}){1,255}", "counts"),
            (r"^(a*)\1", "back-references"),
            (&long, "1000 bytes"),
            ("a b", "only letters"),
        ] {
            let problem = problem(bad).unwrap_or_default();
            assert!(problem.contains(why), "{bad}: {problem:?}");
        }
    }
}
