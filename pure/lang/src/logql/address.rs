//! Addresses, networks and ranges of addresses: the argument of `ip("…")`.

use core::net::IpAddr;

/// A range of IP addresses of one family, both ends included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressRange {
    text: String,
    first: IpAddr,
    last: IpAddr,
}

impl AddressRange {
    /// Reads `10.0.0.1`, `10.0.0.0/8` or `10.0.0.1-10.0.0.9`; the same for IPv6. `None` where `text` is none of them.
    pub fn parse(text: &str) -> Option<Self> {
        let (first, last) = if let Some((first, last)) = text.split_once('-') {
            (first.trim().parse().ok()?, last.trim().parse().ok()?)
        } else if let Some((address, bits)) = text.split_once('/') {
            network(address.parse().ok()?, bits.parse().ok()?)?
        } else {
            let address: IpAddr = text.parse().ok()?;
            (address, address)
        };
        (first.is_ipv4() == last.is_ipv4() && first <= last).then(|| Self { text: text.to_owned(), first, last })
    }

    /// Whether `address` lies in the range; one of the other family does not.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.first.is_ipv4() && self.first <= address && address <= self.last
    }

    /// Whether the range is one of IPv4 addresses.
    pub fn is_ipv4(&self) -> bool {
        self.first.is_ipv4()
    }

    /// The range as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }
}

fn network(address: IpAddr, bits: u32) -> Option<(IpAddr, IpAddr)> {
    match address {
        IpAddr::V4(address) if bits <= 32 => {
            let hosts = u32::MAX.checked_shr(bits).unwrap_or(0);
            let first = u32::from(address) & !hosts;
            Some((IpAddr::V4(first.into()), IpAddr::V4((first | hosts).into())))
        }
        IpAddr::V6(address) if bits <= 128 => {
            let hosts = u128::MAX.checked_shr(bits).unwrap_or(0);
            let first = u128::from(address) & !hosts;
            Some((IpAddr::V6(first.into()), IpAddr::V6((first | hosts).into())))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(range: &str, address: &str) -> bool {
        AddressRange::parse(range).expect("a range").contains(address.parse().expect("an address"))
    }

    #[test]
    fn ranges_hold_their_ends_and_no_other_family() {
        assert!(holds("10.0.0.0/8", "10.255.255.255") && !holds("10.0.0.0/8", "11.0.0.0"));
        assert!(
            holds("192.168.4.1-192.168.4.20", "192.168.4.20") && !holds("192.168.4.1-192.168.4.20", "192.168.4.21")
        );
        assert!(holds("2001:db8::/32", "2001:db8:ffff::1") && !holds("2001:db8::/32", "2001:db9::"));
        assert!(holds("0.0.0.0/0", "255.255.255.255") && !holds("0.0.0.0/0", "::1") && holds("::/0", "::1"));
        assert!(holds("10.0.0.7", "10.0.0.7") && !holds("10.0.0.7", "10.0.0.8"));
        for bad in ["10.0.0", "nope", "10.0.0.0/33", "::/129", "10.0.0.9-10.0.0.1", "10.0.0.1-::1", ""] {
            assert_eq!(AddressRange::parse(bad), None, "{bad}");
        }
    }
}
