//! Reads TOML into [`Config`] and finds every mistake on the way, not only the first.
//!
//! Serde stops at the first error. So a key that serde refuses is noted and left out, and the
//! rest is read again, until nothing is refused. This deserialiser is our own because only it
//! knows the key of an error and can leave one out.

use std::{collections::HashSet, ops::Range};

use serde::{
    Deserialize, Deserializer,
    de::{
        DeserializeSeed, Error as _, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor,
    },
    forward_to_deserialize_any,
};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    Config,
    key::{Key, Segment},
    mistake::{Mistake, Place},
    refusal::Refusal,
    schema,
};

/// The most syntax errors of a file that are listed.
const MOST_SYNTAX_MISTAKES: usize = 3;

/// A configuration file, read as far as it can be.
pub(super) struct Read<'i> {
    /// Whether the syntax is right. If not, `config` is empty.
    pub(super) is_toml: bool,
    pub(super) config: Config,
    pub(super) mistakes: Vec<Mistake>,
    pub(super) places: Places<'i>,
}

/// Reads the text of a configuration file.
pub(super) fn read(text: &str) -> Read<'_> {
    let (table, syntax_errors) = DeTable::parse_recoverable(text);
    let places = Places {
        text,
        table: Some(table.into_inner()),
    };
    let mut config = Config::default();
    // After a syntax error the parser guesses; mistakes in what it guessed would mislead.
    let mut mistakes = places.syntax_mistakes(&syntax_errors);
    let is_toml = mistakes.is_empty();
    if is_toml {
        let unnamed = places.keys_of_an_unnamed_upstream();
        if !unnamed.is_empty() {
            let key = Key::of("upstream");
            mistakes.push(Mistake {
                place: places.of(&key),
                key,
                reason: "has the keys of a server directly in it".to_owned(),
                remedy: "write [upstream.<name>] for each MCP server".to_owned(),
                meant: None,
            });
        }
        let mut refused = HashSet::from_iter(unnamed);
        loop {
            match places.config_without(&refused) {
                Ok(complete) => {
                    config = complete;
                    break;
                }
                Err(refusal) => {
                    // A refusal of what is already left out would repeat for ever.
                    if !refused.insert(refusal.key.clone()) {
                        break;
                    }
                    mistakes.push(refusal.into_mistake(&places));
                }
            }
        }
    }
    Read {
        is_toml,
        config,
        mistakes,
        places,
    }
}

/// Finds the line and column of a key.
pub(super) struct Places<'i> {
    text: &'i str,
    table: Option<DeTable<'i>>,
}

impl Places<'_> {
    /// The places of a configuration without a file.
    pub(super) fn nowhere() -> Self {
        Places {
            text: "",
            table: None,
        }
    }

    /// Where `key` stands, or for a missing one the table it is missing from.
    pub(super) fn of(&self, key: &Key) -> Place {
        let Key::File(path) = key else {
            return Place::Environment;
        };
        let mut place = Place::File;
        let mut table = self.table.as_ref();
        let mut array: Option<&[Spanned<DeValue<'_>>]> = None;
        for segment in path {
            let value = match segment {
                Segment::Name(name) => {
                    let entry = table.and_then(|table| table.get_key_value(name.as_str()));
                    let Some((key, value)) = entry else { break };
                    place = self.at(key.span());
                    value
                }
                Segment::Index(index) => {
                    let Some(value) = array.and_then(|array| array.get(*index)) else {
                        break;
                    };
                    place = self.at(value.span());
                    value
                }
            };
            table = value.get_ref().as_table();
            array = value.get_ref().as_array().map(|array| &**array);
        }
        place
    }

    fn at(&self, span: Range<usize>) -> Place {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Place::At {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }

    /// What stands in `[upstream]` itself and belongs to a server, which wants a name.
    fn keys_of_an_unnamed_upstream(&self) -> Vec<Key> {
        let table = self.table.as_ref().and_then(|table| table.get("upstream"));
        let Some(table) = table.and_then(|it| it.get_ref().as_table()) else {
            return Vec::new();
        };
        let entries = || {
            let entries = table.iter();
            entries.map(|(name, value)| (&**name.get_ref(), value.get_ref().as_table()))
        };
        let of_server = |name: &str| schema::is_key_of_upstream(name);
        if !entries().any(|(name, value)| value.is_none() && of_server(name)) {
            return Vec::new();
        }
        let belongs = |(name, value): &(&str, Option<&DeTable<'_>>)| {
            value.is_none_or(|value| {
                of_server(name) && !["url", "builtin"].iter().any(|it| value.contains_key(*it))
            })
        };
        let names = entries().filter(belongs).map(|(name, _)| name);
        names.map(|name| Key::of("upstream").child(name)).collect()
    }

    fn syntax_mistakes(&self, errors: &[toml::de::Error]) -> Vec<Mistake> {
        let mut mistakes: Vec<Mistake> = Vec::new();
        let is_repetition = |error: &toml::de::Error| error.message() == "duplicate key";
        // After another error, what the parser takes for a key may be a value.
        let names_are_sure = errors.iter().all(is_repetition);
        let mut repeated_tables = Vec::new();
        for error in errors {
            let place = error.span().map_or(Place::File, |span| self.at(span));
            // One slip often gives several errors on its line, of which the first names it.
            if mistakes
                .iter()
                .any(|other| line_of(other.place) == line_of(place))
            {
                continue;
            }
            let (reason, remedy) = if is_repetition(error) {
                let table = self.line_of_table(place);
                // A table that is there twice repeats its keys.
                if table.is_some() && repeated_tables.contains(&table) {
                    continue;
                }
                let remedy = if table == line_of(place) {
                    repeated_tables.push(table);
                    "write all of its keys below one of the two; a second server or client has a name of its own"
                } else {
                    "keep one of the two"
                };
                let name = error.span().filter(|_| names_are_sure);
                let name = name.and_then(|span| self.name_at(span));
                let name = name.unwrap_or_else(|| "a key".to_owned());
                (format!("{name} is there twice"), remedy.to_owned())
            } else if self.is_without_quotes(place) {
                (
                    "the value has no quotes".to_owned(),
                    "put it in double quotes, as in listen = \"127.0.0.1:8080\"".to_owned(),
                )
            } else {
                (
                    error.message().to_owned(),
                    "correct this line; strings stand in double quotes, tables in [brackets]"
                        .to_owned(),
                )
            };
            mistakes.push(Mistake {
                key: Key::root(),
                place,
                reason: format!("this is not TOML: {reason}"),
                remedy,
                meant: None,
            });
        }
        let more = mistakes.len().saturating_sub(MOST_SYNTAX_MISTAKES);
        mistakes.truncate(MOST_SYNTAX_MISTAKES);
        if more > 0
            && let Some(last) = mistakes.last_mut()
        {
            last.remedy = format!(
                "is this the right file? {more} more of its lines are not TOML; strings stand in \
                 double quotes, tables in [brackets]"
            );
        }
        mistakes
    }

    /// The line of the table that `place` is in, where its name stands in brackets.
    fn line_of_table(&self, place: Place) -> Option<usize> {
        let lines = self.text.lines().zip(1..).take(line_of(place)?);
        lines
            .filter(|(text, _)| text.trim_start().starts_with('['))
            .last()
            .map(|(_, line)| line)
    }

    /// The key at `span`, or the whole name of a table in its brackets.
    fn name_at(&self, span: Range<usize>) -> Option<String> {
        let line_start = self
            .text
            .get(..span.start)?
            .rfind('\n')
            .map_or(0, |it| it + 1);
        let line = self.text.get(line_start..)?.lines().next()?;
        let name = if line.trim_start().starts_with('[') {
            line.split_inclusive(']').next()?
        } else {
            self.text.get(span)?
        };
        Some(name.trim().to_owned())
    }

    /// Whether the line of a mistake gives a key a value that begins with a letter or a digit.
    fn is_without_quotes(&self, place: Place) -> bool {
        let Some(line) = line_of(place) else {
            return false;
        };
        let line = self.text.lines().nth(line - 1).unwrap_or_default();
        let Some((key, value)) = line.split_once('=') else {
            return false;
        };
        let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let key = key.trim();
        let begins_bare = |first: char| first.is_ascii_alphanumeric() || "/.~:".contains(first);
        !key.is_empty() && key.bytes().all(is_bare) && value.trim_start().starts_with(begins_bare)
    }

    fn config_without(&self, refused: &HashSet<Key>) -> Result<Config, Refusal> {
        let entries = Entries {
            rest: self.table.iter().flatten().collect::<Vec<_>>().into_iter(),
            current: None,
            key: Key::root(),
            refused,
        };
        Config::deserialize(serde::de::value::MapAccessDeserializer::new(entries))
    }
}

fn line_of(place: Place) -> Option<usize> {
    match place {
        Place::At { line, .. } => Some(line),
        Place::File | Place::Environment => None,
    }
}

/// A value of the file and its key.
struct Value<'a, 'i> {
    found: &'a DeValue<'i>,
    key: Key,
    refused: &'a HashSet<Key>,
}

impl<'de> Deserializer<'de> for Value<'_, '_> {
    type Error = Refusal;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        let Self {
            found,
            key,
            refused,
        } = self;
        match found {
            DeValue::String(text) => visitor.visit_str(text),
            DeValue::Boolean(flag) => visitor.visit_bool(*flag),
            DeValue::Integer(number) => {
                match i64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(number) => visitor.visit_i64(number),
                    Err(_) => Err(Refusal::invalid_type(Unexpected::Signed(0), &visitor)),
                }
            }
            DeValue::Float(number) => {
                visitor.visit_f64(number.as_str().parse().unwrap_or_default())
            }
            DeValue::Datetime(_) => {
                Err(Refusal::invalid_type(Unexpected::Other("a date"), &visitor))
            }
            DeValue::Array(items) => visitor.visit_seq(Items {
                rest: items.iter().enumerate().collect::<Vec<_>>().into_iter(),
                key: key.clone(),
                refused,
            }),
            DeValue::Table(table) => visitor.visit_map(Entries {
                rest: table.iter().collect::<Vec<_>>().into_iter(),
                current: None,
                key: key.clone(),
                refused,
            }),
        }
        .map_err(|refusal| refusal.or_at(&key))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_some(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        match self.found.as_str() {
            Some(text) => visitor.visit_enum(text.into_deserializer()),
            None => self.deserialize_any(visitor),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

type Entry<'a, 'i> = (
    &'a Spanned<std::borrow::Cow<'i, str>>,
    &'a Spanned<DeValue<'i>>,
);

/// The entries of a table.
struct Entries<'a, 'i> {
    rest: std::vec::IntoIter<Entry<'a, 'i>>,
    current: Option<Value<'a, 'i>>,
    key: Key,
    refused: &'a HashSet<Key>,
}

impl<'de> MapAccess<'de> for Entries<'_, '_> {
    type Error = Refusal;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Refusal> {
        for (name, value) in self.rest.by_ref() {
            let key = self.key.child(name.get_ref());
            if self.refused.contains(&key) {
                continue;
            }
            let parsed = seed
                .deserialize(name.get_ref().as_ref().into_deserializer())
                .map_err(|refusal: Refusal| refusal.or_at(&key))?;
            self.current = Some(Value {
                found: value.get_ref(),
                key,
                refused: self.refused,
            });
            return Ok(Some(parsed));
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Refusal> {
        let value = self
            .current
            .take()
            .ok_or_else(|| Refusal::custom("a value was asked for before its key"))?;
        let key = value.key.clone();
        seed.deserialize(value)
            .map_err(|refusal| refusal.or_at(&key))
    }
}

/// The elements of an array.
struct Items<'a, 'i> {
    rest: std::vec::IntoIter<(usize, &'a Spanned<DeValue<'i>>)>,
    key: Key,
    refused: &'a HashSet<Key>,
}

impl<'de> SeqAccess<'de> for Items<'_, '_> {
    type Error = Refusal;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Refusal> {
        for (index, value) in self.rest.by_ref() {
            let key = self.key.element(index);
            if self.refused.contains(&key) {
                continue;
            }
            let value = Value {
                found: value.get_ref(),
                key: key.clone(),
                refused: self.refused,
            };
            return seed
                .deserialize(value)
                .map(Some)
                .map_err(|refusal| refusal.or_at(&key));
        }
        Ok(None)
    }
}
