//! The client commands in a pipe: what they print, to where, and how they exit.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

use crate::{
    client::committed,
    kafka::{Kafka, fresh},
    sidecar::Sidecar,
};

pub fn outrigger(sidecar: &Sidecar, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_outrigger"))
        .args(arguments)
        .env("OUTRIGGER_ADDRESS", sidecar.grpc.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A command may end without reading all of it.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_go_in_and_come_out_in_order_and_only_what_was_printed_is_acked() {
    let kafka = Kafka::shared();
    let topic = kafka.topic("lines", 1).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let input: String = (0..20_000)
        .map(|number| format!("line {number}\n"))
        .collect();
    let published = outrigger(&sidecar, &["publish", &topic], input.as_bytes());
    assert!(published.status.success(), "{}", text(&published.stderr));
    let expected: String = (0..20_000)
        .map(|offset| format!("{topic}[0]@{offset}\n"))
        .collect();
    assert!(
        text(&published.stdout) == expected,
        "one line a record, in order"
    );
    let group = fresh("cli");
    let first = outrigger(
        &sidecar,
        &["subscribe", &topic, "-g", &group, "-n", "7000"],
        b"",
    );
    assert!(first.status.success(), "{}", text(&first.stderr));
    let rest = outrigger(
        &sidecar,
        &["subscribe", &topic, "-g", &group, "-n", "13000"],
        b"",
    );
    assert!(
        text(&first.stdout) + &text(&rest.stdout) == input,
        "nothing skipped, nothing twice"
    );
    assert!(sidecar.stop().success());
    assert_eq!(committed(kafka.bootstrap(), &group, &topic, 1), [20_000]);
}

#[tokio::test(flavor = "multi_thread")]
async fn json_carries_bytes_nulls_and_headers_from_one_topic_to_another() {
    let kafka = Kafka::shared();
    let (from, to) = (kafka.topic("from", 1).await, kafka.topic("to", 1).await);
    let sidecar = Sidecar::start(kafka.bootstrap(), &[]);
    let lines = concat!(
        r#"{"key":{"base64":"/wA="},"value":null,"timestamp":1700000000123}"#,
        "\n",
        r#"{"key":null,"value":"","headers":[{"name":"a","value":"1"},{"name":"a","value":null}]}"#,
        "\n",
    );
    assert!(
        outrigger(&sidecar, &["publish", &from, "--json"], lines.as_bytes())
            .status
            .success()
    );
    let copy = outrigger(&sidecar, &["subscribe", &from, "--json", "-n", "2"], b"").stdout;
    assert!(
        outrigger(&sidecar, &["publish", &to, "--json"], &copy)
            .status
            .success()
    );
    let again = outrigger(&sidecar, &["subscribe", &to, "--json", "-n", "2"], b"").stdout;
    assert_eq!(text(&again), text(&copy).replace(&from, &to));
    assert!(
        text(&copy).contains(r#""key":{"base64":"/wA="},"value":null"#),
        "{}",
        text(&copy)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_told_on_standard_error_with_exit_code_1() {
    let sidecar = Sidecar::start(Kafka::shared().bootstrap(), &[]);
    let nowhere = fresh("nowhere");
    for (arguments, input, words) in [
        (&["publish", "bad topic", "x"][..], "", "INVALID_RECORD"),
        (
            &["publish", "t", "-K", ":"],
            "no separator here\n",
            "line 1",
        ),
        (&["publish", "t", "--json"], "{}\nnot json\n", "line 2"),
        (&["publish", &nowhere, "x"], "", "TOPIC_NOT_FOUND"),
        (&["subscribe", &nowhere], "", "TOPIC_NOT_FOUND"),
        (
            &["publish", "t", "x", "--address", "127.0.0.1:1"],
            "",
            "outrigger dev",
        ),
    ] {
        let output = outrigger(&sidecar, arguments, input.as_bytes());
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(
            text(&output.stderr).contains(words),
            "{arguments:?}: {}",
            text(&output.stderr)
        );
    }
    let output = outrigger(&sidecar, &["subscribe", "t", "--format", "%y"], b"");
    assert_eq!(output.status.code(), Some(2), "a wrong command line");
}
