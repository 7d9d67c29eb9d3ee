//! How deliveries to one receiver are signed, and with what.
//!
//! Must not know: header names, where keys are stored, or when they rotate.

use super::{Ed25519Key, SigningSecret};

/// The kinds of signature that a receiver can choose from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Signature {
    /// Standard Webhooks, `v1`: HMAC-SHA256 in base64.
    #[default]
    Standard,
    /// The same, and beside it `t=…,v1=<hex>` for receivers that check the Stripe style.
    Hex,
    /// Standard Webhooks, `v1a`: ed25519, so that receivers hold nothing secret.
    Ed25519,
}

/// Why a name is no kind of signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no signature {name:?}; there are: standard, hex, ed25519")]
pub struct UnknownSignature {
    name: String,
}

impl Signature {
    /// All of them, the default first.
    pub const ALL: [Signature; 3] = [Signature::Standard, Signature::Hex, Signature::Ed25519];

    /// The name it is shown and stored under.
    pub fn as_str(self) -> &'static str {
        match self {
            Signature::Standard => "standard",
            Signature::Hex => "hex",
            Signature::Ed25519 => "ed25519",
        }
    }

    /// The kind of that name; the error lists the names there are.
    pub fn parse(name: &str) -> Result<Signature, UnknownSignature> {
        Signature::ALL
            .into_iter()
            .find(|signature| signature.as_str() == name)
            .ok_or_else(|| UnknownSignature { name: name.chars().take(64).collect() })
    }
}

/// The active keys of a receiver, of each kind the newest first.
#[derive(Debug, Clone, Default)]
pub struct SigningKeys {
    /// For `v1` and for the hex signature.
    pub secrets: Vec<SigningSecret>,
    /// For `v1a`.
    pub ed25519: Vec<Ed25519Key>,
}

impl SigningKeys {
    /// Whether a request can be signed in this way with them. Shared secrets sign beside key pairs;
    /// key pairs alone say nothing to a receiver that has a secret.
    pub fn can_sign(&self, signature: Signature) -> bool {
        match signature {
            Signature::Standard | Signature::Hex => !self.secrets.is_empty(),
            Signature::Ed25519 => !self.ed25519.is_empty() || !self.secrets.is_empty(),
        }
    }
}

impl From<Vec<SigningSecret>> for SigningKeys {
    fn from(secrets: Vec<SigningSecret>) -> SigningKeys {
        SigningKeys { secrets, ed25519: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_finds_its_signature() {
        for signature in Signature::ALL {
            assert_eq!(Signature::parse(signature.as_str()), Ok(signature));
        }
        assert_eq!(Signature::default(), Signature::Standard);
    }

    #[test]
    fn an_unknown_name_is_told_the_known_ones() {
        for name in ["", "Standard", "rsa"] {
            let error = Signature::parse(name).unwrap_err().to_string();
            let known = Signature::ALL.map(Signature::as_str).join(", ");
            assert_eq!(error, format!("there is no signature {name:?}; there are: {known}"));
        }
        let error = Signature::parse(&"x".repeat(1_000)).unwrap_err().to_string();
        assert!(error.len() < 200, "{error}");
    }

    #[test]
    fn keys_sign_only_what_their_kind_can() {
        let secrets = vec![SigningSecret::from_key(&[7; 32]).unwrap()];
        let ed25519 = vec![Ed25519Key::from_seed(&[7; 32]).unwrap()];
        let signs = |keys: &SigningKeys| Signature::ALL.map(|signature| keys.can_sign(signature));
        let [standard, hex, own] = [Signature::Standard, Signature::Hex, Signature::Ed25519];
        assert_eq!(Signature::ALL, [standard, hex, own]);
        assert_eq!(signs(&SigningKeys::default()), [false, false, false]);
        assert_eq!(signs(&SigningKeys::from(secrets)), [true, true, true]);
        let pairs = SigningKeys { secrets: Vec::new(), ed25519 };
        assert_eq!(signs(&pairs), [false, false, true]);
    }

    #[test]
    fn debug_output_hides_keys() {
        let keys = SigningKeys {
            secrets: vec![SigningSecret::from_key(&[7; 32]).unwrap()],
            ed25519: vec![Ed25519Key::from_seed(&[7; 32]).unwrap()],
        };
        let shown = format!("{keys:?}");
        assert!(!shown.contains("whsec_") && !shown.contains("whsk_"), "{shown}");
    }
}
