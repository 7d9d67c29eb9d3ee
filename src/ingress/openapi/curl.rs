//! A command that asks for an operation, ready to be pasted into a shell.
//!
//! Must not know HTML.

use super::tree::Node;

/// The command for an operation; `document` resolves its references.
pub fn command(
    document: &Node,
    public_url: &str,
    path: &str,
    method: &str,
    operation: &Node,
) -> String {
    let mut url = format!("{}{path}", public_url.trim_end_matches('/'));
    for parameter in operation.items_of("parameters") {
        let parameter = document.resolve(parameter);
        let (name, example) = (parameter.text_of("name"), parameter.text_of("example"));
        url = url.replace(&format!("{{{name}}}"), example);
    }
    let url = quoted(&url);

    let body = operation.get("requestBody").map(|body| body.members_of("content"));
    let (media_type, media) = match body {
        Some([(media_type, media), ..]) => (media_type.as_str(), Some(media)),
        _ => ("", None),
    };
    let mut parts = vec![match (method, media_type) {
        ("get", _) => format!("curl {url}"),
        ("head", _) => format!("curl --head {url}"),
        ("put", "application/octet-stream") => format!("curl --upload-file hello.txt {url}"),
        _ => format!("curl --request {} {url}", method.to_ascii_uppercase()),
    }];
    if !operation.items_of("security").is_empty() {
        parts.push("--header \"Authorization: Bearer $API_KEY\"".to_owned());
    }
    if let Some(example) = media.and_then(|media| first_example(document, media)) {
        parts.push(format!("--header 'Content-Type: {media_type}'"));
        parts.push(format!("--data {}", quoted(&example.compact())));
    }
    parts.join(" \\\n  ")
}

/// The first example of a media type.
fn first_example<'a>(document: &'a Node, media: &'a Node) -> Option<&'a Node> {
    let named = media.members_of("examples").first();
    named.and_then(|(_, example)| document.resolve(example).get("value"))
}

/// Text as one word of a POSIX shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_stays_one_word() {
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's; $x"), r"'it'\''s; $x'");
    }
}
