//! An ed25519 key pair: `whsk_` and base64 for the private half, `whpk_` for the public one.
//!
//! Standard Webhooks names the prefixes and leaves open what follows `whsk_`. Here it is the seed
//! and then the public key, 32 bytes each; the seed alone is read too.
//!
//! Must not know: where keys are stored, how they are sealed, or when they rotate.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{Ed25519KeyPair, KeyPair};

const PRIVATE_PREFIX: &str = "whsk_";
const PUBLIC_PREFIX: &str = "whpk_";
const SEED_BYTES: usize = 32;
const PAIR_BYTES: usize = 64;

/// One key pair, ready to sign. Making one costs as much as signing does, so keep the value for as
/// long as its receiver is in use rather than parsing per attempt.
#[derive(Clone)]
pub struct Ed25519Key {
    text: String,
    public_text: String,
    pair: Arc<Ed25519KeyPair>,
}

/// Why a text is no private key. Never shows the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Ed25519KeyError {
    #[error("a private key starts with \"whsk_\"")]
    Prefix,
    #[error("after \"whsk_\" a private key is standard base64 with padding")]
    Base64,
    #[error(
        "a private key has 32 bytes (the seed) or 64 (the seed and the public key), this one has {bytes}"
    )]
    Length { bytes: usize },
    #[error("the public key in this private key does not belong to its seed")]
    Mismatch,
}

impl Ed25519Key {
    /// Makes a key pair of random bytes that the caller drew.
    pub fn from_seed(seed: &[u8; SEED_BYTES]) -> Result<Ed25519Key, Ed25519KeyError> {
        let wrong_length = Ed25519KeyError::Length { bytes: seed.len() };
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| wrong_length)?;
        let public = pair.public_key().as_ref();
        Ok(Ed25519Key {
            text: format!("{PRIVATE_PREFIX}{}", STANDARD.encode([seed, public].concat())),
            public_text: format!("{PUBLIC_PREFIX}{}", STANDARD.encode(public)),
            pair: Arc::new(pair),
        })
    }

    /// Reads `whsk_<base64>` of a seed, or of a seed and its public key.
    pub fn parse(text: &str) -> Result<Ed25519Key, Ed25519KeyError> {
        let encoded = text.strip_prefix(PRIVATE_PREFIX).ok_or(Ed25519KeyError::Prefix)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| Ed25519KeyError::Base64)?;
        let wrong_length = Ed25519KeyError::Length { bytes: bytes.len() };
        let (seed, public) = bytes.split_first_chunk().ok_or(wrong_length)?;
        let key = Ed25519Key::from_seed(seed)?;
        match bytes.len() {
            SEED_BYTES => Ok(key),
            PAIR_BYTES if key.pair.public_key().as_ref() == public => Ok(key),
            PAIR_BYTES => Err(Ed25519KeyError::Mismatch),
            _ => Err(wrong_length),
        }
    }

    /// The private half, with the public one in it: what is stored, sealed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The public half: what receivers verify with.
    pub fn public_text(&self) -> &str {
        &self.public_text
    }

    /// The signature of a message; always the same one for the same message.
    pub fn sign(&self, message: &[u8]) -> [u8; PAIR_BYTES] {
        let signature = self.pair.sign(message);
        let mut bytes = [0; PAIR_BYTES];
        // Both are 64 bytes long by the definition of ed25519.
        bytes.iter_mut().zip(signature.as_ref()).for_each(|(to, from)| *to = *from);
        bytes
    }
}

impl fmt::Debug for Ed25519Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ed25519Key({})", self.public_text)
    }
}

#[cfg(test)]
mod tests {
    use ring::signature::{ED25519, UnparsedPublicKey};

    use super::*;

    #[test]
    fn a_key_survives_being_written_and_read() {
        let key = Ed25519Key::from_seed(&[7; 32]).unwrap();
        let read = Ed25519Key::parse(key.text()).unwrap();
        assert_eq!((read.text(), read.public_text()), (key.text(), key.public_text()));
        let seed_alone = format!("whsk_{}", STANDARD.encode([7; 32]));
        assert_eq!(Ed25519Key::parse(&seed_alone).unwrap().text(), key.text());
    }

    #[test]
    fn the_public_half_verifies_what_the_private_one_signed() {
        let key = Ed25519Key::from_seed(&[7; 32]).unwrap();
        let public = STANDARD.decode(key.public_text().strip_prefix("whpk_").unwrap()).unwrap();
        let public = UnparsedPublicKey::new(&ED25519, public);
        assert!(public.verify(b"message", &key.sign(b"message")).is_ok());
        assert!(public.verify(b"massage", &key.sign(b"message")).is_err());
    }

    #[test]
    fn what_is_not_a_key_is_refused_by_reason() {
        let text = |bytes: &[u8]| format!("whsk_{}", STANDARD.encode(bytes));
        let key = Ed25519Key::from_seed(&[7; 32]).unwrap();
        for (text, reason) in [
            (String::new(), Ed25519KeyError::Prefix),
            (key.public_text().to_owned(), Ed25519KeyError::Prefix),
            (key.text().trim_end_matches('=').to_owned(), Ed25519KeyError::Base64),
            ("whsk_secret!".to_owned(), Ed25519KeyError::Base64),
            (text(&[]), Ed25519KeyError::Length { bytes: 0 }),
            (text(&[7; 31]), Ed25519KeyError::Length { bytes: 31 }),
            (text(&[7; 33]), Ed25519KeyError::Length { bytes: 33 }),
            (text(&[7; 65]), Ed25519KeyError::Length { bytes: 65 }),
            (text(&[7; 64]), Ed25519KeyError::Mismatch),
        ] {
            assert_eq!(Ed25519Key::parse(&text).unwrap_err(), reason, "{text}");
        }
    }

    #[test]
    fn debug_output_shows_the_public_half_only() {
        let key = Ed25519Key::from_seed(&[7; 32]).unwrap();
        assert_eq!(format!("{key:?}"), format!("Ed25519Key({})", key.public_text()));
    }
}
