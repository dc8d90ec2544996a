//! `outrigger bench` on small loads: that each way of publishing sends what it says, that brokers stand still and go on, and what it refuses. Its
//! figures are of a release build.

use std::process::{Command, Output};

use serde_json::Value;

use crate::{
    client::read_topic,
    kafka::{Kafka, fresh},
};

fn bench_on(kafka: &Kafka, arguments: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_outrigger"))
        .arg("bench")
        .args(arguments.split(' '))
        .arg("--bootstrap")
        .arg(kafka.bootstrap())
        .output()
        .unwrap()
}

fn bench(arguments: &str) -> Output {
    bench_on(Kafka::shared(), arguments)
}

#[track_caller]
fn json(arguments: &str) -> Value {
    json_on(Kafka::shared(), arguments)
}

#[track_caller]
fn json_on(kafka: &Kafka, arguments: &str) -> Value {
    let output = bench_on(kafka, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments}: {errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Runs one counted pair after the warm-up on a topic of one partition, and looks into it: both pairs are there, and one record for each time
/// that a direct producer connected.
async fn is_published_once(arguments: &str, records: usize, size: usize) -> Value {
    let topic = Kafka::shared().topic("bench", 1).await;
    let sheet = json(&format!(
        "publish {arguments} --size {size} --topic {topic} --direct --runs 1 --json"
    ));
    let log = read_topic(Kafka::shared().bootstrap(), &topic);
    let values: Vec<_> = log[&0].iter().map(|(_, value)| value.as_deref()).collect();
    assert_eq!(values.len(), 4 * records + 2, "{arguments}");
    let right = values
        .iter()
        .all(|value| value.map(<[u8]>::len) == Some(size));
    assert!(right, "{arguments}");
    assert_eq!(sheet["runs"].as_array().unwrap().len(), 2);
    for run in sheet["runs"].as_array().unwrap() {
        assert_eq!(run["records"], records, "{arguments}");
    }
    for figure in ["rate_ratio", "cpu_ratio"] {
        // So little may cost no time that can be measured, and no number stands for that.
        assert!(sheet["figures"][figure].is_object(), "{sheet}");
    }
    sheet
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mode_publishes_each_record_once() {
    for (arguments, records, size) in [
        ("--records 1010 --batch 100", 1010, 16),
        ("--mode stream --records 300 --streams 3", 300, 100),
        ("--mode stream --records 20", 20, 1_000_000),
        ("--mode unary --calls 7 --records 100", 100, 100),
    ] {
        let sheet = is_published_once(arguments, records, size).await;
        assert_eq!(sheet["figures"]["added_p50_us"], Value::Null, "{arguments}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn at_a_rate_each_record_is_timed_on_both_paths() {
    for arguments in [
        "--rate 2000 --seconds 1 --streams 3",
        "--mode stream --rate 2000 --seconds 1",
        "--mode unary --calls 2 --rate 500 --seconds 4",
    ] {
        let sheet = is_published_once(arguments, 2000, 100).await;
        for run in sheet["runs"].as_array().unwrap() {
            let of = |share: &str| run["latency_seconds"][share].as_f64().unwrap();
            assert!(of("p50") > 0.0 && of("p50") <= of("p99"), "{run}");
            assert!(of("p99.9") <= of("max"), "{run}");
        }
        assert!(sheet["figures"]["added_p99_us"]["median"].is_number());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_streams_share_connections() {
    let arguments = "--mode stream --streams 1000 --records 2000";
    let sheet = is_published_once(arguments, 2000, 100).await;
    assert_eq!(sheet["load"]["streams"], 1000);
    assert_eq!(sheet["load"]["connections"], 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_topics_get_the_records_in_turn() {
    for mode in ["batch", "stream", "unary"] {
        let base = fresh("bench");
        let arguments = format!(
            "publish --mode {mode} --topics 3 --topic {base} --partitions 1 --records 30 --direct --runs 1"
        );
        let sheet = json(&format!("{arguments} --json"));
        assert_eq!(sheet["load"]["topics"], 3);
        for number in 0..3 {
            let log = read_topic(Kafka::shared().bootstrap(), &format!("{base}-{number}"));
            // Both pairs, and one record for each time that a direct producer connected.
            assert_eq!(log[&0].len(), 4 * 10 + 2, "{mode}: topic {number}");
        }
    }
}

#[test]
fn a_broker_that_stands_still_is_measured_on_its_partition_and_on_another() {
    let kafka = Kafka::start(3, &[]);
    let outage = |broker: usize, pid: u32| {
        format!("outage --broker {broker} --broker-pid {pid} --seconds 6 --rounds 1 --json")
    };
    let told = json_on(&kafka, &outage(3, kafka.pid(3)));
    for part in ["alone", "beside", "stopped"] {
        let rate = &told["figures"][&format!("healthy_rate_{part}")]["median"];
        assert!(rate.as_f64() > Some(0.0), "{part}: {told}");
    }
    assert!(told["figures"]["other_rate_before"]["median"].as_f64() > Some(0.0));
    assert!(
        told["figures"]["first_seconds"].is_object(),
        "it goes on: {told}"
    );

    // The wrong process stands still: what is measured is not what was asked.
    let output = bench_on(&kafka, &outage(3, kafka.pid(2)));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("that of broker 3?"), "{errors}");
}

#[test]
fn a_flood_is_answered_kept_within_the_memory_that_is_told_and_looked_for_in_kafka() {
    let kafka = Kafka::start(1, &[]);
    let told = json_on(
        &kafka,
        &format!(
            "flood --broker-pid {} --streams 50 --seconds 4 --set publish.max_wait=1s --json",
            kafka.pid(1)
        ),
    );
    for key in ["acknowledged", "refused_with_hint"] {
        assert!(told[key].as_u64() > Some(0), "{key}: {told}");
    }
    for key in [
        "failed",
        "cut_streams",
        "acknowledged_not_in_kafka",
        "refused_in_kafka",
        "doubled_in_kafka",
    ] {
        assert_eq!(told[key], 0, "{told}");
    }
    let ratio = told["peak_ratio"].as_f64().unwrap();
    assert!(
        ratio < told["budgets"]["peak_ratio"].as_f64().unwrap(),
        "{told}"
    );
}

#[test]
fn what_cannot_be_is_refused_with_what_can() {
    for (arguments, advice) in [
        ("--mode stream --batch 5", "--batch is for --mode batch"),
        ("--mode unary --streams 2", "say with --calls"),
        ("--calls 2", "--calls is for --mode unary"),
        ("--rate 10 --records 10", "--seconds"),
        ("--size 1000000 --batch 25", "--batch 8,"),
        (
            "--size 2000000 --batch 1",
            "publish.max_record_bytes=2000000",
        ),
        ("--size 1000000", "a smaller --batch"),
    ] {
        let output = bench(&format!("publish {arguments}"));
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments}: {told}");
        assert!(told.contains(advice), "{arguments}: {told}");
    }
}

#[test]
fn the_sheet_has_a_row_for_each_path_with_its_budget() {
    let sheet = json("sheet --pairs 1 --records 300 --seconds 1 --json");
    let rows = sheet["rows"].as_array().unwrap();
    let with_budget = |key: &str| {
        let has = |row: &&Value| row["budgets"][key].is_number();
        let told = rows.iter().filter(has);
        told.inspect(|row| assert!(row["figures"][key].is_object(), "{row}"))
            .count()
    };
    assert_eq!(with_budget("rate_ratio"), 2);
    assert_eq!(with_budget("cpu_ratio"), 1);
    assert_eq!(with_budget("added_p50_us"), 1);
    for streams in [1, 10, 100, 1000] {
        assert!(rows.iter().any(|row| row["load"]["streams"] == streams));
    }
    for row in rows {
        assert_eq!(row["runs"].as_array().unwrap().len(), 2, "{row}");
    }
}

#[test]
fn latency_to_a_subscriber_is_told_for_both_paths() {
    let told = json("latency --rate 500 --seconds 1 --direct --json");
    for path in ["sidecar", "direct"] {
        assert!(
            told["latency_seconds"][path]["p50"].as_f64() > Some(0.0),
            "{told}"
        );
    }
}
