//! Opening the source, and what its answer means for the job.
//!
//! Must not know where the bytes go.

use std::time::Duration;

use bytes::Bytes;

use super::specification::Order;
use crate::egress::{Client, Download, Method, Outgoing, SendError};
use crate::files::name_from_content_disposition;
use crate::handlers::Ending;

/// A source that has begun to send the file.
pub(super) struct Fetched {
    pub download: Download,
    pub length: Option<u64>,
    /// The name the source gives the file, cleaned.
    pub proposed: Option<String>,
    /// The media type the source gives the file.
    pub declared: Option<String>,
}

pub(super) async fn open(
    client: &Client,
    order: &Order,
    deadline: Duration,
    cap: u64,
) -> Result<Fetched, Ending> {
    let outgoing = Outgoing {
        method: Method::GET,
        url: order.url.clone(),
        headers: order.headers.clone(),
        body: Bytes::new(),
        deadline,
        body_cap: 0,
    };
    let download = client.open(outgoing).await.map_err(|error| failure(&error))?;
    judge(download.status)?;
    let length = download.content_length;
    if let Some(length) = length.filter(|length| *length > cap) {
        let detail = format!("the source has {length} bytes; allowed: up to {cap}");
        return Err(Ending::permanent("file_too_large", detail));
    }
    let header = |wanted: &str| {
        let mut found = download.headers.iter().filter(|(name, _)| name == wanted);
        found.next().map(|(_, value)| value.as_str())
    };
    // Bytes are kept as they came. When they are packed for the way, the declared type is that of
    // the content inside.
    let packed = header("content-encoding").is_some_and(|value| {
        !value.trim().is_empty() && !value.trim().eq_ignore_ascii_case("identity")
    });
    let declared = header("content-type").filter(|_| !packed).map(str::to_owned);
    let proposed = header("content-disposition").and_then(name_from_content_disposition);
    Ok(Fetched { length, proposed, declared, download })
}

/// A request that got no answer, or only half of one.
pub(super) fn failure(error: &SendError) -> Ending {
    if error.is_transient() {
        Ending::transient(error.code(), error.to_string())
    } else {
        Ending::permanent(error.code(), error.to_string())
    }
}

/// Only a plain 200 is the file.
fn judge(status: u16) -> Result<(), Ending> {
    let answered = format!("the source answered {status}; allowed: 200");
    Err(match status {
        200 => return Ok(()),
        408 | 425 | 429 | 500..=599 => Ending::transient("source_unavailable", answered),
        404 | 410 => Ending::permanent("source_not_found", answered),
        400..=499 => Ending::permanent("source_refused", answered),
        301 | 302 | 303 | 307 | 308 => {
            let detail = format!("{answered}, redirects are never followed; name the final URL");
            Ending::permanent("source_redirects", detail)
        }
        _ => Ending::permanent("source_unexpected_status", answered),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_judged_by_status() {
        for (statuses, code, again) in [
            (&[404, 410][..], "source_not_found", false),
            (&[400, 401, 403, 407, 451], "source_refused", false),
            (&[408, 425, 429, 500, 503, 599], "source_unavailable", true),
            (&[301, 302, 303, 307, 308], "source_redirects", false),
            (&[201, 204, 206, 304, 600], "source_unexpected_status", false),
        ] {
            for status in statuses {
                let Err(Ending::Failed { failure, transient }) = judge(*status) else {
                    panic!("{status} must fail");
                };
                assert_eq!((failure.code.as_str(), transient), (code, again), "{status}");
                assert!(failure.detail.contains(&status.to_string()), "{}", failure.detail);
            }
        }
        assert!(judge(200).is_ok());
    }
}
