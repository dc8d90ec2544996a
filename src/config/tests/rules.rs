//! `access.rules`: how rules are written, in a file and on one line, and what is no rule.

use super::{super::*, *};

const RULE: &str = "{principals: ['uid:1000', 'token:orders'], operations: [publish, subscribe], topics: ['orders.*'], groups: ['g']}";

#[test]
fn rules_are_written_in_the_file_or_on_one_line() {
    let file = format!("access:\n  rules:\n    - {RULE}\n");
    let line = format!("[{RULE}]");
    let environment = [BROKERS, ("OUTRIGGER_ACCESS__RULES", line.as_str())];
    for loaded in [
        from_file(&file),
        load_layers(None, &environment, &[]).0.unwrap(),
        load_layers(None, &[BROKERS], &[("access.rules", &line)])
            .0
            .unwrap(),
    ] {
        let [rule] = loaded.config.access.as_slice() else {
            panic!("{:?}", loaded.config.access);
        };
        assert_eq!(rule.principals, ["uid:1000", "token:orders"]);
        assert_eq!(rule.operations, [Operation::Publish, Operation::Subscribe]);
        assert_eq!((rule.topics.len(), rule.groups.len()), (1, 1));
        let again = from_file(&loaded.show());
        assert_eq!(again.config.access, loaded.config.access);
    }
    assert!(from_file("").config.access.is_empty());
}

#[test]
fn what_is_no_rule_is_told_with_its_number() {
    for (rules, said) in [
        (
            "[{operations: [publish], topics: [a]}]",
            "rule 1: needs principals",
        ),
        (
            "[{principals: ['*'], topics: [a]}]",
            "needs principals and operations",
        ),
        (
            "[{principals: ['*'], operations: [publish]}]",
            "needs topics",
        ),
        (
            "[{principals: ['*'], operations: [subscribe], topics: [a]}]",
            "needs groups",
        ),
        (
            "[{principals: ['*'], operations: [publish], topics: [a], groups: [g]}]",
            "needs groups exactly",
        ),
        (
            "[{principals: [root], operations: [publish], topics: [a]}]",
            "is no principal",
        ),
        (
            "[{principals: ['*'], operations: [write], topics: [a]}]",
            "is no operation",
        ),
        (
            "[{principals: ['*'], operations: [admin], topic: [a]}]",
            "topic is no field",
        ),
        (
            "[{principals: '*', operations: [admin]}]",
            "principals is not a list",
        ),
        ("[a]", "rule 1: a text is not a map"),
        ("{}", "is not a list of rules"),
        ("maybe", "is not a list of rules"),
    ] {
        assert_one(
            &problems_of_file(&format!("access: {{rules: {rules}}}")),
            &["access.rules", said],
        );
        assert_one(
            &problems_of_flags(&[("access.rules", rules)]),
            &["access.rules", said],
        );
    }
}

#[test]
fn the_mode_of_the_socket_is_octal() {
    assert_eq!(
        from_file("listen: {unix_mode: '0666'}")
            .config
            .listen
            .unix_mode,
        0o666
    );
    assert_eq!(from_file("").config.listen.unix_mode, 0o660);
    for wrong in ["660", "0999", "'0999'", "'rw'", "'01777'"] {
        assert_one(
            &problems_of_file(&format!("listen: {{unix_mode: {wrong}}}")),
            &["octal", "0660"],
        );
    }
}
