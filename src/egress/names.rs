//! Which host names can be receivers at all, before DNS is asked.
//!
//! Pure, and must not know addresses. A name inside somebody's own network is refused by its form:
//! what it resolves to here says nothing about what the caller meant.

/// Suffixes that never lead to the public internet.
const LOCAL_SUFFIXES: &[&str] = &[
    "localhost",
    "local",
    "localdomain",
    "internal",
    "intranet",
    "private",
    "corp",
    "home",
    "lan",
    "arpa",
    "onion",
];

/// Checks a parsed, lower-case, punycode name without its trailing dot. `Err` is the reason.
pub fn check(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("it is empty");
    }
    if name.len() > 253 {
        return Err("it is longer than 253 characters");
    }
    for label in name.split('.') {
        if label.is_empty() || label.len() > 63 {
            return Err("each part between dots needs 1 to 63 characters");
        }
        if !label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
            return Err("a name has only letters, digits, hyphens and dots");
        }
    }
    let Some((_, top)) = name.rsplit_once('.') else {
        return Err("a public name has at least two parts");
    };
    if LOCAL_SUFFIXES.contains(&top) {
        return Err("this suffix belongs to local networks; use a public name");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_names_are_refused_by_their_form() {
        let long = format!("{}.example.com", "a".repeat(64));
        for refused in [
            "",
            "backend",
            "localhost",
            "a.localhost",
            "db.internal",
            "printer.local",
            "x.svc.cluster.local",
            "nas.home.arpa",
            "router.lan",
            "1.0.0.127.in-addr.arpa",
            "a..b.com",
            ".com",
            "ex,ample.com",
            "a b.com",
            &long,
        ] {
            assert!(check(refused).is_err(), "{refused}");
        }
        for fine in ["example.com", "a_b.example.com", "xn--bcher-kva.example", "internal.com"] {
            assert!(check(fine).is_ok(), "{fine}");
        }
    }
}
