//! Text into HTML. Whatever is not written here as markup is escaped.
//!
//! Must not know what is written.

/// A page under construction.
#[derive(Default)]
pub struct Html(String);

impl Html {
    /// Markup of our own, as it is.
    pub fn raw(&mut self, markup: &'static str) -> &mut Html {
        self.0.push_str(markup);
        self
    }

    /// Text of any origin, for between tags and inside quoted attributes.
    pub fn text(&mut self, text: &str) -> &mut Html {
        for character in text.chars() {
            match character {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                other => self.0.push(other),
            }
        }
        self
    }

    /// `<code>` around text.
    pub fn code(&mut self, text: &str) -> &mut Html {
        self.raw("<code>").text(text).raw("</code>")
    }

    /// A block of code.
    pub fn block(&mut self, text: &str) -> &mut Html {
        self.raw("<pre><code>").text(text).raw("</code></pre>\n")
    }

    /// A link to a place on this page.
    pub fn link(&mut self, anchor: &str, text: &str) -> &mut Html {
        self.raw("<a href=\"#").text(anchor).raw("\">").text(text).raw("</a>")
    }

    /// A sentence of the document: `code` and **bold** are marked up, nothing else is.
    pub fn prose(&mut self, text: &str) -> &mut Html {
        for (place, part) in text.split('`').enumerate() {
            if place % 2 == 1 {
                self.code(part);
                continue;
            }
            for (place, part) in part.split("**").enumerate() {
                if place % 2 == 1 {
                    self.raw("<strong>").text(part).raw("</strong>");
                } else {
                    self.text(part);
                }
            }
        }
        self
    }

    /// Paragraphs of prose, divided by empty lines.
    pub fn paragraphs(&mut self, text: &str) -> &mut Html {
        for paragraph in text.split("\n\n").filter(|paragraph| !paragraph.is_empty()) {
            self.raw("<p>").prose(paragraph).raw("</p>\n");
        }
        self
    }

    /// The page.
    pub fn finish(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_markup_is_markup() {
        let mut html = Html::default();
        html.prose("a `<b>` **c&d** \"'").link("x\"y", "<i>").block("</pre>");
        assert_eq!(
            html.finish(),
            "a <code>&lt;b&gt;</code> <strong>c&amp;d</strong> &quot;&#39;\
             <a href=\"#x&quot;y\">&lt;i&gt;</a><pre><code>&lt;/pre&gt;</code></pre>\n"
        );
    }
}
