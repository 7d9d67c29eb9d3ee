//! One received webhook, as the sink tells the load generator: few bytes of fixed length, because
//! there are thousands a second and both ends share the machine with what is measured.

use std::hash::{DefaultHasher, Hash, Hasher};

use uuid::Uuid;

/// Bytes on the wire.
pub(super) const LENGTH: usize = 41;

/// What the sink makes of a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The signature is right and the event is `job.succeeded`.
    Good,
    /// The signature is wrong or missing.
    Forged,
    /// Another event, or a body that is not of this bench.
    Unexpected,
    /// The signature is right, and nothing else was looked at.
    Signed,
}

/// One received webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Notice {
    pub verdict: Verdict,
    /// Of the receiver: 0 for the callback, and each endpoint's own.
    pub place: u32,
    /// The job's number in its metadata.
    pub number: u32,
    /// When it came, microseconds since the epoch.
    pub at: i64,
    pub job: Uuid,
    /// Stands for the `webhook-id`.
    pub webhook: u64,
}

/// A `webhook-id` in few bytes. Both processes run the same binary, so the hash is the same.
pub(super) fn webhook(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

impl Notice {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.push(match self.verdict {
            Verdict::Good => 0,
            Verdict::Forged => 1,
            Verdict::Unexpected => 2,
            Verdict::Signed => 3,
        });
        out.extend_from_slice(&self.place.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.at.to_le_bytes());
        out.extend_from_slice(self.job.as_bytes());
        out.extend_from_slice(&self.webhook.to_le_bytes());
    }

    pub(super) fn decode(bytes: &[u8; LENGTH]) -> Notice {
        let [verdict, rest @ ..] = *bytes;
        let (place, rest) = split::<4>(&rest);
        let (number, rest) = split::<4>(rest);
        let (at, rest) = split::<8>(rest);
        let (job, rest) = split::<16>(rest);
        let (webhook, _) = split::<8>(rest);
        Notice {
            verdict: match verdict {
                0 => Verdict::Good,
                1 => Verdict::Forged,
                3 => Verdict::Signed,
                _ => Verdict::Unexpected,
            },
            place: u32::from_le_bytes(place),
            number: u32::from_le_bytes(number),
            at: i64::from_le_bytes(at),
            job: Uuid::from_bytes(job),
            webhook: u64::from_le_bytes(webhook),
        }
    }
}

/// The first `N` bytes and the rest; zeros when there are fewer, which the fixed length rules out.
fn split<const N: usize>(bytes: &[u8]) -> ([u8; N], &[u8]) {
    bytes.split_first_chunk().map_or(([0; N], &[]), |(first, rest)| (*first, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_survives_the_wire() {
        use Verdict::{Forged, Good, Signed, Unexpected};
        for verdict in [Good, Forged, Unexpected, Signed] {
            let notice = Notice {
                verdict,
                place: 1_000,
                number: 70_000,
                at: 1_700_000_000_000_001,
                job: Uuid::now_v7(),
                webhook: webhook("some-id"),
            };
            let mut bytes = Vec::new();
            notice.encode(&mut bytes);
            assert_eq!(Notice::decode(&bytes.try_into().unwrap()), notice);
        }
    }
}
