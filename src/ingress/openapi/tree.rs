//! JSON that remembers the order of its members.
//!
//! The document is written in the order in which it is best read, and the page for people keeps
//! it; `serde_json::Value` would sort it. Read only. Must not know OpenAPI beyond `$ref`.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Number;

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
}

impl Node {
    /// The member of that name.
    pub fn get(&self, name: &str) -> Option<&Node> {
        self.members().iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// The text of the member of that name, or nothing.
    pub fn text_of(&self, name: &str) -> &str {
        self.get(name).and_then(Node::text).unwrap_or_default()
    }

    /// The members of the object of that name, or none.
    pub fn members_of(&self, name: &str) -> &[(String, Node)] {
        self.get(name).map(Node::members).unwrap_or_default()
    }

    /// The items of the list of that name, or none.
    pub fn items_of(&self, name: &str) -> &[Node] {
        self.get(name).map(Node::items).unwrap_or_default()
    }

    /// Members, when this is an object.
    pub fn members(&self) -> &[(String, Node)] {
        match self {
            Node::Object(members) => members,
            _ => &[],
        }
    }

    /// Items, when this is a list.
    pub fn items(&self) -> &[Node] {
        match self {
            Node::List(items) => items,
            _ => &[],
        }
    }

    /// The text, when this is one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Node::Text(text) => Some(text),
            _ => None,
        }
    }

    /// What stands at a reference such as `#/components/schemas/Job` into this document.
    pub fn at(&self, reference: &str) -> Option<&Node> {
        let path = reference.strip_prefix("#/")?;
        path.split('/')
            .try_fold(self, |node, part| node.get(&part.replace("~1", "/").replace("~0", "~")))
    }

    /// `node`, or what it refers to in this document.
    pub fn resolve<'a>(&'a self, node: &'a Node) -> &'a Node {
        let target = node.get("$ref").and_then(Node::text).and_then(|text| self.at(text));
        target.map_or(node, |target| self.resolve(target))
    }

    /// JSON on one line.
    pub fn compact(&self) -> String {
        // Every node came from JSON, so it can be written as JSON.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// JSON with line breaks.
    pub fn pretty(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Node::Null => serializer.serialize_unit(),
            Node::Bool(value) => serializer.serialize_bool(*value),
            Node::Number(number) => number.serialize(serializer),
            Node::Text(text) => serializer.serialize_str(text),
            Node::List(items) => items.serialize(serializer),
            Node::Object(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                for (name, value) in members {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Number::from_f64(value).map_or(Node::Null, Node::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Node, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = object.next_entry()? {
            members.push(member);
        }
        Ok(Node::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_values_survive() {
        let text = r##"{"b":[1,-2,0.5,null,true],"a":{"x/y":"z"},"r":{"$ref":"#/a/x~1y"}}"##;
        let node: Node = serde_json::from_str(text).unwrap();
        assert_eq!(node.compact(), text);
        assert_eq!(node.at("#/a/x~1y").unwrap().text(), Some("z"));
        assert_eq!(node.resolve(node.get("r").unwrap()).text(), Some("z"));
        assert!(node.at("#/nothing").is_none());
    }
}
