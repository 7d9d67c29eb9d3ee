//! Whether a webhook was signed with one of the given keys, and if not, why.
//!
//! Written anew from the text of Standard Webhooks, apart from the code that signs, so that a
//! mistake there is not made here too. Must not know what becomes of a webhook.

use actix_web::http::header::HeaderMap;
use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use ring::signature::{ED25519, UnparsedPublicKey};

use crate::formats::SigningSecret;

/// How far the signed time may be off, both ways, as in the official libraries.
const TOLERANCE_SECONDS: u64 = 300;
const PUBLIC_KEY_BYTES: usize = 32;

/// What is known about the sender of a webhook.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// No key was given.
    Unchecked,
    /// By a signature of this kind: `v1`, `v1a` or `hex`.
    Verified(&'static str),
    Refused(String),
}

/// What there is to verify with.
pub(super) struct Keys {
    secrets: Vec<Secret>,
    public: Vec<UnparsedPublicKey<Vec<u8>>>,
}

struct Secret {
    /// For `v1`: what the text after the prefix stands for.
    decoded: hmac::Key,
    /// For the hex signature: the whole text.
    whole: hmac::Key,
}

impl Keys {
    /// Reads `whsec_…` and `whpk_…`; never repeats one.
    pub(super) fn parse(texts: &[String]) -> anyhow::Result<Keys> {
        let mut keys = Keys { secrets: Vec::new(), public: Vec::new() };
        for text in texts {
            if let Some(encoded) = text.strip_prefix("whpk_") {
                let bytes = STANDARD.decode(encoded).unwrap_or_default();
                anyhow::ensure!(
                    bytes.len() == PUBLIC_KEY_BYTES,
                    "after \"whpk_\" a public key is {PUBLIC_KEY_BYTES} bytes in base64"
                );
                keys.public.push(UnparsedPublicKey::new(&ED25519, bytes));
            } else {
                SigningSecret::parse(text).context("not whsec_… (or whpk_… for ed25519)")?;
                let decoded = STANDARD.decode(text.strip_prefix("whsec_").unwrap_or_default())?;
                keys.secrets.push(Secret {
                    decoded: hmac::Key::new(hmac::HMAC_SHA256, &decoded),
                    whole: hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes()),
                });
            }
        }
        Ok(keys)
    }

    /// One signature that holds is enough, of whatever kind: during a rotation the others are for
    /// keys that are not known here.
    pub(super) fn verify(&self, headers: &HeaderMap, body: &[u8], now_seconds: i64) -> Verdict {
        if self.secrets.is_empty() && self.public.is_empty() {
            return Verdict::Unchecked;
        }
        let standard = headers.get("webhook-signature");
        let hex = headers.get("ringback-signature");
        let mut refused = Verdict::Refused("it carries no signature".to_owned());
        if hex.is_some() {
            match self.verify_hex(headers, body, now_seconds) {
                Ok(()) => return Verdict::Verified("hex"),
                Err(reason) => refused = Verdict::Refused(reason),
            }
        }
        if standard.is_some() {
            match self.verify_standard(headers, body, now_seconds) {
                Ok(kind) => return Verdict::Verified(kind),
                Err(reason) => refused = Verdict::Refused(reason),
            }
        }
        refused
    }

    /// `v1,<base64>` and `v1a,<base64>` over `id.time.body`.
    fn verify_standard(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        now_seconds: i64,
    ) -> Result<&'static str, String> {
        let id = text(headers, "webhook-id")?;
        let time = text(headers, "webhook-timestamp")?;
        check_time("webhook-timestamp", time, now_seconds)?;
        let signed = [id.as_bytes(), time.as_bytes(), body].join(&b'.');
        let mut known_kind = false;
        for signature in text(headers, "webhook-signature")?.split(' ') {
            let Some((kind, encoded)) = signature.split_once(',') else { continue };
            let bytes = STANDARD.decode(encoded).unwrap_or_default();
            match kind {
                "v1" => {
                    known_kind |= !self.secrets.is_empty();
                    let holds = |key: &Secret| hmac::verify(&key.decoded, &signed, &bytes).is_ok();
                    if self.secrets.iter().any(holds) {
                        return Ok("v1");
                    }
                }
                "v1a" => {
                    known_kind |= !self.public.is_empty();
                    if self.public.iter().any(|key| key.verify(&signed, &bytes).is_ok()) {
                        return Ok("v1a");
                    }
                }
                _ => {}
            }
        }
        Err(if known_kind { no_match("webhook-signature") } else { self.other_kinds() })
    }

    /// `t=<seconds>,v1=<hex>` over `time.body`.
    fn verify_hex(&self, headers: &HeaderMap, body: &[u8], now_seconds: i64) -> Result<(), String> {
        if self.secrets.is_empty() {
            return Err(self.other_kinds());
        }
        let value = text(headers, "ringback-signature")?;
        let parts = || value.split(',').filter_map(|part| part.split_once('='));
        let time = parts().find(|(name, _)| *name == "t").map(|(_, time)| time);
        let time = time.ok_or("ringback-signature has no t=<seconds>")?;
        check_time("t in ringback-signature", time, now_seconds)?;
        let signed = [time.as_bytes(), body].join(&b'.');
        let holds = parts()
            .filter(|(name, _)| *name == "v1")
            .filter_map(|(_, digits)| hex::decode(digits).ok())
            .any(|bytes| {
                self.secrets.iter().any(|key| hmac::verify(&key.whole, &signed, &bytes).is_ok())
            });
        if holds { Ok(()) } else { Err(no_match("ringback-signature")) }
    }

    fn other_kinds(&self) -> String {
        let checked = match (self.secrets.is_empty(), self.public.is_empty()) {
            (true, _) => "v1a, as a whpk_ was given",
            (_, true) => "v1, as a whsec_ was given",
            _ => "v1 and v1a",
        };
        format!("it carries no signature that can be checked; checked is {checked}")
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, String> {
    let value = headers.get(name).ok_or_else(|| format!("the header {name} is missing"))?;
    value.to_str().map_err(|_| format!("the header {name} is not plain text"))
}

fn check_time(what: &str, time: &str, now_seconds: i64) -> Result<(), String> {
    let shown: String = time.chars().take(32).collect();
    let seconds: i64 =
        time.parse().map_err(|_| format!("{what} is not Unix seconds but `{shown}`"))?;
    let off = now_seconds.abs_diff(seconds);
    if off <= TOLERANCE_SECONDS {
        return Ok(());
    }
    let way = if seconds < now_seconds { "old" } else { "ahead" };
    Err(format!("{what} is {off} s {way}, allowed are {TOLERANCE_SECONDS} s"))
}

fn no_match(header: &str) -> String {
    format!("{header} does not match: another secret, or id, time or body were changed")
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
