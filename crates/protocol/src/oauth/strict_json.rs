//! JSON from strangers, without what readers of JSON read differently: one object, no member of it
//! twice, nothing nested deep (RFC 8259 §4 leaves that open).

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// How deep lists and objects may stand in one another. A set of keys in a document has three.
const DEEPEST: usize = 8;

/// Reads a text that is one JSON object.
pub fn object(text: &[u8]) -> Option<Map<String, Value>> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = Strict { room: DEEPEST }
        .deserialize(&mut deserializer)
        .ok()?;
    deserializer.end().ok()?;
    match value {
        Value::Object(members) => Some(members),
        _ => None,
    }
}

/// Reads one value with `room` for that many levels of lists and objects.
struct Strict {
    room: usize,
}

impl Strict {
    fn deeper<E: Error>(&self) -> Result<Self, E> {
        match self.room.checked_sub(1) {
            Some(room) => Ok(Self { room }),
            None => Err(E::custom("nested too deep")),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
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

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self.deeper()?)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(self.deeper()?)?;
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom("a member is there twice"));
            }
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// N-RG-01 to N-RG-07
    #[test]
    fn only_what_every_reader_reads_alike_is_read() {
        let text = r#"{"a":[1,-2,3.5,true,null,"\u00e9"],"b":{"a":{}},"__proto__":{"x":1}}"#;
        let expected = json!({
            "a": [1, -2, 3.5, true, null, "é"], "b": {"a": {}}, "__proto__": {"x": 1},
        });
        assert_eq!(object(text.as_bytes()).map(Value::Object), Some(expected));
        for bad in [
            "",
            "null",
            "[]",
            "\"x\"",
            "1",
            "{",
            "{}x",
            "{}{}",
            "\u{feff}{}",
            "{'a':1}",
            "{\"a\":1,}",
            "{\"a\":NaN}",
            "{\"a\":1e999}",
            "/**/{}",
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"x":{"a":1,"b":2,"a":3}}"#,
            r#"{"x":[{"a":1,"a":2}]}"#,
            "{\"a\":\"\u{0}\"}",
        ] {
            assert_eq!(object(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(object(b"{\"a\":\"\xff\"}"), None);
        assert_eq!(object(b"\xff\xfe{\0}\0"), None);
    }

    /// N-RG-03
    #[test]
    fn eight_levels_are_read_and_no_more() {
        let nested = |levels: usize| {
            let lists = levels - 1;
            format!("{{\"x\":{}1{}}}", "[".repeat(lists), "]".repeat(lists))
        };
        assert!(object(nested(8).as_bytes()).is_some());
        for levels in [9, 100, 10_000] {
            assert_eq!(object(nested(levels).as_bytes()), None);
        }
    }
}
