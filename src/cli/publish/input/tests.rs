//! What becomes of lines: keys, values, JSON, separators, and mistakes by number.

use super::*;

fn limits(records: u64, bytes: u64, record_bytes: u64) -> Limits {
    Limits {
        records,
        bytes,
        record_bytes,
    }
}

const WIDE: Limits = Limits {
    records: 500,
    bytes: 1 << 20,
    record_bytes: 1 << 20,
};

/// The batches of an input.
fn read(input: impl Read, template: &Template, limits: &Limits) -> Vec<Batch> {
    let mut batches = Vec::new();
    read_lines(input, b'\n', template, limits, &mut |batch| {
        batches.push(batch);
        true
    })
    .unwrap();
    batches
}

fn values(batches: &[Batch]) -> Vec<&[u8]> {
    let records = batches.iter().flat_map(|batch| &batch.records);
    records
        .map(|record| record.value.as_deref().unwrap())
        .collect()
}

/// Gives its parts one read at a time.
struct Parts(Vec<&'static [u8]>);

impl Read for Parts {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() {
            return Ok(0);
        }
        let part = self.0.remove(0);
        into[..part.len()].copy_from_slice(part);
        Ok(part.len())
    }
}

#[test]
fn lines_are_values_whatever_their_bytes() {
    let input: &[u8] = b"a\n\n\xff\0\r\nlast";
    let batches = read(input, &Template::default(), &WIDE);
    assert_eq!(values(&batches), [&b"a"[..], b"", b"\xff\0\r", b"last"]);
}

#[test]
fn what_has_come_is_not_kept_until_more_comes() {
    let input = Parts(vec![b"a\n", b"b\nc\n", b"d", b"e\n"]);
    let batches = read(input, &Template::default(), &WIDE);
    let sizes: Vec<_> = batches.iter().map(|batch| batch.records.len()).collect();
    assert_eq!(sizes, [1, 2, 1]);
    assert_eq!(values(&batches), [&b"a"[..], b"b", b"c", b"de"]);
}

#[test]
fn a_batch_stays_within_the_records_and_bytes_of_the_sidecar() {
    let lines = "0123456789\n".repeat(10);
    let sizes = |limits| {
        let batches = read(lines.as_bytes(), &Template::default(), &limits);
        assert_eq!(values(&batches).len(), 10);
        batches
            .iter()
            .map(|batch| batch.records.len())
            .collect::<Vec<_>>()
    };
    assert_eq!(sizes(limits(4, 1 << 20, 100)), [4, 4, 2]);
    assert_eq!(
        sizes(limits(500, 3 * (10 + OVERHEAD) + 1, 100)),
        [3, 3, 3, 1]
    );
    assert_eq!(sizes(limits(500, 1, 100)), [1; 10]);
}

#[test]
fn a_line_that_is_no_record_is_told_and_the_others_go_on() {
    let template = Template {
        key_separator: Some("::".into()),
        ..Template::default()
    };
    let batches = read(&b"k::v\nnothing:here\n::v::w\n"[..], &template, &WIDE);
    assert_eq!(values(&batches), [&b"v"[..], b"v::w"]);
    assert_eq!(batches[0].numbers, [1, 3]);
    assert_eq!(batches[0].records[1].key.as_deref(), Some(&b""[..]));
    let (number, error) = &batches[0].bad[0];
    assert_eq!(
        (*number, error.to_string()),
        (2, "has no key separator \"::\"".into())
    );
}

#[test]
fn a_line_longer_than_any_record_is_passed_over_without_being_held() {
    let input = b"short\n"
        .chain(io::repeat(b'x').take(1 << 20))
        .chain(&b"\n12345678\n123456789"[..]);
    let batches = read(input, &Template::default(), &limits(500, 1 << 20, 8));
    assert_eq!(values(&batches), [&b"short"[..], b"12345678"]);
    let bad: Vec<_> = batches
        .iter()
        .flat_map(|batch| &batch.bad)
        .map(|(number, _)| *number)
        .collect();
    assert_eq!(bad, [2, 4]);
}

#[test]
fn nothing_more_is_read_when_nobody_takes_it() {
    let mut taken = 0;
    read_lines(
        io::repeat(b'\n'),
        b'\n',
        &Template::default(),
        &WIDE,
        &mut |_| {
            taken += 1;
            taken < 3
        },
    )
    .unwrap();
    assert_eq!(taken, 3);
}

#[test]
fn a_nul_can_separate_records_that_hold_newlines() {
    let mut batches = Vec::new();
    read_lines(
        &b"a\nb\0c\0"[..],
        0,
        &Template::default(),
        &WIDE,
        &mut |batch| {
            batches.push(batch);
            true
        },
    )
    .unwrap();
    assert_eq!(values(&batches), [&b"a\nb"[..], b"c"]);
}

#[test]
fn options_complete_a_record_of_json() {
    let template = Template {
        topic: "t".into(),
        partition: Some(1),
        headers: vec![proto::Header {
            name: "h".into(),
            value: Some("1".into()),
        }],
        json: true,
        ..Template::default()
    };
    let line = r#"{"topic":"other","key":"k","partition":9,"headers":[{"name":"g"}]}"#;
    let record = template.record(line.into()).unwrap();
    assert_eq!((record.topic.as_str(), record.partition), ("t", Some(1)));
    assert_eq!(
        (record.key.as_deref(), record.value),
        (Some(&b"k"[..]), None)
    );
    let names: Vec<_> = record
        .headers
        .iter()
        .map(|header| header.name.as_str())
        .collect();
    assert_eq!(names, ["g", "h"]);
}
