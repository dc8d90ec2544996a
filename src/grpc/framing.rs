//! Finds the messages in a stream of bytes: each has a head of a flag and four bytes of length. Source: "gRPC over HTTP/2".

/// Bytes of a head.
pub(super) const HEAD: usize = 5;

/// Where a stream of bytes is.
#[derive(Debug, Default)]
pub(super) struct Heads {
    head: [u8; HEAD],
    /// Of the head that is being read.
    known: usize,
    /// Of the message that is being passed over.
    left: usize,
}

impl Heads {
    /// Passes over `data`, and tells `begun` the length of each message whose head ends in it.
    pub(super) fn pass(&mut self, mut data: &[u8], mut begun: impl FnMut(usize)) {
        while !data.is_empty() {
            if self.left > 0 {
                let passed = self.left.min(data.len());
                self.left -= passed;
                data = &data[passed..];
                continue;
            }
            let wanted = (self.head.len() - self.known).min(data.len());
            self.head[self.known..self.known + wanted].copy_from_slice(&data[..wanted]);
            self.known += wanted;
            data = &data[wanted..];
            if let [_, length @ ..] = self.head
                && self.known == self.head.len()
            {
                self.known = 0;
                self.left = u32::from_be_bytes(length) as usize;
                begun(self.left);
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A message of so many bytes, with its head.
    pub(in crate::grpc) fn message(length: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend((length as u32).to_be_bytes());
        bytes.resize(5 + length, 7);
        bytes
    }

    #[test]
    fn messages_are_found_however_the_bytes_are_cut() {
        let bytes = [message(0), message(3), message(300), message(0)].concat();
        for size in 1..=bytes.len() {
            let (mut heads, mut found) = (Heads::default(), Vec::new());
            for cut in bytes.chunks(size) {
                heads.pass(cut, |length| found.push(length));
            }
            assert_eq!(found, [0, 3, 300, 0], "cut to {size}");
            assert_eq!(heads.left, 0);
        }
        let mut heads = Heads::default();
        heads.pass(&bytes[..5 + 5 + 3 + 5 + 100], |_| ());
        assert_eq!(heads.left, 200);
    }
}
