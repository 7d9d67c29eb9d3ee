//! Rust source as text: told apart into product, tests, comments and strings, and cut into words.
//!
//! No parser: it knows just enough for the rules that `architecture.rs` checks.

/// A file's text in parts, each with the lines where they were and all else blank.
pub struct Code {
    /// What is compiled into the product, without comments and strings.
    pub product: String,
    /// The same with strings.
    pub product_with_strings: String,
    /// What stands under `#[cfg(test)]`, without comments and strings.
    pub tests: String,
}

impl Code {
    /// Takes a file apart.
    pub fn of(source: &str) -> Code {
        let (with_strings, bare) = without_comments(source);
        let mut tests = vec![false; bare.len()];
        let mark: Vec<char> = "#[cfg(test)]".chars().collect();
        let mut at = 0;
        while at < bare.len() {
            if bare[at..].starts_with(&mark) {
                let end = end_of_item(&bare, at);
                tests[at..end].fill(true);
                at = end;
            } else {
                at += 1;
            }
        }
        let pick = |text: &[char], wanted: bool| -> String {
            let keep = |(character, is_test): (&char, &bool)| {
                if *is_test == wanted || *character == '\n' { *character } else { ' ' }
            };
            text.iter().zip(&tests).map(keep).collect()
        };
        Code {
            product: pick(&bare, false),
            product_with_strings: pick(&with_strings, false),
            tests: pick(&bare, true),
        }
    }
}

/// An item ends with the `;` or with the bracket that closes its first one.
fn end_of_item(code: &[char], from: usize) -> usize {
    let mut depth = 0_i32;
    for (at, character) in code.iter().enumerate().skip(from) {
        match character {
            '{' => depth += 1,
            '}' if depth == 1 => return at + 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

/// The text with its comments blank, and with its strings blank as well.
fn without_comments(source: &str) -> (Vec<char>, Vec<char>) {
    let all: Vec<char> = source.chars().collect();
    let (mut with_strings, mut bare) = (all.clone(), all.clone());
    let blank = |text: &mut [char]| {
        text.iter_mut().filter(|character| **character != '\n').for_each(|one| *one = ' ');
    };
    let mut at = 0;
    while at < all.len() {
        let rest = &all[at..];
        let length = if let Some(length) = comment(rest) {
            blank(&mut with_strings[at..at + length]);
            blank(&mut bare[at..at + length]);
            length
        } else if let Some(length) = string(rest) {
            blank(&mut bare[at..at + length]);
            length
        } else {
            // A whole word at once: the r of `for` begins no string.
            rest.iter().take_while(|character| is_word(**character)).count().max(1)
        };
        at += length;
    }
    (with_strings, bare)
}

fn comment(text: &[char]) -> Option<usize> {
    if text.starts_with(&['/', '/']) {
        return Some(text.iter().take_while(|character| **character != '\n').count());
    }
    if !text.starts_with(&['/', '*']) {
        return None;
    }
    let (mut depth, mut at) = (1, 2);
    while depth > 0 && at < text.len() {
        match text[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    Some(at)
}

/// A string of any kind or a character; a lifetime is neither.
fn string(text: &[char]) -> Option<usize> {
    let prefix = text.iter().take_while(|character| "bcr".contains(**character)).count();
    let is_raw = text[..prefix].contains(&'r');
    let signs = text[prefix..].iter().take_while(|character| **character == '#').count();
    let begin = prefix + if is_raw { signs } else { 0 };
    match text[begin..] {
        ['"', ..] if is_raw => {
            let mut end = vec!['"'];
            end.resize(signs + 1, '#');
            let inside = text[begin + 1..].windows(end.len()).position(|window| window == end);
            Some(inside.map_or(text.len(), |inside| begin + 1 + inside + end.len()))
        }
        ['"', ..] => Some(begin + quoted(&text[begin..], '"')),
        ['\'', '\\', ..] | ['\'', _, '\'', ..] => Some(begin + quoted(&text[begin..], '\'')),
        _ => None,
    }
}

fn quoted(text: &[char], quote: char) -> usize {
    let mut at = 1;
    while at < text.len() && text[at] != quote {
        at += if text[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(text.len())
}

/// A word or a sign, and its line.
pub type Word<'a> = (&'a str, usize);

/// Cuts code into words and signs; `::` is one sign.
pub fn words_of(code: &str) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let end = match rest.find(|c: char| !is_word(c)) {
                _ if rest.starts_with("::") => 2,
                Some(0) => first.len_utf8(),
                Some(end) => end,
                None => rest.len(),
            };
            words.push((&rest[..end], number + 1));
            rest = rest[end..].trim_start();
        }
    }
    words
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// The lines on which a path such as `env::var` stands, as whole words.
pub fn lines_with(words: &[Word<'_>], path: &str) -> Vec<usize> {
    let wanted: Vec<&str> = words_of(path).iter().map(|word| word.0).collect();
    let same = |window: &&[Word<'_>]| window.iter().map(|word| word.0).eq(wanted.iter().copied());
    words.windows(wanted.len()).filter(same).map(|window| window[0].1).collect()
}
