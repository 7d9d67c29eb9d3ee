//! What an import is told: checked at submission, kept in two parts, put together again to run.
//!
//! The shown part has `***` in the place of every secret; the other part is sealed by the engine.
//! Must not send anything.

use serde_json::{Map, Value, json};
use url::Url;

use crate::egress::mask::mask_url_credentials;
use crate::egress::{check_header, forbidden_header};
use crate::handlers::destination::Destination;
use crate::handlers::members::{Members, kind};

const MAX_URL_BYTES: usize = 2048;
const MAX_HEADERS: usize = 20;
const MAX_HEADER_BYTES: usize = 8 * 1024;
const MASK: &str = "***";

/// An import that can be run.
pub(super) struct Order {
    /// With its secrets.
    pub url: String,
    /// With their values.
    pub headers: Vec<(String, String)>,
    pub destination: Destination,
}

impl Order {
    /// Reads a specification as it was submitted, or as it is stored.
    pub fn read(specification: &Value) -> Result<Order, String> {
        const ALLOWED: [&str; 3] = ["sourceUrl", "destination", "externalAuthorization"];
        let members = Members::read(specification, "specification", &ALLOWED)?;
        let url = members.required_text("sourceUrl", "an http or https URL")?;
        check_url(url).map_err(|why| format!("{} {why}", members.place("sourceUrl")))?;
        let destination = members.required("destination", "{path | directory, acl}")?;
        let destination = Destination::read(destination, &members.place("destination"))?;
        let headers = match members.get("externalAuthorization") {
            Some(value) => {
                let place = members.place("externalAuthorization");
                let members = Members::read(value, &place, &["headers"])?;
                match members.get("headers") {
                    Some(value) => headers(value, &members.place("headers"))?,
                    None => Vec::new(),
                }
            }
            None => Vec::new(),
        };
        Ok(Order { url: url.to_owned(), headers, destination })
    }

    /// Puts the two parts together.
    pub fn restored(stored: &Value, secrets: &Value) -> Result<Order, String> {
        let mut order = Order::read(stored)?;
        if let Some(url) = secrets.get("sourceUrl").and_then(Value::as_str) {
            order.url = url.to_owned();
        }
        for (name, value) in &mut order.headers {
            let secret = secrets.get("headers").and_then(|headers| headers.get(&*name));
            let Some(secret) = secret.and_then(Value::as_str) else {
                return Err(format!("the stored value of header {name} is gone"));
            };
            secret.clone_into(value);
        }
        Ok(order)
    }

    /// The part that everybody with access to the job may see.
    pub fn shown(&self) -> Value {
        let mut shown = json!({
            "sourceUrl": mask_url_credentials(&self.url),
            "destination": self.destination.shown(),
        });
        if !self.headers.is_empty() {
            let headers = self.headers.iter().map(|(name, _)| (name.clone(), MASK.into()));
            shown["externalAuthorization"] = json!({"headers": headers.collect::<Map<_, _>>()});
        }
        shown
    }

    /// The part that nobody sees; null when there is nothing in it.
    pub fn secrets(&self) -> Value {
        let mut secrets = Map::new();
        if mask_url_credentials(&self.url) != self.url {
            secrets.insert("sourceUrl".to_owned(), self.url.as_str().into());
        }
        if !self.headers.is_empty() {
            let headers = self.headers.iter().map(|(name, value)| (name.clone(), json!(value)));
            secrets.insert("headers".to_owned(), headers.collect::<Map<_, _>>().into());
        }
        if secrets.is_empty() { Value::Null } else { secrets.into() }
    }
}

/// Form only; whether the address may be called is decided where it is called.
fn check_url(text: &str) -> Result<(), String> {
    if text.len() > MAX_URL_BYTES {
        let length = text.len();
        return Err(format!("has {length} bytes; allowed: up to {MAX_URL_BYTES}"));
    }
    let shown = mask_url_credentials(text);
    let url = Url::parse(text)
        .map_err(|why| format!("{shown:?} is no URL ({why}); allowed: an http or https URL"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(format!("{shown:?}; allowed: an http or https URL with a host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!(
            "{shown:?} carries a user name or password; allowed: a URL without, and credentials in \
             externalAuthorization.headers"
        ));
    }
    Ok(())
}

fn headers(value: &Value, place: &str) -> Result<Vec<(String, String)>, String> {
    let Value::Object(members) = value else {
        return Err(format!("{place} is {}; allowed: an object of strings", kind(value)));
    };
    if members.len() > MAX_HEADERS {
        let count = members.len();
        return Err(format!("{place} has {count} members; allowed: up to {MAX_HEADERS}"));
    }
    let mut headers: Vec<(String, String)> = Vec::with_capacity(members.len());
    for (name, value) in members {
        let shown: String = name.chars().take(64).collect();
        let Value::String(value) = value else {
            return Err(format!("{place}.{shown} is {}; allowed: a string", kind(value)));
        };
        check_header(name, value).map_err(|refusal| format!("{place}: {refusal}"))?;
        if forbidden_header(name) {
            return Err(format!(
                "{place}.{shown} may not be set; allowed: headers other than Host, those of \
                 framing and of signatures"
            ));
        }
        if headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name)) {
            return Err(format!("{place}.{shown} is given twice; allowed: each name once"));
        }
        headers.push((name.clone(), value.clone()));
    }
    let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > MAX_HEADER_BYTES {
        return Err(format!("{place} has {bytes} bytes; allowed: up to {MAX_HEADER_BYTES}"));
    }
    Ok(headers)
}

#[cfg(test)]
#[path = "specification_tests.rs"]
mod tests;
