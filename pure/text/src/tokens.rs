//! Tokens: the units that the token index knows a text by.
//!
//! A token is a maximal run of ASCII letters and digits, case kept. A run longer than [`MAX_TOKEN_BYTES`] is known by its first
//! [`MAX_TOKEN_BYTES`] bytes only, and says so ([`Token::is_cut`]): whoever looks for the middle or the end of a run must then
//! assume that it may be there. Everything else, non-ASCII letters included, separates.

/// The longest token; what follows in the same run is not indexed.
pub const MAX_TOKEN_BYTES: usize = 64;

/// One run of letters and digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token<'a> {
    /// The run, cut at [`MAX_TOKEN_BYTES`].
    pub text: &'a str,
    /// Whether the run went on.
    pub is_cut: bool,
    /// Whether `text` has an ASCII digit.
    pub has_digit: bool,
}

/// The tokens of `text`, in order, repetitions included.
pub fn tokens(text: &str) -> Tokens<'_> {
    Tokens { text, at: 0 }
}

/// Iterator over the tokens of a text; see [`tokens`].
#[derive(Debug, Clone)]
pub struct Tokens<'a> {
    text: &'a str,
    at: usize,
}

/// 0: separator, 1: letter, 3: digit. A table, because this runs over every byte of every body.
const CLASS: [u8; 256] = {
    let mut table = [0_u8; 256];
    let mut byte = 0;
    while byte < 256 {
        if (byte as u8).is_ascii_digit() {
            table[byte] = 3;
        } else if (byte as u8).is_ascii_alphabetic() {
            table[byte] = 1;
        }
        byte += 1;
    }
    table
};

/// Whether a byte belongs to tokens.
pub(crate) fn is_token_byte(byte: u8) -> bool {
    CLASS[usize::from(byte)] != 0
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let bytes = self.text.as_bytes();
        let mut start = self.at;
        while start < bytes.len() && CLASS[usize::from(bytes[start])] == 0 {
            start += 1;
        }
        if start == bytes.len() {
            self.at = start;
            return None;
        }
        let mut end = start;
        let mut classes = 0;
        while end < bytes.len() && end - start < MAX_TOKEN_BYTES {
            let class = CLASS[usize::from(bytes[end])];
            if class == 0 {
                break;
            }
            classes |= class;
            end += 1;
        }
        self.at = end;
        while self.at < bytes.len() && CLASS[usize::from(bytes[self.at])] != 0 {
            self.at += 1;
        }
        // Token bytes are ASCII, so both ends are character boundaries.
        Some(Token { text: &self.text[start..end], is_cut: self.at > end, has_digit: classes & 2 != 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<&str> {
        tokens(text).map(|token| token.text).collect()
    }

    #[test]
    fn runs_keep_their_case_and_end_at_anything_else() {
        assert_eq!(texts("GET /api/v1?q=Ünïcode_x"), ["GET", "api", "v1", "q", "n", "code", "x"]);
        assert_eq!(texts(" --- "), Vec::<&str>::new());
        assert_eq!(texts("a"), ["a"]);
    }

    #[test]
    fn digits_are_seen() {
        let seen: Vec<bool> = tokens("abc a1c 77").map(|token| token.has_digit).collect();
        assert_eq!(seen, [false, true, true]);
    }

    #[test]
    fn a_long_run_is_cut_once() {
        let run = "x".repeat(MAX_TOKEN_BYTES + 5);
        let found: Vec<Token> = tokens(&run).collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].text.len(), MAX_TOKEN_BYTES);
        assert!(found[0].is_cut);
        assert!(!tokens(&run[..MAX_TOKEN_BYTES]).next().expect("one token").is_cut);
    }
}
