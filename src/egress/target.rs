//! From the text a user wrote to the place it names, or the reason why not.
//!
//! Pure: no DNS, no sockets. The text is checked before the URL parser sees it, because the parser
//! repairs what other parsers read differently (tabs, backslashes, missing slashes); the host is
//! judged after, because only then is `0x7f.1` an address.

use std::fmt;
use std::net::IpAddr;

use hyper::header::HeaderValue;
use hyper::http::uri::PathAndQuery;
use url::{ParseError, Position, Url};

use super::policy::Policy;
use super::refusal::Refusal;
use super::{names, ports};

/// Longer URLs are refused; every receiver in the wild fits.
const MAX_URL_BYTES: usize = 2048;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// Lower-case, punycode, without a trailing dot.
    Name(String),
    Address(IpAddr),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V6(v6)) => write!(f, "[{v6}]"),
            Self::Address(IpAddr::V4(v4)) => write!(f, "{v4}"),
        }
    }
}

/// A place that may be called as far as its text tells; names still have to be resolved and judged.
#[derive(Clone)]
pub struct Target {
    /// The normalised form, the one to store and to compare.
    pub url: String,
    pub scheme: Scheme,
    pub host: Host,
    pub port: u16,
    pub(super) path: PathAndQuery,
    pub(super) host_header: HeaderValue,
}

impl Target {
    pub fn parse(text: &str, policy: &Policy) -> Result<Self, Refusal> {
        let scheme = check_text(text)?;
        if policy.https_only && scheme == Scheme::Http {
            return Err(Refusal::HttpsRequired);
        }
        let mut url = Url::parse(text).map_err(unparsable)?;
        // The parser sees user names where the text check, by design, looks only at the authority.
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refusal::UserinfoNotAllowed);
        }
        let port = url.port_or_known_default().ok_or_else(|| invalid("has no port"))?;
        let host = match url.host() {
            Some(url::Host::Ipv4(v4)) => Host::Address(v4.into()),
            Some(url::Host::Ipv6(v6)) => Host::Address(v6.into()),
            Some(url::Host::Domain(name)) => {
                Host::Name(name.strip_suffix('.').unwrap_or(name).to_owned())
            }
            None => return Err(invalid("has no host")),
        };
        judge(&host, port, policy)?;
        if url.domain().is_some_and(|name| name.ends_with('.')) {
            url.set_host(Some(&host.to_string())).map_err(unparsable)?;
        }

        let path = PathAndQuery::try_from(&url[Position::BeforePath..Position::AfterQuery])
            .map_err(|_| invalid("has characters in its path or query that HTTP cannot carry"))?;
        let host_header = HeaderValue::from_str(&url[Position::BeforeHost..Position::AfterPort])
            .map_err(|_| invalid("has a host that HTTP cannot carry"))?;
        Ok(Self { url: url.into(), scheme, host, port, path, host_header })
    }

    /// `scheme://host`, with the port where it is not the scheme's own.
    pub fn origin(&self) -> String {
        match (self.scheme, self.port) {
            (Scheme::Http, 80) | (Scheme::Https, 443) => {
                format!("{}://{}", self.scheme.as_str(), self.host)
            }
            _ => format!("{}://{}:{}", self.scheme.as_str(), self.host, self.port),
        }
    }
}

/// Paths and queries carry secrets (Slack's do), so a logged target shows its origin only.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({})", self.origin())
    }
}

fn invalid(reason: impl Into<String>) -> Refusal {
    Refusal::UrlInvalid { reason: reason.into() }
}

/// The parser's messages never repeat the input.
fn unparsable(error: ParseError) -> Refusal {
    match error {
        ParseError::InvalidPort => invalid("has a port that is not a number from 1 to 65535"),
        error => invalid(format!("cannot be read: {error}")),
    }
}

fn check_text(text: &str) -> Result<Scheme, Refusal> {
    if text.is_empty() {
        return Err(invalid("is empty"));
    }
    if text.len() > MAX_URL_BYTES {
        return Err(invalid(format!("is longer than {MAX_URL_BYTES} bytes")));
    }
    if let Some(bad) = text.chars().find(|c| c.is_control() || c.is_whitespace() || *c == '\\') {
        let code = u32::from(bad);
        return Err(invalid(format!(
            "contains U+{code:04X}; write it percent-encoded or not at all"
        )));
    }
    let Some((scheme, rest)) = text.split_once(':') else {
        return Err(invalid("has no scheme; begin it with https://"));
    };
    let scheme = if scheme.eq_ignore_ascii_case("https") {
        Scheme::Https
    } else if scheme.eq_ignore_ascii_case("http") {
        Scheme::Http
    } else {
        return Err(Refusal::SchemeNotAllowed { scheme: printable_scheme(scheme, rest) });
    };
    let Some(rest) = rest.strip_prefix("//") else {
        return Err(invalid("needs two slashes after the scheme"));
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err(Refusal::UserinfoNotAllowed);
    }
    if authority.is_empty() || authority.starts_with(':') {
        return Err(invalid("has no host"));
    }
    if authority.contains('%') {
        return Err(invalid(
            "has a percent-encoded host or an address with a zone; write it plainly",
        ));
    }
    if rest.contains('#') {
        return Err(invalid(
            "has a fragment, which is never sent; leave out the # and what follows",
        ));
    }
    Ok(scheme)
}

/// `user:secret@host` has, to a parser, the scheme `user`; that is not ours to print.
fn printable_scheme(scheme: &str, rest: &str) -> String {
    let well_formed = scheme.len() <= 32
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    if well_formed && !rest.contains('@') { scheme.to_owned() } else { "given".to_owned() }
}

/// The address tier first: "this is a metadata service" says more than "this port is closed".
fn judge(host: &Host, port: u16, policy: &Policy) -> Result<(), Refusal> {
    // An operator who names a network means the services in it, on whatever port they listen.
    let named_by_operator = match host {
        Host::Address(address) => {
            policy.judge_address(*address, port)?;
            policy.allows_explicitly(*address)
        }
        Host::Name(name) => {
            policy.judge_name(name, port)?;
            let local = name == "localhost" && !loopback(policy, port).is_empty();
            if !local {
                names::check(name)
                    .map_err(|reason| Refusal::HostNotAllowed { host: name.clone(), reason })?;
            }
            local
        }
    };
    if port == 0 || !(named_by_operator || ports::is_open(port)) {
        return Err(Refusal::PortNotAllowed { port: port.to_string() });
    }
    Ok(())
}

/// What `localhost` means here: the loopback addresses that the operator allows, without asking
/// DNS. A resolver that answers with both families would otherwise get the name refused wherever
/// only one of them is allowed.
pub(super) fn loopback(policy: &Policy, port: u16) -> Vec<IpAddr> {
    [IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1u16])]
        .into_iter()
        .filter(|address| policy.judge_address(*address, port).is_ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> &'static str {
        Target::parse(text, &Policy::default()).map_or_else(|r| r.code(), |_| "allowed")
    }

    fn local() -> Policy {
        let allow = vec!["127.0.0.1/32".parse().expect("a network")];
        Policy { allow, ..Policy::default() }
    }

    #[test]
    fn the_text_is_checked_before_it_is_parsed() {
        for (text, expected) in [
            ("", "url_invalid"),
            ("example.com/hook", "url_invalid"),
            ("https:example.com", "url_invalid"),
            ("https:/example.com", "url_invalid"),
            ("https:////example.com", "url_invalid"),
            ("https://:443/", "url_invalid"),
            (" https://example.com/", "url_invalid"),
            ("https://example.com/\u{2028}", "url_invalid"),
            ("https://example.com/#part", "url_invalid"),
            ("https://[fe80::1%25eth0]/", "url_invalid"),
            ("https://ex%61mple.com/", "url_invalid"),
            ("https://example.com:65536/", "url_invalid"),
            ("https://@example.com/", "userinfo_not_allowed"),
            ("https://:@example.com/", "userinfo_not_allowed"),
            ("gopher://example.com/", "scheme_not_allowed"),
            ("https://example.com:0/", "port_not_allowed"),
            ("https://example.com:21/", "port_not_allowed"),
            ("https://example.com../", "host_not_allowed"),
            ("https://10.0.0.1:0/", "address_private"),
            ("https://example.com/a@b?c=@d", "allowed"),
        ] {
            assert_eq!(code(text), expected, "{text:?}");
        }
        assert_eq!(code(&format!("https://example.com/{}", "a".repeat(2048))), "url_invalid");
    }

    #[test]
    fn the_normalised_form() {
        let target = Target::parse(
            "HTTPS://B\u{fc}cher.Example.:443/a b".replace(' ', "%20").as_str(),
            &Policy::default(),
        )
        .expect("allowed");
        assert_eq!(target.url, "https://xn--bcher-kva.example/a%20b");
        assert_eq!(target.origin(), "https://xn--bcher-kva.example");
        assert_eq!(target.host_header, "xn--bcher-kva.example");
        let target = Target::parse("http://[2606:4700:0::1111]:8080?q=1", &Policy::default())
            .expect("allowed");
        assert_eq!(target.origin(), "http://[2606:4700::1111]:8080");
        assert_eq!(target.host_header, "[2606:4700::1111]:8080");
        assert_eq!(target.path, "/?q=1");
        assert_eq!(format!("{target:?}"), "Target(http://[2606:4700::1111]:8080)");
    }

    #[test]
    fn an_allowed_address_may_use_any_port_but_zero() {
        for (text, expected) in [
            ("http://127.0.0.1:6379/", true),
            ("http://127.0.0.1:22/", true),
            ("http://localhost:5432/", true),
            ("http://LOCALHOST.:81/", true),
            ("http://127.0.0.1:0/", false),
            ("http://localhost:0/", false),
            ("http://127.0.0.2:8080/", false),
            ("http://a.localhost:8080/", false),
            ("http://example.com:6379/", false),
        ] {
            assert_eq!(Target::parse(text, &local()).is_ok(), expected, "{text}");
        }
    }

    #[test]
    fn localhost_is_what_is_allowed_of_it() {
        assert_eq!(loopback(&local(), 80), [IpAddr::from([127, 0, 0, 1])]);
        let mut policy = local();
        policy.own = vec![("0.0.0.0".into(), 8080)];
        assert!(Target::parse("http://localhost:8080/", &policy).is_err());
        assert!(Target::parse("http://localhost:8081/", &policy).is_ok());
    }

    #[test]
    fn refusals_keep_secrets() {
        for text in [
            "https://user:hunter2@example.com/",
            "user:hunter2@example.com",
            "https://user:hunter2/x@example.com/",
            "https://10.0.0.1/hunter2?hunter2",
            "https://example.com:22/?hunter2",
            "ftp://user:hunter2@example.com/",
        ] {
            let refusal = Target::parse(text, &Policy::default()).expect_err(text);
            assert!(!refusal.to_string().contains("hunter2"), "{refusal}");
            assert!(!format!("{refusal:?}").contains("hunter2"), "{refusal:?}");
        }
    }
}
