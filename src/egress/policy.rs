//! What the operator allows, and the verdict on one address.
//!
//! Pure, and must not know names, URLs or sockets' contents. Two tiers: what `address` calls
//! forbidden stays so under any configuration; what it calls private needs an `allow` network.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::address::{Class, classify};
use super::refusal::Refusal;

#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Networks that may be called although they are not public.
    pub allow: Vec<IpNet>,
    /// Refuse plain http.
    pub https_only: bool,
    /// Accept 64:ff9b::/96 around public IPv4 addresses, for hosts behind NAT64 and DNS64.
    pub allow_nat64: bool,
    /// Our own listeners as (name or IP address, port). An unspecified address (`0.0.0.0`, `::`)
    /// stands for every address of this machine.
    pub own: Vec<(String, u16)>,
}

impl Policy {
    /// May this address be called on this port? Asked for literal hosts and for each DNS answer.
    pub fn judge_address(&self, address: IpAddr, port: u16) -> Result<(), Refusal> {
        match classify(address) {
            Class::Public => {}
            Class::Nat64 if self.allow_nat64 => {}
            Class::Nat64 => {
                let reason = "NAT64, not enabled here (egress_nat64)";
                return Err(Refusal::AddressForbidden { address, reason });
            }
            Class::Private(_) if self.allows_explicitly(address) => {}
            Class::Private(reason) => return Err(Refusal::AddressPrivate { address, reason }),
            Class::Forbidden(reason) => return Err(Refusal::AddressForbidden { address, reason }),
        }
        if self.own_at(port).any(|own| own.covers(address)) {
            return Err(Refusal::OwnListener { host: address.to_string(), port });
        }
        Ok(())
    }

    /// Did the operator name a network that holds this address?
    pub fn allows_explicitly(&self, address: IpAddr) -> bool {
        self.allow.iter().any(|network| network.contains(&address))
    }

    /// `name` is lower-case and without a trailing dot.
    pub(super) fn judge_name(&self, name: &str, port: u16) -> Result<(), Refusal> {
        if self.own_at(port).any(|own| own.0.trim_end_matches('.').eq_ignore_ascii_case(name)) {
            return Err(Refusal::OwnListener { host: name.to_owned(), port });
        }
        Ok(())
    }

    /// The last word, once a socket is connected: a listener on an unspecified address is also
    /// reached through addresses of this machine that no configuration lists. A connection to
    /// oneself has the same address at both ends.
    pub(super) fn judge_connection(
        &self,
        port: u16,
        ends: impl FnOnce() -> std::io::Result<(SocketAddr, SocketAddr)>,
    ) -> Result<(), Refusal> {
        if !self.own_at(port).any(|own| own.is_everywhere()) {
            return Ok(());
        }
        match ends() {
            Ok((local, peer)) if local.ip() == peer.ip() && peer.port() == port => {
                Err(Refusal::OwnListener { host: peer.ip().to_string(), port })
            }
            // A socket that can no longer name its ends is closed; sending will say so.
            _ => Ok(()),
        }
    }

    fn own_at(&self, port: u16) -> impl Iterator<Item = Own<'_>> {
        self.own.iter().filter(move |(_, own)| *own == port).map(|(host, _)| Own(host))
    }
}

/// The host half of one of our own listeners.
struct Own<'a>(&'a str);

impl Own<'_> {
    fn covers(&self, address: IpAddr) -> bool {
        match self.address() {
            Some(own) if own.is_unspecified() => address.is_loopback(),
            Some(own) => own == address,
            None => self.0.eq_ignore_ascii_case("localhost") && address.is_loopback(),
        }
    }

    fn is_everywhere(&self) -> bool {
        self.address().is_some_and(|own| own.is_unspecified())
    }

    fn address(&self) -> Option<IpAddr> {
        self.0.trim_start_matches('[').trim_end_matches(']').parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn allowing(networks: &[&str]) -> Policy {
        let allow = networks.iter().map(|n| n.parse().expect("a network")).collect();
        Policy { allow, ..Policy::default() }
    }

    #[test]
    fn private_needs_its_network_and_forbidden_has_none() {
        let policy = allowing(&["10.1.0.0/16", "127.0.0.0/8", "::/0"]);
        assert_eq!(policy.judge_address(address("10.1.2.3"), 80), Ok(()));
        assert_eq!(policy.judge_address(address("fd12::1"), 80), Ok(()));
        let refusal = policy.judge_address(address("10.2.0.1"), 80).expect_err("outside");
        assert_eq!(refusal.code(), "address_private");
        for never in ["169.254.169.254", "fd00:ec2::254", "::ffff:127.0.0.1", "0.0.0.0"] {
            let policy = allowing(&["0.0.0.0/0", "::/0"]);
            let refusal = policy.judge_address(address(never), 80).expect_err(never);
            assert_eq!(refusal.code(), "address_forbidden");
        }
    }

    #[test]
    fn nat64_is_a_choice() {
        let mut policy = Policy::default();
        assert!(policy.judge_address(address("64:ff9b::1.1.1.1"), 443).is_err());
        policy.allow_nat64 = true;
        assert!(policy.judge_address(address("64:ff9b::1.1.1.1"), 443).is_ok());
        assert!(policy.judge_address(address("64:ff9b::127.0.0.1"), 443).is_err());
    }

    #[test]
    fn own_listeners_by_port_and_place() {
        let mut policy = allowing(&["127.0.0.0/8", "10.0.0.0/8"]);
        policy.own = vec![("0.0.0.0".into(), 8080), ("10.0.0.7".into(), 9090)];
        assert!(policy.judge_address(address("127.0.0.1"), 8080).is_err());
        assert!(policy.judge_address(address("127.0.0.1"), 8081).is_ok());
        assert!(policy.judge_address(address("10.0.0.7"), 9090).is_err());
        assert!(policy.judge_address(address("10.0.0.8"), 9090).is_ok());

        let ends = |local: &str, peer: &str| {
            let ends = (local.parse().expect("local"), peer.parse().expect("peer"));
            policy.judge_connection(8080, || Ok(ends))
        };
        assert!(ends("10.0.0.7:40000", "10.0.0.7:8080").is_err());
        assert!(ends("10.0.0.7:40000", "10.0.0.8:8080").is_ok());
    }
}
