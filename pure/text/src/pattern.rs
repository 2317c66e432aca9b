//! The pattern of a log body: what stays when its numbers and identifiers are masked, as a stable 64-bit hash.
//!
//! Bodies written by one statement of a program mostly share it, so rows sorted by it lie beside their likes and compress. It is not
//! an identity: nothing may depend on two statements differing. The hash is part of the segment format.

use crate::hash::TermHasher;
use crate::tokens::is_token_byte;

/// What follows in a longer body does not count; a stack trace is known by its head.
const MAX_PATTERN_BYTES: usize = 1024;
/// A run of nothing but hexadecimal digits this long is an identifier even when it has no decimal digit.
const HEX_RUN_BYTES: usize = 8;
/// Stands for a masked run; no token has this byte.
const MASK: u8 = 0x01;

/// The pattern of `body`.
///
/// A run of ASCII letters and digits is masked when it has a digit or is at least eight hexadecimal digits long. Masked runs joined by single
/// `-`, `.`, `:`, `_`, `,` or `/` become one mask, together with hexadecimal runs of 4, 8 or 12 between them, as a UUID's groups are.
/// Everything else counts as it is.
pub fn pattern_hash(body: &str) -> u64 {
    let bytes = &body.as_bytes()[..body.len().min(MAX_PATTERN_BYTES)];
    let mut hasher = TermHasher::default();
    let mut at = 0;
    // The place just after a masked run, while nothing but one joiner has followed it.
    let mut mask_end = None;
    while at < bytes.len() {
        if !is_token_byte(bytes[at]) {
            let joins = mask_end == Some(at) && is_joiner(bytes[at]);
            if joins && follows_masked(bytes, at + 1) {
                at += 1;
                mask_end = Some(at);
                continue;
            }
            hasher.push(bytes[at]);
            at += 1;
            continue;
        }
        let end = run_end(bytes, at);
        let run = &bytes[at..end];
        let joined = mask_end == Some(at);
        if is_masked(run) || (joined && is_hex_group(run)) {
            if !joined {
                hasher.push(MASK);
            }
            mask_end = Some(end);
        } else {
            hasher.extend(run);
        }
        at = end;
    }
    hasher.finish()
}

fn run_end(bytes: &[u8], start: usize) -> usize {
    bytes[start..].iter().position(|byte| !is_token_byte(*byte)).map_or(bytes.len(), |length| start + length)
}

/// Whether the run that starts at `at` is masked or may be a group of an identifier.
fn follows_masked(bytes: &[u8], at: usize) -> bool {
    if at >= bytes.len() || !is_token_byte(bytes[at]) {
        return false;
    }
    let run = &bytes[at..run_end(bytes, at)];
    is_masked(run) || is_hex_group(run)
}

fn is_masked(run: &[u8]) -> bool {
    run.iter().any(u8::is_ascii_digit) || (run.len() >= HEX_RUN_BYTES && run.iter().all(u8::is_ascii_hexdigit))
}

fn is_hex_group(run: &[u8]) -> bool {
    matches!(run.len(), 4 | 8 | 12) && run.iter().all(u8::is_ascii_hexdigit)
}

fn is_joiner(byte: u8) -> bool {
    matches!(byte, b'-' | b'.' | b':' | b'_' | b',' | b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_identifiers_do_not_count() {
        let same = [
            "took 12 ms for 10.0.0.1:8080 id 6a7cfd21-abcd-4fa1-beef-deadbeefcafe at 2023-01-30T11:51:02.123Z",
            "took 7 ms for 192.168.77.3:443 id 00000000-0000-0000-0000-000000000000 at 2024-12-01T00:00:00.9Z",
        ];
        assert_eq!(pattern_hash(same[0]), pattern_hash(same[1]));
        assert_eq!(pattern_hash("user 5 in"), pattern_hash("user abcdefab in"));
    }

    #[test]
    fn words_and_punctuation_count() {
        assert_ne!(pattern_hash("took 12 ms"), pattern_hash("took 12 us"));
        assert_ne!(pattern_hash("a=1"), pattern_hash("a: 1"));
        assert_ne!(pattern_hash("decade"), pattern_hash("facade"));
    }

    #[test]
    fn only_the_head_of_a_long_body_counts() {
        let head = "word ".repeat(MAX_PATTERN_BYTES / 5 + 1);
        assert_eq!(pattern_hash(&format!("{head}x")), pattern_hash(&format!("{head}y")));
        // A cut inside a multi-byte character is no boundary and must not matter.
        assert_ne!(pattern_hash(&"é".repeat(900)), pattern_hash("é"));
    }

    /// These values are in segments on disk.
    #[test]
    fn patterns_are_frozen() {
        assert_eq!(pattern_hash(""), 0xefd0_1f60_ba99_2926);
        assert_eq!(pattern_hash("GET /api/v1/orders/778 took 12.5 ms"), 0x3353_6088_8538_4663);
        assert_eq!(pattern_hash("connection reset by peer"), 0xdf33_5e00_84bf_cc0b);
    }
}
