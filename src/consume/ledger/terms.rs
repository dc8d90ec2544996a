//! The words of the ledger: what goes in, what comes out, and the terms that its records are tried again on.

/// Names a stream of the subscription; never reused.
pub type StreamId = u64;

/// Milliseconds since the epoch, by a clock that does not go back.
pub type Moment = u64;

/// In which order the records of a partition are delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ordering {
    /// One at a time of each key, in offset order; those without a key to whoever has room.
    Key,
    /// In offset order, to one stream at a time.
    Partition,
    /// To whoever has room.
    Unordered,
}

/// How a record is tried again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retry {
    /// The first wait, in milliseconds.
    pub min_delay: u64,
    /// The longest, in milliseconds.
    pub max_delay: u64,
    /// The growth of the wait.
    pub multiplier: f64,
    /// How often a record is delivered at most.
    pub max_attempts: u32,
}

impl Retry {
    /// The wait after attempt number `attempt` of the record at `offset`. Its jitter of 20 % either way comes from the two, so that records
    /// that failed together do not come back together.
    pub fn wait(&self, attempt: u32, offset: i64) -> u64 {
        let power = attempt.saturating_sub(1).min(1000) as i32;
        let wait = self.min_delay as f64 * self.multiplier.powi(power);
        let share =
            mix(offset as u64 ^ u64::from(attempt).rotate_left(32)) as f64 / u64::MAX as f64;
        let wait = wait.min(self.max_delay as f64) * (0.8 + 0.4 * share);
        wait as u64
    }
}

/// Spreads a number over all 64 bits (the finalizer of SplitMix64).
pub(super) fn mix(mut number: u64) -> u64 {
    number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// What all ledgers of a subscription agree on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Terms {
    /// The order of deliveries.
    pub ordering: Ordering,
    /// How records are tried again.
    pub retry: Retry,
    /// Whether records whose attempts ran out have somewhere to go.
    pub has_dead_letters: bool,
}

/// What the ledger asks of a record.
pub trait Payload {
    /// What it weighs against a window, in bytes.
    fn weight(&self) -> u64;
    /// Equal for records of one key; none for a null key.
    fn key(&self) -> Option<u64>;
}

/// What has become of a record that was to be taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// It waits for delivery.
    Waiting,
    /// It was settled before this ledger began.
    Settled,
    /// It is below the position: it was taken in already.
    Passed,
}

/// The record that a stream would be given next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// Its offset.
    pub offset: i64,
    /// Its bytes.
    pub weight: u64,
    /// It may be what killed a client: it goes out alone, and nothing with it.
    pub is_suspect: bool,
    pub(super) index: usize,
}

/// A record that was just given to a stream.
#[derive(Debug, PartialEq, Eq)]
pub struct Handed<'a, T> {
    /// Its offset.
    pub offset: i64,
    /// Which delivery of the ledger this is: part of the token.
    pub serial: u32,
    /// From 1; how often it was delivered and counted.
    pub attempt: u32,
    /// Whether it was delivered before, counted or not.
    pub again: bool,
    /// Whether it may be what killed a client.
    pub is_suspect: bool,
    /// The record.
    pub payload: &'a T,
}

/// A record that a stream no longer holds: its window gets this back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refund {
    /// Whose window.
    pub stream: StreamId,
    /// The bytes; one record.
    pub bytes: u64,
}

/// Why a token settles nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// The record is settled.
    AlreadySettled,
    /// The record was given back since, and waits or is delivered again.
    Redelivered,
    /// No such delivery was ever made.
    Unknown,
}

/// Why a record was not done when it was delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Its client gave it back as failed.
    Nacked,
    /// Its lease ended.
    Expired,
    /// It was all that its stream held when the stream died.
    Crashed,
    /// Its client wants it among the dead letters.
    Rejected,
}

/// What is known of a record that was not done at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Of the last failure.
    pub cause: Cause,
    /// What its client said of it.
    pub reason: String,
    /// When it failed first.
    pub first: Moment,
    /// When it failed last.
    pub last: Moment,
}

impl Trouble {
    /// In words.
    pub fn describe(&self) -> String {
        match (self.cause, self.reason.as_str()) {
            (Cause::Nacked, "") => "its client gave it back as failed".to_owned(),
            (Cause::Nacked, reason) => format!("its client says: {reason}"),
            (Cause::Expired, _) => "its lease ended before it was settled".to_owned(),
            (Cause::Crashed, _) => "its client died with it".to_owned(),
            (Cause::Rejected, "") => "its client wants it among the dead letters".to_owned(),
            (Cause::Rejected, reason) => {
                format!("its client wants it among the dead letters: {reason}")
            }
        }
    }
}

/// A record to be copied to the dead letters.
#[derive(Debug, PartialEq, Eq)]
pub struct Dead<'a, T> {
    /// Its offset: what [`super::Ledger::moved`] wants to know.
    pub offset: i64,
    /// How often it was delivered and counted.
    pub attempts: u32,
    /// Why it goes there.
    pub trouble: &'a Trouble,
    /// The record.
    pub payload: &'a T,
}

/// A record whose attempts ran out, with nowhere to go.
#[derive(Debug, PartialEq, Eq)]
pub struct Blocked<'a, T> {
    /// Its offset.
    pub offset: i64,
    /// Of its last delivery: with it the record can still be settled.
    pub serial: u32,
    /// How often it was delivered and counted.
    pub attempts: u32,
    /// Why.
    pub trouble: &'a Trouble,
    /// How many records wait behind it.
    pub waiting: u64,
    /// The record.
    pub payload: &'a T,
}

/// What time brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// Of records whose leases ended, and of what was delivered after them where the order wants that.
    pub refunds: Vec<Refund>,
    /// How many leases ended.
    pub expired: u64,
}
