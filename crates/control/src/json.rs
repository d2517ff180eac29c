//! JSON as control clients may send it: no name twice in an object. Depth is `serde_json`'s to limit.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Parses one text.
///
/// # Errors
/// Where it is no JSON, or that a name is there twice.
pub(crate) fn parse(text: &[u8]) -> serde_json::Result<Value> {
    serde_json::from_slice::<Strict>(text).map(|strict| strict.0)
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            all.push(item);
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let Strict(value) = members.next_value()?;
            if all.contains_key(&name) {
                return Err(A::Error::custom(format_args!("duplicate key '{name}'")));
            }
            all.insert(name, value);
        }
        Ok(Value::Object(all))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_come_out_as_they_are_and_names_are_unique() {
        let text = r#"{"a":[1,-2,3.5,null,true,"x\u00e9"],"b":{"a":{}},"c":18446744073709551615}"#;
        let expected =
            json!({"a": [1, -2, 3.5, null, true, "xé"], "b": {"a": {}}, "c": 18_446_744_073_709_551_615u64});
        assert_eq!(parse(text.as_bytes()).unwrap(), expected);
        let twice = parse(br#"{"id":1,"a":[{"b":1,"b":2}]}"#).unwrap_err().to_string();
        assert!(twice.contains("duplicate key 'b'"), "{twice}");
        for bad in [&b"{\"a\":}"[..], b"{'a':1}", b"\"\xff\"", b"1e999", b"{} {}", b"\"\t\"", b"nul", b""] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        assert!(parse("[".repeat(100_000).as_bytes()).is_err(), "the depth is limited");
    }
}
