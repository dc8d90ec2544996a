//! What the kernel says of this machine's clock.

use std::time::Duration;

/// Whether something keeps the clock right, and how far off it may be at most; `None` where the kernel does not tell. Changes nothing.
pub(in crate::kafka) fn synchronised() -> Option<(bool, Duration)> {
    // SAFETY: all zeroes is a value of this structure of numbers; `modes` 0 only asks, and the kernel writes within it.
    let (state, answer) = unsafe {
        let mut answer: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&raw mut answer), answer)
    };
    if state < 0 {
        return None;
    }
    let is_kept = state != libc::TIME_ERROR && answer.status & libc::STA_UNSYNC == 0;
    let error = u64::try_from(answer.maxerror).unwrap_or(0);
    Some((is_kept, Duration::from_micros(error)))
}
