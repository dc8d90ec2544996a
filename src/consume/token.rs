//! The token of a delivery: what a subscriber settles with.
//!
//! Pure. 24 bytes, big-endian: partition index (4), offset (8), epoch (8), delivery serial (4). Nothing secret is in it, so it carries no
//! MAC; it is checked against the ledger. An epoch names one assignment of one partition and is never used again, not even by a later
//! process: it counts on from a random 64-bit start. The serial tells deliveries apart that have the same attempt.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Names one delivery of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    /// Which assigned partition of the session.
    pub index: u32,
    /// The record's offset.
    pub offset: i64,
    /// Which assignment of the partition.
    pub epoch: u64,
    /// Which delivery of the ledger.
    pub serial: u32,
}

impl Token {
    /// The length of an encoded token.
    pub const LENGTH: usize = 24;

    /// As it travels.
    pub fn encode(&self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        bytes[..4].copy_from_slice(&self.index.to_be_bytes());
        bytes[4..12].copy_from_slice(&self.offset.to_be_bytes());
        bytes[12..20].copy_from_slice(&self.epoch.to_be_bytes());
        bytes[20..].copy_from_slice(&self.serial.to_be_bytes());
        bytes
    }

    /// `None` for anything that is not a token by its form.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LENGTH] = bytes.try_into().ok()?;
        let (index, rest) = bytes.split_first_chunk::<4>()?;
        let (offset, rest) = rest.split_first_chunk::<8>()?;
        let (epoch, rest) = rest.split_first_chunk::<8>()?;
        let serial = rest.first_chunk::<4>()?;
        Some(Self {
            index: u32::from_be_bytes(*index),
            offset: i64::from_be_bytes(*offset),
            epoch: u64::from_be_bytes(*epoch),
            serial: u32::from_be_bytes(*serial),
        })
    }
}

/// Gives out epochs.
#[derive(Debug)]
pub(super) struct Epochs(u64);

impl Epochs {
    /// Begins at a random number from the operating system (std seeds its hashers from there).
    pub(super) fn new() -> Self {
        Self(RandomState::new().build_hasher().finish())
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_token_survives_the_journey(index: u32, offset: i64, epoch: u64, serial: u32) {
            let token = Token { index, offset, epoch, serial };
            prop_assert_eq!(Token::decode(&token.encode()), Some(token));
        }

        #[test]
        fn bytes_of_another_length_are_no_token(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(Token::decode(&bytes).is_some(), bytes.len() == Token::LENGTH);
        }
    }

    #[test]
    fn two_sessions_do_not_share_epochs() {
        assert_ne!(Epochs::new().next(), Epochs::new().next());
    }
}
