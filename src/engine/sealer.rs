//! Secrets at rest: sealed under the master key, opened only on the way out.
//!
//! AES-256-GCM with a random nonce; what a value belongs to is authenticated with it, so a sealed
//! value moved to another row does not open. Must not know what is sealed.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

/// The first byte of a sealed value: which key and cipher.
const VERSION: u8 = 1;

/// Seals and opens values under one master key.
pub struct Sealer {
    key: LessSafeKey,
    digest: ring::hmac::Key,
    random: SystemRandom,
}

/// The value was sealed under another key, for another place, or is damaged.
#[derive(Debug, thiserror::Error)]
#[error("a sealed value does not open: is this the master key it was sealed under?")]
pub struct SealError;

impl Sealer {
    /// Draws a new master key.
    pub fn new_master_key() -> Result<[u8; 32], SealError> {
        let mut key = [0u8; 32];
        SystemRandom::new().fill(&mut key).map_err(|_| SealError)?;
        Ok(key)
    }

    /// A sealer for a 32-byte master key.
    pub fn new(master_key: &[u8; 32]) -> Result<Sealer, SealError> {
        let key = UnboundKey::new(&AES_256_GCM, master_key).map_err(|_| SealError)?;
        let derive = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, master_key);
        let derived = ring::hmac::sign(&derive, b"ringback digest");
        Ok(Sealer {
            key: LessSafeKey::new(key),
            digest: ring::hmac::Key::new(ring::hmac::HMAC_SHA256, derived.as_ref()),
            random: SystemRandom::new(),
        })
    }

    /// Seals a value for a place (`receiver`, `specification` …).
    pub fn seal(&self, place: &str, value: &[u8]) -> Result<Vec<u8>, SealError> {
        let nonce = self.random_bytes::<NONCE_LEN>()?;
        let mut sealed = value.to_vec();
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(place.as_bytes()),
                &mut sealed,
            )
            .map_err(|_| SealError)?;
        let mut out = Vec::with_capacity(1 + NONCE_LEN + sealed.len());
        out.push(VERSION);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&sealed);
        Ok(out)
    }

    /// Opens what was sealed for the same place.
    pub fn open(&self, place: &str, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let rest = sealed.strip_prefix(&[VERSION]).ok_or(SealError)?;
        let (nonce, rest) = rest.split_at_checked(NONCE_LEN).ok_or(SealError)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError)?;
        let mut buffer = rest.to_vec();
        let opened = self
            .key
            .open_in_place(nonce, Aad::from(place.as_bytes()), &mut buffer)
            .map_err(|_| SealError)?;
        Ok(opened.to_vec())
    }

    /// A digest that nobody without the master key can try values against.
    pub fn keyed_digest(&self, value: &[u8]) -> String {
        hex::encode(ring::hmac::sign(&self.digest, value))
    }

    /// Random bytes fit for keys.
    pub fn random_bytes<const N: usize>(&self) -> Result<[u8; N], SealError> {
        let mut bytes = [0u8; N];
        self.random.fill(&mut bytes).map_err(|_| SealError)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_opens_only_with_its_key_and_place() {
        let sealer = Sealer::new(&[7; 32]).unwrap();
        let sealed = sealer.seal("receiver", b"hush").unwrap();
        assert!(!sealed.windows(4).any(|window| window == b"hush"));
        assert_eq!(sealer.open("receiver", &sealed).unwrap(), b"hush");
        assert!(sealer.open("elsewhere", &sealed).is_err());
        assert!(Sealer::new(&[8; 32]).unwrap().open("receiver", &sealed).is_err());
        let mut damaged = sealed.clone();
        *damaged.last_mut().unwrap() ^= 1;
        assert!(sealer.open("receiver", &damaged).is_err());
        assert!(sealer.open("receiver", b"").is_err());
    }
}
