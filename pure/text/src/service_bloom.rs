//! The bloom filter that stands for a segment's service names in the catalog when there are too many to list.
//!
//! 2048 bits, seven per name: the first seven little-endian 16-bit words of the name's BLAKE3, modulo 2048. At 100 names one in
//! 3000 foreign names is taken for one of them, at 200 one in 140, at 400 one in 8. Stored in catalog rows: it never changes.

/// Size of the filter.
pub const BLOOM_BYTES: usize = 256;
const BITS_PER_NAME: usize = 7;

/// The filter of `names`.
pub fn service_bloom<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    let mut bloom = vec![0; BLOOM_BYTES];
    for name in names {
        for bit in bits(name) {
            bloom[bit / 8] |= 1 << (bit % 8);
        }
    }
    bloom
}

/// Whether `name` may be one of the names of `bloom`. A filter of any other size than [`BLOOM_BYTES`] excludes nothing.
pub fn bloom_may_contain(bloom: &[u8], name: &str) -> bool {
    bloom.len() != BLOOM_BYTES || bits(name).all(|bit| bloom[bit / 8] & (1 << (bit % 8)) != 0)
}

fn bits(name: &str) -> impl Iterator<Item = usize> + use<> {
    let hash = *blake3::hash(name.as_bytes()).as_bytes();
    (0..BITS_PER_NAME)
        .map(move |place| usize::from(u16::from_le_bytes([hash[2 * place], hash[2 * place + 1]])) % (BLOOM_BYTES * 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_and_few_others() {
        let names: Vec<String> = (0..200).map(|n| format!("service-{n}")).collect();
        let bloom = service_bloom(names.iter().map(String::as_str));
        assert!(names.iter().all(|name| bloom_may_contain(&bloom, name)));
        let foreign = (0..10_000).filter(|n| bloom_may_contain(&bloom, &format!("other-{n}"))).count();
        assert!(foreign < 120, "{foreign}");
    }

    #[test]
    fn a_filter_of_unknown_size_excludes_nothing() {
        assert!(bloom_may_contain(&[], "x"));
        assert!(!bloom_may_contain(&[0; BLOOM_BYTES], "x"));
    }

    /// These bits are in catalog rows.
    #[test]
    fn bits_are_frozen() {
        let found: Vec<usize> = bits("ts-order-service").collect();
        assert_eq!(found, [1789, 1950, 1854, 797, 123, 648, 211]);
    }
}
