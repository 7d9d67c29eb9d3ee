//! The contract of the native API: one OpenAPI document, served as it is and as a page for people.
//!
//! `document.json` is written by hand and comes first; handlers conform to it. Everything here is
//! made from that text. Must not know handlers or the engine: the public address is the only thing
//! that differs from server to server.

mod curl;
pub mod docs;
mod html;
mod schema_table;
pub mod serve;
mod tree;

use std::sync::OnceLock;

use serde_json::Value;
use tree::Node;

const TEMPLATE: &str = include_str!("document.json");
/// Places in the template that are filled in, with their quotes.
const PUBLIC_URL: &str = r#""@PUBLIC_URL@""#;
const VERSION: &str = r#""@VERSION@""#;

/// Names of operations in a path item; its other members are none.
const METHODS: &[&str] = &["get", "put", "post", "delete", "options", "head", "patch", "trace"];

/// The OpenAPI document of a server that is reached at `public_url`.
pub fn document(public_url: &str) -> String {
    let quoted = Value::from(public_url.trim_end_matches('/')).to_string();
    let version = Value::from(env!("CARGO_PKG_VERSION")).to_string();
    TEMPLATE.replacen(VERSION, &version, 1).replacen(PUBLIC_URL, &quoted, 1)
}

/// The document, parsed once.
fn tree() -> &'static Node {
    static TREE: OnceLock<Node> = OnceLock::new();
    #[expect(clippy::expect_used, reason = "embedded text, which a test has parsed")]
    TREE.get_or_init(|| serde_json::from_str(TEMPLATE).expect("document.json is JSON"))
}

/// Path, method and operation of everything that can be asked for.
fn all_operations() -> impl Iterator<Item = (&'static str, &'static str, &'static Node)> {
    tree().members_of("paths").iter().flat_map(|(path, item)| {
        item.members()
            .iter()
            .filter(|(method, _)| METHODS.contains(&method.as_str()))
            .map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
    })
}

#[cfg(test)]
mod tests;
