//! Types of the protocol's data. One description serves two ends: arguments are checked by it, and clients read it
//! (`query-qmp-schema`).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::error::QmpError;

/// Type of a value.
#[derive(Clone, Copy)]
pub(crate) enum Type {
    Str,
    Int,
    Bool,
    /// Any value at all.
    Any,
    Enum(&'static Enum),
    Object(&'static Object),
    Array(&'static Type),
}

/// A string out of a few.
pub(crate) struct Enum {
    pub(crate) name: &'static str,
    pub(crate) values: &'static [&'static str],
}

/// An object.
pub(crate) struct Object {
    pub(crate) name: &'static str,
    pub(crate) members: &'static [Member],
    /// The member that chooses the variant, and what each of its values adds.
    pub(crate) variants: Option<(&'static str, &'static [Variant])>,
}

/// A value of an object's tag and the members that come with it.
pub(crate) type Variant = (&'static str, &'static Object);

/// One member of an object.
pub(crate) struct Member {
    pub(crate) name: &'static str,
    pub(crate) kind: Type,
    pub(crate) optional: bool,
}

/// A member that is always there.
pub(crate) const fn member(name: &'static str, kind: Type) -> Member {
    Member { name, kind, optional: false }
}

/// A member that may be left out.
pub(crate) const fn optional(name: &'static str, kind: Type) -> Member {
    Member { name, kind, optional: true }
}

/// An object without variants.
pub(crate) const fn object(name: &'static str, members: &'static [Member]) -> Object {
    Object { name, members, variants: None }
}

/// The object without members.
pub(crate) static EMPTY: Object = object("Empty", &[]);

/// What a client sees of a command.
pub(crate) struct CommandType {
    pub(crate) name: &'static str,
    pub(crate) arguments: &'static Object,
    pub(crate) returns: Type,
    pub(crate) features: &'static [&'static str],
}

/// What a client sees of an event.
pub(crate) struct EventType {
    pub(crate) name: &'static str,
    pub(crate) data: &'static Object,
}

impl Type {
    fn name(self) -> String {
        match self {
            Self::Str => "str".into(),
            Self::Int => "int".into(),
            Self::Bool => "bool".into(),
            Self::Any => "any".into(),
            Self::Enum(e) => e.name.into(),
            Self::Object(o) => o.name.into(),
            Self::Array(element) => format!("[{}]", element.name()),
        }
    }

    /// The kind of value as error messages call it.
    const fn expected(self) -> &'static str {
        match self {
            Self::Str | Self::Enum(_) => "string",
            Self::Int => "integer",
            Self::Bool => "boolean",
            Self::Any => "value",
            Self::Object(_) => "object",
            Self::Array(_) => "array",
        }
    }

    /// Checks `value`, which stands where `name` says.
    pub(crate) fn check(self, name: &str, value: &Value) -> Result<(), QmpError> {
        match (self, value) {
            (Self::Any, _) | (Self::Str, Value::String(_)) | (Self::Bool, Value::Bool(_)) => Ok(()),
            (Self::Int, Value::Number(n)) if n.is_i64() || n.is_u64() => Ok(()),
            (Self::Enum(e), Value::String(s)) if e.values.contains(&s.as_str()) => Ok(()),
            (Self::Enum(_), Value::String(s)) => {
                Err(QmpError::generic(format!("Parameter '{name}' does not accept value '{s}'")))
            }
            (Self::Array(element), Value::Array(items)) => {
                items.iter().try_for_each(|item| element.check(name, item))
            }
            (Self::Object(o), Value::Object(members)) => o.check(members),
            _ => {
                let expected = self.expected();
                let text = format!("Invalid parameter type for '{name}', expected: {expected}");
                Err(QmpError::generic(text))
            }
        }
    }
}

impl Object {
    /// Checks that `members` are those of this type.
    pub(crate) fn check(&self, members: &Map<String, Value>) -> Result<(), QmpError> {
        let mut known: Vec<&Member> = self.members.iter().collect();
        if let Some((tag, variants)) = self.variants {
            let chosen = members.get(tag).and_then(Value::as_str);
            let variant = variants.iter().find(|(case, _)| Some(*case) == chosen);
            known.extend(variant.iter().flat_map(|(_, object)| object.members));
        }
        for m in &known {
            match members.get(m.name) {
                Some(value) => m.kind.check(m.name, value)?,
                None if m.optional => {}
                None => return Err(QmpError::generic(format!("Parameter '{}' is missing", m.name))),
            }
        }
        let other = members.keys().find(|name| !known.iter().any(|m| m.name == name.as_str()));
        match other {
            Some(name) => Err(QmpError::generic(format!("Parameter '{name}' is unexpected"))),
            None => Ok(()),
        }
    }
}

/// Collects the types that commands and events use, each once.
#[derive(Default)]
struct Catalogue(BTreeMap<String, Value>);

impl Catalogue {
    /// The name of `kind`, which is described from now on.
    fn add(&mut self, kind: Type) -> String {
        let name = kind.name();
        if self.0.contains_key(&name) {
            return name;
        }
        // Holds its place while its parts are looked at, which may use it again.
        self.0.insert(name.clone(), Value::Null);
        let mut entry = self.describe(kind);
        entry["name"] = name.clone().into();
        self.0.insert(name.clone(), entry);
        name
    }

    fn describe(&mut self, kind: Type) -> Value {
        let builtin = |json_type: &str| json!({"meta-type": "builtin", "json-type": json_type});
        match kind {
            Type::Str => builtin("string"),
            Type::Int => builtin("int"),
            Type::Bool => builtin("boolean"),
            Type::Any => builtin("value"),
            Type::Enum(e) => {
                let members: Vec<_> = e.values.iter().map(|value| json!({"name": value})).collect();
                json!({"meta-type": "enum", "members": members, "values": e.values})
            }
            Type::Array(element) => json!({"meta-type": "array", "element-type": self.add(*element)}),
            Type::Object(o) => self.describe_object(o),
        }
    }

    fn describe_object(&mut self, o: &Object) -> Value {
        let members = o.members.iter().map(|m| {
            let mut entry = json!({"name": m.name, "type": self.add(m.kind)});
            if m.optional {
                entry["default"] = Value::Null;
            }
            entry
        });
        let mut entry = json!({"meta-type": "object", "members": members.collect::<Vec<_>>()});
        if let Some((tag, variants)) = o.variants {
            let cases = variants.iter();
            let cases =
                cases.map(|(case, object)| json!({"case": case, "type": self.add(Type::Object(object))}));
            entry["variants"] = cases.collect();
            entry["tag"] = tag.into();
        }
        entry
    }
}

/// What `query-qmp-schema` returns: commands, events, and the types that they use.
pub(crate) fn introspect(commands: &[&CommandType], events: &[EventType]) -> Value {
    let mut types = Catalogue::default();
    let mut all = Vec::new();
    for command in commands {
        let arguments = types.add(Type::Object(command.arguments));
        let returns = types.add(command.returns);
        let mut entry = json!({
            "name": command.name, "meta-type": "command", "arg-type": arguments, "ret-type": returns,
        });
        if !command.features.is_empty() {
            entry["features"] = json!(command.features);
        }
        all.push(entry);
    }
    for event in events {
        let data = types.add(Type::Object(event.data));
        all.push(json!({"name": event.name, "meta-type": "event", "arg-type": data}));
    }
    all.extend(types.0.into_values());
    Value::Array(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    static COLOUR: Enum = Enum { name: "Colour", values: &["red", "blue"] };
    static THING: Object = Object {
        name: "Thing",
        members: &[
            member("colour", Type::Enum(&COLOUR)),
            optional("sizes", Type::Array(&Type::Int)),
            optional("next", Type::Object(&THING)),
        ],
        variants: Some(("colour", &[("red", &RED)])),
    };
    static RED: Object = object("Red", &[member("warm", Type::Bool)]);

    fn check(value: &Value) -> Result<(), String> {
        THING.check(value.as_object().unwrap()).map_err(|e| e.desc)
    }

    #[test]
    fn arguments_are_checked_and_errors_name_them() {
        assert_eq!(check(&json!({"colour": "blue"})), Ok(()));
        let whole = json!({"colour": "red", "warm": true, "sizes": [1, -2], "next": {"colour": "blue"}});
        assert_eq!(check(&whole), Ok(()));
        for (value, error) in [
            (json!({}), "Parameter 'colour' is missing"),
            (json!({"colour": "red"}), "Parameter 'warm' is missing"),
            (json!({"colour": "blue", "warm": true}), "Parameter 'warm' is unexpected"),
            (json!({"colour": "green"}), "Parameter 'colour' does not accept value 'green'"),
            (json!({"colour": 5}), "Invalid parameter type for 'colour', expected: string"),
            (
                json!({"colour": "blue", "sizes": [1.5]}),
                "Invalid parameter type for 'sizes', expected: integer",
            ),
            (json!({"colour": "blue", "sizes": 1}), "Invalid parameter type for 'sizes', expected: array"),
            (json!({"colour": "blue", "next": null}), "Invalid parameter type for 'next', expected: object"),
            (json!({"colour": "blue", "x": 1}), "Parameter 'x' is unexpected"),
        ] {
            assert_eq!(check(&value), Err(error.to_owned()), "{value}");
        }
    }

    #[test]
    fn every_type_that_is_named_is_described_once() {
        static NOTHING: Type = Type::Object(&EMPTY);
        let command = CommandType {
            name: "paint",
            arguments: &THING,
            returns: Type::Array(&NOTHING),
            features: &["fast"],
        };
        let all = introspect(&[&command], &[EventType { name: "DRY", data: &EMPTY }]);
        let expected = json!([
            {"name": "paint", "meta-type": "command", "arg-type": "Thing", "ret-type": "[Empty]",
             "features": ["fast"]},
            {"name": "DRY", "meta-type": "event", "arg-type": "Empty"},
            {"name": "Colour", "meta-type": "enum", "members": [{"name": "red"}, {"name": "blue"}],
             "values": ["red", "blue"]},
            {"name": "Empty", "meta-type": "object", "members": []},
            {"name": "Red", "meta-type": "object", "members": [{"name": "warm", "type": "bool"}]},
            {"name": "Thing", "meta-type": "object", "tag": "colour",
             "members": [{"name": "colour", "type": "Colour"},
                         {"name": "sizes", "type": "[int]", "default": null},
                         {"name": "next", "type": "Thing", "default": null}],
             "variants": [{"case": "red", "type": "Red"}]},
            {"name": "[Empty]", "meta-type": "array", "element-type": "Empty"},
            {"name": "[int]", "meta-type": "array", "element-type": "int"},
            {"name": "bool", "meta-type": "builtin", "json-type": "boolean"},
            {"name": "int", "meta-type": "builtin", "json-type": "int"},
        ]);
        assert_eq!(all, expected);
    }
}
