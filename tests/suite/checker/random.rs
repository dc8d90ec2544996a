//! Numbers that a seed determines: SplitMix64.

use std::time::SystemTime;

/// Another each time, and told; `OUTRIGGER_SEED` is an earlier one.
pub fn seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let seed = match std::env::var("OUTRIGGER_SEED") {
        Ok(seed) => seed.parse().expect("a number"),
        Err(_) => now.unwrap().as_secs(),
    };
    eprintln!("seed {seed}");
    seed
}

pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    pub fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        let count = from.len() as u64;
        (count > 0).then(|| from[self.below(count) as usize])
    }
}
