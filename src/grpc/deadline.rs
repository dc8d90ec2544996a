//! How long a caller waits: the `grpc-timeout` header.
//!
//! Pure. Source: the gRPC protocol over HTTP/2 ("Timeout"): at most 8 digits and a unit.

use std::time::{Duration, Instant};

use http::HeaderMap;

/// When to answer, so that the answer arrives before the caller's own deadline: 10 % earlier, between 5 and 200 ms.
pub(super) fn answer_by(headers: &HeaderMap) -> Option<Instant> {
    let timeout = parse(headers.get("grpc-timeout")?.to_str().ok()?)?;
    let margin = (timeout / 10).clamp(Duration::from_millis(5), Duration::from_millis(200));
    Instant::now().checked_add(timeout.saturating_sub(margin))
}

fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_read_and_nonsense_is_not() {
        assert_eq!(parse("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(parse("3M"), Some(Duration::from_secs(180)));
        assert_eq!(parse("4S"), Some(Duration::from_secs(4)));
        assert_eq!(parse("5m"), Some(Duration::from_millis(5)));
        assert_eq!(parse("6u"), Some(Duration::from_micros(6)));
        assert_eq!(parse("7n"), Some(Duration::from_nanos(7)));
        for bad in ["", "S", "1", "1X", "-1S", "123456789S", "1.5S", "é"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_answer_comes_before_the_deadline() {
        for (timeout, millis) in [("1S", 900), ("10S", 9800), ("20m", 15)] {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", timeout.parse().unwrap());
            let after = Duration::from_millis(millis);
            let earliest = Instant::now() + after;
            let by = answer_by(&headers).unwrap();
            let latest = Instant::now() + after;
            assert!((earliest..=latest).contains(&by), "{timeout}");
        }
    }
}
