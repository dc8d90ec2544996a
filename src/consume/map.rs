//! What is settled above a committed offset, as text for the metadata of that commit: so settles out of order survive whoever made them.
//!
//! Pure. The text is `o1.` and then, in the URL-safe base64 of RFC 4648 without padding: a CRC-32C (4 bytes, little-endian), and numbers as
//! LEB128 varints: the committed offset, then for each range of settled offsets, in ascending order, how many offsets are not settled before it
//! (from the committed offset, or from the end of the range before) and how many are settled in it. The checksum is of the cluster's id, the
//! topic's name and the partition, a NUL byte after each, and of the numbers, so a text that was copied to another place is not read there; nor
//! is one whose committed offset is not the one it was read with.
//! What always holds: what cannot be trusted is ignored as a whole, which only delivers again; what is beyond the budget is left out from the
//! highest offset down, which only delivers again too.

use std::{fmt, ops::Range};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// Names the format and its version.
const PREFIX: &str = "o1.";

/// The most that is read; Kafka's own bound of metadata is 4,096 bytes by default (`offset.metadata.max.bytes`).
const MOST: usize = 64 * 1024;

/// Bytes of the checksum.
const CHECKSUM: usize = 4;

/// Where a map belongs.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The cluster's id.
    pub cluster: &'a str,
    /// The topic's name.
    pub topic: &'a str,
    /// The partition.
    pub partition: i32,
    /// The committed offset.
    pub base: i64,
}

/// Why a text is not taken for a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// Somebody else's metadata.
    Foreign,
    /// Not what was written, or not written here.
    Corrupt,
    /// It is of another committed offset: somebody moved the offset and left the text.
    Moved,
}

impl Ignored {
    /// As a label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Foreign => "foreign",
            Self::Corrupt => "corrupt",
            Self::Moved => "moved",
        }
    }
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Foreign => "another program wrote them",
            Self::Corrupt => "they were not written for this place, or have changed",
            Self::Moved => "the offset was moved since",
        })
    }
}

/// A map as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// For the commit; empty when there is nothing to say.
    pub text: String,
    /// Settled offsets below this are covered by the commit.
    pub through: i64,
    /// Ranges that were left out.
    pub dropped: usize,
}

/// Writes the ranges, ascending and apart, of what is settled above the base, in at most `budget` characters.
pub fn encode(place: Place<'_>, ranges: &[Range<i64>], budget: usize) -> Encoded {
    let room = (budget.saturating_sub(PREFIX.len()) * 3 / 4).saturating_sub(CHECKSUM);
    let mut body = Vec::new();
    write(&mut body, place.base);
    let (mut end, mut kept) = (place.base, 0);
    for range in ranges {
        let length = body.len();
        write(&mut body, range.start - end);
        write(&mut body, range.end - range.start);
        if body.len() > room {
            body.truncate(length);
            break;
        }
        (end, kept) = (range.end, kept + 1);
    }
    let dropped = ranges.len() - kept;
    if kept == 0 {
        return Encoded {
            text: String::new(),
            through: place.base,
            dropped,
        };
    }
    let mut bytes = checksum(place, &body).to_le_bytes().to_vec();
    bytes.append(&mut body);
    Encoded {
        text: PREFIX.to_owned() + &URL_SAFE_NO_PAD.encode(bytes),
        through: end,
        dropped,
    }
}

/// Reads the ranges of what is settled above the base and below `log_end`; none from an empty text.
pub fn decode(text: &[u8], place: Place<'_>, log_end: i64) -> Result<Vec<Range<i64>>, Ignored> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let text = text
        .strip_prefix(PREFIX.as_bytes())
        .ok_or(Ignored::Foreign)?;
    if text.len() > MOST {
        return Err(Ignored::Corrupt);
    }
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| Ignored::Corrupt)?;
    let (sum, mut body) = bytes
        .split_first_chunk::<CHECKSUM>()
        .ok_or(Ignored::Corrupt)?;
    if u32::from_le_bytes(*sum) != checksum(place, body) {
        return Err(Ignored::Corrupt);
    }
    if read(&mut body).ok_or(Ignored::Corrupt)? != place.base {
        return Err(Ignored::Moved);
    }
    let mut ranges = Vec::new();
    let mut end = place.base;
    while !body.is_empty() {
        let range = range(&mut body, end).filter(|range| range.end <= log_end);
        let range = range.ok_or(Ignored::Corrupt)?;
        end = range.end;
        ranges.push(range);
    }
    Ok(ranges)
}

/// The next range after `end`. Nothing need be between them: a partition whose whole rest was restored begins with such a one.
fn range(body: &mut &[u8], end: i64) -> Option<Range<i64>> {
    let (gap, run) = (read(body)?, read(body)?);
    let start = end.checked_add(gap)?;
    (run > 0).then_some(start..start.checked_add(run)?)
}

fn checksum(place: Place<'_>, body: &[u8]) -> u32 {
    let place = format!("{}\0{}\0{}\0", place.cluster, place.topic, place.partition);
    crc32c::crc32c_append(crc32c::crc32c(place.as_bytes()), body)
}

fn write(bytes: &mut Vec<u8>, number: i64) {
    let mut rest = number.unsigned_abs();
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
}

fn read(bytes: &mut &[u8]) -> Option<i64> {
    let mut number = 0_u64;
    for shift in (0..63).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return i64::try_from(number).ok();
        }
    }
    None
}

#[cfg(test)]
mod tests;
