//! A signing secret as receivers know it: `whsec_` and base64.
//!
//! Must not know: where secrets are stored, how they are sealed, or when they rotate.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit};
use sha2::Sha256;

pub(super) type HmacSha256 = Hmac<Sha256>;

const PREFIX: &str = "whsec_";
/// What Standard Webhooks allows: shorter can be guessed, longer adds nothing.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// One secret, decoded and ready to sign. Parsing keys the HMAC, so keep the value for as long as
/// its receiver is in use rather than parsing per attempt.
#[derive(Clone)]
pub struct SigningSecret {
    text: String,
    /// The HMAC after its key block: copying it costs less than keying it again.
    keyed: HmacSha256,
}

/// Why a text is no signing secret. Never shows the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    #[error("a signing secret starts with \"whsec_\"")]
    Prefix,
    #[error("after \"whsec_\" a signing secret is standard base64 with padding")]
    Base64,
    #[error("a signing secret has 24 to 64 bytes, this one has {bytes}")]
    Length { bytes: usize },
}

impl SigningSecret {
    /// Reads `whsec_<base64>`.
    pub fn parse(text: &str) -> Result<SigningSecret, SecretError> {
        let encoded = text.strip_prefix(PREFIX).ok_or(SecretError::Prefix)?;
        let key = STANDARD.decode(encoded).map_err(|_| SecretError::Base64)?;
        SigningSecret::keyed(text.to_owned(), &key)
    }

    /// Makes a secret of random bytes that the caller drew.
    pub fn from_key(key: &[u8]) -> Result<SigningSecret, SecretError> {
        SigningSecret::keyed(format!("{PREFIX}{}", STANDARD.encode(key)), key)
    }

    /// The whole text with its prefix: what its owner is shown once, and the key of the
    /// Stripe-style signature.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Starts a signature under this secret.
    pub(super) fn mac(&self) -> HmacSha256 {
        self.keyed.clone()
    }

    fn keyed(text: String, key: &[u8]) -> Result<SigningSecret, SecretError> {
        let wrong_length = SecretError::Length { bytes: key.len() };
        if !KEY_BYTES.contains(&key.len()) {
            return Err(wrong_length);
        }
        let keyed = HmacSha256::new_from_slice(key).map_err(|_| wrong_length)?;
        Ok(SigningSecret { text, keyed })
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_survives_being_written_and_read() {
        let secret = SigningSecret::from_key(&[7; 32]).unwrap();
        assert!(secret.text().starts_with("whsec_"));
        assert_eq!(SigningSecret::parse(secret.text()).unwrap().text(), secret.text());
    }

    #[test]
    fn what_is_not_a_secret_is_refused_by_reason() {
        for (text, reason) in [
            ("", SecretError::Prefix),
            ("v1,whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", SecretError::Prefix),
            ("whsec_test_secret", SecretError::Base64),
            ("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8", SecretError::Base64),
            ("whsec_AAEC", SecretError::Length { bytes: 3 }),
        ] {
            assert_eq!(SigningSecret::parse(text).unwrap_err(), reason, "{text}");
        }
        assert_eq!(
            SigningSecret::from_key(&[0; 65]).unwrap_err(),
            SecretError::Length { bytes: 65 }
        );
    }

    #[test]
    fn debug_output_hides_it() {
        let secret = SigningSecret::from_key(&[7; 32]).unwrap();
        assert_eq!(format!("{secret:?}"), "SigningSecret(***)");
    }
}
