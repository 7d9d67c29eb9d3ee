//! README keeps its word: what it tells to paste is understood.

const TEXT: &str = include_str!("../../README.md");

/// The fenced blocks.
fn blocks() -> impl Iterator<Item = &'static str> {
    TEXT.split("\n```").skip(1).step_by(2)
}

#[test]
fn every_body_is_called_json() {
    const TYPE: &str = "-H 'Content-Type: application/json'";
    let mut bodies = 0;
    for block in blocks() {
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let called = block.lines().find(|line| line.starts_with("call()")).unwrap_or_default();
        for line in block.lines().filter(|line| words(line).iter().any(|word| word == "-d")) {
            let by_function = line.starts_with("call ") && called.contains(TYPE);
            assert!(line.contains(TYPE) || by_function, "{line}");
            bodies += 1;
        }
    }
    assert!(bodies > 4, "{bodies} bodies are sent");
}
