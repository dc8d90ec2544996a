//! The text of a map: pinned, bounded, and believed only where it belongs.

#![expect(
    clippy::single_range_in_vec_init,
    reason = "a list of one range is meant as it is written"
)]

use proptest::prelude::*;

use super::*;

const PLACE: Place<'static> = Place {
    cluster: "4L6g3nShT-eMCtK--X86sw",
    topic: "orders",
    partition: 3,
    base: 1_000,
};

#[test]
fn the_format_is_as_written() {
    let encoded = encode(PLACE, &[1_001..1_002, 1_010..1_310], 4_096);
    let bytes = URL_SAFE_NO_PAD
        .decode(encoded.text.strip_prefix("o1.").unwrap())
        .unwrap();
    // 1000; 1 not, 1 settled; 8 not, 300 settled.
    assert_eq!(bytes[4..], [0xe8, 0x07, 1, 1, 8, 0xac, 0x02]);
    // Pinned: a text that a group holds must stay readable. Another program, with a CRC of its own, writes the same.
    assert_eq!(encoded.text, "o1.uEkS9ugHAQEIrAI");
    assert_eq!((encoded.through, encoded.dropped), (1_310, 0));
    // CRC-32C's own check value (RFC 3720, B.4, by way of its catalogue).
    assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
}

#[test]
fn nothing_settled_above_the_base_needs_no_text() {
    assert_eq!(encode(PLACE, &[], 4_096).text, "");
    assert_eq!(decode(b"", PLACE, i64::MAX), Ok(Vec::new()));
}

#[test]
fn what_is_not_ours_or_not_of_this_place_is_ignored() {
    let text = encode(PLACE, &[1_001..1_002], 4_096).text;
    for (place, why) in [
        (
            Place {
                cluster: "other",
                ..PLACE
            },
            Ignored::Corrupt,
        ),
        (
            Place {
                topic: "order",
                ..PLACE
            },
            Ignored::Corrupt,
        ),
        (
            Place {
                partition: 4,
                ..PLACE
            },
            Ignored::Corrupt,
        ),
        (
            Place {
                base: 1_001,
                ..PLACE
            },
            Ignored::Moved,
        ),
    ] {
        assert_eq!(
            decode(text.as_bytes(), place, i64::MAX),
            Err(why),
            "{place:?}"
        );
    }
    for foreign in [&b"NO_METADATA"[..], b"o2.AAAA", b"\xff\xfe", b"o1"] {
        assert_eq!(decode(foreign, PLACE, i64::MAX), Err(Ignored::Foreign));
    }
    for corrupt in [&b"o1."[..], b"o1.AAAA", b"o1.====", b"o1.\xff\xff"] {
        assert_eq!(decode(corrupt, PLACE, i64::MAX), Err(Ignored::Corrupt));
    }
    // The log is shorter than what it says: it was cut off, and other records stand there now.
    assert_eq!(decode(text.as_bytes(), PLACE, 1_001), Err(Ignored::Corrupt));
    assert!(decode(text.as_bytes(), PLACE, 1_002).is_ok());
}

#[test]
fn numbers_that_do_not_fit_are_corrupt_and_no_panic() {
    let huge: Vec<u8> = [0xe8, 0x07]
        .into_iter()
        .chain([0xff; 8])
        .chain([0x7f, 1])
        .collect();
    for body in [
        &huge[..],
        &[0xe8, 0x07, 1, 0],
        &[0xe8, 0x07, 1],
        &[0x80; 12],
    ] {
        let mut bytes = checksum(PLACE, body).to_le_bytes().to_vec();
        bytes.extend(body);
        let text = PREFIX.to_owned() + &URL_SAFE_NO_PAD.encode(bytes);
        assert_eq!(
            decode(text.as_bytes(), PLACE, i64::MAX),
            Err(Ignored::Corrupt),
            "{body:?}"
        );
    }
}

/// Ascending ranges apart from each other and from the base.
fn ranges(base: i64) -> impl Strategy<Value = Vec<Range<i64>>> {
    let lengths = (1..2_000_i64, prop_oneof![1..4_i64, 1..100_000_i64]);
    prop::collection::vec(lengths, 0..200).prop_map(move |lengths| {
        let mut end = base;
        let ranges = lengths.into_iter().map(|(gap, run)| {
            let start = end + gap;
            end = start + run;
            start..end
        });
        ranges.collect()
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_and_the_budget_leaves_out_the_highest(
        (base, ranges) in (0..1_i64 << 40).prop_flat_map(|base| (Just(base), ranges(base))),
        budget in 0..1_500_usize,
    ) {
        let place = Place { base, ..PLACE };
        let encoded = encode(place, &ranges, budget);
        prop_assert!(encoded.text.len() <= budget);
        let kept = ranges.len() - encoded.dropped;
        prop_assert_eq!(decode(encoded.text.as_bytes(), place, i64::MAX).unwrap(), &ranges[..kept]);
        prop_assert_eq!(encoded.through, ranges[..kept].last().map_or(base, |range| range.end));
        // Not one less than fits.
        if encoded.dropped > 0 && kept > 0 {
            let more = encode(place, &ranges[..=kept], usize::MAX / 4);
            prop_assert!(more.text.len() > budget);
        }
    }

    #[test]
    fn a_text_that_was_changed_anywhere_is_not_believed(
        ranges in ranges(PLACE.base).prop_filter("some", |ranges| !ranges.is_empty()),
        at in any::<prop::sample::Index>(),
        by in 1..=255_u8,
    ) {
        let mut text = encode(PLACE, &ranges, 4_096).text.into_bytes();
        let at = at.index(text.len());
        text[at] ^= by;
        prop_assert!(decode(&text, PLACE, i64::MAX).is_err());
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = decode(&bytes, PLACE, i64::MAX);
        let text = [PREFIX.as_bytes(), &bytes].concat();
        let _ = decode(&text, PLACE, i64::MAX);
    }
}
