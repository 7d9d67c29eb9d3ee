//! Reading the objects of a specification: every member is known, a null one is as if absent.
//!
//! Messages say where in the job's JSON the value stands, what it is and what is allowed. Must not
//! know any job type.

use serde_json::{Map, Value};

/// An object of a specification, and where it stands.
pub struct Members<'a> {
    place: String,
    members: &'a Map<String, Value>,
}

impl<'a> Members<'a> {
    /// An object that has no other members than these.
    pub fn read(value: &'a Value, place: &str, allowed: &[&str]) -> Result<Members<'a>, String> {
        let Value::Object(members) = value else {
            return Err(format!("{place} is {}; allowed: an object", kind(value)));
        };
        let mut given = members.iter().filter(|(_, value)| !value.is_null());
        if let Some((name, _)) = given.find(|(name, _)| !allowed.contains(&name.as_str())) {
            let name: String = name.chars().take(64).collect();
            let allowed = allowed.join(", ");
            return Err(format!("{place}.{name} is not known; allowed: {allowed}"));
        }
        Ok(Members { place: place.to_owned(), members })
    }

    /// Where a member stands.
    pub fn place(&self, name: &str) -> String {
        format!("{}.{name}", self.place)
    }

    /// A member that is there and not null.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.members.get(name).filter(|value| !value.is_null())
    }

    /// A text, if it is there. What stands in its place is not shown: it may be a secret.
    pub fn text(&self, name: &str) -> Result<Option<&'a str>, String> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => {
                Err(format!("{} is {}; allowed: a string", self.place(name), kind(other)))
            }
        }
    }

    /// A text that has to be there.
    pub fn required_text(&self, name: &str, allowed: &str) -> Result<&'a str, String> {
        self.text(name)?.ok_or_else(|| self.missing(name, allowed))
    }

    /// A member that has to be there.
    pub fn required(&self, name: &str, allowed: &str) -> Result<&'a Value, String> {
        self.get(name).ok_or_else(|| self.missing(name, allowed))
    }

    fn missing(&self, name: &str, allowed: &str) -> String {
        format!("{} is missing; allowed: {allowed}", self.place(name))
    }
}

/// What a value is, without showing it.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn unknown_members_are_named_and_nulls_are_absent() {
        let value = json!({"a": "x", "b": null, "strange": null});
        let members = Members::read(&value, "specification", &["a", "b"]).unwrap();
        assert_eq!(members.text("a"), Ok(Some("x")));
        assert_eq!(members.text("b"), Ok(None));
        assert_eq!(
            members.required_text("b", "a path"),
            Err("specification.b is missing; allowed: a path".to_owned())
        );
        let error = Members::read(&value, "specification", &["b"]).err();
        assert_eq!(error.unwrap(), "specification.a is not known; allowed: b");
        let error = Members::read(&json!([1]), "specification", &[]).err();
        assert_eq!(error.unwrap(), "specification is an array; allowed: an object");
    }

    #[test]
    fn a_wrong_value_is_not_shown() {
        let value = json!({"a": ["marker"]});
        let error = Members::read(&value, "x", &["a"]).unwrap().text("a").unwrap_err();
        assert_eq!(error, "x.a is an array; allowed: a string");
    }
}
