//! One webhook as it is printed: for people, or one JSON object a line for scripts.
//!
//! What came over the network is printed so that no terminal obeys it. Must not know how a webhook
//! is verified or answered.

use std::fmt::Write as _;

use actix_web::http::header::HeaderMap;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::json_text;
use crate::cli::output::printable;
use crate::cli::verify::Verdict;
use crate::ids::Timestamp;

const MARGIN: &str = "  ";

/// What is told of one request.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Received {
    time: Timestamp,
    path: String,
    event: Option<String>,
    webhook_id: Option<String>,
    attempt: Option<u32>,
    previous_failure: Option<String>,
    redelivery: Option<String>,
    /// None when no key was given.
    verified: Option<bool>,
    signature: Option<&'static str>,
    refusal: Option<String>,
    /// How often this id has come, this time included.
    times_seen: u64,
    duplicate: bool,
    answer: u16,
    note: Option<String>,
    /// The body, if it is JSON.
    body: Option<Box<RawValue>>,
    /// The body, if it is not.
    text: Option<String>,
}

/// How it was answered, and why so if that is not plain.
pub(super) struct Answered {
    pub status: u16,
    pub note: Option<String>,
}

impl Received {
    pub(super) fn new(
        time: Timestamp,
        path: &str,
        headers: &HeaderMap,
        body: &[u8],
        verdict: &Verdict,
        times_seen: u64,
    ) -> Received {
        let header = |name| {
            let value = headers.get(name)?;
            Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let members: Option<Map<String, Value>> = serde_json::from_slice(body).ok();
        let event = members.as_ref().and_then(|members| members.get("type")?.as_str());
        let json: Option<&RawValue> = serde_json::from_slice(body).ok();
        let line = json.map(|json| json_text::on_one_line(json.get()));
        let text = String::from_utf8_lossy(body);
        let (verified, signature, refusal) = match verdict {
            Verdict::Unchecked => (None, None, None),
            Verdict::Verified(kind) => (Some(true), Some(*kind), None),
            Verdict::Refused(reason) => (Some(false), None, Some(reason.clone())),
        };
        Received {
            time,
            path: path.to_owned(),
            event: event.map(str::to_owned),
            webhook_id: header("webhook-id"),
            attempt: header("webhook-attempt").and_then(|text| text.parse().ok()),
            previous_failure: header("webhook-previous-failure"),
            redelivery: header("webhook-redelivery"),
            verified,
            signature,
            refusal,
            times_seen,
            duplicate: times_seen > 1,
            answer: 0,
            note: None,
            text: json.is_none().then(|| text.into_owned()),
            body: line.and_then(|line| RawValue::from_string(line).ok()),
        }
    }

    pub(super) fn answered(self, answered: &Answered) -> Received {
        Received { answer: answered.status, note: answered.note.clone(), ..self }
    }

    /// One line of JSON, with every control character escaped as JSON escapes them.
    pub(super) fn as_json(&self) -> serde_json::Result<String> {
        let mut line = String::new();
        for character in serde_json::to_string(self)?.chars() {
            if character.is_control() {
                // Writing into a String has no way to fail.
                let _ = write!(line, "\\u{:04x}", u32::from(character));
            } else {
                line.push(character);
            }
        }
        Ok(line)
    }

    /// A few lines for people, and the body.
    pub(super) fn for_people(&self) -> String {
        let verdict = match (self.verified, self.signature, &self.refusal) {
            (_, _, Some(reason)) => format!("REFUSED: {}", printable(reason)),
            (_, Some(kind), _) => format!("verified ({kind})"),
            _ => "not verified, as no --secret was given".to_owned(),
        };
        let event = printable(self.event.as_deref().unwrap_or("no event"));
        let mut page = format!("{}  {event}  {verdict}\n", self.time);
        let mut row = |name: &str, value: &str| {
            // Writing into a String has no way to fail.
            let _ = writeln!(page, "{MARGIN}{name:<11} {}", printable(value));
        };
        row("webhook-id", self.webhook_id.as_deref().unwrap_or("none"));
        if self.duplicate {
            row("DUPLICATE", &format!("this webhook-id has come {} times", self.times_seen));
        }
        match (&self.attempt, &self.previous_failure) {
            (Some(attempt), Some(failure)) => {
                row("attempt", &format!("{attempt}, after {failure}"))
            }
            (Some(attempt), None) => row("attempt", &attempt.to_string()),
            (None, _) => {}
        }
        if let Some(redelivery) = &self.redelivery {
            row("redelivery", redelivery);
        }
        let note = self.note.as_deref().map(|note| format!(", {note}")).unwrap_or_default();
        row("answer", &format!("{}{note}", self.answer));
        match (&self.body, &self.text) {
            (Some(json), _) => page.push_str(&json_text::indented(json.get(), MARGIN)),
            (None, Some(text)) if !text.is_empty() => {
                let _ = write!(page, "{MARGIN}not JSON: {}", printable(text));
            }
            _ => {
                let _ = write!(page, "{MARGIN}no body");
            }
        }
        page
    }
}

#[cfg(test)]
#[path = "show_tests.rs"]
mod tests;
