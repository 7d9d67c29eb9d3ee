//! Deliveries as they could come: fixtures signed by the official library, and spoiled ones.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ringback::clock::Clock;
use ringback::formats::examples;
use serde_json::Value;
use standardwebhooks::Webhook;

use crate::support::http::Client;

/// The present, as receivers see it.
pub fn now() -> i64 {
    Clock::system().now().seconds()
}

/// One request.
#[derive(Clone)]
pub struct Delivery {
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

impl Delivery {
    /// The fixture of an event of a no-op, signed now.
    #[track_caller]
    pub fn of(event: &str, secret: &str) -> Delivery {
        let example = examples::find(event, Some("urn:job:noop")).expect("a fixture");
        Delivery::signed(example.body.as_bytes(), secret, now())
    }

    /// A body signed at a time.
    pub fn signed(body: &[u8], secret: &str, at: i64) -> Delivery {
        let id = serde_json::from_slice::<Value>(body).expect("JSON")["id"].clone();
        Delivery::signed_as(id.as_str().expect("an id"), body, secret, at)
    }

    /// A body signed at a time under an id of choice.
    pub fn signed_as(id: &str, body: &[u8], secret: &str, at: i64) -> Delivery {
        let signature = Webhook::new(secret).unwrap().sign(id, at, body).unwrap();
        let headers = vec![
            ("content-type", "application/json".to_owned()),
            ("webhook-id", id.to_owned()),
            ("webhook-timestamp", at.to_string()),
            ("webhook-signature", signature),
        ];
        Delivery { headers, body: body.to_owned() }
    }

    /// A header.
    #[track_caller]
    pub fn header(&mut self, name: &str) -> &mut String {
        let found = self.headers.iter_mut().find(|(known, _)| *known == name);
        found.map(|(_, value)| value).expect("it has this header")
    }

    /// The same with another header of that name.
    #[track_caller]
    pub fn with(&self, name: &str, change: impl FnOnce(&str) -> String) -> Delivery {
        let mut changed = self.clone();
        let value = change(changed.header(name));
        *changed.header(name) = value;
        changed
    }

    /// The same without a header.
    pub fn without(&self, name: &str) -> Delivery {
        let mut changed = self.clone();
        changed.headers.retain(|(known, _)| *known != name);
        changed
    }

    /// The same with another body.
    pub fn with_body(&self, change: impl FnOnce(&mut Vec<u8>)) -> Delivery {
        let mut changed = self.clone();
        change(&mut changed.body);
        changed
    }

    /// Sends it; the status, unless the receiver hangs up.
    pub fn send(&self, url: &str) -> Option<u16> {
        let client = Client::new(url);
        let mut request = client.request("POST", "/webhooks").body(self.body.clone());
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request.try_send().ok().map(|answer| answer.status)
    }

    /// What a receiver says that takes it up.
    pub fn line(&self) -> String {
        let body: Value = serde_json::from_slice(&self.body).expect("JSON");
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        format!("{} {} {}", text(&body["type"]), text(&body["data"]["id"]), body["sequence"])
    }

    /// Everything that somebody without the secret could do to it.
    pub fn spoiled(&self) -> Vec<(&'static str, Delivery)> {
        let middle = self.body.len() / 2;
        let signature = |change: fn(&str) -> String| self.with("webhook-signature", change);
        vec![
            ("a digit of the body", self.with_body(|body| swap(body, b'1', b'2'))),
            ("a blank less", self.with_body(|body| remove(body, b' '))),
            ("no UTF-8", self.with_body(|body| body[middle] = 0xff)),
            ("the body cut off", self.with_body(|body| body.truncate(middle))),
            ("no body", self.with_body(Vec::clear)),
            ("another id", self.with("webhook-id", |id| id.replace('7', "8"))),
            ("a second earlier", self.with("webhook-timestamp", |time| earlier(time, 1))),
            ("no time", self.with("webhook-timestamp", |_| "soon".to_owned())),
            ("no id", self.without("webhook-id")),
            ("no timestamp", self.without("webhook-timestamp")),
            ("no signature", self.without("webhook-signature")),
            ("an empty signature", signature(|_| "v1,".to_owned())),
            ("a name only", signature(|_| "v1".to_owned())),
            ("not base64", signature(|_| "v1,%%%".to_owned())),
            ("half a signature", signature(|given| given[..20].to_owned())),
            ("another signature", signature(with_other_letter)),
            ("another version", signature(|given| given.replace("v1,", "v2,"))),
            ("nobody's", signature(|_| format!("v1,{}", STANDARD.encode([7; 32])))),
        ]
    }
}

fn swap(body: &mut [u8], from: u8, to: u8) {
    let place = body.iter().position(|byte| *byte == from).expect("such a byte");
    body[place] = to;
}

fn remove(body: &mut Vec<u8>, byte: u8) {
    let place = body.iter().position(|one| *one == byte).expect("such a byte");
    body.remove(place);
}

fn earlier(time: &str, seconds: i64) -> String {
    (time.parse::<i64>().expect("seconds") - seconds).to_string()
}

/// In the first letter after the version, which counts in full.
fn with_other_letter(signature: &str) -> String {
    let (version, value) = signature.split_once(',').expect("a version");
    let letter = if value.starts_with('A') { 'B' } else { 'A' };
    format!("{version},{letter}{}", &value[1..])
}
