//! The keys of a replay, and the headers that a delivery signed with them has.
//!
//! Must not know what becomes of a webhook after it is signed.

use anyhow::Context as _;

use crate::formats::{
    AttemptView, DeliveryFormat, Ed25519Key, Header, Signature, SigningKeys, SigningSecret,
    Standard,
};

/// Signs as a server would for an endpoint with these keys.
pub(super) struct Signer {
    signature: Signature,
    keys: SigningKeys,
}

impl Signer {
    /// From what the user gave; never repeats a secret.
    pub(super) fn new(signature: Signature, texts: &[String]) -> anyhow::Result<Signer> {
        let mut keys = SigningKeys::default();
        for text in texts {
            if text.starts_with("whsk_") {
                keys.ed25519.push(Ed25519Key::parse(text).context("--secret")?);
            } else {
                let secret = SigningSecret::parse(text);
                keys.secrets.push(secret.context("--secret whsec_… (or whsk_… for ed25519)")?);
            }
        }
        let (missing, wanted) = match signature {
            Signature::Standard | Signature::Hex => (keys.secrets.is_empty(), "whsec_…"),
            Signature::Ed25519 => (keys.ed25519.is_empty(), "whsk_…"),
        };
        let kind = signature.as_str();
        anyhow::ensure!(!missing, "--signature {kind} needs a --secret {wanted}");
        Ok(Signer { signature, keys })
    }

    /// What the receiver verifies with, where it is not the secret itself.
    pub(super) fn public_key(&self) -> Option<&str> {
        let wanted = self.signature == Signature::Ed25519;
        self.keys.ed25519.first().filter(|_| wanted).map(Ed25519Key::public_text)
    }

    /// The headers of a first try.
    pub(super) fn headers(
        &self,
        webhook_id: &str,
        event_type: &str,
        timestamp_seconds: i64,
        body: &str,
    ) -> Vec<Header> {
        let attempt =
            AttemptView { webhook_id, number: 1, timestamp_seconds, event_type, redelivery: None };
        Standard::default().headers(&attempt, &self.keys, self.signature, body, None)
    }
}
