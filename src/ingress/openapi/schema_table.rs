//! A schema as an indented table.
//!
//! Schemas with a name are links to their own table, or are unfolded in place where a reader wants
//! to see everything at once. Must not know operations.

use std::fmt::Write;

use super::html::Html;
use super::tree::Node;

/// Deeper than any schema here; keeps a schema that contains itself finite.
const MAX_DEPTH: usize = 6;

/// Draws schemas of one document.
pub struct SchemaTable<'a> {
    /// Where references lead.
    pub document: &'a Node,
    /// Whether named schemas are unfolded in place.
    pub unfold: bool,
}

/// A schema without its wrapping: what is left of `null`, lists and references.
struct Peeled<'a> {
    schema: &'a Node,
    name: Option<&'a str>,
    nullable: bool,
    list: Option<&'a Node>,
}

impl<'a> SchemaTable<'a> {
    /// Writes the schema: its alternatives, its table, or its type alone.
    pub fn draw(&self, html: &mut Html, schema: &'a Node) {
        let peeled = self.peel(schema);
        let alternatives = peeled.schema.items_of("oneOf");
        let named: Vec<&str> = alternatives.iter().filter_map(reference_name).collect();
        if self.unfold && !named.is_empty() {
            html.raw("<p>One of:</p>\n");
            for (alternative, name) in alternatives.iter().zip(named) {
                html.raw("<details><summary>").text(name).raw("</summary>\n");
                html.paragraphs(self.document.resolve(alternative).text_of("description"));
                self.draw(html, alternative);
                html.raw("</details>\n");
            }
        } else if !named.is_empty() {
            html.raw("<p>One of ");
            for (place, name) in named.into_iter().enumerate() {
                html.raw(if place > 0 { ", " } else { "" }).link(&anchor(name), name);
            }
            html.raw(".</p>\n");
        } else if self.has_rows(peeled.schema) {
            html.raw("<div class=\"wide\"><table><thead><tr><th>Name<th>Type<th>Meaning</thead>\n");
            self.rows(html, peeled.schema, 0);
            html.raw("</table></div>\n");
        } else {
            html.raw("<p>");
            self.kind(html, &peeled, schema);
            html.raw(".</p>\n");
        }
    }

    /// One cell that says what a parameter or header holds.
    pub fn draw_kind(&self, html: &mut Html, schema: &'a Node) {
        self.kind(html, &self.peel(schema), schema);
    }

    fn has_rows(&self, schema: &Node) -> bool {
        schema.get("properties").is_some()
            || schema
                .items_of("allOf")
                .iter()
                .any(|part| self.has_rows(self.document.resolve(part)))
    }

    fn rows(&self, html: &mut Html, schema: &'a Node, depth: usize) {
        for part in schema.items_of("allOf") {
            self.rows(html, self.document.resolve(part), depth);
        }
        let required = schema.items_of("required");
        for (name, property) in schema.members_of("properties") {
            let peeled = self.peel(property);
            html.raw("<tr><td class=\"name d").text(&depth.to_string()).raw("\">").code(name);
            if required.iter().any(|required| required.text() == Some(name)) {
                html.raw(" <em>required</em>");
            }
            html.raw("<td>");
            self.kind(html, &peeled, property);
            html.raw("<td>");
            let own = property.text_of("description");
            let target = self.document.resolve(property).text_of("description");
            let inherited = if target.is_empty() { peeled.schema } else { property };
            let inherited = self.document.resolve(inherited).text_of("description");
            html.prose(if own.is_empty() { inherited } else { own }).raw("\n");
            let open = self.unfold || peeled.name.is_none();
            if open && depth < MAX_DEPTH && self.has_rows(peeled.schema) {
                self.rows(html, peeled.schema, depth + 1);
            }
        }
    }

    /// Follows references and drops `null` and the list around a schema. The last name on the way
    /// is the one to link to, unless it stands for something simple.
    fn peel(&self, node: &'a Node) -> Peeled<'a> {
        let mut peeled = Peeled { schema: node, name: None, nullable: false, list: None };
        for _ in 0..2 * MAX_DEPTH {
            let schema = peeled.schema;
            if let Some(name) = reference_name(schema) {
                peeled.name = Some(name);
                peeled.schema = self.document.resolve(schema);
            } else if let [inner, Node::Object(null)] = schema.items_of("anyOf")
                && matches!(&null[..], [(_, Node::Text(kind))] if kind == "null")
            {
                peeled.nullable = true;
                peeled.schema = inner;
            } else if let Some(items) = schema.get("items").filter(|_| peeled.list.is_none()) {
                peeled.nullable |= allows_null(schema);
                peeled.list = Some(schema);
                peeled.schema = items;
                peeled.name = None;
            } else {
                // Items of a batch: a submission, narrowed.
                match schema.items_of("allOf") {
                    [inner, rest] if reference_name(inner).is_some() && !self.adds_rows(rest) => {
                        peeled.schema = inner;
                    }
                    _ => break,
                }
            }
        }
        peeled.nullable |= allows_null(peeled.schema);
        let simple = !self.has_rows(peeled.schema) && peeled.schema.get("oneOf").is_none();
        peeled.name = peeled.name.filter(|_| !simple);
        peeled
    }

    /// Whether a part of `allOf` brings members of its own, rather than narrowing others.
    fn adds_rows(&self, part: &Node) -> bool {
        let part = self.document.resolve(part);
        part.members_of("properties").iter().any(|(_, member)| member.text_of("type") != "null")
    }

    fn kind(&self, html: &mut Html, peeled: &Peeled<'a>, outer: &'a Node) {
        let outer = self.document.resolve(outer);
        if let Some(list) = peeled.list {
            html.raw("list");
            html.text(&bounds(list, "minItems", "maxItems")).raw(" of ");
        }
        match peeled.name {
            Some(name) => html.link(&anchor(name), name),
            None => html.text(&kind_of(peeled.schema)),
        };
        let allowed = peeled.schema.items_of("enum");
        for (place, value) in allowed.iter().filter(|value| **value != Node::Null).enumerate() {
            html.raw(if place == 0 { ": " } else { ", " });
            html.code(value.text().unwrap_or(&value.compact()));
        }
        if let Some(value) = peeled.schema.get("const") {
            html.raw(": ").code(value.text().unwrap_or(&value.compact()));
        }
        html.raw(if peeled.nullable { " or null" } else { "" });
        if let Some(default) = outer.get("default") {
            html.raw(", default ").code(default.text().unwrap_or(&default.compact()));
        }
    }
}

/// Where a schema has its own table on the page.
pub fn anchor(schema: &str) -> String {
    format!("schema-{schema}")
}

fn reference_name(node: &Node) -> Option<&str> {
    node.get("$ref")?.text()?.strip_prefix("#/components/schemas/")
}

fn allows_null(schema: &Node) -> bool {
    schema.items_of("type").iter().any(|kind| kind.text() == Some("null"))
}

/// `string (uuid)`, `integer 1…100`.
fn kind_of(schema: &Node) -> String {
    let kinds: Vec<&str> = match schema.get("type") {
        Some(Node::Text(kind)) => vec![kind],
        Some(kinds) => {
            kinds.items().iter().filter_map(Node::text).filter(|kind| *kind != "null").collect()
        }
        None => vec!["anything"],
    };
    let mut text = kinds.join(" or ");
    if let Some(format) = schema.get("format").and_then(Node::text) {
        // Writing into a String has no way to fail.
        let _ = write!(text, " ({format})");
    }
    text + &bounds(schema, "minimum", "maximum")
        + &length(schema)
        + &bounds(schema, "minProperties", "maxProperties")
}

fn length(schema: &Node) -> String {
    // Where the values are listed, their length says nothing.
    let listed = schema.get("enum").is_some() || schema.get("const").is_some();
    match schema.get("maxLength").filter(|_| !listed) {
        Some(most) => format!(", at most {} characters", most.compact()),
        None => String::new(),
    }
}

fn bounds(schema: &Node, least: &str, most: &str) -> String {
    match (schema.get(least), schema.get(most)) {
        (Some(least), Some(most)) => format!(" {}…{}", least.compact(), most.compact()),
        (Some(least), None) => format!(" ≥ {}", least.compact()),
        (None, Some(most)) => format!(" ≤ {}", most.compact()),
        (None, None) => String::new(),
    }
}
