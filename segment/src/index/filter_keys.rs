//! What the filters know a rare token by, so that fragments of identifiers can be looked up too.
//!
//! A short token is one key: itself. A longer one is known by its minimizers (Roberts et al., Reducing storage requirements for
//! biological sequence comparison, 2004): of every `window` neighbouring grams of `gram` bytes the one with the least hash. Whatever contains a text of at
//! least `gram + window - 1` bytes has all minimizers of that text, so a fragment is looked up by its own.

use tidemill_text::TermHasher;

/// A token with fewer bytes is always in the FST: there are few such tokens.
pub(crate) const SHORTEST_FILTERED: usize = 4;

/// What kind of identifier a token is; decides how densely it is sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenClass {
    /// Digits and `a`-`f` only, as trace ids are.
    Hex,
    /// Any other.
    Other,
}

impl TokenClass {
    pub(crate) const ALL: [Self; 2] = [Self::Hex, Self::Other];

    pub(crate) fn of(token: &[u8]) -> Self {
        if token.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) { Self::Hex } else { Self::Other }
    }

    /// Bytes of a gram, grams of a window. Hexadecimal digits hold four bits each, so grams must be long to tell blocks apart.
    fn sampling(self) -> (usize, usize) {
        match self {
            Self::Hex => (8, 9),
            Self::Other => (4, 3),
        }
    }

    /// Tokens up to this long are one key; fragments at least this long have minimizers.
    pub(crate) fn sampled_bytes(self) -> usize {
        let (gram, window) = self.sampling();
        gram + window - 1
    }
}

/// Whether a token that is rare is known to filters instead of the FST.
pub(crate) fn is_filterable(token: &[u8]) -> bool {
    token.len() >= SHORTEST_FILTERED && token.iter().any(u8::is_ascii_digit)
}

/// The keys of the filterable `token` of a column: a block whose filter lacks any of them does not have the token.
pub(crate) fn token_keys(column: u16, token: &[u8]) -> Vec<u64> {
    let class = TokenClass::of(token);
    if token.len() <= class.sampled_bytes() {
        return vec![whole_key(column, token)];
    }
    gram_keys(column, class, token)
}

/// The key of a whole value or short token.
pub(crate) fn whole_key(column: u16, value: &[u8]) -> u64 {
    let mut hasher = TermHasher::default();
    hasher.extend(&column.to_be_bytes());
    hasher.extend(value);
    hasher.finish()
}

/// The keys of the minimizers of `text`, which must have at least `class.sampled_bytes()` bytes.
pub(crate) fn gram_keys(column: u16, class: TokenClass, text: &[u8]) -> Vec<u64> {
    let (gram, window) = class.sampling();
    let hashes: Vec<u64> = text.windows(gram).map(|bytes| gram_key(column, bytes)).collect();
    let mut keys: Vec<u64> =
        hashes.windows(window).map(|near| *near.iter().min().expect("a window is not empty")).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// Grams and whole tokens are kept apart by a byte that no token has.
fn gram_key(column: u16, gram: &[u8]) -> u64 {
    let mut hasher = TermHasher::default();
    hasher.extend(&column.to_be_bytes());
    hasher.push(0x01);
    hasher.extend(gram);
    hasher.finish()
}

/// What the rare tokens of one block look like; says which fragments none of them can contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct BlockShape {
    /// Bit `n - 1` of each class: it has a rare token of `n` bytes.
    pub(crate) lengths: [u64; 2],
    /// The letters and digits of its rare tokens of class `Other`: digits, capitals, small letters from bit 0.
    pub(crate) letters: u64,
    /// A run of letters and digits was cut, so any fragment may be there.
    pub(crate) is_cut: bool,
}

impl BlockShape {
    pub(crate) fn add(&mut self, token: &[u8]) {
        let class = TokenClass::of(token);
        self.lengths[class as usize] |= 1 << (token.len() - 1);
        if class == TokenClass::Other {
            self.letters |= letters_of(token);
        }
    }

    /// Whether it has a rare token of exactly this many bytes.
    pub(crate) fn has_length(&self, class: TokenClass, bytes: usize) -> bool {
        (1..=64).contains(&bytes) && self.lengths[class as usize] & (1 << (bytes - 1)) != 0
    }

    /// Whether it has a longer rare token.
    pub(crate) fn has_longer(&self, class: TokenClass, bytes: usize) -> bool {
        bytes < 64 && self.lengths[class as usize] >> bytes != 0
    }

    /// Whether its rare tokens of `class` have all letters of `fragment` between them.
    pub(crate) fn has_letters(&self, class: TokenClass, fragment: &[u8]) -> bool {
        match class {
            TokenClass::Hex => TokenClass::of(fragment) == TokenClass::Hex,
            TokenClass::Other => letters_of(fragment) & !self.letters == 0,
        }
    }
}

fn letters_of(token: &[u8]) -> u64 {
    token.iter().fold(0, |letters, byte| {
        letters
            | match byte {
                b'0'..=b'9' => 1 << (byte - b'0'),
                b'A'..=b'Z' => 1 << (byte - b'A' + 10),
                b'a'..=b'z' => 1 << (byte - b'a' + 36),
                _ => 0,
            }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_token_has_all_minimizers_of_its_fragments(token in "[0-9a-f]{17,64}", start in 0_usize..48, length in 16_usize..64) {
            let start = start.min(token.len() - 16);
            let fragment = &token[start..(start + length).min(token.len())];
            let keys = gram_keys(0, TokenClass::Hex, token.as_bytes());
            for key in gram_keys(0, TokenClass::Hex, fragment.as_bytes()) {
                prop_assert!(keys.contains(&key));
            }
        }
    }

    #[test]
    fn shapes_know_lengths_and_letters() {
        let mut shape = BlockShape::default();
        shape.add(b"4bf92f3577b34da6a3ce929d0e0e4736");
        shape.add(b"pod7x");
        assert!(shape.has_length(TokenClass::Hex, 32) && !shape.has_longer(TokenClass::Hex, 32));
        assert!(shape.has_longer(TokenClass::Hex, 8) && shape.has_length(TokenClass::Other, 5));
        assert!(shape.has_letters(TokenClass::Other, b"do7") && !shape.has_letters(TokenClass::Other, b"time"));
        assert!(!shape.has_letters(TokenClass::Hex, b"time"));
    }
}
