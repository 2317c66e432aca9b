//! What a literal that must occur somewhere in a text says about the text's tokens.
//!
//! The literal `id=77 conn` occurs only in texts that have the token `77` (whole: separators stand on both sides of it), a token that
//! ends in `id` and one that starts with `conn`. A literal without separators says only that some token contains it; one
//! without letters and digits says nothing.

use crate::tokens::{MAX_TOKEN_BYTES, is_token_byte};

/// One thing that a literal says about the tokens of a text that contains it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// This token occurs. Cut at [`MAX_TOKEN_BYTES`], as tokens are.
    Whole(&'a str),
    /// A token starts with this. Cut at [`MAX_TOKEN_BYTES`], as tokens are.
    Prefix(&'a str),
    /// A run of letters and digits ends with this; a token that was cut may hide it.
    Suffix(&'a str),
    /// A run of letters and digits contains this; a token that was cut may hide it.
    Contains(&'a str),
}

/// Everything that `literal` says; empty when it says nothing. All pieces hold together.
pub fn literal_pieces(literal: &str) -> Vec<Piece<'_>> {
    let bytes = literal.as_bytes();
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if !is_token_byte(bytes[at]) {
            at += 1;
            continue;
        }
        let start = at;
        while at < bytes.len() && is_token_byte(bytes[at]) {
            at += 1;
        }
        let run = &literal[start..at];
        let cut = &run[..run.len().min(MAX_TOKEN_BYTES)];
        pieces.push(match (start == 0, at == bytes.len()) {
            (true, true) => Piece::Contains(run),
            (true, false) => Piece::Suffix(run),
            (false, true) => Piece::Prefix(cut),
            (false, false) => Piece::Whole(cut),
        });
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::tokens;
    use proptest::prelude::*;

    #[test]
    fn only_runs_with_separators_on_both_sides_are_whole() {
        assert_eq!(literal_pieces("id=77 conn"), [Piece::Suffix("id"), Piece::Whole("77"), Piece::Prefix("conn")]);
        assert_eq!(literal_pieces(" id "), [Piece::Whole("id")]);
        assert_eq!(literal_pieces("id"), [Piece::Contains("id")]);
        assert_eq!(literal_pieces("=> "), []);
    }

    proptest! {
        #[test]
        fn every_piece_holds_for_every_text_with_the_literal(
            before in "[a-z0-9 é-]{0,9}", literal in "[a-z0-9 é-]{0,80}", after in "[a-z0-9 é-]{0,9}",
        ) {
            let text = format!("{before}{literal}{after}");
            let any_cut = tokens(&text).any(|token| token.is_cut);
            for piece in literal_pieces(&literal) {
                let holds = match piece {
                    Piece::Whole(run) => tokens(&text).any(|token| token.text == run),
                    Piece::Prefix(run) => tokens(&text).any(|token| token.text.starts_with(run)),
                    Piece::Suffix(run) => any_cut || tokens(&text).any(|token| token.text.ends_with(run)),
                    Piece::Contains(run) => any_cut || tokens(&text).any(|token| token.text.contains(run)),
                };
                prop_assert!(holds, "{piece:?} of {literal:?} in {text:?}");
            }
        }
    }
}
