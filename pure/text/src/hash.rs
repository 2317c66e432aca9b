//! The 64-bit hash of the index's filters and of log patterns. Part of the segment format: it never changes.

/// FNV-1a over bytes, 64 bits, mixed at the end by MurmurHash3's `fmix64`.
///
/// FNV-1a: <http://www.isthe.com/chongo/tech/comp/fnv/>; `fmix64`: Appleby, MurmurHash3 (public domain). FNV alone leaves the high
/// bits of short inputs poor, and the filters take their page from them.
#[derive(Debug, Clone, Copy)]
pub struct TermHasher(u64);

impl Default for TermHasher {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl TermHasher {
    /// Adds one byte.
    pub fn push(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }

    /// Adds bytes.
    pub fn extend(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.push(*byte);
        }
    }

    /// The hash of all that was added.
    pub fn finish(self) -> u64 {
        let mut hash = self.0;
        hash ^= hash >> 33;
        hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash ^= hash >> 33;
        hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        hash ^ (hash >> 33)
    }
}

/// The hash of one term.
pub fn term_hash(term: &[u8]) -> u64 {
    let mut hasher = TermHasher::default();
    hasher.extend(term);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// These values are in segments on disk.
    #[test]
    fn hashes_are_frozen() {
        assert_eq!(term_hash(b""), 0xefd0_1f60_ba99_2926);
        assert_eq!(term_hash(b"a"), 0x82a2_a958_a9be_ce5b);
        assert_eq!(term_hash(b"4bf92f3577b34da6a3ce929d0e0e4736"), 0xe668_f55d_97f2_d8a8);
    }
}
