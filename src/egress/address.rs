//! What kind of place an IP address is, from the address registries alone.
//!
//! Pure, and must not know what the operator allows: that is `policy`. Public is what remains after
//! everything special is taken out; in IPv6, where most is unassigned, only 2000::/3 can be.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The verdict of the registries on one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Global unicast: anyone may be called there.
    Public,
    /// Somebody's own network: only where the operator says so.
    Private(&'static str),
    /// The well-known NAT64 prefix around a public IPv4 address.
    Nat64,
    /// Never, whatever the operator says.
    Forbidden(&'static str),
}

pub fn classify(address: IpAddr) -> Class {
    match address {
        IpAddr::V4(v4) => classify_v4(v4),
        IpAddr::V6(v6) => classify_v6(v6),
    }
}

const METADATA: Class = Class::Forbidden("cloud metadata service");

/// Whole blocks around the link-local services of the clouds, so that a sibling of a known
/// metadata address (time, DNS, licence servers) is not reachable either.
fn is_metadata_v4(octets: [u8; 4]) -> bool {
    matches!(
        octets,
        [169, 254, 169 | 170, _] // AWS, Azure, Google, OpenStack; ECS and EKS credentials
            | [169, 254, 0, 23] // Tencent
            | [169, 254, 42, 42] // Scaleway
            | [168, 63, 129, 16] // Azure wire server: a public address that is local to the host
            | [100, 100, 100, 200] // Alibaba, inside the carrier-grade NAT block
            | [192, 0, 0, 192] // Oracle
    )
}

fn classify_v4(address: Ipv4Addr) -> Class {
    let octets = address.octets();
    if is_metadata_v4(octets) {
        return METADATA;
    }
    match octets {
        [0, ..] => Class::Forbidden("this network, 0.0.0.0/8"),
        [10, ..] => Class::Private("private, RFC 1918"),
        [100, 64..=127, ..] => Class::Private("carrier-grade NAT, 100.64.0.0/10"),
        [127, ..] => Class::Private("loopback"),
        [169, 254, ..] => Class::Private("link-local, 169.254.0.0/16"),
        [172, 16..=31, ..] => Class::Private("private, RFC 1918"),
        [192, 0, 0, _] => Class::Forbidden("IETF protocol assignments, 192.0.0.0/24"),
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Class::Forbidden("documentation"),
        [192, 31, 196, _] | [192, 175, 48, _] => Class::Forbidden("AS112 sink"),
        [192, 52, 193, _] => Class::Forbidden("multicast tunnelling, 192.52.193.0/24"),
        [192, 88, 99, _] => Class::Forbidden("6to4 relay, 192.88.99.0/24"),
        [192, 168, ..] => Class::Private("private, RFC 1918"),
        [198, 18..=19, ..] => Class::Private("benchmarking, 198.18.0.0/15"),
        [255, 255, 255, 255] => Class::Forbidden("broadcast"),
        [224..=239, ..] => Class::Forbidden("multicast"),
        [240..=255, ..] => Class::Forbidden("reserved, 240.0.0.0/4"),
        _ => Class::Public,
    }
}

fn classify_v6(address: Ipv6Addr) -> Class {
    let s = address.segments();
    // ISATAP hides an IPv4 address behind this interface id under any prefix at all.
    if matches!(s[4..6], [0 | 0x0200, 0x5efe]) {
        return Class::Forbidden("ISATAP, carries an IPv4 address");
    }
    match s {
        [0, 0, 0, 0, 0, 0, 0, 0] => Class::Forbidden("unspecified"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Class::Private("loopback"),
        [0, 0, 0, 0, 0, 0xffff, ..] => Class::Forbidden("IPv4-mapped; write the IPv4 address"),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => classify_nat64(high, low),
        [0x64, 0xff9b, ..] => Class::Forbidden("local-use NAT64"),
        [0..=0xff, ..] => Class::Forbidden("reserved, ::/8; may carry an IPv4 address"),
        [0xfd00, 0x0ec2, ..] | [0xfd20, 0x00ce, ..] => METADATA, // AWS; Google
        [0xfd00, 0x00c1, .., 0xa9fe, 0xa9fe] => METADATA,        // Oracle
        [0xfd00, 0x0042, 0, 0, 0, 0, 0, 0x0042] => METADATA,     // Scaleway
        [0xfc00..=0xfdff, ..] => Class::Private("unique local, fc00::/7"),
        [0xfe80..=0xfebf, ..] => Class::Forbidden("link-local, needs a zone"),
        [0xfec0..=0xfeff, ..] => Class::Forbidden("site-local, deprecated"),
        [0xff00..=0xffff, ..] => Class::Forbidden("multicast"),
        [0x2001, 0, ..] => Class::Forbidden("Teredo, carries an IPv4 address"),
        [0x2001, 1..=0x1ff, ..] => Class::Forbidden("IETF protocol assignments, 2001::/23"),
        [0x2001, 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] => Class::Forbidden("documentation"),
        [0x2002, ..] => Class::Forbidden("6to4, carries an IPv4 address"),
        [0x2620, 0x004f, 0x8000, ..] => Class::Forbidden("AS112 sink"),
        [0x3ffe, ..] => Class::Forbidden("6bone, returned"),
        [0x2000..=0x3fff, ..] => Class::Public,
        _ => Class::Forbidden("not global unicast"),
    }
}

/// The well-known prefix may carry global addresses only (RFC 6052 §3.1), so a private address
/// inside it stays forbidden even where the operator allows both NAT64 and that private network.
fn classify_nat64(high: u16, low: u16) -> Class {
    let carried = Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match classify_v4(carried) {
        Class::Public => Class::Nat64,
        _ => Class::Forbidden("NAT64 around an address that is not public"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(text: &str) -> Class {
        classify(text.parse().expect("an address"))
    }

    #[test]
    fn edges_of_the_blocks() {
        for public in [
            "1.0.0.0",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "191.255.255.255",
            "192.0.1.0",
            "192.0.3.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "168.63.129.17",
            "2000::1",
            "2001:200::1",
            "2606:4700::1111",
            "2a00:1450::1",
            "3ffd::1",
        ] {
            assert_eq!(class(public), Class::Public, "{public}");
        }
        for private in
            ["127.0.0.1", "127.255.255.255", "172.31.255.255", "169.254.0.1", "::1", "fc00::1"]
        {
            assert!(matches!(class(private), Class::Private(_)), "{private}");
        }
        for forbidden in [
            "0.0.0.0",
            "0.255.255.255",
            "168.63.129.16",
            "100.100.100.200",
            "169.254.169.253",
            "::",
            "::2",
            "::ffff:1.1.1.1",
            "::1.1.1.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::1.1.1.1",
            "1000::1",
            "4000::1",
            "fe80::1",
            "fec0::1",
            "fd00:ec2::23",
            "fd00:c1::a9fe:a9fe",
            "2001:db8::1",
            "2002:0101:0101::1",
            "2606:4700::5efe:7f00:1",
            "2606:4700::200:5efe:a00:1",
            "fd12::5efe:7f00:1",
            "239.0.0.1",
            "255.255.255.254",
            "3fff:fff::1",
        ] {
            assert!(matches!(class(forbidden), Class::Forbidden(_)), "{forbidden}");
        }
        assert_eq!(class("64:ff9b::1.1.1.1"), Class::Nat64);
    }
}
