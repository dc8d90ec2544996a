//! How `outrigger subscribe` prints a record.
//!
//! Pure. The letters are kcat's: `%t` topic, `%p` partition, `%o` offset, `%k` key, `%s` value, `%T` timestamp in milliseconds (-1: none), `%h` headers
//! as NAME=VALUE with commas, `%%` a percent sign; besides them `%n` newline, and `\n`, `\t`, `\0`, `\\`.

use std::io::{self, Write};

use crate::grpc::proto;

/// A parsed format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Format(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Bytes(Vec<u8>),
    Topic,
    Partition,
    Offset,
    Key,
    Value,
    Timestamp,
    Headers,
}

impl Format {
    /// For clap.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut plain = Vec::new();
        let mut chars = text.chars();
        while let Some(char) = chars.next() {
            let part = match (char, char == '%' || char == '\\') {
                (_, false) => {
                    plain.extend(char.encode_utf8(&mut [0; 4]).as_bytes());
                    continue;
                }
                ('%', _) => match chars.next() {
                    Some('t') => Part::Topic,
                    Some('p') => Part::Partition,
                    Some('o') => Part::Offset,
                    Some('k') => Part::Key,
                    Some('s') => Part::Value,
                    Some('T') => Part::Timestamp,
                    Some('h') => Part::Headers,
                    Some('n') => Part::Bytes(b"\n".to_vec()),
                    Some('%') => Part::Bytes(b"%".to_vec()),
                    other => return Err(unknown('%', other)),
                },
                _ => Part::Bytes(match chars.next() {
                    Some('n') => b"\n".to_vec(),
                    Some('t') => b"\t".to_vec(),
                    Some('0') => b"\0".to_vec(),
                    Some('\\') => b"\\".to_vec(),
                    other => return Err(unknown('\\', other)),
                }),
            };
            if !plain.is_empty() {
                parts.push(Part::Bytes(std::mem::take(&mut plain)));
            }
            parts.push(part);
        }
        if !plain.is_empty() {
            parts.push(Part::Bytes(plain));
        }
        Ok(Self(parts))
    }

    pub(super) fn write(
        &self,
        out: &mut impl Write,
        record: &proto::Record,
        offset: i64,
    ) -> io::Result<()> {
        for part in &self.0 {
            match part {
                Part::Bytes(bytes) => out.write_all(bytes)?,
                Part::Topic => out.write_all(record.topic.as_bytes())?,
                Part::Partition => write!(out, "{}", record.partition.unwrap_or(-1))?,
                Part::Offset => write!(out, "{offset}")?,
                Part::Key => out.write_all(record.key.as_deref().unwrap_or_default())?,
                Part::Value => out.write_all(record.value.as_deref().unwrap_or_default())?,
                Part::Timestamp => {
                    let millis = record.timestamp.map_or(-1, |time| {
                        time.seconds * 1000 + i64::from(time.nanos) / 1_000_000
                    });
                    write!(out, "{millis}")?;
                }
                Part::Headers => {
                    for (index, header) in record.headers.iter().enumerate() {
                        let comma = if index > 0 { "," } else { "" };
                        write!(out, "{comma}{}=", header.name)?;
                        out.write_all(header.value.as_deref().unwrap_or_default())?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn unknown(mark: char, other: Option<char>) -> String {
    match other {
        Some(other) => format!(
            "{mark}{other} is not known; there is %t %p %o %k %s %T %h %n %% and \\n \\t \\0 \\\\"
        ),
        None => format!("ends with a single {mark}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(format: &str) -> String {
        let record = proto::Record {
            topic: "t".into(),
            partition: Some(2),
            key: Some("k".into()),
            value: Some("v".into()),
            headers: vec![
                proto::Header {
                    name: "a".into(),
                    value: Some("1".into()),
                },
                proto::Header {
                    name: "b".into(),
                    value: None,
                },
            ],
            timestamp: Some(prost_types::Timestamp {
                seconds: 1,
                nanos: 2_000_000,
            }),
            message_id: String::new(),
        };
        let mut out = Vec::new();
        Format::parse(format)
            .unwrap()
            .write(&mut out, &record, 9)
            .unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_letter_prints_its_part() {
        assert_eq!(
            print(r"%t %p %o %k %s %T %h %%%n é\t\\\n"),
            "t 2 9 k v 1002 a=1,b= %\n é\t\\\n"
        );
    }

    #[test]
    fn what_a_record_lacks_prints_nothing_and_no_time_is_minus_1() {
        let mut out = Vec::new();
        let format = Format::parse("[%k][%s][%h]%T").unwrap();
        format
            .write(&mut out, &proto::Record::default(), 0)
            .unwrap();
        assert_eq!(out, b"[][][]-1");
    }

    #[test]
    fn bytes_are_printed_as_they_are() {
        let record = proto::Record {
            value: Some(b"\xff\0\n".as_slice().into()),
            ..Default::default()
        };
        let mut out = Vec::new();
        let format = Format::parse("%s").unwrap();
        format.write(&mut out, &record, 0).unwrap();
        assert_eq!(out, b"\xff\0\n");
    }

    #[test]
    fn an_unknown_letter_is_named() {
        assert!(Format::parse("%x").unwrap_err().contains("%x"));
        assert!(Format::parse("abc%").is_err());
        assert!(Format::parse(r"\q").is_err());
    }
}
